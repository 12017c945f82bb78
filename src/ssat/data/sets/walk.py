"""The files below a folder of the user's own: links are followed, but no folder is read twice."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from ssat.core.errors import UserError

REPEATED = "link to a folder that is read elsewhere"


def entries(folder: Path) -> list[os.DirEntry[str]]:
    """What lies in `folder`, sorted by name, without hidden things.

    Raises:
        UserError: it cannot be listed.
    """
    try:
        with os.scandir(folder) as found:
            return sorted((one for one in found if not one.name.startswith(".")), key=lambda one: one.name)
    except OSError as error:
        raise UserError(f"cannot list the folder {str(folder)!r}: {error.strerror}") from None


def subfolders(folder: Path) -> list[str]:
    """The sorted names of the folders, and of the links to folders, in `folder`."""
    return [entry.name for entry in entries(folder) if is_folder(entry)]


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether it is a folder or a link to one; a link that leads nowhere, or to itself, is none."""
    return os.path.isdir(entry.path)  # DirEntry.is_dir() raises for a link to itself


def files_below(folder: Path) -> Iterator[tuple[str, bool]]:
    """Name below `folder` of every file at any depth, and whether it is a link that is not followed, in sorted order.

    A link is not followed to a folder that this walk has read already, or in which `folder` lies: the images there have
    another place, or another class.

    Raises:
        UserError: a folder cannot be listed.
    """
    return _below(folder, "", _above(folder))


def leads_back(folder: Path) -> bool:
    """Whether `folder` is a link to a folder in which it lies."""
    return os.path.realpath(folder) in _above(folder)


def _above(folder: Path) -> set[str]:
    """The folders in which it lies, and those in which it lies if it is a link."""
    return {os.path.realpath(one) for path in (os.path.abspath, os.path.realpath) for one in Path(path(folder)).parents}


def _below(folder: Path, prefix: str, visited: set[str]) -> Iterator[tuple[str, bool]]:
    real = os.path.realpath(folder)
    if real in visited:
        yield prefix.removesuffix("/"), True
        return
    visited.add(real)
    for entry in entries(folder):
        if is_folder(entry):
            yield from _below(folder / entry.name, f"{prefix}{entry.name}/", visited)
        else:
            yield prefix + entry.name, False
