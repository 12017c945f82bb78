"""One video from its file to the clip store: find a face, follow it, crop it, store the crops."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ssat.core.files import file_sha256
from ssat.core.words import many
from ssat.data.video import decode, tracks
from ssat.data.video.decode import BadVideo, Counts, judged, probe
from ssat.data.video.faces import SEARCHING, Box, Boxes, Detector, DetectorName, batch_size, detector_of, first_outside
from ssat.data.video.manifest import Entry, Status, Video, entry_of
from ssat.data.video.places import clip_path, remove, unwritable
from ssat.data.video.store import Coding, StoredClip, write_clip
from ssat.data.video.tracks import Track

CLIP_FRAMES = 16  # of the clips that are trained on
NO_FACE, NO_BOXES = "no face was found in it", "the file of boxes has none for it"
REPEATS = f"stored, fewer than a clip of {CLIP_FRAMES}, which repeats the last one"
NoFace = Literal["skip", "center_crop"]
OWN_BOXES = "the boxes are its own"


@dataclass(frozen=True)
class PrepareOptions:
    """What decides the content of the store.

    Attributes:
        detector: of faces; none takes the largest square in the middle.
        every: distance in frames of those that are searched for faces.
        size: of the stored crops, pixels.
        stride: distance in frames of those that are stored.
        max_frames: that are stored of a video at most.
        max_seconds: of a video that are read at most.
        coding, quality: see `write_clip`.
        reuse_original_boxes: whether a fake is cropped where its original's face was found, so that what a detector
            does on fakes tells no label.
        no_face: what becomes of a video without a face: skip stores nothing, center_crop the middle of its frames.
        boxes_sha256: of the file with the user's own boxes (detector=boxes).
    """

    detector: DetectorName = "mtcnn"
    every: int = 5
    size: int = 256
    stride: int = 4
    max_frames: int | None = None
    max_seconds: float = decode.MAX_SECONDS
    coding: Coding = "jpeg"
    quality: int = 95
    reuse_original_boxes: bool = True
    no_face: NoFace = "skip"
    boxes_sha256: str = ""

    def passport(self) -> dict[str, Any]:
        """How the crops were made, as plain values: clips of another passport look different."""
        margin = 0.0 if self.detector == "none" else round(tracks.MARGIN, 4)
        return {**vars(self), "margin": margin}

    @property
    def detects(self) -> bool:
        """Whether faces are searched."""
        return self.detector in SEARCHING


@dataclass(frozen=True)
class Tools:
    """What a worker keeps from video to video.

    Attributes:
        detector: None where nothing is detected.
        boxes: the user's own.
    """

    detector: Detector | None = None
    boxes: Boxes = field(default_factory=dict)

    @classmethod
    def of(cls, options: PrepareOptions, device: str = "cpu", boxes: Boxes | None = None) -> Tools:
        """For these options.

        Raises:
            UserError: a package or the device is missing.
        """
        return cls(detector_of(options.detector, device) if options.detects else None, boxes or {})


@dataclass(frozen=True)
class Face:
    """The face that is cropped from a video.

    Attributes:
        track: smoothed; None stands for the middle of the frame.
        n_faces, det_rate: see `Entry`.
        source: detector, file, centre, or the video_id whose boxes these are.
        remark: why it is not the usual source.
    """

    track: Track | None
    n_faces: int = 0
    det_rate: float = 0.0
    source: str = "centre"
    remark: str = ""


def prepare_video(
    video: Video,
    raw: Path,
    out: Path,
    options: PrepareOptions,
    tools: Tools | None = None,
    original: Entry | None = None,
) -> Entry:
    """Prepare one video; the row says what became of it.

    Its frames are decoded twice where a face must be found first, and once otherwise: a track must be known to its end
    before the first crop, and the frames of a whole video never lie in memory.

    Args:
        video: of the set.
        raw: folder of the original videos.
        out: prepared folder; the video's file there appears whole or not at all.
        options: of the store.
        tools: of this process; by default made for this call.
        original: row of the prepared original that a fake was made of.

    Raises:
        UserError: the store cannot be written, or a package is missing.
    """
    path, target = raw / video.path, out / clip_path(video)
    counts = Counts()
    try:
        if {"..", "/"} & {*PurePosixPath(video.path).parts, *PurePosixPath(video.video_id).parts}:
            raise BadVideo(path, "its path leads out of the folder")
        if not os.path.isfile(path):
            remove(target)
            return entry_of(video, status="missing", reason="the file is not there")
        face = _face(video, path, out, options, tools or Tools.of(options), original, counts)
        nothing = NO_BOXES if options.detector == "boxes" else NO_FACE
        if face is None and options.no_face == "skip":
            remove(target)
            return _row(video, counts, "no_face", nothing)
        face = face or Face(None, remark=f"{nothing}: the middle of its frames")
        counts = Counts()
        return _stored(video, path, target, options, face, counts)
    except BadVideo as error:
        remove(target)
        return _row(video, counts, "corrupt", error.reason)
    except MemoryError:
        remove(target)
        return _row(video, counts, "corrupt", "it needs more memory than a worker may use")
    except OSError as error:
        raise unwritable(out, error) from error


def lost(video: Video, out: Path, status: Status, reason: str) -> Entry:
    """The row of a video whose worker ended; removes what may be left of it.

    Raises:
        UserError: the store cannot be written.
    """
    try:
        remove(out / clip_path(video))
    except OSError as error:
        raise unwritable(out, error) from error
    return entry_of(video, status=status, reason=reason)


def _row(video: Video, counts: Counts, status: Status, reason: str, **found: Any) -> Entry:
    return entry_of(
        video,
        status=status,
        reason=reason,
        n_frames=counts.n_frames,
        n_decode_errors=counts.n_errors,
        fps=counts.fps,
        width=counts.width,
        height=counts.height,
        **found,
    )


def _face(
    video: Video,
    path: Path,
    out: Path,
    options: PrepareOptions,
    tools: Tools,
    original: Entry | None,
    counts: Counts,
) -> Face | None:
    """Where to crop; None where no face is found. Fills `counts` if it decodes."""
    if options.detector == "none":
        return Face(None)
    if options.detector == "boxes":
        rows = tools.boxes.get(video.video_id)
        if rows is None:
            return None
        shape = probe(path)
        outside = first_outside(rows, shape.width, shape.height)
        if outside is not None:
            raise BadVideo(
                path, f"the box of frame {outside} lies outside of its {shape.width} x {shape.height} pixels"
            )
        track = Track.of([frame for frame, _ in rows], [box for _, box in rows])
        return Face(track, 1, 1.0, "file")
    remark = ""
    if options.reuse_original_boxes and video.source_id:
        borrowed = _borrowed(path, out, original)
        if isinstance(borrowed, Face):
            return borrowed
        remark = f"{OWN_BOXES}, because {borrowed}"
    found = search(path, options, tools, counts)
    best = tracks.ranked(tracks.link(found))
    judged(path, counts)
    if not best:
        return None
    most = max(len(boxes) for _, boxes in found)
    rate = round(len(best[0].frames) / len(found), 4)
    return Face(tracks.smoothed(best[0]), most, rate, options.detector, remark)


def _borrowed(path: Path, out: Path, original: Entry | None) -> Face | str:
    """The face of the original, or why it cannot be used."""
    if original is None:
        return "its original is not among the videos"
    if not original.clip or not (out / original.clip).is_file():
        return f"its original is {original.status}"
    shape = probe(path)
    if (shape.width, shape.height) != (original.width, original.height):
        return "its original has another frame size"
    track = StoredClip(out / original.clip).meta["track"]
    track = None if track is None else Track.of(**track)
    remark = "" if track else "no face was found in its original: the middle of its frames"
    return Face(track, original.n_faces, original.det_rate, original.video_id, remark)


def search(path: Path, options: PrepareOptions, tools: Tools, counts: Counts) -> list[tuple[int, list[Box]]]:
    """The boxes of every `every`-th frame that the stored frames need, in batches.

    Raises:
        BadVideo: see `decode.frames`.
    """
    assert tools.detector is not None
    last = None if options.max_frames is None else options.stride * (options.max_frames - 1)
    most = None if last is None else last // options.every + 2  # one behind the last that is stored
    frames = decode.frames(path, stride=options.every, max_frames=most, max_seconds=options.max_seconds, counts=counts)
    found: list[tuple[int, list[Box]]] = []
    size = 1
    while batch := list(islice(frames, size)):
        boxes = tools.detector.detect([frame.image for frame in batch])
        found += [(frame.index, of_frame) for frame, of_frame in zip(batch, boxes, strict=True)]
        size = batch_size(counts.width, counts.height)
    return found


def _stored(video: Video, path: Path, target: Path, options: PrepareOptions, face: Face, counts: Counts) -> Entry:
    """Write the clip, and its row."""
    meta: dict[str, Any] = {
        "video_id": video.video_id,
        "size": options.size,
        "boxes_from": face.source,
        "remark": face.remark,
        "track": None if face.track is None else face.track.plain(),
        "frames": [],
        "seconds": [],
        "squares": [],
        "passport": options.passport(),
    }
    remove(target)
    crops = _crops(path, options, face, counts, meta)
    n_stored = write_clip(target, crops, meta, coding=options.coding, quality=options.quality)
    status, reason = judged(path, counts)
    remarks = [reason, face.remark]
    if n_stored < CLIP_FRAMES:
        remarks.append(f"{many(n_stored, 'frame')} {REPEATS}")
    return _row(
        video,
        counts,
        status,
        "; ".join(filter(None, remarks)),
        n_faces=face.n_faces,
        det_rate=face.det_rate,
        n_stored=n_stored,
        clip=clip_path(video),
        clip_sha256=file_sha256(target),
    )


def _crops(
    path: Path, options: PrepareOptions, face: Face, counts: Counts, meta: dict[str, Any]
) -> Iterator[NDArray[np.uint8]]:
    """The crops in order; fills `meta`. Ends with BadVideo if too much is missing, so that nothing is stored then."""
    for frame in decode.frames(
        path,
        stride=options.stride,
        max_frames=options.max_frames,
        max_seconds=options.max_seconds,
        counts=counts,
    ):
        if face.track is None:
            place = tracks.centre(counts.width, counts.height)
        else:
            place = tracks.square(tracks.interpolated(face.track, [frame.index])[0])
        meta["frames"].append(frame.index)
        meta["seconds"].append(round(frame.seconds, 4))
        meta["squares"].append(place)
        yield tracks.crop(frame.image, place, options.size)
    judged(path, counts)
    meta |= {"fps": counts.fps, "width": counts.width, "height": counts.height, "n_frames": counts.n_frames}
    meta |= {"n_faces": face.n_faces, "det_rate": face.det_rate}
