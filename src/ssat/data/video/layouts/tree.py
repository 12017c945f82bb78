"""Folders, lists and names of a set's tree: read, or refused in a sentence."""

from __future__ import annotations

import csv
import difflib
import io
import os
import posixpath
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from ssat.core.errors import UserError
from ssat.core.read import MOST_TABLE, read_bytes, read_json, table_lines
from ssat.data.sets.checks import listed

ENDINGS = (".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mpg")  # of videos, in any case
OFFICIAL = "replace it by the official file"
ABOVE = 6  # folders above a wrong one that may be the right one


@dataclass
class Listing:
    """The files below a folder, hidden ones left out; names with `/` below it.

    Attributes:
        videos: regular files with the ending of a video.
        unusable: the same that are no regular files, with the reason.
        others: the rest.
    """

    videos: list[str] = field(default_factory=list)
    unusable: dict[str, str] = field(default_factory=dict)
    others: list[str] = field(default_factory=list)


def entries(folder: Path) -> list[os.DirEntry[str]]:
    """What is in a folder, by name, without hidden files.

    Raises:
        UserError: it cannot be listed, or a name is no UTF-8 and could not be written to the manifest.
    """
    try:
        with os.scandir(folder) as scanned:
            found = sorted((entry for entry in scanned if not entry.name.startswith(".")), key=lambda entry: entry.name)
    except OSError as error:
        raise UserError(f"cannot list the folder {str(folder)!r}: {error.strerror}", key="data.raw") from None
    for entry in found:
        try:
            entry.name.encode()
        except UnicodeEncodeError:
            raise UserError(f"{entry.name!r} in {str(folder)!r} is no UTF-8 name: rename it", key="data.raw") from None
    return found


def folders(folder: Path) -> list[str]:
    """The names of the folders in `folder`; [] where there is none."""
    return [entry.name for entry in entries(folder) if is_folder(entry)] if os.path.isdir(folder) else []


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether it is a folder, or a link to one; a link that leads nowhere, or to itself, is none."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def listing(folder: Path, *, deep: bool = True) -> Listing:
    """The files below `folder`, through links to folders; with `deep=False` those in it.

    Raises:
        UserError: a folder cannot be listed, or holds itself by a link.
    """
    found = Listing()
    for path, entry in _walk(folder, "", deep, ()):
        if not path.lower().endswith(ENDINGS):
            found.others.append(path)
        elif reason := _unusable(entry):
            found.unusable[path] = reason
        else:
            found.videos.append(path)
    return found


def _unusable(entry: os.DirEntry[str]) -> str:
    """Why a file cannot be read; '' where it can."""
    try:
        if entry.is_file():
            return ""
        os.stat(entry.path)  # raises where a link leads nowhere
    except FileNotFoundError:
        return "it is a link to a file that is not there"
    except OSError as error:
        return f"it cannot be read ({error.strerror})"
    return "it is no regular file"


def _walk(
    folder: Path, prefix: str, deep: bool, above: tuple[tuple[int, int], ...]
) -> Iterator[tuple[str, os.DirEntry[str]]]:
    stat = folder.stat()
    here = (stat.st_dev, stat.st_ino)
    if here in above:
        raise UserError(f"{str(folder)!r} is a link to a folder that holds it: remove the link", key="data.raw")
    for entry in entries(folder):
        if not is_folder(entry):
            yield prefix + entry.name, entry
        elif deep:
            yield from _walk(folder / entry.name, f"{prefix}{entry.name}/", deep, (*above, here))


def check_root(root: str | Path, expected: str) -> Path:
    """The raw folder.

    Raises:
        UserError: it is not there, or is a file.
    """
    root = Path(root).expanduser()
    if root.is_dir():
        return root
    if root.exists():
        raise wrong_root(root, "is a file, not a folder (unpack an archive first)", expected)
    near = difflib.get_close_matches(root.name, folders(root.parent), 1)
    hint = f"did you mean {str(root.parent / near[0])!r}?" if near else f"expected {expected}"
    raise UserError(f"data.raw={str(root)!r} does not exist: {hint}", key="data.raw", value=str(root))


def wrong_root(root: Path, found: str, expected: str, right: Path | None = None) -> UserError:
    """The sentence about a folder of the wrong level: what was found and expected, and which one to give."""
    cure = f"give data.raw={str(right)!r}" if right else "see docs/video.md"
    text = f"data.raw={str(root)!r} {found}: expected {expected}; {cure}"
    return UserError(text, key="data.raw", value=str(root))


def found_in(root: Path) -> str:
    """'has only 'a', 'b'' or 'is empty', for messages."""
    names = [entry.name for entry in entries(root)]
    return f"has only {listed(names)}" if names else "is empty"


def near_root(root: Path, is_right: Callable[[Path], bool]) -> Path | None:
    """The folder above `root`, or one or two levels below it, that is right."""
    here = root.absolute()
    above = (folder for folder in list(here.parents)[:ABOVE])
    below = [root / name for name in readable_folders(root)]
    deeper = (folder / name for folder in below for name in readable_folders(folder))
    for candidates in (above, below, deeper):
        for folder in candidates:
            if is_right(folder):
                return folder
    return None


def readable_folders(folder: Path) -> list[str]:
    """As `folders`; [] where it may not be listed, such as lost+found."""
    try:
        return folders(folder)
    except UserError:
        return []


def read_mapping(path: Path) -> dict[str, dict[str, Any]]:
    """A JSON file that says something of each video.

    Raises:
        UserError: it cannot be read, or is damaged; names the place.
    """
    try:
        found = read_json(path, unique=True)
    except (OSError, ValueError) as error:
        raise damaged(path, str(error)) from error
    if not isinstance(found, dict):
        raise damaged(path, f"it holds a {type(found).__name__}, not an object with a key for each video")
    for name, facts in found.items():
        if not isinstance(facts, dict):
            raise damaged(path, f"the value of {name!r} is no object")
        check_below(path, name)
    return found


def read_table(
    path: Path, columns: Sequence[str], *, key: str = "data.raw", cure: str = OFFICIAL
) -> list[tuple[int, dict[str, str]]]:
    """These columns of the rows of a comma-separated table, with line numbers.

    Raises:
        UserError: it cannot be read, lacks a column, or a row is short; names the line.
    """
    refusal = partial(damaged, path, key=key, cure=cure)
    rows: list[tuple[int, dict[str, str]]] = []
    try:
        text = io.StringIO(read_bytes(path, MOST_TABLE).decode("utf-8-sig"), newline="")
        reader = csv.DictReader(table_lines(text))
        header = [str(name).strip() for name in reader.fieldnames or []]
        reader.fieldnames = header
        if not any(header):
            raise refusal(f"it is empty, line 1 must be {','.join(columns)}")
        lacking = [name for name in columns if name not in header]
        if lacking:
            raise refusal(f"line 1 has no column {listed(lacking)}, it has {listed(header, 12)}")
        for row in reader:
            if any(row[name] is None for name in columns):
                raise refusal(f"line {reader.line_num} has fewer cells than the header")
            rows.append((reader.line_num, {name: row[name].strip() for name in columns}))
    except UserError:
        raise
    except (OSError, ValueError, csv.Error) as error:
        raise refusal(str(error)) from error
    return rows


def check_below(path: Path, name: str) -> None:
    """Refuse a name in a list that leads out of the folder of the list.

    Raises:
        UserError: it does.
    """
    parts = name.replace("\\", "/").split("/")
    if not name.strip() or "\0" in name or ".." in parts or parts[0] == "" or ":" in parts[0]:
        raise damaged(path, f"it names {name!r}, which is no file below its folder")


def damaged(path: Path, what: str, *, key: str = "data.raw", cure: str = OFFICIAL) -> UserError:
    """The sentence about a list that cannot be used."""
    return UserError(f"{path} cannot be used ({what}): {cure}", key=key)


def video_id(path: str) -> str:
    """A path without its ending."""
    return posixpath.splitext(path)[0]


def stem(path: str) -> str:
    """The name of a file without folder and ending."""
    return posixpath.basename(video_id(path))


def not_read(others: Sequence[str]) -> list[str]:
    """One remark on files that are no videos; [] without any."""
    if not others:
        return []
    kinds = Counter(posixpath.splitext(name)[1].lower() or "without an ending" for name in others)
    told = ", ".join(f"{count:,} {kind}" for kind, count in kinds.most_common(5))
    more = f" and {len(kinds) - 5} more kinds" if len(kinds) > 5 else ""
    return [f"{len(others):,} other file{'s are' * (len(others) > 1) or ' is'} no video and not read: {told}{more}"]
