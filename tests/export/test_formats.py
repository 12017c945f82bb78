"""Every encoder through every format: the file computes what PyTorch computes, or is refused in one sentence."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import timm
import torch
from torch import nn

from ssat.commands.export import NAMES
from ssat.core.errors import UserError
from ssat.encoders.timm_vit import TimmVisionTransformer
from ssat.encoders.vit import VisionTransformer
from ssat.export import onnx_graph, program, timm_weights
from ssat.export.classifier import Classifier
from ssat.export.formats import FORMATS
from ssat.export.parity import TOLERANCE, Parity, compare, require
from ssat.training.build import build_module
from ssat.training.classification import linear_head
from tests.training.test_encoder_configs import NAMES as ENCODERS
from tests.training.test_encoder_configs import composed

# Sizes that keep every part of the architecture.
SMALL = {
    "cvt_13": ["encoder.dims=[16,32,32]", "encoder.depths=[1,1,2]", "encoder.num_heads=[1,2,2]"],
    "swin_t": ["encoder.embed_dim=24", "encoder.depths=[2,1,1,1]", "encoder.num_heads=[1,2,2,4]"],
    "resnet_50": ["encoder.depths=[1,1,1,1]"],
    "resnet_56": ["encoder.blocks=1"],
    "sl_vit": ["encoder.depth=2", "encoder.embed_dim=48", "encoder.num_heads=4"],
    "timm": ["encoder.name=test_vit"],
    **dict.fromkeys(("cct_7", "cct_2"), ["encoder.embed_dim=48", "encoder.depth=2", "encoder.num_heads=3"]),
    **dict.fromkeys(("videomae_s", "videomae_b"), ["encoder.embed_dim=48", "encoder.depth=2", "encoder.num_heads=3"]),
    **dict.fromkeys(
        ("vit", "vit_t", "vit_s", "vit_b", "vit_2m8", "deit_ti", "vit_micro"),
        ["encoder.depth=2", "encoder.embed_dim=48", "encoder.num_heads=3"],
    ),
}
PLAIN = ("vit", "vit_t", "vit_s", "vit_b", "vit_2m8", "deit_ti", "vit_micro", "timm")
QUICK = ("cvt_13",)  # the others take seconds each; tests/commands has vit_micro


def network(name: str, *overrides: str) -> Classifier:
    """The encoder of conf/encoder/<name>.yaml in a small size, its weights and running statistics at random."""
    videos = ["data=video_folder", "data.root=x", "data.frames=4", "data.img_size=32"] if "video" in name else []
    config = composed(name, *SMALL.get(name, []), "mode=scratch", *videos, *overrides)
    module = build_module(config, config.mode.phases[-1], 10)
    assert module.head is not None
    model = Classifier(module.encoder, module.head, name=name)
    for buffer in model.buffers():
        if buffer.is_floating_point() and buffer.ndim == 1:
            buffer.uniform_(0.5, 1.5)
    return model


def through(model: Classifier, name: str, folder: Path, batches: tuple[int, ...] = (1, 7)) -> Parity:
    """The comparison of the network with its file."""
    data, _ = FORMATS[name].encode(model)
    (folder / FORMATS[name].file).write_bytes(data)
    exported = FORMATS[name].decode(folder / FORMATS[name].file, model)
    return compare(model, exported, [model.example(batch, seed=batch) for batch in batches])


def test_every_encoder_is_tried() -> None:
    assert {*SMALL, "videomae_micro"} == {*ENCODERS}
    assert tuple(FORMATS) == NAMES


@pytest.mark.sampled
@pytest.mark.parametrize("name", ENCODERS)
def test_the_tensors_alone_give_the_same_logits_and_timm_does_or_is_refused(name: str, tmp_path: Path) -> None:
    model = network(name)
    assert through(model, "safetensors", tmp_path) == (8, 0.0, 0.0, 8)
    if name in PLAIN:
        parity = through(model, "timm", tmp_path)
        assert parity.difference < 1e-5
        assert parity.same_top1 == 8
        return
    with pytest.raises(UserError, match=f"encoder={name} is none: take format=safetensors, onnx or torch_export") as no:
        FORMATS["timm"].encode(model)
    assert no.value.key == "format"


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n not in QUICK)) for n in ENCODERS])
def test_a_graph_takes_any_batch_size(name: str, tmp_path: Path) -> None:
    assert through(network(name), "torch_export", tmp_path, (1, 2, 7)).relative < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("name", ENCODERS)
def test_onnxruntime_computes_the_same_for_any_batch_size(name: str, tmp_path: Path) -> None:
    import onnx

    model = network(name)
    parity = through(model, "onnx", tmp_path, (1, 2, 7))
    assert parity.relative < 1e-5
    assert parity.same_top1 == 10
    graph = onnx.load(tmp_path / "model.onnx").graph
    assert onnx_shapes(graph) == [["batch", *model.sample_shape], ["batch", 10]]
    # One softmax for each attention, however large the batch, and one for CCT's pooling; of a ResNet none.
    blocks = sum(hasattr(block, "attn") for block in model.encoder.residual_blocks())
    softmaxes = model.encoder.depth + 1 if name.startswith("cct") else blocks
    assert sum(node.op_type == "Softmax" for node in graph.node) == softmaxes


def onnx_shapes(graph) -> list[list]:
    """Of inputs and outputs; a free side has its name."""
    values = (*graph.input, *graph.output)
    return [[side.dim_param or side.dim_value for side in value.type.tensor_type.shape.dim] for value in values]


# ---- timm ----


def test_another_epsilon_and_missing_biases_are_in_the_call(tmp_path: Path) -> None:
    encoder = VisionTransformer(16, 4, embed_dim=24, depth=2, num_heads=2, mlp_ratio=2.0, qkv_bias=False, norm_eps=1e-3)
    model = Classifier(encoder, linear_head(24, 5), name="vit")
    call = timm_weights.create_call(model)
    assert "norm_layer=functools.partial(torch.nn.LayerNorm, eps=0.001)" in str(call)
    assert call.arguments["qkv_bias"] is False and call.arguments["mlp_ratio"] == 2.0
    assert through(model, "timm", tmp_path).difference < 1e-5


def test_the_batch_norm_of_a_linear_probe_becomes_a_part_of_the_head(tmp_path: Path) -> None:
    head = linear_head(24, 5, norm=True)
    assert isinstance(head, nn.Sequential) and isinstance(head[0], nn.BatchNorm1d)
    head[0].running_mean = torch.randn(24)
    head[0].running_var = torch.rand(24) + 0.5
    model = Classifier(VisionTransformer(16, 4, embed_dim=24, depth=1, num_heads=2), head, name="vit")
    parity = through(model, "timm", tmp_path)
    assert parity.difference < 1e-5
    assert through(model, "safetensors", tmp_path).difference == 0


@pytest.mark.parametrize("name", ["test_vit", "test_vit2", "test_vit3"])
def test_a_model_of_timm_is_exported_under_its_own_name(name: str, tmp_path: Path) -> None:
    model = Classifier(TimmVisionTransformer(name, 32), linear_head(timm.create_model(name).num_features, 5), name=name)
    assert timm_weights.create_call(model).name == name
    assert through(model, "timm", tmp_path).difference < 1e-5


# ---- what is refused ----


class OfFixedBatch(VisionTransformer):
    """As an encoder of the user's own may be."""

    def forward_features(self, images: torch.Tensor) -> torch.Tensor:
        return super().forward_features(images.view(int(len(images)), *images.shape[1:]))

    def embed(self, images: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        return super().embed(images) * float(images.mean().item() > -100)


def test_an_encoder_that_is_no_graph_is_refused_in_a_sentence() -> None:
    model = Classifier(OfFixedBatch(16, 4, embed_dim=24, depth=1, num_heads=2), linear_head(24, 5), name="mine")
    with pytest.raises(UserError, match=r"^format=onnx is not possible for encoder=mine: torch.export answers") as no:
        program.traced(model, "onnx")
    assert "take format=safetensors" in str(no.value) and "\n" not in str(no.value)


def test_a_missing_library_is_named_with_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(UserError, match=r'onnxscript, which is not installed: pip install "ssat\[export\]"'):
        onnx_graph.check_libraries()


# ---- parity ----


def logits_of(rows: list[list[float]]):
    return lambda images: torch.tensor(rows)


def test_parity_is_counted_by_hand() -> None:
    ours, theirs = logits_of([[4.0, 1.0], [0.0, 2.0]]), logits_of([[4.0, 1.5], [0.0, -1.0]])
    assert compare(ours, theirs, [torch.zeros(2, 1)]) == (2, 3.0, 0.75, 1)


@pytest.mark.parametrize(
    ("theirs", "accepted"),
    [
        ([4.0, 1.0], True),
        ([4.0, 1.0 + 3.9e-4], True),  # of the largest logit, 4
        ([4.0, 1.0 + 4.1e-4], False),
        ([float("nan"), 1.0], False),
    ],
)
def test_more_than_a_ten_thousandth_is_refused(theirs: list[float], accepted: bool) -> None:
    parity = compare(logits_of([[4.0, 1.0]]), logits_of([theirs]), [torch.zeros(1, 1)])
    if accepted:
        return require(parity, "test images", "onnx")
    with pytest.raises(UserError, match="format=onnx does not compute what PyTorch computes on 1 test images"):
        require(parity, "test images", "onnx")


def test_another_top_1_is_refused_however_small_the_difference() -> None:
    close = TOLERANCE / 100
    parity = compare(logits_of([[1.0, 1.0 + close]]), logits_of([[1.0 + close, 1.0]]), [torch.zeros(1, 1)])
    with pytest.raises(UserError, match="same top-1 on 0 of them"):
        require(parity, "random inputs", "timm")


def test_a_network_that_has_diverged_is_no_export() -> None:
    with pytest.raises(UserError, match="predicts nan"):
        compare(logits_of([[float("nan"), 1.0]]), logits_of([[1.0, 1.0]]), [torch.zeros(1, 1)])
