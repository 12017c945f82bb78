"""The size of a JPEG from its header, as libjpeg finds it; no pixel is decoded."""

from __future__ import annotations

STARTS_FRAME = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xD9)})
SEGMENTS = frozenset({0xC4, 0xCC, *range(0xDB, 0xF0), 0xFE})  # tables, application data and comments


def size_of_jpeg(data: bytes) -> tuple[int, int] | None:
    """Width and height in pixels that an encoded JPEG states; None where libjpeg would not find any.

    Source: ITU-T T.81, annex B.

    Example:
        >>> size_of_jpeg(bytes.fromhex("ffd8 ffc0 0008 08 0002 0003"))
        (3, 2)
    """
    place = 2  # behind the start of the image
    while (place := data.find(b"\xff", place)) >= 0:  # libjpeg passes over what lies between segments
        while data[place : place + 1] == b"\xff":
            place += 1
        marker = data[place] if place < len(data) else 0
        place += 1
        if marker == 0 or marker in WITHOUT_LENGTH:
            continue
        if marker in STARTS_FRAME and len(data) >= place + 7:
            height, width = data[place + 3 : place + 5], data[place + 5 : place + 7]
            return int.from_bytes(width, "big"), int.from_bytes(height, "big")
        if marker not in SEGMENTS:
            return None
        place += max(2, int.from_bytes(data[place : place + 2], "big"))
    return None
