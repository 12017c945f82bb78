"""What the page can compare runs by: accuracy, and every other number of the records that says how good or how dear."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ssat.core.words import duration
from ssat.results.comparisons import Arm
from ssat.results.text import quantity, two_decimals
from ssat.runs.record import Record, as_number, lookup


@dataclass(frozen=True)
class Measure:
    """A number that arms are compared by.

    Attributes:
        title: as the page offers it.
        value: of a run; None where its record has none.
        show: the number as text.
        full: what a whole bar stands for; None = the largest value of the comparison.
    """

    title: str
    value: Callable[[Record], float | None]
    show: Callable[[float], str]
    full: float | None = None


@dataclass(frozen=True)
class MeasureBar:
    """One bar: an arm's mean over seeds and folds.

    Attributes:
        mode: gives the bar its colour.
        name: of the arm.
        percent: of the track that is filled.
        value: mean ± deviation as text.
    """

    mode: str
    name: str
    percent: float
    value: str


def of_metric(name: str, at: str = "last") -> Callable[[Record], float | None]:
    """The number `name` of the split that the accuracy is measured on."""
    return lambda record: record.number(f"metrics.{record.split}.{name}.{at}")


def _of_record(key: str, times: float = 1) -> Callable[[Record], float | None]:
    def value(record: Record) -> float | None:
        number = record.number(key)
        return None if number is None else number * times

    return value


def _of_classes(name: str) -> Callable[[Record], float | None]:
    """A number of the last phase's classification, which only runs on images have."""
    return lambda record: as_number(lookup(record.phases[-1], f"classification.{name}")) if record.phases else None


def _percent(value: float) -> str:
    return f"{two_decimals(value)} %"


MEASURES = (
    Measure("best accuracy of any epoch", of_metric("acc1", "best"), _percent, 100),
    Measure("top-5 accuracy", of_metric("acc5"), _percent, 100),
    Measure("balanced accuracy", of_metric("balanced_acc"), _percent, 100),
    Measure("macro F1", of_metric("macro_f1"), _percent, 100),
    Measure("AUROC", of_metric("auroc"), "{:.4f}".format, 1),
    Measure("AUC", of_metric("auc"), "{:.4f}".format, 1),
    Measure("average precision (AP)", _of_classes("ap"), "{:.4f}".format, 1),
    Measure("calibration error (ECE, lower is better)", _of_classes("ece"), "{:.4f}".format),
    Measure("loss on the evaluated images", of_metric("loss"), "{:.4f}".format),
    Measure("training time", _of_record("seconds"), duration),
    Measure("energy", _of_record("energy.kwh", 1000), lambda value: quantity(value, "Wh")),
    Measure("parameters of inference", _of_record("params.inference"), lambda value: quantity(value, "")),
    Measure("MACs of a training step's passes", _of_record("macs.both"), lambda value: quantity(value, "")),
)


def measured(arms: Sequence[Arm]) -> dict[str, list[MeasureBar]]:
    """The bars of every measure that a run of these arms has; an arm without it has no bar."""
    found = {measure.title: _bars(measure, arms) for measure in MEASURES}
    return {title: bars for title, bars in found.items() if bars}


def _bars(measure: Measure, arms: Sequence[Arm]) -> list[MeasureBar]:
    values = [(arm, numbers) for arm in arms if (numbers := _by_seed(measure, arm))]
    means = {id(arm): statistics.fmean(numbers) for arm, numbers in values}
    full = measure.full or max([abs(mean) for mean in means.values()], default=0) or 1
    bars = []
    for arm, numbers in values:
        mean = means[id(arm)]
        deviation = f" ± {measure.show(statistics.stdev(numbers))}" if len(set(numbers)) > 1 else ""
        bars.append(
            MeasureBar(arm.mode, arm.name, min(max(100 * mean / full, 0), 100), f"{measure.show(mean)}{deviation}")
        )
    return bars


def _by_seed(measure: Measure, arm: Arm) -> list[float]:
    """A number for each seed and fold; of several runs of one the mean, as for the accuracy."""
    of_seeds = [[measure.value(record) for record in each.records] for each in arm.seeds]
    known = [[number for number in numbers if number is not None] for numbers in of_seeds]
    return [statistics.fmean(numbers) for numbers in known if numbers]
