"""The table at the end of a sweep: its runs and their accuracy."""

from __future__ import annotations

from collections.abc import Container, Sequence
from pathlib import Path
from typing import Any

from ssat.core.words import duration
from ssat.runs.record import Record
from ssat.sweeps.jobs import JobOutcome, Request

TITLES = ("run", "status", "acc1 %", "best %", "mAP", "best mAP", "time")
OF_LABELS = ("mAP", "best mAP")  # of images with several labels each; left out where no run has them


def results_table(rows: Sequence[tuple[Request, JobOutcome, dict[str, Any] | None]]) -> list[str]:
    """A line for each run: name, what became of it, top-1 accuracy (the last epoch's, unless recipe.report=max).

    Args:
        rows: the run as it was asked for, its outcome, and its record where it is finished.
    """
    lines: list[tuple[str, ...]] = [TITLES, *(_line(*row) for row in rows)]
    kept = [n for n, title in enumerate(TITLES) if title not in OF_LABELS or any(line[n] for line in lines[1:])]
    lines = [tuple(line[n] for n in kept) for line in lines]
    return aligned(lines, right=range(2, len(kept)))


def _line(job: Request, outcome: JobOutcome, values: dict[str, Any] | None) -> tuple[str, ...]:
    if values is None:
        return str(job), outcome.status, "", "", "", "", ""
    record = Record(Path(), "", {"mode": "", **values})
    best, seconds = record.number(f"metrics.{record.split}.acc1.best"), record.number("seconds")
    accuracies = ["" if number is None else f"{number:.2f}" for number in (record.accuracy, best)]
    maps = [record.number(f"metrics.{record.split}.map.{key}") for key in ("last", "best")]
    accuracies += ["" if number is None else f"{number:.4f}" for number in maps]
    return str(job), outcome.status, *accuracies, "" if seconds is None else duration(seconds)


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
