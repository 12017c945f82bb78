"""What an ImageDataModule accepts, checked before any image is read."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ssat.core.errors import UserError
from ssat.core.views import AGAIN, View

COLOURS = (1, 3)  # channels of pictures: grey and RGB
MOST_CHANNELS = 16
CHOICES = {"pipeline": ("timm", "batched"), "subset": ("stratified", "official"), "protocol": ("paper", "strict")}


def check_batch(images: int, batch_size: int, world: int, *, few: bool, unit: str = "images") -> None:
    """Raises: UserError: fewer training samples than a batch of all processes, or with `few` than processes.

    Learning rate and record would speak of a batch that there never is.
    """
    if images < (world if few else batch_size * world):
        ranks = f" on each of {world} processes" if world > 1 else ""
        cure = f"set recipe.batch_size to at most {images // world}" if images >= world else "use fewer processes"
        raise UserError(f"batch_size={batch_size}{ranks} is more than the {images} training {unit}: {cure}")


def check_test(test_fraction: float, max_test: int | None, folds: int | None, fold: int | None) -> None:
    """Raises: UserError: test images that cannot be chosen so."""
    if not 0 <= test_fraction < 1:
        raise UserError(
            f"data.test_fraction={test_fraction} is outside [0, 1): 0 = the set's own test images, 0.2 = a fifth of all"
        )
    if max_test is not None and max_test < 1:
        raise UserError(f"data.max_test={max_test} must be at least 1")
    if folds is not None and (folds < 2 or fold is None or not 0 <= fold < folds):
        raise UserError(f"data.folds={folds} data.fold={fold} is not possible: at least 2 folds, counted from 0")
    if folds is not None and test_fraction:
        raise UserError(f"data.folds={folds} and data.test_fraction={test_fraction} both choose the test: set one")


def check_values(
    channels: int, mean: Sequence[float], std: Sequence[float], img_size: int, batch_size: int, crop_pct: float
) -> None:
    """Raises: UserError: a size, mean or deviation that is not possible."""
    if not 1 <= channels <= MOST_CHANNELS:
        raise UserError(
            f"data.channels={channels} is not possible: use 3 (colour), 1 (grey), or 2 to {MOST_CHANNELS} for files"
            " with as many"
        )
    for name, values in (("mean", mean), ("std", std)):
        if len(values) != channels:
            raise UserError(
                f"data.statistics: {name}={list(values)} has {len(values)} values, but data.channels={channels}"
                " needs as many as channels: recipe.statistics=own measures them on the training images"
            )
    if min(std) <= 0:
        raise UserError(f"data.statistics: std={list(std)} must be above 0")
    if not isinstance(img_size, int):
        raise UserError(f"data.img_size={img_size} is not possible: it is one side of a square, in pixels")
    if img_size < 1:
        raise UserError(f"data.img_size={img_size} must be at least 1")
    if batch_size < 1:
        raise UserError(f"recipe.batch_size={batch_size} must be at least 1")
    if not 0 < crop_pct <= 1:
        raise UserError(f"recipe.eval_crop_pct={crop_pct} is outside (0, 1]: 0.875 as the authors, 1.0 = no crop")


def check_range(value_range: tuple[float, float] | None) -> None:
    """Raises: UserError: it is not [lo, hi] with lo below hi, both and their distance finite."""
    if value_range is None:
        return
    numbers = list(value_range)
    sound = len(numbers) == 2 and all(map(math.isfinite, numbers)) and numbers[0] < numbers[1]
    width = numbers[1] - numbers[0] if sound else 0.0
    if not width or not math.isfinite(width) or not math.isfinite(255 / width):
        shown = ", ".join(f"{number:g}" for number in numbers)
        raise UserError(
            f"data.value_range=[{shown}] is not possible: it is [lo, hi], the values of black and of white,"
            " with lo below hi and a finite distance",
            key="data.value_range",
            value=numbers,
        )


def check_names(**values: str) -> None:
    """Raises: UserError: a value that is not one of `CHOICES`."""
    for key, value in values.items():
        if value not in CHOICES[key]:
            raise UserError(f"data.{key}={value!r} is not one of {', '.join(CHOICES[key])}")


def check_views(views: Sequence[View | str], pipeline: str, *, augmented: bool) -> None:
    """Raises: UserError: extra views that the pipeline or the recipe cannot make."""
    if views and pipeline == "timm":
        raise UserError("extra views for the SSL task are not possible with data.pipeline=timm: use batched")
    if AGAIN in views and not augmented:
        raise UserError("a second draw of the recipe's augmentation needs one, and recipe.augment is null")


def check_choices(
    fraction: float, samples_per_class: int | None, val_fraction: float, label_fraction: float, on_bad_image: str
) -> None:
    """Raises: UserError: a share or a number of images that is not possible."""
    if not 0 < fraction <= 1:
        raise UserError(f"data.fraction={fraction} is outside (0, 1]: set the share of the training images to use")
    if fraction < 1 and samples_per_class is not None:
        raise UserError(
            f"data.fraction={fraction} and data.samples_per_class={samples_per_class} both choose the training images:"
            " set one of them only"
        )
    if not 0 <= val_fraction < 1:
        raise UserError(f"data.val_fraction={val_fraction} is outside [0, 1): 0 = no validation split, 0.1 = a tenth")
    if not 0 < label_fraction <= 1:
        raise UserError(f"data.label_fraction={label_fraction} is outside (0, 1]: set the share that is labelled")
    if on_bad_image not in ("error", "skip"):
        raise UserError(f"data.on_bad_image={on_bad_image!r} is not one of error, skip")
