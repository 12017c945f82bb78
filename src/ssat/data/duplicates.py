"""Images that are the same, or nearly so: a difference hash of each, and the sets of those whose hashes are close.

The hash (dHash): the image as 8 rows of 9 grey means, and for each pair of neighbours in a row whether the right one is
brighter: 64 bits. Scaling, another JPEG quality, brightness and contrast turn few of them over. Images with close
hashes are near if their colour means agree but for brightness and contrast.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

# Measured on photographs (docs/datasets.md): copies that were made brighter until parts were white differ in more bits
# than others, and these lie in few rows.
DISTANCE = 8  # bits in which the hashes of near duplicates may differ
ROWS = 8  # of a hash, one byte each
EQUAL_ROWS = 3  # of near duplicates, at least: so many choices of bytes are looked up
NEIGHBOURS = 100  # images at most that one is compared with for each choice of equal bytes
LIKENESS = 0.9  # correlation of the 4 x 4 colour means: less is another picture of the same outline
NOISE = 1.0  # grey levels: deviation of a colour mean
FLAT = 8  # range of the grey means, below which the bits are noise; then the colours themselves must agree
FLAT_COLOUR = 3.0  # mean difference of the 4 x 4 colour means, grey levels
ONES = np.array([bin(number).count("1") for number in range(2**16)], dtype=np.uint8)


@dataclass(frozen=True, slots=True)
class Signature:
    """What is kept of an image.

    Attributes:
        hash: 64 bits.
        colours: 48 bytes, the (4, 4, 3) colour means.
        flat: whether it has next to no contrast.
    """

    hash: int
    colours: bytes
    flat: bool


def signature(image: Image.Image) -> Signature:
    """The signature of an 8-bit RGB image."""
    # Of Pillow's filters this one turned the fewest bits over: 1 of 64 where an image was doubled in size, box 3 to 9.
    grey = np.asarray(image.convert("L").resize((9, 8), Image.Resampling.LANCZOS), dtype=np.int16)
    bits = np.packbits(grey[:, 1:] > grey[:, :-1])
    colours = np.asarray(image.resize((4, 4), Image.Resampling.BOX, reducing_gap=2.0)).tobytes()
    return Signature(int.from_bytes(bits.tobytes(), "big"), colours, bool(np.ptp(grey) < FLAT))


def near_sets(signatures: list[Signature]) -> tuple[list[list[int]], bool]:
    """Sets of two or more signatures that are linked by near ones, and whether every pair was compared.

    Near are hashes that differ in at most DISTANCE bits and agree in EQUAL_ROWS bytes, of images whose `likeness` is at
    least LIKENESS. Only signatures that agree in some choice of bytes are compared: for N of them the work is at most
    that of 56 sorts of N numbers and 56 x NEIGHBOURS x N comparisons, and the memory is a few numbers for each.
    """
    total = len(signatures)
    hashes = np.array([one.hash for one in signatures], dtype=np.uint64)
    colours = np.frombuffer(b"".join(one.colours for one in signatures), dtype=np.uint8).reshape(total, 48)
    flat = np.array([one.flat for one in signatures], dtype=bool)
    root = np.arange(total)
    complete = True
    for pairs, last in _candidates(hashes):
        one, other = pairs
        apart = root[one] != root[other]
        complete &= not (last and bool(apart.any()))
        one, other = one[apart], other[apart]
        close = ONES[(hashes[one] ^ hashes[other]).view(np.uint16).reshape(-1, 4)].sum(1) <= DISTANCE
        one, other = one[close], other[close]
        ones, others = colours[one].astype(np.float32), colours[other].astype(np.float32)
        same = np.abs(ones - others).mean(1) <= FLAT_COLOUR
        close = np.where(flat[one] | flat[other], same, likeness(ones, others) >= LIKENESS)
        if close.any():
            _join(root, one[close], other[close])
    order = np.argsort(root, kind="stable")
    parts = np.split(order, np.flatnonzero(np.diff(root[order])) + 1) if total else []
    return [part.tolist() for part in parts if len(part) > 1], complete


def likeness(ones: NDArray[np.float32], others: NDArray[np.float32]) -> NDArray[np.float32]:
    """(N,) how alike the colours (N, 48) are but for brightness and contrast: their correlation, at most 1.

    Two images of one colour are alike, one of them and a picture are not: NOISE counts as contrast.
    """
    ones, others = (values - values.mean(1, keepdims=True) for values in (ones, others))
    contrasts = ((ones**2).mean(1) + NOISE**2) * ((others**2).mean(1) + NOISE**2)
    return ((ones * others).mean(1) + NOISE**2) / np.sqrt(contrasts)


def _candidates(hashes: NDArray[np.uint64]) -> Iterator[tuple[tuple[NDArray[np.int64], NDArray[np.int64]], bool]]:
    """Pairs of indices that agree in some choice of bytes; and whether further ones of that choice were left out."""
    for chosen in combinations(range(ROWS), EQUAL_ROWS):
        mask = np.uint64(sum(0xFF << 8 * band for band in chosen))
        keys = hashes & mask
        order = np.argsort(keys, kind="stable")
        keys = keys[order]
        places = np.arange(len(keys))
        for step in range(1, NEIGHBOURS + 1):
            places = places[places + step < len(keys)]
            places = places[keys[places] == keys[places + step]]
            if not len(places):
                break
            yield (order[places], order[places + step]), step == NEIGHBOURS


def _join(root: NDArray[np.int64], ones: NDArray[np.int64], others: NDArray[np.int64]) -> None:
    """Unite the sets of each pair; `root` is the smallest index of each one's set, before and after."""

    def top(index: int) -> int:
        while root[index] != index:
            index = int(root[index])
        return index

    for one, other in zip(ones.tolist(), others.tolist(), strict=True):
        low, high = sorted((top(one), top(other)))
        root[high] = low
    while not np.array_equal(root, root[root]):
        root[:] = root[root]
