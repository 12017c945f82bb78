"""Swin-T against timm's, its published sizes and SimMIM's masked pass."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

from ssat.config.defaults import default_mask_unit, default_swin_patch, default_window
from ssat.core.errors import UserError
from ssat.encoders.swin import SwinTransformer
from ssat.runs.footprint import count_parameters, macs_of, trainable
from ssat.tasks.reconstruction import Reconstruction


def swin(size: int, **options) -> SwinTransformer:
    """Swin-T with the sizes that conf/encoder/swin_t.yaml chooses for `size` pixels."""
    torch.manual_seed(0)
    patch = default_swin_patch(size)
    sizes = {"patch_size": patch, "window_size": default_window(size, patch), "mask_unit": default_mask_unit(size)}
    return SwinTransformer(size, **(sizes | options))


@pytest.mark.sampled
@pytest.mark.parametrize(
    ("size", "classes", "parameters", "giga_macs", "grid"),
    [
        (224, 10, 27_527_044, 4.490, 14),
        (224, 1000, 28_288_354, 4.490, 14),
        (256, 10, 27_534_772, 5.920, 16),
        (64, 10, 27_507_028, 1.432, 8),
        (32, 10, 27_505_108, 0.358, 8),
        (28, 10, 27_516_964, 1.176, 7),
    ],
)
def test_parameters_and_macs_are_the_official_ones(
    size: int, classes: int, parameters: int, giga_macs: float, grid: int
) -> None:
    encoder, head = swin(size).eval(), nn.Linear(768, classes)
    assert count_parameters(encoder, head, None)["inference"] == parameters
    assert encoder.mask_grid == (grid, grid)
    images = torch.zeros(1, 3, size, size)
    assert macs_of(lambda: head(encoder.forward_features(images))) / 1e9 == pytest.approx(giga_macs, rel=0.005)
    mask = torch.arange(grid**2).unsqueeze(0) >= grid**2 // 4
    masked, full = (
        macs_of(call) for call in (lambda: encoder.forward_masked(images, mask), lambda: encoder.forward_map(images))
    )
    assert masked == full


@pytest.mark.parametrize(("size", "options"), [(32, {}), (224, {})])
def test_full_pass_is_timms(size: int, options: dict) -> None:
    encoder = swin(size, **options).eval()
    theirs = timm.create_model(
        "swin_tiny_patch4_window7_224",
        num_classes=0,
        img_size=size,
        patch_size=default_swin_patch(size),
        window_size=default_window(size, default_swin_patch(size)),
    ).eval()
    theirs.load_state_dict(encoder.model.state_dict())
    images = torch.randn(2, 3, size, size)
    with torch.no_grad():
        assert torch.equal(encoder.forward_features(images), theirs(images))
        nothing = torch.zeros(2, encoder.mask_grid[0] ** 2, dtype=torch.bool)
        shown = encoder.forward_masked(images, nothing).maps[0]
        assert torch.equal(shown.permute(0, 2, 3, 1), theirs.forward_features(images))


def test_a_hidden_cell_holds_the_mask_token() -> None:
    encoder = swin(32).eval()
    seen = []
    encoder.model.layers[0].blocks[0].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    mask = torch.zeros(1, 64, dtype=torch.bool)
    mask[0, 9] = True  # cell (1, 1) of 8 x 8: tokens (2:4, 2:4)
    images = torch.randn(1, 3, 32, 32)
    encoder.forward_masked(images, mask)
    encoder.forward_features(images)
    masked, full = seen
    assert torch.equal(masked[0, 2:4, 2:4], encoder.mask_token[0].expand(2, 2, -1))
    assert (masked != full).any(dim=3).sum() == 4


@pytest.mark.parametrize(
    ("size", "options", "task", "parameters"),
    [
        (32, {"patch_size": 1}, {"decoder": "simmim"}, 147_648),
        (32, {}, {"decoder": "simmim"}, 590_592),
        (224, {}, {"decoder": "simmim"}, 2_362_368),
        (32, {}, {"decoder": "swin_light", "fuse": "last", "decoder_depth": 1}, 303_152),
    ],
)
def test_decoders_have_the_counted_sizes(size: int, options: dict, task: dict, parameters: int) -> None:
    assert trainable(Reconstruction(swin(size, **options), **task)) == parameters


def test_prediction_lies_where_the_image_does() -> None:
    # A head that copies channel 5 of the map into every pixel shows where each position's pixels go.
    encoder = swin(28).eval()
    task = Reconstruction(encoder, decoder="simmim")
    nn.init.zeros_(task.decoder.head.weight), nn.init.zeros_(task.decoder.head.bias)
    task.decoder.head.weight.data[:, 5] = 1
    mask = torch.arange(49).unsqueeze(0) >= 12
    images = torch.randn(1, 3, 28, 28)
    channel = encoder.forward_masked(images, mask).maps[0][0, 5]
    assert channel.shape == (4, 4)  # 8 pixels a position: the last column and row reach beyond the image
    pixels = channel.repeat_interleave(8, 0).repeat_interleave(8, 1)[:28, :28]
    whole = torch.ones_like(mask)
    rebuilt = task.decoder.forward_all(encoder.forward_masked(images, mask), whole)
    expected = pixels.view(7, 4, 7, 4).permute(0, 2, 1, 3).reshape(49, 16).repeat_interleave(3, 1)
    assert torch.allclose(rebuilt[0], expected)


@pytest.mark.parametrize(
    ("arguments", "problem", "advice"),
    [
        ({"img_size": 30}, "img_size=30 is not a multiple of encoder.mask_unit=4", "data.img_size=8 or 16 or 32"),
        ({"img_size": 31}, "img_size=31 is not a multiple of encoder.patch_size=2", "data.img_size="),
        ({"img_size": 32, "window_size": 5}, "encoder.window_size=5 does not divide the 16 x 16", "window_size=2 or 4"),
        ({"img_size": 4}, "a mask grid of one cell", "data.img_size=8"),
        ({"img_size": 32, "mask_unit": 6}, "not a multiple of encoder.mask_unit=6", ""),
        ({"img_size": 48, "mask_unit": 6}, "must be a multiple of encoder.patch_size=2 and divide 16", ""),
    ],
)
def test_sizes_that_do_not_fit_are_refused_with_those_that_do(arguments: dict, problem: str, advice: str) -> None:
    sizes = {"patch_size": 2, "window_size": 4, "mask_unit": 4} | arguments
    with pytest.raises(UserError) as error:
        SwinTransformer(**sizes)
    assert problem in str(error.value)
    assert advice in str(error.value)


def test_what_the_message_recommends_works() -> None:
    with pytest.raises(UserError, match=r"encoder.window_size=2 or 4 or 8 or 16, or data.img_size=(\d+)"):
        SwinTransformer(32, 2, 7, 4)
    for window in (2, 4, 8, 16):
        SwinTransformer(32, 2, window, 4)
