from __future__ import annotations

import math
import random
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data.auto_augment import AugmentOp, RandAugment
from timm.data.random_erasing import RandomErasing
from timm.data.transforms import RandomResizedCropAndInterpolation
from torchvision.transforms import Normalize, RandomHorizontalFlip

from ssat.core.errors import UserError
from ssat.data.transforms.timm_transforms import eval_transform, train_transform

PLAIN = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}


@pytest.fixture
def photo() -> Image.Image:
    """A smooth random 50x40 image."""
    small = np.random.default_rng(0).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((50, 40), Image.Resampling.BICUBIC)


@pytest.fixture(autouse=True)
def seeded() -> None:
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


def pil_formula(image: Image.Image, resize: int, crop: int) -> torch.Tensor:
    """Resize the short side, crop the centre, scale to [0, 1], with Pillow alone."""
    scale = resize / min(image.size)
    size = (int(image.width * scale), int(image.height * scale))
    left, top = (round((length - crop) / 2) for length in size)
    resized = image.resize(size, Image.Resampling.BICUBIC).crop((left, top, left + crop, top + crop))
    return torch.from_numpy(np.asarray(resized).copy()).permute(2, 0, 1) / 255


@pytest.mark.parametrize(("img_size", "resize"), [(28, 32), (32, 36), (224, 256), (256, 256)])
def test_evaluation_resizes_and_crops_as_the_authors_do(photo: Image.Image, img_size: int, resize: int) -> None:
    assert torch.equal(eval_transform(img_size, **PLAIN)(photo), pil_formula(photo, resize, img_size))


def test_crop_pct_one_is_a_plain_resize_of_the_short_side(photo: Image.Image) -> None:
    assert torch.equal(eval_transform(32, crop_pct=1.0, **PLAIN)(photo), pil_formula(photo, 32, 32))


def test_normalisation_has_the_known_answer() -> None:
    image = Image.new("RGB", (8, 8), (255, 0, 51))
    output = eval_transform(8, mean=(0.5, 0.25, 0.0), std=(0.5, 0.25, 0.1), crop_pct=1.0)(image)
    torch.testing.assert_close(output[:, 3, 3], torch.tensor([1.0, -1.0, 2.0]))


def test_without_augmentation_training_images_are_evaluation_images(photo: Image.Image) -> None:
    training = train_transform(16, augment=None, crop_pct=0.5, **PLAIN)
    assert torch.equal(training(photo), eval_transform(16, crop_pct=0.5, **PLAIN)(photo))


def test_a_small_image_gets_the_same_pipeline_as_a_large_one(augment: dict[str, Any]) -> None:
    kinds = [[type(t) for t in train_transform(size, augment=augment, **PLAIN).transforms] for size in (32, 224)]
    crop, flip, colour, _, normalise, erase = kinds[0]
    assert kinds[0] == kinds[1]
    assert (crop, flip, colour) == (RandomResizedCropAndInterpolation, RandomHorizontalFlip, RandAugment)
    assert (normalise, erase) == (Normalize, RandomErasing)


def test_every_augmentation_value_reaches_timm(augment: dict[str, Any]) -> None:
    changes = {"crop_scale": [0.2, 0.9], "crop_ratio": [0.5, 2.0], "hflip": 0.3, "re_prob": 0.6, "re_count": 3}
    crop, flip, colour, _, _, erase = train_transform(32, augment=augment | changes, **PLAIN).transforms
    assert (crop.scale, crop.ratio, crop.interpolation.value) == ((0.2, 0.9), (0.5, 2.0), "bicubic")
    assert (flip.p, erase.probability, erase.max_count, erase.per_pixel) == (0.3, 0.6, 3, True)
    assert (len(colour.ops), colour.ops[0].magnitude, colour.ops[0].magnitude_std) == (15, 9, 0.5)


def test_erasing_takes_its_area_and_ratio(augment: dict[str, Any]) -> None:
    changes = {"re_area": [0.1, 0.2], "re_ratio": [0.5, 3.0]}
    erase = train_transform(32, augment=augment | changes, **PLAIN).transforms[-1]
    assert (erase.min_area, erase.max_area) == (0.1, 0.2)
    assert erase.log_aspect_ratio == pytest.approx((math.log(0.5), math.log(3.0)))


def test_a_padded_crop_moves_the_image_by_at_most_the_padding(augment: dict[str, Any]) -> None:
    off = {"crop_pad": 4, "auto_augment": None, "re_prob": 0.0, "hflip": 0.0}
    transform = train_transform(8, mean=(0, 0, 0), std=(1, 1, 1), augment=augment | off)
    image = torch.arange(1, 65, dtype=torch.uint8).view(8, 8)
    padded = torch.nn.functional.pad(image, (4, 4, 4, 4))
    places = {bytes(padded[y : y + 8, x : x + 8].flatten().tolist()) for y in range(9) for x in range(9)}
    seen = set()
    for _ in range(600):
        got = (transform(Image.fromarray(image.numpy()).convert("RGB"))[0] * 255).round().to(torch.uint8)
        seen.add(bytes(got.flatten().tolist()))
    assert seen <= places
    assert len(seen) > 70


def test_sl_vits_pipeline_is_flip_padded_crop_policy_erasing_with_the_mean(augment: dict[str, Any]) -> None:
    changes = {"crop_pad": 4, "auto_augment": "cifar10", "re_mode": "mean", "re_prob": 1.0, "re_area": [0.2, 0.4]}
    mean = (0.4914, 0.4822, 0.4465)
    transform = train_transform(32, mean=mean, std=(0.247, 0.2435, 0.2616), augment=augment | changes)
    kinds = [type(t).__name__ for t in transform.transforms]
    assert kinds == [
        *("Resize", "RandomHorizontalFlip", "RandomCrop", "AutoAugment"),
        *("MaybeToTensor", "Normalize", "RandomErasing"),
    ]
    image = transform(Image.new("RGB", (32, 32), (10, 200, 90)))
    filled = (image == torch.tensor(mean).view(3, 1, 1)).all(0).float().mean()
    assert 0.15 < filled < 0.45


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"crop_pad": -1}, "recipe.augment.crop_pad=-1"),
        ({"crop_pad": 1.5}, "recipe.augment.crop_pad=1.5"),
        ({"re_area": [0.3, 0.1]}, "recipe.augment.re_area=[0.3, 0.1]"),
        ({"re_ratio": [0.0, 1.0]}, "recipe.augment.re_ratio=[0.0, 1.0]"),
    ],
)
def test_values_that_make_no_sense_are_refused(augment: dict[str, Any], values: dict, sentence: str) -> None:
    with pytest.raises(UserError) as error:
        train_transform(32, augment=augment | values, **PLAIN)
    assert sentence in str(error.value)


def test_augmentations_that_are_off_are_absent(augment: dict[str, Any]) -> None:
    off = {"auto_augment": None, "re_prob": 0.0, "hflip": 0.0}
    kinds = {type(t) for t in train_transform(32, augment=augment | off, **PLAIN).transforms}
    assert not kinds & {RandAugment, RandomErasing, RandomHorizontalFlip}


def test_the_empty_corners_of_a_rotation_have_the_mean_colour(augment: dict[str, Any]) -> None:
    transform = train_transform(32, mean=(0.5, 0.4, 0.3), std=(1, 1, 1), augment=augment)
    assert transform.transforms[2].ops[3].kwargs["fillcolor"] == (128, 102, 76)


@pytest.mark.parametrize("magnitude", ["m10", "m10-mstd0.5", "m12-mmax12", "m30-mmax30"])
def test_posterize_to_zero_bits_is_a_black_image(augment: dict[str, Any], photo: Image.Image, magnitude: str) -> None:
    transform = train_transform(32, augment=augment | {"auto_augment": f"rand-{magnitude}-inc1"}, **PLAIN)
    posterize = next(op for op in transform.transforms[2].ops if op.name == "PosterizeIncreasing")
    posterize.prob, posterize.magnitude_std = 1.0, 0
    assert np.asarray(posterize(photo)).max() == 0


def test_posterize_below_magnitude_ten_keeps_its_bits(augment: dict[str, Any], photo: Image.Image) -> None:
    transform = train_transform(32, augment=augment | {"auto_augment": "rand-m9-inc1"}, **PLAIN)
    posterize = next(op for op in transform.transforms[2].ops if op.name == "PosterizeIncreasing")
    posterize.prob = 1.0
    assert np.array_equal(np.asarray(posterize(photo)), np.asarray(photo) & 0b10000000)


def all_operations(transform: Any) -> list[AugmentOp]:
    return list(getattr(transform, "ops", [])) + [op for ops in getattr(transform, "policy", []) for op in ops]


@pytest.mark.parametrize("policy", ["rand-m10-inc1", "rand-m10", "original-mstd0.5", "v0r", "v0", "originalr"])
def test_no_operation_of_any_policy_crashes(augment: dict[str, Any], photo: Image.Image, policy: str) -> None:
    transform = train_transform(32, augment=augment | {"auto_augment": policy}, **PLAIN)
    for operation in all_operations(transform.transforms[2]):
        operation.prob = 1.0
        assert operation(photo).size == photo.size


def test_grey_output_has_one_channel_normalised_by_one_mean() -> None:
    transform = eval_transform(8, mean=(0.2,), std=(0.5,), crop_pct=1.0, channels=1)
    torch.testing.assert_close(transform(Image.new("RGB", (9, 9), (51, 51, 51))), torch.zeros(1, 8, 8))


def test_grey_training_images_are_augmented_in_colour(augment: dict[str, Any], photo: Image.Image) -> None:
    transform = train_transform(32, mean=(0.5,), std=(0.5,), augment=augment, channels=1)
    assert all(transform(photo).shape == (1, 32, 32) for _ in range(50))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"hflipp": 0.5}, "recipe.augment.hflipp is not an augmentation: did you mean hflip?"),
        ({"auto_augment": "rand-q9"}, "auto_augment='rand-q9' is not possible"),
        ({"auto_augment": "mine"}, "is not understood by timm"),
        ({"interpolation": "cubic"}, "is not understood by timm"),
        ({"re_mode": "dots"}, "is not understood by timm"),
    ],
)
def test_a_bad_augmentation_is_named(augment: dict[str, Any], change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError) as caught:
        train_transform(32, augment=augment | change, **PLAIN)
    assert sentence in str(caught.value) and "\n" not in str(caught.value)


def test_a_missing_augmentation_is_named(augment: dict[str, Any]) -> None:
    del augment["color_jitter"]
    with pytest.raises(UserError, match="recipe.augment lacks color_jitter"):
        train_transform(32, augment=augment, **PLAIN)
