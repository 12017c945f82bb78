"""Image files to 8-bit RGB, and the search for files that cannot be read."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import PIL
from PIL import Image, UnidentifiedImageError

from ssat.core.errors import UserError
from ssat.core.files import write_text

if TYPE_CHECKING:
    from torch import Tensor

WITH_ALPHA = ("RGBA", "RGBa", "LA", "La", "PA")
CHUNK = 256
JPEG = b"\xff\xd8\xff"


def to_rgb(image: Image.Image) -> Image.Image:
    """Any Pillow image as 8-bit RGB.

    16-bit values are scaled by 1/257, transparency is laid over white, of an animation the first frame counts, CMYK and
    palettes are converted by Pillow. An EXIF orientation is not applied, as in torchvision's reader.

    Raises:
        ValueError: floating-point pixels, whose range is unknown.
    """
    image.load()
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers of unknown range, save it with 8 or 16 bits")
    if image.mode.startswith("I"):
        # Pillow's own conversion clips 16-bit grey at 255 instead of scaling it.
        grey = np.rint(np.clip(np.asarray(image), 0, 65535) / 257).astype(np.uint8)
        return Image.fromarray(grey).convert("RGB")
    if image.mode in WITH_ALPHA or "transparency" in image.info:
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def read_rgb(path: str | Path | BytesIO, name: str | None = None) -> Image.Image:
    """The image file `path` as 8-bit RGB, see `to_rgb`; `name` is what a message calls it.

    Raises:
        UserError: the file is missing, damaged, truncated or not an image.
    """
    try:
        with Image.open(path) as image:
            return to_rgb(image)
    # Pillow's decoders answer damaged bytes with many kinds of exceptions (OSError, SyntaxError, struct.error, ...).
    except Exception as error:
        raise UserError(
            f"cannot read the image {name or path} ({_reason(path, error)}): repair or remove the file,"
            " or leave out such files with data.on_bad_image=skip"
        ) from None


def read_tensor(path: str | Path) -> Tensor:
    """`read_rgb` as (3, H, W) uint8; a JPEG by torchvision's decoder, the faster one.

    Raises:
        UserError: as `read_rgb`.
    """
    import torch  # not above: preparing a data set needs neither
    from torchvision.io import ImageReadMode, decode_jpeg

    try:
        with open(path, "rb") as file:
            data = file.read()
        if data.startswith(JPEG):
            image = decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8), ImageReadMode.UNCHANGED)
            if image.shape[0] in (1, 3):
                return image.expand(3, -1, -1)
    except (OSError, RuntimeError):
        pass  # what Pillow says about it is for people
    return torch.from_numpy(np.array(read_rgb(path))).permute(2, 0, 1)


def _reason(path: str | Path | BytesIO, error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        size = path.getbuffer().nbytes if isinstance(path, BytesIO) else os.path.getsize(path)
        return "not an image" if size else "the file is empty"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return (str(error) or type(error).__name__).splitlines()[0]


def unreadable(root: Path, names: Sequence[str]) -> list[str]:
    """The names under `root` that `read_rgb` refuses, in order.

    Every file is decoded once; the answer is kept in the user's cache folder and is valid as long as no name, size or
    modification time changes.
    """
    memory = _cache_file(root, names)
    try:
        return json.loads(memory.read_text())
    except (OSError, ValueError):
        pass

    def check(start: int) -> list[str]:
        return [name for name in names[start : start + CHUNK] if not is_readable(root / name)]

    with ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool:
        bad = [name for chunk in pool.map(check, range(0, len(names), CHUNK)) for name in chunk]
    _remember(memory, bad)
    return bad


def is_readable(path: Path | BytesIO) -> bool:
    """Whether `read_rgb` takes it."""
    try:
        read_rgb(path)
    except UserError:
        return False
    return True


def _cache_file(root: Path, names: Sequence[str]) -> Path:
    table = hashlib.sha256(f"{root.resolve()} Pillow {PIL.__version__}".encode())
    for name in names:
        try:
            stat = os.stat(root / name)
            table.update(f"{name}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode(errors="surrogateescape"))
        except OSError:
            table.update(f"{name}\0gone\n".encode(errors="surrogateescape"))
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return home / "ssat" / "unreadable" / f"{table.hexdigest()}.json"


def _remember(path: Path, bad: list[str]) -> None:
    with suppress(OSError):  # without a cache the next start decodes the files again
        write_text(path, json.dumps(bad))
