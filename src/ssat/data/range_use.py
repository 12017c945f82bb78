"""Whether `data.value_range`, or without it the range of a type, fits the values of the images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import UnidentifiedImageError

from ssat.data.decode import other_values, to_rgb
from ssat.data.pixels import KEY
from ssat.data.stored import is_deep, opened, stored_values
from ssat.data.survey import DARK, Extremes

if TYPE_CHECKING:
    from ssat.data.sets.sources import ImageList

SAMPLE = 256  # images that are looked at, spread evenly
LITTLE = 1 / 4  # of the range
MUCH = 3 / 4  # of the values
FEW = 1 / 10  # of the images


def use_of(lists: Sequence[ImageList], value_range: tuple[float, float]) -> list[str]:
    """A sentence if the values of a sample use little of the range, or lie outside of it; else none.

    Args:
        lists: images as they are stored, see `Source.lists`.
        value_range: of black and white.
    """
    low, high, outside, total, images = np.inf, -np.inf, 0, 0, 0
    bottom, top = value_range
    for values in _sampled(lists):
        sound = values[np.isfinite(values)]
        if not sound.size:
            continue
        low, high = min(low, float(sound.min())), max(high, float(sound.max()))
        outside += int(((sound < bottom) | (sound > top)).sum())
        total, images = total + sound.size, images + 1
    if not total:
        return []
    used = max(0.0, min(high, top) - max(low, bottom)) / (top - bottom)
    seen = f"{KEY}=[{bottom:g},{top:g}] does not fit: the values of {images:,} images go from {low:g} to {high:g}"
    if used < LITTLE:
        return [f"{seen}, which is {used:.1%} of it, so that they are nearly of one grey"]
    if outside > MUCH * total:
        return [f"{seen}, and {outside / total:.1%} of the values lie outside and are black or white"]
    return []


def mixed(found: Sequence[Extremes]) -> list[str]:
    """A sentence for each type of whole numbers of which many images use a small part, and others more."""
    return [
        f"{one.dark:,} of {one.images:,} images with values up to {one.kind:.0f} have none above {one.dark_high:g} and"
        " are nearly black beside the others: save all alike, or set"
        f" {KEY}=[0,{2 ** int(one.dark_high).bit_length() - 1}]"
        for one in found
        if one.high > DARK * one.kind and one.dark > FEW * one.images
    ]


def _sampled(lists: Sequence[ImageList]) -> Iterator[NDArray[Any]]:
    places = [(images, index) for images in lists for index in range(len(images))]
    for number in np.unique(np.linspace(0, len(places) - 1, min(len(places), SAMPLE)).astype(int)).tolist():
        images, index = places[number]
        content = images.images[index]
        if images.root is None and not isinstance(content, bytes):
            yield np.asarray(content)
            continue
        file = BytesIO(content) if isinstance(content, bytes) else Path(images.root or "", str(content))
        try:
            yield _values(file)
        # What cannot be read is reported where it is needed, or left out by data.on_bad_image.
        except Exception:
            continue


def _values(file: Path | BytesIO) -> NDArray[Any]:
    try:
        with opened(file) as image:
            return stored_values(image).values if is_deep(image) else np.asarray(to_rgb(image))
    except UnidentifiedImageError:
        stored = other_values(file)
        if stored is None:
            raise
        return stored.values
