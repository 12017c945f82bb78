"""What the values of an image file mean: which of them is black and which is white."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ssat.core.errors import UserError

KEY, SIZE_KEY = "data.value_range", "data.max_pixels"
NARROW = 256  # pixels of the short side that an evaluation resizes to, at the usual 224
MOST_PIXELS = 178_956_970  # of an image; from here on Pillow refuses to open one by itself


@dataclass(frozen=True)
class Pixels:
    """How image files are read.

    Attributes:
        channels: 3 = as 8-bit RGB, whatever the file holds; else as many channels as the file must have.
        value_range: the values that become 0 and 255, linearly between them; None = 0 and the largest of the type.
        max_pixels: the largest image that is decoded, width times height.
    """

    channels: int = 3
    value_range: tuple[float, float] | None = None
    max_pixels: int = MOST_PIXELS


RGB = Pixels()


class Stored(NamedTuple):
    """Values as they are in a file.

    Attributes:
        values: (H, W) or (H, W, C), upright.
        high: the largest value of their type; infinite for floating-point numbers.
    """

    values: NDArray[Any]
    high: float


class WrongRange(UserError):
    """The values of a file mean nothing without `data.value_range`: no damage, so no reason to leave the file out."""


class TooLarge(UserError):
    """A picture states more pixels than are read at once: a file of a kilobyte can state four billion.

    Attributes:
        pixels: that it states.
    """

    def __init__(self, message: str, pixels: int = 0) -> None:
        super().__init__(message, key=SIZE_KEY)
        self.pixels = pixels

    def __reduce__(self) -> tuple[type[TooLarge], tuple[str, int]]:
        return TooLarge, (str(self), self.pixels)


def refuse_large(pixels: int, most: int) -> None:
    """Raises: TooLarge: an image of `pixels` is larger than the `most` that are read."""
    if pixels > most:
        raise TooLarge(
            f"it states {pixels:,} pixels, and at most {SIZE_KEY}={most} are read: raise the key if the size is right,"
            " or leave the file out",
            pixels,
        )


def resized_pixels(width: int, height: int) -> int:
    """Of an image whose short side is resized to 256 pixels."""
    short, long = sorted((max(1, width), max(1, height)))
    return NARROW * NARROW * long // short


def fits(width: int, height: int, most: int) -> bool:
    """Whether neither `refuse_large` nor `refuse_narrow` refuses an image of this size."""
    return width * height <= most and resized_pixels(width, height) <= max(most, MOST_PIXELS)


def refuse_narrow(width: int, height: int, most: int) -> None:
    """Raises: TooLarge: an image whose short side is resized has more than the `most` pixels that are read."""
    if (pixels := resized_pixels(width, height)) > max(most, MOST_PIXELS):
        raise TooLarge(
            f"it is {width} x {height}, and resized to a short side of {NARROW} it has {pixels:,} pixels, more than"
            f" {SIZE_KEY}={max(most, MOST_PIXELS)}: cut it into pieces, or leave the file out",
            pixels,
        )


def largest_of(dtype: np.dtype[Any]) -> float:
    """The largest value of a type of numbers; infinite for floating-point numbers.

    Raises:
        ValueError: complex numbers, text ...
    """
    if dtype.kind == "b":
        return 1.0
    if dtype.kind not in "uif":
        raise ValueError(f"its values are of the type {dtype}, not numbers")
    return math.inf if dtype.kind == "f" else float(np.iinfo(dtype).max)


def to_8_bit(stored: Stored, value_range: tuple[float, float] | None) -> NDArray[np.uint8]:
    """The values as 0 to 255.

    Raises:
        WrongRange: without a `value_range`: floating-point or negative values.
        ValueError: values that are no numbers (NaN).
    """
    values, high = stored
    if value_range is None:
        refuse_unknown(values, high)
    elif values.dtype.kind == "f" and np.isnan(values).any():
        raise ValueError("some of its values are NaN, no numbers")
    low, high = value_range or (0.0, high)
    if values.dtype == np.uint8 and (low, high) == (0, 255):
        return values
    # float64: 32-bit whole numbers are exact in it.
    return np.rint((values.astype(np.float64).clip(low, high) - low) * (255 / (high - low))).astype(np.uint8)


def refuse_unknown(values: NDArray[Any], high: float) -> None:
    """Raises: WrongRange: floating-point or negative values, which no rule maps to black and white."""
    if values.dtype.kind == "f":
        raise WrongRange(
            "its pixels are floating-point numbers of unknown range, save it with 8 or 16 bits, or set"
            f" {KEY}=[lo,hi]{_seen(values)}",
            key=KEY,
        )
    if values.dtype.kind == "i" and values.size and values.min() < 0:
        raise WrongRange(f"it has negative values, set {KEY}=[lo,hi]{_seen(values)}", key=KEY)


def _seen(values: NDArray[Any]) -> str:
    sound = values[np.isfinite(values)]
    return f"; its own are {sound.min():g} to {sound.max():g}" if sound.size else ""


def table_of(value_range: tuple[float, float]) -> NDArray[np.uint8]:
    """(256,) what becomes of each 8-bit value."""
    return to_8_bit(Stored(np.arange(256, dtype=np.uint8), 255.0), value_range)
