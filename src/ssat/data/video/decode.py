"""Video files of strangers as upright RGB frames, one at a time: nothing is held, run or opened besides the file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ssat.core.errors import UserError
from ssat.data.video.upright import UPRIGHT, matrix_of, upright, upright_shape

MAX_SIDE, MAX_PIXELS = 8192, 36_000_000  # of a frame: 8192 x 4320 fits
MAX_SECONDS = 600.0  # of a video that are read by default
MAX_RATE = 240  # frames per second: a file without true timestamps ends, too
LEAST_SHARE = 0.8  # of the frames that the header promises; with fewer a video counts as corrupt
# Containers that hold their frames themselves. FFmpeg also knows playlists, which a file of any name may be, and which
# make it open other files and addresses.
FORMATS = "mov,matroska,webm,avi,mpegts,mpeg,flv,asf,ogg"
# Of these the header promises seconds and no number of frames: until the last of all streams ends.
TIMED = ("matroska", "flv", "asf")
SLACK = 0.5, 0.01  # of the promised seconds that may lack: seconds, share
SAFE = {"format_whitelist": FORMATS, "protocol_whitelist": "file"}


class BadVideo(UserError):
    """A video without usable frames.

    Attributes:
        reason: why, as part of a sentence that begins with the file.
    """

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"the video {path} cannot be used: {reason}")
        self.reason = reason


@dataclass(frozen=True)
class Probe:
    """What a file's header and its first frame say.

    Attributes:
        width, height: of the upright frames, pixels.
        fps: frames per second, on average; 0 if the file does not say.
        n_frames: that the header promises and shows; 0 if it does not say.
        seconds: duration; 0 if the file does not say.
        codec: FFmpeg's name of it, such as h264.
        pixel_format: such as yuv420p.
    """

    width: int
    height: int
    fps: float
    n_frames: int
    seconds: float
    codec: str
    pixel_format: str


@dataclass(frozen=True)
class Frame:
    """One frame.

    Attributes:
        index: of the frame among all that could be decoded.
        seconds: since the first frame, by the file's timestamps.
        image: (H, W, 3) uint8, upright RGB.
    """

    index: int
    seconds: float
    image: NDArray[np.uint8]


@dataclass
class Counts:
    """What has been decoded so far; complete when the frames have been taken to the last.

    Attributes:
        n_frames: decoded, also those between two that were asked for.
        n_errors: packets that are cut or could not be decoded, frames that the decoder calls damaged, and frames of
            another size than the first.
        n_lost: of them those that gave no frame.
        fps, width, height: see `Probe`.
        expected: frames that the header promises and shows; 0 if it does not say.
        seconds: that the packets reach to.
        promised: seconds that the header promises; 0 if it does not say, or says the number of frames.
        cut: the bound that ended the reading before the end of the file.
    """

    n_frames: int = 0
    n_errors: int = 0
    n_lost: int = 0
    fps: float = 0.0
    width: int = 0
    height: int = 0
    expected: int = 0
    seconds: float = 0.0
    promised: float = 0.0
    cut: Literal["", "max_frames", "max_seconds"] = ""


def probe(path: Path) -> Probe:
    """Look at the header and decode the first frame.

    Raises:
        BadVideo: there is no frame.
        UserError: PyAV is not installed.
    """
    with _opened(path) as (container, stream):
        counts = Counts()
        for raw in _decoded(container, stream, counts):
            height, width = upright_shape(raw, matrix_of(raw))
            seconds = 0.0 if container.duration is None else max(container.duration / 1e6, 0.0)
            return Probe(
                width, height, _fps(stream), _expected(stream), seconds, stream.codec_context.name, raw.format.name
            )
    raise BadVideo(path, "no frame of it can be decoded")


def frames(
    path: Path,
    *,
    stride: int = 1,
    max_frames: int | None = None,
    max_seconds: float | None = MAX_SECONDS,
    counts: Counts | None = None,
) -> Iterator[Frame]:
    """The frames 0, stride, 2 stride ... of a video, in order, by decoding all before them.

    One thread; no more than the decoder's own few frames are in memory.

    Args:
        path: of the file.
        stride: distance of the frames in the video.
        max_frames: that are yielded at most.
        max_seconds: of the video that are read at most; None for all.
        counts: filled on the way.

    Raises:
        BadVideo: it cannot be opened, has no video stream or too large frames, or no frame can be decoded.
        UserError: PyAV is not installed.
    """
    counts = Counts() if counts is None else counts
    most = None if max_seconds is None else int(max_seconds * MAX_RATE)
    with _opened(path) as (container, stream):
        counts.fps, counts.expected = _fps(stream), _expected(stream)
        counts.promised = 0.0 if counts.expected else _promised(container, stream)
        shape, begin, yielded, matrix = None, 0.0, 0, UPRIGHT
        for raw in _decoded(container, stream, counts):
            time = raw.time
            if shape is None:
                # Once: a frame whose side data were looked at refers to itself and waits for the garbage collector.
                shape, begin, matrix = (raw.height, raw.width), time or 0.0, matrix_of(raw)
                counts.height, counts.width = upright_shape(raw, matrix)
            if (raw.height, raw.width) != shape:
                counts.n_errors += 1
                counts.n_lost += 1
                continue
            seconds = counts.n_frames / (counts.fps or 25.0) if time is None else time - begin
            if max_seconds is not None and (seconds > max_seconds or counts.n_frames == most):
                counts.cut = "max_seconds"
                return
            index = counts.n_frames
            counts.n_frames += 1
            if index % stride:
                continue
            yield Frame(index, seconds, upright(raw, matrix))
            yielded += 1
            if yielded == max_frames:
                counts.cut = "max_frames"
                return
    if not counts.n_frames:
        raise BadVideo(path, "no frame of it can be decoded")


def judged(path: Path, counts: Counts) -> tuple[Literal["ok", "partial"], str]:
    """Status and reason of a video that was read to its end, or to a bound.

    Raises:
        BadVideo: more than a fifth of the promised frames, or seconds, is missing.
    """
    lacking = 0.0 if counts.cut else max(counts.promised - counts.seconds, 0.0)
    if lacking > (1 - LEAST_SHARE) * counts.promised:
        raise BadVideo(path, f"it ends after {counts.seconds:.2f} of its {counts.promised:.2f} seconds")
    missing = 0 if counts.cut else max(counts.expected - counts.n_frames, 0)
    lost, total = (missing, counts.expected) if counts.expected else (counts.n_lost, counts.n_frames + counts.n_lost)
    if lost > (1 - LEAST_SHARE) * total:
        raise BadVideo(path, f"only {counts.n_frames} of its {total} frames can be decoded")
    if counts.n_errors or missing:
        of = f" of {counts.expected}" if counts.expected and not counts.cut else ""
        errors = f"{counts.n_errors} error" if counts.n_errors == 1 else f"{counts.n_errors} errors"
        return "partial", f"{counts.n_frames}{of} frames, {errors} in decoding"
    if lacking > max(SLACK[0], SLACK[1] * counts.promised):
        return "partial", f"it ends after {counts.seconds:.2f} of its {counts.promised:.2f} seconds"
    if counts.cut == "max_seconds":
        return "partial", "only its beginning was read (max_seconds)"
    return "ok", ""


def versions() -> dict[str, str]:
    """Of PyAV and its FFmpeg, whose decoders decide what the frames are.

    Raises:
        UserError: PyAV is not installed.
    """
    av = _av()
    return {"av": av.__version__, "libavcodec": ".".join(map(str, av.library_versions["libavcodec"]))}


def _av() -> Any:
    try:
        import av
    except ImportError:
        raise UserError('videos need the package av, which is not installed: pip install "ssat[video]"') from None
    return av


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, Any]]:
    """Container and video stream, with one thread."""
    av = _av()
    try:
        if path.stat().st_size == 0:
            raise BadVideo(path, "the file is empty (0 bytes)")
        # An absolute path cannot be taken for an address.
        container = av.open(str(path.absolute()), options=SAFE, metadata_errors="replace")
    except FileNotFoundError:
        raise BadVideo(path, "the file is not there") from None
    except av.error.FFmpegError as error:
        raise BadVideo(path, f"FFmpeg finds no video in it ({error.strerror})") from error
    except OSError as error:
        raise BadVideo(path, f"the file cannot be read ({error.strerror})") from error
    with container:
        stream = _video_stream(path, container)
        stream.thread_type, stream.codec_context.thread_count = "NONE", 1
        stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}  # asked again when the size changes on the way
        yield container, stream


def _video_stream(path: Path, container: Any) -> Any:
    """The first video stream that is no attached picture, such as the cover of a song."""
    picture = _av().stream.Disposition.attached_pic
    moving = [one for one in container.streams.video if not one.disposition & picture]
    if not moving:
        kinds = sorted({one.type for one in container.streams}) or ["nothing"]
        raise BadVideo(path, f"it holds no video ({', '.join(kinds)} only)")
    stream = moving[0]
    if stream.codec_context is None:
        raise BadVideo(path, "this FFmpeg has no decoder for its codec")
    width, height = stream.codec_context.width, stream.codec_context.height
    if max(width, height) > MAX_SIDE or width * height > MAX_PIXELS:
        raise BadVideo(
            path, f"its frames of {width} x {height} pixels are over the bound of {MAX_SIDE} a side and 36 megapixels"
        )
    return stream


def _decoded(container: Any, stream: Any, counts: Counts) -> Iterator[Any]:
    """Frames as the decoder gives them; packets that it refuses are counted and skipped."""
    error_of = _av().error.FFmpegError
    # A file ends where the last of its streams does.
    lasting = [one for one in container.streams if one.type in ("video", "audio", "subtitle")]
    packets = container.demux(lasting if _is_timed(container) else [stream])
    while True:
        try:
            packet = next(packets, None)
        except error_of:
            counts.n_errors += 1  # the rest of the file cannot be told into packets
            return
        if packet is None:
            return
        counts.seconds = max(counts.seconds, _end(packet, 0 if _is_timed(container) else stream.start_time or 0))
        if packet.stream_index != stream.index:
            continue
        counts.n_errors += packet.is_corrupt
        try:
            for frame in packet.decode():
                counts.n_errors += frame.is_corrupt and not packet.is_corrupt
                yield frame
        except error_of:
            counts.n_errors += not packet.is_corrupt
            counts.n_lost += 1


def _fps(stream: Any) -> float:
    rate = stream.average_rate or stream.guessed_rate
    return round(float(rate), 4) if rate else 0.0


def _expected(stream: Any) -> int:
    """Frames by the header, without those that an edit list of MP4 hides (a trimmed video)."""
    if not stream.frames:
        return 0
    shown = sum(not entry.is_discard for entry in stream.index_entries) if _is_mp4(stream.container) else 0
    return shown or int(stream.frames)


def _promised(container: Any, stream: Any) -> float:
    """Seconds by the header; 0 where it does not say."""
    if not _is_timed(container):
        return 0.0 if not stream.duration or stream.time_base is None else float(stream.duration * stream.time_base)
    # With a duration of the stream it is FFmpeg's guess by the bit rate (ASF has one of its own).
    guessed = stream.duration is not None and container.format.name != "asf"
    return 0.0 if guessed or container.duration is None else max(container.duration / 1e6, 0.0)


def _end(packet: Any, start: int) -> float:
    """Second at which what is in a packet ends; 0 where it has no time."""
    if packet.pts is None or packet.time_base is None or not packet.size:
        return 0.0
    return float((packet.pts - start + (packet.duration or 0)) * packet.time_base)


def _is_timed(container: Any) -> bool:
    return any(name in TIMED for name in container.format.name.split(","))


def _is_mp4(container: Any) -> bool:
    return "mp4" in container.format.name.split(",")
