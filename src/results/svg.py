"""Line charts as inline SVG, without a plotting library."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import NamedTuple

WIDTH, HEIGHT = 460, 260
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 12, 40
MOST_POINTS = 200
MANY = 6  # more lines than these are drawn thinner


class Series(NamedTuple):
    """One line of a chart: its name, its mode (which is its colour) and its points (x, y)."""

    name: str
    mode: str
    points: list[tuple[float, float]]
    marks: bool = False  # rings in place of a line: the paper's numbers


def line_chart(
    title: str,
    series: Sequence[Series],
    *,
    x_label: str,
    y_label: str,
    whole: bool = True,
    most_points: int = MOST_POINTS,
) -> str:
    """A `<figure>` with one line per series, x from 0 or below; the page tells values on hover and by keys.

    `whole`: ticks of x are integers. A line with more than `most_points` points is thinned.
    """
    drawn = [line._replace(points=_thinned(line.points, most_points)) for line in series if line.points]
    if not drawn:
        return ""
    xs = [x for line in drawn for x, _ in line.points]
    ys = [y for line in drawn for _, y in line.points]
    x0, x1 = min(0.0, *xs), max(0.0, *xs)
    x1 = max(x1, 1.0) if whole or x1 == x0 else x1
    x_ticks, y_ticks = ticks(x0, x1, whole=whole), ticks(min(ys), max(ys))
    y0, y1 = min(y_ticks[0], min(ys)), max(y_ticks[-1], max(ys))

    def place(x: float, y: float) -> tuple[float, float]:
        across = LEFT + (x - x0) / (x1 - x0) * (WIDTH - LEFT - RIGHT)
        up = HEIGHT - BOTTOM - (y - y0) / (y1 - y0) * (HEIGHT - TOP - BOTTOM)
        return round(across, 1), round(up, 2)  # the script reads values off y

    parts = []
    for tick in y_ticks:
        _, y = place(x0, tick)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>')
        parts.append(f'<text x="{LEFT - 7}" y="{y}" dy=".35em" text-anchor="end">{_number(tick)}</text>')
    for tick in (tick for tick in x_ticks if x0 <= tick <= x1):
        x, _ = place(tick, y0)
        parts.append(f'<text x="{x}" y="{HEIGHT - BOTTOM + 17}" text-anchor="middle">{_number(tick)}</text>')
    middle = LEFT + (WIDTH - LEFT - RIGHT) / 2
    parts.append(f'<text class="axis" x="{middle}" y="{HEIGHT - 5}" text-anchor="middle">{escape(x_label)}</text>')
    parts += [_line(line, [place(x, y) for x, y in line.points]) for line in drawn]
    ends = "; ".join(f"{line.name} ends at {_number(line.points[-1][1])}" for line in drawn[:8])
    scale = f'data-x="{x0!r} {x1!r} {LEFT} {WIDTH - RIGHT}" data-y="{y0!r} {y1!r} {HEIGHT - BOTTOM} {TOP}"'
    return (
        f'<figure class="chart{" many" * (len(drawn) > MANY)}">'
        f"<figcaption>{escape(title)} <span>{escape(y_label)}</span></figcaption>"
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" tabindex="0" {scale} data-xlabel="{escape(x_label)}" '
        f'aria-label="{escape(title)} against {escape(x_label)}: {escape(ends)}">{"".join(parts)}'
        f'<line class="cursor" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/></svg><div class="tip" role="status"></div></figure>'
    )


def _line(line: Series, places: list[tuple[float, float]]) -> str:
    if line.marks:
        rings = "".join(f'<circle cx="{x}" cy="{y}" r="5"/>' for x, y in places)
        path = " ".join(f"{x},{y}" for x, y in places)  # unseen: the script reads the values off it
        name = escape(line.name)
        return (
            f'<g class="ring {css_class(line.mode)}">{rings}</g>'
            f'<polyline class="line unseen" data-name="{name}" points="{path}"/>'
        )
    attributes = f'class="line {css_class(line.mode)}" data-name="{escape(line.name)}"'
    if len(places) == 1:  # a polyline of one point is invisible
        x, y = places[0]
        return f'<polyline {attributes} points="{x},{y} {x},{y}" stroke-linecap="round"/>'
    return f'<polyline {attributes} points="{" ".join(f"{x},{y}" for x, y in places)}"/>'


def key_list(names: Mapping[str, str]) -> str:
    """The key of charts: each name with the line of its mode."""
    return '<ul class="legend">{}</ul>'.format(
        "".join(
            f'<li class="{css_class(mode)}"><svg viewBox="0 0 28 8" aria-hidden="true">'
            f'<polyline class="line {css_class(mode)}" points="1,4 27,4"/></svg><span>{escape(name)}</span></li>'
            for name, mode in names.items()
        )
    )


def css_class(mode: str) -> str:
    """The class that carries the mode's colour."""
    return f"m-{mode}" if mode in ("scratch", "ssl_ft", "ssat", "finetune") else "m-other"


def ticks(low: float, high: float, *, about: int = 5, whole: bool = False) -> list[float]:
    """Round numbers that span `low` to `high`, in steps of 1, 2 or 5 times a power of ten; `whole`: integers only."""
    span = (high - low) or abs(high) or 1.0
    power = 10.0 ** math.floor(math.log10(span / about))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power * about >= span * 0.999)
    step = max(step, 1.0) if whole else step
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(index * step, 12) for index in range(first, max(last, first + 1) + 1)]


def _number(value: float) -> str:
    if value and not 1e-3 <= abs(value) < 1e6:
        return f"{value:.3g}"
    return f"{value:,.3f}".rstrip("0").rstrip(".")


class Bar(NamedTuple):
    """One place of a bar chart: ours filled, the paper's as an outline, either of which may be missing."""

    group: str
    name: str
    mode: str
    ours: float | None
    paper: float | None


def bar_chart(title: str, bars: Sequence[Bar], *, y_label: str) -> str:
    """A `<figure>` of grouped bars; a bar tells its values on hover, the figure's label lists all of them."""
    known = [value for bar in bars for value in (bar.ours, bar.paper) if value is not None]
    if not known:
        return ""
    y_ticks = ticks(min(0.0, *known), max(0.0, *known))
    low, high = min(y_ticks[0], *known), max(y_ticks[-1], *known)
    groups = list(dict.fromkeys(bar.group for bar in bars))
    width = (WIDTH - LEFT - RIGHT) / (len(bars) + len(groups))

    def up(value: float) -> float:
        return round(HEIGHT - BOTTOM - (value - low) / (high - low) * (HEIGHT - TOP - BOTTOM), 2)

    parts = []
    for tick in y_ticks:
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{up(tick)}" y2="{up(tick)}"/>')
        parts.append(f'<text x="{LEFT - 7}" y="{up(tick)}" dy=".35em" text-anchor="end">{_number(tick)}</text>')
    left = LEFT + width / 2
    for number, group in enumerate(groups):
        start = left
        for bar in (bar for bar in bars if bar.group == group):
            for value, kind in ((bar.ours, "fill"), (bar.paper, "outline")):
                if value is not None:
                    parts.append(_rectangle(bar, value, kind, left, width, sorted((up(value), up(0.0)))))
            left += width
        row = HEIGHT - BOTTOM + (13 if number % 2 == 0 else 27)  # in two rows, or long names would overlap
        parts.append(f'<text x="{(start + left) / 2:.1f}" y="{row}" text-anchor="middle">{escape(group)}</text>')
        left += width
    told = "; ".join(_told(bar) for bar in bars)
    return (
        f'<figure class="chart"><figcaption>{escape(title)} <span>{escape(y_label)}</span></figcaption>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}: {escape(told)}">'
        f"{''.join(parts)}</svg></figure>"
    )


def _rectangle(bar: Bar, value: float, kind: str, left: float, width: float, ends: list[float]) -> str:
    return (
        f'<rect class="bar {kind} {css_class(bar.mode)}" x="{left + 1:.1f}" y="{ends[0]}" width="{width - 2:.1f}" '
        f'height="{max(ends[1] - ends[0], 0.5):.2f}"><title>{escape(_told(bar))}</title></rect>'
    )


def _told(bar: Bar) -> str:
    values = (("ours", bar.ours), ("the paper", bar.paper))
    return f"{bar.group}, {bar.name}: " + ", ".join(f"{who} {_number(v)}" for who, v in values if v is not None)


def _thinned(points: list[tuple[float, float]], most: int) -> list[tuple[float, float]]:
    """At most `most` of the points, the last always among them."""
    step = math.ceil(len(points) / most)
    return points if step <= 1 else points[::-1][::step][::-1]
