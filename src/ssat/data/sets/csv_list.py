"""Your own images, listed in a table: a path and a label in each row, and if you like a group and a split."""

from __future__ import annotations

import os
import posixpath
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ssat.core.errors import UserError
from ssat.core.words import many, nearest
from ssat.data.sets.checks import absent, listed
from ssat.data.sets.sources import Groups, ImageList, Source
from ssat.data.sets.table import Rows, read_table

COLUMNS: Mapping[str, str | None] = {"path": "path", "label": "label", "group": "group", "split": "split"}
NEEDED = ("path", "label")
SPLITS = ("train", "val", "test")
SHOWN = 3  # names in one sentence


@dataclass(frozen=True)
class Row:
    """One image.

    Attributes:
        line: of the table, from 1.
        path: of the file, relative to the root or absolute.
        label: name of its class.
        group: what it belongs to, such as a patient; empty where the table has no such column.
        split: train, val or test; empty where the table has no such column.
    """

    line: int
    path: str
    label: str
    group: str
    split: str


def csv_list(
    file: str,
    root: str | None = None,
    columns: Mapping[str, str | None] = COLUMNS,
    classes: Sequence[str] | str | None = None,
) -> Source:
    """Your own images, listed in a table with a header; commas, semicolons or tabs separate the cells.

    The classes are the labels in alphabetical order, or by size where all of them are whole numbers. With a column of
    splits `test` evaluates and `val` selects; a `val` without a `test` is the test, as for folders. The images are in
    the order of their paths, whatever that of the rows is.

    Args:
        file: the table, UTF-8.
        root: the folder that relative paths count from; None = that of the table.
        columns: the header's names of path, label, group and split. A table need not have the last two; null = they are
            not read.
        classes: use only rows with these labels; `common` = those that every split has; None = all.

    Raises:
        UserError: no such table, or column; a cell is empty; files do not exist; one file has two labels, groups or
            splits; one group is in two splits; a label is in one row only, or is not in the training images.
    """
    path = Path(file).expanduser()
    rows, remarks = _without_repeats(_rows(path, _known(columns)), path)
    rows = _chosen(rows, classes, path)
    _check_labels(rows, path)
    _check_groups(rows, path)
    folder = Path(root).expanduser() if root is not None else path.parent
    _check_files(rows, folder, path)
    names = _in_order({row.label for row in rows})
    number = {name: label for label, name in enumerate(names)}
    groups = {name: place for place, name in enumerate(dict.fromkeys(row.group for row in rows))}
    lists = {
        split: ImageList(
            [row.path for row in part],
            np.array([number[row.label] for row in part], dtype=np.int64),
            folder,
            groups=Groups(np.array([groups[row.group] for row in part], dtype=np.int64), tuple(groups))
            if rows[0].group
            else None,
        )
        for split in SPLITS
        if (part := [row for row in rows if (row.split or "train") == split])
    }
    _check_trained(lists, names, path)
    test, val = lists.get("test"), lists.get("val")
    if test is None:
        test, val = val, None
    return Source("csv", names, lists["train"], test, val, remarks=tuple(remarks))


def _refusal(path: Path, text: str, key: str = "data.file") -> UserError:
    return UserError(f"data.file={path} {text}", key=key, value=str(path))


def _known(columns: Mapping[str, str | None]) -> dict[str, str | None]:
    """The names of all four columns."""
    for name in columns:
        if name not in COLUMNS:
            what = f"data.columns.{name}: a column is one of {', '.join(COLUMNS)}{nearest(name, list(COLUMNS))}"
            raise UserError(what, key=f"data.columns.{name}")
    known = {**COLUMNS, **columns}
    for name in NEEDED:
        if not known[name]:
            raise UserError(f"data.columns.{name}=null: every table has this column, name it", key="data.columns")
    return known


def _rows(path: Path, columns: Mapping[str, str | None]) -> list[Row]:
    try:
        header, rows = read_table(path)
    except ValueError as error:
        raise _refusal(path, str(error)) from None
    places: dict[str, int] = {}
    for role, name in columns.items():
        count = header.count(name) if name else 0
        if count > 1:
            raise _refusal(path, f"has {count} columns {name!r}: rename all but one")
        if count:
            places[role] = header.index(name)  # type: ignore[arg-type]
        elif name and (role in NEEDED or name != COLUMNS[role]):
            raise _refusal(
                path,
                f"has no column {name!r}{nearest(name, header)}, it has {listed(header, 8)}: name the one that holds"
                f" the {role} with data.columns.{role}=...",
                f"data.columns.{role}",
            )
    if not rows:
        raise _refusal(path, "has a header and no row: write a row for each image")
    return [_row(line, cells, places, path) for line, cells in _filled(rows)]


def _filled(rows: Rows) -> Iterable[tuple[int, list[str]]]:
    return ((line, [cell.strip() for cell in cells]) for line, cells in rows)


def _row(line: int, cells: list[str], places: Mapping[str, int], path: Path) -> Row:
    values = {role: cells[place] if place < len(cells) else "" for role, place in places.items()}
    for role, value in values.items():
        if not value:
            raise _refusal(path, f"has no {role} in line {line}: fill it in, or remove the row")
    split = values.get("split", "").lower()
    if split and split not in SPLITS:
        raise _refusal(
            path,
            f"has the split {values['split']!r} in line {line}{nearest(split, list(SPLITS))}: a split is train, val or"
            " test, and data.columns.split=null reads none",
        )
    name = posixpath.normpath(values["path"].replace("\\", "/"))
    return Row(line, name, values["label"], values.get("group", ""), split)


def _without_repeats(rows: Sequence[Row], path: Path) -> tuple[list[Row], list[str]]:
    """One row of each file, in the order of their paths, and a sentence on those that were there twice."""
    found: dict[str, Row] = {}
    repeats = []
    for row in rows:
        first = found.setdefault(row.path, row)
        if first is row:
            continue
        for role in ("label", "split", "group"):
            one, other = getattr(first, role), getattr(row, role)
            if one != other:
                raise _refusal(
                    path,
                    f"gives {row.path!r} two {role}s, {one!r} in line {first.line} and {other!r} in line {row.line}:"
                    " remove one of the rows",
                )
        repeats.append(row)
    ordered = sorted(found.values(), key=lambda row: row.path)
    if not repeats:
        return ordered, []
    what = f"{many(len(repeats), 'row')} of {path.name} repeat{'s' * (len(repeats) == 1)} a file and its label"
    return ordered, [f"{what}, the first is {repeats[0].path!r} in line {repeats[0].line}: it counts once"]


def _chosen(rows: list[Row], classes: Sequence[str] | str | None, path: Path) -> list[Row]:
    if classes is None:
        return rows
    labels = _in_order({row.label for row in rows})
    if classes == "common":
        splits = {row.split for row in rows}
        kept = {label for label in labels if {row.split for row in rows if row.label == label} == splits}
    else:
        kept = {classes} if isinstance(classes, str) else {str(name) for name in classes}
    for name in sorted(kept - set(labels)):
        raise UserError(
            f"data.classes has {name!r}, which is no label of {path}{nearest(name, labels)}: there are"
            f" {listed(labels)}",
            key="data.classes",
        )
    if not kept:
        raise UserError(f"data.classes leaves no label of {path}: name two of {listed(labels)}", key="data.classes")
    return [row for row in rows if row.label in kept]


def _check_labels(rows: Sequence[Row], path: Path) -> None:
    counts = Counter(row.label for row in rows)
    if len(counts) < 2:
        raise _refusal(path, f"has one label only ({rows[0].label!r}), and a classifier needs two")
    once = [row for row in rows if counts[row.label] == 1]
    if not once:
        return
    others = [label for label, count in counts.items() if count > 1]
    which = ", ".join(f"{row.label!r} in line {row.line}{nearest(row.label, others)}" for row in once[:SHOWN])
    more = f" and {len(once) - SHOWN} more" if len(once) > SHOWN else ""
    raise _refusal(
        path,
        f"has {many(len(once), 'label')} with one image only, {which}{more}: no class can be learned and tested on one"
        " image, so correct the label, add images, or name the others with data.classes=[...]",
    )


def _check_groups(rows: Sequence[Row], path: Path) -> None:
    found: dict[str, Row] = {}
    for row in rows if rows[0].group else ():
        first = found.setdefault(row.group, row)
        if first.split != row.split:
            raise _refusal(
                path,
                f"has the group {row.group!r} in {first.split} (line {first.line}) and in {row.split} (line"
                f" {row.line}): give one group one split, or read no groups with data.columns.group=null",
            )


def _check_files(rows: Sequence[Row], folder: Path, path: Path) -> None:
    missing = absent(folder, [row.path for row in rows])
    if not missing:
        return
    which = "none of its files exists" if len(missing) == len(rows) else "it names files that do not exist"
    raise _refusal(
        path,
        f"does not fit the images, {which}: {len(missing):,} of {len(rows):,}, the first"
        f" {'is' if len(missing) == 1 else 'are'} {listed(missing, SHOWN)}; relative paths count from"
        f" {os.path.relpath(folder)!r} (data.root says another folder)",
    )


def _check_trained(lists: Mapping[str, ImageList], names: Sequence[str], path: Path) -> None:
    if "train" not in lists:
        raise _refusal(path, "has no row of the split train: name the images to train on")
    lacking = sorted({*range(len(names))} - {*lists["train"].labels.tolist()})
    if lacking:
        raise _refusal(
            path,
            f"has no training image of {listed([names[label] for label in lacking], SHOWN)}: add some, or set"
            " data.classes=common to use the labels that every split has",
        )


def _in_order(labels: Iterable[str]) -> list[str]:
    """Alphabetical; by size where all are whole numbers."""
    found = sorted(labels)
    return sorted(found, key=int) if all(label.isdecimal() for label in found) else found
