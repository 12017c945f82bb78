"""The table of all runs on the page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ssat.results.columns import COLUMNS, DECIDING, RESULT, Column, Entry, deciding_column, deciding_titles
from ssat.results.page.links import folder_link
from ssat.results.page.template import mode_class
from ssat.results.tables import Row, heading, legend, shared_columns, shared_title, table_rows
from ssat.runs.record import Record

# Columns: the first ones are seen without scrolling sideways, on a phone the first two.
FIRST, LAST = ("run", "{decides}", "mode", "data", "setting", "seed"), "encoder"


@dataclass(frozen=True)
class PageEntry:
    """One place of the table.

    Attributes:
        text: what it shows.
        style: CSS class; may be empty.
        order: what it is sorted by; empty where that is its text.
        link: of the text; may be empty.
    """

    text: str
    style: str
    order: str = ""
    link: str = ""


@dataclass(frozen=True)
class PageRow:
    """One line of the table and its CSS classes."""

    style: str
    entries: list[PageEntry]


@dataclass(frozen=True)
class RunsTable:
    """What templates/runs.html shows.

    Attributes:
        title: All runs, and what all of them share.
        legend: what the columns mean.
        headings: of the columns.
        rows: runs, and means over seeds.
    """

    title: str
    legend: str
    headings: list[PageEntry]
    rows: list[PageRow]


def runs_table(records: Sequence[Record], page: Path | None) -> RunsTable | None:
    """The table of all runs with links relative to `page`; None without runs."""
    if not records:
        return None
    deciding = deciding_titles(records)
    columns = [RESULT, *(c for c in COLUMNS if not _is_said(c, records))] if len(deciding) > 1 else [*COLUMNS]
    rows, shared = list(table_rows(records, columns)), shared_columns(records)
    used = [
        index
        for index, column in enumerate(columns)
        if column.title not in shared and any(row.entries[index].text for row in rows)
    ]
    first = [title.format(decides=RESULT.title if len(deciding) > 1 else "".join(deciding)) for title in FIRST]
    ranks = {title: rank for rank, title in enumerate(dict.fromkeys([*first, *deciding]))} | {LAST: len(columns)}
    used.sort(key=lambda index: ranks.get(columns[index].title, len(ranks)))
    return RunsTable(
        title="All runs" + (f", {shared_title(shared)}" if shared else ""),
        legend=f"{legend(records)}. Click a heading to sort.",
        headings=[PageEntry(heading(columns[index], records), _style(columns[index])) for index in used],
        rows=[
            PageRow(_row_style(row.record), [_entry(row, columns[index], row.entries[index], page) for index in used])
            for row in rows
        ],
    )


def _is_said(column: Column, records: Sequence[Record]) -> bool:
    """Whether the column of results has all that this one would show."""
    return column in DECIDING.values() and all(
        deciding_column(record) is column for record in records if record.finished and column.entry_of(record).text
    )


def _row_style(record: Record | None) -> str:
    if record is None:
        return "mean"
    return mode_class(record.mode) + (" failed" if record.status == "failed" else "")


def _entry(row: Row, column: Column, entry: Entry, page: Path | None) -> PageEntry:
    link = ""
    if column.title == "run" and row.record is not None and page is not None:
        link = f"{folder_link(row.record, page)}/result.json"
    return PageEntry(entry.text, _style(column), _order(entry), link)


def _order(entry: Entry) -> str:
    if entry.order is None:
        return ""
    exact = f"{entry.order:.6g}" if isinstance(entry.order, float) else str(entry.order)
    return "" if exact == entry.text else exact


def _style(column: Column) -> str:
    if column.is_right_aligned or column is RESULT:
        return "n"
    return column.title if column.title in ("mode", "run", "setting") else ""
