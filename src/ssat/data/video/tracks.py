"""One face through a video: boxes linked, smoothed, interpolated and cropped as squares. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ssat.data.video.faces import Box

LEAST_IOU = 0.3
WINDOW = 5  # detections in the moving median
MARGIN = 1 / 3  # of the box, on each side


@dataclass(frozen=True)
class Track:
    """One face.

    Attributes:
        frames: (N,) int64, those in which it was found, rising.
        boxes: (N, 4) float64, x0 y0 x1 y1 in pixels.
    """

    frames: NDArray[np.int64]
    boxes: NDArray[np.float64]

    def plain(self) -> dict[str, Any]:
        """As plain values for a JSON file."""
        return {"frames": self.frames.tolist(), "boxes": self.boxes.tolist()}

    @classmethod
    def of(cls, frames: Sequence[int], boxes: Sequence[Any]) -> Track:
        """From plain values."""
        return cls(np.array(frames, np.int64), np.array([box[:4] for box in boxes], np.float64).round(2))


def iou(a: Box, b: Box) -> float:
    """Intersection over union of two boxes."""
    width, height = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
    if width <= 0 or height <= 0:
        return 0.0
    return width * height / (area(a) + area(b) - width * height)


def area(box: Box) -> float:
    """In square pixels."""
    return (box.x1 - box.x0) * (box.y1 - box.y0)


def link(found: Sequence[tuple[int, Sequence[Box]]]) -> list[Track]:
    """The faces of all searched frames as tracks, in the order of their first frames.

    A box goes on with the track whose last box it overlaps most, by LEAST_IOU or more; the best pairs are taken first.
    A track may pause: a face that is missed in some frames stays one track where it comes back at its place.

    Args:
        found: frame and boxes, by rising frame.
    """
    tracks: list[list[tuple[int, Box]]] = []
    for frame, boxes in found:
        pairs = sorted(
            ((iou(track[-1][1], box), -t, -b) for t, track in enumerate(tracks) for b, box in enumerate(boxes)),
            reverse=True,
        )
        free_tracks, free_boxes = {*range(len(tracks))}, {*range(len(boxes))}
        for overlap, t, b in pairs:
            if overlap >= LEAST_IOU and -t in free_tracks and -b in free_boxes:
                tracks[-t].append((frame, boxes[-b]))
                free_tracks.remove(-t)
                free_boxes.remove(-b)
        tracks += [[(frame, boxes[b])] for b in sorted(free_boxes)]
    return [Track.of([frame for frame, _ in track], [box for _, box in track]) for track in tracks]


def ranked(tracks: Sequence[Track]) -> list[Track]:
    """By the mean area over all searched frames, largest first.

    A frame without the face counts as 0, so that one large false box does not win over a face that is always there.
    """
    return sorted(tracks, key=lambda track: -float(_areas(track.boxes).sum()))


def _areas(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    sides = boxes[:, 2:] - boxes[:, :2]
    return sides[:, 0] * sides[:, 1]


def smoothed(track: Track, window: int = WINDOW) -> Track:
    """Each coordinate's moving median over `window` detections, so that one wrong box moves nothing.

    Towards both ends the window narrows on both sides, which keeps even motion exact. The median comes before the
    interpolation: behind it one wrong box would be a ramp of many frames, which a median of five frames keeps.
    """
    count, reach = len(track.frames), window // 2
    rows = []
    for index in range(count):
        half = min(reach, index, count - 1 - index)
        rows.append(np.median(track.boxes[index - half : index + half + 1], axis=0))
    return Track.of(track.frames.tolist(), rows)


def interpolated(track: Track, frames: Sequence[int]) -> NDArray[np.float64]:
    """(M, 4) boxes at `frames`, linear between two detections; before the first and after the last the nearest."""
    columns = [np.interp(frames, track.frames, column) for column in track.boxes.T]
    return np.stack(columns, axis=1)


def square(box: Sequence[float], margin: float = MARGIN) -> tuple[int, int, int]:
    """x0, y0 and side of the square around a box with a margin of `margin` times its longer side, in whole pixels.

    It may reach beyond the frame.
    """
    x0, y0, x1, y1 = box[:4]
    side = max(round(max(x1 - x0, y1 - y0) * (1 + 2 * margin)), 1)
    return round((x0 + x1 - side) / 2), round((y0 + y1 - side) / 2), side


def centre(width: int, height: int) -> tuple[int, int, int]:
    """x0, y0 and side of the largest square in the middle of a frame."""
    side = min(width, height)
    return (width - side) // 2, (height - side) // 2, side


def crop(frame: NDArray[np.uint8], place: tuple[int, int, int], size: int) -> NDArray[np.uint8]:
    """The square `place` of a frame (H, W, 3) as (size, size, 3); black where it reaches beyond the frame.

    Bicubic, and antialiased where it gets smaller (Pillow's filter grows with the scale).
    """
    x0, y0, side = place
    height, width = frame.shape[:2]
    left, top = min(max(x0, 0), width), min(max(y0, 0), height)
    right, bottom = max(min(x0 + side, width), left), max(min(y0 + side, height), top)
    if (right - left, bottom - top) == (side, side):
        patch = frame[top:bottom, left:right]
    else:
        patch = np.zeros((side, side, 3), np.uint8)
        patch[top - y0 : bottom - y0, left - x0 : right - x0] = frame[top:bottom, left:right]
    if side == size:
        return np.ascontiguousarray(patch)
    image = Image.fromarray(np.ascontiguousarray(patch))
    return np.asarray(image.resize((size, size), Image.Resampling.BICUBIC))
