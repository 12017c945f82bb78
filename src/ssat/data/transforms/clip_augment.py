"""The augmentation of deepfake clips: what the paper (Appendix D.3) takes over from the winner of DFDC."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from ssat.core.errors import UserError
from ssat.data.transforms import clip_operations as ops

Range = tuple[float, float]
RESIZES: tuple[tuple[ops.Filter, ops.Filter], ...] = (("area", "cubic"), ("area", "linear"), ("linear", "linear"))


@dataclass(frozen=True)
class ClipAugment:
    """(T, 3, H, W) uint8 clip and random numbers -> (T, 3, size, size) uint8, in the order of the arguments.

    The paper names the operations (Appendix D.3) and, for their values, the DFDC winner's code (Seferbekov 2020), whose
    values are the defaults; where that code leaves a value out, its library's default of that time is meant. Every
    parameter is drawn once for all frames. What the paper found harmful is there, and off.

    Args:
        size: side of the square frames, pixels; the longest side is resized to it in one of three ways, as likely.
        jpeg_prob: share of clips that are compressed again.
        jpeg_quality: range of the quality, 1 to 100.
        noise_prob: share of clips with Gaussian noise.
        noise_var: range of its variance, grey levels squared.
        noise_per_frame: another noise in every frame; else one for the clip, as albumentations has it.
        blur_prob: share of blurred clips.
        blur_kernel: pixels of the Gaussian's kernel, odd.
        blur_sigma: its standard deviation, pixels.
        hflip_prob: share of mirrored clips.
        colour_prob: share of clips with one of: brightness and contrast, fancy PCA, hue, saturation and value.
        brightness: most by which it is moved, of white.
        contrast: most by which it is changed, of 1.
        pca_std: deviation of the multiples of the eigenvalues.
        hue: most by which it is moved, units of 2 degrees.
        saturation: most by which it is moved, of 255.
        value: most by which it is moved, of 255.
        grey_prob: share of grey clips.
        affine_prob: share of clips that are moved, resized and turned.
        shift: most by which it is moved, of the side.
        scale: most by which it is resized, of 1.
        rotate: most by which it is turned, degrees.
        reverse_prob: share of clips that run backwards; harmful by the paper.
        resample_prob: share of clips with every k-th frame alone, shown k times; harmful by the paper.
        resample_factor: range of k.

    Raises:
        UserError: a value that is not possible.
    """

    size: int
    jpeg_prob: float = 0.5
    jpeg_quality: tuple[int, int] = (60, 100)
    noise_prob: float = 0.1
    noise_var: Range = (10.0, 50.0)
    noise_per_frame: bool = False
    blur_prob: float = 0.05
    blur_kernel: int = 3
    blur_sigma: Range = (ops.BLUR_SIGMA, ops.BLUR_SIGMA)
    hflip_prob: float = 0.5
    colour_prob: float = 0.7
    brightness: float = 0.2
    contrast: float = 0.2
    pca_std: float = 0.1
    hue: float = 20.0
    saturation: float = 30.0
    value: float = 20.0
    grey_prob: float = 0.2
    affine_prob: float = 0.5
    shift: float = 0.1
    scale: float = 0.2
    rotate: float = 10.0
    reverse_prob: float = 0.0
    resample_prob: float = 0.0
    resample_factor: tuple[int, int] = (2, 4)

    def __post_init__(self) -> None:
        for field in fields(self):
            if field.name.endswith("_prob"):
                _check(field.name, getattr(self, field.name), 0, 1)
        _check("size", self.size, 1, 4096)
        _check_range("jpeg_quality", self.jpeg_quality, 1, 100)
        _check_range("noise_var", self.noise_var, 0, 255**2)
        _check_range("blur_sigma", self.blur_sigma, 0.01, 100)
        _check_range("resample_factor", self.resample_factor, 1, 1000)
        for name in ("brightness", "contrast", "pca_std", "shift"):
            _check(name, getattr(self, name), 0, 1)
        _check("hue", self.hue, 0, 90)
        _check("saturation", self.saturation, 0, 255)
        _check("value", self.value, 0, 255)
        _check("scale", self.scale, 0, 0.99)
        _check("rotate", self.rotate, 0, 180)
        if self.blur_kernel < 1 or self.blur_kernel % 2 == 0:
            raise UserError(f"blur_kernel={self.blur_kernel} is not possible: give an odd number of pixels")

    def __call__(self, clip: Tensor, rng: np.random.Generator) -> Tensor:
        """The augmented clip; `rng` makes all its random numbers."""
        clip = self.retimed(clip, rng)
        if _chance(rng, self.jpeg_prob):
            clip = ops.compress(clip, int(rng.integers(self.jpeg_quality[0], self.jpeg_quality[1] + 1)))
        if _chance(rng, self.noise_prob):
            clip = ops.add_noise(clip, self._noise(clip, rng))
        if _chance(rng, self.blur_prob):
            clip = ops.blur(clip, self.blur_kernel, rng.uniform(*self.blur_sigma))
        if _chance(rng, self.hflip_prob):
            clip = ops.mirror(clip)
        clip = ops.fit(clip, self.size, *RESIZES[rng.integers(len(RESIZES))])
        if _chance(rng, self.colour_prob):
            clip = self._recoloured(clip, rng)
        if _chance(rng, self.grey_prob):
            clip = ops.to_grey(clip)
        if _chance(rng, self.affine_prob):
            clip = ops.shift_scale_rotate(
                clip,
                shift=(_around(rng, self.shift), _around(rng, self.shift)),
                scale=1 + _around(rng, self.scale),
                degrees=_around(rng, self.rotate),
            )
        return clip

    def retimed(self, clip: Tensor, rng: np.random.Generator) -> Tensor:
        """The frames in the order, and at the rate, that the options ask for: by default the clip itself."""
        if _chance(rng, self.reverse_prob):
            clip = clip.flip(0)
        if _chance(rng, self.resample_prob):
            clip = ops.lower_rate(clip, int(rng.integers(self.resample_factor[0], self.resample_factor[1] + 1)))
        return clip

    def pca(self, clip: Tensor, rng: np.random.Generator) -> Tensor:
        """Fancy PCA with its own random multiples."""
        return ops.fancy_pca(clip, rng.normal(0, self.pca_std, 3))

    def _noise(self, clip: Tensor, rng: np.random.Generator) -> Tensor:
        deviation = np.sqrt(rng.uniform(*self.noise_var))
        shape = (len(clip) if self.noise_per_frame else 1, *clip.shape[1:])
        return torch.from_numpy(rng.standard_normal(shape, dtype=np.float32) * np.float32(deviation))

    def _recoloured(self, clip: Tensor, rng: np.random.Generator) -> Tensor:
        choice = rng.integers(3)
        if choice == 0:
            return ops.brightness_contrast(clip, _around(rng, self.brightness), _around(rng, self.contrast))
        if choice == 1:
            return self.pca(clip, rng)
        return ops.shift_hsv(clip, _around(rng, self.hue), _around(rng, self.saturation), _around(rng, self.value))


@dataclass(frozen=True)
class ClipEval:
    """(T, 3, H, W) uint8 -> (T, 3, size, size) uint8 for evaluation: the longest side resized to `size`, black around.

    As the DFDC winner's validation: means where it shrinks, bicubic where it grows.
    """

    size: int

    def __call__(self, clip: Tensor, rng: np.random.Generator | None = None) -> Tensor:
        """The resized clip; there is nothing random about it."""
        return ops.fit(clip, self.size)


def _chance(rng: np.random.Generator, prob: float) -> bool:
    return bool(rng.random() < prob)


def _around(rng: np.random.Generator, limit: float) -> float:
    return float(rng.uniform(-limit, limit))


def _check(name: str, number: float, low: float, high: float) -> None:
    if not low <= number <= high:
        raise UserError(f"{name}={number} is not possible: give a number from {low} to {high}")


def _check_range(name: str, bounds: Range, low: float, high: float) -> None:
    if len(bounds) != 2 or not low <= bounds[0] <= bounds[1] <= high:
        raise UserError(f"{name}={list(bounds)} is not possible: give two rising numbers from {low} to {high}")
