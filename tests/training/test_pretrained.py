"""Start weights from files and from timm, for every kind of encoder."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from torch import nn

from ssat.core.errors import UserError
from ssat.encoders.base import Encoder
from ssat.encoders.cvt import ConvolutionalVisionTransformer
from ssat.encoders.resnet import ResNet
from ssat.encoders.swin import SwinTransformer
from ssat.encoders.timm_vit import TimmVisionTransformer
from ssat.encoders.vit import VisionTransformer
from ssat.training.build import build_encoder
from ssat.training.weights import adapt_channels, load_pretrained
from tests.helpers import command, config, fail_of, train, weights


def saved(model: nn.Module, folder: Path) -> str:
    """The network's weights as timm publishes them: plain names, with a classifier."""
    torch.save(model.state_dict(), folder / "weights.pth")
    return str(folder / "weights.pth")


def equal(encoder: Encoder, model: nn.Module) -> bool:
    own, theirs = encoder.state_dict(), model.state_dict()
    shared = [name for name in own if name.removeprefix("model.") in theirs]
    assert len(shared) >= 0.95 * len(own)
    return all(torch.equal(own[name], theirs[name.removeprefix("model.")]) for name in shared)


@pytest.mark.parametrize(
    ("name", "encoder"),
    [
        ("test_vit", lambda: TimmVisionTransformer("test_vit", 160)),
        ("vit_tiny_patch16_224", lambda: VisionTransformer(224, 16, depth=12, pos_embed="learnable")),
        ("swin_tiny_patch4_window7_224", lambda: SwinTransformer(224)),
        ("resnet50", lambda: ResNet(64)),
    ],
)
def test_a_published_file_fills_the_encoder(name: str, encoder, tmp_path: Path) -> None:
    torch.manual_seed(0)
    theirs, ours = timm.create_model(name), encoder()
    assert not equal(ours, theirs)
    line = load_pretrained(ours, saved(theirs, tmp_path))
    assert "tensors of the encoder from" in line
    assert equal(ours, theirs)


def test_tables_and_patches_are_resampled_to_another_size(tmp_path: Path) -> None:
    theirs = timm.create_model("test_vit")  # 160 px, patches of 16: 10 x 10 positions
    encoder = TimmVisionTransformer("test_vit", 64, patch_size=8)
    load_pretrained(encoder, saved(theirs, tmp_path))
    assert encoder.model.pos_embed.shape == (1, 65, 64)
    assert torch.equal(encoder.model.pos_embed[:, 0], theirs.pos_embed[:, 0])
    assert torch.equal(encoder.model.blocks[1].mlp.fc1.weight, theirs.blocks[1].mlp.fc1.weight)
    patch, fresh = encoder.model.patch_embed.proj, TimmVisionTransformer("test_vit", 64, patch_size=8).model.patch_embed
    assert patch.weight.shape == (64, 3, 8, 8)
    assert torch.equal(patch.bias, theirs.patch_embed.proj.bias)
    # Resampled weights follow those of the file, unlike fresh ones: compared at the coarsest scale, their means.
    means = [w.mean((2, 3)).flatten() for w in (theirs.patch_embed.proj.weight, patch.weight, fresh.proj.weight)]
    correlation = torch.corrcoef(torch.stack(means))[0]
    assert correlation[1] > 0.95 > 0.3 > correlation[2].abs()


def test_swins_bias_tables_are_resampled_to_another_window(tmp_path: Path) -> None:
    small = {"embed_dim": 12, "depths": (1, 1, 1, 1), "num_heads": (1, 2, 2, 4)}
    given = SwinTransformer(64, 2, 8, 8, **small)
    encoder = SwinTransformer(32, 2, 4, 4, **small)
    load_pretrained(encoder, saved(given.model, tmp_path))
    name = "layers.0.blocks.0.attn.relative_position_bias_table"
    table, theirs = (model.get_parameter(name) for model in (encoder.model, given.model))
    assert (table.shape, theirs.shape) == ((49, 1), (225, 1))
    assert torch.allclose(table[24], theirs[112], atol=1e-3)  # both tables' centres: no offset


def test_another_architecture_is_refused_with_what_is_missing_and_unexpected(tmp_path: Path) -> None:
    encoder = VisionTransformer(32, 4, embed_dim=24, depth=3, num_heads=2)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    path = saved(ResNet(32, depths=(1, 1, 1, 1)).model, tmp_path)
    with pytest.raises(UserError) as error:
        load_pretrained(encoder, path)
    for part in (
        "fits 0% of",
        "95%",
        "are missing (cls_token, ",
        "are unexpected (conv1.weight, ",
        "another architecture",
    ):
        assert part in str(error.value)
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())


def test_a_few_missing_tensors_are_reported_and_the_rest_is_used(tmp_path: Path) -> None:
    sizes = {"embed_dim": 24, "depth": 4, "num_heads": 2}
    given, encoder = VisionTransformer(32, 4, **sizes), VisionTransformer(32, 4, **sizes)
    state = given.state_dict() | {"extra": torch.ones(1)}
    del state["norm.bias"]
    torch.save(state, tmp_path / "part.pth")
    line = load_pretrained(encoder, str(tmp_path / "part.pth"))
    assert "53 of 54 tensors" in line and line.endswith("; 1 tensor is missing (norm.bias), 1 is unexpected (extra)")
    assert torch.equal(encoder.blocks[2].attn.qkv.weight, given.blocks[2].attn.qkv.weight)


@pytest.mark.parametrize("channels", [1, 4])
def test_other_channels_need_to_be_asked_for(channels: int, tmp_path: Path) -> None:
    small = {"dims": (8, 16, 24), "depths": (1, 1, 1), "num_heads": (1, 2, 3), "strides": (1, 2, 2)}
    given = ConvolutionalVisionTransformer(16, **small)
    encoder = ConvolutionalVisionTransformer(16, in_chans=channels, **small)
    path = saved(given, tmp_path)
    with pytest.raises(UserError, match=rf"reads 3 channels and data.channels={channels}.*encoder.adapt_stem=true"):
        load_pretrained(encoder, path)
    load_pretrained(encoder, path, adapt_stem=True)
    grey = torch.rand(1, 1, 16, 16)
    responses = [
        nn.functional.conv2d(grey.expand(-1, model.in_chans, -1, -1), model.stages[0].embed.weight)
        for model in (given, encoder)
    ]
    if channels == 1:
        assert torch.allclose(*responses, atol=1e-5)


def test_a_stem_for_more_channels_keeps_the_size_of_its_response() -> None:
    weight = torch.rand(2, 3, 1, 1)
    wider = adapt_channels(weight, 6)
    assert torch.allclose(wider.sum(1), weight.sum(1))
    assert torch.allclose(adapt_channels(weight, 1)[:, 0], weight.sum(1))


def test_timm_weights_of_an_architecture_that_timm_has_not_are_refused() -> None:
    with pytest.raises(UserError, match="timm has no weights for VisionTransformer.*encoder=timm"):
        load_pretrained(VisionTransformer(32, 4, embed_dim=24, depth=1, num_heads=2), True)


def test_without_a_network_the_message_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"could not be fetched.*encoder.pretrained=<file>"):
        load_pretrained(TimmVisionTransformer("vit_medium_patch16_gap_240", 240), True)


def test_finetuning_starts_from_a_file_by_command(tmp_path: Path) -> None:
    source = VisionTransformer(32, 4, embed_dim=32, depth=2, num_heads=2)
    run = train(
        *("mode=finetune", "data.img_size=32", "epochs=1", "recipe.base_lr=1e-12", "recipe.min_lr=0"),
        f"encoder.pretrained={saved(source, tmp_path)}",
        runs=tmp_path / "runs",
    )
    ends = weights(run, "finetune")
    for name, value in source.state_dict().items():
        assert torch.allclose(ends[f"encoder.{name}"], value, atol=1e-6), name


def test_weights_given_twice_or_not_at_all_are_refused(tmp_path: Path) -> None:
    assert "needs start weights" in fail_of(command("mode=finetune", runs=tmp_path))
    given = fail_of(command("mode=finetune", "mode.init_from=a", "encoder.pretrained=b", runs=tmp_path))
    assert "both given" in given


def test_published_weights_bring_their_position_table_to_another_grid(tmp_path: Path) -> None:
    file = saved(timm.create_model("vit_tiny_patch16_224"), tmp_path)
    words = ["encoder=vit_t", "encoder.patch_size=16", "data=cifar10", "mode=finetune", f"encoder.pretrained={file}"]
    chosen = config(*words, "data.img_size=64")
    encoder = build_encoder(chosen, chosen.mode.phases[0])
    before = encoder.pos_embed.clone()
    load_pretrained(encoder, file)
    given = torch.load(file)["pos_embed"]
    assert encoder.pos_embed.requires_grad
    assert encoder.pos_embed.shape == (1, 17, 192)
    assert torch.equal(encoder.pos_embed[:, 0], given[:, 0])
    assert not torch.allclose(encoder.pos_embed, before, atol=1e-3)
