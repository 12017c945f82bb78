"""Which files are predicted: one, all below a folder, those of a list, or those that standard input names."""

from __future__ import annotations

import csv
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from ssat.core.errors import UserError
from ssat.core.files import file_sha256
from ssat.core.words import many

COLUMN = "path"  # of a list


@dataclass(frozen=True)
class Inputs:
    """The files of a command.

    Attributes:
        folder: that the names begin in.
        names: of the files.
        columns: of each file what else its row of the list says; [] without a list.
    """

    folder: Path
    names: list[str]
    columns: list[dict[str, str]] = field(default_factory=list)


def read_inputs(word: str, endings: Sequence[str]) -> Inputs:
    """The files that `input=<word>` means.

    Raises:
        UserError: there are none, or a list is not right.
    """
    from ssat.data.video.unseen import find

    path = Path(word)
    if word == "-":
        names = [os.fsdecode(line.rstrip(b"\r\n")) for line in sys.stdin.buffer]
        return Inputs(Path(), _distinct([(number, name) for number, name in enumerate(names, 1) if name], word))
    if path.suffix.lower() == ".csv" and path.is_file():
        return _listed(path)
    return Inputs(*find(path, endings))


def _listed(path: Path) -> Inputs:
    """The rows of a CSV file with a column `path`; its paths begin in the file's folder."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, restkey="", restval="")
            header = list(reader.fieldnames or ())
            rows = [(reader.line_num, row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"input={path} is no CSV file in UTF-8 ({error}): save it as one", key="input") from error
    if header.count(COLUMN) != 1 or len(set(header)) < len(header):
        raise UserError(
            f"input={path} has the columns {', '.join(header) or 'none'}: it needs one that is called {COLUMN}, and no"
            " name twice",
            key="input",
            value=str(path),
        )
    for number, row in rows:
        if "" in row or not row[COLUMN]:
            what = "more cells than columns" if "" in row else f"no {COLUMN}"
            raise UserError(f"input={path} has {what} in line {number}: correct it", key="input", value=str(path))
    names = _distinct([(number, row[COLUMN]) for number, row in rows], str(path))
    others = [{key: value for key, value in row.items() if key != COLUMN} for _, row in rows]
    return Inputs(path.parent, names, others)


def _distinct(lines: Sequence[tuple[int, str]], source: str) -> list[str]:
    """The names of numbered lines.

    Raises:
        UserError: there are none, or one is there twice.
    """
    if not lines:
        raise UserError(f"input={source} names no file: give one path a line", key="input", value=source)
    first: dict[str, int] = {}
    again = [(name, first[name], number) for number, name in lines if first.setdefault(name, number) != number]
    if again:
        name, one, other = again[0]
        more = f" ({many(len(again), 'line')} too many in all)" if len(again) > 1 else ""
        raise UserError(
            f"input={source} names {name} in the lines {one} and {other}{more}: leave out one of them",
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
    try:
        out.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise UserError(
            f"out={out} cannot be written ({error.strerror}): name another folder, or free space there",
            key="out",
            value=str(out),
        ) from error
