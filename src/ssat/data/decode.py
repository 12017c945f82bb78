"""Image files to 8-bit channels, and the search for files that cannot be read."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import PIL
from PIL import Image, UnidentifiedImageError

from ssat.core.errors import UserError
from ssat.data.content import in_threads, remembered
from ssat.data.jpeg import size_of_jpeg
from ssat.data.orientation import orientation_of_jpeg, turned, upright
from ssat.data.pixels import MOST_PIXELS, RGB, Pixels, Stored, TooLarge, WrongRange, fits, table_of, to_8_bit
from ssat.data.stored import NUMPY, is_deep, npy_values, opened, stored_values, tiff_values
from ssat.data.tiff import is_tiff

if TYPE_CHECKING:
    from torch import Tensor

WITH_ALPHA = ("RGBA", "RGBa", "LA", "La", "PA")
JPEG = b"\xff\xd8\xff"
COLOURED = ("RGB", "RGBA", "CMYK")
SKIP = " with data.on_bad_image=skip"
LEAVE_OUT = f", or leave out such files{SKIP}"
MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}  # of so many channels

Range = tuple[float, float]


def to_rgb(image: Image.Image, value_range: Range | None = None) -> Image.Image:
    """Any Pillow image as 8-bit RGB.

    16-bit values are scaled by 1/257, transparency is laid over white, of an animation the first frame counts, CMYK and
    palettes are converted by Pillow. The result is upright, see `orientation`.

    Args:
        value_range: the values that become 0 and 255; None = 0 and the largest of the file's type.

    Raises:
        WrongRange: without a `value_range`: floating-point or negative values, whose range is unknown.
        ValueError: a kind of file that is not read.
    """
    # 16-bit colours Pillow reads by their upper bytes, which is what they mean as long as all 16 bits are used.
    if is_deep(image) and (value_range or image.mode not in COLOURED):
        return _laid_over_white(_coloured(stored_values(image), value_range, image.mode))
    image.load()
    image = _laid_over_white(upright(image))
    return image if value_range is None else image.point(table_of(value_range).tolist() * 3)


def _laid_over_white(image: Image.Image) -> Image.Image:
    if image.mode in WITH_ALPHA or "transparency" in image.info:
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _coloured(stored: Stored, value_range: Range | None, mode: str = "") -> Image.Image:
    """Values of one to four channels as a grey or colour image; the second or fourth is its opacity."""
    values, high = stored
    values = np.atleast_3d(values)
    if mode in COLOURED:
        values = values[..., : Image.getmodebands(mode)]  # further ones mean nothing to a picture
    channels = values.shape[2]
    if channels not in MODES or (channels in (2, 4) and values.dtype.kind != "u"):
        raise ValueError(f"it has {channels} channels: set data.channels={channels}")
    colours = to_8_bit(Stored(values, high), value_range)
    if channels in (2, 4) and mode != "CMYK":
        colours[..., -1] = to_8_bit(Stored(values[..., -1], high), None)
    return Image.fromarray(colours[..., 0] if channels == 1 else colours, "CMYK" if mode == "CMYK" else MODES[channels])


def read_rgb(
    path: str | Path | BytesIO,
    name: str | None = None,
    value_range: Range | None = None,
    max_pixels: int = MOST_PIXELS,
) -> Image.Image:
    """The image file `path` as 8-bit RGB, see `to_rgb`; `name` is what a message calls it.

    Raises:
        UserError: the file is missing, damaged, truncated or not an image.
        WrongRange: its values mean nothing without a `value_range`.
        TooLarge: it states more than `max_pixels`, none of which is decoded.
    """
    with understood(path, name):
        try:
            with opened(path, max_pixels) as image:
                return to_rgb(image, value_range)
        except UnidentifiedImageError:
            stored = other_values(path, max_pixels)
            if stored is None:
                raise
            return _laid_over_white(_coloured(_colours_last(stored), value_range))


def _colours_last(stored: Stored) -> Stored:
    """Of an array that begins with its one or three channels, one that ends with them."""
    values, high = stored
    first = values.ndim == 3 and values.shape[0] in (1, 3) and values.shape[2] not in MODES
    return Stored(np.ascontiguousarray(np.moveaxis(values, 0, 2)), high) if first else stored


def other_values(path: str | Path | BytesIO, max_pixels: int = MOST_PIXELS) -> Stored | None:
    """The values of a .npy or TIFF file as Pillow cannot tell them: of all channels, of any type; None of other files.

    Raises:
        TooLarge: it states more than `max_pixels`.
        ValueError: a kind of them that is not read.
    """
    data = path.getvalue() if isinstance(path, BytesIO) else Path(path).read_bytes()
    if data.startswith(NUMPY):
        return npy_values(data, max_pixels)
    return tiff_values(data, max_pixels) if is_tiff(data) else None


@contextmanager
def understood(path: str | Path | BytesIO, name: str | None) -> Iterator[None]:
    """Turns what a decoder answers about the file `path` into a sentence; `name` is what it is called there.

    Raises:
        UserError: of any exception.
        WrongRange: its values mean nothing without `data.value_range`.
        TooLarge: it states too many pixels.
    """
    try:
        yield
    except TooLarge as error:
        raise TooLarge(f"the image {name or path} is not read: {error}{SKIP}", error.pixels) from None
    except WrongRange as error:
        raise WrongRange(f"the image {name or path} cannot be used: {error}", key=error.key) from None
    # Pillow's decoders answer damaged bytes with many kinds of exceptions (OSError, SyntaxError, struct.error, ...).
    except Exception as error:
        raise UserError(
            f"cannot read the image {name or path} ({_reason(path, error)}): repair or remove the file{LEAVE_OUT}"
        ) from None


def read_tensor(path: str | Path, value_range: Range | None = None, max_pixels: int = MOST_PIXELS) -> Tensor:
    """`read_rgb` as (3, H, W) uint8; a JPEG by torchvision's decoder, the faster one.

    Raises:
        UserError: as `read_rgb`.
    """
    import torch  # not above: preparing a data set needs neither
    from torchvision.io import ImageReadMode, decode_jpeg

    try:
        with open(path, "rb") as file:
            data = file.read()
        # The decoder would allocate what the file states, and fill it.
        if data.startswith(JPEG) and (size := size_of_jpeg(data)) and fits(*size, max_pixels):
            image = decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8), ImageReadMode.UNCHANGED)
            if image.shape[0] in (1, 3):
                stated = orientation_of_jpeg(data)
                if stated != 1:
                    image = torch.from_numpy(turned(image.permute(1, 2, 0).numpy(), stated)).permute(2, 0, 1)
                if value_range is not None:
                    image = torch.from_numpy(table_of(value_range))[image.long()]
                return image.expand(3, -1, -1)
    except (OSError, RuntimeError, Image.DecompressionBombError):
        pass  # what Pillow says about it is for people
    image = read_rgb(path, value_range=value_range, max_pixels=max_pixels)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def _reason(path: str | Path | BytesIO, error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        size = path.getbuffer().nbytes if isinstance(path, BytesIO) else os.path.getsize(path)
        return "not an image" if size else "the file is empty"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return (str(error) or type(error).__name__).splitlines()[0]


def unreadable(
    root: Path, names: Sequence[str], pixels: Pixels = RGB, readable: Callable[[Path], bool] | None = None
) -> list[str]:
    """The names under `root` that are refused when they are read as `pixels` says, in order.

    Every file is decoded once, see `remembered`.

    Args:
        root: folder of the files.
        names: of them.
        pixels: how they are read.
        readable: whether one can be read; None = as RGB, see `is_readable`.

    Raises:
        WrongRange: the values of a file mean nothing without `data.value_range`.
    """

    def compute() -> list[str]:
        good = in_threads(lambda name: (readable or is_readable)(root / name), names)
        return [name for name, read in zip(names, good, strict=True) if not read]

    plain = (pixels.channels, pixels.value_range) == (RGB.channels, RGB.value_range)
    how = "" if plain else f", {pixels.channels} channels of {pixels.value_range}"
    how += "" if pixels.max_pixels == MOST_PIXELS else f", up to {pixels.max_pixels} pixels"
    return remembered(f"unreadable by ssat with Pillow {PIL.__version__}{how}", root, names, compute)


def is_readable(path: Path | BytesIO) -> bool:
    """Whether `read_rgb` takes it.

    Raises:
        WrongRange: its values mean nothing without `data.value_range`.
    """
    return takes(read_rgb, path)


def takes(read: Callable[[Path | BytesIO], object], path: Path | BytesIO) -> bool:
    """Whether `read` takes it.

    Raises:
        WrongRange: its values mean nothing without `data.value_range`.
    """
    try:
        read(path)
    except WrongRange:
        raise
    except UserError:
        return False
    return True
