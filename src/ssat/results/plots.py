"""The paper's figures with our runs in them as files for a paper or slides: PDF and PNG."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ssat.core.files import replacing
from ssat.results.paper.figures import figure_bars, figure_series, is_count_axis, part_title
from ssat.results.paper.verdicts import Judged, Part
from ssat.results.series import Bar, Series

STYLES = {  # colour and dashes of a mode, as on the page
    "scratch": ("#6a7380", ":"),
    "ssl_ft": ("#b45f06", "--"),
    "ssat": ("#0b66b3", "-"),
    "finetune": ("#7c3aad", "-."),
}
FORMATS = ("pdf", "png")
DPI = 200


def save_figures(judged: Sequence[Judged], folder: Path) -> Iterator[Path]:
    """Write <figure>.pdf and .png of each figure that has a point or bar.

    Raises:
        OSError: they cannot be written.
    """
    for each in judged:
        parts = [part for part in each.shown_parts if _data(each, part)]
        if not parts:
            continue
        figure = _draw(each, parts)
        for form in FORMATS:
            path = folder / f"{each.item.name}.{form}"
            with replacing(path) as unfinished:
                figure.savefig(unfinished, format=form)
            yield path


def _data(judged: Judged, part: Part) -> Sequence[Any]:
    """What is drawn of one part of a figure: lines or bars."""
    if judged.item.kind == "line":
        return figure_series(part.results)
    return figure_bars(judged, part.results) if judged.item.kind == "bars" else []


def _draw(judged: Judged, parts: Sequence[Part]) -> Figure:
    """The figure with one pair of axes for each part, side by side."""
    width = 5.2 if judged.item.kind == "line" else 7.5
    figure = Figure(figsize=(width * len(parts), 3.6), layout="constrained", dpi=DPI)
    for axis, part in zip(figure.subplots(1, len(parts), squeeze=False).flat, parts, strict=True):
        axis.set_title(_plain(part_title(judged, part)), fontsize=9, wrap=True)
        axis.set_ylabel(judged.item.axes[1])
        axis.set_axisbelow(True)
        axis.grid(color="#ecebe7")
        axis.spines[["top", "right"]].set_visible(False)
        if judged.item.kind == "line":
            _draw_lines(axis, _data(judged, part), judged.item.axes[0])
        else:
            _draw_bars(axis, _data(judged, part), judged.item.columns)
    return figure


def _draw_lines(axis: Any, series: Sequence[Series], x_label: str) -> None:
    for line in series:
        (colour, dashes), name = STYLES[line.mode], _plain(line.name)
        x, y = zip(*line.points, strict=True)
        if line.is_marks:
            axis.plot(x, y, "o", color=colour, fillstyle="none", markersize=7, label=name)
        else:
            axis.plot(x, y, color=colour, linestyle=dashes, marker="o", markersize=3, linewidth=1.6, label=name)
    axis.set_xlabel(x_label)
    axis.set_xlim(left=min(0, axis.get_xlim()[0]))
    if is_count_axis(x for line in series for x, _ in line.points):
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.legend(fontsize=8, frameon=False)


def _plain(text: str) -> str:
    """Text in which matplotlib sees no formula: a data set may have a $ in its name."""
    return text.replace("$", r"\$")


def _draw_bars(axis: Any, bars: Sequence[Bar], columns: Sequence[str]) -> None:
    """Our numbers as filled bars, the paper's as outlines."""
    groups = list(dict.fromkeys(bar.group for bar in bars))
    found = {bar.name for bar in bars}
    names = [name for name in dict.fromkeys([*columns, *(bar.name for bar in bars)]) if name in found]
    width = 0.8 / len(names)
    for index, name in enumerate(names):
        colour, _ = STYLES[next(bar.mode for bar in bars if bar.name == name)]
        shift = (index - (len(names) - 1) / 2) * width
        places = [(groups.index(bar.group) + shift, bar) for bar in bars if bar.name == name]
        ours = [(x, bar.ours) for x, bar in places if bar.ours is not None]
        paper = [(x, bar.paper) for x, bar in places if bar.paper is not None]
        if ours:
            axis.bar(*zip(*ours, strict=True), width=0.9 * width, label=_plain(name), color=colour)
        if paper:
            outline = {"facecolor": "none", "edgecolor": colour, "linestyle": "--"}
            axis.bar(*zip(*paper, strict=True), width=0.9 * width, label=_plain(f"{name}, the paper"), **outline)
    axis.axhline(0, color="black", linewidth=0.8)
    axis.set_xticks(range(len(groups)), [_plain(group.replace(" on ", "\non ")) for group in groups], fontsize=8)
    axis.legend(fontsize=8, frameon=False)
