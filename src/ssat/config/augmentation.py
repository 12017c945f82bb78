"""The keys of the augmentations: recipe.augment and recipe.clip_augment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ssat.config.fields import key


@dataclass(frozen=True)
class Augment:
    """Of the training images."""

    crop_scale: tuple[float, float] = key((0.08, 1.0), "share of the image's area in a random resized crop")
    crop_ratio: tuple[float, float] = key((0.75, 1.3333), "width / height of it")
    crop_pad: int | None = key(None, "pixels: flip, pad and crop at random in place of the random resized crop", low=0)
    interpolation: Literal["bicubic", "bilinear", "nearest", "lanczos", "random"] = key("bicubic")
    hflip: float = key(0.5, "share of mirrored images", low=0, high=1)
    auto_augment: str | None = key(
        "rand-m9-mstd0.5-inc1", "Table 14 | another of timm's | cifar10, imagenet, svhn: AutoAugment's policies"
    )
    color_jitter: float | tuple[float, ...] | None = key(None, "row 14", low=0)
    re_prob: float = key(0.25, "random erasing, share of the images (Table 14)", low=0, high=1)
    re_mode: Literal["pixel", "rand", "const", "mean"] = key(
        "pixel", "noise | one colour | mean colour | mean = SL-ViT's"
    )
    re_count: int = key(1, "rectangles", low=1)
    re_area: tuple[float, float] = key((0.02, 0.3333), "timm's; share of the image")
    re_ratio: tuple[float, float] = key((0.3, 3.3333), "height / width")


@dataclass(frozen=True)
class ClipAugment:
    """Of training clips (Appendix D.3); the values are those of the DFDC winner's code, one draw for all frames."""

    jpeg_prob: float = key(0.5, "share of clips that are compressed again", low=0, high=1)
    jpeg_quality: tuple[int, int] = key((60, 100), low=1, high=100)
    noise_prob: float = key(0.1, "share with Gaussian noise", low=0, high=1)
    noise_var: tuple[float, float] = key((10.0, 50.0), "its variance, grey levels squared", low=0)
    noise_per_frame: bool = key(False, "another noise in every frame; false = one for the clip")
    blur_prob: float = key(0.05, "share of blurred clips", low=0, high=1)
    blur_kernel: int = key(3, "pixels, odd", low=1)
    blur_sigma: tuple[float, float] = key((0.8493, 0.8493), "pixels", above=0)
    hflip_prob: float = key(0.5, "share of mirrored clips", low=0, high=1)
    colour_prob: float = key(0.7, "share with one of brightness + contrast, fancy PCA, hue + saturation", low=0, high=1)
    brightness: float = key(0.2, low=0, high=1)
    contrast: float = key(0.2, low=0, high=1)
    pca_std: float = key(0.1, low=0, high=1)
    hue: float = key(20.0, "units of 2 degrees", low=0, high=90)
    saturation: float = key(30.0, "of 255", low=0, high=255)
    value: float = key(20.0, "of 255", low=0, high=255)
    grey_prob: float = key(0.2, "share of grey clips", low=0, high=1)
    affine_prob: float = key(0.5, "share that is moved, resized and turned", low=0, high=1)
    shift: float = key(0.1, "of the side", low=0, high=1)
    scale: float = key(0.2, low=0, high=0.99)
    rotate: float = key(10.0, "degrees", low=0, high=180)
    reverse_prob: float = key(0.0, "share that runs backwards; harmful by the paper", low=0, high=1)
    resample_prob: float = key(0.0, "share at a lower frame rate; harmful by the paper", low=0, high=1)
    resample_factor: tuple[int, int] = key((2, 4), "of the frame rate", low=1)
    backend: Literal["own", "albumentations"] = key("own", "who computes it | the paper's library, to compare with")
