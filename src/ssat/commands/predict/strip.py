"""The picture of one video: frames over time with the face, what the network saw of it, and its score."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from ssat.core.files import replacing
from ssat.core.words import printable
from ssat.data.video.manifest import Entry
from ssat.data.video.store import StoredClip
from ssat.data.video.tracks import Track
from ssat.data.video.unseen import STILLS, Unseen
from ssat.runs.predicted import Judge, Predicted

DPI = 130
WIDTH, LEFT, RIGHT, GAP = 12.0, 0.95, 1.05, 0.05  # inches
HEAD, FOOT, CURVE, BETWEEN = 0.62, 0.72, 1.75, 0.30
TALLEST = 2.0  # of a frame
INK, PALE = "#33383f", "#8a9099"
COLOURS = ("#c2410c", "#0b66b3", "#2f7d4f", "#7c3aad", "#8a6d00", "#00838f", "#b3261e", "#6a7380")


@dataclass(frozen=True)
class Shot:
    """A moment of the video.

    Attributes:
        second: of it.
        image: (h, w, 3) small full frame.
        squares: of each face (x0, y0, side) in pixels of `image`; None while it is not seen.
        crops: of each face (H, W, 3); None while it is not seen.
    """

    second: float
    image: NDArray[np.uint8]
    squares: list[tuple[float, float, float] | None]
    crops: list[NDArray[np.uint8] | None]


def shots(root: Path, unseen: Unseen) -> list[Shot]:
    """The stored full frames with the faces in them.

    Raises:
        UserError: a stored file is damaged.
    """
    stills = StoredClip(root / unseen.stills)
    faces = [StoredClip(root / face.clip) for face in unseen.faces]
    images = stills.read(range(len(stills))).permute(0, 2, 3, 1).numpy()
    found = []
    for number, (place, second) in enumerate(zip(stills.meta["places"], stills.meta["seconds"], strict=True)):
        scale = images[number].shape[1] / stills.meta["width"]
        squares: list[tuple[float, float, float] | None] = []
        crops: list[NDArray[np.uint8] | None] = []
        for face, entry, track in zip(faces, unseen.faces, unseen.tracks, strict=True):
            if place >= entry.n_stored or not is_seen(track, face.meta["frames"][place]):
                squares.append(None)
                crops.append(None)
                continue
            x0, y0, side = face.meta["squares"][place]
            squares.append((x0 * scale, y0 * scale, side * scale))
            crops.append(face.read([place])[0].permute(1, 2, 0).numpy())
        found.append(Shot(second, images[number], squares, crops))
    return found


def is_seen(track: Track | None, frame: int) -> bool:
    """Whether a face is there in a frame: from its first to its last detection."""
    return track is None or bool(track.frames[0] <= frame <= track.frames[-1])


def draw(path: Path, row: Predicted, unseen: Unseen, root: Path, judge: Judge, network: str) -> None:
    """Write the picture.

    Args:
        path: of the PNG, which is there whole or not at all.
        row: the prediction.
        unseen: what was made of the video.
        root: folder of what was made.
        judge: threshold and names.
        network: named below the picture.

    Raises:
        UserError: a stored file is damaged.
    """
    moments = shots(root, unseen)
    count, faces = len(moments), len(row.faces)
    column = (WIDTH - LEFT - RIGHT) / max(count, STILLS // 2)
    height, width = moments[0].image.shape[:2]
    tall = min(column * height / width, TALLEST)
    crop = min(column, TALLEST if faces == 1 else 0.95)
    total = HEAD + tall + 0.22 + faces * (crop + GAP) + BETWEEN + CURVE + FOOT
    figure = Figure(figsize=(WIDTH, total), dpi=DPI, facecolor="white")

    def place(left: float, top: float, wide: float, high: float) -> Any:
        return figure.add_axes((left / WIDTH, 1 - (top + high) / total, wide / WIDTH, high / total))

    _head(figure, total, row, judge)
    end = max(clip.end for face in row.faces for clip in face.clips)
    wide = column * count
    for number, moment in enumerate(moments):
        left = LEFT + number * column
        axis = place(left, HEAD + 0.22, column - GAP, tall)
        _frame(axis, moment, faces)
        axis.set_title(clock(moment.second, end), fontsize=8, color=INK, pad=3)
        for face in range(faces):
            top = HEAD + 0.22 + tall + GAP + face * (crop + GAP)
            _crop(place(left, top, column - GAP, crop), moment.crops[face], COLOURS[face], many=faces > 1)
    _side_labels(figure, total, tall, crop, row, judge)
    curve = place(LEFT, total - FOOT - CURVE, wide - GAP, CURVE)
    _curve(curve, row, judge, [moment.second for moment in moments], end)
    note = f"{network}. A probability is the score of this network and no proof."
    figure.text(LEFT / WIDTH, 0.10 / total, plain(note), fontsize=7, color=PALE)
    with warnings.catch_warnings(), replacing(path) as partial:
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # a file's name in another script
        figure.savefig(partial, format="png")


def _head(figure: Figure, total: float, row: Predicted, judge: Judge) -> None:
    scored, verdict = judge.scored(row.probs), judge.classes[judge.label(row.probs)]
    name = plain(row.name if len(row.name) <= 80 else f"…{row.name[-79:]}")
    figure.text(LEFT / WIDTH, 1 - 0.26 / total, name, fontsize=12, color=INK, weight="bold")
    of_face = f"face {row.face + 1} of {len(row.faces)}, " if len(row.faces) > 1 else ""
    clips = len(row.faces[row.face].clips)
    facts = [
        f"score of {judge.classes[scored]} {row.probs[scored]:.3f}, threshold {judge.threshold:g}: {verdict}"
        if len(judge.classes) == 2
        else f"{verdict} {row.probs[scored]:.3f}",
        f"{of_face}mean of {clips} clip{'s' * (clips != 1)}",
        f"{row.width} x {row.height}, {row.fps:.4g} frames/s" if row.fps else f"{row.width} x {row.height}",
        *([f"not scored: {row.more_faces} smaller or doubtful"] if row.more_faces else []),
        *([row.status] if row.status != "ok" else []),
    ]
    figure.text(LEFT / WIDTH, 1 - 0.47 / total, plain("   ·   ".join(facts)), fontsize=9, color=INK)


def _side_labels(figure: Figure, total: float, tall: float, crop: float, row: Predicted, judge: Judge) -> None:
    def beside(middle: float, text: str, colour: str, weight: str = "normal") -> None:
        figure.text(
            (LEFT - 0.12) / WIDTH,
            1 - middle / total,
            text,
            fontsize=8,
            color=colour,
            ha="right",
            va="center",
            weight=weight,
        )

    beside(HEAD + 0.22 + tall / 2, "frame", INK)
    for number, face in enumerate(row.faces):
        middle = HEAD + 0.22 + tall + GAP + number * (crop + GAP) + crop / 2
        if len(row.faces) == 1:
            beside(middle, "what the\nnetwork\nsees", INK)
            continue
        counts = number == row.face
        text = f"face {number + 1}\n{face.probs[judge.scored(row.probs)]:.3f}{chr(10) + 'counts' if counts else ''}"
        beside(middle, text, COLOURS[number], "bold" if counts else "normal")


def _frame(axis: Any, moment: Shot, faces: int) -> None:
    axis.imshow(moment.image)
    axis.set_axis_off()
    for number, square in enumerate(moment.squares):
        if square is None:
            continue
        x0, y0, side = square
        axis.add_patch(Rectangle((x0, y0), side, side, fill=False, linewidth=1.6, edgecolor=COLOURS[number]))
        if faces > 1:
            box = {"facecolor": COLOURS[number], "edgecolor": "none", "pad": 1.0}
            axis.text(x0, y0, str(number + 1), fontsize=7, color="white", va="top", bbox=box, clip_on=True)


def _crop(axis: Any, crop: NDArray[np.uint8] | None, colour: str, *, many: bool) -> None:
    axis.set_xticks([])
    axis.set_yticks([])
    axis.spines[:].set_visible(False)
    if crop is None:
        axis.text(0.5, 0.5, "–", color=PALE, ha="center", va="center", transform=axis.transAxes)
        return
    axis.imshow(crop)
    if many:
        side = crop.shape[0]
        axis.add_patch(Rectangle((-0.5, -0.5), side, side, fill=False, linewidth=3, edgecolor=colour))


def _curve(axis: Any, row: Predicted, judge: Judge, seconds: Sequence[float], end: float) -> None:
    scored = judge.scored(row.probs)
    order = sorted(range(len(row.faces)), key=lambda number: number == row.face)  # what counts lies on top
    peak = row.faces[row.face].peak(scored)
    if peak is not None and len(row.faces[row.face].clips) > 1:
        axis.axvspan(peak.begin, peak.end, color=COLOURS[row.face], alpha=0.12, linewidth=0)
        text, middle = f"highest {peak.probs[scored]:.3f}", (peak.begin + peak.end) / 2
        low = peak.probs[scored] > 0.5  # the other half of the axes is free there
        axis.text(middle, 0.06 if low else 0.94, text, fontsize=7, color=COLOURS[row.face], ha="center", va="center")
    for number in order:
        clips, colour = row.faces[number].clips, COLOURS[number]
        counts = number == row.face
        middles, values = [(c.begin + c.end) / 2 for c in clips], [c.probs[scored] for c in clips]
        axis.plot(middles, values, color=colour, linewidth=1.0, alpha=0.55 if counts else 0.3)
        axis.hlines(
            values,
            [c.begin for c in clips],
            [c.end for c in clips],
            color=colour,
            linewidth=3.2 if counts else 2.0,
            alpha=1.0 if counts else 0.6,
        )
    axis.set_xlim(0, end)
    axis.set_ylim(-0.03, 1.03)
    axis.set_yticks([0, 0.25, 0.5, 0.75, 1.0], ["0", "", "0.5", "", "1"])
    axis.set_ylabel(plain(f"score: {judge.classes[scored]}"), fontsize=9, color=INK)
    axis.xaxis.set_major_locator(MaxNLocator(nbins=9, steps=[1, 2, 3, 5, 6, 10]))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: clock(value, end).removesuffix(" s")))
    axis.set_xlabel("time (min:s)" if end > 120 else "time (s)", fontsize=9, color=INK)
    axis.tick_params(labelsize=8, colors=INK, length=3)
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(axis="y", color="#ecebe7")
    axis.set_axisbelow(True)
    axis.plot(seconds, [1.03] * len(seconds), "v", color=PALE, markersize=4, clip_on=False)  # of the frames above
    _right_labels(axis, row, judge, scored)


def _right_labels(axis: Any, row: Predicted, judge: Judge, scored: int) -> None:
    """The mean and the threshold, which may be near each other."""
    mean = row.probs[scored]
    lines = [(mean, f"mean {mean:.3f}", COLOURS[row.face], "-")]
    if len(judge.classes) == 2:
        axis.axhline(judge.threshold, color=INK, linewidth=0.9, linestyle=(0, (5, 4)))
        lines.append((judge.threshold, f"threshold {judge.threshold:g}", INK, "--"))
    lines.sort()
    heights = [height for height, *_ in lines]
    if len(lines) == 2 and heights[1] - heights[0] < 0.12:
        middle = min(max(sum(heights) / 2, 0.06), 0.94)
        heights = [middle - 0.06, middle + 0.06]
    for height, (_, text, colour, _) in zip(heights, lines, strict=True):
        axis.text(1.01, height, text, fontsize=8, color=colour, va="center", transform=axis.get_yaxis_transform())


def clock(second: float, end: float) -> str:
    """A moment as '3.2 s', in a video of more than two minutes as '1:05'."""
    if end > 120:
        return f"{int(second) // 60}:{int(second) % 60:02d}"
    return f"{second:.1f} s" if second % 1 else f"{second:.0f} s"


def plain(text: str) -> str:
    """Text in which matplotlib sees no formula, and no file's name a command."""
    return printable(text).replace("$", r"\$")


def seen_during(track: Track | None, entry: Entry, root: Path) -> tuple[float, float] | None:
    """The seconds from a face's first to its last detection; None for all of the video."""
    if track is None:
        return None
    meta = StoredClip(root / entry.clip).meta
    frames, seconds = meta["frames"], meta["seconds"]
    begin, end = np.interp([track.frames[0], track.frames[-1]], frames, seconds)
    return float(begin), float(end)
