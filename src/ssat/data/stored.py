"""The values of image files as they are stored, before anything makes 8 bits of them."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ssat.data.orientation import orientation, turned, upright
from ssat.data.pixels import MOST_PIXELS, Stored, largest_of, refuse_large, refuse_narrow
from ssat.data.tiff import BITS, FORMAT, SAMPLES, samples

NUMPY = b"\x93NUMPY"
# Registered by Pillow, but weather data, tables and films of which it reads the head only, or drawings and programs
# that it cannot draw by itself.
NO_PICTURES = ("BUFR", "GRIB", "HDF5", "MPEG", "IPTC", "EPS", "WMF", "PDF")
PNG_HEADER = 8 + 8  # signature; length and name of the first chunk


@contextmanager
def opened(file: str | Path | BytesIO, max_pixels: int = MOST_PIXELS) -> Iterator[Image.Image]:
    """The image file, opened by Pillow, which reads its size and no pixels; the one way in which files are opened here.

    Pillow is shown a stream and never a path: of a path it maps plain TIFF files into memory, and takes the rows of one
    with the orientation 5 to 8 for as long as its columns (13.0), so that the pixels are scrambled.

    Raises:
        UnidentifiedImageError: it is no image.
        TooLarge: it states more than `max_pixels`.
        OSError: it cannot be read.
    """
    allow(max_pixels)
    with ExitStack() as stack:
        stream = file if isinstance(file, BytesIO) else stack.enter_context(open(file, "rb"))
        try:
            image = stack.enter_context(Image.open(stream, formats=formats()))
        except Image.DecompressionBombError as error:
            refuse_large(int(re.findall(r"\d+", str(error))[0]), max_pixels)
            raise
        refuse_large(image.width * image.height, max_pixels)
        refuse_narrow(image.width, image.height, max_pixels)
        yield image


@cache
def formats() -> tuple[str, ...]:
    """Those that are read, whatever the ending of the file: Pillow draws EPS by a program that runs what is in it."""
    Image.init()
    return tuple(kind for kind in Image.ID if kind not in NO_PICTURES)


def allow(max_pixels: int) -> None:
    """Raise Pillow's own limit, which is the whole process's, where the user has raised ours beyond it."""
    if Image.MAX_IMAGE_PIXELS is not None and max_pixels > 2 * Image.MAX_IMAGE_PIXELS:
        Image.MAX_IMAGE_PIXELS = max_pixels


def is_deep(image: Image.Image) -> bool:
    """Whether an opened image has other values than 0 to 255: more bits, a sign, or floating-point numbers."""
    if image.mode == "F" or image.mode.startswith("I"):
        return True
    tags = getattr(image, "tag_v2", None)
    if image.format == "TIFF" and tags is not None:
        return max(tags.get(BITS, (1,))) > 8 or max(tags.get(FORMAT, (1,))) in (2, 3)
    return image.format == "PNG" and _raw_mode(image).endswith(";16B")


def stored_values(image: Image.Image) -> Stored:
    """The values of an opened image that `is_deep`, upright.

    Raises:
        ValueError: a kind of TIFF that is not read, see `tiff.samples`.
    """
    tags = getattr(image, "tag_v2", {}) if image.format == "TIFF" else {}
    if tags.get(SAMPLES, 1) > 1:
        return tiff_values(_bytes(image))
    if image.format == "PNG" and image.mode in ("RGB", "RGBA"):
        values = _png_samples(_bytes(image), _raw_mode(image))  # before the orientation, which loads a PNG
        return Stored(turned(values, orientation(image)), 65535.0)
    signed, bits = max(tags.get(FORMAT, (1,))) == 2, max(tags.get(BITS, (0,)))  # loading drops tags
    image.load()
    values = np.asarray(upright(image))
    if bits == 8:
        return Stored(values.view(np.int8), 127.0) if signed else Stored(values, 255.0)
    if bits == 32 and not signed and values.dtype == np.int32:
        values = values.view(np.uint32)
    if values.dtype.kind == "f":
        return Stored(values, largest_of(values.dtype))
    if bits:
        return Stored(values, float(2 ** (bits - signed) - 1))
    # Pillow scales a portable grey map of more than 8 bits to 16; of an image in memory nothing more is known.
    sixteen = image.mode != "I" or image.format in ("PPM", None)
    return Stored(values, 65535.0 if sixteen else largest_of(values.dtype))


def tiff_values(data: bytes, max_pixels: int = MOST_PIXELS) -> Stored:
    """The values of a TIFF file, (H, W, C), upright.

    Raises:
        TooLarge, ValueError: see `tiff.samples`.
    """
    values = samples(data, max_pixels)
    return Stored(values, largest_of(values.dtype))


def npy_values(data: bytes, max_pixels: int = MOST_PIXELS) -> Stored:
    """The values of a .npy file, as they lie in it.

    Raises:
        TooLarge: more than `max_pixels`.
        ValueError: not two or three dimensions, Python objects, or no numbers.
    """
    values = np.load(BytesIO(data), allow_pickle=False)
    if values.ndim in (2, 3):  # the channels, which are few, lie first or last
        refuse_large(values.size // (min(values.shape[0], values.shape[-1]) if values.ndim == 3 else 1), max_pixels)
    if values.ndim not in (2, 3) or not values.size:
        raise ValueError(f"its shape is {values.shape}, expected (H, W), (H, W, C) or (C, H, W)")
    high = largest_of(values.dtype)
    values = values.astype(np.uint8) if values.dtype.kind == "b" else values
    return Stored(values.astype(values.dtype.newbyteorder("=")), high)


def _raw_mode(image: Image.Image) -> str:
    tiles: Any = getattr(image, "tile", None)
    return str(tiles[0].args) if tiles else ""


def _bytes(image: Image.Image) -> bytes:
    file: Any = getattr(image, "fp", None)
    file.seek(0)
    return file.read()


def _png_samples(data: bytes, raw: str) -> NDArray[np.uint16]:
    """All 16 bits of a colour PNG, of which Pillow keeps the upper 8."""
    if raw == "LA;16B":  # two channels of two bytes lie in the file as four of one byte do
        header = data[PNG_HEADER - 4 : PNG_HEADER + 8] + bytes([8, 6]) + data[PNG_HEADER + 10 : PNG_HEADER + 13]
        data = data[: PNG_HEADER - 4] + header + struct.pack(">I", zlib.crc32(header)) + data[PNG_HEADER + 17 :]
        with Image.open(BytesIO(data), formats=["PNG"]) as quads:
            return np.ascontiguousarray(np.asarray(quads)).view(">u2").astype(np.uint16)
    upper = _with_raw_mode(data, raw).astype(np.uint16)
    lower = _with_raw_mode(data, raw.replace(";16B", ";16L"))  # read the other way round, Pillow keeps this byte
    return (upper << 8 | lower).astype(np.uint16)


def _with_raw_mode(data: bytes, raw: str) -> NDArray[np.uint8]:
    with Image.open(BytesIO(data), formats=["PNG"]) as image:
        tiles: Any = image.tile
        image.tile = [tile._replace(args=raw) for tile in tiles]
        return np.array(image)
