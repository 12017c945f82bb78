"""Image files to 8-bit RGB, and the search for files that cannot be read."""

from __future__ import annotations

import os
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import PIL
from PIL import Image, UnidentifiedImageError

from ssat.core.errors import UserError
from ssat.data.content import in_threads, remembered
from ssat.data.orientation import orientation_of_jpeg, turned, upright

if TYPE_CHECKING:
    from torch import Tensor

WITH_ALPHA = ("RGBA", "RGBa", "LA", "La", "PA")
JPEG = b"\xff\xd8\xff"


def to_rgb(image: Image.Image) -> Image.Image:
    """Any Pillow image as 8-bit RGB.

    16-bit values are scaled by 1/257, transparency is laid over white, of an animation the first frame counts, CMYK and
    palettes are converted by Pillow. The result is upright, see `orientation`.

    Raises:
        ValueError: floating-point pixels, whose range is unknown.
    """
    image.load()
    image = upright(image)
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
                stated = orientation_of_jpeg(data)
                if stated != 1:
                    image = torch.from_numpy(turned(image.permute(1, 2, 0).numpy(), stated)).permute(2, 0, 1)
                return image.expand(3, -1, -1)
    except (OSError, RuntimeError, Image.DecompressionBombError):
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

    Every file is decoded once, see `remembered`.
    """

    def compute() -> list[str]:
        readable = in_threads(lambda name: is_readable(root / name), names)
        return [name for name, good in zip(names, readable, strict=True) if not good]

    return remembered(f"unreadable by Pillow {PIL.__version__}", root, names, compute)


def is_readable(path: Path | BytesIO) -> bool:
    """Whether `read_rgb` takes it."""
    try:
        read_rgb(path)
    except UserError:
        return False
    return True
