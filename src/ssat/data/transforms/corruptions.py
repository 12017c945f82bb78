"""The fifteen common corruptions of ImageNet-C (Hendrycks & Dietterich 2019) at five severities, for any image size.

Our own implementations of the published definitions with the published severities: CIFAR-10-C's up to 64 pixels,
ImageNet-C's above. Two differ in their material: `frost` grows its ice from noise, because the original pastes six
photographs, and `fog` sums octaves of noise in place of the diamond-square fractal. Numbers are therefore comparable
between runs of this project, not with published tables.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage, signal

Pixels = NDArray[np.float64]  # (H, W, 3) in [0, 1]
Random = np.random.Generator

SMALL = 64  # pixels up to which CIFAR-10-C's severities are used


def gaussian_noise(x: Pixels, c: float, rng: Random) -> Pixels:
    """Normal noise of standard deviation c."""
    return x + rng.normal(size=x.shape, scale=c)


def shot_noise(x: Pixels, c: float, rng: Random) -> Pixels:
    """Poisson noise of c photons at full brightness."""
    return rng.poisson(x * c) / c


def impulse_noise(x: Pixels, c: float, rng: Random) -> Pixels:
    """A share c of the values becomes 0 or 1."""
    chance = rng.random(x.shape)
    return np.where(chance < c / 2, 0.0, np.where(chance < c, 1.0, x))


def defocus_blur(x: Pixels, c: tuple[float, float], rng: Random) -> Pixels:
    """A disk of radius c[0], its edge smoothed by c[1]."""
    reach = max(8, int(np.ceil(c[0])))
    places = np.arange(-reach, reach + 1)
    disk = (places[:, None] ** 2 + places**2 <= c[0] ** 2).astype(float)
    disk = ndimage.gaussian_filter(disk / disk.sum(), c[1], truncate=2 if c[0] > 8 else 1 / c[1])
    return np.stack([ndimage.correlate(channel, disk, mode="mirror") for channel in np.moveaxis(x, 2, 0)], 2)


def glass_blur(x: Pixels, c: tuple[float, int, int], rng: Random) -> Pixels:
    """Blur, c[2] times a neighbour within c[1] pixels in place of each pixel, blur."""
    sigma, distance, times = c
    x = _blur(x, sigma)
    height, width = x.shape[:2]
    rows, columns = np.indices((height, width))
    for _ in range(times):
        dy, dx = rng.integers(-distance, distance, (2, height, width))
        x = x[np.clip(rows + dy, 0, height - 1), np.clip(columns + dx, 0, width - 1)]
    return _blur(x, sigma)


def motion_blur(x: Pixels, c: tuple[float, float], rng: Random) -> Pixels:
    """A half Gaussian of deviation c[1] over 2 c[0] + 1 pixels in one direction."""
    return _motion(x, *c, angle=rng.uniform(-45, 45))


def zoom_blur(x: Pixels, c: tuple[float, float], rng: Random) -> Pixels:
    """The mean of zooms from 1 to below c[0] in steps of c[1], and the image."""
    factors = np.arange(1, c[0], c[1])
    return (x + sum(_zoom(x, factor) for factor in factors)) / (len(factors) + 1)


def snow(x: Pixels, c: tuple[float, ...], rng: Random) -> Pixels:
    """Flakes in motion over a whitened image."""
    location, scale, zoom, threshold, radius, sigma, keep = c
    layer = _zoom(rng.normal(location, scale, x.shape[:2])[..., None], zoom)
    layer = np.where(layer < threshold, 0, np.clip(layer, 0, 1))
    layer = np.clip(_motion(layer, radius, sigma, angle=rng.uniform(-135, -45)), 0, 1)
    white = np.maximum(x, _luminance(x) * 1.5 + 0.5)
    return keep * x + (1 - keep) * white + layer + np.rot90(layer, 2)


def frost(x: Pixels, c: tuple[float, float], rng: Random) -> Pixels:
    """c[0] of the image plus c[1] of ice: ridges of fractal noise, from our own generator."""
    noise = _fractal(x.shape[:2], 1.7, rng)
    ice = (1 - np.abs(2 * noise - 1)) ** 2
    return c[0] * x + c[1] * ice[..., None] * np.array([0.85, 0.95, 1.0])


def fog(x: Pixels, c: tuple[float, float], rng: Random) -> Pixels:
    """c[0] of fractal haze whose octaves fade by c[1]."""
    brightest = x.max()
    return (x + c[0] * _fractal(x.shape[:2], c[1], rng)[..., None]) * brightest / (brightest + c[0])


def brightness(x: Pixels, c: float, rng: Random) -> Pixels:
    """c added to the value of hue, saturation and value."""
    value = x.max(2, keepdims=True)
    brighter = np.clip(value + c, 0, 1)
    return np.where(value > 0, x * brighter / np.maximum(value, 1e-12), brighter)


def contrast(x: Pixels, c: float, rng: Random) -> Pixels:
    """The distance from each channel's mean times c."""
    mean = x.mean((0, 1), keepdims=True)
    return (x - mean) * c + mean


def elastic_transform(x: Pixels, c: tuple[float, float, float], rng: Random) -> Pixels:
    """Displacements of c[0] times noise smoothed by c[1], after an affine jitter by c[2]; in shares of the side."""
    side = min(x.shape[:2])
    strength, sigma, jitter = (value * side for value in c)
    centre = np.array(x.shape[:2]) / 2
    corners = centre + side // 3 * np.array([[1, 1], [1, -1], [-1, -1]])
    moved = corners + rng.uniform(-jitter, jitter, corners.shape)
    # The affine map that takes the moved corners back to where they were.
    ones = np.ones((3, 1))
    back = np.linalg.solve(np.hstack([moved, ones]), corners)
    rows, columns = np.indices(x.shape[:2], dtype=float)
    rows, columns = np.moveaxis(np.stack([rows, columns, np.ones_like(rows)], 2) @ back, 2, 0)
    dy, dx = (
        ndimage.gaussian_filter(rng.uniform(-1, 1, x.shape[:2]), sigma, mode="reflect", truncate=3) * strength
        for _ in range(2)
    )
    places = [rows + dy, columns + dx]
    channels = [ndimage.map_coordinates(channel, places, order=1, mode="mirror") for channel in np.moveaxis(x, 2, 0)]
    return np.stack(channels, 2)


def pixelate(x: Pixels, c: float, rng: Random) -> Pixels:
    """Shrunk to c of its size and enlarged again, box filter."""
    image = _image(x)
    small = image.resize((max(1, int(image.width * c)), max(1, int(image.height * c))), Image.Resampling.BOX)
    return np.asarray(small.resize(image.size, Image.Resampling.BOX)) / 255


def jpeg_compression(x: Pixels, c: int, rng: Random) -> Pixels:
    """Written as JPEG of quality c and read again."""
    buffer = io.BytesIO()
    _image(x).save(buffer, "JPEG", quality=c)
    return np.asarray(Image.open(buffer).convert("RGB")) / 255


Corruption = Callable[[Pixels, Any, Random], Pixels]

# Severities 1 to 5: (CIFAR-10-C's, ImageNet-C's).
FAMILIES: dict[str, tuple[Corruption, list[Any], list[Any]]] = {
    "gaussian_noise": (gaussian_noise, [0.04, 0.06, 0.08, 0.09, 0.10], [0.08, 0.12, 0.18, 0.26, 0.38]),
    "shot_noise": (shot_noise, [500, 250, 100, 75, 50], [60, 25, 12, 5, 3]),
    "impulse_noise": (impulse_noise, [0.01, 0.02, 0.03, 0.05, 0.07], [0.03, 0.06, 0.09, 0.17, 0.27]),
    "defocus_blur": (
        defocus_blur,
        [(0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)],
        [(3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)],
    ),
    "glass_blur": (
        glass_blur,
        [(0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)],
        [(0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)],
    ),
    "motion_blur": (
        motion_blur,
        [(6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)],
        [(10, 3), (15, 5), (15, 8), (15, 12), (20, 15)],
    ),
    "zoom_blur": (
        zoom_blur,
        [(1.06, 0.01), (1.11, 0.01), (1.16, 0.01), (1.21, 0.01), (1.26, 0.01)],
        [(1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.33, 0.03)],
    ),
    "snow": (
        snow,
        [
            (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
            (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
            (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
            (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
            (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
        ],
        [
            (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
            (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
            (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
            (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
            (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
        ],
    ),
    "frost": (
        frost,
        [(1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)],
        [(1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75)],
    ),
    "fog": (
        fog,
        [(0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)],
        [(1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)],
    ),
    "brightness": (brightness, [0.05, 0.1, 0.15, 0.2, 0.3], [0.1, 0.2, 0.3, 0.4, 0.5]),
    "contrast": (contrast, [0.75, 0.5, 0.4, 0.3, 0.15], [0.4, 0.3, 0.2, 0.1, 0.05]),
    "elastic_transform": (
        elastic_transform,
        [(0, 0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03)],
        [(2, 0.7, 0.1), (2, 0.08, 0.2), (0.05, 0.01, 0.02), (0.07, 0.01, 0.02), (0.12, 0.01, 0.02)],
    ),
    "pixelate": (pixelate, [0.95, 0.9, 0.85, 0.75, 0.65], [0.6, 0.5, 0.4, 0.3, 0.25]),
    "jpeg_compression": (jpeg_compression, [80, 65, 58, 50, 40], [25, 18, 15, 10, 7]),
}


def corrupt(image: Image.Image, index: int, *, family: str, severity: int) -> Image.Image:
    """`image` under a corruption of `FAMILIES` at severity 1 to 5; its random numbers follow from (family, index)."""
    function, small, large = FAMILIES[family]
    value = (small if max(image.size) <= SMALL else large)[severity - 1]
    rng = np.random.default_rng((list(FAMILIES).index(family), index))
    return _image(function(np.asarray(image.convert("RGB")) / 255, value, rng))


def _image(x: Pixels) -> Image.Image:
    return Image.fromarray((np.clip(x, 0, 1) * 255).round().astype(np.uint8))


def _luminance(x: Pixels) -> Pixels:
    return (x @ np.array([0.299, 0.587, 0.114]))[..., None]


def _blur(x: Pixels, sigma: float) -> Pixels:
    return ndimage.gaussian_filter(x, (sigma, sigma, 0), mode="nearest")


def _motion(x: Pixels, radius: float, sigma: float, *, angle: float) -> Pixels:
    reach = int(2 * radius)
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1))
    steps = np.arange(reach + 1)
    weights = np.exp(-0.5 * (steps / sigma) ** 2)
    rows, columns = reach + steps * np.sin(np.deg2rad(angle)), reach + steps * np.cos(np.deg2rad(angle))
    for dy, dx in ((0, 0), (0, 1), (1, 0), (1, 1)):  # each step shared among the four pixels around it
        row, column = np.floor(rows).astype(int) + dy, np.floor(columns).astype(int) + dx
        share = (1 - np.abs(rows - row)) * (1 - np.abs(columns - column)) * weights
        inside = (row <= 2 * reach) & (column <= 2 * reach)
        np.add.at(kernel, (row[inside], column[inside]), share[inside])
    padded = np.pad(x, ((reach, reach), (reach, reach), (0, 0)), mode="edge")
    return signal.fftconvolve(padded, (kernel / kernel.sum())[..., None], mode="valid", axes=(0, 1))


def _zoom(x: Pixels, factor: float) -> Pixels:
    """The middle of `x` enlarged by `factor` to the size of `x`."""
    centre = (np.array(x.shape[:2]) - 1) / 2
    offset = np.append(centre - centre / factor, 0.0)
    return ndimage.affine_transform(x, [1 / factor, 1 / factor, 1.0], offset, order=1, mode="nearest")


def _fractal(shape: tuple[int, ...], fade: float, rng: Random) -> NDArray[np.float64]:
    """Noise in [0, 1]: octaves from the size of the image down to a pixel, each `fade` times weaker."""
    octaves = int(np.ceil(np.log2(max(shape))))
    total = np.zeros(shape)
    for octave in range(octaves):
        cells = 2**octave + 1
        rows, columns = (np.linspace(0, cells - 1, side) for side in shape)
        places = np.meshgrid(rows, columns, indexing="ij")
        total += ndimage.map_coordinates(rng.uniform(-1, 1, (cells, cells)), places, order=1) / fade**octave
    low, high = total.min(), total.max()
    return (total - low) / max(high - low, 1e-12)
