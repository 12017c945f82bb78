"""Draws docs/cifar10_gpu.svg from the three records in this folder: python docs/evidence/gpu_cifar10/draw.py"""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent
PICTURE = HERE.parents[1] / "cifar10_gpu.svg"
WIDTH, HEIGHT, TOP, BOTTOM = 800, 306, 52, 250  # pixels, as all lengths here
EPOCHS = 40


class Mode(NamedTuple):
    """How the line of one record is drawn."""

    record: str
    name: str
    colour: str
    dashes: str


MODES = (
    Mode("ssat", "SSAT", "#0b66b3", "none"),
    Mode("ssl_ft", "SSL+FT", "#b45f06", "7 4"),
    Mode("scratch", "scratch", "#6a7380", "2 4"),
)


class Panel(NamedTuple):
    """One pair of axes: epochs from `left` to `right`, values from `low` at the bottom to `high` at the top."""

    title: str
    key: str
    left: int
    right: int
    low: float
    high: float
    ticks: tuple[float, ...]

    def place(self, epoch: float, value: float) -> tuple[float, float]:
        """Pixels of a value after `epoch` epochs."""
        share = (value - self.low) / (self.high - self.low)
        return self.left + epoch / EPOCHS * (self.right - self.left), BOTTOM - share * (BOTTOM - TOP)


PANELS = (
    Panel("test accuracy, %", "test/acc1", 52, 322, 50, 80, (50, 60, 70, 80)),
    Panel(
        "classification loss on the training images",
        "train/loss_cls",
        506,
        776,
        1.25,
        2.5,
        (1.25, 1.5, 1.75, 2.0, 2.25, 2.5),
    ),
)


def points(record: str, key: str) -> list[tuple[int, float]]:
    """(epochs done in all phases, value) wherever a record has `key`."""
    phases = json.loads((HERE / f"{record}.json").read_text())["phases"]
    rows = [row for phase in phases for row in phase["history"]]
    return [(epochs, row[key]) for epochs, row in enumerate(rows, 1) if key in row]


def text(x: float, y: float, words: str, *, anchor: str = "middle", size: int = 12, style: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" {style}>{words}</text>'


def axes(panel: Panel) -> list[str]:
    drawn = [text(panel.left - 34, TOP - 20, panel.title, anchor="start", size=13, style='font-weight="600"')]
    for value in panel.ticks:
        x, y = panel.place(0, value)
        drawn.append(f'<path d="M{x:.1f} {y:.1f}H{panel.right}" stroke="#dcdcd6"/>')
        drawn.append(text(x - 8, y + 4, f"{value:g}", anchor="end"))
    for epoch in range(0, EPOCHS + 1, 10):
        drawn.append(text(panel.place(epoch, panel.low)[0], BOTTOM + 18, str(epoch)))
    return [*drawn, text((panel.left + panel.right) / 2, BOTTOM + 38, "epochs over the 50,000 training images")]


def line(panel: Panel, mode: Mode) -> list[str]:
    data = points(mode.record, panel.key)
    places = [panel.place(*point) for point in data]
    path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
    drawn = [
        f'<path d="{path}" fill="none" stroke="{mode.colour}" stroke-width="2.4" stroke-dasharray="{mode.dashes}"/>'
    ]
    if panel.key != "test/acc1":
        return drawn
    drawn += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.6" fill="{mode.colour}"/>' for x, y in places]
    label = f"{mode.name} {data[-1][1]:.1f} %"
    style = f'fill="{mode.colour}" font-weight="600"'
    return [*drawn, text(places[-1][0] + 9, places[-1][1] + 4.5, label, anchor="start", size=14, style=style)]


def draw() -> str:
    """The picture as SVG, on a light card of its own so that it can be read on a dark page too."""
    x, y = PANELS[1].place(*points("ssl_ft", "train/loss_cls")[0])
    lines = ("SSL+FT starts here,", "after 20 epochs of SSL")
    notes = [
        text(x + 9, y + 14 * n, words, anchor="start", size=11, style='fill="#b45f06"') for n, words in enumerate(lines)
    ]
    body = [part for panel in PANELS for part in axes(panel)]
    body += [part for panel in PANELS for mode in MODES for part in line(panel, mode)]
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}"'
        ' font-family="system-ui, -apple-system, Segoe UI, Helvetica, Arial, sans-serif" fill="#33363b" role="img">'
    )
    title = "<title>SSAT, SSL+FT and scratch on CIFAR-10: test accuracy and training loss by epoch</title>"
    card = f'<rect x="0.5" y="0.5" width="{WIDTH - 1}" height="{HEIGHT - 1}" rx="8" fill="#fdfdfb" stroke="#d4d4ce"/>'
    return "\n".join([head, title, card, *body, *notes, "</svg>", ""])


if __name__ == "__main__":
    PICTURE.write_text(draw(), encoding="utf-8")
    print(PICTURE)
