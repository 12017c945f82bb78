"""Accuracy against the number of labels, from runs that differ in data.label_fraction alone, and with more labels."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.table import Table

from ssat.results.comparisons import Arm, Comparison, same_but_for, shared_settings
from ssat.results.content import LABELS, labelled_images
from ssat.results.extrapolation import COVERED, NOMINAL, Point, extrapolate
from ssat.results.series import Series
from ssat.runs.record import Record, as_number

FURTHER = {"twice": 2, "five times": 5}  # the labels of the largest share
DRAWN = (1.0, 1.25, 1.5, 2.0)  # times that share, in a chart: with more the measured points would have no room


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
    def rows(self) -> list[tuple[str, str, list[str]]]:
        """For each line its name, its mode, and by `fractions` the accuracy in percent ± deviation over seeds."""
        return [
            (name, next(iter(arms.values())).mode, [_shown(arms.get(fraction)) for fraction in self.fractions])
            for name, arms in self.lines.items()
        ]

    @property
    def series(self) -> list[Series]:
        """The lines for a chart, percent of the labels and accuracy in percent, each with its extrapolation."""
        measured = [
            Series(name, next(iter(arms.values())).mode, [(100 * f, arms[f].accuracy) for f in sorted(arms)])
            for name, arms in self.lines.items()
        ]
        return measured + [ahead for line in measured if (ahead := self._ahead(line))]

    def _ahead(self, line: Series) -> Series | None:
        """The extrapolation of a line up to twice the largest share; None where there are too few points."""
        try:
            found = extrapolate(_points(self.lines[line.name]), [each * self.fractions[-1] for each in DRAWN])
        except ValueError:
            return None
        points = [(100 * each.labels, each.accuracy) for each in found]
        band = [(100 * each.labels, each.low, each.high) for each in found]
        return Series(f"{line.name}, extrapolated", line.mode, points, band=band)


def label_curves(records: Sequence[Record]) -> list[LabelCurve]:
    """A curve for each group of finished runs with two shares of the labels or more."""
    curves = [_curve(group) for group in same_but_for((LABELS,), records)]
    return [curve for curve in curves if len(curve.fractions) > 1]


def _curve(group: Sequence[Comparison]) -> LabelCurve:
    lines: dict[str, dict[float, Arm]] = defaultdict(dict)
    for comparison in group:
        fraction = as_number(shared_settings(comparison.records[0]).get(LABELS, 1.0))
        if fraction is None or not 0 < fraction <= 1:
            continue
        for arm in filter(lambda arm: arm.scored, comparison.arms):
            lines[arm.name][fraction] = arm
    return LabelCurve(f"{group[0].encoder} on {group[0].data}", dict(lines))


def next_labels(curve: LabelCurve) -> list[str]:
    """What the next labels are worth: a sentence for twice and five times the largest share, and why a line is missing.

    A sentence has the accuracy of one further run in each mode, with its interval.
    """
    share, forecasts, missing = curve.fractions[-1], {}, []
    for name, arms in curve.lines.items():
        try:
            forecasts[name] = extrapolate(_points(arms), [share * times for times in FURTHER.values()])
        except ValueError as reason:
            missing.append(f"{name} is not extrapolated: {reason}")
    lines = [
        f"With {word} the labels ({_counted(curve, share, times)}): "
        + ", ".join(f"{name} {found[place]}" for name, found in forecasts.items())
        for place, (word, times) in enumerate(FURTHER.items())
        if forecasts
    ]
    told = f"In brackets: the {NOMINAL} % interval of one further run, by four laws of learning curves; {COVERED}"
    return lines + [told] * bool(lines) + missing


def _points(arms: dict[float, Arm]) -> list[Point]:
    return [Point(fraction, arm.accuracies, arm.images) for fraction, arm in arms.items()]


def _counted(curve: LabelCurve, share: float, times: int) -> str:
    """'2 x 1,437, more than the training set has', or the share where the number of labels is not known."""
    numbers = [
        labelled_images(record) for arms in curve.lines.values() if share in arms for record in arms[share].scored
    ]
    known = next((number for number in numbers if number), None)
    labels = f"{100 * share:.4g} %" if known is None else f"{known:,.0f}"
    return f"{times} x {labels}" + ", more than the training set has" * (share * times > 1)


def curve_table(curve: LabelCurve) -> Table:
    """`curve.rows` for the terminal, columns are shares of the labels."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False)
    table.add_column("labels")
    for fraction in curve.fractions:
        table.add_column(f"{100 * fraction:.4g} %", justify="right")
    for name, _, entries in curve.rows:
        table.add_row(name, *entries)
    return table


def _shown(arm: Arm | None) -> str:
    if arm is None:
        return ""
    return f"{arm.accuracy:.2f}" + (f" ± {arm.deviation:.2f}" if arm.deviation is not None else "")
