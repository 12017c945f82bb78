"""The data of the paper's figures: points and bars from our runs, and from the paper where it prints numbers."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from itertools import product

from ssat.results.paper.verdicts import CellResult, Judged, Part
from ssat.results.series import Bar, Series

MODES = {"Scratch": "scratch", "SSL+FT": "ssl_ft", "SSAT": "ssat"}  # columns that are modes have the mode's colour
COLOURS = ("ssat", "ssl_ft", "finetune", "scratch")  # the other columns take these in turn


def part_title(judged: Judged, part: Part) -> str:
    """The title of a chart: the figure's, or that of a block of other runs."""
    return judged.item.title if part.block.is_exact else f"{part.kind}: {part.block.title}"


def figure_series(results: Sequence[CellResult]) -> list[Series]:
    """For each column of a figure our points as a line and the paper's as marks; x is the number that names the row."""
    series = []
    for index, column in enumerate(dict.fromkeys(each.cell.column for each in results)):
        placed = [(x, each) for each in results if each.cell.column == column and (x := position(each)) is not None]
        colour = _colour(column, index)
        measured = sorted((x, each.ours) for x, each in placed if each.ours is not None)
        printed = sorted((x, each.cell.number) for x, each in placed if each.cell.number is not None)
        series += [Series(column, colour, measured), Series(f"{column}, the paper", colour, printed, is_marks=True)]
    return [each for each in series if each.points]


def figure_bars(judged: Judged, results: Sequence[CellResult]) -> list[Bar]:
    """Figure 1's bars: the gain in % over the column `relative_to`; a group is one row, or the mean of some rows."""
    item = judged.item
    found = {(each.cell.row, each.cell.column): each for each in results}
    columns = [column for column in dict.fromkeys(column for _, column in found) if column != item.relative_to]
    groups = _groups(judged, [row for row, _ in found])
    bars = []
    for (name, rows), (index, column) in product(groups.items(), enumerate(columns)):
        pairs = [(found.get((row, column)), found.get((row, item.relative_to))) for row in rows]
        ours = _gain([(_ours(result), _ours(base)) for result, base in pairs])
        paper = _gain([(_printed(result), _printed(base)) for result, base in pairs])
        bars.append(Bar(name, column, _colour(column, index), ours, paper))
    return [bar for bar in bars if bar.ours is not None or bar.paper is not None]


def _groups(judged: Judged, found_rows: Sequence[str]) -> dict[str, list[str]]:
    """The groups of bars: single rows, and the rows whose mean is shown in their place."""
    means = judged.item.means
    averaged = {row for rows in means.values() for row in rows}
    single = {row: [row] for row in dict.fromkeys(found_rows) if row not in averaged}
    return single | {name: rows for name, rows in means.items() if set(rows).intersection(found_rows)}


def _colour(column: str, index: int) -> str:
    """The mode whose colour a column has."""
    return MODES.get(column, COLOURS[index % len(COLOURS)])


def _ours(result: CellResult | None) -> float | None:
    return None if result is None else result.ours


def _printed(result: CellResult | None) -> float | None:
    return None if result is None else result.cell.number


def _gain(pairs: Sequence[tuple[float | None, float | None]]) -> float | None:
    """The mean of the first values over that of the second, as a gain in %; None where any value is missing."""
    values = [value for value, _ in pairs if value is not None]
    base = [value for _, value in pairs if value is not None]
    if len(values) < len(pairs) or len(base) < len(pairs) or not any(base):
        return None
    return 100 * (statistics.fmean(values) / statistics.fmean(base) - 1)


def position(result: CellResult) -> float | None:
    """The x position that names a figure's row; None where the row's name is no number."""
    try:
        return float(result.cell.row.rstrip(" %").replace(",", ""))
    except ValueError:
        return None


def is_count_axis(xs: Iterable[float | None]) -> bool:
    """Whether an x axis shows epochs or percents, whose ticks are whole numbers."""
    return max((x for x in xs if x is not None), default=0) > 5
