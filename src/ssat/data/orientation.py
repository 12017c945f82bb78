"""Photographs the right way up: the EXIF (or XMP) orientation, as `PIL.ImageOps.exif_transpose` understands it."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

# Orientation: whether rows become columns, and the axes to mirror afterwards. 1 and all other numbers: as it is.
TURNS: dict[int, tuple[bool, tuple[int, ...]]] = {
    2: (False, (1,)),
    3: (False, (0, 1)),
    4: (False, (0,)),
    5: (True, ()),
    6: (True, (1,)),
    7: (True, (0, 1)),
    8: (True, (0,)),
}
METHODS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def orientation(image: Image.Image) -> int:
    """The orientation that `image` states, 1 to 8; 1 where it states none.

    Of a TIFF it is 1 once its pixels are loaded: Pillow turns those itself, rightly if it was opened by
    `stored.opened`.
    """
    try:
        stated = image.getexif().get(ExifTags.Base.Orientation, 1)
    # Cameras write damaged EXIF blocks, to which Pillow answers with many kinds of exceptions; the pixels are sound.
    except Exception:
        return 1
    return int(stated) if stated in METHODS else 1


def orientation_of_jpeg(data: bytes) -> int:
    """`orientation` of an encoded JPEG; the pixels are not decoded."""
    if b"Exif" not in data and b"tiff:Orientation" not in data:  # most files: do without Pillow's parser
        return 1
    with Image.open(BytesIO(data), formats=["JPEG"]) as image:
        return orientation(image)


def upright(image: Image.Image) -> Image.Image:
    """A loaded image turned as it states; itself where nothing is to be turned."""
    method = METHODS.get(orientation(image))
    return image if method is None else image.transpose(method)


def turned(pixels: NDArray[Any], stated: int) -> NDArray[Any]:
    """An array (H, W) or (H, W, C) turned by the orientation `stated`, 1 to 8."""
    swap, mirrored = TURNS.get(stated, (False, ()))
    pixels = pixels.swapaxes(0, 1) if swap else pixels
    return np.ascontiguousarray(np.flip(pixels, mirrored))
