"""Mean and deviation of the training images' own pixels: recipe.statistics=own."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from os import cpu_count
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ssat.core.launch import say
from ssat.data.content import CHUNK, remembered

if TYPE_CHECKING:
    from ssat.data.sets.sources import ImageList

HOME = ".ssat"  # in the folder of the images; hidden, so that it is no class
SAID_FROM = 10_000  # images: reading them takes a while


class Moments(NamedTuple):
    """On [0, 1], of each channel.

    Attributes:
        mean: over all pixels of all images.
        std: deviation of them from it.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]


def measure(images: ImageList, indices: NDArray[np.int64], channels: int) -> Moments:
    """Of these images as they are read, before any resize; 1 channel = the luminance.

    What was found is kept in `<root>/.ssat` as long as no file changes; without a root or where that folder may not be
    written, the images are read at every start.

    Raises:
        UserError: a file cannot be read.
    """

    def compute() -> list[list[float]]:
        if len(indices) > SAID_FROM:
            say(f"reading {len(indices):,} training images, for their own mean and deviation")
        return [list(values) for values in _measured(images, indices, channels)]

    if images.root is None:
        return _measured(images, indices, channels)
    names = [str(images.images[index]) for index in indices.tolist()]
    kind = f"statistics/{channels}-channels" + "".join(f"-{bound!r}" for bound in images.pixels.value_range or ())
    mean, std = remembered(kind, images.root, names, compute, home=images.root / HOME)
    return Moments(tuple(mean), tuple(std))


def _measured(images: ImageList, indices: NDArray[np.int64], channels: int) -> Moments:
    def sums(start: int) -> NDArray[np.int64]:
        return sum((_sums(images, int(index), channels) for index in indices[start : start + CHUNK]), start=ZERO)

    with ThreadPoolExecutor(min(16, cpu_count() or 1)) as pool:
        count, total, squares = sum(pool.map(sums, range(0, len(indices), CHUNK)), start=ZERO)
    # Whole numbers: the same for any order and number of threads.
    mean = [int(t) / int(n) for t, n in zip(total, count, strict=True)]
    variance = [int(s) / int(n) - m * m for s, n, m in zip(squares, count, mean, strict=True)]
    return Moments(tuple(m / 255 for m in mean), tuple(math.sqrt(max(0.0, v)) / 255 for v in variance))


ZERO: NDArray[np.int64] = np.zeros((3, 1), dtype=np.int64)


def _sums(images: ImageList, index: int, channels: int) -> NDArray[np.int64]:
    """(3, channels): number, sum and sum of squares of the values."""
    image = images.read(index)
    grey = channels == 1 and not hasattr(image, "bands")
    values = np.atleast_3d(np.asarray(image.convert("L") if grey else image)).reshape(-1, channels)  # type: ignore[union-attr]
    squares = np.square(values, dtype=np.int64).sum(axis=0)
    return np.stack([np.full(channels, len(values), dtype=np.int64), values.sum(axis=0, dtype=np.int64), squares])
