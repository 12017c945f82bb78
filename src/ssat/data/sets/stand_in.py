"""Made-up images in the number and form of an official set that is not there: for what costs time, not for learning."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ssat.data.moments import Moments
from ssat.data.sets.catalog import CATALOG
from ssat.data.sets.sources import ImageList, Source

PIXELS = {"cifar10": (32, 32, 3), "cifar100": (32, 32, 3), "svhn": (32, 32, 3), "pmnist": (28, 28)}
# Width and height of a usual photograph of the set.
PHOTOGRAPHS = {
    "flowers": (667, 500),
    "imagenet": (500, 375),
    "clipart": (600, 500),
    "infograph": (600, 900),
    "sketch": (600, 600),
    "chaoyang": (512, 512),
}


class StandIn(ImageList):
    """Images that nobody hashes, measures or searches for damage: all of a split may be one file."""

    def digest(self, indices: NDArray[np.int64]) -> str:
        """A constant: made-up images have no content."""
        return "made up"

    def moments(self, indices: NDArray[np.int64], channels: int) -> Moments:
        """Of any images: nobody learns from these."""
        return Moments((0.5,) * channels, (0.25,) * channels)

    def readable(self) -> tuple[NDArray[np.int64], list[str]]:
        """All of them, and no file that cannot be read."""
        return np.arange(len(self)), []


def stands_in(name: str) -> bool:
    """Whether images can be made up for `data=<name>`."""
    return name in PIXELS or name in PHOTOGRAPHS


def stand_in(name: str) -> Source:
    """The set `name` with its official counts: random pixels of its size, or copies of one photograph-like JPEG."""
    card, generator = CATALOG[name], np.random.default_rng(0)
    splits: dict[str, ImageList] = {}
    for split, count in card.counts.items():
        images: Any
        if name in PIXELS:
            images = generator.integers(0, 256, (count, *PIXELS[name]), dtype=np.uint8)
        else:
            images = [_photograph(*PHOTOGRAPHS[name], generator)] * count
        splits[split] = StandIn(images, np.arange(count, dtype=np.int64) % card.classes)
    classes = list(card.class_names or (str(label) for label in range(card.classes)))
    return Source(name, classes, splits["train"], splits["test"], splits.get("val"), trains_on_val=card.trains_on_val)


def _photograph(width: int, height: int, generator: np.random.Generator) -> bytes:
    """A JPEG with smooth shapes and some grain; pure noise would take longer to decode than photographs do."""
    coarse = Image.fromarray(generator.integers(0, 256, (height // 16, width // 16, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), dtype=np.int16)
    grain = generator.integers(-8, 9, smooth.shape, dtype=np.int16)
    file = io.BytesIO()
    Image.fromarray((smooth + grain).clip(0, 255).astype(np.uint8)).save(file, format="JPEG", quality=90)
    return file.getvalue()
