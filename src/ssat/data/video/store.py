"""The frames of one video in one file: an uncompressed ZIP of images and `meta.json`, read frame by frame."""

from __future__ import annotations

import json
import os
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ssat.core.errors import UserError
from ssat.core.files import replacing
from ssat.core.read import parse_json
from ssat.data.stored import opened
from ssat.data.video.decode import MAX_PIXELS

if TYPE_CHECKING:  # a process that writes clips starts in a tenth of the time without it
    from torch import Tensor

META = "meta.json"
EPOCH = (1980, 1, 1, 0, 0, 0)  # of every member, so that equal frames make equal files
# What zipfile, json and Pillow raise on flipped bytes; a flipped flag reads as "encrypted" or "not implemented".
DAMAGE = (
    *(OSError, KeyError, ValueError, SyntaxError, RuntimeError, EOFError, zlib.error, zipfile.BadZipFile),
    MemoryError,
)
Coding = Literal["jpeg", "png", "webp"]
OPTIONS: dict[Coding, dict[str, Any]] = {
    "jpeg": {"format": "JPEG", "subsampling": 0},
    "png": {"format": "PNG", "compress_level": 6},
    "webp": {"format": "WEBP", "lossless": True},
}


def write_clip(
    path: Path, frames: Iterable[NDArray[np.uint8]], meta: dict[str, Any], *, coding: Coding = "jpeg", quality: int = 95
) -> int:
    """Store `frames`, each (H, W, 3) uint8, in one step; returns their number.

    Args:
        path: of the file, which is there whole or not at all.
        frames: consumed one by one, so that a long video never lies in memory.
        meta: plain values; may be filled until the last frame has been taken.
        coding: of the frames; jpeg without chroma subsampling, the others without loss.
        quality: of jpeg.
    """
    options = OPTIONS[coding] | ({"quality": quality} if coding == "jpeg" else {})
    count = 0
    with replacing(path) as partial, zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as file:
        for count, frame in enumerate(frames, 1):
            encoded = BytesIO()
            Image.fromarray(np.ascontiguousarray(frame)).save(encoded, **options)
            file.writestr(zipfile.ZipInfo(_name(count - 1), EPOCH), encoded.getvalue())
        file.writestr(zipfile.ZipInfo(META, EPOCH), json.dumps(meta, sort_keys=True))
    return count


class StoredClip:
    """The frames of one video in the store.

    The file stays open, because to find its frames takes long in an hour's video; a process that inherits this opens
    its own.

    Attributes:
        meta: what was written beside them.

    Raises:
        UserError: the file is not there, or damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._open()
            self._names = sorted(name for name in self._file.namelist() if name != META)
            # A flipped byte in a name would put the frames into another order.
            if self._names != [_name(index) for index in range(len(self._names))]:
                raise ValueError("the frames are not numbered in order")
            if any(member.compress_type != zipfile.ZIP_STORED for member in self._file.infolist()):
                raise ValueError("its members are compressed")  # to what size nobody knows
            self.meta: dict[str, Any] = parse_json(self._file.read(META).decode())
            if not isinstance(self.meta, dict):
                raise ValueError(f"{META} is no mapping")
        except DAMAGE as error:
            raise _damaged(path, error) from error

    def _open(self) -> None:
        self._file, self._process = zipfile.ZipFile(self.path), os.getpid()

    def __reduce__(self) -> tuple[type[StoredClip], tuple[Path]]:
        return StoredClip, (self.path,)

    def __len__(self) -> int:
        return len(self._names)

    def read(self, indices: Sequence[int]) -> Tensor:
        """The frames at `indices` as (T, 3, H, W) uint8.

        Raises:
            UserError: the file is damaged.
        """
        import torch

        try:
            if self._process != os.getpid():
                self._open()
            images = [self._image(self._names[index]) for index in indices]
            return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
        except DAMAGE as error:
            raise _damaged(self.path, error) from error

    def _image(self, name: str) -> NDArray[np.uint8]:
        with opened(BytesIO(self._file.read(name)), MAX_PIXELS) as image:
            side = self.meta.get("size")  # stills have none
            if side is not None and image.size != (side, side):
                raise ValueError(
                    f"frame {name} has {image.width} x {image.height} pixels, and {side} a side were stored"
                )
            return np.array(image.convert("RGB"))


def _name(index: int) -> str:
    return f"{index:06d}"


def _damaged(path: Path, error: Exception) -> UserError:
    return UserError(
        f"the stored clip {path} cannot be read ({type(error).__name__}: {error}): remove it and run the same"
        " python -m src.prepare again, which makes what is missing"
    )
