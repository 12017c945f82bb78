"""The table of runs: one list of columns, shown in the terminal, as Markdown and in the HTML page."""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from rich import box
from rich.cells import cell_len
from rich.markup import escape
from rich.table import Table

from src.results.record import Record
from src.results.summary import Arm, comparisons, label

DAGGER = "†"


def duration(seconds: float) -> str:
    """Seconds as 8.2 s, 2m05s or 3h07m."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}m{rest:02d}s" if minutes < 60 else f"{minutes // 60}h{minutes % 60:02d}m"


def quantity(value: float, unit: str) -> str:
    """Three digits with the fitting prefix: 0.0000404 kWh is 40.4 mWh."""
    prefixes = ((1e9, "G"), (1e6, "M"), (1e3, "k"), (0.1, ""))
    least, prefix = next(((least, p) for least, p in prefixes if abs(value) >= least * 0.9995), (1e-3, "m"))
    factor = least if prefix else 1.0
    return f"{value / factor:#.3g}".rstrip(".") + f" {prefix}{unit}"


def percent(value: float) -> str:
    return f"{value:.2f}"


def markdown_text(text: str) -> str:
    """Text that a Markdown table shows as it is."""
    return re.sub(r"([\\|<*`])", r"\\\1", " ".join(text.splitlines()))


class Cell(NamedTuple):
    """What a cell shows and the number or word that it sorts by."""

    text: str
    order: float | str | None = None


@dataclass(frozen=True)
class Column:
    """`key` is a dotted key of the record and `show` its number as text; `cell` replaces both where a cell is more."""

    title: str
    importance: int  # a narrow terminal drops the highest first
    key: str = ""
    show: Callable[[float], str] = str
    cell: Callable[[Record], Cell] | None = None
    spread: bool = False  # the line of several seeds shows mean ± deviation

    @property
    def is_number(self) -> bool:
        return bool(self.key)

    def of(self, record: Record) -> Cell:
        if self.cell:
            return self.cell(record)
        value = record.number(self.key.format(split=record.split))
        return Cell("" if value is None else self.show(value), value)

    def over_seeds(self, arm: Arm) -> Cell:
        """Mean over the seeds, with the deviation where the column asks for it."""
        numbers = [v for r in arm.scored if (v := r.number(self.key.format(split=r.split))) is not None]
        if len(numbers) < 2:
            return Cell("")
        if self.cell and not self.spread:
            return self.of(arm.scored[0])  # the same for every seed
        mean = statistics.fmean(numbers)
        return Cell(self.show(mean) + (f" ± {statistics.stdev(numbers):.2f}" if self.spread else ""), mean)


def _best(record: Record) -> Cell:
    best, epoch = (record.number(f"metrics.{record.split}.acc1.{key}") for key in ("best", "best_epoch"))
    if best is None:
        return Cell("")
    return Cell(percent(best) + ("" if epoch is None else f" (ep {epoch + 1:.0f})"), best)


def _parameters(record: Record) -> Cell:
    inference, training = record.number("params.inference"), record.number("params.training")
    if inference is None:
        return Cell("")
    both = f"{inference / 1e6:.2f}" + ("" if training is None else f" / {training / 1e6:.2f}")
    return Cell(both, inference)


def _notes(record: Record) -> Cell:
    if record.status != "finished":
        return Cell(record.status)
    return Cell(DAGGER if record.get("faithful") is False else "")


def _run(record: Record) -> Cell:
    return Cell(f"{record.group}/{record.folder.name}")


def _word(key: str) -> Callable[[Record], Cell]:
    return lambda record: Cell(record.text(key), record.text(key))


def _seed(record: Record) -> Cell:
    return Cell(record.text("seed"), record.number("seed"))


COLUMNS = (
    Column("run", 99, cell=_run),
    Column("encoder", 3, cell=_word("encoder")),
    Column("data", 3, cell=_word("data")),
    Column("mode", 0, cell=lambda record: Cell(label(record.mode), record.mode)),
    Column("setting", 2),
    Column("seed", 1, cell=_seed),
    Column("acc1 %", 0, key="metrics.{split}.acc1.last", show=percent, spread=True),
    Column("best % (epoch)", 4, key="metrics.{split}.acc1.best", show=percent, cell=_best, spread=True),
    Column("time", 1, key="seconds", show=duration),
    Column("images/s", 7, key="images_per_s", show="{:,.0f}".format),
    Column("params M", 5, key="params.inference", show=lambda value: f"{value / 1e6:.2f}", cell=_parameters),
    Column("MACs", 8, key="macs.both", show=lambda value: quantity(value, "")),
    Column("energy", 6, key="energy.kwh", show=lambda value: quantity(value * 1000, "Wh")),
    Column("CO2", 6, key="energy.co2_kg", show=lambda value: quantity(value * 1000, "g")),
    Column("CO2 Lacoste", 9, key="energy.co2_kg_lacoste", show=lambda value: quantity(value * 1000, "g")),
    Column("memory", 10, key="peak_memory_bytes", show=lambda value: quantity(value, "B")),
    Column("", 0, cell=_notes),
)
LEGEND = (
    "acc1: top-1 accuracy of the last epoch; best: the highest epoch's; params: inference / training; "
    "MACs: one image's forward passes in training"
)


class Row(NamedTuple):
    """One line: a run, or the mean of a configuration's seeds (`record` is None)."""

    cells: list[Cell]
    record: Record | None
    starts_section: bool


def rows(records: Sequence[Record], columns: Sequence[Column] = COLUMNS) -> Iterator[Row]:
    """A row for each record, sectioned by what may be compared, each configuration's seeds followed by their mean."""
    for comparison in comparisons(records):
        starts = True
        for arm in comparison.arms:
            setting = Cell(", ".join(filter(None, (comparison.variant, arm.variant))))
            for record in arm.records:
                yield Row([setting if c.title == "setting" else c.of(record) for c in columns], record, starts)
                starts = False
            if len(arm.accuracies) > 1:
                first = arm.records[0]
                words = {"mode": label(arm.mode), "seed": f"×{len(arm.accuracies)}", "setting": setting.text}
                words |= {"encoder": first.encoder, "data": first.data, "": "mean"}
                cells = [Cell(words[c.title]) if c.title in words else c.over_seeds(arm) for c in columns]
                yield Row(cells, None, False)


def common(records: Sequence[Record]) -> dict[str, str]:
    """The encoder and the data set that all runs share: they need no column."""
    values = {title: {getattr(record, title) for record in records} for title in ("encoder", "data")}
    return {title: found.pop() for title, found in values.items() if len(found) == 1}


def common_title(shared: dict[str, str]) -> str:
    """'vit_t on cifar10', 'data: cifar10' or nothing."""
    return " on ".join(shared.values()) if len(shared) == 2 else "".join(f"{k}: {v}" for k, v in shared.items())


def runs_table(records: Sequence[Record], *, width: int = 100) -> Table:
    """The runs as a table of at most `width` characters; where they do not fit, the less important columns go.

    An encoder or data set that all runs share stands in the title instead.
    """
    lines = list(rows(records))
    shared = common(records)
    kept = _fitting(lines, width, without=("run", *shared))
    title = common_title(shared)
    table = Table(title=escape(title) or None, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    table.padding = (0, 1, 0, 0)
    table.show_edge = False
    for index in kept:
        column = COLUMNS[index]
        table.add_column(
            column.title, justify="right" if column.is_number or column.title == "seed" else "left", no_wrap=True
        )
    if any(record.finished and record.get("faithful") is False for record in records):
        table.caption = f"{DAGGER} not to be read as a cell of the paper; the page says why"
        table.caption_justify = "left"
    for number, row in enumerate(lines):
        if row.starts_section and number:
            table.add_section()
        style = "italic" if row.record is None else "red" if row.record.status == "failed" else None
        table.add_row(*(escape(row.cells[index].text) for index in kept), style=style)
    return table


def _fitting(lines: list[Row], width: int, *, without: tuple[str, ...]) -> list[int]:
    """The columns that fit into `width`, the most important first; a column with nothing in it is left out."""
    widths = {}
    for index, column in enumerate(COLUMNS):
        longest = max((cell_len(line.cells[index].text) for line in lines), default=0)
        if longest and column.title not in without:
            widths[index] = max(longest, cell_len(column.title)) + 2
    kept, used = [], 0
    for index in sorted(widths, key=lambda index: COLUMNS[index].importance):
        if used + widths[index] <= width or COLUMNS[index].importance == 0:
            kept.append(index)
            used += widths[index]
    return sorted(kept)


def to_markdown(records: Sequence[Record]) -> str:
    """Every run and column as a Markdown table."""
    lines = list(rows(records))
    titles = [column.title or "note" for column in COLUMNS]
    rule = ["---:" if column.is_number else "---" for column in COLUMNS]
    body = [[markdown_text(cell.text) for cell in line.cells] for line in lines]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (titles, rule, *body)) + "\n"
