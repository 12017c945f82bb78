"""Videos of no set: found below a folder, and prepared in the way of those that a network was trained on."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ssat.data.video import decode, tracks
from ssat.data.video.decode import BadVideo, Counts
from ssat.data.video.faces import Box
from ssat.data.video.manifest import Entry, Video, entry_of
from ssat.data.video.places import unwritable
from ssat.data.video.pool import Lost, run
from ssat.data.video.preparation import NO_FACE, PrepareOptions, Tools, prepare_video, search
from ssat.data.video.store import write_clip
from ssat.data.video.tracks import Track

MOST_FACES = 8  # of a video that are scored, the largest ones
# Detections of a face that is scored, their share of the searched frames between the first and the last, and their mean
# score by MTCNN: in real videos hands and pictures had 0.72 to 0.92, faces 0.96 and more. Less is taken for a false box
# where there is something better.
LEAST_FOUND, LEAST_SHARE, LEAST_SCORE = 5, 0.5, 0.95
STILLS, STILL_SIZE = 8, (480, 360)  # full frames of a picture, and the pixels they fit into
SECONDS, SLOWEST = 120.0, 10.0  # a video may take that long, and so many times its own length
DATASET = "input"
Work = Callable[[tuple[int, Video]], "Unseen"]


@dataclass(frozen=True)
class Unseen:
    """What became of one video.

    Attributes:
        entry: of the video, or of its largest face.
        faces: one entry with stored frames for each face that is scored, the largest first.
        tracks: where a detector saw each of them; None for the only one.
        more: faces that are not scored, because they are too many or hardly found.
        stills: stored full frames, see `write_stills`; empty without any.
    """

    entry: Entry
    faces: tuple[Entry, ...] = ()
    tracks: tuple[Track | None, ...] = ()
    more: int = 0
    stills: str = ""


def prepared(
    folder: Path,
    names: Sequence[str],
    out: Path,
    options: PrepareOptions,
    *,
    every_face: bool = False,
    device: str = "cpu",
    workers: int = 1,
) -> Generator[tuple[int, Unseen], None, None]:
    """Prepare files in processes of their own, which a bad file may end without ending this one.

    Args:
        folder: of the files.
        names: of the files in it.
        out: of each file a folder below it, see `place_of`, which the taker of its result may remove.
        options: of the store.
        every_face: whether all faces are followed, and not only the largest.
        device: of the detector.
        workers: processes; 0 works in this one, which a bad file may end.

    Yields:
        The number of a file and what became of it.

    Raises:
        UserError: `out` cannot be written, or a package is missing.
    """
    seconds = SECONDS + SLOWEST * options.max_seconds
    start = partial(_start if workers else _alone, folder, out, options, device, every_face)
    videos = {number: _video(number, name) for number, name in enumerate(names)}
    work = run(start, deque(videos.items()), workers=workers, seconds=lambda _: seconds, bounded=device == "cpu")
    for (number, video), result in work:
        if isinstance(result, Lost):
            status: Any = "timeout" if result.timed_out else "corrupt"
            result = Unseen(entry_of(video, status=status, reason=result.reason))
        yield number, result


def _video(number: int, name: str) -> Video:
    # Its number, because the name of a stranger's file may be too long for one of the store.
    return Video(DATASET, f"{number:06d}", name, 0, "")


def place_of(out: Path, number: int) -> Path:
    """The folder of what was made of file `number`."""
    return out / f"{number:06d}"


def _start(folder: Path, out: Path, options: PrepareOptions, device: str, every_face: bool) -> Work:
    """The work of a process of its own: with one thread, as where a set is prepared."""
    import torch

    torch.set_num_threads(1)
    return _alone(folder, out, options, device, every_face)


def _alone(folder: Path, out: Path, options: PrepareOptions, device: str, every_face: bool) -> Work:
    tools = Tools.of(options, device)

    def work(task: tuple[int, Video]) -> Unseen:
        return prepare_unseen(task[1], folder, place_of(out, task[0]), options, tools, every_face=every_face)

    return work


def prepare_unseen(
    video: Video, folder: Path, out: Path, options: PrepareOptions, tools: Tools, *, every_face: bool = False
) -> Unseen:
    """Prepare one video as `prepare_video` does, and keep some full frames of it.

    Raises:
        UserError: `out` cannot be written, or a package is missing.
    """
    if every_face and options.detects:
        result = _every_face(video, folder, out, options, tools)
    else:
        entry = prepare_video(video, folder, out, options, tools)
        result = Unseen(entry, (entry,), (None,)) if entry.clip else Unseen(entry)
    if not result.faces:
        return result
    stills = f"stills/{video.video_id}.zip"
    try:
        write_stills(folder / video.path, out / stills, options, result.faces[0].n_stored)
    except BadVideo as error:  # it has changed since
        return Unseen(replace(result.entry, status="corrupt", reason=error.reason))
    except OSError as error:
        raise unwritable(out, error) from error
    return replace(result, stills=stills)


def _every_face(video: Video, folder: Path, out: Path, options: PrepareOptions, tools: Tools) -> Unseen:
    counts = Counts()
    try:
        found = search(folder / video.path, options, tools, counts)
    except (BadVideo, MemoryError):
        return Unseen(prepare_video(video, folder, out, options, tools))  # fails likewise, with its reason
    ranked = tracks.ranked(tracks.link(found))
    if not ranked:
        seen = {"n_frames": counts.n_frames, "n_decode_errors": counts.n_errors, "fps": counts.fps}
        seen |= {"width": counts.width, "height": counts.height}
        return Unseen(entry_of(video, status="no_face", reason=NO_FACE, **seen))
    scores = {(frame, tuple(np.round(box[:4], 2))): box.score for frame, boxes in found for box in boxes}
    often = [track for track in ranked if _is_sure(track, options, scores)] or ranked[:1]
    most = max(len(boxes) for _, boxes in found)
    chosen, faces = often[:MOST_FACES], []
    for number, track in enumerate(chosen, 1):
        one = replace(video, video_id=f"{video.video_id}-{number}")
        smooth = tracks.smoothed(track)
        rows = [(int(frame), Box(*box)) for frame, box in zip(smooth.frames, smooth.boxes, strict=True)]
        entry = prepare_video(one, folder, out, replace(options, detector="boxes"), Tools(boxes={one.video_id: rows}))
        rate = round(len(track.frames) / len(found), 4)
        faces.append(replace(entry, n_faces=most, det_rate=rate))
    usable = [(face, track) for face, track in zip(faces, chosen, strict=True) if face.clip]
    more = len(ranked) - len(chosen)
    return Unseen(faces[0], tuple(face for face, _ in usable), tuple(track for _, track in usable), more)


def _is_sure(track: Track, options: PrepareOptions, scores: dict[tuple[int, tuple[float, ...]], float]) -> bool:
    count, span = len(track.frames), int(track.frames[-1] - track.frames[0]) + options.every
    own = [scores[int(frame), tuple(box)] for frame, box in zip(track.frames, track.boxes, strict=True)]
    is_face = options.detector != "mtcnn" or float(np.mean(own)) >= LEAST_SCORE
    return is_face and count >= LEAST_FOUND and count * options.every >= LEAST_SHARE * span


def write_stills(path: Path, target: Path, options: PrepareOptions, n_stored: int) -> int:
    """Store up to STILLS full frames, spread evenly over the stored ones, within STILL_SIZE; returns their number.

    The file's `meta` has the numbers among the stored frames, `places`, the seconds, and `width` and `height` of the
    upright frames.

    Raises:
        BadVideo: the file cannot be decoded any more.
    """
    count = min(STILLS, n_stored)
    wanted = {int((number + 0.5) * n_stored / count) for number in range(count)}
    meta: dict[str, Any] = {"places": [], "seconds": []}
    counts = Counts()

    def small() -> Generator[NDArray[np.uint8], None, None]:
        found = decode.frames(
            path, stride=options.stride, max_frames=max(wanted) + 1, max_seconds=options.max_seconds, counts=counts
        )
        for place, frame in enumerate(found):
            if place not in wanted:
                continue
            meta["places"].append(place)
            meta["seconds"].append(round(frame.seconds, 4))
            meta.update(width=counts.width, height=counts.height)
            image = Image.fromarray(frame.image)
            image.thumbnail(STILL_SIZE)
            yield np.asarray(image)

    return write_clip(target, small(), meta, quality=90)
