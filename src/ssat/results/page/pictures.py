"""Pictures inside the page: PNG files, made smaller where they must be."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from ssat.data.stored import opened
from ssat.results.page.space import PageSpace

SIGNATURE = b"\x89PNG\r\n\x1a\n"
SCALES = (1.0, 0.75, 0.5, 0.35, 0.25)
PICTURE_BYTES = 200_000  # a larger picture is made smaller
MOST_PIXELS = 40_000_000  # of a picture that the page shows: a browser decodes what a small file states


@dataclass(frozen=True)
class Picture:
    """A picture of the page.

    Attributes:
        caption: what it shows.
        alt: the same for a reader who does not see it.
        source: the picture itself as a data address; empty where it is not on the page.
    """

    caption: str
    alt: str
    source: str


def data_address(folder: Path, name: str, space: PageSpace) -> str:
    """The picture `folder`/`name` as an address that holds it; empty where it is no PNG or the page has no room."""
    png = embeddable(folder, name, min(PICTURE_BYTES, space.pictures))
    if png is None:
        return ""
    space.pictures -= len(png)
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def embeddable(folder: Path, name: str, limit: int) -> bytes | None:
    """The PNG file `folder`/`name` in at most `limit` bytes; where it must be, with fewer colours and smaller.

    None where there is no such file, it lies outside `folder`, it is no PNG, or it is too large even then.
    """
    try:
        path = (folder / name).resolve()
        if not path.is_relative_to(folder.resolve()):
            return None
        data = path.read_bytes()
        if not data.startswith(SIGNATURE):
            return None
        with opened(io.BytesIO(data), MOST_PIXELS) as image:
            return data if len(data) <= limit else _shrunk(image.convert("RGB"), limit)
    except (OSError, ValueError, RuntimeError, SyntaxError):
        return None


def _shrunk(image: Image.Image, limit: int) -> bytes | None:
    for scale in SCALES:
        size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
        buffer = io.BytesIO()
        image.resize(size, Image.Resampling.LANCZOS).quantize(128).save(buffer, "PNG", optimize=True)
        if buffer.tell() <= limit:
            return buffer.getvalue()
    return None
