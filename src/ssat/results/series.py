"""The data of charts, which the page draws as SVG and `plots` as PDF and PNG."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Series(NamedTuple):
    """One line of a chart.

    Attributes:
        name: of the line.
        mode: gives the line its colour.
        points: (x, y).
        is_marks: whether each point is a ring and no line joins them; so the paper's numbers are drawn.
        band: (x, low, high) of the intervals of a line that was not measured, which is drawn pale.
    """

    name: str
    mode: str
    points: list[tuple[float, float]]
    is_marks: bool = False
    band: Sequence[tuple[float, float, float]] = ()


class Bar(NamedTuple):
    """One place of a bar chart: our number as a filled bar, the paper's as an outline; None where one is missing."""

    group: str
    name: str
    mode: str
    ours: float | None
    paper: float | None
