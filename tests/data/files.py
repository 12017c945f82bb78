"""Image files that Pillow cannot write: colour PNG of 16 bits, TIFF of many channels."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np

FORMATS = {"u": 1, "i": 2, "f": 3}


def write_png16(path: Path, pixels: np.ndarray) -> Path:
    """(H, W, C) uint16 with C = 1 grey, 2 grey and alpha, 3 RGB, 4 RGBA."""
    height, width, channels = pixels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    parts = [chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    return path


def write_tiff(
    path: Path,
    pixels: np.ndarray,
    *,
    planar: bool = False,
    deflate: bool = False,
    predictor: int = 1,
    rows: int = 3,
    order: str = "<",
    tile: int = 0,
    orientation: int = 1,
) -> Path:
    """(H, W, C) of any type of numbers, in strips of `rows` rows or square tiles, by the TIFF 6.0 specification."""
    height, width, channels = pixels.shape
    stored = pixels.astype(pixels.dtype.newbyteorder(order))
    planes = [stored[..., c : c + 1] for c in range(channels)] if planar else [stored]
    pieces = []
    for plane in planes:
        if tile:
            high, wide = -(-height // tile) * tile, -(-width // tile) * tile
            plane = np.pad(plane, ((0, high - height), (0, wide - width), (0, 0)))
            blocks = [plane[y : y + tile, x : x + tile] for y in range(0, high, tile) for x in range(0, wide, tile)]
        else:
            blocks = [plane[y : y + rows] for y in range(0, height, rows)]
        pieces += [_encoded(block, deflate, predictor) for block in blocks]
    photometric = 2 if channels == 3 and pixels.dtype.kind == "u" else 1
    bits, kind = pixels.dtype.itemsize * 8, FORMATS[pixels.dtype.kind]
    offsets = (8 + np.cumsum([0, *map(len, pieces)])[:-1]).tolist()
    sizes = [len(piece) for piece in pieces]
    tags: dict[int, list[int]] = {256: [width], 257: [height], 258: [bits] * channels, 259: [8 if deflate else 1]}
    tags |= {262: [photometric], 277: [channels], 284: [2 if planar else 1], 317: [predictor], 339: [kind] * channels}
    tags |= {322: [tile], 323: [tile], 324: offsets, 325: sizes} if tile else {273: offsets, 278: [rows], 279: sizes}
    tags |= {274: [orientation]} if orientation != 1 else {}
    extra = channels - (3 if photometric == 2 else 1)
    if extra > 0:
        tags[338] = [0] * extra
    body = b"".join(pieces)
    body += b"\0" * (len(body) % 2)
    directory, values = struct.pack(f"{order}H", len(tags)), b""
    behind = 8 + len(body) + 2 + 12 * len(tags) + 4
    for tag, numbers in sorted(tags.items()):
        packed = struct.pack(f"{order}{len(numbers)}I", *numbers)
        if len(numbers) > 1:
            packed, values = struct.pack(f"{order}I", behind + len(values)), values + packed
        directory += struct.pack(f"{order}HHI", tag, 4, len(numbers)) + packed
    start = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 8 + len(body))
    path.write_bytes(start + body + directory + bytes(4) + values)
    return path


def _encoded(block: np.ndarray, deflate: bool, predictor: int) -> bytes:
    if predictor == 2:
        whole = block.astype(block.dtype.newbyteorder("=")).view(f"u{block.dtype.itemsize}")
        first = np.diff(whole, axis=1, prepend=np.zeros_like(whole[:, :1]))
        block = first.astype(first.dtype.newbyteorder(block.dtype.byteorder))
    if predictor == 3:
        height, _, channels = block.shape
        size = block.dtype.itemsize
        high_first = block.astype(f">f{size}").reshape(height, -1).view(np.uint8).reshape(height, -1, size)
        flat = high_first.swapaxes(1, 2).reshape(height, -1, channels)
        block = np.diff(flat, axis=1, prepend=np.zeros_like(flat[:, :1]))
    data = np.ascontiguousarray(block).tobytes()
    return zlib.compress(data) if deflate else data
