"""Figures as PNG files: lines in panels, and grids of pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from ssat.analysis.models import Curve, Strip
from ssat.core.files import replacing
from ssat.results.plots import STYLES

DPI, STRIP_DPI = 150, 100
OTHERS = ("#2f7d4f", "#b3261e", "#8a6d00", "#00838f")


class Panel(NamedTuple):
    """A pair of axes; `x_scale` and `y_scale` are linear or log."""

    name: str
    x_label: str
    y_label: str
    x_scale: str = "linear"
    y_scale: str = "linear"
    markers: bool = True


class Line(NamedTuple):
    """One line of a panel."""

    name: str
    mode: str
    curve: Curve


def heat(images: np.ndarray, maps: np.ndarray) -> np.ndarray:
    """Heat maps (B, H, W) in [0, 1] laid over images (B, H, W, 3)."""
    coloured = matplotlib.colormaps["jet"](maps)[..., :3]
    return 0.5 * images + 0.5 * coloured


def evidence_colours(frames: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Heat (T, H, W) in [-1, 1] over frames (T, H, W, 3): red above 0, blue below, the grey frame at 0."""
    colours = matplotlib.colormaps["bwr"](heat / 2 + 0.5)[..., :3]
    strength = 0.7 * np.abs(heat)[..., np.newaxis]
    return (1 - strength) * frames.mean(-1, keepdims=True) + strength * colours


def intensity(maps: np.ndarray) -> np.ndarray:
    """Maps (B, H, W), each over its own range, as pictures (B, H, W, 3)."""
    low, high = (f(maps, axis=(1, 2), keepdims=True) for f in (np.min, np.max))
    return matplotlib.colormaps["inferno"]((maps - low) / np.maximum(high - low, 1e-12))[..., :3]


def _styles(modes: Sequence[str]) -> list[tuple[str, str]]:
    """Colour and dashes of each line; the second run of a mode has a colour of its own."""
    spare, used, styles = list(OTHERS), set(), []
    for mode in modes:
        style = STYLES.get(mode)
        if style is None or mode in used:
            style = (spare.pop(0) if spare else "#000000", "-")
        used.add(mode)
        styles.append(style)
    return styles


def draw_curves(panels: Sequence[Panel], lines: dict[str, list[Line]], title: str, path: Path) -> None:
    """One pair of axes per panel, up to three in a row, with the deviation over images as a band."""
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(4.6 * columns, 3.4 * rows), layout="constrained", dpi=DPI)
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis, panel in zip(axes.flat, panels, strict=False):
        _draw_panel(axis, panel, lines[panel.name])
        if len(panels) > 1:
            axis.set_title(panel.name, fontsize=10)
    for axis in list(axes.flat)[len(panels) :]:
        axis.set_axis_off()
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    figure.suptitle(title, fontsize=11)
    _save(figure, path)


def _draw_panel(axis: Any, panel: Panel, lines: Sequence[Line]) -> None:
    for line, (colour, dashes) in zip(lines, _styles([line.mode for line in lines]), strict=True):
        curve = line.curve
        short = panel.markers and len(curve.x) <= 30
        axis.plot(
            curve.x, curve.y, color=colour, linestyle=dashes, linewidth=1.6, label=line.name,
            marker="o" if short else None, markersize=3,
        )  # fmt: skip
        if curve.std is not None and short:  # over hundreds of points bands hide each other
            low, high = (np.array(curve.y) + sign * np.array(curve.std) for sign in (-1, 1))
            axis.fill_between(curve.x, low, high, color=colour, alpha=0.12, linewidth=0)
    axis.set(xlabel=panel.x_label, ylabel=panel.y_label, xscale=panel.x_scale, yscale=panel.y_scale)
    if panel.x_scale == "linear" and all(float(x).is_integer() for line in lines for x in line.curve.x):
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    if panel.x_scale == "log":  # few and plain numbers also where the axis spans less than a decade
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter("{x:g}")
        axis.xaxis.set_minor_locator(NullLocator())
    axis.grid(color="#ecebe7")
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)


def draw_grid(
    rows: dict[str, np.ndarray],
    titles: Sequence[str],
    title: str,
    path: Path,
    captions: dict[str, list[str]] | None = None,
) -> None:
    """A grid of pictures, one row (n, H, W, 3) per label and one column per image, some with a caption in them."""
    count = len(titles)
    figure = Figure(figsize=(1.35 * count + 1.3, 1.35 * len(rows) + 0.6), layout="constrained", dpi=DPI)
    axes = figure.subplots(len(rows), count, squeeze=False)
    for line, (label, pictures) in zip(axes, rows.items(), strict=True):
        texts = (captions or {}).get(label, [""] * count)
        for axis, picture, text in zip(line, pictures, texts, strict=True):
            axis.imshow(np.clip(picture, 0, 1), interpolation="nearest")
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
            if text:
                box = {"facecolor": "black", "alpha": 0.6, "edgecolor": "none", "pad": 1.5}
                axis.text(0.5, 0.03, text, transform=axis.transAxes, color="white", fontsize=6, ha="center", bbox=box)
        line[0].set_ylabel(label.replace(", ", "\n"), rotation=0, ha="right", va="center", fontsize=8)
    for axis, name in zip(axes[0], titles, strict=True):
        axis.set_title(name, fontsize=8)
    figure.suptitle(title, fontsize=10)
    _save(figure, path)


def draw_strip(strips: dict[str, Strip], axes: Panel, lines: Sequence[Line], title: str, path: Path) -> None:
    """A clip's frames, each network's heat over them, and below these the curves over time.

    The colours of all networks are on one scale, which is drawn beside them. Slots are equally far from each other.

    Args:
        strips: of the clip, by the network's name.
        axes: of the curves.
        lines: the networks' curves, a point per time slot; x is its seconds.
        title: of the figure.
        path: of the PNG file.
    """
    frames = next(iter(strips.values())).frames
    columns, points = len(frames), len(lines[0].curve.x)
    figure = Figure(figsize=(1.2 * columns + 1.6, 1.42 * len(strips) + 3.8), layout="constrained", dpi=STRIP_DPI)
    grid = figure.add_gridspec(len(strips) + 2, columns, height_ratios=[1] * (len(strips) + 1) + [1.7])
    rows = {"frames": frames}
    largest = max(strip.largest for strip in strips.values()) or 1.0  # without any evidence all is grey
    rows |= {f"{name}\n{s.caption}": evidence_colours(s.frames, s.heat / largest) for name, s in strips.items()}
    seconds = next(iter(strips.values())).seconds
    for row, (label, pictures) in enumerate(rows.items()):
        for column, picture in enumerate(pictures):
            axis = figure.add_subplot(grid[row, column])
            axis.imshow(np.clip(picture, 0, 1), interpolation="nearest")
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
            if not column:
                axis.set_ylabel(label, rotation=0, ha="right", va="center", fontsize=8)
            if not row:
                axis.set_title(f"{seconds[column]:.2f} s", fontsize=8)
    below = figure.add_subplot(grid[-1, :])
    # Each point stands below its frame: a clip that is too short repeats its last one, of the same second.
    slots = [float(slot) for slot in range(points)]
    _draw_panel(below, axes, [line._replace(curve=line.curve._replace(x=slots)) for line in lines])
    below.axhline(0, color="#8a8a86", linewidth=0.8, zorder=0)
    below.set_xlim(-0.5, columns * _each(points, columns) - 0.5)
    below.set_xticks(slots[:: _each(points, columns)], [f"{second:.2f}" for second in seconds])
    below.legend(frameon=False, fontsize=8)
    figure.colorbar(_evidence_scale(largest), ax=figure.axes, shrink=0.6, aspect=30, label="evidence, all networks")
    figure.suptitle(title, fontsize=10)
    _save(figure, path)


def _evidence_scale(largest: float) -> ScalarMappable:
    """The colours of `evidence_colours` on a middle grey, from -`largest` to `largest`."""
    steps = np.linspace(-1, 1, 201)[:, np.newaxis, np.newaxis]
    colours = evidence_colours(np.full((201, 1, 1, 3), 0.5), steps)[:, 0, 0]
    return ScalarMappable(Normalize(-largest, largest), ListedColormap(colours))


def _each(points: int, columns: int) -> int:
    """Time slots that a column stands for."""
    return -(-points // columns)


def _save(figure: Figure, path: Path) -> None:
    with replacing(path) as partial:
        figure.savefig(partial, format="png")
