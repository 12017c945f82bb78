"""Face detectors behind one small interface, and boxes that the user has already."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ssat.core.errors import UserError
from ssat.core.read import read_json
from ssat.data.sets.checks import listed

DetectorName = Literal["mtcnn", "none", "boxes", "mediapipe"]
DETECTORS: tuple[DetectorName, ...] = get_args(DetectorName)
SEARCHING: tuple[DetectorName, ...] = ("mtcnn", "mediapipe")  # of them look for faces
THRESHOLDS = [0.6, 0.7, 0.7]  # of MTCNN's three networks; at .85/.95/.95 it misses a face in 20 real frames
LEAST_FACE = 20  # pixels, in the scaled frame
BATCH, BATCH_PIXELS = 8, 17_000_000  # frames that are searched at once: eight of 1080p
FARTHEST = 16384.0  # pixels, of a user's box
BOXES_FORM = '{"<video_id>": [[frame, x0, y0, x1, y1], ...], ...}'


class Box(NamedTuple):
    """A face, in pixels of the frame; x1 and y1 are the first column and row behind it."""

    x0: float
    y0: float
    x1: float
    y1: float
    score: float = 1.0


class Detector(Protocol):
    """Finds faces."""

    def detect(self, frames: Sequence[NDArray[np.uint8]]) -> list[list[Box]]:
        """The faces in each of `frames`, (H, W, 3) RGB of one size, in any order."""
        ...


def batch_size(width: int, height: int) -> int:
    """How many frames of this size are searched at once."""
    return max(1, min(BATCH, BATCH_PIXELS // (width * height)))


def detector_of(name: DetectorName, device: str = "cpu") -> Detector:
    """The detector of that name.

    Args:
        name: mtcnn or mediapipe; the other two detect nothing.
        device: of mtcnn.

    Raises:
        UserError: its package is not installed, or the device is not there.
    """
    return Mtcnn(device) if name == "mtcnn" else Mediapipe()


def refuse_missing(name: DetectorName, device: str = "cpu") -> None:
    """Refuse a detector whose package is not installed, without the seconds that it takes to load MTCNN.

    Raises:
        UserError: as `detector_of` does.
    """
    if name == "mtcnn" and device == "cpu":
        if find_spec("facenet_pytorch") is None:
            raise _no_mtcnn()
    elif name in SEARCHING:
        detector_of(name, device)


def _no_mtcnn() -> UserError:
    return UserError(
        'detector=mtcnn needs the package facenet-pytorch, which is not installed: pip install "ssat[video]", or take'
        " detector=none for videos that show a face only",
        key="detector",
        value="mtcnn",
    )


def scaled(frame: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], float]:
    """The frame at the size at which faces are searched, and how many of its pixels one of the frame's is.

    The rule of the DFDC winner: longest side below 300 pixels x 2, to 1000 x 1, to 1900 x 1/2, above x 1/3.
    """
    height, width = frame.shape[:2]
    longest = max(height, width)
    if longest < 300:
        return np.asarray(Image.fromarray(frame).resize((2 * width, 2 * height), Image.Resampling.BILINEAR)), 2.0
    if longest <= 1000:
        return frame, 1.0
    factor = 2 if longest <= 1900 else 3
    return np.asarray(Image.fromarray(frame).reduce(factor)), 1 / factor


class Mtcnn:
    """MTCNN (Zhang et al. 2016) of facenet-pytorch, whose package carries the weights.

    Args:
        device: cpu or cuda.

    Raises:
        UserError: the package is not installed, or there is no such device.
    """

    def __init__(self, device: str = "cpu") -> None:
        try:
            from facenet_pytorch import MTCNN
        except ImportError:
            raise _no_mtcnn() from None
        import torch

        if device.startswith("cuda") and not torch.cuda.is_available():
            raise UserError(f"device={device} is not possible: PyTorch finds no GPU; leave it out", value=device)
        self._net = MTCNN(
            keep_all=True, min_face_size=LEAST_FACE, thresholds=THRESHOLDS, device=torch.device(device)
        ).eval()

    def detect(self, frames: Sequence[NDArray[np.uint8]]) -> list[list[Box]]:
        """See `Detector`."""
        small, factors = zip(*map(scaled, frames), strict=True)
        if min(small[0].shape[:2]) < LEAST_FACE:
            return [[] for _ in frames]  # MTCNN raises where no level of its pyramid is left
        try:
            found = self._boxes(np.stack(small))
        except (RuntimeError, IndexError) as error:
            # It drops candidates without area but not their rows, and fails over the counts: no face. Not so a memory
            # that is full.
            if isinstance(error, RuntimeError) and "non-empty list" not in str(error):
                raise
            return [[]] if len(frames) == 1 else [boxes for frame in frames for boxes in self.detect([frame])]
        return [[_unscaled(box, factors[0]) for box in boxes] for boxes in found]

    def _boxes(self, images: NDArray[np.uint8]) -> list[list[list[float]]]:
        """x0 y0 x1 y1 score of each face of each image."""
        found = []
        for boxes, scores in zip(*self._net.detect(images), strict=True):
            rows = [] if boxes is None else zip(boxes, scores, strict=True)
            found.append([[float(value) for value in (*box, score)] for box, score in rows])
        return found


def _unscaled(row: Sequence[float], factor: float) -> Box:
    x0, y0, x1, y1 = (side / factor for side in row[:4])
    return Box(x0, y0, x1, y1, row[4])


class Mediapipe:
    """The full-range face detection of mediapipe, which is ten times as fast as MTCNN on a CPU.

    Raises:
        UserError: the package is not installed, or a version without its models.
    """

    def __init__(self) -> None:
        advice = 'pip install "mediapipe==0.10.21" (newer ones come without the model), or take detector=mtcnn'
        try:
            from mediapipe import solutions

            self._net: Any = solutions.face_detection.FaceDetection(model_selection=1, min_detection_confidence=0.5)
        except ImportError:
            message = f"detector=mediapipe needs the package mediapipe, which is not installed: {advice}"
            raise UserError(message, key="detector", value="mediapipe") from None
        except (AttributeError, FileNotFoundError, RuntimeError, ValueError) as error:
            message = f"detector=mediapipe: this version of mediapipe has no face detection of its own: {advice}"
            raise UserError(message, key="detector", value="mediapipe") from error

    def detect(self, frames: Sequence[NDArray[np.uint8]]) -> list[list[Box]]:
        """See `Detector`."""
        return [self._boxes(frame) for frame in frames]

    def _boxes(self, frame: NDArray[np.uint8]) -> list[Box]:
        height, width = frame.shape[:2]
        found = []
        for face in self._net.process(np.ascontiguousarray(frame)).detections or []:
            box = face.location_data.relative_bounding_box
            x0, y0 = box.xmin * width, box.ymin * height
            found.append(Box(x0, y0, x0 + box.width * width, y0 + box.height * height, float(face.score[0])))
        return found


Boxes = dict[str, list[tuple[int, Box]]]  # of each video, by its frames


def read_boxes(path: Path) -> Boxes:
    """The user's own boxes of each video, ordered by frame.

    Args:
        path: a JSON file of the form BOXES_FORM, with frames counted from 0 and pixels of the upright frame.

    Raises:
        UserError: the file is not of that form.
    """
    try:
        content = read_json(path, unique=True)
        if not isinstance(content, dict) or not content:
            raise ValueError("it is no mapping of videos")
        return {str(video): _rows(video, rows) for video, rows in content.items()}
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(
            f"boxes={path} cannot be read ({reason}): it must be JSON of the form {BOXES_FORM}",
            key="boxes",
            value=str(path),
        ) from error


def first_outside(rows: Sequence[tuple[int, Box]], width: int, height: int) -> int | None:
    """The first frame whose box shows nothing of a frame of this size."""
    for frame, box in rows:
        if box.x1 <= 0 or box.y1 <= 0 or box.x0 >= width or box.y0 >= height:
            return frame
    return None


def of_no_video(path: Path, videos: Collection[str]) -> list[str]:
    """One remark on the videos in a file of boxes that the set does not have; [] without any.

    Raises:
        UserError: see `read_boxes`.
    """
    strangers = sorted(read_boxes(path).keys() - {*videos})
    are = "videos that are" if len(strangers) > 1 else "video that is"
    return [f"boxes={path} has {len(strangers):,} {are} not in the set: {listed(strangers, 3)}"] if strangers else []


def _rows(video: str, rows: Any) -> list[tuple[int, Box]]:
    """Checked, in order; two boxes for a frame are refused, because one face is followed."""
    if not isinstance(rows, list) or not rows:
        raise ValueError(f"{video} has no list of boxes")
    found: dict[int, Box] = {}
    for row in rows:
        # `type` because True is an int.
        if not isinstance(row, list) or len(row) != 5 or any(type(value) not in (int, float) for value in row):
            raise ValueError(f"{video}: {str(row)[:60]} is no [frame, x0, y0, x1, y1]")
        frame, box = row[0], Box(*map(float, row[1:]))
        if type(frame) is not int or frame < 0 or frame in found:
            raise ValueError(f"{video}: frame {frame} is no new whole number from 0 on")
        if not all(math.isfinite(value) and abs(value) <= FARTHEST for value in box) or not _has_area(box):
            raise ValueError(f"{video}: the box of frame {frame} has no area, or lies outside of any frame")
        found[frame] = box
    return sorted(found.items())


def _has_area(box: Box) -> bool:
    return box.x1 > box.x0 and box.y1 > box.y0
