"""The augmentation of clips: the same for all frames, known answers of every operation, shares, refused values."""

from __future__ import annotations

import colorsys
from collections.abc import Callable
from io import BytesIO
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ssat.core.errors import UserError
from ssat.data.transforms import clip_operations as ops
from ssat.data.transforms.clip_augment import ClipAugment, ClipEval

OFF = {f"{name}_prob": 0.0 for name in ("jpeg", "noise", "blur", "hflip", "colour", "grey", "affine")}
ALONE: dict[str, dict[str, Any]] = {
    "jpeg": {"jpeg_prob": 1.0},
    "noise": {"noise_prob": 1.0},
    "blur": {"blur_prob": 1.0, "blur_sigma": (0.3, 3.0)},
    "hflip": {"hflip_prob": 1.0},
    "resize": {},
    "brightness, PCA or HSV": {"colour_prob": 1.0},
    "grey": {"grey_prob": 1.0},
    "affine": {"affine_prob": 1.0},
    "reverse": {"reverse_prob": 1.0},
    "resample": {"resample_prob": 1.0},
}


def picture(height: int = 20, width: int = 20, seed: int = 0) -> Tensor:
    """A smooth coloured frame (3, H, W)."""
    noise = torch.rand(1, 3, height // 4 + 2, width // 4 + 2, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(255 * noise, (height, width), mode="bicubic").clamp(0, 255).to(torch.uint8)[0]


def still(frames: int = 4, **shape: int) -> Tensor:
    return picture(**shape).expand(frames, -1, -1, -1).contiguous()


def moving(frames: int = 6, **shape: int) -> Tensor:
    return torch.stack([picture(seed=seed, **shape) for seed in range(frames)])


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("name", ALONE)
def test_equal_frames_stay_equal_in_each_operation(name: str) -> None:
    augment = ClipAugment(16, **OFF | ALONE[name])
    for seed in range(25):
        out = augment(still(height=24, width=20), rng(seed))
        assert out.dtype == torch.uint8 and out.shape == (4, 3, 16, 16)
        assert (out == out[:1]).all()


def test_equal_frames_stay_equal_in_all_of_them_together() -> None:
    augment = ClipAugment(16, noise_prob=0.5, blur_prob=0.5, reverse_prob=0.5, resample_prob=0.5)
    results = [augment(still(), rng(seed)) for seed in range(80)]
    assert all((out == out[:1]).all() for out in results)
    assert len({out.numpy().tobytes() for out in results}) > 75


def test_noise_can_be_another_in_every_frame() -> None:
    out = ClipAugment(20, **OFF | {"noise_prob": 1.0}, noise_per_frame=True)(still(), rng())
    assert all(not torch.equal(out[0], frame) for frame in out[1:])


def test_a_seed_means_one_result() -> None:
    augment = ClipAugment(16)
    for seed in range(20):
        assert torch.equal(augment(moving(), rng(seed)), augment(moving(), rng(seed)))


def test_nothing_is_left_of_the_input_but_its_pixels() -> None:
    clip = moving()
    before = clip.clone()
    for seed in range(20):
        ClipAugment(20)(clip, rng(seed))
    assert torch.equal(clip, before)


def test_without_operations_a_clip_of_the_size_stays_itself() -> None:
    assert torch.equal(ClipAugment(20, **OFF)(moving(), rng()), moving())
    assert torch.equal(ClipEval(20)(moving()), moving())


def test_compression_is_that_of_a_jpeg_file() -> None:
    for quality in (60, 100):
        found = ops.compress(moving(height=32, width=32), quality)
        for frame, before in zip(found, moving(height=32, width=32), strict=True):
            file = BytesIO()
            Image.fromarray(before.permute(1, 2, 0).numpy()).save(file, "JPEG", quality=quality, subsampling=2)
            expected = torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1)
            assert (frame.int() - expected.int()).abs().float().mean() < 0.5
    errors = [(ops.compress(moving(), quality).int() - moving().int()).abs().float().mean() for quality in (60, 95)]
    assert errors[0] > 1.3 * errors[1]


def test_noise_has_the_variance_that_is_asked_for() -> None:
    grey = torch.full((4, 3, 64, 64), 128, dtype=torch.uint8)
    augment = ClipAugment(64, **OFF | {"noise_prob": 1.0}, noise_var=(30.0, 30.0))
    noise = augment(grey, rng()).float() - 128
    assert noise.var().item() == pytest.approx(30 + 1 / 12, rel=0.05) and abs(noise.mean()) < 0.1  # 1/12 of rounding
    assert torch.corrcoef(noise[0].flatten(1)).triu(1).abs().max() < 0.06  # of the colours


def test_noise_stays_within_black_and_white() -> None:
    assert ops.add_noise(torch.zeros(1, 3, 2, 2, dtype=torch.uint8), torch.full((1, 3, 2, 2), -9.0)).max() == 0
    assert ops.add_noise(torch.full((1, 3, 2, 2), 250, dtype=torch.uint8), torch.full((1, 3, 2, 2), 9.0)).min() == 255


def test_blur_is_the_kernel_of_quarter_half_quarter() -> None:
    point = torch.zeros(1, 3, 5, 5, dtype=torch.uint8)
    point[:, :, 2, 2] = 160
    expected = torch.tensor([[10, 20, 10], [20, 40, 20], [10, 20, 10]])
    assert torch.equal(ops.blur(point, 3, ops.BLUR_SIGMA)[0, 0, 1:4, 1:4].int(), expected.int())


def test_mirrored_pixels() -> None:
    assert torch.equal(ops.mirror(moving()), moving()[..., torch.arange(19, -1, -1)])


def test_a_clip_is_resized_to_its_longest_side_and_padded_in_black() -> None:
    white = torch.full((2, 3, 20, 30), 255, dtype=torch.uint8)
    for size, high in ((15, 10), (60, 40), (31, 21)):
        out = ops.fit(white, size)
        assert out.shape == (2, 3, size, size)
        top = (size - high) // 2
        assert (out[:, :, top : top + high] == 255).all() and out[:, :, :top].sum() == 0
        assert out[:, :, top + high :].sum() == 0


def test_shrinking_by_area_takes_means() -> None:
    clip = moving(height=24, width=24)
    means = F.avg_pool2d(clip.float(), 3)
    assert (ops.fit(clip, 8).float() - means).abs().max() <= 1  # rounded after the columns and after the rows
    ramp = torch.tensor([0, 60, 120], dtype=torch.uint8).expand(1, 3, 3, 3)
    assert ops.fit(ramp, 2)[0, 0, 0].tolist() == [20, 100]  # 2/3 of 0 and 1/3 of 60; 1/3 of 60 and 2/3 of 120


def test_shrinking_by_neighbours_does_not() -> None:
    stripes = torch.tensor([0, 0, 240, 240], dtype=torch.uint8).repeat(4).expand(1, 3, 16, 16)
    assert ops.fit(stripes, 4, "linear")[0, 0, 0].tolist() == [120] * 4  # between the two in the middle
    assert ops.fit(stripes[..., :8, :8], 4, "linear")[0, 0, 0].tolist() == [0, 240, 0, 240]


def test_brightness_and_contrast_by_hand() -> None:
    clip = torch.tensor([0, 100, 200], dtype=torch.uint8).view(1, 1, 1, 3).expand(1, 3, 1, 3)
    assert ops.brightness_contrast(clip, 0.1, -0.2)[0, 0, 0].tolist() == [26, 106, 186]
    assert ops.brightness_contrast(clip, -0.2, 0.2)[0, 0, 0].tolist() == [0, 69, 189]
    assert ops.brightness_contrast(clip, 0.2, 0.2)[0, 0, 0].tolist() == [51, 171, 255]


def test_fancy_pca_moves_all_pixels_along_the_colours_of_the_clip() -> None:
    grey = torch.arange(0, 250, 10, dtype=torch.uint8).view(1, 1, 5, 5).expand(2, 3, 5, 5).contiguous()
    variance = np.var(np.repeat(np.arange(0, 250, 10), 2) / 255, ddof=1)
    # Grey has one colour, (1, 1, 1) / sqrt(3), whose variance is three times that of a channel.
    shift = round(255 * 0.3 * 3 * variance / np.sqrt(3))
    for alpha, moved in ((0.3, shift), (-0.3, -shift)):
        out = ops.fancy_pca(grey, np.array([0.0, 0.0, alpha])).int()
        assert shift > 5 and torch.equal(out, (grey.int() + moved).clamp(0, 255))
    assert torch.equal(ops.fancy_pca(grey, np.array([5.0, 5.0, 0.0])), grey)  # no variance in other directions


def test_fancy_pca_changes_eight_bits_at_the_default_strength() -> None:
    augment, clip = ClipAugment(64), moving(height=64, width=64)
    changes = [(augment.pca(clip, rng(seed)).int() - clip.int()).abs().float().mean() for seed in range(50)]
    assert 0.3 < np.mean(changes) < 3 and max(changes) > 1  # grey levels


def test_hue_saturation_and_value_are_those_of_colorsys() -> None:
    clip = moving(height=8, width=8)
    found = ops.shift_hsv(clip, 15.0, 25.0, -18.0).permute(0, 2, 3, 1).flatten(0, 2)
    for before, after in zip(clip.permute(0, 2, 3, 1).flatten(0, 2).tolist(), found.tolist(), strict=True):
        h, s, v = colorsys.rgb_to_hsv(*(value / 255 for value in before))
        h, s, v = (h + 15 / 180) % 1, min(1, s + 25 / 255) if s else 0, max(0, v - 18 / 255)
        expected = [255 * value for value in colorsys.hsv_to_rgb(h, s, v)]
        assert np.abs(np.array(expected) - after).max() <= 0.51


def test_grey_stays_grey_and_nothing_stays_itself_in_hsv() -> None:
    grey = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(1, 3, 16, 16)
    out = ops.shift_hsv(grey, 20.0, 30.0, 0.0)
    assert torch.equal(out, grey)
    clip = moving()
    assert torch.equal(ops.shift_hsv(clip, 0.0, 0.0, 0.0), clip)


def test_grey_is_the_luminance() -> None:
    colours = torch.tensor([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]], dtype=torch.uint8)
    out = ops.to_grey(colours.view(4, 3, 1, 1))
    assert out[:, :, 0, 0].tolist() == [[76] * 3, [150] * 3, [29] * 3, [255] * 3]


def test_shift_scale_and_rotation_by_hand() -> None:
    point = torch.zeros(1, 3, 11, 11, dtype=torch.uint8)
    point[:, :, 5, 7] = 200  # two to the right of the middle

    def place(**change: Any) -> list[int]:
        out = ops.shift_scale_rotate(point, **{"shift": (0.0, 0.0), "scale": 1.0, "degrees": 0.0} | change)
        (found,) = (out[0, 0] > 100).nonzero().tolist()
        return found

    assert place() == [5, 7]
    assert place(degrees=90.0) == [7, 5] and place(degrees=-90.0) == [3, 5]
    assert place(shift=(2 / 11, -1 / 11)) == [4, 9]
    half = ops.shift_scale_rotate(
        torch.full((1, 3, 12, 12), 255, dtype=torch.uint8), shift=(0.0, 0.0), scale=0.5, degrees=0.0
    )[0, 0]
    assert (half[4:8, 4:8] == 255).all() and half[:3].sum() == half[:, 9:].sum() == 0  # black around it


def test_time_runs_backwards_or_slower_where_asked_for() -> None:
    assert torch.equal(ClipAugment(20, **OFF, reverse_prob=1.0)(moving(), rng()), moving().flip(0))
    assert torch.equal(ops.lower_rate(moving(), 4), moving()[[0, 0, 0, 0, 4, 4]])
    assert ClipAugment(20).reverse_prob == ClipAugment(20).resample_prob == 0


def test_operations_happen_in_their_shares(monkeypatch: pytest.MonkeyPatch) -> None:
    counts: dict[str, int] = {}

    def counted(name: str) -> Callable[..., Tensor]:
        def operation(clip: Tensor, *_: Any, **__: Any) -> Tensor:
            counts[name] = counts.get(name, 0) + 1
            return clip

        return operation

    shares = {"compress": 0.5, "add_noise": 0.1, "blur": 0.05, "mirror": 0.5, "to_grey": 0.2, "shift_scale_rotate": 0.5}
    shares |= dict.fromkeys(("brightness_contrast", "fancy_pca", "shift_hsv"), 0.7 / 3)
    for name in shares:
        monkeypatch.setattr(ops, name, counted(name))
    augment, clip, trials = ClipAugment(4), torch.zeros(1, 3, 4, 4, dtype=torch.uint8), 4000
    for seed in range(trials):
        augment(clip, rng(seed))
    for name, share in shares.items():
        assert counts[name] / trials == pytest.approx(share, abs=4 * (share * (1 - share) / trials) ** 0.5), name


def test_the_three_ways_to_resize_are_as_likely() -> None:
    clip, augment = moving(height=28, width=28), ClipAugment(16, **OFF)
    results = [augment(clip, rng(seed)).numpy().tobytes() for seed in range(600)]
    ways = {ops.fit(clip, 16, down).numpy().tobytes(): share for down, share in (("area", 2 / 3), ("linear", 1 / 3))}
    assert len(ways) == 2
    for way, share in ways.items():
        assert results.count(way) / 600 == pytest.approx(share, abs=0.08)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("jpeg_prob", 1.5),
        ("hflip_prob", float("nan")),
        ("jpeg_quality", (60, 101)),
        ("noise_var", (50.0, 10.0)),
        ("blur_kernel", 4),
        ("blur_sigma", (0.0, 1.0)),
        ("scale", 1.0),
        ("rotate", -1.0),
        ("hue", 91.0),
        ("size", 0),
        ("resample_factor", (0, 2)),
    ],
)
def test_impossible_values_are_one_sentence(option: str, value: Any) -> None:
    with pytest.raises(UserError, match=f"^{option}=") as caught:
        ClipAugment(**{"size": 16, option: value})
    assert caught.value.key == option and "give" in str(caught.value)
