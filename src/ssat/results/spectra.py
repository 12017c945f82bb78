"""A picture of the spectrum of features: how much each further dimension holds, at the first, middle and last epoch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from ssat.core.files import replacing
from ssat.runs.spectrum import FLOOR, Spectra

SHOWN = 3  # epochs
DPI = 100
COLOURS = ("#9aa3ad", "#b45f06", "#0b66b3")


def shown_epochs(spectra: Spectra) -> list[int]:
    """The first, the middle and the last of the measured epochs (from 0), in order."""
    epochs = sorted(spectra)
    return sorted({epochs[round(place)] for place in np.linspace(0, len(epochs) - 1, SHOWN)}) if epochs else []


def draw_spectra(spectra: Spectra, title: str, path: Path) -> NDArray[np.uint8]:
    """Draw the normalised singular values on a logarithmic axis to `path`; returns the picture (H, W, 3)."""
    figure = Figure(figsize=(4.8, 3.4), dpi=DPI, layout="constrained")
    canvas, axis = FigureCanvasAgg(figure), figure.subplots()
    shown = shown_epochs(spectra)
    for epoch, colour in zip(shown, COLOURS[-len(shown) :], strict=True):
        values = np.maximum(spectra[epoch], FLOOR)
        axis.plot(range(1, len(values) + 1), values, color=colour, linewidth=1.5, label=f"epoch {epoch + 1}")
    axis.set(xlabel="number of the singular value", ylabel="share of their sum", yscale="log", ylim=(FLOOR, 1.5))
    axis.spines[["top", "right"]].set_visible(False)
    axis.set_title(title, fontsize=9)
    axis.legend(frameon=False, fontsize=8)
    canvas.draw()
    picture: NDArray[np.uint8] = np.asarray(canvas.buffer_rgba())[..., :3].copy()
    with replacing(path) as partial:
        Image.fromarray(picture).save(partial, format="PNG")
    return picture
