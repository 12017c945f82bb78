"""Which files are predicted: one, all below a folder, those of a list, or those that standard input names."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from ssat.core.errors import UserError
from ssat.core.files import file_sha256, refuse_unwritable
from ssat.core.words import many

CURE = "name another folder, or free space there"  # where `out` cannot be written
COLUMN, FEW = "path", 3  # of a list; files in one line

# Endings of what lies beside images and is plainly none; any other file is tried.
OTHER = re.compile(
    r"\.([ct]sv|txt|md|jsonl?|xml|ya?ml|toml|ini|cfg|log|html?|css|js|py|ipynb|sh|bat|pdf|docx?|xlsx?|pptx?|od[ts]|zip"
    r"|tar|t?gz|bz2|xz|7z|rar|db|sqlite|lnk|pkl|pth?|ckpt|npz|parquet|h5|safetensors|onnx|mp3|wav)$",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Inputs:
    """The files of a command.

    Attributes:
        folder: that the names begin in.
        names: of the files.
        columns: of each file what else its row of the list says; [] without a list.
        left_out: files of the folder that are not tried, because their endings say that they are something else, and
            links to folders that are read elsewhere.
    """

    folder: Path
    names: list[str]
    columns: list[dict[str, str]] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    def remark(self) -> str:
        """A line on what is left out; empty where nothing is."""
        few = ", ".join([*self.left_out[:FEW], *["..."] * (len(self.left_out) > FEW)])
        return f"left out by their endings: {many(len(self.left_out), 'file')} ({few})" if self.left_out else ""


def read_inputs(word: str, *, of_videos: bool = False) -> Inputs:
    """The files that `input=<word>` means.

    Of a folder all files below it count that are not hidden: videos by their endings, and for images whatever is not
    plainly something else, since an image may have any ending or none.

    Raises:
        UserError: there are none, or a list is not right.
    """
    path = Path(word)
    if word == "-":
        names = [os.fsdecode(line.rstrip(b"\r\n")) for line in sys.stdin.buffer]
        return Inputs(Path(), _distinct([(number, name) for number, name in enumerate(names, 1) if name], Path(), word))
    if path.suffix.lower() == ".csv" and path.is_file():
        return _listed(path)
    if path.is_dir():
        return _below(path, of_videos=of_videos)
    if path.is_file():
        return Inputs(path.parent, [path.name])
    what = "is neither a file nor a folder" if os.path.lexists(path) else "does not exist"
    raise UserError(f"input={path} {what}: name a file, or a folder of files", key="input", value=str(path))


def _below(path: Path, *, of_videos: bool) -> Inputs:
    from ssat.data.sets.folder import USUAL
    from ssat.data.sets.walk import files_below
    from ssat.data.video.layouts.tree import ENDINGS

    names, left_out = list[str](), list[str]()
    for name, is_link in files_below(path):
        is_video = name.lower().endswith(ENDINGS)
        wanted = is_video if of_videos else not is_video and not OTHER.search(name)
        (names if wanted and not is_link else left_out).append(name)
    if not names:
        there = f", only {many(len(left_out), 'other file')} such as {left_out[0]}" if left_out else ""
        what = f"{', '.join(ENDINGS)} file" if of_videos else f"image ({', '.join(USUAL)} ...)"
        raise UserError(
            f"input={path} holds no {what}{there}: name another folder, or one file whatever its ending",
            key="input",
            value=str(path),
        )
    return Inputs(path, sorted(names), left_out=sorted(left_out))


def _listed(path: Path) -> Inputs:
    """The rows of a table with a column `path`, read as a training reads one; its paths begin in the file's folder."""
    from ssat.data.sets.table import read_table

    try:
        header, lines = read_table(path)
    except ValueError as error:
        raise UserError(f"input={path} {error}", key="input", value=str(path)) from None
    if header.count(COLUMN) != 1 or len(set(header)) < len(header):
        raise UserError(
            f"input={path} has the columns {', '.join(header)}: it needs one that is called {COLUMN}, and no name"
            " twice",
            key="input",
            value=str(path),
        )
    rows = []
    for number, cells in lines:
        row = dict(zip(header, [*cells, *[""] * len(header)], strict=False))
        row[COLUMN] = row[COLUMN].strip().replace("\\", "/")
        if len(cells) > len(header) or not row[COLUMN]:
            what = "more cells than columns" if len(cells) > len(header) else f"no {COLUMN}"
            raise UserError(f"input={path} has {what} in line {number}: correct it", key="input", value=str(path))
        rows.append((number, row))
    names = _distinct([(number, row[COLUMN]) for number, row in rows], path.parent, str(path))
    others = [{key: value for key, value in row.items() if key != COLUMN} for _, row in rows]
    return Inputs(path.parent, names, others)


def _distinct(lines: Sequence[tuple[int, str]], folder: Path, source: str) -> list[str]:
    """The names of numbered lines.

    Raises:
        UserError: there are none, or one file is there twice, however it is written.
    """
    if not lines:
        raise UserError(f"input={source} names no file: give one path a line", key="input", value=source)
    real = cache(os.path.realpath)  # of folders, of which there are few

    def place(name: str) -> str:
        if "\0" in name:  # no file is called so
            return name
        above, last = os.path.split(folder / name)
        return os.path.join(real(above), last)

    first: dict[str, tuple[int, str]] = {}
    again = [
        (name, one, number)
        for number, name in lines
        if (one := first.setdefault(place(name), (number, name)))[0] != number
    ]
    if again:
        name, (line, earlier), other = again[0]
        more = f" ({many(len(again), 'line')} too many in all)" if len(again) > 1 else ""
        spelled = "" if earlier == name else f", there as {earlier}"
        raise UserError(
            f"input={source} names {name} in the lines {line} and {other}{spelled}{more}: leave out one of them",
            key="input",
            value=source,
        )
    return [name for _, name in lines]


def sha256_of(path: Path) -> str:
    """Of a file's bytes; empty where it cannot be read, which its prediction says."""
    try:
        return file_sha256(path) if path.is_file() else ""
    except OSError:
        return ""


@contextmanager
def writable(out: Path) -> Iterator[None]:
    """Turns a folder that cannot be written into a sentence.

    Raises:
        UserError: it cannot.
    """
    refuse_unwritable(out, key="out", value=out, cure=CURE)
    try:
        out.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise UserError(
            f"out={out} cannot be written ({error.strerror}): {CURE}",
            key="out",
            value=str(out),
        ) from error
