"""Your own images with several labels each (multi-label), listed in a table."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ssat.core.errors import UserError
from ssat.core.words import many, nearest
from ssat.data.sets.checks import listed
from ssat.data.sets.rows import (
    COLUMNS,
    SHOWN,
    SPLITS,
    Row,
    Table,
    check_files,
    check_groups,
    known_columns,
    lists_of,
    places_of,
    row_of,
    without_repeats,
)
from ssat.data.sets.sources import Source
from ssat.data.sets.table import Rows

SEPARATORS = (";", "|")  # of several names in one cell
JOINED = ";"  # between the labels of a row, in sentences and for the comparison of two rows
NO_LABEL = "no label"


def refuse_label_columns(label_columns: Sequence[str] | None) -> None:
    """Raises: UserError: columns of labels are named, and no table of them."""
    if label_columns is not None:
        raise UserError(
            "data.label_columns names columns of the table data.labels=..., which is not given: give it, or leave"
            " data.label_columns out",
            key="data.label_columns",
        )


def label_table(
    labels: str,
    root: str | None = None,
    columns: Mapping[str, str | None] = COLUMNS,
    label_columns: Sequence[str] | None = None,
    *,
    name: str,
    split_folders: bool = False,
) -> Source:
    """Images with several labels each: a table with a header, a column of paths, and columns of labels.

    The columns of labels are those that `label_columns` names, else all but path, group and split. Several columns
    hold 0 or 1, one for each label, in the order of the header (or of `label_columns`). A single column holds the
    names of the labels of each image, separated by `;` or `|`; then the labels are in alphabetical order. An image may
    have no label: zeros, or an empty cell.

    Args:
        labels: the table, UTF-8; commas, semicolons or tabs separate its cells.
        root: the folder that relative paths count from; None = that of the table.
        columns: the header's names of path, group and split, see `csv_list`.
        label_columns: see above.
        name: of the set.
        split_folders: without a column of splits, `train/...`, `val/...` and `test/...` are the splits, if `root` has
            a folder train.

    Raises:
        UserError: no such table or column; a value that is not 0 or 1; fewer than two labels; a label that no training
            image has, or all have; files do not exist; one file has two rows that differ; one group is in two splits.
    """
    table = Table(Path(labels).expanduser(), "data.labels")
    known = known_columns(columns)
    if known.pop("label") != COLUMNS["label"]:
        raise UserError(
            "data.columns.label is of a table with one label for each image (data.file): name the columns of"
            " data.labels with data.label_columns=[...]",
            key="data.columns.label",
        )
    header, lines = table.read()
    places = places_of(header, known, table, needed=("path",))
    chosen = _label_columns(header, places, label_columns, table)
    names, of_line = (_names if len(chosen) == 1 else _flags)(header, lines, chosen, table)
    rows = [
        row_of(line, cells, places, table, JOINED.join(sorted(own)))
        for (line, cells), own in zip(lines, of_line, strict=True)
    ]
    folder = Path(root).expanduser() if root is not None else table.path.parent
    if split_folders and not rows[0].split and (folder / "train").is_dir():
        rows = [_with_split(row, table) for row in rows]
    labelled = {row.line: own for row, own in zip(rows, of_line, strict=True)}
    rows, remarks = without_repeats([_worded(row) for row in rows], table)
    check_groups(rows, table)
    check_files(rows, folder, table)
    hot = np.array([[label in labelled[row.line] for label in names] for row in rows], dtype=np.int8)
    training = np.array([(row.split or "train") == "train" for row in rows])
    remarks += _check_counts(hot[training], names, table)
    lists = lists_of(rows, folder, np.zeros(len(rows), dtype=np.int64), hot)
    return Source(name, list(names), lists["train"], lists.get("test"), lists.get("val"), remarks=tuple(remarks))


def _label_columns(
    header: Sequence[str], places: Mapping[str, int], given: Sequence[str] | None, table: Table
) -> list[str]:
    others = [column for number, column in enumerate(header) if number not in places.values()]
    key = "data.label_columns"
    if given is not None:
        chosen = [given] if isinstance(given, str) else [str(column) for column in given]
        for column in chosen:
            if column not in others:
                what = "which is read as path, group or split" if column in header else f"there are {listed(others, 8)}"
                raise table.refusal(f"has no column of labels {column!r}{nearest(column, others)}, {what}", key)
    else:
        chosen = others
    if not chosen:
        raise table.refusal("has no column of labels: add one of 0 and 1 for each label, or one of their names", key)
    if repeated := sorted({column for column in chosen if chosen.count(column) > 1 or header.count(column) > 1}):
        raise table.refusal(f"has the column {repeated[0]!r} twice: rename one, or name each column once", key)
    if nameless := [number + 1 for number, column in enumerate(header) if not column and column in chosen]:
        raise table.refusal(
            f"has no name for its column {nameless[0]}: name it, or choose others with {key}=[...]", key
        )
    return chosen


def _flags(
    header: Sequence[str], lines: Rows, columns: Sequence[str], table: Table
) -> tuple[list[str], list[frozenset[str]]]:
    """The labels, and those of each row, from columns of 0 and 1."""
    places, found = [header.index(column) for column in columns], []
    for line, cells in lines:
        values = [cells[place] if place < len(cells) else "" for place in places]
        for column, value in zip(columns, values, strict=True):
            if value not in ("0", "1"):
                said = f"the value {value!r}" if value else "no value"
                raise table.refusal(
                    f"has {said} in column {column!r}, line {line}: a label is 0 or 1; where a column is no label, name"
                    " those that are with data.label_columns=[...]",
                )
        found.append(frozenset(column for column, value in zip(columns, values, strict=True) if value == "1"))
    return list(columns), found


def _names(
    header: Sequence[str], lines: Rows, columns: Sequence[str], table: Table
) -> tuple[list[str], list[frozenset[str]]]:
    """The labels, and those of each row, from one column of names."""
    place = header.index(columns[0])
    cells = [(line, row[place] if place < len(row) else "") for line, row in lines]
    used = {separator: line for line, cell in cells[::-1] for separator in SEPARATORS if separator in cell}
    if len(used) > 1:
        (one, first), (other, second) = sorted(used.items(), key=lambda item: item[1])
        raise table.refusal(
            f"separates the names in column {columns[0]!r} by {one!r} in line {first} and by {other!r} in line"
            f" {second}: use one of the two"
        )
    separator = next(iter(used), SEPARATORS[0])
    found = [frozenset(filter(None, map(str.strip, cell.split(separator)))) for _, cell in cells]
    for (line, _), own in zip(cells, found, strict=True):
        if wrong := [label for label in sorted(own) if "," in label]:
            raise table.refusal(f"has the label {wrong[0]!r} in line {line}: separate names by ';' or '|', not by ','")
    names = sorted(frozenset().union(*found))
    if {*names} <= {"0", "1"}:
        raise table.refusal(
            f"has one column of labels only, {columns[0]!r}, which holds 0 and 1: add a column for each further label,"
            " or use data.file with a column label of two classes"
        )
    return names, found


def _with_split(row: Row, table: Table) -> Row:
    split = row.path.partition("/")[0]
    if split not in SPLITS:
        raise table.refusal(
            f"names {row.path!r} in line {row.line}, which lies in none of train/, val/ and test/ of data.root: move"
            " it, or add a column split"
        )
    return replace(row, split=split)


def _worded(row: Row) -> Row:
    return replace(row, label=row.label or NO_LABEL)


def _check_counts(hot: np.ndarray, names: Sequence[str], table: Table) -> list[str]:
    """A sentence on the labels that one training image has."""
    if len(names) < 2:
        raise table.refusal(f"has {many(len(names), 'label')} only, and several labels need two", "data.label_columns")
    if not len(hot):
        raise table.refusal("has no row of the split train: name the images to train on")
    counts = hot.sum(axis=0)
    for number, what in ((0, "no training image has"), (len(hot), "every training image has")):
        if constant := [name for name, count in zip(names, counts.tolist(), strict=True) if count == number]:
            raise table.refusal(
                f"has {many(len(constant), 'label')} that {what}, {listed(constant, SHOWN)}: nothing can be"
                " learned of it, so correct the table, or leave the label out (data.label_columns names others)"
            )
    found = []
    if once := [name for name, count in zip(names, counts.tolist(), strict=True) if count == 1]:
        found.append(f"one training image only has the label {listed(once, SHOWN)}")
    return found


def unlisted(source: Source, files: Sequence[str], table: str) -> str:
    """A sentence on the image files of a folder that no row of its table names; empty where there are none."""
    named = {os.path.normpath(str(name)) for images in source.lists for name in images.images}
    others = [file for file in files if file not in named]
    if not others:
        return ""
    is_are = "is" if len(others) == 1 else "are"
    return f"{many(len(others), 'image file')} {is_are} in no row of {table} and not read, the first is {others[0]!r}"
