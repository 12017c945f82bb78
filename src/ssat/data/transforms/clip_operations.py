"""Operations on clips of 8-bit frames (T, 3, H, W), each with one set of parameters for all frames.

They are those of the albumentations library that the paper names (Appendix D.3), on torch tensors; every random number
is an argument, so that equal frames stay equal and a clip depends on nothing else.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as v2

from ssat.data.transforms.batched.geometry import resample

Filter = Literal["area", "linear", "cubic"]
BLUR_SIGMA = 0.8493  # makes the 3-pixel kernel 1/4, 1/2, 1/4: that of OpenCV for a kernel size of 3 alone


def _to_uint8(values: Tensor) -> Tensor:
    return values.round().clamp(0, 255).to(torch.uint8)


def compress(clip: Tensor, quality: int) -> Tensor:
    """Every frame through a JPEG encoder and decoder of this quality (1 to 100)."""
    return v2.jpeg(clip, quality)


def add_noise(clip: Tensor, noise: Tensor) -> Tensor:
    """Plus noise (T or 1, 3, H, W) in grey levels."""
    return _to_uint8(clip + noise)


def blur(clip: Tensor, kernel_size: int, sigma: float) -> Tensor:
    """Gaussian blur; `sigma` in pixels."""
    return v2.gaussian_blur(clip, [kernel_size, kernel_size], [sigma, sigma])


def mirror(clip: Tensor) -> Tensor:
    """Left becomes right."""
    return clip.flip(-1)


def fit(clip: Tensor, size: int, down: Filter = "area", up: Filter = "cubic") -> Tensor:
    """The longest side becomes `size` pixels, the other in proportion; black around it makes a square.

    Args:
        clip: (T, 3, H, W).
        size: pixels of the result's sides.
        down: how it shrinks: `area` takes means; `linear` and `cubic` look at the neighbours alone, as OpenCV's do.
        up: how it grows.
    """
    height, width = clip.shape[-2:]
    longest = max(height, width)
    sides = max(1, round(height * size / longest)), max(1, round(width * size / longest))
    clip = _resized(clip, sides, down if size < longest else up)
    rest_y, rest_x = size - sides[0], size - sides[1]
    return F.pad(clip, (rest_x // 2, rest_x - rest_x // 2, rest_y // 2, rest_y - rest_y // 2))


def _resized(clip: Tensor, sides: tuple[int, int], filter_: Filter) -> Tensor:
    if clip.shape[-2:] == sides:
        return clip
    if filter_ == "area":
        rows, columns = (_area_weights(old, new) for old, new in zip(clip.shape[-2:], sides, strict=True))
        return resample(clip, rows, columns)
    mode = InterpolationMode.BILINEAR if filter_ == "linear" else InterpolationMode.BICUBIC
    return v2.resize(clip, list(sides), interpolation=mode, antialias=False)


@lru_cache(maxsize=32)
def _area_weights(size_in: int, size_out: int) -> Tensor:
    """(1, size_out, size_in) shares of the input's pixels in the output's, along one axis."""
    edges = torch.arange(size_out + 1, dtype=torch.float64) * (size_in / size_out)
    place = torch.arange(size_in, dtype=torch.float64)
    overlap = torch.minimum(edges[1:, None], place + 1) - torch.maximum(edges[:-1, None], place)
    weights = overlap.clamp_min(0)
    return (weights / weights.sum(1, keepdim=True)).float().unsqueeze(0)


def brightness_contrast(clip: Tensor, brightness: float, contrast: float) -> Tensor:
    """Values times 1 + `contrast`, plus `brightness` of white."""
    return _to_uint8(clip.float() * (1 + contrast) + 255 * brightness)


def fancy_pca(clip: Tensor, alphas: NDArray[np.float64]) -> Tensor:
    """The clip's own principal colours are added, as Krizhevsky et al. 2012, sec. 4.1, do.

    Args:
        clip: (T, 3, H, W).
        alphas: (3,) multiples of the eigenvalues of the covariance of red, green and blue in [0, 1], over all pixels.
    """
    pixels = clip.transpose(0, 1).flatten(1).float()
    values, vectors = np.linalg.eigh(torch.cov(pixels).double().numpy() / 255**2)
    # An eigenvector's sign is the library's choice: it is fixed here, so that a seed means the same everywhere.
    vectors = vectors * np.where(vectors.sum(0) < 0, -1.0, 1.0)
    shift = torch.from_numpy(255 * vectors @ (alphas * values.clip(0))).float()
    return _to_uint8(clip + shift.view(3, 1, 1))


def shift_hsv(clip: Tensor, hue: float, saturation: float, value: float) -> Tensor:
    """Other hue, saturation and value; grey stays grey.

    Args:
        clip: (T, 3, H, W).
        hue: in units of 2 degrees.
        saturation, value: of 255.
    """
    h, s, v = _to_hsv(clip.float())
    s = torch.where(s > 0, (s + saturation / 255).clamp(0, 1), s)
    return _to_uint8(_from_hsv((h + hue / 30) % 6, s, (v + value).clamp(0, 255)))


def _to_hsv(rgb: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Hue in [-1, 5], a circle of 6; saturation in [0, 1] and value in [0, 255], each (T, H, W)."""
    r, g, b = rgb.unbind(1)
    low, value = torch.aminmax(rgb, dim=1)
    chroma = value - low
    safe = chroma.clamp_min(1)  # of whole numbers: 0 or at least 1
    hue = torch.where(value == r, (g - b) / safe, torch.where(value == g, (b - r) / safe + 2, (r - g) / safe + 4))
    return hue, chroma / value.clamp_min(1), value


def _from_hsv(hue: Tensor, saturation: Tensor, value: Tensor) -> Tensor:
    # A channel is as low as the hue is far from its own, 0, 2 or 4 on the circle of 6.
    chroma, channels = value * saturation, []
    for own in (0, 2, 4):
        distance = (hue - own).abs()
        distance = torch.minimum(distance, 6 - distance)
        channels.append(value - chroma * (distance - 1).clamp(0, 1))
    return torch.stack(channels, 1)


def to_grey(clip: Tensor) -> Tensor:
    """Luminance (ITU-R 601) in all three channels."""
    return v2.rgb_to_grayscale(clip.float(), 3).round().to(torch.uint8)


def shift_scale_rotate(clip: Tensor, *, shift: tuple[float, float], scale: float, degrees: float) -> Tensor:
    """Moved, resized and turned about the middle; black where there is no picture.

    Args:
        clip: (T, 3, H, W).
        shift: to the right and down, shares of width and height.
        scale: of the picture, 1 = as it is.
        degrees: clockwise.
    """
    height, width = clip.shape[-2:]
    return v2.affine(
        clip,
        angle=degrees,
        translate=[shift[0] * width, shift[1] * height],
        scale=scale,
        shear=[0.0, 0.0],
        interpolation=InterpolationMode.BILINEAR,
    )


def lower_rate(clip: Tensor, factor: int) -> Tensor:
    """Every `factor`-th frame alone, each shown so many times: time sampled down and up again."""
    return clip[torch.arange(len(clip)) // factor * factor]
