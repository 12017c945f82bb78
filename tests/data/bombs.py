"""Image files of a kilobyte that state four billion pixels."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO

from PIL import Image

SIDE = 65_500


def _saved(kind: str, **options: object) -> bytearray:
    data = BytesIO()
    Image.new("RGB" if kind == "WEBP" else "L", (8, 8)).save(data, kind, **options)
    return bytearray(data.getvalue())


def jpeg(width: int = SIDE, height: int = SIDE) -> bytes:
    data = _saved("JPEG")
    place = data.find(b"\xff\xc0")
    data[place + 5 : place + 9] = struct.pack(">HH", height, width)
    return bytes(data) + bytes(1000)


def png(width: int = SIDE, height: int = SIDE) -> bytes:
    data = _saved("PNG")
    header = b"IHDR" + struct.pack(">II", width, height) + data[24:29]
    return bytes(data[:12] + header + struct.pack(">I", zlib.crc32(header)) + data[33:])


def gif() -> bytes:
    data = _saved("GIF")
    data[6:10] = struct.pack("<HH", SIDE, SIDE)
    return bytes(data)


def webp() -> bytes:
    """The format has 14 bits for a side."""
    data = _saved("WEBP", lossless=True)
    place = data.find(b"VP8L") + 9
    (bits,) = struct.unpack("<I", data[place : place + 4])
    data[place : place + 4] = struct.pack("<I", bits & ~(2**28 - 1) | 16_382 | 16_382 << 14)
    return bytes(data)


def tiff(width: int = SIDE, height: int = SIDE) -> bytes:
    data = _saved("TIFF", compression="tiff_deflate")
    (start,) = struct.unpack("<I", data[4:8])
    (count,) = struct.unpack("<H", data[start : start + 2])
    for place in range(start + 2, start + 2 + 12 * count, 12):
        (tag,) = struct.unpack("<H", data[place : place + 2])
        if tag in (256, 257, 278):
            data[place + 2 : place + 12] = struct.pack("<HII", 4, 1, width if tag == 256 else height)
    return bytes(data)


BOMBS = {"jpg": jpeg, "png": png, "gif": gif, "webp": webp, "tif": tiff}
