"""One run in several folders: a copy of a record is the same run, and is shown once."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NamedTuple

from ssat.runs.record import Record

QUICK = ("hash", "started", "finished", "status")  # records that differ in these need no look at the rest


def same_run(a: Record, b: Record) -> bool:
    """Whether one record is a copy of the other: every value is the same.

    The same configuration on another machine, or at another time, differs at least in its seconds.
    """
    return all(a.get(key) == b.get(key) for key in QUICK) and a.values == b.values


class Distinct(NamedTuple):
    """Every run once, in the order given, and a sentence for each that lies in several folders."""

    records: list[Record]
    notes: list[str]


def without_copies(records: Sequence[Record]) -> Distinct:
    """Each run once; of its folders the one with the most files, as evaluations and pictures lie there."""
    groups: dict[str, list[list[Record]]] = {}
    for record in records:
        alike = groups.setdefault(repr([record.get(key) for key in QUICK]), [])
        same = next((group for group in alike if same_run(group[0], record)), None)
        if same is None:
            alike.append([record])
        else:
            same.append(record)
    found = [group for alike in groups.values() for group in alike]
    shown = {id(group[0]): max(group, key=_files) if len(group) > 1 else group[0] for group in found}
    notes = [_note(shown[id(group[0])], group) for group in found if len(group) > 1]
    return Distinct([shown[id(record)] for record in records if id(record) in shown], notes)


def _files(record: Record) -> int:
    return sum(len(files) for _, _, files in os.walk(record.folder))


def _note(shown: Record, group: list[Record]) -> str:
    others = ", ".join(_place(record) for record in group if record is not shown)
    return f"{_place(shown)} is shown once; the same run is also in {others}"


def _place(record: Record) -> str:
    return f"{record.group}/{record.folder.name}"
