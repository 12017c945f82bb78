"""The table at the end of a sweep: its runs, the number that decides over each, and the means over seeds and folds."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from pathlib import Path
from typing import Any

from ssat.core.words import duration
from ssat.results.columns import DECIDING, Column, Entry, deciding_titles
from ssat.results.comparisons import Arm, comparisons
from ssat.results.text import two_decimals
from ssat.runs.record import Record
from ssat.sweeps.jobs import JobOutcome, Request

ACCURACY = DECIDING["acc1"].title
BEST = Column("best %", 0, key="metrics.{split}.acc1.best", show=two_decimals, with_deviation=True)
BEST_MAP = Column("best mAP", 0, key="metrics.{split}.map.best", show="{:.4f}".format, with_deviation=True)
TIME = Column("time", 0, key="seconds", show=duration)


def results_table(rows: Sequence[tuple[Request, JobOutcome, dict[str, Any] | None]]) -> list[str]:
    """A line for each run: name, what became of it, the deciding number (the last epoch's, unless recipe.report=max).

    A line for each mean over seeds and folds follows them.

    Args:
        rows: the run as it was asked for, its outcome, and its record where it is finished.
    """
    found = [
        None if values is None else Record(Path(), "", {"mode": "", "status": "finished", **values})
        for _, _, values in rows
    ]
    records = [record for record in found if record is not None]
    columns = _columns(records)
    lines: list[tuple[str, ...]] = [("run", "status", *(column.title for column in columns))]
    for (job, outcome, _), record in zip(rows, found, strict=True):
        numbers = ["" if record is None else _of_run(record, column).text for column in columns]
        lines.append((str(job), outcome.status, *numbers))
    lines += [
        (_mean_name(arm), "", *(column.entry_over_seeds(arm).text for column in columns))
        for arm in _repeated([record for record in records if record.get("config")])
    ]
    return aligned(lines, right=range(2, len(columns) + 2))


def _columns(records: Sequence[Record]) -> list[Column]:
    """Accuracy and what decides in place of it; columns that no run has a number for are left out."""
    deciding = deciding_titles(records)
    shown = [column for column in DECIDING.values() if column.title in (ACCURACY, *deciding)]
    columns = [*shown, BEST, BEST_MAP, TIME]
    return [column for column in columns if any(_of_run(record, column).text for record in records)]


def _of_run(record: Record, column: Column) -> Entry:
    if column.title == ACCURACY:
        value = record.accuracy
        return Entry("" if value is None else column.show(value), value)
    return column.entry_of(record)


def _repeated(records: Sequence[Record]) -> Iterator[Arm]:
    for comparison in comparisons(records):
        yield from (arm for arm in comparison.arms if len(arm.repeats) > 1)


def _mean_name(arm: Arm) -> str:
    record = arm.repeats[0].records[0]
    return f"mean of {arm.said_runs}: {record.encoder} on {record.data}, {arm.name}"


def aligned(lines: Sequence[Sequence[str]], right: Container[int]) -> list[str]:
    """Each line with its columns below one another; numbers, in the columns `right`, end together."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [
        "  ".join(
            text.rjust(width) if column in right else text.ljust(width)
            for column, (text, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
