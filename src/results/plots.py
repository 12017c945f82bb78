"""The paper's figures with our runs in them as files for a paper or slides: PDF and PNG."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from src.results.figures import bars, is_whole, lines
from src.results.svg import Bar, Series
from src.results.verdicts import PARTIAL, Judged, shown_parts

STYLES = {  # colour and dashes of a mode, as on the page
    "scratch": ("#6a7380", ":"),
    "ssl_ft": ("#b45f06", "--"),
    "ssat": ("#0b66b3", "-"),
    "finetune": ("#7c3aad", "-."),
}
FORMATS = ("pdf", "png")
DPI = 200


def save_figures(judged: Sequence[Judged], folder: Path) -> Iterator[Path]:
    """<figure>.pdf and .png of each figure that has a point: the paper's configuration, then smaller runs beside it.

    Raises:
        OSError: they cannot be written.
    """
    for each in judged:
        panels = list(_panels(each))
        if not panels:
            continue
        wide = 5.2 if each.item.kind == "line" else 7.5
        figure = Figure(figsize=(wide * len(panels), 3.6), layout="constrained", dpi=DPI)
        for axis, (title, data) in zip(figure.subplots(1, len(panels), squeeze=False).flat, panels, strict=True):
            axis.set_title(_plain(title), fontsize=9, wrap=True)
            axis.set_ylabel(each.item.axes[1])
            axis.set_axisbelow(True)
            axis.grid(color="#ecebe7")
            axis.spines[["top", "right"]].set_visible(False)
            if each.item.kind == "line":
                _draw_lines(axis, data, each.item.axes[0])
            else:
                _draw_bars(axis, data, each.item.columns)
        for form in FORMATS:
            path = folder / f"{each.item.name}.{form}"
            partial = path.with_name(f".{path.name}")
            figure.savefig(partial, format=form)
            yield partial.replace(path)


def _panels(judged: Judged) -> Iterator[tuple[str, Any]]:
    """Title and what is drawn, of every part of a figure with a known point."""
    kind = judged.item.kind
    for block, cells in shown_parts(judged):
        data: Any = lines(cells) if kind == "line" else bars(judged, cells) if kind == "bars" else []
        if data:
            yield judged.item.title if block.is_the_papers else f"{PARTIAL}: {block.title}", data


def _draw_lines(axis: Any, series: Sequence[Series], x_label: str) -> None:
    for line in series:
        (colour, dashes), name = STYLES[line.mode], _plain(line.name)
        x, y = zip(*line.points, strict=True)
        if line.marks:
            axis.plot(x, y, "o", color=colour, fillstyle="none", markersize=7, label=name)
        else:
            axis.plot(x, y, color=colour, linestyle=dashes, marker="o", markersize=3, linewidth=1.6, label=name)
    axis.set_xlabel(x_label)
    axis.set_xlim(left=min(0, axis.get_xlim()[0]))
    if is_whole(x for line in series for x, _ in line.points):
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.legend(fontsize=8, frameon=False)


def _plain(text: str) -> str:
    """Text that is no formula, whatever a data set is called."""
    return text.replace("$", r"\$")


def _draw_bars(axis: Any, drawn: Sequence[Bar], columns: Sequence[str]) -> None:
    """Filled: ours; outlines: the paper's."""
    groups = list(dict.fromkeys(bar.group for bar in drawn))
    named = {bar.name for bar in drawn}
    names = [name for name in dict.fromkeys([*columns, *(bar.name for bar in drawn)]) if name in named]
    width = 0.8 / len(names)
    for number, name in enumerate(names):
        mine = {bar.group: bar for bar in drawn if bar.name == name}
        places = np.arange(len(groups)) + (number - (len(names) - 1) / 2) * width
        colour, _ = STYLES[next(iter(mine.values())).mode]
        for kind, style in (
            ("ours", {"color": colour}),
            ("paper", {"facecolor": "none", "edgecolor": colour, "linestyle": "--"}),
        ):
            values = [getattr(mine[group], kind) if group in mine else None for group in groups]
            known = [(x, value) for x, value in zip(places, values, strict=True) if value is not None]
            if known:
                label = _plain(name if kind == "ours" else f"{name}, the paper")
                axis.bar(*zip(*known, strict=True), width=0.9 * width, label=label, **style)
    axis.axhline(0, color="black", linewidth=0.8)
    axis.set_xticks(range(len(groups)), [_plain(group.replace(" on ", "\non ")) for group in groups], fontsize=8)
    axis.legend(fontsize=8, frameon=False)
