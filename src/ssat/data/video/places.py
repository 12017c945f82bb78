"""Where the frames of a video lie in a prepared folder, and what is said where that cannot be written."""

from __future__ import annotations

import errno
import hashlib
from pathlib import Path, PurePosixPath

from ssat.core.errors import UserError
from ssat.data.video.manifest import CLIPS, Video

NAME_BYTES = 200  # of a file in the store: a temporary name is longer
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def clip_path(video: Video) -> str:
    """Where a video's frames lie below the prepared folder: as in the original tree."""
    parts = [_short(part) for part in PurePosixPath(video.video_id).parts]
    return str(PurePosixPath(CLIPS, *parts)) + ".zip"


def _short(name: str) -> str:
    if len(name.encode("utf-8", "surrogateescape")) <= NAME_BYTES:
        return name
    return f"{name[:40]}-{hashlib.sha256(name.encode('utf-8', 'surrogateescape')).hexdigest()[:16]}"


def unwritable(out: Path, error: OSError) -> UserError:
    """The sentence for a store that cannot be written."""
    cure = "free space there" if error.errno in FULL else "make it writable"
    return UserError(
        f"{out} cannot be written ({error.strerror}): {cure} and repeat the command, which keeps what is finished",
        key="data.root",
        value=str(out),
    )


def remove(target: Path) -> None:
    """An older version of a clip, and what killed workers have left beside it."""
    target.unlink(missing_ok=True)
    if target.parent.is_dir():
        for partial in target.parent.iterdir():
            if partial.name.startswith(f".{target.name}.") and partial.name.endswith(".partial"):
                partial.unlink(missing_ok=True)
