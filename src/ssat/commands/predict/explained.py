"""The picture of an explanation: an image beside itself with what speaks for its verdict laid over it."""

from __future__ import annotations

import warnings
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ssat.core.files import replacing
from ssat.core.words import printable

SIDE, DPI = 3.2, 100  # inches of an image
STRONGEST = 0.65  # opacity of the highest value: the photo stays visible below it
LONGEST = 60  # letters of a line


def laid_over(images: NDArray[np.float32], maps: NDArray[np.float32]) -> NDArray[np.float64]:
    """Maps (B, H, W) in [0, 1] over images (B, H, W, 3): yellow to red where a place speaks for the class."""
    strength = STRONGEST * np.clip(maps, 0, 1)[..., np.newaxis]
    return (1 - strength) * images + strength * matplotlib.colormaps["autumn_r"](maps)[..., :3]


def draw_explained(path: Path, image: NDArray[np.float32], heat: NDArray[np.float32], lines: tuple[str, str]) -> None:
    """Write image and overlay side by side.

    Args:
        path: of the PNG.
        image: (H, W, 3) in [0, 1], as the network sees it.
        heat: (H, W) in [0, 1].
        lines: title of the picture, and what the overlay is of.
    """
    figure = Figure(figsize=(2 * SIDE, SIDE + 0.7), dpi=DPI, layout="constrained")
    figure.suptitle(_short(lines[0]), fontsize=11, parse_math=False)
    titles = ("as the network sees it", _short(lines[1]))
    for axis, shown, title in zip(
        figure.subplots(1, 2), (image, laid_over(image[None], heat[None])[0]), titles, strict=True
    ):
        axis.set_axis_off()
        axis.imshow(np.clip(shown, 0, 1), interpolation="nearest")
        axis.set_title(title, fontsize=9, parse_math=False)
    with replacing(path) as partial, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # a name in letters that the font lacks
        figure.savefig(partial, format="png")


def _short(text: str) -> str:
    text = printable(text)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
