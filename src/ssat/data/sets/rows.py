"""The rows of a table of images: what tables of one label and of several labels have in common."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ssat.core.errors import UserError
from ssat.core.words import many, nearest
from ssat.data.sets.checks import absent, listed
from ssat.data.sets.sources import Groups, ImageList
from ssat.data.sets.table import Rows, read_table

COLUMNS: Mapping[str, str | None] = {"path": "path", "label": "label", "group": "group", "split": "split"}
NEEDED = ("path", "label")
SPLITS = ("train", "val", "test")
SHOWN = 3  # names in one sentence


@dataclass(frozen=True)
class Table:
    """A table, and the key that names it.

    Attributes:
        path: of the file.
        key: such as data.file.
    """

    path: Path
    key: str

    def refusal(self, text: str, key: str | None = None) -> UserError:
        """The sentence that begins with the key and its value; `key` = the one that is to be changed, if another."""
        return UserError(f"{self.key}={self.path} {text}", key=key or self.key, value=str(self.path))

    def read(self) -> tuple[list[str], Rows]:
        """The header and the rows with their lines, without blanks around the cells.

        Raises:
            UserError: it cannot be read, or has no row.
        """
        try:
            header, rows = read_table(self.path)
        except ValueError as error:
            raise self.refusal(str(error)) from None
        if not rows:
            raise self.refusal("has a header and no row: write a row for each image")
        return header, [(line, [cell.strip() for cell in cells]) for line, cells in rows]


@dataclass(frozen=True)
class Row:
    """One image.

    Attributes:
        line: of the table, from 1.
        path: of the file, relative to the root or absolute.
        label: name of its class; of several labels their names, joined.
        group: what it belongs to, such as a patient; empty where the table has no such column.
        split: train, val or test; empty where the table has no such column.
    """

    line: int
    path: str
    label: str
    group: str
    split: str


def known_columns(columns: Mapping[str, str | None]) -> dict[str, str | None]:
    """The names of all four columns.

    Raises:
        UserError: there is no such column, or path or label have none.
    """
    for name in columns:
        if name not in COLUMNS:
            what = f"data.columns.{name}: a column is one of {', '.join(COLUMNS)}{nearest(name, list(COLUMNS))}"
            raise UserError(what, key=f"data.columns.{name}")
    known = {**COLUMNS, **columns}
    for name in NEEDED:
        if not known[name]:
            raise UserError(f"data.columns.{name}=null: every table has this column, name it", key="data.columns")
    return known


def places_of(
    header: Sequence[str], columns: Mapping[str, str | None], table: Table, needed: Sequence[str] = NEEDED
) -> dict[str, int]:
    """Where the header has each of `columns`; one that is not `needed` may be missing under its usual name.

    Raises:
        UserError: a column is missing, or is there twice.
    """
    places: dict[str, int] = {}
    for role, name in columns.items():
        count = header.count(name) if name else 0
        if count > 1:
            raise table.refusal(f"has {count} columns {name!r}: rename all but one")
        if count:
            places[role] = header.index(name)
        elif name and (role in needed or name != COLUMNS[role]):
            raise table.refusal(
                f"has no column {name!r}{nearest(name, list(header))}, it has {listed(header, 8)}: name the one that"
                f" holds the {role} with data.columns.{role}=...",
                f"data.columns.{role}",
            )
    return places


def row_of(line: int, cells: Sequence[str], places: Mapping[str, int], table: Table, label: str | None = None) -> Row:
    """The row; `label` takes the place of that of the column.

    Raises:
        UserError: a cell is empty, or names no split.
    """
    values = {role: cells[place] if place < len(cells) else "" for role, place in places.items()}
    for role, value in values.items():
        if not value:
            raise table.refusal(f"has no {role} in line {line}: fill it in, or remove the row")
    split = values.get("split", "").lower()
    if split and split not in SPLITS:
        raise table.refusal(
            f"has the split {values['split']!r} in line {line}{nearest(split, list(SPLITS))}: a split is train, val or"
            " test, and data.columns.split=null reads none",
        )
    name = posixpath.normpath(values["path"].replace("\\", "/"))
    return Row(line, name, values["label"] if label is None else label, values.get("group", ""), split)


def without_repeats(rows: Sequence[Row], table: Table) -> tuple[list[Row], list[str]]:
    """One row of each file, in the order of their paths, and a sentence on those that were there twice.

    Raises:
        UserError: a file has two labels, groups or splits.
    """
    found: dict[str, Row] = {}
    repeats = []
    for row in rows:
        first = found.setdefault(row.path, row)
        if first is row:
            continue
        for role in ("label", "split", "group"):
            one, other = getattr(first, role), getattr(row, role)
            if one != other:
                raise table.refusal(
                    f"gives {row.path!r} two {role}s, {one!r} in line {first.line} and {other!r} in line {row.line}:"
                    " remove one of the rows",
                )
        repeats.append(row)
    ordered = sorted(found.values(), key=lambda row: row.path)
    if not repeats:
        return ordered, []
    what = f"{many(len(repeats), 'row')} of {table.path.name} repeat{'s' * (len(repeats) == 1)} a file and its label"
    return ordered, [f"{what}, the first is {repeats[0].path!r} in line {repeats[0].line}: it counts once"]


def check_groups(rows: Sequence[Row], table: Table) -> None:
    """Raises: UserError: a group is in two splits."""
    found: dict[str, Row] = {}
    for row in rows if rows[0].group else ():
        first = found.setdefault(row.group, row)
        if first.split != row.split:
            raise table.refusal(
                f"has the group {row.group!r} in {first.split} (line {first.line}) and in {row.split} (line"
                f" {row.line}): give one group one split, or read no groups with data.columns.group=null",
            )


def check_files(rows: Sequence[Row], folder: Path, table: Table) -> None:
    """Raises: UserError: files do not exist."""
    missing = absent(folder, [row.path for row in rows])
    if not missing:
        return
    which = "none of its files exists" if len(missing) == len(rows) else "it names files that do not exist"
    raise table.refusal(
        f"does not fit the images, {which}: {len(missing):,} of {len(rows):,}, the first"
        f" {'is' if len(missing) == 1 else 'are'} {listed(missing, SHOWN)}; relative paths count from"
        f" {os.path.relpath(folder)!r} (data.root says another folder)",
    )


def lists_of(
    rows: Sequence[Row], folder: Path, labels: NDArray[np.int64], hot: NDArray[np.int8] | None = None
) -> dict[str, ImageList]:
    """The images of each split that has rows; a `val` without a `test` is the test.

    Args:
        rows: one for each file.
        folder: that relative paths count from.
        labels: (N,) of the rows.
        hot: (N, K) of them, see `ImageList`.
    """
    number = {name: place for place, name in enumerate(dict.fromkeys(row.group for row in rows))}
    groups = np.array([number[row.group] for row in rows], dtype=np.int64)
    splits = np.array([row.split or "train" for row in rows])
    lists = {}
    for split in SPLITS:
        if len(own := np.flatnonzero(splits == split)):
            lists[split] = ImageList(
                [rows[row].path for row in own.tolist()],
                labels[own],
                folder,
                groups=Groups(groups[own], tuple(number)) if rows[0].group else None,
                hot=None if hot is None else hot[own],
            )
    if "test" not in lists and "val" in lists:
        lists["test"] = lists.pop("val")
    return lists
