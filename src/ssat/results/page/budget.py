"""Accuracy against what was spent on it: epochs, device seconds or energy; and the modes at one equal budget."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ssat.core.words import duration
from ssat.results.comparisons import Arm, Comparison
from ssat.results.content import counted
from ssat.results.text import quantity
from ssat.runs.record import Record, as_number, lookup

BUDGETS = ("seconds", "wh")
ACCURACY = "{split}/acc1"
Points = list[tuple[float, float]]


def metric_points(record: Record, metric: str, across: str) -> Iterator[tuple[float, float]]:
    """The points (x, y) of a metric over a run's epochs.

    Args:
        record: the run.
        metric: its key in the history; `{split}` stands for the split that the epochs were evaluated on.
        across: what x is. `epoch` counts from 1 in each phase. `seconds` and `wh` are what the run had spent since its
            start: seconds of all devices together, and energy spread evenly over the time of each phase.
    """
    if "{split}" in metric:
        metric = metric.format(split=history_split(record))
    devices = record.number("hardware.processes") if record.get("hardware.accelerator") == "cuda" else 1
    spent_before = {"seconds": 0.0, "wh": 0.0}
    for phase in record.phases:
        seconds = as_number(phase.get("seconds")) or 0.0
        kwh = 0.0 if record.shares_energy else as_number(lookup(phase, "energy.kwh")) or 0.0
        total = {"seconds": seconds * (devices or 1), "wh": kwh * 1000}
        epochs = list(_epochs(phase, metric, seconds))
        if across == "epoch":
            yield from ((epoch + 1, y) for epoch, _, y in epochs)
        elif seconds and total[across]:
            yield from ((spent_before[across] + share * total[across], y) for _, share, y in epochs)
        spent_before = {key: value + total[key] for key, value in spent_before.items()}


def _epochs(phase: dict[str, Any], metric: str, seconds: float) -> Iterator[tuple[float, float, float]]:
    """Number of the epoch, share of the phase's time at its end, and the metric, of every epoch that has it."""
    clock = 0.0
    for values in _history(phase):
        clock += as_number(values.get("seconds")) or 0.0
        epoch, y = as_number(values.get("epoch")), as_number(values.get(metric))
        if y is not None and epoch is not None:
            yield epoch, min(1.0, clock / seconds) if seconds else 0.0, y


def history_split(record: Record) -> str:
    """The split of the epochs' accuracies: the record's, or `val` where the test images were used only at the end."""
    for split in (record.split, "val"):
        if any(f"{split}/acc1" in values for phase in record.phases for values in _history(phase)):
            return split
    return record.split


def _history(phase: dict[str, Any]) -> Iterator[dict[str, Any]]:
    rows = phase.get("history")
    yield from (row for row in (rows if isinstance(rows, list) else ()) if isinstance(row, dict))


@dataclass(frozen=True)
class EqualBudget:
    """The accuracy of every arm at the time or energy that the cheapest arm has spent.

    Attributes:
        cheapest: the arm that spent least.
        spent: what it spent: seconds or Wh.
        reached: the arms with their accuracy in percent by then; None where it was not measured by then.
    """

    cheapest: Arm
    spent: float
    reached: list[tuple[Arm, float | None]]


def at_equal_budget(comparison: Comparison, across: str) -> EqualBudget | None:
    """The arms at the budget of the cheapest, in `seconds` or `wh`; None where fewer than two modes have a curve."""
    arms = [(arm, [list(metric_points(record, ACCURACY, across)) for record in arm.scored]) for arm in comparison.arms]
    arms = [(arm, curves) for arm, curves in arms if curves and all(len(curve) > 1 for curve in curves)]
    if len({arm.mode for arm, _ in arms}) < 2:
        return None
    cheapest, curves = min(arms, key=lambda pair: _mean_end(pair[1]))
    spent = _mean_end(curves)
    # Each seed of the cheapest arm counts to its end, though some seeds took longer than their mean.
    reached = [(arm, _mean_by(curves, None if arm is cheapest else spent)) for arm, curves in arms]
    return EqualBudget(cheapest, spent, reached)


def _mean_end(curves: list[Points]) -> float:
    return statistics.fmean(curve[-1][0] for curve in curves)


def _mean_by(curves: list[Points], spent: float | None) -> float | None:
    """Mean of the last values by `spent` (None: of all); None where a curve begins later."""
    by_then = [[y for x, y in curve if spent is None or x <= spent * 1.0001] for curve in curves]
    return statistics.fmean(values[-1] for values in by_then) if all(by_then) else None


def budget_sentence(comparison: Comparison, across: str) -> str:
    """'With what scratch took (33m00s): scratch 44.8 %, SSL+FT none yet, SSAT 42.2 %'; empty where nothing compares."""
    found = at_equal_budget(comparison, across)
    if found is None:
        return ""
    cheapest, record = found.cheapest, found.cheapest.scored[0]
    spent = duration(found.spent) if across == "seconds" else quantity(found.spent, "Wh")
    listed = ", ".join(f"{arm.name} " + ("none yet" if y is None else f"{y:.1f} %") for arm, y in found.reached)
    where = f", on validation {counted([record])}" if history_split(record) != record.split else ""
    return f"With what {cheapest.name} took ({spent}){where}: {listed}."
