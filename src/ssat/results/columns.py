"""The columns of the table of runs: what each shows, and which of them a narrow terminal keeps."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ssat.core.words import duration
from ssat.results.comparisons import Arm
from ssat.results.content import is_of_videos
from ssat.results.modes import mode_name
from ssat.results.text import quantity, two_decimals
from ssat.runs.class_counts import unequal_classes
from ssat.runs.decisive import decisive_name
from ssat.runs.faithful import is_of_the_paper
from ssat.runs.record import Record

DAGGER = "†"
NOTE = "note"  # the column of marks


class Entry(NamedTuple):
    """One place of the table: the text that it shows, and the number or word that it is sorted by."""

    text: str
    order: float | str | None = None


@dataclass(frozen=True)
class Column:
    """One column of the table.

    Attributes:
        title: its heading.
        drop_order: a narrow terminal drops the columns with the highest numbers first, those with 0 never.
        key: dotted key of the record; `{split}` stands for the split that the accuracy is measured on.
        show: the number at `key` as text.
        entry: replaces `key` and `show` for one run, where an entry is more than a number.
        with_deviation: whether the line of several seeds shows mean ± deviation.
        where: the runs that it is of; None = all.
        over_seeds: replaces the mean for the line of several seeds.
    """

    title: str
    drop_order: int
    key: str = ""
    show: Callable[[float], str] = str
    entry: Callable[[Record], Entry] | None = None
    with_deviation: bool = False
    where: Callable[[Record], bool] | None = None
    over_seeds: Callable[[Arm], Entry] | None = None

    @property
    def is_number(self) -> bool:
        """Whether it shows numbers, of which several seeds have a mean."""
        return bool(self.key)

    @property
    def is_right_aligned(self) -> bool:
        """Whether its texts stand at the right edge."""
        return self.is_number or self.title == "seed"

    def entry_of(self, record: Record) -> Entry:
        """What it shows for one run."""
        if self.where and not self.where(record):
            return Entry("")
        if self.entry:
            return self.entry(record)
        value = record.number(self.key.format(split=record.split))
        return Entry("" if value is None else self.show(value), value)

    def entry_over_seeds(self, arm: Arm) -> Entry:
        """What it shows for all seeds of a configuration: their mean, with the deviation where the column has one."""
        if self.over_seeds:
            return self.over_seeds(arm)
        numbers = arm.numbers(self.key)
        if len(numbers) < 2 or (self.where and not self.where(arm.repeats[0].records[0])):
            return Entry("")
        if self.entry and not self.with_deviation:
            return self.entry_of(arm.repeats[0].records[0])  # the same for every seed
        mean = statistics.fmean(numbers)
        deviation = f" ± {self.show(statistics.stdev(numbers))}" if self.with_deviation else ""
        return Entry(self.show(mean) + deviation, mean)


def _best(record: Record) -> Entry:
    name, show = ("map", _four_decimals) if record.multi_label else ("acc1", two_decimals)
    best, epoch = (record.number(f"metrics.{record.split}.{name}.{key}") for key in ("best", "best_epoch"))
    if best is None:
        return Entry("")
    return Entry(show(best) + ("" if epoch is None else f" (ep {epoch + 1:.0f})"), best)


def _four_decimals(value: float) -> str:
    return f"{value:.4f}"


def _decided_by(name: str) -> Callable[[Record], bool]:
    return lambda record: decisive_name(record.values) == name


def _parameters(record: Record) -> Entry:
    inference, training = record.number("params.inference"), record.number("params.training")
    if inference is None:
        return Entry("")
    both = f"{inference / 1e6:.2f}" + ("" if training is None else f" / {training / 1e6:.2f}")
    return Entry(both, inference)


def _marks(record: Record) -> Entry:
    if record.status != "finished":
        return Entry(record.status)
    return Entry(DAGGER if is_no_cell(record) else "")


def is_no_cell(record: Record) -> bool:
    """Whether a finished run of a data set of the paper is no cell of its tables; of other data nobody takes it so."""
    return record.finished and record.get("faithful") is False and is_of_the_paper(record.values)


def _run(record: Record) -> Entry:
    return Entry(f"{record.group}/{record.folder.name}")


def _mode(record: Record) -> Entry:
    return Entry(mode_name(record.mode), record.mode)


def _word(key: str) -> Callable[[Record], Entry]:
    return lambda record: Entry(record.text(key), record.text(key))


def _seed(record: Record) -> Entry:
    fold = "" if record.fold is None else f" fold {record.fold}"
    return Entry(record.text("seed") + fold, record.number("seed"))


def _needs_balance(record: Record) -> bool:
    """Whether its accuracy says too little: of videos, of classes of unequal sizes, and where the user says so."""
    decides = decisive_name(record.values) == "balanced_acc"
    return decides or is_of_videos(record) or unequal_classes(record.values, record.split)


def _measure(title: str, name: str, show: Callable[[float], str], *, only: bool = True) -> Column:
    """The column of a measure of the last epoch; `only` of runs whose best epoch it chooses."""
    where = _decided_by(name) if only else None
    key = f"metrics.{{split}}.{name}.last"
    return Column(title, 1, key=key, show=show, with_deviation=True, where=where)


# The measures that can decide, by the names that monitor.select has for them.
DECIDING = {
    "acc1": Column("acc1 %", 0, key="metrics.{split}.acc1.last", show=two_decimals, with_deviation=True),
    "balanced_acc": Column(
        "balanced %",
        2,
        key="metrics.{split}.balanced_acc.last",
        show=two_decimals,
        with_deviation=True,
        where=_needs_balance,
    ),
    "auc": _measure("AUC", "auc", _four_decimals, only=False),  # of videos, two classes
    "map": _measure("mAP", "map", _four_decimals, only=False),  # of several labels
    "macro_f1": _measure("macro F1 %", "macro_f1", two_decimals),
    "auroc": _measure("AUROC", "auroc", _four_decimals),
    "micro_f1": _measure("micro F1 %", "micro_f1", two_decimals),
    "exact_match": _measure("exact %", "exact_match", two_decimals),
    "hamming_acc": _measure("hamming %", "hamming_acc", two_decimals),
}
COLUMNS = (
    Column("run", 99, entry=_run),
    Column("mode", 0, entry=_mode),
    Column("data", 4, entry=_word("data")),
    Column("encoder", 3, entry=_word("encoder")),
    Column("setting", 1),
    Column("seed", 0, entry=_seed),
    *DECIDING.values(),
    Column("best (epoch)", 5, key="metrics.{split}.acc1.best", show=two_decimals, entry=_best, with_deviation=True),
    Column("time", 4, key="seconds", show=duration),
    Column("energy", 6, key="energy.kwh", show=lambda value: quantity(value * 1000, "Wh")),
    Column("CO2", 7, key="energy.co2_kg", show=lambda value: quantity(value * 1000, "g")),
    Column("images/s", 8, key="images_per_s", show=lambda value: f"{value:,.0f}"),
    Column("CO2 Lacoste", 9, key="energy.co2_kg_lacoste", show=lambda value: quantity(value * 1000, "g")),
    Column("params M", 10, key="params.inference", show=lambda value: f"{value / 1e6:.2f}", entry=_parameters),
    Column("MACs", 11, key="macs.both", show=lambda value: quantity(value, "")),
    Column("memory", 12, key="peak_memory_bytes", show=lambda value: quantity(value, "B")),
    Column(NOTE, 0, entry=_marks),
)


def deciding_column(record: Record) -> Column | None:
    """The column of the run's decisive measure; None where no labels are learned."""
    return DECIDING.get(decisive_name(record.values))


def deciding_titles(records: Sequence[Record]) -> list[str]:
    """The titles of the columns that decide over these runs, in the order of the table."""
    found = {column.title for record in records if record.finished and (column := deciding_column(record))}
    return [column.title for column in DECIDING.values() if column.title in found]


def _result(record: Record) -> Entry:
    """The decisive measure as it stands in its own column, with its name: 0.9312 mAP."""
    column = deciding_column(record)
    return Entry("") if column is None else _named(column, column.entry_of(record))


def _mean_result(arm: Arm) -> Entry:
    column = deciding_column(arm.repeats[0].records[0])
    return Entry("") if column is None else _named(column, column.entry_over_seeds(arm))


def _named(column: Column, entry: Entry) -> Entry:
    unit = "%" if column.title.endswith("%") else ""
    name = column.title.removesuffix("%").strip()
    return entry._replace(text=f"{entry.text}{unit and ' %'} {name}") if entry.text else entry


# In front of the columns that decide, where these are several ones: so that each run has its number at one place.
RESULT = Column("result", 0, entry=_result, over_seeds=_mean_result)
