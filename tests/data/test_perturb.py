from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_images
from torchvision.transforms import InterpolationMode, RandomPerspective
from torchvision.transforms import functional as pil

from ssat.core.errors import UserError
from ssat.data.transforms.corruptions import FAMILIES, corrupt
from ssat.data.transforms.perturb import perspective, perturbations

PHOTO = Image.fromarray(load_sample_images().images[0])


def photo(side: int) -> Image.Image:
    return PHOTO.resize((side, side), Image.Resampling.BICUBIC, (100, 50, 400, 350))


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image).astype(int)


@pytest.mark.parametrize("side", [28, 32, 224])
def test_a_perspective_without_distortion_is_the_image(side: int) -> None:
    moved = perspective(photo(side), 5, seed=0, distortion_scale=0.0)
    assert np.abs(pixels(moved) - pixels(photo(side))).max() <= 1


def test_a_black_image_stays_black() -> None:
    assert pixels(perspective(Image.new("RGB", (32, 32)), 1, seed=0)).max() == 0


def test_a_perspective_follows_from_seed_and_index_alone() -> None:
    first = pixels(perspective(photo(32), 7, seed=1))
    random.seed(9), np.random.seed(9), torch.manual_seed(9)
    assert np.array_equal(first, pixels(perspective(photo(32), 7, seed=1)))
    assert not np.array_equal(first, pixels(perspective(photo(32), 8, seed=1)))
    assert not np.array_equal(first, pixels(perspective(photo(32), 7, seed=2)))


@pytest.mark.slow
def test_as_much_becomes_black_as_under_torchvisions_random_perspective() -> None:
    white, count = Image.new("RGB", (32, 32), "white"), 2000
    ours = [(pixels(perspective(white, index, seed=0)) < 128).mean() for index in range(count)]
    torch.manual_seed(0)
    random_perspective = RandomPerspective(0.5, p=1.0, interpolation=InterpolationMode.BILINEAR)
    theirs = [(pixels(random_perspective(white)) < 128).mean() for _ in range(count)]
    assert np.mean(ours) == pytest.approx(np.mean(theirs), abs=0.01)
    assert np.mean(ours) == pytest.approx(0.44, abs=0.02)  # of the pixels, at 32 px
    assert np.std(ours) == pytest.approx(np.std(theirs), abs=0.01)


def test_corners_move_inwards_by_up_to_a_quarter_of_the_side(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(pil, "perspective", lambda image, start, end, *_, **__: seen.append((start, end)) or image)
    for index in range(500):
        perspective(Image.new("RGB", (32, 32)), index, seed=0)
    moves = np.array([np.array(end) - np.array(start) for start, end in seen])
    inwards = moves * np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]])
    assert inwards.min() == 0
    assert inwards.max() == 8


@pytest.mark.sampled
@pytest.mark.parametrize("side", [28, 32, 224])
@pytest.mark.parametrize("family", FAMILIES)
def test_corruptions_keep_size_and_kind_and_follow_from_the_index(family: str, side: int) -> None:
    for severity in (1, 5):
        first = corrupt(photo(side), 3, family=family, severity=severity)
        assert first.size == (side, side)
        assert first.mode == "RGB"
        assert np.array_equal(pixels(first), pixels(corrupt(photo(side), 3, family=family, severity=severity)))
        assert not np.array_equal(pixels(first), pixels(photo(side)))


# The published severities of these do not grow pixel by pixel: their parts pull against each other.
UNEVEN = {"elastic_transform", "glass_blur", "frost", "snow", "motion_blur", "fog"}


@pytest.mark.parametrize("side", [32, 96])
@pytest.mark.parametrize("family", [family for family in FAMILIES if family not in UNEVEN])
def test_a_higher_severity_changes_more(family: str, side: int) -> None:
    image = photo(side)
    distances = [
        np.mean([np.abs(pixels(corrupt(image, n, family=family, severity=s)) - pixels(image)).mean() for n in range(4)])
        for s in (1, 2, 3, 4, 5)
    ]
    assert distances == sorted(distances)


@pytest.mark.parametrize("side", [32, 96])
@pytest.mark.parametrize("family", sorted(UNEVEN - {"elastic_transform"}))
def test_the_highest_severity_changes_more_than_the_lowest(family: str, side: int) -> None:
    image = photo(side)
    low, high = (
        np.mean([np.abs(pixels(corrupt(image, n, family=family, severity=s)) - pixels(image)).mean() for n in range(8)])
        for s in (1, 5)
    )
    assert high > low


def test_known_answers() -> None:
    grey = Image.new("RGB", (40, 40), (100, 100, 100))
    assert np.unique(pixels(corrupt(grey, 0, family="brightness", severity=1))).tolist() == [113]  # + 0.05 of 255
    for family in ("contrast", "pixelate", "defocus_blur", "zoom_blur", "motion_blur", "glass_blur"):
        assert np.unique(pixels(corrupt(grey, 0, family=family, severity=5))).tolist() == [100], family
    noisy = pixels(corrupt(Image.new("RGB", (64, 64), (128, 128, 128)), 0, family="gaussian_noise", severity=5))
    assert noisy.std() == pytest.approx(0.10 * 255, rel=0.05)
    salted = pixels(corrupt(Image.new("RGB", (64, 64), (128, 128, 128)), 0, family="impulse_noise", severity=5))
    assert np.mean(salted != 128) == pytest.approx(0.07, abs=0.01)
    striped = Image.fromarray(np.tile(np.array([[0, 200]], np.uint8).repeat(3).reshape(1, 2, 3), (40, 20, 1)))
    halved = pixels(corrupt(striped, 0, family="contrast", severity=2))
    assert sorted(np.unique(halved)) == [50, 150]


def test_perturbations_are_named_by_family_and_severity_or_seed() -> None:
    assert list(perturbations("perspective", seeds=3, severities=(1,))) == [f"perspective/{seed}" for seed in range(3)]
    assert list(perturbations("fog", seeds=3, severities=(2, 4))) == ["fog/2", "fog/4"]
    assert len(perturbations("corruptions", seeds=1, severities=(1, 2, 3, 4, 5))) == 75


def test_an_unknown_perturbation_names_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean gaussian_noise"):
        perturbations("gausian_noise", seeds=1, severities=(1,))
