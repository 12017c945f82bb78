"""Line charts and bar charts as inline SVG: this module computes the places, the templates draw."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from markupsafe import Markup

from ssat.results.page.space import MOST_POINTS
from ssat.results.page.template import render_template
from ssat.results.series import Bar, Series
from ssat.results.text import compact

# Pixels, as all lengths here. A chart is drawn at this size on every screen, so that its text is never scaled: three
# line charts stand side by side on a wide page, and one fits a phone.
WIDTH, HEIGHT = 320, 220
BARS_WIDTH = 460  # of a bar chart: names stand below its groups
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 12, 40
MANY = 6  # more lines than these are drawn thinner


def _frame(width: int) -> dict[str, int]:
    edges = {"left": LEFT, "right": width - RIGHT, "top": TOP, "bottom": HEIGHT - BOTTOM}
    return {"width": width, "height": HEIGHT, **edges}


@dataclass(frozen=True)
class Axis:
    """Values from `low` to `high` between the pixels `start` and `end`.

    Attributes:
        low: value at `start`.
        high: value at `end`.
        start: pixel.
        end: pixel.
        digits: of a pixel's fraction.
        values: of the ticks.
    """

    low: float
    high: float
    start: int
    end: int
    digits: int
    values: list[float]

    def pixel(self, value: float) -> float:
        """Where `value` stands."""
        return round(self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start), self.digits)

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """Pixel and text of each tick."""
        return [(self.pixel(value), compact(value)) for value in self.values]

    @property
    def scale(self) -> str:
        """Its values and pixels, from which the page's script computes values."""
        return f"{self.low!r} {self.high!r} {self.start} {self.end}"


class Line(NamedTuple):
    """A line as it is drawn: pixels in place of values."""

    name: str
    mode: str
    places: list[tuple[float, float]]
    is_marks: bool
    band: Sequence[tuple[float, float]] = ()  # the outline of its intervals

    @property
    def outline(self) -> str:
        """The pixels of its band as SVG takes them; empty for a line that was measured."""
        return " ".join(f"{x},{y}" for x, y in self.band)

    @property
    def path(self) -> str:
        """Its pixels as SVG takes them; a single one stands twice, as a line of one point is invisible."""
        places = self.places * 2 if len(self.places) == 1 and not self.is_marks else self.places
        return " ".join(f"{x},{y}" for x, y in places)


def line_chart(
    title: str,
    series: Sequence[Series],
    *,
    x_label: str,
    y_label: str,
    whole: bool = True,
    most_points: int = MOST_POINTS,
) -> Markup:
    """A `<figure>` with one line for each series; the page shows values at the pointer and by arrow keys.

    Args:
        title: of the figure.
        series: those without a point are left out; without any the chart is empty.
        x_label: under the x axis, which begins at 0 or below.
        y_label: beside the title.
        whole: whether the ticks of x are whole numbers.
        most_points: a line with more points is thinned.
    """
    drawn = [line._replace(points=_thinned(line.points, most_points)) for line in series if line.points]
    if not drawn:
        return Markup()
    x_axis = _x_axis([x for line in drawn for x, _ in line.points], whole=whole)
    y_axis = _y_axis([y for line in drawn for _, y in line.points] + [y for line in drawn for _, y in _outline(line)])

    def pixels(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
        return [(x_axis.pixel(x), y_axis.pixel(y)) for x, y in points]

    lines = [Line(line.name, line.mode, pixels(line.points), line.is_marks, pixels(_outline(line))) for line in drawn]
    ends = "; ".join(f"{line.name} ends at {compact(line.points[-1][1])}" for line in drawn[:8])
    return render_template(
        "line_chart.html",
        frame=_frame(WIDTH),
        title=title,
        x_axis=replace(x_axis, values=[tick for tick in x_axis.values if x_axis.low <= tick <= x_axis.high]),
        y_axis=y_axis,
        x_label=x_label,
        y_label=y_label,
        lines=lines,
        is_crowded=len(drawn) > MANY,
        description=f"{title} against {x_label}: {ends}",
    )


def _outline(line: Series) -> list[tuple[float, float]]:
    """The lower edge of a line's band, then the upper one backwards."""
    return [(x, low) for x, low, _ in line.band] + [(x, high) for x, _, high in reversed(line.band)]


def _x_axis(xs: Sequence[float], *, whole: bool) -> Axis:
    low, high = min(0.0, *xs), max(0.0, *xs)
    high = max(high, 1.0) if whole or high == low else high
    return Axis(low, high, LEFT, WIDTH - RIGHT, 1, ticks(low, high, whole=whole))


def _y_axis(ys: Sequence[float]) -> Axis:
    values = ticks(min(ys), max(ys))
    # Two digits: the page's script computes values from these pixels.
    return Axis(min(values[0], *ys), max(values[-1], *ys), HEIGHT - BOTTOM, TOP, 2, values)


def legend(names: Mapping[str, str]) -> Markup:
    """The legend of charts: each name with a line in the colour of its mode."""
    return render_template("legend.html", names=names)


def ticks(low: float, high: float, *, about: int = 5, whole: bool = False) -> list[float]:
    """Round numbers that span `low` to `high`, in steps of 1, 2 or 5 times a power of ten.

    Args:
        low: is never below the first tick.
        high: is never above the last tick.
        about: how many steps there are, roughly.
        whole: whole numbers only.
    """
    span = (high - low) or abs(high) or 1.0
    power = 10.0 ** math.floor(math.log10(span / about))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power * about >= span * 0.999)
    step = max(step, 1.0) if whole else step
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(index * step, 12) for index in range(first, max(last, first + 1) + 1)]


def _thinned(points: list[tuple[float, float]], most: int) -> list[tuple[float, float]]:
    """At most `most` of the points; the last is always among them."""
    step = math.ceil(len(points) / most)
    return points if step <= 1 else points[::-1][::step][::-1]


class Rectangle(NamedTuple):
    """A bar as it is drawn, and the text that the pointer shows."""

    mode: str
    kind: str  # fill: ours | outline: the paper's
    x: str
    y: float
    width: str
    height: str
    text: str


def bar_chart(title: str, bars: Sequence[Bar], *, y_label: str) -> Markup:
    """A `<figure>` of grouped bars; a bar shows its values at the pointer, the figure's label lists all of them."""
    known = [value for bar in bars for value in (bar.ours, bar.paper) if value is not None]
    if not known:
        return Markup()
    y_axis = _y_axis([0.0, *known])
    groups = list(dict.fromkeys(bar.group for bar in bars))
    width = (BARS_WIDTH - LEFT - RIGHT) / (len(bars) + len(groups))
    rectangles, names = [], []
    left = LEFT + width / 2
    for index, group in enumerate(groups):
        members = [bar for bar in bars if bar.group == group]
        for place, bar in enumerate(members):
            rectangles += _rectangles(bar, y_axis, left + place * width, width)
        row = HEIGHT - BOTTOM + (13 if index % 2 == 0 else 27)  # in two rows, or long names would overlap
        names.append((f"{left + len(members) * width / 2:.1f}", row, group))
        left += (len(members) + 1) * width
    return render_template(
        "bar_chart.html",
        frame=_frame(BARS_WIDTH),
        title=title,
        y_axis=y_axis,
        y_label=y_label,
        rectangles=rectangles,
        names=names,
        description=f"{title}: {'; '.join(map(_bar_text, bars))}",
    )


def _rectangles(bar: Bar, y_axis: Axis, left: float, width: float) -> list[Rectangle]:
    """Our bar, then the paper's."""
    found = []
    for value, kind in ((bar.ours, "fill"), (bar.paper, "outline")):
        if value is not None:
            top, bottom = sorted((y_axis.pixel(value), y_axis.pixel(0.0)))
            size = f"{width - 2:.1f}", f"{max(bottom - top, 0.5):.2f}"
            found.append(Rectangle(bar.mode, kind, f"{left + 1:.1f}", top, *size, _bar_text(bar)))
    return found


def _bar_text(bar: Bar) -> str:
    values = (("ours", bar.ours), ("the paper", bar.paper))
    return f"{bar.group}, {bar.name}: " + ", ".join(f"{who} {compact(v)}" for who, v in values if v is not None)
