"""The images of which a network is least certain, as one PNG."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ssat.core.files import replacing
from ssat.core.words import printable
from ssat.model import Prediction

COLUMNS, SIDE, DPI = 6, 2.0, 100  # inches of an image
LONGEST = 26  # letters of a name or class below an image


class Doubtful(NamedTuple):
    """One image.

    Attributes:
        name: of its file.
        prediction: its two most probable classes.
        shown: (H, W, 3) in [0, 1], as the network sees it.
    """

    name: str
    prediction: Prediction
    shown: NDArray[np.float32]


def draw(path: Path, images: Sequence[Doubtful], network: str) -> None:
    """Write the sheet, the least certain image first."""
    rows = math.ceil(len(images) / COLUMNS)
    figure = Figure(figsize=(COLUMNS * SIDE, rows * (SIDE + 0.65) + 0.5), dpi=DPI, layout="constrained")
    figure.suptitle(f"least certain of {_short(network, 80)}", fontsize=11)
    axes = figure.subplots(rows, COLUMNS, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, image in zip(axes.flat, images, strict=False):
        axis.imshow(image.shown, interpolation="nearest")
        found = zip(image.prediction.classes, image.prediction.probs, strict=True)
        said = "\n".join(f"{_short(name, LONGEST - 6)} {prob:.2f}" for name, prob in found)
        axis.set_title(f"{_short(image.name, LONGEST)}\n{said}", fontsize=8, parse_math=False)
    with replacing(path) as partial, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # a name in letters that the font lacks
        figure.savefig(partial, format="png")


def _short(text: str, longest: int) -> str:
    """The end of a long name tells files apart."""
    text = printable(text)
    return text if len(text) <= longest else f"…{text[1 - longest :]}"
