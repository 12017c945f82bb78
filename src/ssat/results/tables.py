"""The table of runs: one list of columns, shown on the terminal, as Markdown and in the HTML page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from rich import box
from rich.cells import cell_len
from rich.console import Group
from rich.markup import escape
from rich.table import Table

from ssat.core.words import markdown_text
from ssat.results.columns import COLUMNS, DAGGER, NOTE, Column, Entry, deciding_titles, is_no_cell
from ssat.results.comparisons import Arm, Comparison, comparisons
from ssat.results.content import is_of_videos, unit
from ssat.results.modes import mode_name
from ssat.runs.class_counts import unequal_classes
from ssat.runs.names import ends, is_automatic
from ssat.runs.record import Record

SHORT = 24  # characters of a run's name on a terminal


def heading(column: Column, records: Sequence[Record]) -> str:
    """The column's title over these runs: of videos clips/s."""
    return column.title.replace("images", unit(records))


def legend(records: Sequence[Record]) -> str:
    """What the headings mean."""
    one = " or ".join(f"one {each.removesuffix('s')}'s" for each in unit(records).split(" or "))
    videos = "balanced and AUC: of the last epoch, docs/video_metrics.md; " if any(map(is_of_videos, records)) else ""
    if not videos and any(unequal_classes(record.values, record.split) for record in records):
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
    if len(arm.repeats) > 1:
        first = arm.repeats[0].records[0]
        words = {"run": f"mean of {arm.said_runs}", "mode": mode_name(arm.mode), "seed": "", "setting": setting}
        words |= {"encoder": first.encoder, "data": first.data, NOTE: ""}
        means = [Entry(words[c.title]) if c.title in words else c.entry_over_seeds(arm) for c in columns]
        yield Row(means, None, False)


def shared_columns(records: Sequence[Record]) -> dict[str, str]:
    """The encoder and the data set, where all runs share them: the title names them, and no column does."""
    values = {title: {getattr(record, title) for record in records} for title in ("encoder", "data")}
    return {title: found.pop() for title, found in values.items() if len(found) == 1}


def shared_title(shared: dict[str, str]) -> str:
    """'vit_t on cifar10', 'data: cifar10' or nothing."""
    return " on ".join(shared.values()) if len(shared) == 2 else "".join(f"{k}: {v}" for k, v in shared.items())


def short_name(record: Record) -> str:
    """What tells a run from others in a row that names its data, mode and seed: its hash, or the end of its own name.

    `vit_t-cifar10-ssat-s0-1f2e3d4c` is `1f2e3d4c`: the end of its folder's name.
    """
    seed = record.number("seed")
    named = ends(record.encoder, record.data, record.mode, int(seed or 0))
    folder, digits = record.folder.name, record.text("hash")
    if digits and folder.endswith(f"-{digits}") and is_automatic(record.name, named):
        return digits
    return folder if len(folder) <= SHORT else f"…{folder[1 - SHORT :]}"


def runs_table(records: Sequence[Record], *, width: int = 100) -> Group:
    """The runs as a table for each data set of at most `width` characters; columns that do not fit are left out.

    The title names the data set, and the encoder where its runs share it.
    """
    kinds = dict.fromkeys((record.data, record.multi_label) for record in records)
    tables = [_table_of([each for each in records if (each.data, each.multi_label) == kind], width) for kind in kinds]
    apart = [part for table in tables[:-1] for part in (table, "")]
    return Group(*apart, *tables[-1:])


def _table_of(records: Sequence[Record], width: int) -> Table:
    shared = shared_columns(records)
    rows = [_with_short_name(row) for row in table_rows(records)]
    kept = _fitting(rows, width, without=(*shared,), always=("run", *deciding_titles(records)))
    title = shared_title(shared) + ", several labels" * records[0].multi_label
    table = Table(title=escape(title), title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    table.padding = (0, 1, 0, 0)
    table.show_edge = False
    for index in kept:
        column = COLUMNS[index]
        table.add_column(heading(column, records), justify="right" if column.is_right_aligned else "left", no_wrap=True)
    if any(map(is_no_cell, records)):
        table.caption = f"{DAGGER} not to be read as a cell of the paper; the page says why"
        table.caption_justify = "left"
    for number, row in enumerate(rows):
        if row.starts_section and number:
            table.add_section()
        style = "italic" if row.record is None else "red" if row.record.status == "failed" else None
        table.add_row(*(escape(row.entries[index].text) for index in kept), style=style)
    return table


def _with_short_name(row: Row) -> Row:
    """The first column is the run's name."""
    return row if row.record is None else row._replace(entries=[Entry(short_name(row.record)), *row.entries[1:]])


def _fitting(rows: list[Row], width: int, *, without: tuple[str, ...], always: tuple[str, ...]) -> list[int]:
    """The columns that fit into `width`; an empty one is left out, one that is shown `always` never."""
    widths, order = {}, {}
    for index, column in enumerate(COLUMNS):
        longest = max((cell_len(row.entries[index].text) for row in rows), default=0)
        if longest and column.title not in without:
            widths[index] = max(longest, cell_len(column.title)) + 2
            order[index] = 0 if column.title in always else column.drop_order
    kept, used = [], 0
    for index in sorted(widths, key=lambda index: order[index]):
        if used + widths[index] <= width or order[index] == 0:
            kept.append(index)
            used += widths[index]
    return sorted(kept)


def to_markdown(records: Sequence[Record]) -> str:
    """Every run and column as a Markdown table."""
    titles = [heading(column, records) for column in COLUMNS]
    rule = ["---:" if column.is_number else "---" for column in COLUMNS]
    body = [[markdown_text(entry.text) for entry in row.entries] for row in table_rows(records)]
    return "\n".join("| " + " | ".join(texts) + " |" for texts in (titles, rule, *body)) + "\n"
