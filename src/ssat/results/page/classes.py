"""How many images each class of a run's data has, and the picture of what was taken for what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ssat.results.comparisons import Arm
from ssat.results.page.pictures import Picture, data_address
from ssat.results.page.space import PageSpace
from ssat.runs.record import Record, as_number, lookup

MOST_CLASSES = 24  # of more, those with the most and with the fewest training images are shown
CONFUSION = "confusion.png"  # in the folder of a phase
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class ClassBar:
    """The images of one class in one split; `percent` of the track is filled."""

    split: str
    count: int
    percent: float


@dataclass(frozen=True)
class ClassCounts:
    """What the page shows of the classes' sizes.

    Attributes:
        splits: of the data, in the order of the bars.
        classes: a bar for each split, by class.
        left_out: classes that are not shown.
        of: which part of a cross-validation is counted, as a sentence; empty where it is none.
    """

    splits: list[str]
    classes: dict[str, list[ClassBar]]
    left_out: int
    of: str = ""


def class_counts(record: Record) -> ClassCounts | None:
    """The images of each class as the run's last phase has counted them; None where the record has no counts."""
    counts = lookup(record.phases[-1], "data_check.counts") if record.phases else None
    by_split = {split: _whole(counts[split]) for split in SPLITS if isinstance(counts, dict) and split in counts}
    by_split = {split: found for split, found in by_split.items() if found}
    if not by_split:
        return None
    first = next(iter(by_split.values()))
    names = list(dict.fromkeys(name for found in by_split.values() for name in found))
    shown = names
    if len(names) > MOST_CLASSES:
        ranked = sorted(names, key=lambda name: -first.get(name, 0))
        shown = ranked[: MOST_CLASSES // 2] + ranked[-MOST_CLASSES // 2 :]
    largest = max(max(found.values()) for found in by_split.values()) or 1
    bars = {
        name: [ClassBar(split, n := found.get(name, 0), 100 * n / largest) for split, found in by_split.items()]
        for name in shown
    }
    return ClassCounts(list(by_split), bars, len(names) - len(shown), _of_fold(record))


def _of_fold(record: Record) -> str:
    if record.fold is None:
        return ""
    folds = record.text("config.data.folds")
    return f"Counted are the images of fold {record.fold} of {folds} folds; each fold tests other images."


def _whole(counts: object) -> dict[str, int]:
    if not isinstance(counts, Mapping):
        return {}
    numbers = {str(name): as_number(count) for name, count in counts.items()}
    return {name: int(number) for name, number in numbers.items() if number is not None and number >= 0}


def confusion_picture(arm: Arm, space: PageSpace) -> Picture | None:
    """The confusion matrix of the arm's first run; None where it has drawn none or the page has no room for it."""
    for record in arm.scored:
        if record.phases and isinstance(name := record.phases[-1].get("name"), str):
            source = data_address(record.folder, f"{name}/{CONFUSION}", space)
            if source:
                one_of = "" if len(arm.records) < 2 else f", {arm.one_of(record)}"
                where = f"{arm.name}{one_of}, {record.group}/{record.folder.name}"
                return Picture(where, f"Confusion matrix of {where}: a row for each true class", source)
    return None
