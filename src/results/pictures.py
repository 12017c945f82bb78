"""Pictures for the report: small enough to stand inside the page."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image

SIGNATURE = b"\x89PNG\r\n\x1a\n"
SCALES = (1.0, 0.75, 0.5, 0.35, 0.25)


def embeddable(folder: Path, name: str, limit: int) -> bytes | None:
    """The PNG `folder`/`name` in at most `limit` bytes, with fewer colours and smaller where it must be.

    None when it cannot be had: no such file, outside `folder`, not a picture, or too large even then.
    """
    try:
        path = (folder / name).resolve()
        if not path.is_relative_to(folder.resolve()):
            return None
        data = path.read_bytes()
        if not data.startswith(SIGNATURE):
            return None
        return data if len(data) <= limit else _shrunk(data, limit)
    except (OSError, ValueError, RuntimeError, SyntaxError, Image.DecompressionBombError):
        return None


def _shrunk(data: bytes, limit: int) -> bytes | None:
    with Image.open(io.BytesIO(data)) as opened:
        image = opened.convert("RGB")
    for scale in SCALES:
        size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
        buffer = io.BytesIO()
        image.resize(size, Image.Resampling.LANCZOS).quantize(128).save(buffer, "PNG", optimize=True)
        if buffer.tell() <= limit:
            return buffer.getvalue()
    return None
