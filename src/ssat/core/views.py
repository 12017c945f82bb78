"""How the extra views of a training image are made: what SSL tasks ask for and the data deliver."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from ssat.core.choices import check_choice

ViewAugment = Literal["simclr", "dino", "same"]
AGAIN = "again"  # a view made as the classification images are, with other random numbers
LARGE = 96  # pixels from which SimCLR and DINO blur, and crop as for ImageNet


@dataclass(frozen=True)
class View:
    """How one view is made; every image draws its own values.

    Attributes:
        size: side in pixels.
        crop_scale: range of the crop's share of the area.
        crop_ratio: range of the crop's width / height.
        hflip: share of mirrored images.
        jitter: strengths of brightness, contrast, saturation and hue.
        jitter_prob: share of images with another colour.
        grey_prob: share of grey images.
        blur_prob: share of blurred images.
        blur_sigma: range of the Gaussian's standard deviation in pixels.
        solarize_prob: share of images whose bright values are inverted.
    """

    size: int
    crop_scale: tuple[float, float]
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    hflip: float = 0.5
    jitter: tuple[float, float, float, float] = (0.4, 0.4, 0.4, 0.1)
    jitter_prob: float = 0.8
    grey_prob: float = 0.2
    blur_prob: float = 0.0
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    solarize_prob: float = 0.0


def simclr_views(size: int) -> list[View]:
    """SimCLR's two views (Chen et al. 2020, appendix A); half the colour strength and no blur on small images (B.9)."""
    large = size >= LARGE
    strength = 1.0 if large else 0.5
    jitter = (0.8 * strength, 0.8 * strength, 0.8 * strength, 0.2 * strength)
    return [View(size, (0.08, 1.0), jitter=jitter, blur_prob=0.5 if large else 0.0)] * 2


def default_local_size(size: int) -> int:
    """Pixels of the side of DINO's local crops: 96 of 224 (Caron et al. 2021), 16 of 32 (Gani et al. 2022)."""
    return size * 3 // 7 if size >= LARGE else size // 2


def dino_views(size: int, local_views: int = 0, local_size: int | None = None) -> list[View]:
    """DINO's two global and some local views (Caron et al. 2021); small images with the crops of Gani et al. 2022."""
    large = size >= LARGE
    whole, part = ((0.4, 1.0), (0.05, 0.4)) if large else ((0.7, 1.0), (0.2, 0.5))
    jitter = (0.4, 0.4, 0.2, 0.1)
    blurs = (1.0, 0.1, 0.5) if large else (0.0, 0.0, 0.0)
    local_size = local_size or default_local_size(size)
    return [
        View(size, whole, jitter=jitter, blur_prob=blurs[0]),
        View(size, whole, jitter=jitter, blur_prob=blurs[1], solarize_prob=0.2),
        *[View(local_size, part, jitter=jitter, blur_prob=blurs[2])] * local_views,
    ]


def pair_of_views(augment: ViewAugment, size: int) -> list[View | str]:
    """Two views of the whole image: as SimCLR or DINO makes them, or `same` = as the classification images are made.

    Raises:
        UserError: an unknown `augment`.
    """
    check_choice("ssl.view_augment", augment, get_args(ViewAugment))
    if augment == "same":
        return [AGAIN, AGAIN]
    return [*(simclr_views(size) if augment == "simclr" else dino_views(size))]


def weak_view(size: int) -> View:
    """Crop and flip alone, as MAE's pre-training has it (He et al. 2022, appendix A.1)."""
    return View(size, (0.2, 1.0), jitter_prob=0.0, grey_prob=0.0)
