"""Published VideoMAE checkpoints: official files of pre-training and fine-tuning, and those of transformers."""

from __future__ import annotations

import argparse
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from ssat.core.errors import UserError
from ssat.encoders.videomae import VideoTransformer
from ssat.training.weights import load_encoder, load_pretrained
from tests.helpers import ROOT, fail_of

SMALL = partial(VideoTransformer, 4, 32, 8, embed_dim=24, depth=3, num_heads=2)
ONE_PASS = {"pretraining": ["fc_norm.weight", "fc_norm.bias"], "finetuning": ["norm.weight", "norm.bias"]}
OTHERS = {
    "mask_token": torch.ones(1, 1, 8),
    "decoder.head.bias": torch.ones(8),
    "encoder_to_decoder.weight": torch.ones(8, 24),
}


def encoder() -> VideoTransformer:
    made = SMALL()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return made


def official(source: VideoTransformer, stage: str) -> dict[str, Tensor]:
    """The tensors as the official code saves them."""
    own = {name: value for name, value in source.state_dict().items() if name not in ONE_PASS[stage]}
    if stage == "pretraining":
        return {f"encoder.{name}": value for name, value in own.items()} | OTHERS
    return own | {"head.weight": torch.ones(400, 24), "head.bias": torch.ones(400)}


def of_transformers(
    source: VideoTransformer, *, old_biases: bool = False, prefix: str = "videomae."
) -> dict[str, Tensor]:
    """The tensors of a pre-trained encoder under the names of transformers."""
    found = {}
    for name, value in source.state_dict().items():
        if name.startswith("fc_norm"):
            continue
        if name.endswith("qkv.weight"):
            block = name.split(".")[1]
            for part, matrix in zip(("query", "key", "value"), value.chunk(3), strict=True):
                found[f"{prefix}encoder.layer.{block}.attention.attention.{part}.weight"] = matrix.contiguous()
            continue
        for ours, theirs in (
            ("patch_embed.proj", "embeddings.patch_embeddings.projection"),
            ("blocks.", "encoder.layer."),
            ("attn.q_bias", "attention.attention.q_bias" if old_biases else "attention.attention.query.bias"),
            ("attn.v_bias", "attention.attention.v_bias" if old_biases else "attention.attention.value.bias"),
            ("attn.proj", "attention.output.dense"),
            ("mlp.fc1", "intermediate.dense"),
            ("mlp.fc2", "output.dense"),
            ("norm1", "layernorm_before"),
            ("norm2", "layernorm_after"),
        ):
            name = name.replace(ours, theirs)
        found[prefix + ("layernorm" + name.removeprefix("norm") if name.startswith("norm.") else name)] = value
    return found


def equal_but(a: VideoTransformer, b: VideoTransformer, names: list[str]) -> bool:
    theirs = b.state_dict()
    return all(torch.equal(value, theirs[name]) != (name in names) for name, value in a.state_dict().items())


@pytest.mark.parametrize("stage", list(ONE_PASS))
@pytest.mark.parametrize(
    ("wrapper", "prefix"),
    [("model", ""), ("module", ""), ("state_dict", "module."), ("state_dict", "backbone."), (None, "")],
)
def test_official_files_load_by_both_keys(stage: str, wrapper: str | None, prefix: str, tmp_path: Path) -> None:
    source = encoder()
    state = {prefix + name: value for name, value in official(source, stage).items() if not name.startswith("head.")}
    state |= {"cls_head.bias" if prefix == "backbone." else f"{prefix}head.bias": torch.ones(400)}
    content = state if wrapper is None else {wrapper: state, "args": argparse.Namespace(lr=1.0), "epoch": 800}
    torch.save(content, tmp_path / "checkpoint.pth")
    by_pretrained, by_init_from = encoder(), encoder()
    line = load_pretrained(by_pretrained, str(tmp_path / "checkpoint.pth"))
    assert line.startswith("43 of 45 tensors")
    assert line.endswith(f"; 2 tensors are missing ({', '.join(ONE_PASS[stage])})")
    assert load_encoder(by_init_from, tmp_path / "checkpoint.pth") == ONE_PASS[stage]
    for loaded in (by_pretrained, by_init_from):
        assert equal_but(loaded, source, ONE_PASS[stage])


@pytest.mark.parametrize("prefix", ["videomae.", ""])
@pytest.mark.parametrize("old_biases", [False, True])
@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
def test_files_of_transformers_load_by_both_keys(prefix: str, old_biases: bool, file: str, tmp_path: Path) -> None:
    source = encoder()
    state = of_transformers(source, old_biases=old_biases, prefix=prefix)
    if prefix:
        state |= OTHERS | {"classifier.weight": torch.ones(400, 24)}
    (save_file if file.endswith("safetensors") else torch.save)(state, tmp_path / file)
    by_pretrained, by_init_from = encoder(), encoder()
    line = load_pretrained(by_pretrained, str(tmp_path / file))
    assert line.endswith("; 2 tensors are missing (fc_norm.weight, fc_norm.bias)")
    assert load_encoder(by_init_from, tmp_path / file) == ["fc_norm.weight", "fc_norm.bias"]
    for loaded in (by_pretrained, by_init_from):
        assert equal_but(loaded, source, ONE_PASS["pretraining"])


def test_files_that_the_transformers_library_writes_load(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="the oracle is not installed")
    config = transformers.VideoMAEConfig(
        image_size=32, patch_size=8, num_frames=4, hidden_size=24, num_hidden_layers=3, num_attention_heads=2,
        intermediate_size=96, decoder_hidden_size=16, decoder_num_attention_heads=2, decoder_num_hidden_layers=1,
        decoder_intermediate_size=64,
    )  # fmt: skip
    for kind, missing in (("ForVideoClassification", "norm"), ("ForPreTraining", "fc_norm")):
        config.use_mean_pooling = missing == "norm"
        theirs = getattr(transformers, f"VideoMAE{kind}")(config)
        theirs.save_pretrained(tmp_path / kind)
        loaded = encoder()
        line = load_pretrained(loaded, str(tmp_path / kind / "model.safetensors"))
        assert line.endswith(f"; 2 tensors are missing ({missing}.weight, {missing}.bias)")
        weight = theirs.videomae.encoder.layer[1].attention.attention.key.weight
        assert torch.equal(loaded.blocks[1].attn.qkv.weight[24:48], weight)


def test_a_file_of_another_width_is_refused_by_both_keys(tmp_path: Path) -> None:
    other = VideoTransformer(4, 32, 8, embed_dim=48, depth=3, num_heads=2)
    torch.save({"model": official(other, "pretraining")}, tmp_path / "other.pth")
    with pytest.raises(UserError, match=r"fits 0% of this encoder's tensors, and 95% are needed: .*another shape"):
        load_pretrained(encoder(), str(tmp_path / "other.pth"))
    with pytest.raises(
        UserError,
        match=r"another encoder: 43 tensors are of another shape \(patch_embed.proj.weight is \(48, 3, 2, 8, 8\) in",
    ):
        load_encoder(encoder(), tmp_path / "other.pth")


def test_a_file_that_lacks_three_of_41_shared_tensors_is_refused(tmp_path: Path) -> None:
    state = official(encoder(), "finetuning")
    del state["blocks.1.mlp.fc1.weight"]
    torch.save({"model": state}, tmp_path / "short.pth")
    assert "missing (blocks.1.mlp.fc1.weight, " in load_pretrained(encoder(), str(tmp_path / "short.pth"))
    del state["blocks.1.mlp.fc2.weight"], state["patch_embed.proj.weight"]
    torch.save({"model": state}, tmp_path / "short.pth")
    with pytest.raises(UserError, match="fits 93% of this encoder's tensors"):
        load_pretrained(encoder(), str(tmp_path / "short.pth"))


def test_a_stem_of_other_channels_is_fitted_when_asked_for(tmp_path: Path) -> None:
    source, grey = encoder(), SMALL(in_chans=1)
    torch.save({"model": official(source, "pretraining")}, tmp_path / "colour.pth")
    with pytest.raises(UserError, match="encoder.adapt_stem=true"):
        load_pretrained(grey, str(tmp_path / "colour.pth"))
    load_pretrained(grey, str(tmp_path / "colour.pth"), adapt_stem=True)
    assert torch.equal(grey.patch_embed.proj.weight, source.patch_embed.proj.weight.sum(1, keepdim=True))


class Trojan:
    def __reduce__(self):
        return print, ("code was run",)


def test_a_file_that_holds_code_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    torch.save({"model": official(encoder(), "pretraining"), "args": Trojan()}, tmp_path / "bad.pth")
    with pytest.raises(UserError, match="holds more than tensors and plain values"):
        load_pretrained(encoder(), str(tmp_path / "bad.pth"))
    assert "code was run" not in capsys.readouterr().out


@pytest.mark.slow
def test_images_for_an_encoder_of_clips_are_refused_in_one_sentence(tmp_path: Path) -> None:
    words = ["encoder=videomae_micro", "data=digits", "data.img_size=64", "epochs=1", "trainer=cpu"]
    done = subprocess.run(
        [sys.executable, "-m", "src.train", *words, f"runs_dir={tmp_path}"], cwd=ROOT, capture_output=True, text=True
    )
    assert "reads clips, and data=digits gives single images" in fail_of(done)
