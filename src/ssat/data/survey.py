"""The smallest and the largest values of a set's images with more than 8 bits: do they use the range of their type?"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from ssat.data.content import in_threads, remembered
from ssat.data.decode import other_values
from ssat.data.pixels import KEY, Stored, WrongRange
from ssat.data.stored import is_deep, opened, stored_values

# Formats that hold or are read as 8 bits: no file of them is opened.
EIGHT_BITS = (".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".gif", ".bmp", ".avif", ".avifs")
EIGHT_BIT_STARTS = (b"\xff\xd8\xff", b"RIFF", b"GIF8", b"BM")
SAMPLE = 256  # encoded images of a set that has no files: of so many, one with more bits would be found
DARK = 1 / 4  # of a type's largest value; at most so much is used when two bits or more are always zero


class Extremes(NamedTuple):
    """Of the images of one type of numbers.

    Attributes:
        kind: the largest value of the type; infinite = floating-point numbers.
        images: their number.
        low, high: smallest and largest value of all; NaN are passed over.
        first: name of the image with the smallest.
        dark: images whose largest value is at most DARK of the type's.
        dark_high: the largest value of those.
    """

    kind: float
    images: int
    low: float
    high: float
    first: str
    dark: int = 0
    dark_high: float = 0.0


def extremes_of_files(root: Path, names: Sequence[str]) -> list[Extremes]:
    """Of the image files `names` below `root`; those of 8 bits and unreadable ones are left out.

    Every file that may have more bits is read once, see `remembered`.
    """
    candidates = [name for name in names if not name.lower().endswith(EIGHT_BITS)]
    if not candidates:
        return []

    def compute() -> list[list[float | str]]:
        found = in_threads(lambda name: _extremes(root / name, str(root / name)), candidates)
        return [list(one) for one in merged(found)]

    return [Extremes(*one) for one in remembered("extremes and dark images", root, candidates, compute)]


def extremes_of_encoded(images: Sequence[bytes]) -> list[Extremes]:
    """Of encoded image files; all are read if one of an even sample has more than 8 bits."""
    sample = np.unique(np.linspace(0, len(images) - 1, min(len(images), SAMPLE)).astype(int)).tolist()
    if not any(_of_bytes(images[index], index) for index in sample):
        return []
    return merged(_of_bytes(images[index], index) for index in range(len(images)))


def _of_bytes(data: bytes, index: int) -> Extremes | None:
    return None if data.startswith(EIGHT_BIT_STARTS) else _extremes(BytesIO(data), f"number {index}")


def _extremes(file: Path | BytesIO, name: str) -> Extremes | None:
    try:
        stored = _stored(file)
    # What cannot be read is reported where it is needed, or left out by data.on_bad_image.
    except Exception:
        return None
    if stored is None or stored.high <= 255 and stored.values.dtype.kind != "i":
        return None
    values = stored.values[np.isfinite(stored.values)]
    if not values.size:
        return None
    high = float(values.max())
    is_dark = high <= DARK * stored.high
    return Extremes(stored.high, 1, float(values.min()), high, name, int(is_dark), high * is_dark)


def _stored(file: Path | BytesIO) -> Stored | None:
    try:
        with opened(file) as image:
            return stored_values(image) if is_deep(image) else None
    except Image.UnidentifiedImageError:
        return other_values(file)


def refuse_unused_range(found: Iterable[Extremes], name: str) -> None:
    """Refuse values of which nobody has said what is black and what is white.

    Args:
        found: of every list of images of the set.
        name: of the set.

    Raises:
        WrongRange: floating-point or negative values, or values that use a small part of their type's range.
    """
    for kind, images, low, high, first, *_ in merged(found):
        count = f"{images:,} image{'s' * (images != 1)} of {name}"
        if math.isinf(kind) or low < 0:
            what = "floating-point values" if math.isinf(kind) else "negative values"
            raise WrongRange(
                f"{first} has {what}, and without a range they have no meaning as pixels: set {KEY}=[lo,hi], the values"
                f" of black and of white (those of {count} go from {low:g} to {high:g})",
                key=KEY,
            )
        if high <= DARK * kind:
            used = 2 ** int(high).bit_length() - 1
            raise WrongRange(
                f"the largest value in {count} is {high:g}, far below the {kind:.0f} of their type, and they would be"
                f" nearly black: set {KEY}=[0,{used}], or {KEY}=[0,{kind:.0f}] to read them so",
                key=KEY,
            )


def merged(found: Iterable[Extremes | None]) -> list[Extremes]:
    """One for each type of numbers."""
    by_kind: dict[float, Extremes] = {}
    for one in found:
        if one is None:
            continue
        known = by_kind.get(one.kind, one._replace(images=0, dark=0))
        first = min((known, one), key=lambda each: each.low).first
        low, high = min(one.low, known.low), max(one.high, known.high)
        dark, dark_high = known.dark + one.dark, max(known.dark_high, one.dark_high)
        by_kind[one.kind] = Extremes(one.kind, known.images + one.images, low, high, first, dark, dark_high)
    return list(by_kind.values())
