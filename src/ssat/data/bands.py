"""Images of other than one or three channels: multi-spectral TIFF files and NumPy arrays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from ssat.data.decode import other_values, understood
from ssat.data.orientation import upright
from ssat.data.pixels import Pixels, Stored, TooLarge, refuse_large, to_8_bit
from ssat.data.stored import is_deep, opened, stored_values


@dataclass(frozen=True)
class Bands:
    """An 8-bit image of any number of channels, each as a Pillow image, so that Pillow can resize it.

    Attributes:
        bands: one image of mode L for each channel, all of one size.
    """

    bands: tuple[Image.Image, ...]

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.bands[0].size

    @property
    def picture(self) -> Image.Image:
        """What one sees of it, as `core.visible` has it: the first three channels, of two the first."""
        return Image.merge("RGB", self.bands[:3] if len(self.bands) >= 3 else self.bands[:1] * 3)

    def each(self, change: Callable[[Image.Image], Image.Image]) -> Bands:
        """Every channel changed in the same way."""
        return Bands(tuple(change(band) for band in self.bands))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """(H, W, C) uint8."""
        pixels = np.stack([np.asarray(band) for band in self.bands], axis=2)
        return pixels if dtype is None else pixels.astype(dtype)


def bands_of(pixels: NDArray[np.uint8]) -> Bands:
    """(H, W, C) uint8 as `Bands`."""
    return Bands(tuple(Image.fromarray(np.ascontiguousarray(pixels[..., c])) for c in range(pixels.shape[2])))


def read_bands(path: str | Path | BytesIO, pixels: Pixels, name: str | None = None) -> NDArray[np.uint8]:
    """The image file `path` as (H, W, C) uint8, upright; `name` is what a message calls it.

    Raises:
        UserError: the file cannot be read, or has another number of channels than `pixels` says.
        WrongRange: its values mean nothing without a range.
    """
    with understood(path, name):
        values, high = _stored(path, pixels)
        return to_8_bit(Stored(channels_last(values, pixels.channels), high), pixels.value_range)


def channels_last(values: NDArray[Any], channels: int) -> NDArray[Any]:
    """(H, W, C) or (C, H, W) as (H, W, C); where both fit, it is taken for (H, W, C).

    Raises:
        ValueError: the array has not that many channels.
    """
    if values.ndim == 3 and values.shape[2] == channels:
        return values
    if values.ndim == 3 and values.shape[0] == channels:
        return np.ascontiguousarray(np.moveaxis(values, 0, 2))
    raise ValueError(f"it has the shape {values.shape}, without {channels} channels first or last: set data.channels")


def _stored(path: str | Path | BytesIO, pixels: Pixels) -> Stored:
    try:
        with opened(path, pixels.max_pixels) as image:
            if image.format == "TIFF" and image.mode not in ("P", "PA"):
                return _of_tiff(path, image, pixels)
            return stored_values(image) if is_deep(image) else Stored(_of_8_bits(image), 255.0)
    except UnidentifiedImageError:
        stored = other_values(path, pixels.max_pixels)
        if stored is None:
            raise
        return stored


def _of_tiff(path: str | Path | BytesIO, image: Image.Image, how: Pixels) -> Stored:
    """All samples of a pixel; of a file with as many pages as channels, a page for each."""
    if getattr(image, "n_frames", 1) != how.channels:
        try:
            stored = other_values(path, how.max_pixels)
        except TooLarge:
            raise
        except ValueError:  # JPEG compression, of which Pillow knows the colours
            return Stored(_of_8_bits(image), 255.0)
        assert stored is not None
        return stored
    pages = []
    for page in range(how.channels):
        image.seek(page)
        refuse_large(image.width * image.height, how.max_pixels)  # of the first one the file has said it
        pages.append(stored_values(image) if is_deep(image) else Stored(_of_8_bits(image)[..., 0], 255.0))
    return Stored(np.stack([values for values, _ in pages], axis=-1), pages[0].high)


def _of_8_bits(image: Image.Image) -> NDArray[np.uint8]:
    image.load()
    image = upright(image)
    pixels = np.asarray(image.convert("RGB") if image.mode in ("P", "1", "YCbCr") else image)
    return np.atleast_3d(pixels)
