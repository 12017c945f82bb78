"""Accuracy against the number of labels: the runs that differ in data.label_fraction alone, side by side."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.table import Table

from src.results.record import Record, as_number
from src.results.summary import Arm, comparisons, shared_settings
from src.results.svg import Series, line_chart

KEY = "data.label_fraction"


@dataclass(frozen=True)
class LabelCurve:
    """`lines`: for each mode and setting its arms by the share of labels, from few to all."""

    title: str
    lines: dict[str, dict[float, Arm]]

    @property
    def fractions(self) -> list[float]:
        return sorted({fraction for line in self.lines.values() for fraction in line})


def label_curves(records: Sequence[Record]) -> list[LabelCurve]:
    """A curve for each group of finished runs with two shares of labels or more."""
    found: dict[str, dict[str, dict[float, Arm]]] = defaultdict(lambda: defaultdict(dict))
    titles = {}
    for comparison in comparisons([record for record in records if record.finished]):
        settings = shared_settings(comparison.records[0])
        fraction = as_number(settings.pop(KEY, 1.0))
        if fraction is None or not 0 < fraction <= 1:
            continue
        group = repr((comparison.data, comparison.encoder, sorted(settings.items())))
        titles[group] = f"{comparison.encoder} on {comparison.data}"
        for arm in comparison.arms:
            if arm.scored:
                found[group][arm.label][fraction] = arm
    curves = [LabelCurve(titles[group], dict(lines)) for group, lines in found.items()]
    return [curve for curve in curves if len(curve.fractions) > 1]


def curve_table(curve: LabelCurve) -> Table:
    """Rows are modes, columns shares of labels, cells the accuracy in percent and its deviation over seeds."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False)
    table.add_column("labels")
    for fraction in curve.fractions:
        table.add_column(f"{100 * fraction:.4g} %", justify="right")
    for label, arms in curve.lines.items():
        table.add_row(label, *(_cell(arms.get(fraction)) for fraction in curve.fractions))
    return table


def _cell(arm: Arm | None) -> str:
    if arm is None:
        return ""
    return f"{arm.accuracy:.2f}" + (f" ± {arm.deviation:.2f}" if arm.deviation is not None else "")


def curve_chart(curve: LabelCurve) -> str:
    """The same as a chart for the page."""
    series = [
        Series(label, next(iter(arms.values())).mode, [(100 * f, arms[f].accuracy) for f in sorted(arms)])
        for label, arms in curve.lines.items()
    ]
    return line_chart(f"{curve.title}: few labels", series, x_label="% of the labels", y_label="accuracy in %")
