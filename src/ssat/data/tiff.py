"""All samples of a TIFF file as stored, also those that Pillow has no mode for: many channels, 16 bits, floats.

Pillow's (libtiff's) decompression is used: it is shown the same strips or tiles as one channel of bytes.
"""

from __future__ import annotations

import struct
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from ssat.data.orientation import turned
from ssat.data.pixels import MOST_PIXELS, refuse_large

MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
KINDS = {1: "u", 2: "i", 3: "f"}  # of SampleFormat
JPEG = (6, 7)  # compressions that know of colours
WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, FILL_ORDER = 256, 257, 258, 259, 262, 266
STRIPS, ORIENTATION, SAMPLES, ROWS, STRIP_BYTES, PLANAR, PREDICTOR = 273, 274, 277, 278, 279, 284, 317
TILE_WIDTH, TILE_HEIGHT, TILES, TILE_BYTES, FORMAT = 322, 323, 324, 325, 339


def is_tiff(data: bytes) -> bool:
    """Whether these are the first bytes of a TIFF or BigTIFF file."""
    return data[:4] in MAGIC


def samples(data: bytes, max_pixels: int = MOST_PIXELS) -> NDArray[Any]:
    """The first page of a TIFF file as (H, W, C), upright, in the type in which it is stored.

    Raises:
        TooLarge: it states more than `max_pixels`, or tiles of more.
        ValueError: samples of different types or of a size that is no whole number of bytes, or JPEG-compressed.
    """
    tags = _tags(data)
    width, height, channels = tags[WIDTH], tags[HEIGHT], tags.get(SAMPLES, 1)
    refuse_large(max(width * height, tags.get(TILE_WIDTH, 0) * tags.get(TILE_HEIGHT, 0)), max_pixels)
    dtype = _dtype(tags, ">" if data[:2] == b"MM" else "<", channels)
    if tags.get(COMPRESSION, 1) in JPEG:
        raise ValueError(f"{channels} channels of {dtype.itemsize * 8} bits with JPEG compression are not read")
    predictor = tags.get(PREDICTOR, 1)
    if tags.get(PLANAR, 1) == 2 and channels > 1:
        places = len(tags[TILES] if TILES in tags else tags[STRIPS]) // channels
        planes = [
            _values(data, tags, width, height, 1, dtype, predictor, slice(plane * places, (plane + 1) * places))
            for plane in range(channels)
        ]
        values = np.concatenate(planes, axis=2)
    else:
        values = _values(data, tags, width, height, channels, dtype, predictor, slice(None))
    return turned(values, tags.get(ORIENTATION, 1))


def _tags(data: bytes) -> Any:
    file = BytesIO(data)
    directory = ImageFileDirectory_v2(data[:16] if data[2:4] in (b"+\0", b"\0+") else data[:8])
    file.seek(directory.next)
    directory.load(file)
    return directory


def _dtype(tags: Any, order: str, channels: int) -> np.dtype[Any]:
    bits, formats = set(tags.get(BITS, (1,))), set(tags.get(FORMAT, (1,)))
    if len(bits) > 1 or len(formats) > 1 or not bits <= {8, 16, 32, 64} or not formats <= KINDS.keys():
        raise ValueError(f"{channels} channels of {' and '.join(map(str, sorted(bits)))} bits are not read")
    try:
        return np.dtype(f"{order}{KINDS[formats.pop()]}{bits.pop() // 8}")
    except TypeError:
        raise ValueError("floating-point numbers of 8 bits are not read") from None


def _values(
    data: bytes,
    tags: Any,
    width: int,
    height: int,
    channels: int,
    dtype: np.dtype[Any],
    predictor: int,
    places: slice,
) -> NDArray[Any]:
    """(H, W, channels) from the strips or tiles at `places`."""
    pixel = channels * dtype.itemsize
    entries = {WIDTH: [width * pixel], HEIGHT: [height], BITS: [8], COMPRESSION: [tags.get(COMPRESSION, 1)]}
    entries |= {PHOTOMETRIC: [1], FILL_ORDER: [tags.get(FILL_ORDER, 1)], SAMPLES: [1]}
    if TILES in tags:
        tile = tags[TILE_WIDTH]
        entries |= {TILE_WIDTH: [tile * pixel], TILE_HEIGHT: [tags[TILE_HEIGHT]]}
        entries |= {TILES: tags[TILES][places], TILE_BYTES: tags[TILE_BYTES][places]}
    else:
        tile = width
        entries |= {STRIPS: tags[STRIPS][places], ROWS: [tags.get(ROWS, height)]}
        entries |= {STRIP_BYTES: tags[STRIP_BYTES][places]}
    if TILES not in tags and entries[COMPRESSION] == [1] and entries[FILL_ORDER] == [1]:
        strips = zip(entries[STRIPS], entries[STRIP_BYTES], strict=True)
        plain = b"".join(data[start : start + size] for start, size in strips)[: height * width * pixel]
        if len(plain) < height * width * pixel:
            raise ValueError("image file is truncated")
        stored = np.frombuffer(plain, dtype=np.uint8).reshape(height, width * pixel)
    else:
        with Image.open(BytesIO(_relabelled(data, entries)), formats=["TIFF"]) as image:
            stored = np.array(image)
    # A predictor works within the rows of a strip or a tile.
    pieces = [stored[:, start : start + tile * pixel] for start in range(0, width * pixel, tile * pixel)]
    return np.concatenate([_predicted(piece, channels, dtype, predictor, tile * pixel) for piece in pieces], axis=1)


def _predicted(piece: NDArray[Any], channels: int, dtype: np.dtype[Any], predictor: int, whole: int) -> NDArray[Any]:
    height, size = piece.shape
    native = dtype.newbyteorder("=")
    if predictor == 3:  # differences of bytes, the highest bytes of all values first
        if size != whole:
            raise ValueError("tiles that are cut off at the border are not read with this predictor (3)")
        summed = np.cumsum(piece.reshape(height, -1, channels), axis=1, dtype=np.uint8)
        bytes_ = summed.reshape(height, dtype.itemsize, -1).swapaxes(1, 2)
        return np.ascontiguousarray(bytes_).view(f">f{dtype.itemsize}").astype(native).reshape(height, -1, channels)
    values = np.ascontiguousarray(piece).view(dtype).astype(native).reshape(height, -1, channels)
    if predictor == 2:
        unsigned = values.view(f"u{dtype.itemsize}")
        return np.cumsum(unsigned, axis=1, dtype=unsigned.dtype).view(native)
    return values


def _relabelled(data: bytes, entries: dict[int, Any]) -> bytes:
    """The same file with another directory, all of whose values are 32-bit numbers."""
    start = len(data) + len(data) % 2
    behind = start + 2 + 12 * len(entries) + 4
    directory, values = struct.pack("<H", len(entries)), b""
    for tag, numbers in sorted(entries.items()):
        packed = struct.pack(f"<{len(numbers)}I", *numbers)
        if len(numbers) > 1:
            packed, values = struct.pack("<I", behind + len(values)), values + packed
        directory += struct.pack("<HHI", tag, 4, len(numbers)) + packed
    padding = bytes(start - len(data))
    return b"II*\0" + struct.pack("<I", start) + data[8:] + padding + directory + bytes(4) + values
