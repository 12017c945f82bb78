"""Files that are there whole or not at all, and what is in them."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ssat.core.errors import UserError

UNFINISHED = re.compile(r"\..+\.\d+\.partial")
_tidied: set[Path] = set()  # folders in which this process has looked for what others have left


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file beside `path` to write to, which takes its place when the block ends and is removed when it fails.

    A reader sees the old file or the new one, never a part; several processes may write the same path at once. What
    a killed process has left in the folder is removed.

    Raises:
        UserError: a folder has that name.
    """
    if path.is_dir():
        raise UserError(f"{path} is a folder, and a file of that name is to be written: move the folder away")
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_unfinished(path.parent)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with _being_written(partial):
            yield partial
            with open(partial, "rb") as file:
                os.fsync(file.fileno())
            os.replace(partial, path)
    except BaseException as error:
        partial.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:  # a write says only why it fails
            error.filename = str(path)
        raise


@contextmanager
def _being_written(partial: Path) -> Iterator[None]:
    """Lock a file that others would take for one that a killed process has left."""
    with open(partial, "wb") as file:
        with suppress(OSError):  # no locks on this disk
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


def _remove_unfinished(folder: Path) -> None:
    """Remove what killed processes were writing in `folder`, once a process: there may be many files."""
    if folder in _tidied:
        return
    _tidied.add(folder)
    with suppress(OSError):  # a folder that may be written, and not be read
        for entry in os.scandir(folder):
            if UNFINISHED.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                with suppress(OSError), open(entry.path, "rb") as file:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails while it is being written
                    os.unlink(entry.path)


def write_text(path: Path, text: str) -> Path:
    """Replace `path` by `text` in one step.

    A folder's name that is no UTF-8 is written with `?` in place of what is not.
    """
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8", errors="replace")
    return path


def refuse_unwritable(folder: Path, *, key: str, value: Path, cure: str) -> None:
    """Refuse a folder in which nothing can be written, before the work whose result would be lost.

    Args:
        folder: need not be there yet.
        key, value: the option that names it, or a folder that holds it, and what was given.
        cure: what the user can do.

    Raises:
        UserError: nothing can be written there.
    """
    whole = folder.absolute()
    there = next(path for path in (whole, *whole.parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=there):  # rights alone do not tell: root has all of them on a read-only disk
            pass
    except OSError as error:
        raise UserError(
            f"{key}={value} cannot be written ({error.strerror}): {cure}", key=key, value=str(value)
        ) from None


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as file:
        sha = hashlib.sha256()
        while chunk := file.read(1 << 20):
            sha.update(chunk)
    return sha.hexdigest()


@contextmanager
def alone_in(folder: Path, *, wait: bool = False) -> Iterator[None]:
    """Hold a folder that one command at a time writes; nothing is left in it, and the lock ends with the process.

    Args:
        folder: that is there.
        wait: for the command that holds it, which writes for a moment only.

    Raises:
        UserError: another command writes there, and that is not waited for.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise UserError(
                f"out={folder} is being written by another command: wait until it ends, or name another folder",
                key="out",
                value=str(folder),
            ) from None
        except OSError:
            pass  # no locks on this system or disk
        yield
    finally:
        os.close(descriptor)
