"""The table of runs: one list of columns, shown on the terminal, as Markdown and in the HTML page."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from rich import box
from rich.cells import cell_len
from rich.markup import escape
from rich.table import Table

from ssat.core.words import duration
from ssat.results.comparisons import Arm, Comparison, comparisons
from ssat.results.content import is_of_videos, unit
from ssat.results.modes import mode_name
from ssat.results.text import markdown_text, quantity, two_decimals
from ssat.runs.class_counts import unequal_classes
from ssat.runs.record import Record

DAGGER = "†"


class Entry(NamedTuple):
    """One place of the table: the text that it shows, and the number or word that it is sorted by."""

    text: str
    order: float | str | None = None


@dataclass(frozen=True)
class Column:
    """One column of the table.

    Attributes:
        title: its heading; empty for the column of marks.
        drop_order: a narrow terminal drops the columns with the highest numbers first, those with 0 never.
        key: dotted key of the record; `{split}` stands for the split that the accuracy is measured on.
        show: the number at `key` as text.
        entry: replaces `key` and `show` for one run, where an entry is more than a number.
        with_deviation: whether the line of several seeds shows mean ± deviation.
        where: the runs that it is of; None = all.
    """

    title: str
    drop_order: int
    key: str = ""
    show: Callable[[float], str] = str
    entry: Callable[[Record], Entry] | None = None
    with_deviation: bool = False
    where: Callable[[Record], bool] | None = None

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
        numbers = arm.numbers(self.key)
        if len(numbers) < 2 or (self.where and not self.where(arm.scored[0])):
            return Entry("")
        if self.entry and not self.with_deviation:
            return self.entry_of(arm.scored[0])  # the same for every seed
        mean = statistics.fmean(numbers)
        deviation = f" ± {self.show(statistics.stdev(numbers))}" if self.with_deviation else ""
        return Entry(self.show(mean) + deviation, mean)


def _best(record: Record) -> Entry:
    best, epoch = (record.number(f"metrics.{record.split}.acc1.{key}") for key in ("best", "best_epoch"))
    if best is None:
        return Entry("")
    return Entry(two_decimals(best) + ("" if epoch is None else f" (ep {epoch + 1:.0f})"), best)


def _parameters(record: Record) -> Entry:
    inference, training = record.number("params.inference"), record.number("params.training")
    if inference is None:
        return Entry("")
    both = f"{inference / 1e6:.2f}" + ("" if training is None else f" / {training / 1e6:.2f}")
    return Entry(both, inference)


def _marks(record: Record) -> Entry:
    if record.status != "finished":
        return Entry(record.status)
    return Entry(DAGGER if record.get("faithful") is False else "")


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
    """Whether its accuracy says too little: of videos, and where the classes are of unequal sizes."""
    return is_of_videos(record) or unequal_classes(record.values, record.split)


COLUMNS = (
    Column("run", 99, entry=_run),
    Column("encoder", 3, entry=_word("encoder")),
    Column("data", 3, entry=_word("data")),
    Column("mode", 0, entry=_mode),
    Column("setting", 2),
    Column("seed", 1, entry=_seed),
    Column("acc1 %", 0, key="metrics.{split}.acc1.last", show=two_decimals, with_deviation=True),
    Column("best % (epoch)", 4, key="metrics.{split}.acc1.best", show=two_decimals, entry=_best, with_deviation=True),
    Column(
        "balanced %",
        2,
        key="metrics.{split}.balanced_acc.last",
        show=two_decimals,
        with_deviation=True,
        where=_needs_balance,
    ),
    Column(
        "AUC", 1, key="metrics.{split}.auc.last", show="{:.4f}".format, with_deviation=True
    ),  # of videos, two classes
    Column("mAP", 0, key="metrics.{split}.map.last", show="{:.4f}".format, with_deviation=True),  # of several labels
    Column("time", 1, key="seconds", show=duration),
    Column("images/s", 7, key="images_per_s", show="{:,.0f}".format),
    Column("params M", 5, key="params.inference", show=lambda value: f"{value / 1e6:.2f}", entry=_parameters),
    Column("MACs", 8, key="macs.both", show=lambda value: quantity(value, "")),
    Column("energy", 6, key="energy.kwh", show=lambda value: quantity(value * 1000, "Wh")),
    Column("CO2", 6, key="energy.co2_kg", show=lambda value: quantity(value * 1000, "g")),
    Column("CO2 Lacoste", 9, key="energy.co2_kg_lacoste", show=lambda value: quantity(value * 1000, "g")),
    Column("memory", 10, key="peak_memory_bytes", show=lambda value: quantity(value, "B")),
    Column("", 0, entry=_marks),
)


def heading(column: Column, records: Sequence[Record]) -> str:
    """The column's title over these runs: of videos clips/s."""
    return column.title.replace("images", unit(records))


def legend(records: Sequence[Record]) -> str:
    """What the headings mean."""
    one = " or ".join(f"one {each.removesuffix('s')}'s" for each in unit(records).split(" or "))
    videos = "balanced and AUC: of the last epoch, docs/video_metrics.md; " if any(map(is_of_videos, records)) else ""
    if not videos and any(map(_needs_balance, records)):
        videos = "balanced: mean of the classes' accuracies, where their sizes differ; "
    if any(record.multi_label for record in records):
        videos += "mAP: mean average precision over the labels, of the last epoch; "
    return (
        f"acc1: top-1 accuracy of the last epoch; best: the highest epoch's; {videos}params: inference / training; "
        f"MACs: {one} forward passes in training"
    )


class Row(NamedTuple):
    """One line: a run, or the mean over a configuration's seeds (`record` is None)."""

    entries: list[Entry]
    record: Record | None
    starts_section: bool


def table_rows(records: Sequence[Record], columns: Sequence[Column] = COLUMNS) -> Iterator[Row]:
    """A row for each run; a section holds runs that may be compared; a configuration's mean follows its seeds."""
    for comparison in comparisons(records):
        rows = [row for arm in comparison.arms for row in _arm_rows(arm, comparison, columns)]
        yield from (row._replace(starts_section=index == 0) for index, row in enumerate(rows))


def _arm_rows(arm: Arm, comparison: Comparison, columns: Sequence[Column]) -> Iterator[Row]:
    setting = ", ".join(filter(None, (comparison.variant, arm.variant)))
    for record in arm.records:
        yield Row([Entry(setting) if c.title == "setting" else c.entry_of(record) for c in columns], record, False)
    if len(arm.accuracies) > 1:
        first = arm.records[0]
        words = {"mode": mode_name(arm.mode), "seed": _count(arm), "setting": setting}
        words |= {"encoder": first.encoder, "data": first.data, "": "mean"}
        means = [Entry(words[c.title]) if c.title in words else c.entry_over_seeds(arm) for c in columns]
        yield Row(means, None, False)


def _count(arm: Arm) -> str:
    """×3 of seeds, ×5 folds of a cross-validation."""
    return f"×{len(arm.accuracies)}" + " folds" * (arm.seeds[0].fold is not None)


def shared_columns(records: Sequence[Record]) -> dict[str, str]:
    """The encoder and the data set, where all runs share them: the title names them, and no column does."""
    values = {title: {getattr(record, title) for record in records} for title in ("encoder", "data")}
    return {title: found.pop() for title, found in values.items() if len(found) == 1}


def shared_title(shared: dict[str, str]) -> str:
    """'vit_t on cifar10', 'data: cifar10' or nothing."""
    return " on ".join(shared.values()) if len(shared) == 2 else "".join(f"{k}: {v}" for k, v in shared.items())


def runs_table(records: Sequence[Record], *, width: int = 100) -> Table:
    """The runs as a table of at most `width` characters; columns that do not fit are left out.

    An encoder or data set that all runs share stands in the title instead.
    """
    rows = list(table_rows(records))
    shared = shared_columns(records)
    kept = _fitting(rows, width, without=("run", *shared))
    title = escape(shared_title(shared)) or None
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    table.padding = (0, 1, 0, 0)
    table.show_edge = False
    for index in kept:
        column = COLUMNS[index]
        table.add_column(heading(column, records), justify="right" if column.is_right_aligned else "left", no_wrap=True)
    if any(record.finished and record.get("faithful") is False for record in records):
        table.caption = f"{DAGGER} not to be read as a cell of the paper; the page says why"
        table.caption_justify = "left"
    for number, row in enumerate(rows):
        if row.starts_section and number:
            table.add_section()
        style = "italic" if row.record is None else "red" if row.record.status == "failed" else None
        table.add_row(*(escape(row.entries[index].text) for index in kept), style=style)
    return table


def _fitting(rows: list[Row], width: int, *, without: tuple[str, ...]) -> list[int]:
    """The columns that fit into `width`; an empty one is left out."""
    widths = {}
    for index, column in enumerate(COLUMNS):
        longest = max((cell_len(row.entries[index].text) for row in rows), default=0)
        if longest and column.title not in without:
            widths[index] = max(longest, cell_len(column.title)) + 2
    kept, used = [], 0
    for index in sorted(widths, key=lambda index: COLUMNS[index].drop_order):
        if used + widths[index] <= width or COLUMNS[index].drop_order == 0:
            kept.append(index)
            used += widths[index]
    return sorted(kept)


def to_markdown(records: Sequence[Record]) -> str:
    """Every run and column as a Markdown table."""
    titles = [heading(column, records) or "note" for column in COLUMNS]
    rule = ["---:" if column.is_number else "---" for column in COLUMNS]
    body = [[markdown_text(entry.text) for entry in row.entries] for row in table_rows(records)]
    return "\n".join("| " + " | ".join(texts) + " |" for texts in (titles, rule, *body)) + "\n"
