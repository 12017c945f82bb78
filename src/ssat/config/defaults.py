"""Defaults that follow from the image size; conf/*.yaml calls them as resolvers."""

from __future__ import annotations

import math

from omegaconf import ListConfig, OmegaConf

LARGEST = 16384  # pixels per side that the schema allows


def default_patch(img_size: int) -> int:
    """The largest patch that gives 14 to 16 patches per side (Table 14), or the one that comes nearest to it."""
    divisors = [p for p in range(1, min(img_size, LARGEST) + 1) if img_size % p == 0]
    fitting = [p for p in divisors if 14 <= img_size / p <= 16]
    return max(fitting) if fitting else min(divisors, key=lambda p: abs(math.log(img_size / p / 15)))


def default_strides(img_size: int) -> ListConfig:
    """CvT's strides: the official 4, 2, 2 for large images, smaller ones where little would be left of the image."""
    return ListConfig([4 if img_size >= 128 else 2 if img_size >= 64 else 1, 2, 2])  # --resolve takes no plain list


def default_swin_patch(img_size: int) -> int:
    """Swin's patch: the original 4 for large images; small ones are cut finer, so that four stages have a grid left."""
    return 4 if img_size >= 128 else 2 if img_size % 16 == 0 else 1


def default_window(img_size: int, patch_size: int) -> int:
    """Swin's window: the first usual size that divides every stage's grid which is larger than it."""
    usual = (7, 8, 4, 6, 5, 3, 2) if img_size >= 128 else (4, 7, 8, 6, 5, 3, 2)
    sides = [-(-(img_size // patch_size) // 2**stage) for stage in range(4)]
    return next((w for w in usual if all(side <= w or side % w == 0 for side in sides)), usual[0])


def default_mask_unit(img_size: int) -> int:
    """Pixels per mask cell of Swin: 8 to 16 cells per side at the usual sizes."""
    return 16 if img_size >= 128 else 8 if img_size >= 64 else 4


def default_kernel(img_size: int) -> int:
    """Of CCT's convolutions: 3 for small images, 7 for large ones, as its authors."""
    return 7 if img_size >= 128 else 3


def default_convolutions(img_size: int) -> int:
    """Of CCT-7's tokenizer: one for 32 pixels and two for larger images, so that some 200 tokens are left."""
    return 2 if img_size >= 64 else 1


def default_stem(img_size: int) -> str:
    """ResNet's stem: the original one would leave a single position of a 32-pixel image."""
    return "imagenet" if img_size >= 64 else "cifar"


def default_frames(frames: int | None) -> int:
    """Frames of a clip encoder: those of the data, or VideoMAE's 16 beside images, which is refused later."""
    return 16 if frames is None else frames


def half(epochs: int) -> int:
    """Of a length, at least 1: what each of two stages has where one stage has the whole."""
    return max(1, epochs // 2)


RESOLVERS = (
    *(default_patch, default_strides, default_swin_patch, default_window, default_mask_unit, default_stem),
    *(default_frames, default_kernel, default_convolutions, half),
)
for resolver in RESOLVERS:
    OmegaConf.register_new_resolver(resolver.__name__, resolver, replace=True)
