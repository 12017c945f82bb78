"""The augmentation of `clip_augment` computed by albumentations, the paper's library: to compare with, not faster."""

from __future__ import annotations

import importlib.metadata
import os
import random
import warnings
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ssat.core.errors import UserError
from ssat.data.transforms.clip_augment import ClipAugment

VERSION = "2.0.8"  # the last under the MIT licence; names and defaults of arguments differ between versions
INSTALL = f"pip install albumentations=={VERSION}"


def augmentation(
    size: int, *, backend: Literal["own", "albumentations"] = "own", **options: Any
) -> ClipAugment | AlbumentationsClip:
    """The augmentation of training clips.

    Args:
        size, options: of `ClipAugment`.
        backend: who computes it.

    Raises:
        UserError: as `ClipAugment` and `AlbumentationsClip` do.
    """
    own = ClipAugment(size, **options)
    return own if backend == "own" else AlbumentationsClip(own)


class AlbumentationsClip:
    """(T, 3, H, W) uint8 clip and random numbers -> (T, 3, size, size) uint8, by albumentations.

    Same operations, order and ranges as the `options`; three are ours in both: fancy PCA, which albumentations rounds
    to next to no change in 8 bits, the choice of the colour operation, and what happens to time.

    Args:
        options: probabilities and ranges.

    Raises:
        UserError: albumentations is not installed in the version that this is written for, it does not know an
            argument, or the options ask for another noise in every frame, which it cannot make.
    """

    def __init__(self, options: ClipAugment) -> None:
        if options.noise_per_frame:
            raise UserError(
                "noise_per_frame=true is not possible with backend=albumentations, which makes one noise for a clip",
                key="recipe.clip_augment.noise_per_frame",
            )
        self.options = options
        self._before, self._colours, self._after = _pipelines(options)

    def __call__(self, clip: Tensor, rng: np.random.Generator) -> Tensor:
        """The augmented clip; `rng` makes all its random numbers."""
        clip = _applied(self._before, self.options.retimed(clip, rng), rng)
        if rng.random() < self.options.colour_prob:
            choice = int(rng.integers(3))
            clip = self.options.pca(clip, rng) if choice == 1 else _applied(self._colours[choice], clip, rng)
        return _applied(self._after, clip, rng)


def _applied(pipeline: Any, clip: Tensor, rng: np.random.Generator) -> Tensor:
    # Its set_random_seed would start every operation from the same number, so that what they draw goes together.
    pipeline.set_random_state(rng, random.Random(int(rng.integers(2**62))))
    frames = pipeline(images=clip.permute(0, 2, 3, 1).contiguous().numpy())["images"]
    return torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2)


def checked(transform: Any, **arguments: Any) -> Any:
    """`transform(**arguments)`, refused where albumentations would only warn and ignore an argument.

    Raises:
        UserError: it does not know one of them.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        try:
            return transform(**arguments)
        except (UserWarning, ValueError) as error:
            raise UserError(
                f"albumentations refuses the arguments of {transform.__name__} ({error}): {INSTALL}"
            ) from error


def _pipelines(o: ClipAugment) -> tuple[Any, dict[int, Any], Any]:
    a, cv2 = library()
    low, high = (float(np.sqrt(variance)) / 255 for variance in o.noise_var)
    kernel = (o.blur_kernel, o.blur_kernel)
    resizes = [
        checked(a.LongestMaxSize, max_size=o.size, interpolation=interpolation, area_for_downscale=area, p=1.0)
        for interpolation, area in ((cv2.INTER_CUBIC, "image"), (cv2.INTER_LINEAR, "image"), (cv2.INTER_LINEAR, None))
    ]
    before = [
        checked(a.ImageCompression, quality_range=tuple(o.jpeg_quality), p=o.jpeg_prob),
        checked(a.GaussNoise, std_range=(low, high), p=o.noise_prob),
        checked(a.GaussianBlur, blur_limit=kernel, sigma_limit=tuple(o.blur_sigma), p=o.blur_prob),
        checked(a.HorizontalFlip, p=o.hflip_prob),
        a.OneOf(resizes, p=1.0),
        checked(a.PadIfNeeded, min_height=o.size, min_width=o.size, border_mode=cv2.BORDER_CONSTANT, fill=0, p=1.0),
    ]
    light = checked(a.RandomBrightnessContrast, brightness_limit=o.brightness, contrast_limit=o.contrast, p=1.0)
    limits = {"hue_shift_limit": o.hue, "sat_shift_limit": o.saturation, "val_shift_limit": o.value}
    hsv = checked(a.HueSaturationValue, **limits, p=1.0)
    shift = (-o.shift, o.shift)
    after = [
        checked(a.ToGray, p=o.grey_prob),
        # Its ShiftScaleRotate would resize width and height apart from each other.
        checked(
            a.Affine,
            scale=(1 - o.scale, 1 + o.scale),
            translate_percent={"x": shift, "y": shift},
            rotate=(-o.rotate, o.rotate),
            keep_ratio=True,
            border_mode=cv2.BORDER_CONSTANT,
            fill=0,
            p=o.affine_prob,
        ),
    ]
    return a.Compose(before), {0: a.Compose([light]), 2: a.Compose([hsv])}, a.Compose(after)


def library() -> tuple[Any, Any]:
    """albumentations and OpenCV.

    Raises:
        UserError: they are not installed, or another version is.
    """
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # an import would ask the internet for its newest version
    try:
        version = importlib.metadata.version("albumentations")
        import albumentations
        import cv2
    except ImportError as error:
        raise UserError(
            f"backend=albumentations needs that package ({error}): {INSTALL}", key="recipe.clip_augment.backend"
        ) from error
    if version != VERSION:
        raise UserError(
            f"albumentations {version} is installed, and other versions than {VERSION} ignore arguments: {INSTALL}",
            key="recipe.clip_augment.backend",
        )
    return albumentations, cv2
