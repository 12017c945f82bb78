"""The paper's figures, drawn from our runs, with the paper's points where its text or tables give them."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Sequence

from src.results.svg import Bar, Series, bar_chart, key_list, line_chart
from src.results.verdicts import PARTIAL, Judged, Result, shown_parts

MODES = {"Scratch": "scratch", "SSL+FT": "ssl_ft", "SSAT": "ssat"}  # columns that are modes have their colours
COLOURS = ("ssat", "ssl_ft", "finetune", "scratch")  # the other columns take these in turn


def figure_charts(judged: Judged) -> Iterator[str]:
    """A chart of the paper's configuration and one for each block of smaller runs; nothing where nothing is known."""
    item = judged.item
    for block, cells in shown_parts(judged):
        title = item.title if block.is_the_papers else f"{PARTIAL}: {block.title}"
        if item.kind == "line":
            yield line_chart(
                title, lines(cells), x_label=item.axes[0], y_label=item.axes[1], whole=is_whole(map(position, cells))
            )
        elif item.kind == "bars":
            yield bar_chart(title, bars(judged, cells), y_label=item.axes[1])


def lines(cells: Sequence[Result]) -> list[Series]:
    """For each column of a figure our points as a line and the paper's as marks, x being the row's number."""
    series = []
    for index, column in enumerate(dict.fromkeys(each.cell.column for each in cells)):
        placed = [(x, each) for each in cells if each.cell.column == column and (x := position(each)) is not None]
        colour = MODES.get(column, COLOURS[index % len(COLOURS)])
        measured = sorted((x, each.ours) for x, each in placed if each.ours is not None)
        printed = sorted((x, each.cell.number) for x, each in placed if each.cell.number is not None)
        series += [Series(column, colour, measured), Series(f"{column}, the paper", colour, printed, marks=True)]
    return [each for each in series if each.points]


def bars(judged: Judged, cells: Sequence[Result]) -> list[Bar]:
    """Figure 1's bars: the gain in % of the accuracy relative to `relative_to`, groups being rows or means of them."""
    item = judged.item
    found = {(each.cell.row, each.cell.column): each for each in cells}
    hidden = {row for rows in item.means.values() for row in rows}
    groups = {row: [row] for row in dict.fromkeys(row for row, _ in found) if row not in hidden}
    groups |= {name: rows for name, rows in item.means.items() if any(row in rows for row, _ in found)}
    drawn: list[Bar] = []
    for name, rows in groups.items():
        columns = [column for column in dict.fromkeys(column for _, column in found) if column != item.relative_to]
        for index, column in enumerate(columns):
            values = []
            for kind in ("ours", "number"):
                mine, base = ([_value(found.get((row, c)), kind) for row in rows] for c in (column, item.relative_to))
                values.append(_gain(mine, base))
            if values != [None, None]:
                drawn.append(Bar(name, column, MODES.get(column, COLOURS[index % len(COLOURS)]), *values))
    return drawn


def _value(each: Result | None, kind: str) -> float | None:
    if each is None:
        return None
    return each.ours if kind == "ours" else each.cell.number


def _gain(values: Sequence[float | None], base: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    reference = [value for value in base if value is not None]
    if len(known) < len(values) or len(reference) < len(base) or not any(reference):
        return None
    return 100 * (statistics.fmean(known) / statistics.fmean(reference) - 1)


def position(each: Result) -> float | None:
    """The x position that a figure's row names."""
    try:
        return float(each.cell.row.rstrip(" %").replace(",", ""))
    except ValueError:
        return None


def is_whole(xs: Iterable[float | None]) -> bool:
    """Whether an x axis counts (epochs, percents) and its ticks are integers."""
    return max((x for x in xs if x is not None), default=0) > 5


def legend(judged: Judged) -> str:
    """What the marks of a figure mean."""
    item = judged.item
    shape = "Lines are our runs, rings" if item.kind == "line" else "Filled bars are our runs, outlines"
    if item.kind == "line":
        key = {each.name: each.mode for _, cells in shown_parts(judged) for each in lines(cells) if not each.marks}
    else:
        key = {each.name: each.mode for _, cells in shown_parts(judged) for each in bars(judged, cells)}
    return f'<p class="quiet">{shape} the paper&rsquo;s numbers.</p>{key_list(key)}'
