"""Accuracy against what was spent for it: epochs, device seconds or energy, and the modes at one equal budget."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from typing import Any

from src.results.record import Record, as_number, lookup
from src.results.summary import Arm, Comparison
from src.results.tables import duration, quantity

BUDGETS = ("seconds", "wh")
ACCURACY = "{split}/acc1"


def curve(record: Record, metric: str, across: str) -> Iterator[tuple[float, float]]:
    """A metric's history against `epoch` (from 1 within its phase), or the `seconds` or `wh` that the run had spent.

    `metric` may name the `{split}` that the epochs were evaluated on. Seconds are those of all devices together; the
    energy of a phase is spread evenly over its time.
    """
    if "{split}" in metric:
        metric = metric.format(split=history_split(record))
    devices = record.number("hardware.processes") if record.get("hardware.accelerator") == "cuda" else 1
    spent = {"seconds": 0.0, "wh": 0.0}
    for phase in record.phases:
        seconds, kwh = as_number(phase.get("seconds")), as_number(lookup(phase, "energy.kwh"))
        total = {"seconds": (seconds or 0.0) * (devices or 1), "wh": (kwh or 0.0) * 1000}
        clock = 0.0
        for values in _history(phase):
            clock += as_number(values.get("seconds")) or 0.0
            epoch, y = as_number(values.get("epoch")), as_number(values.get(metric))
            if y is None or epoch is None:
                continue
            if across == "epoch":
                yield epoch + 1, y
            elif seconds and total[across]:
                yield spent[across] + min(1.0, clock / seconds) * total[across], y
        spent = {key: value + total[key] for key, value in spent.items()}


def history_split(record: Record) -> str:
    """The split of the epochs' accuracies: the record's, or `val` where the test images were seen at the end alone."""
    for split in (record.split, "val"):
        if any(f"{split}/acc1" in values for phase in record.phases for values in _history(phase)):
            return split
    return record.split


def _history(phase: dict[str, Any]) -> Iterator[dict[str, Any]]:
    rows = phase.get("history")
    yield from (row for row in (rows if isinstance(rows, list) else ()) if isinstance(row, dict))


def at_equal_budget(comparison: Comparison, across: str) -> tuple[Arm, float, list[tuple[Arm, float | None]]] | None:
    """The cheapest arm, what it spent, and the accuracy that every arm had by then (None: none was measured by then).

    None where fewer than two modes have a curve.
    """
    curves = {}
    for arm in comparison.arms:
        lines = [list(curve(record, ACCURACY, across)) for record in arm.scored]
        if lines and all(len(line) > 1 for line in lines):
            curves[arm.label] = (arm, lines)
    if len({arm.mode for arm, _ in curves.values()}) < 2:
        return None
    totals = {label: statistics.fmean(line[-1][0] for line in lines) for label, (_, lines) in curves.items()}
    cheapest = min(totals, key=lambda label: totals[label])
    reached: list[tuple[Arm, float | None]] = []
    for label, (arm, lines) in curves.items():
        # Each seed of the cheapest arm counts whole, though some took longer than their mean.
        found = [[y for x, y in line if x <= totals[cheapest] * 1.0001 or label == cheapest] for line in lines]
        reached.append((arm, statistics.fmean(points[-1] for points in found) if all(found) else None))
    return curves[cheapest][0], totals[cheapest], reached


def budget_sentence(comparison: Comparison, across: str) -> str:
    """'With what scratch took (33m00s): scratch 44.8 %, SSL+FT none yet, SSAT 42.2 %'; empty where nothing compares."""
    found = at_equal_budget(comparison, across)
    if found is None:
        return ""
    cheapest, spent, reached = found
    shown = duration(spent) if across == "seconds" else quantity(spent, "Wh")
    listed = ", ".join(f"{arm.label} " + ("none yet" if y is None else f"{y:.1f} %") for arm, y in reached)
    where = ", on validation images" if history_split(cheapest.scored[0]) != cheapest.scored[0].split else ""
    return f"With what {cheapest.label} took ({shown}){where}: {listed}."
