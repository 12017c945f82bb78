"""The own augmentation against albumentations, operation by operation; and its traps, which are errors here."""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ssat.core.errors import UserError
from ssat.data.transforms import clip_albumentations as other
from ssat.data.transforms import clip_operations as ops
from ssat.data.transforms.clip_augment import ClipAugment

installed = pytest.mark.skipif(
    importlib.util.find_spec("albumentations") is None,
    reason="needs albumentations (pip install albumentations==2.0.8)",
)
OFF = {f"{name}_prob": 0.0 for name in ("jpeg", "noise", "blur", "hflip", "colour", "grey", "affine")}


def clip_of(height: int = 60, width: int = 60, frames: int = 3) -> Tensor:
    noise = 255 * torch.rand(frames, 3, height // 5, width // 5, generator=torch.Generator().manual_seed(1))
    return F.interpolate(noise, (height, width), mode="bicubic").clamp(0, 255).to(torch.uint8)


def mean_gap(first: Tensor, second: Tensor) -> float:
    assert first.shape == second.shape and first.dtype == second.dtype == torch.uint8
    return (first.int() - second.int()).abs().float().mean().item()


def theirs(transform: Any, clip: Tensor) -> Tensor:
    frames = transform(images=clip.permute(0, 2, 3, 1).numpy())["images"]
    return torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2)


def alone(name: str, **arguments: Any) -> Any:
    albumentations, _ = other.library()
    return albumentations.Compose([other.checked(getattr(albumentations, name), **arguments, p=1.0)])


@installed
def test_single_operations_are_those_of_albumentations() -> None:
    clip = clip_of()
    blurred = theirs(alone("GaussianBlur", blur_limit=(3, 3), sigma_limit=(ops.BLUR_SIGMA, ops.BLUR_SIGMA)), clip)
    assert mean_gap(ops.blur(clip, 3, ops.BLUR_SIGMA), blurred) < 0.5
    assert mean_gap(ops.mirror(clip), theirs(alone("HorizontalFlip"), clip)) == 0
    assert mean_gap(ops.to_grey(clip), theirs(alone("ToGray"), clip)) < 0.05
    light = alone("RandomBrightnessContrast", brightness_limit=(0.15, 0.15), contrast_limit=(-0.1, -0.1))
    assert mean_gap(ops.brightness_contrast(clip, 0.15, -0.1), theirs(light, clip)) < 0.6
    hsv = alone("HueSaturationValue", hue_shift_limit=(12, 12), sat_shift_limit=(20, 20), val_shift_limit=(-15, -15))
    assert mean_gap(ops.shift_hsv(clip, 12.0, 20.0, -15.0), theirs(hsv, clip)) < 1.5  # theirs rounds hue to 2 degrees
    # Theirs encodes red as blue and blue as red.
    compressed = theirs(alone("ImageCompression", quality_range=(70, 70)), clip.flip(1)).flip(1)
    assert mean_gap(ops.compress(clip, 70), compressed) < 1


@installed
@pytest.mark.parametrize("size", [40, 90])
@pytest.mark.parametrize("shape", [(60, 60), (60, 45), (35, 60)])
def test_the_three_resizes_are_those_of_opencv(size: int, shape: tuple[int, int]) -> None:
    albumentations, cv2 = other.library()
    clip = clip_of(*shape)
    for (down, up), interpolation, area in (
        (("area", "cubic"), cv2.INTER_CUBIC, "image"),
        (("area", "linear"), cv2.INTER_LINEAR, "image"),
        (("linear", "linear"), cv2.INTER_LINEAR, None),
    ):
        resize = albumentations.LongestMaxSize(max_size=size, interpolation=interpolation, area_for_downscale=area, p=1)
        pad = albumentations.PadIfNeeded(size, size, border_mode=cv2.BORDER_CONSTANT, fill=0, p=1)
        assert mean_gap(ops.fit(clip, size, down, up), theirs(albumentations.Compose([resize, pad]), clip)) < 0.6


@installed
def test_shift_scale_and_rotation_are_those_of_albumentations() -> None:
    for shift, scale, degrees in (((0.1, -0.05), 1.0, 0.0), ((0.0, 0.0), 0.85, 0.0), ((0.05, 0.0), 1.15, 8.0)):
        move = {"x": (shift[0], shift[0]), "y": (shift[1], shift[1])}
        affine = alone(
            "Affine", scale=(scale, scale), translate_percent=move, rotate=(-degrees, -degrees), keep_ratio=True
        )
        clip = clip_of()
        ours = [
            mean_gap(
                ops.shift_scale_rotate(clip, shift=shift, scale=scale, degrees=sign * degrees), theirs(affine, clip)
            )
            for sign in (-1, 1)
        ]
        assert min(ours) < 3.5, ours


@installed
def test_whole_augmentations_agree_on_average() -> None:
    options, clip = ClipAugment(48), clip_of(frames=2)
    pair = []
    for augment in (options, other.AlbumentationsClip(options)):
        results = torch.stack([augment(clip, np.random.default_rng(seed)).float() for seed in range(400)])
        pair.append(torch.stack([results.mean(), results.std(), results.diff(dim=-1).abs().mean()]))
    torch.testing.assert_close(pair[0], pair[1], rtol=0.05, atol=0)


@installed
def test_operations_of_albumentations_happen_independently() -> None:
    options = ClipAugment(60, **OFF | {"hflip_prob": 0.5, "grey_prob": 0.5})
    augment, clip = other.AlbumentationsClip(options), clip_of(frames=1)
    table = np.zeros((2, 2))
    for seed in range(200):
        out = augment(clip, np.random.default_rng(seed))
        grey = torch.equal(out[:, 0], out[:, 1])
        brightness = out.float().mean(1)
        mirrored = (brightness - clip.float().mean(1)).abs().mean() > (
            brightness - clip.flip(-1).float().mean(1)
        ).abs().mean()
        table[int(mirrored), int(grey)] += 1
    assert table.min() > 30, table


@installed
def test_equal_frames_stay_equal_and_a_seed_means_one_result() -> None:
    augment, still = other.AlbumentationsClip(ClipAugment(48)), clip_of(frames=1).expand(4, -1, -1, -1).contiguous()
    for seed in range(40):
        out = augment(still, np.random.default_rng(seed))
        assert (out == out[:1]).all() and torch.equal(out, augment(still, np.random.default_rng(seed)))


@installed
def test_old_names_of_arguments_are_errors() -> None:
    albumentations, _ = other.library()
    with pytest.raises(UserError, match="quality_lower"):
        other.checked(albumentations.ImageCompression, quality_lower=60, quality_upper=100)
    with pytest.raises(UserError, match="var_limit"):
        other.checked(albumentations.GaussNoise, var_limit=(10, 50))


@installed
def test_their_fancy_pca_does_next_to_nothing_and_ours_does() -> None:
    clip = clip_of()
    pca = alone("FancyPCA", alpha=0.1)
    pca.set_random_seed(0)
    their_change = np.mean([mean_gap(theirs(pca, clip), clip) for _ in range(20)])
    ours = np.mean([mean_gap(ClipAugment(60).pca(clip, np.random.default_rng(s)), clip) for s in range(20)])
    assert their_change < 0.3 < 1 < ours


@installed
def test_another_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(other, "VERSION", "1.3.1")
    with pytest.raises(UserError, match="albumentations 2.0.8 is installed"):
        other.AlbumentationsClip(ClipAugment(16))


@pytest.mark.skipif(importlib.util.find_spec("albumentations") is not None, reason="albumentations is installed")
def test_without_albumentations_one_sentence_says_how_to_get_it() -> None:
    with pytest.raises(UserError, match="pip install albumentations==2.0.8"):
        other.AlbumentationsClip(ClipAugment(16))


def test_noise_per_frame_is_refused() -> None:
    with pytest.raises(UserError, match="noise_per_frame=true"):
        other.AlbumentationsClip(ClipAugment(16, noise_per_frame=True))


def test_the_backend_is_a_key() -> None:
    assert other.augmentation(32, backend="own", hflip_prob=1.0) == ClipAugment(32, hflip_prob=1.0)
    if importlib.util.find_spec("albumentations") is not None:
        assert isinstance(other.augmentation(32, backend="albumentations"), other.AlbumentationsClip)
        return
    with pytest.raises(UserError, match="pip install albumentations==2.0.8") as refused:
        other.augmentation(32, backend="albumentations")
    assert refused.value.key == "recipe.clip_augment.backend"
