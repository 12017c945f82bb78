"""A look at every image of a data set: files that cannot be read, duplicates, sizes, and groups on two sides."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import numpy as np
from PIL import Image

from ssat.core.errors import UserError
from ssat.core.files import file_sha256
from ssat.data.duplicates import Signature, near_sets, signature
from ssat.data.groups import Splits, shared_groups
from ssat.data.overview import Overview, overview
from ssat.data.sets.sources import ImageList, Source

CHUNK = 32  # images that a thread looks at before it reports


@dataclass(frozen=True, slots=True)
class Seen:
    """What is kept of an image that was looked at.

    Attributes:
        size: (width, height) in pixels; None = it cannot be read.
        digest: SHA-256 of its file or pixels.
        signature: for near duplicates.
        fault: why it cannot be read.
    """

    size: tuple[int, int] | None = None
    digest: bytes = b""
    signature: Signature | None = None
    fault: str = ""


@dataclass(frozen=True)
class Copies:
    """Images that are the same, or nearly so.

    Attributes:
        images: their names, each with its split.
        splits: that they lie in.
        classes: that they have.
        one_group: whether data.group says that they belong together.
    """

    images: list[tuple[str, str]]
    splits: list[str]
    classes: list[str]
    one_group: bool


@dataclass(frozen=True)
class Audit:
    """What the look has found.

    Attributes:
        overview: counts, classes that a split lacks, files that are not read.
        unreadable: name and reason of every file that cannot be read.
        sizes: least, median and greatest `width` and `height` in pixels.
        exact: sets of images with the same bytes.
        near: sets of images that look the same, and are not the same bytes.
        near_is_complete: False = so many images look alike that not every pair was compared.
        shared: groups that two splits share, by 'train and test'.
    """

    overview: Overview
    unreadable: list[tuple[str, str]]
    sizes: dict[str, list[float]]
    exact: list[Copies]
    near: list[Copies]
    near_is_complete: bool
    shared: dict[str, list[str]]

    @property
    def suspect_near(self) -> list[Copies]:
        """Near duplicates besides those of one group in one split, which are expected: frames of a video."""
        return [copies for copies in self.near if not copies.one_group or len(copies.splits) > 1]


def audit(source: Source, splits: Splits, progress: Callable[[int], None]) -> Audit:
    """Look at every image of `splits`, in threads; about 700 bytes are kept of each.

    Args:
        source: that the splits are taken from.
        splits: images and the indices that are in it, by split.
        progress: is told how many images have been looked at.
    """
    places = [
        (split, images, index) for split, (images, indices) in splits.items() for index in np.sort(indices).tolist()
    ]
    seen: list[Seen] = []
    for found in _in_threads(lambda place: _look(place[1], place[2]), places):
        seen += found
        progress(len(seen))
    good = [number for number, one in enumerate(seen) if not one.fault]
    same: dict[bytes, list[int]] = {}
    for number in good:
        same.setdefault(seen[number].digest, []).append(number)
    first = [numbers[0] for numbers in same.values()]
    near, complete = near_sets([one for number in first if (one := seen[number].signature) is not None])
    alike = [[number for place in chosen for number in same[seen[first[place]].digest]] for chosen in near]
    sizes = np.array([seen[number].size for number in good], dtype=np.int64).reshape(-1, 2)

    def copies(sets: Iterable[list[int]]) -> list[Copies]:
        found = [_copies([places[number] for number in sorted(numbers)], source) for numbers in sets]
        return sorted(found, key=lambda one: (-len(one.splits), -len(one.classes)))  # the worst first

    return Audit(
        overview=overview(source, splits),
        unreadable=[(_name(*places[number][1:]), one.fault) for number, one in enumerate(seen) if one.fault],
        sizes={side: _spread(sizes[:, axis]) for axis, side in enumerate(("width", "height"))},
        exact=copies(numbers for numbers in same.values() if len(numbers) > 1),
        near=copies(alike),
        near_is_complete=complete,
        shared={f"{one} and {other}": names for (one, other), names in shared_groups(splits).items()},
    )


Place = tuple[str, ImageList, int]


def _in_threads(look: Callable[[Place], Seen], places: list[Place]) -> Iterator[list[Seen]]:
    rest = iter(places)
    chunks = iter(lambda: list(islice(rest, CHUNK)), [])
    with ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool:
        yield from pool.map(lambda chunk: [look(place) for place in chunk], chunks)


def _look(images: ImageList, index: int) -> Seen:
    try:
        image = images.read(index)
        content = images.images[index]
        if images.root is not None:
            digest = bytes.fromhex(file_sha256(images.root / str(content)))
        else:
            digest = hashlib.sha256(content if isinstance(content, bytes) else np.asarray(content).tobytes()).digest()
    except UserError as error:
        where = _name(images, index) if images.root is None else images.root / _name(images, index)
        said = str(error).partition(": repair or remove")[0].removeprefix(f"the image {where} is not read: ")
        return Seen(fault=said.removeprefix(f"cannot read the image {where} ").removeprefix("(").removesuffix(")"))
    except OSError as error:
        return Seen(fault=error.strerror or str(error))
    return Seen(image.size, digest, signature(image if isinstance(image, Image.Image) else image.picture))


def _name(images: ImageList, index: int) -> str:
    return f"number {index}" if images.root is None else str(images.images[index])


def _copies(places: list[Place], source: Source) -> Copies:
    groups = {None if images.groups is None else int(images.groups.numbers[index]) for _, images, index in places}
    return Copies(
        images=[(split, _name(images, index)) for split, images, index in places],
        splits=list(dict.fromkeys(split for split, *_ in places)),
        classes=sorted({_classes(images, index, source) for _, images, index in places}),
        one_group=len(groups) == 1 and None not in groups,
    )


def _classes(images: ImageList, index: int, source: Source) -> str:
    """The class, or the labels."""
    if images.hot is None:
        return source.classes[images.labels[index]]
    return ", ".join(source.classes[label] for label in np.flatnonzero(images.hot[index] == 1)) or "no label"


def _spread(values: np.ndarray) -> list[float]:
    return [float(values.min()), float(np.median(values)), float(values.max())] if len(values) else []


def imbalance(counts: Mapping[str, int]) -> float | None:
    """Images of the largest class for one of the smallest; None where a class has none."""
    return max(counts.values()) / min(counts.values()) if counts and min(counts.values()) else None
