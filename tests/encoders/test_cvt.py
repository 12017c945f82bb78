"""CvT-13 against its published sizes, its plain pass and the transformers library."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from ssat.core.errors import UserError
from ssat.encoders.cvt import ConvolutionalVisionTransformer, MaskedBatchNorm
from ssat.runs.footprint import macs_of, trainable
from ssat.tasks.reconstruction import Reconstruction


def cvt(size: int, strides: tuple[int, int, int], **options) -> ConvolutionalVisionTransformer:
    torch.manual_seed(0)
    return ConvolutionalVisionTransformer(size, strides=strides, **options)


@pytest.mark.parametrize(
    ("size", "strides", "classes", "giga_macs"),
    [
        (224, (4, 2, 2), 1000, 4.566089),
        (32, (1, 2, 2), 10, 1.391390),
        (32, (2, 2, 2), 10, 0.351002),
        (64, (4, 2, 2), 10, 0.351002),
        (28, (1, 2, 2), 10, 1.072501),
    ],
)
def test_parameters_and_macs_are_the_official_ones(size: int, strides: tuple, classes: int, giga_macs: float) -> None:
    encoder, head = cvt(size, strides).eval(), nn.Linear(384, classes)
    assert trainable(encoder) + trainable(head) == 19_997_480 - (1000 - classes) * 385
    images = torch.zeros(1, 3, size, size)
    assert macs_of(lambda: head(encoder.forward_features(images))) / 1e9 == pytest.approx(giga_macs, abs=1e-6)


def test_stages_have_the_official_sizes() -> None:
    encoder = cvt(32, (1, 2, 2))
    assert [trainable(stage) for stage in encoder.stages] == [61_696, 1_013_568, 18_536_448]
    assert [trainable(stage.blocks[0]) for stage in encoder.stages] == [52_096, 451_200, 1_787_136]
    assert sum(buffer.numel() for buffer in encoder.buffers()) == 25_767


@pytest.mark.parametrize(
    ("size", "strides", "options", "parameters"),
    [
        (32, (1, 2, 2), {"decoder_depth": 1}, 287_152),
        (32, (2, 2, 2), {"decoder_depth": 1}, 305_728),
        (224, (4, 2, 2), {"decoder_depth": 1}, 380_032),
        (32, (1, 2, 2), {"decoder_depth": 2}, 485_424),
        (32, (1, 2, 2), {"decoder_depth": 1, "fuse": "conv"}, 483_760),
        (32, (1, 2, 2), {"decoder_depth": 1, "fuse": "last"}, 254_128),
    ],
)
def test_decoders_have_the_counted_sizes(size: int, strides: tuple, options: dict, parameters: int) -> None:
    assert trainable(Reconstruction(cvt(size, strides), **options)) == parameters


@pytest.mark.parametrize(("size", "strides"), [(32, (1, 2, 2)), (32, (2, 2, 2))])
def test_a_mask_that_hides_nothing_is_the_full_pass_in_training(size: int, strides: tuple) -> None:
    full = cvt(size, strides, drop_path=0.0).train().double()  # two ways to sum a batch's statistics round differently
    masked = copy.deepcopy(full)
    images = torch.randn(3, 3, size, size, dtype=torch.float64)
    maps, cls = full.maps(images, None)
    seen, seen_cls = masked.maps(images, torch.ones(3, 1, *full.mask_grid, dtype=torch.float64))
    for a, b in zip([*maps, cls], [*seen, seen_cls], strict=True):
        assert (a - b).abs().max() <= 1e-13 * max(1.0, float(a.detach().abs().max()))


def test_a_masked_pass_leaves_the_running_statistics_alone_and_a_full_one_does_not() -> None:
    encoder = cvt(16, (1, 2, 2), dims=(8, 16, 24), num_heads=(1, 2, 3)).train()
    images = torch.randn(4, 3, 16, 16)
    mask = torch.rand(4, 16).argsort(1) < 12
    before = {name: value.clone() for name, value in encoder.named_buffers()}
    encoder.forward_masked(images, mask)
    assert all(torch.equal(value, before[name]) for name, value in encoder.named_buffers())
    encoder.forward_joint(images, mask)
    changed = [name for name, value in encoder.named_buffers() if not torch.equal(value, before[name])]
    assert len(changed) == len(before)
    assert all(int(value) == 1 for name, value in encoder.named_buffers() if name.endswith("num_batches_tracked"))


def test_masked_statistics_are_those_of_the_visible_positions() -> None:
    norm = MaskedBatchNorm(5)
    x, visible = torch.randn(4, 5, 6, 6) * 3 + 2, (torch.rand(4, 1, 6, 6) < 0.4).float()
    out = norm(x, visible).detach()
    chosen = out.permute(1, 0, 2, 3)[:, visible[:, 0].bool()]
    assert torch.allclose(chosen.mean(1), torch.zeros(5), atol=1e-6)
    assert torch.allclose(chosen.var(1, unbiased=False), torch.ones(5), atol=1e-4)
    assert (out * (1 - visible)).abs().max() == 0


@pytest.mark.parametrize(("size", "strides"), [(30, (1, 2, 2)), (28, (4, 2, 2)), (4, (1, 2, 2))])
def test_sizes_that_the_strides_cannot_carry_are_refused(size: int, strides: tuple) -> None:
    with pytest.raises(UserError, match="not a multiple|one cell"):
        cvt(size, strides)


def test_evaluation_equals_the_transformers_library() -> None:
    transformers = pytest.importorskip("transformers", reason="the oracle is not installed")
    from transformers.models.cvt.modeling_cvt import CvtForImageClassification

    theirs = CvtForImageClassification(transformers.CvtConfig(num_labels=10)).eval()
    encoder, head = cvt(224, (4, 2, 2)).eval(), nn.Linear(384, 10)
    load_theirs(encoder, head, theirs.state_dict())
    for block in (block for stage in encoder.stages for block in stage.blocks):
        block.mlp.activation = nn.GELU()  # their MLP has it in place of the official QuickGELU
    images = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        assert (head(encoder.forward_features(images)) - theirs(images).logits).abs().max() < 1e-5


def load_theirs(encoder: nn.Module, head: nn.Linear, state: dict[str, Tensor]) -> None:
    """Copy their weights under our names."""
    renamed = {}
    for name, value in state.items():
        ours = (
            name.replace("cvt.encoder.stages.", "stages.")
            .replace("embedding.convolution_embeddings.projection", "embed")
            .replace("embedding.convolution_embeddings.normalization", "norm")
            .replace(".layers.", ".blocks.")
            .replace("layernorm_before", "norm1")
            .replace("layernorm_after", "norm2")
            .replace("attention.output.dense", "attn.proj")
            .replace("intermediate.dense", "mlp.fc1")
            .replace("output.dense", "mlp.fc2")
        )
        for long, short in (("query", "q"), ("key", "k"), ("value", "v")):
            ours = ours.replace(
                f"attention.attention.convolution_projection_{long}.convolution_projection.convolution",
                f"attn.{short}.conv",
            )
            ours = ours.replace(
                f"attention.attention.convolution_projection_{long}.convolution_projection.normalization",
                f"attn.{short}.bn",
            )
            ours = ours.replace(f"attention.attention.projection_{long}", f"attn.{short}.linear")
        renamed[ours] = value
    head.load_state_dict({key: renamed.pop(f"classifier.{key}") for key in ("weight", "bias")})
    final = {f"norm.{key}": renamed.pop(f"layernorm.{key}") for key in ("weight", "bias")}
    encoder.load_state_dict(renamed | final)


@pytest.mark.parametrize(
    ("size", "strides", "kept", "giga_macs"),
    [(32, (1, 2, 2), 16, 0.677330), (32, (2, 2, 2), 4, 0.173590), (224, (4, 2, 2), 49, 2.341654)],
)
def test_computing_visible_tokens_alone_halves_the_masked_pass(
    size: int, strides: tuple, kept: int, giga_macs: float
) -> None:
    encoder = cvt(size, strides).eval()
    cells = encoder.mask_grid[0] * encoder.mask_grid[1]
    mask = torch.arange(cells).unsqueeze(0) >= kept
    images = torch.zeros(1, 3, size, size)
    masked, full = (
        macs_of(lambda call=call: call()) / 1e9
        for call in (lambda: encoder.forward_masked(images, mask), lambda: encoder.forward_features(images))
    )
    assert masked == pytest.approx(giga_macs, rel=0.005)
    assert masked / full <= 0.55
