"""timm's PIL pipeline: the authors' training and evaluation transforms, the reference for every other pipeline."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from typing import Any

from PIL import Image
from timm.data import create_transform
from timm.data.auto_augment import AugmentOp, posterize
from torch import Tensor
from torchvision.transforms import Compose, Grayscale

from src.errors import UserError

Transform = Callable[[Image.Image], Tensor]

# Our names of create_transform's arguments.
AUGMENT = {
    "crop_scale": "scale",
    "crop_ratio": "ratio",
    "interpolation": "interpolation",
    "hflip": "hflip",
    "auto_augment": "auto_augment",
    "color_jitter": "color_jitter",
    "re_prob": "re_prob",
    "re_mode": "re_mode",
    "re_count": "re_count",
}


def train_transform(
    img_size: int,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    augment: dict[str, Any] | None,
    crop_pct: float = 0.875,
    channels: int = 3,
) -> Transform:
    """RGB image -> (channels, img_size, img_size) float: random crop, flip, RandAugment, normalise, erase.

    Draws from the global generators of Python, NumPy and PyTorch.

    Args:
        augment: the keys of `AUGMENT`, all of them; None = the evaluation transform.
        crop_pct: of the evaluation transform.
        channels: 1 = grey, converted after the augmentation and before the normalisation.

    Raises:
        UserError: a key is missing or unknown, or timm does not understand a value.
    """
    if augment is None:
        return eval_transform(img_size, mean=mean, std=std, crop_pct=crop_pct, channels=channels)
    check_keys(augment)
    options = {AUGMENT[key]: value for key, value in augment.items()}
    copies = 3 // channels  # the augmentation works on RGB and fills with the mean colour
    try:
        geometry, colour, _ = create_transform(
            img_size, is_training=True, mean=tuple(mean) * copies, std=tuple(std) * copies, separate=True, **options
        )
        *_, normalise = create_transform(
            img_size, is_training=True, mean=tuple(mean), std=tuple(std), separate=True, **options
        )
    # timm answers a bad value with an assertion, a KeyError or a TypeError, depending on the key.
    except Exception as error:
        raise UserError(f"recipe.augment={augment} is not understood by timm ({_reason(error)})") from None
    for transform in colour.transforms:
        _allow_zero_bits(transform)
    grey = [Grayscale()] if channels == 1 else []
    return Compose([*geometry.transforms, *colour.transforms, *grey, *normalise.transforms])


def eval_transform(
    img_size: int, *, mean: Sequence[float], std: Sequence[float], crop_pct: float = 0.875, channels: int = 3
) -> Transform:
    """RGB image -> (channels, img_size, img_size) float: short side to int(img_size / crop_pct), centre crop.

    Above 224 pixels no border is cropped away, as in the authors' code (which is MAE's): crop_pct is then 1.
    """
    transform = create_transform(
        img_size,
        interpolation="bicubic",
        mean=tuple(mean),
        std=tuple(std),
        crop_pct=crop_pct if img_size <= 224 else 1.0,
    )
    resize, crop, *normalise = transform.transforms
    grey = [Grayscale()] if channels == 1 else []
    return Compose([resize, crop, *grey, *normalise])


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def check_keys(augment: dict[str, Any]) -> None:
    for key in augment.keys() - AUGMENT.keys():
        near = difflib.get_close_matches(key, AUGMENT, 1)
        hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(AUGMENT)}"
        raise UserError(f"recipe.augment.{key} is not an augmentation: {hint}")
    missing = [key for key in AUGMENT if key not in augment]
    if missing:
        raise UserError(f"recipe.augment lacks {', '.join(missing)}: give all of {', '.join(AUGMENT)}")


def _posterize(image: Image.Image, bits_to_keep: int, **unused: Any) -> Image.Image:
    return Image.new(image.mode, image.size) if bits_to_keep < 1 else posterize(image, bits_to_keep)


def _allow_zero_bits(transform: Any) -> None:
    """Make PosterizeIncreasing at magnitude 10 a black image: 0 bits are an error since Pillow 13."""
    operations = list(getattr(transform, "ops", [])) + sum(getattr(transform, "policy", []), [])
    for operation in operations:
        if isinstance(operation, AugmentOp) and operation.name.startswith("Posterize"):
            operation.aug_fn = _posterize
