"""timm's PIL pipeline: the authors' training and evaluation transforms, the reference for every other pipeline."""

from __future__ import annotations

import difflib
import random
import re
from collections.abc import Callable, Sequence
from typing import Any

import torch
from PIL import Image
from timm.data import create_transform
from timm.data.auto_augment import AugmentOp, posterize
from timm.data.random_erasing import RandomErasing
from torch import Tensor
from torchvision.transforms import (
    AutoAugment,
    AutoAugmentPolicy,
    Compose,
    Grayscale,
    InterpolationMode,
    RandomCrop,
    RandomHorizontalFlip,
    Resize,
)
from torchvision.transforms import RandomErasing as FilledErasing
from torchvision.transforms.functional import to_tensor

from ssat.core.errors import UserError
from ssat.data.bands import Bands

Transform = Callable[[Any], Tensor]  # of a Pillow image, or of `Bands`

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
# What timm's pipeline has no argument for, and its value where a recipe does not set it.
OPTIONAL: dict[str, Any] = {
    "crop_pad": None,  # pixels of zero padding around the resized image before a random crop, in place of crop_scale
    "re_area": [0.02, 1 / 3],  # share of the image that an erased rectangle covers
    "re_ratio": [0.3, 1 / 0.3],  # height / width of it
}
POLICY = re.compile(r"(rand|augmix)(-((m|n|p|w|d|a|b|mstd|mmax|inc)\d+(\.\d+)?|t\w+))*")
POLICIES = {policy.value: policy for policy in AutoAugmentPolicy}  # AutoAugment's: imagenet, cifar10, svhn


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
        augment: the keys of `AUGMENT`, all of them, and of `OPTIONAL`; None = the evaluation transform.
        crop_pct: of the evaluation transform.
        channels: 1 = grey, converted after the augmentation and before the normalisation; others: of `Bands`.

    Raises:
        UserError: a key is missing or unknown, or timm does not understand a value.
    """
    if augment is None:
        return eval_transform(img_size, mean=mean, std=std, crop_pct=crop_pct, channels=channels)
    augment = check_keys(augment)
    check_colours(augment, channels)
    policy = POLICIES.get(augment["auto_augment"])
    options = {AUGMENT[key]: augment[key] for key in AUGMENT}
    if policy is not None:
        options["auto_augment"] = None
    if augment["re_mode"] == "mean":
        options["re_mode"] = "const"
    copies = 3 if channels == 1 else 1  # the augmentation works on RGB and fills with the mean colour
    try:
        geometry, colour, _ = _from_timm(img_size, tuple(mean) * copies, tuple(std) * copies, options)
        *_, normalise = _from_timm(img_size, tuple(mean), tuple(std), options)
    # timm answers a bad value with an assertion, a KeyError or a TypeError, depending on the key.
    except Exception as error:
        key, value = _culprit(augment, options)
        raise UserError(
            f"recipe.augment.{key}={value!r} is not understood by timm ({_reason(error)})",
            key=f"recipe.augment.{key}",
            value=value,
        ) from None
    for transform in colour.transforms:
        _allow_zero_bits(transform)
    shapes, colours = list(geometry.transforms), list(colour.transforms)
    if augment["crop_pad"] is not None:
        if augment["crop_pad"] > img_size:
            raise UserError(
                f"recipe.augment.crop_pad={augment['crop_pad']} is more than the {img_size} pixels of an image's side",
                key="recipe.augment.crop_pad",
                value=augment["crop_pad"],
            )
        shapes = _padded_crop(img_size, augment)
    if policy is not None:
        colours = [AutoAugment(policy), *colours]
    grey = [Grayscale()] if channels == 1 else []
    tensors = [_erasing(augment, mean) if isinstance(t, RandomErasing) else t for t in normalise.transforms]
    if channels not in (1, 3):
        return Compose([SameForEach(Compose(shapes)), BandsToTensor(), *tensors[1:]])
    return Compose([*shapes, *colours, *grey, *tensors])


def _from_timm(img_size: int, mean: tuple[float, ...], std: tuple[float, ...], options: dict[str, Any]) -> Any:
    return create_transform(img_size, is_training=True, mean=mean, std=std, separate=True, **options)


def _culprit(augment: dict[str, Any], options: dict[str, Any]) -> tuple[str, Any]:
    """The key that timm does not understand, and its value: alone among timm's own defaults it fails too."""
    for ours, theirs in AUGMENT.items():
        try:
            _from_timm(32, (0.5,) * 3, (0.5,) * 3, {theirs: options[theirs]})
        except Exception:
            return ours, augment[ours]
    return "auto_augment", augment["auto_augment"]


def _padded_crop(img_size: int, augment: dict[str, Any]) -> list[Any]:
    """Flip, then a crop of the image's own size at a random place of the padded image."""
    resize = Resize((img_size, img_size), InterpolationMode(augment["interpolation"]))
    return [resize, RandomHorizontalFlip(augment["hflip"]), RandomCrop(img_size, padding=augment["crop_pad"])]


def _erasing(augment: dict[str, Any], mean: Sequence[float]) -> Any:
    (low, high), (flat, tall) = augment["re_area"], augment["re_ratio"]
    if augment["re_mode"] == "mean":
        # SL-ViT's code fills with the numbers of the mean after the normalisation; 0 would be the mean colour.
        return FilledErasing(augment["re_prob"], scale=(low, high), ratio=(flat, tall), value=tuple(mean))
    return RandomErasing(
        augment["re_prob"],
        min_area=low,
        max_area=high,
        min_aspect=flat,
        max_aspect=tall,
        mode=augment["re_mode"],
        max_count=augment["re_count"],
        device="cpu",
    )


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
    if channels not in (1, 3):
        return Compose([SameForEach(resize), SameForEach(crop), BandsToTensor(), *normalise[1:]])
    grey = [Grayscale()] if channels == 1 else []
    return Compose([resize, crop, *grey, *normalise])


class SameForEach:
    """A random transform of Pillow images, with the same random numbers for every channel of `Bands`."""

    def __init__(self, transform: Callable[[Image.Image], Image.Image]) -> None:
        self.transform = transform

    def __call__(self, image: Bands) -> Bands:
        """The changed channels."""
        states = random.getstate(), torch.get_rng_state()

        def change(band: Image.Image) -> Image.Image:
            random.setstate(states[0])
            torch.set_rng_state(states[1])
            return self.transform(band)

        return image.each(change)


class BandsToTensor:
    """`Bands` to (C, H, W) float on [0, 1]."""

    def __call__(self, image: Bands) -> Tensor:
        """(C, H, W)"""
        return torch.cat([to_tensor(band) for band in image.bands])


def check_colours(augment: dict[str, Any], channels: int) -> None:
    """Refuse operations on colours where the channels are none.

    Raises:
        UserError: names the key to set to null.
    """
    for key in ("auto_augment", "color_jitter") if channels not in (1, 3) else ():
        if augment[key]:
            raise UserError(
                f"recipe.augment.{key}={augment[key]} changes colours, and data.channels={channels} are no colours: set"
                f" recipe.augment.{key}=null",
                key=f"recipe.augment.{key}",
                value=augment[key],
            )


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def check_keys(augment: dict[str, Any]) -> dict[str, Any]:
    """`augment` with the values of `OPTIONAL` that it lacks.

    Raises:
        UserError: a key is missing, unknown, or has a value that makes no sense.
    """
    known = AUGMENT | OPTIONAL
    for key in augment.keys() - known.keys():
        near = difflib.get_close_matches(key, known, 1)
        hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
        raise UserError(f"recipe.augment.{key} is not an augmentation: {hint}")
    missing = [key for key in AUGMENT if key not in augment]
    if missing:
        raise UserError(f"recipe.augment lacks {', '.join(missing)}: give all of {', '.join(AUGMENT)}")
    whole = OPTIONAL | augment
    policy, jitter = whole["auto_augment"], whole["color_jitter"]
    if isinstance(policy, str) and policy.startswith(("rand", "augmix")) and not POLICY.fullmatch(policy):
        # timm passes over the parts that it does not know
        raise UserError(f"recipe.augment.auto_augment={policy!r} is not possible: write it like rand-m9-mstd0.5-inc1")
    if isinstance(jitter, (list, tuple)) and len(jitter) not in (3, 4):
        raise UserError(f"recipe.augment.color_jitter={jitter!r} is not possible: one number, or three or four of them")
    pad = whole["crop_pad"]
    if pad is not None and (not isinstance(pad, int) or pad < 0):
        raise UserError(f"recipe.augment.crop_pad={pad!r} is not possible: a number of pixels, or null")
    for key in ("re_area", "re_ratio"):
        if len(whole[key]) != 2 or not 0 < whole[key][0] <= whole[key][1]:
            raise UserError(f"recipe.augment.{key}={whole[key]} is not possible: [low, high], both above 0")
    return whole


def _posterize(image: Image.Image, bits_to_keep: int, **unused: Any) -> Image.Image:
    return Image.new(image.mode, image.size) if bits_to_keep < 1 else posterize(image, bits_to_keep)


def _allow_zero_bits(transform: Any) -> None:
    """Make PosterizeIncreasing at magnitude 10 a black image: 0 bits are an error since Pillow 13."""
    operations = list(getattr(transform, "ops", [])) + sum(getattr(transform, "policy", []), [])
    for operation in operations:
        if isinstance(operation, AugmentOp) and operation.name.startswith("Posterize"):
            operation.aug_fn = _posterize
