"""One comparison on the page: what it shows, accuracy bars, training curves, reconstructions."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from ssat.core.words import duration
from ssat.results.comparisons import CAVEAT, Arm, Comparison, arm_difference, finding
from ssat.results.content import counted, is_of_videos
from ssat.results.epochs import epochs_of_all
from ssat.results.modes import mode_name
from ssat.results.page.budget import ACCURACY, BUDGETS, budget_sentence, history_split, metric_points
from ssat.results.page.charts import legend, line_chart
from ssat.results.page.classes import ClassCounts, class_counts, confusion_picture
from ssat.results.page.embeddings import embedding_maps
from ssat.results.page.measures import MeasureBar, measured
from ssat.results.page.pictures import Picture, data_address
from ssat.results.page.space import PageSpace
from ssat.results.series import Series
from ssat.results.text import quantity, with_minus
from ssat.runs.record import Record, as_number
from ssat.runs.spectrum import FLOOR, read_spectra

ROWS = "Rows from top to bottom: original, masked, reconstructed."
ROWS_OF_CLIPS = "Three rows for each clip: original, masked, reconstructed. Frames from left to right over time."
SPLIT_NAMES = {"train": "training", "val": "validation", "test": "test"}


@dataclass(frozen=True)
class AccuracyBar:
    """One bar: the accuracy of an arm.

    Attributes:
        mode: gives the bar its colour.
        name: of the arm.
        accuracy: in percent.
        interval: its 95 % interval in percent; None where it is unknown.
        value: the accuracy ± deviation over seeds and folds as text.
        note: difference to scratch, time and energy.
    """

    mode: str
    name: str
    accuracy: float
    interval: tuple[float, float] | None
    value: str
    note: str


@dataclass(frozen=True)
class ComparisonPanel:
    """What templates/comparison.html shows.

    Attributes:
        title: encoder, data set and what sets the comparison apart.
        facts: images, classes, epochs and recipe.
        finding: what it shows.
        caveat: what to keep in mind; may be empty.
        repeats: seeds with several runs, and their folders.
        bars: the arms with an accuracy.
        measured: the arms by every other number of their records, by its title.
        counts: the images of each class; None where the records lack them.
        confusions: a confusion matrix for each arm.
        is_open: whether curves and pictures are unfolded at first.
        is_without_room: whether the curves are left out because the page is full.
        equal_budget: the arms at the time and energy of the cheapest; may be empty.
        legend: of the charts.
        charts: the training curves.
        rows: what the rows of the pictures are.
        pictures: the reconstructions.
        maps: of the features.
    """

    title: str
    facts: str
    finding: str
    caveat: str
    repeats: list[str]
    bars: list[AccuracyBar]
    measured: dict[str, list[MeasureBar]]
    counts: ClassCounts | None
    confusions: list[Picture]
    is_open: bool
    is_without_room: bool
    equal_budget: str
    legend: Markup
    charts: list[Markup]
    rows: str
    pictures: list[Picture]
    maps: list[Picture]


def comparison_panel(comparison: Comparison, space: PageSpace, *, is_open: bool) -> ComparisonPanel:
    """What the page shows of runs that may be compared; charts and pictures are taken off `space`."""
    has_room = space.charts > 0
    charts = [chart for chart in _charts(comparison, space.points) if chart] if has_room else []
    space.charts -= sum(map(len, charts))
    sentences = [budget_sentence(comparison, across) for across in BUDGETS] if charts else []
    found, keep_in_mind, caveat = finding(comparison.records).partition(CAVEAT)
    return ComparisonPanel(
        title=comparison.title,
        facts=" · ".join(_facts(comparison)),
        finding=found,
        caveat=keep_in_mind + caveat,
        repeats=[line for arm in comparison.arms for line in _repeats(arm)],
        bars=[_bar(arm, comparison) for arm in comparison.arms if arm.scored],
        measured=measured(comparison.arms),
        counts=class_counts(comparison.records[-1]),
        confusions=[made for arm in comparison.arms if (made := confusion_picture(arm, space))],
        is_open=is_open,
        is_without_room=not has_room,
        equal_budget=" ".join(filter(None, sentences)),
        legend=legend({mode_name(arm.mode): arm.mode for arm in comparison.arms}),
        charts=charts,
        rows=ROWS_OF_CLIPS if is_of_videos(comparison.records[0]) else ROWS,
        pictures=[
            picture for arm in comparison.arms for record in arm.records if (picture := _picture(arm, record, space))
        ],
        maps=[
            picture
            for arm in comparison.arms
            for record in arm.records
            for picture in embedding_maps(record, _run_name(arm, record), space)
        ],
    )


def _facts(comparison: Comparison) -> Iterator[str]:
    record = comparison.records[0]
    noun = counted([record])
    splits = record.get("data_fingerprint.splits")
    folds = max(comparison.arms, key=lambda arm: len(arm.folds))
    for name, value in splits.items() if isinstance(splits, dict) else ():
        count, in_folds = as_number(value), ""
        if len(folds.folds) > 1:
            tested = name == record.split
            count = folds.images if tested else count
            in_folds = f" of {len(folds.folds)} folds" if tested else " in each"
        if count is not None:
            yield f"{count:,.0f} {SPLIT_NAMES.get(name, name)} {noun}{in_folds}"
    if record.classes:
        yield f"{record.classes} {'labels' if record.multi_label else 'classes'}"
    if epochs := epochs_of_all([(arm.name, each) for arm in comparison.arms for each in arm.records]):
        yield epochs
    if (batch := record.number("config.recipe.batch_size")) is not None:
        yield f"batch {batch:.0f}"
    if record.get("config.recipe.name"):
        yield f"recipe {record.text('config.recipe.name')}"


def _repeats(arm: Arm) -> Iterator[str]:
    """The seeds with several runs, and the folders of these in the same order."""
    for each in arm.seeds:
        if each.said:
            folders = ", ".join(f"{record.group}/{record.folder.name}" for record in each.records)
            yield f"{arm.name}, {each.said} ({folders})"


def _bar(arm: Arm, comparison: Comparison) -> AccuracyBar:
    scratch = comparison.scored_arms("scratch")
    notes = [arm.said_runs] if len(arm.accuracies) > 1 else []
    if len(scratch) == 1 and arm is not scratch[0]:
        notes.append(with_minus(f"{arm_difference(arm, scratch[0]).points:+.1f} points to scratch"))
    seconds, kwh = arm.mean("seconds"), arm.mean("energy.kwh")
    notes += [duration(seconds)] if seconds is not None else []
    notes += [quantity(kwh * 1000, "Wh")] if kwh is not None else []
    deviation = "" if arm.deviation is None else f" ± {arm.deviation:.2f}"
    value = f"{arm.accuracy:.2f}{deviation} %"
    return AccuracyBar(arm.mode, arm.name, arm.accuracy, arm.interval, value, " · ".join(notes))


def _charts(comparison: Comparison, most_points: int) -> Iterator[Markup]:
    names = {"test": "Test accuracy", "val": "Validation accuracy"}
    name = " and ".join(names[split] for split in sorted({history_split(record) for record in comparison.records}))
    runs = [(arm, record) for arm in comparison.arms for record in arm.records]

    def chart(title: str, metric: str, across: str, x_label: str, y_label: str, *, whole: bool = True) -> Markup:
        series = [
            Series(_run_name(arm, record), arm.mode, list(metric_points(record, metric, across)))
            for arm, record in runs
        ]
        if all(len(line.points) < 2 for line in series):
            return Markup()
        return line_chart(title, series, x_label=x_label, y_label=y_label, whole=whole, most_points=most_points)

    yield chart(f"{name} by epoch", ACCURACY, "epoch", "epoch with labels", "%")
    yield chart(f"{name.replace('accuracy', 'mAP')} by epoch", "{split}/map", "epoch", "epoch with labels", "mAP")
    yield chart(f"{name} by time", ACCURACY, "seconds", "device seconds since the start, all phases", "%")
    yield chart(f"{name} by energy", ACCURACY, "wh", "Wh since the start, all phases", "%", whole=False)
    yield chart("Effective rank of the features (RankMe)", "{split}/rankme", "epoch", "epoch", "RankMe")
    yield _spectra(runs, most_points)
    yield chart("Classification loss", "train/loss_cls", "epoch", "epoch", "training")
    yield chart("Auxiliary loss", "train/loss_ssl", "epoch", "epoch", "training")


def _spectra(runs: Sequence[tuple[Arm, Record]], most_points: int) -> Markup:
    """The spectrum of each run's features at the last epoch of its last phase that has one."""
    series = []
    for arm, record in runs:
        names = [Path(str(phase.get("name"))).name for phase in record.phases]  # a record may name a path
        found = [read_spectra(record.folder / name) for name in names]
        last = next((spectra[max(spectra)] for spectra in reversed(found) if spectra), [])
        points = [(float(n), math.log10(max(value, FLOOR))) for n, value in enumerate(last, start=1)]
        series.append(Series(_run_name(arm, record), arm.mode, points))
    x_label, y_label = "number of the singular value", "log10 of its share of their sum"
    return line_chart("Spectrum of the features", series, x_label=x_label, y_label=y_label, most_points=most_points)


def _run_name(arm: Arm, record: Record) -> str:
    """The arm's name, with the seed and the folder as far as they are needed to tell its runs apart."""
    seed = f", seed {record.text('seed')}" if len(arm.records) > 1 else ""
    seed += "" if record.fold is None else f", fold {record.fold}"
    same = [(each.get("seed"), each.fold) == (record.get("seed"), record.fold) for each in arm.records]
    is_repeated = sum(same) > 1
    return arm.name + seed + (f", {record.group}/{record.folder.name}" if is_repeated else "")


def _picture(arm: Arm, record: Record, space: PageSpace) -> Picture | None:
    """The last reconstruction of a run, with its phase and epoch; None where there is none."""
    listed = [(phase, phase.get("reconstructions")) for phase in record.phases]
    named = [(phase, path) for phase, paths in listed if isinstance(paths, list) for path in paths if path]
    if not named:
        return None
    phase, path = named[-1]
    epoch = "".join(filter(str.isdigit, Path(str(path)).stem)).lstrip("0")
    where = f"{_run_name(arm, record)}, {phase.get('name')}" + (f" after epoch {epoch}" if epoch else "")
    source = data_address(record.folder, str(path), space)
    caption = where if source else f"{where}: see {record.folder.name}/{path}"
    what = "frames of clips" if is_of_videos(record) else "images"
    return Picture(caption, f"Original, masked and reconstructed {what}, {where}", source)
