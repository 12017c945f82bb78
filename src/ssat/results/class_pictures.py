"""Pictures of a classifier's mistakes as PNG files: confusion matrix, reliability diagram, a sheet of images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ssat.core.files import replacing
from ssat.runs.calibration import BINS, Bin

DPI = 100
NUMBERED, NAMED = 15, 40  # classes at most whose numbers are in the cells, whose names are at the axes
COLUMNS = 6  # of a sheet
CELL = (1.7, 2.05)  # inches of an image on it, with its caption
LETTERS = 18  # of a class name in a caption
BEFORE, AFTER = "#b45f06", "#0b66b3"


def draw_confusion(confusion: NDArray[np.int64], classes: Sequence[str], title: str, path: Path) -> None:
    """A confusion matrix (K, K): a row for each true class, coloured by its share of predicted classes."""
    count = len(classes)
    side = 2.4 + (0.5 * count if count <= NUMBERED else min(0.24 * count, 7.6))
    figure = Figure(figsize=(side + 1, side), dpi=DPI, layout="constrained")
    axis = figure.subplots()
    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    picture = axis.imshow(shares, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    if count <= NUMBERED:
        for (row, column), images in np.ndenumerate(confusion):
            colour = "white" if shares[row, column] > 0.6 else "black"
            axis.text(column, row, f"{images:,}", ha="center", va="center", fontsize=7, color=colour)
    if count <= NAMED:
        names = [_short(name) for name in classes]
        axis.set_xticks(range(count), names, rotation=45, ha="right", fontsize=7)
        axis.set_yticks(range(count), names, fontsize=7)
    axis.set(xlabel="predicted", ylabel="true")
    axis.set_title(title, fontsize=9)
    figure.colorbar(picture, ax=axis, shrink=0.7, label="share of the true class")
    _save(figure, path)


def draw_reliability(
    before: Sequence[Bin], after: Sequence[Bin], labels: Sequence[str], title: str, path: Path
) -> None:
    """Accuracy over confidence by bin, and below how many images a bin has.

    Args:
        before: bins of the probabilities as they are.
        after: with the temperature; () without one.
        labels: of both, for the legend.
        title: of the figure.
        path: of the PNG file.
    """
    figure = Figure(figsize=(4.4, 4.8), dpi=DPI, layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    upper.plot([0, 1], [0, 1], color="#8a8a86", linewidth=0.8, linestyle="--")
    for bins, colour, label in zip((before, after), (BEFORE, AFTER), labels, strict=False):
        upper.plot(
            [b.confidence for b in bins], [b.accuracy for b in bins], "o-", color=colour, markersize=4, label=label
        )
        middles = [(b.low + b.high) / 2 for b in bins]
        lower.bar(middles, [b.images for b in bins], width=1 / BINS, color=colour, alpha=0.5)
    upper.set(ylabel="accuracy", xlim=(0, 1), ylim=(0, 1))
    upper.legend(frameon=False, fontsize=8, loc="upper left")
    lower.set(xlabel="confidence", ylabel="images")
    for axis in (upper, lower):
        axis.spines[["top", "right"]].set_visible(False)
    upper.set_title(title, fontsize=9)
    _save(figure, path)


def draw_sheet(pictures: NDArray[np.float32], captions: Sequence[str], title: str, path: Path) -> None:
    """Images (N, H, W, 3) in [0, 1], each with a caption above it; or the title alone where there is none."""
    columns = min(COLUMNS, max(1, len(pictures)))
    rows = -(-len(pictures) // columns)
    width, height = max(CELL[0] * columns, 4.0), CELL[1] * rows + 0.4
    figure = Figure(figsize=(width, height), dpi=DPI)
    # One axis in inches for all of them: 24 axes of their own take a second to lay out.
    axis = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(0, height))
    axis.set_axis_off()
    axis.text(width / 2, height - 0.2, title, ha="center", va="center", fontsize=9)
    indent = (width - CELL[0] * columns) / 2
    for place, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
        row, column = divmod(place, columns)
        middle, top = indent + CELL[0] * (column + 0.5), height - 0.4 - CELL[1] * row - (CELL[1] - CELL[0])
        across, down = _fitted(picture.shape, CELL[0] - 0.15)
        sides = (middle - across / 2, middle + across / 2, top - down, top)
        axis.imshow(picture, extent=sides, interpolation="nearest", aspect="auto")
        axis.text(middle, top + 0.04, caption, ha="center", va="bottom", fontsize=7)
    axis.set(xlim=(0, width), ylim=(0, height))
    _save(figure, path)


def _fitted(shape: Sequence[int], side: float) -> tuple[float, float]:
    """Width and height of an image (H, W, 3) within a square of that side."""
    return side * shape[1] / max(shape[:2]), side * shape[0] / max(shape[:2])


def caption(target: str, predicted: str, probability: float) -> str:
    """Two lines: what was predicted and how surely, and what it is."""
    return f"called {_short(predicted)}, {100 * probability:.1f} %\nis {_short(target)}"


def _short(name: str) -> str:
    # matplotlib reads what stands between two dollars as a formula.
    return (name if len(name) <= LETTERS else f"{name[: LETTERS - 1]}…").replace("$", r"\$")


def _save(figure: Any, path: Path) -> None:
    with replacing(path) as partial:
        figure.savefig(partial, format="png")
