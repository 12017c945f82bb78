"""Points of a plane by class, as one PNG."""

from __future__ import annotations

import colorsys
import warnings
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

from ssat.core.files import replacing
from ssat.core.words import printable

DPI, SIDE = 110, 6.4  # inches of the square of the points
ROWS = 25  # of a column of the legend
MOST_NAMED = 100  # classes in the legend; more are told apart by the table alone
MARKERS = ("o", "^", "s", "D", "v", "P", "X", "<", ">", "*")
LETTERS = 20  # of a class name
UNLABELLED = "#d0cfca"
MOST_BY_COLOUR = 10  # classes; beyond these each name stands in the picture, too, in the middle of its points


def class_style(number: int, classes: int) -> tuple[tuple[float, float, float], str]:
    """Colour and marker of class `number`: ten colours, and beyond ten classes another marker for each ten."""
    if classes > MOST_NAMED:
        return colorsys.hsv_to_rgb(number * 0.618034 % 1, 0.75, 0.8), MARKERS[0]
    red, green, blue = matplotlib.colormaps["tab10"](number % 10)[:3]
    return (red, green, blue), MARKERS[number // 10 % len(MARKERS)]


def draw_points(
    points: NDArray[np.float32], labels: NDArray[np.int64], classes: Sequence[str], title: str, path: Path
) -> None:
    """Write points (N, 2), coloured by class number (N,); a negative number is no class, and grey.

    The legend names the classes that are there, up to a hundred. The axes have no numbers: only nearness says anything.
    """
    shown = [number for number in range(len(classes)) if (labels == number).any()]
    is_named = 0 < len(shown) <= MOST_NAMED
    columns = -(-len(shown) // ROWS) if is_named else 0
    longest = max((len(_short(classes[number])) for number in shown), default=0)
    width = SIDE + columns * (0.5 + 0.075 * longest)
    figure = Figure(figsize=(max(width, SIDE), SIDE + 0.4), dpi=DPI, layout="constrained")
    axis = figure.subplots()
    size = float(np.clip(12_000 / max(len(points), 1), 4 if len(shown) <= MOST_BY_COLOUR else 10, 40))
    style = {"s": size, "linewidths": 0, "alpha": 0.8}
    none = labels < 0
    if none.any():
        label = "no label" if is_named else None
        axis.scatter(*points[none].T, color=UNLABELLED, label=label, **style)  # type: ignore[arg-type]
    for number in shown:
        colour, marker = class_style(number, len(shown) if is_named else len(classes))
        found = points[labels == number]
        axis.scatter(*found.T, color=colour, marker=marker, label=_short(classes[number]), **style)  # type: ignore[arg-type]
        if MOST_BY_COLOUR < len(shown) <= MOST_NAMED:
            halo = [withStroke(linewidth=1.5, foreground="white")]
            x, y = np.median(found, axis=0)
            axis.text(x, y, _short(classes[number]), fontsize=6, ha="center", va="center", path_effects=halo)
    axis.set(xticks=[], yticks=[])
    axis.set_box_aspect(1)
    axis.spines[:].set_color("#d6d5d0")
    if is_named:
        legend = figure.legend(loc="outside right upper", ncols=columns, frameon=False, fontsize=8, handletextpad=0.2)
        for handle in legend.legend_handles:
            if handle is not None:
                handle.set(sizes=[30], alpha=1)
    axis.set_title(printable(title), fontsize=10, parse_math=False, loc="left")
    with replacing(path) as partial, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # a name in letters that the font lacks
        figure.savefig(partial, format="png")


def _short(name: str) -> str:
    """A class name for the legend, in which matplotlib sees no formula and no name to be left out."""
    name = printable(name).replace("$", r"\$")
    name = name if len(name) <= LETTERS else f"{name[: LETTERS - 1]}…"
    return f" {name}" if name.startswith("_") else name
