"""Accuracy against the number of labels, from runs that differ in data.label_fraction alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.table import Table

from ssat.results.comparisons import Arm, Comparison, finished_comparisons, shared_settings
from ssat.results.series import Series
from ssat.runs.record import Record, as_number

KEY = "data.label_fraction"


@dataclass(frozen=True)
class LabelCurve:
    """Accuracy against the share of the labels, of one encoder on one data set.

    Attributes:
        title: encoder and data set.
        lines: for each mode and variant, its arms by the share of the labels, from few to all.
    """

    title: str
    lines: dict[str, dict[float, Arm]]

    @property
    def fractions(self) -> list[float]:
        """The shares of the labels that any line has."""
        return sorted({fraction for line in self.lines.values() for fraction in line})

    @property
    def series(self) -> list[Series]:
        """The lines for a chart: percent of the labels, accuracy in percent."""
        return [
            Series(name, next(iter(arms.values())).mode, [(100 * f, arms[f].accuracy) for f in sorted(arms)])
            for name, arms in self.lines.items()
        ]


def label_curves(records: Sequence[Record]) -> list[LabelCurve]:
    """A curve for each group of finished runs with two shares of the labels or more."""
    found: dict[str, dict[str, dict[float, Arm]]] = defaultdict(lambda: defaultdict(dict))
    titles = {}
    for comparison in finished_comparisons(records):
        group, fraction = _group_and_fraction(comparison)
        if fraction is None or not 0 < fraction <= 1:
            continue
        titles[group] = f"{comparison.encoder} on {comparison.data}"
        for arm in filter(lambda arm: arm.scored, comparison.arms):
            found[group][arm.name][fraction] = arm
    curves = [LabelCurve(titles[group], dict(lines)) for group, lines in found.items()]
    return [curve for curve in curves if len(curve.fractions) > 1]


def _group_and_fraction(comparison: Comparison) -> tuple[str, float | None]:
    """What the runs of one curve share, as a key; and the share of the labels."""
    settings = shared_settings(comparison.records[0])
    fraction = as_number(settings.pop(KEY, 1.0))
    return repr((comparison.data, comparison.encoder, sorted(settings.items()))), fraction


def curve_table(curve: LabelCurve) -> Table:
    """Rows are modes, columns are shares of the labels; an entry is the accuracy in percent ± deviation over seeds."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False)
    table.add_column("labels")
    for fraction in curve.fractions:
        table.add_column(f"{100 * fraction:.4g} %", justify="right")
    for name, arms in curve.lines.items():
        table.add_row(name, *(_shown(arms.get(fraction)) for fraction in curve.fractions))
    return table


def _shown(arm: Arm | None) -> str:
    if arm is None:
        return ""
    return f"{arm.accuracy:.2f}" + (f" ± {arm.deviation:.2f}" if arm.deviation is not None else "")
