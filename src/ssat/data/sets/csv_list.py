"""Your own images, listed in a table: a path and a label in each row, and if you like a group and a split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from ssat.core.errors import UserError
from ssat.core.words import many, nearest
from ssat.data.sets.checks import listed
from ssat.data.sets.label_table import label_table, refuse_label_columns
from ssat.data.sets.rows import (
    COLUMNS,
    SHOWN,
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
from ssat.data.sets.sources import ImageList, Source


def csv_list(
    file: str | None = None,
    root: str | None = None,
    columns: Mapping[str, str | None] = COLUMNS,
    classes: Sequence[str] | str | None = None,
    labels: str | None = None,
    label_columns: Sequence[str] | None = None,
) -> Source:
    """Your own images, listed in a table with a header; commas, semicolons or tabs separate the cells.

    The classes are the labels in alphabetical order, or by size where all of them are whole numbers. With a column of
    splits `test` evaluates and `val` selects; a `val` without a `test` is the test, as for folders. The images are in
    the order of their paths, whatever that of the rows is.

    Args:
        file: the table, UTF-8; or
        labels: a table of several labels for each image, see `label_table`, and
        label_columns: which of its columns are labels.
        root: the folder that relative paths count from; None = that of the table.
        columns: the header's names of path, label, group and split. A table need not have the last two; null = they are
            not read.
        classes: use only rows with these labels; `common` = those that every split has; None = all.

    Raises:
        UserError: no such table, or column; a cell is empty; files do not exist; one file has two labels, groups or
            splits; one group is in two splits; a label is in one row only, or is not in the training images.
    """
    if labels is not None:
        _refuse_beside_labels(file=file, classes=classes)
        return label_table(labels, root, columns, label_columns, name="csv")
    if file is None:
        raise UserError(
            "data=csv reads a table: name it with data.file=labels.csv, or data.labels=labels.csv where an image has"
            " several labels",
            key="data.file",
        )
    refuse_label_columns(label_columns)
    table = Table(Path(file).expanduser(), "data.file")
    rows, remarks = without_repeats(_rows(table, columns), table)
    rows = _chosen(rows, classes, table)
    _check_labels(rows, table)
    check_groups(rows, table)
    folder = Path(root).expanduser() if root is not None else table.path.parent
    check_files(rows, folder, table)
    names = _in_order({row.label for row in rows})
    number = {name: label for label, name in enumerate(names)}
    lists = lists_of(rows, folder, np.array([number[row.label] for row in rows], dtype=np.int64))
    _check_trained(lists, names, table)
    return Source("csv", names, lists["train"], lists.get("test"), lists.get("val"), remarks=tuple(remarks))


def _refuse_beside_labels(**given: object) -> None:
    cures = {"file": "keep one of the two tables", "classes": "choose its labels with data.label_columns=[...]"}
    for name, value in given.items():
        if value is not None:
            raise UserError(
                f"data.{name} is of images with one label each, and data.labels gives them several: {cures[name]}",
                key=f"data.{name}",
            )


def _rows(table: Table, columns: Mapping[str, str | None]) -> list[Row]:
    known = known_columns(columns)
    header, rows = table.read()
    places = places_of(header, known, table)
    return [row_of(line, cells, places, table) for line, cells in rows]


def _chosen(rows: list[Row], classes: Sequence[str] | str | None, table: Table) -> list[Row]:
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
            f"data.classes has {name!r}, which is no label of {table.path}{nearest(name, labels)}: there are"
            f" {listed(labels)}",
            key="data.classes",
        )
    if not kept:
        raise UserError(
            f"data.classes leaves no label of {table.path}: name two of {listed(labels)}", key="data.classes"
        )
    return [row for row in rows if row.label in kept]


def _check_labels(rows: Sequence[Row], table: Table) -> None:
    counts = Counter(row.label for row in rows)
    if len(counts) < 2:
        raise table.refusal(f"has one label only ({rows[0].label!r}), and a classifier needs two")
    once = [row for row in rows if counts[row.label] == 1]
    if not once:
        return
    others = [label for label, count in counts.items() if count > 1]
    which = ", ".join(f"{row.label!r} in line {row.line}{nearest(row.label, others)}" for row in once[:SHOWN])
    more = f" and {len(once) - SHOWN} more" if len(once) > SHOWN else ""
    raise table.refusal(
        f"has {many(len(once), 'label')} with one image only, {which}{more}: no class can be learned and tested on one"
        " image, so correct the label, add images, or name the others with data.classes=[...]",
    )


def _check_trained(lists: Mapping[str, ImageList], names: Sequence[str], table: Table) -> None:
    if "train" not in lists:
        raise table.refusal("has no row of the split train: name the images to train on")
    lacking = sorted({*range(len(names))} - {*lists["train"].labels.tolist()})
    if lacking:
        raise table.refusal(
            f"has no training image of {listed([names[label] for label in lacking], SHOWN)}: add some, or set"
            " data.classes=common to use the labels that every split has",
        )


def _in_order(labels: Iterable[str]) -> list[str]:
    """Alphabetical; by size where all are whole numbers."""
    found = sorted(labels)
    return sorted(found, key=int) if all(label.isdecimal() for label in found) else found
