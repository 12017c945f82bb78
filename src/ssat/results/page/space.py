"""How much the page may still hold, so that it stays small however many runs there are."""

from __future__ import annotations

from dataclasses import dataclass

PICTURES_BYTES = 500_000  # all pictures of a page together
CHARTS_CHARACTERS = 700_000  # all curves of a page together
POINTS = 30_000  # of all curves of a page together
LEAST_POINTS, MOST_POINTS = 6, 200  # of one curve
CHARTS_PER_RUN = 5


@dataclass
class PageSpace:
    """The space that is left on the page; who adds a picture or a chart takes its size off.

    Attributes:
        pictures: bytes of PNG files.
        charts: characters of the curves of comparisons.
        points: that one curve may have.
    """

    pictures: int
    charts: int = 10**6
    points: int = MOST_POINTS


def space_for(runs: int) -> PageSpace:
    """The space of a page with so many finished runs."""
    points = POINTS // max(1, CHARTS_PER_RUN * runs)
    return PageSpace(PICTURES_BYTES, CHARTS_CHARACTERS, max(LEAST_POINTS, min(MOST_POINTS, points)))
