"""Tiny videos written with PyAV, alone and in the exact trees of the sets; for every test that needs videos."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

Frames = Sequence[NDArray[np.uint8]]
METHODS = ("Deepfakes", "Face2Face", "FaceSwap", "NeuralTextures")

# With its lookahead x264 places B-frames otherwise now and then, and a test of damaged bytes depends on every byte.
X264 = {"crf": "12", "x264-params": "rc-lookahead=0:mbtree=0"}

FINE = {"qmin": "2", "qmax": "4"}
QUALITY = {"libvpx": {"crf": "10", "b": "1M", "deadline": "realtime"}}


def write_video(
    path: Path,
    frames: Frames,
    fps: int = 25,
    *,
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    rotation: int = 0,
    hflip: bool = False,
    pts: Sequence[int] | None = None,
    sound: float = 0.0,
    live: bool = False,
    faststart: bool = False,
) -> Path:
    """Write (H, W, 3) uint8 frames.

    Args:
        path: its ending chooses the container.
        frames: of one size.
        fps: per second.
        codec: libx264, mpeg4 ...
        pixel_format: yuv420p needs even sides, yuv444p does not.
        rotation: degrees counterclockwise by which a player turns the frames.
        hflip: whether a player mirrors them.
        pts: time of each frame in 1/fps seconds, for a variable frame rate; negative ones are hidden by MP4.
        sound: seconds of silence beside it.
        faststart: whether an MP4 begins with its header.
        live: whether it is written to a pipe, so that its header says no duration.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = {"mkv": "matroska", "ts": "mpegts"}.get(path.suffix[1:], path.suffix[1:])
    options = {"movflags": "faststart"} if faststart else {}
    with (
        open(path, "wb") as file,
        av.open(Pipe(file), "w", format=kind) if live else av.open(str(path), "w", options=options) as container,
    ):
        stream: Any = container.add_stream(codec, rate=fps)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pixel_format
        stream.codec_context.thread_count = 1
        stream.codec_context.options = X264 if codec == "libx264" else QUALITY.get(codec, FINE)
        if rotation or hflip:
            stream.set_display_rotation(rotation, hflip=hflip)
        tones = _sound(container, "libopus" if path.suffix == ".webm" else "aac") if sound else None
        for number, image in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = number if pts is None else pts[number], Fraction(1, fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if tones is not None:
            _mux_silence(container, tones, sound)
    return path


class Pipe:
    """A file in which nothing can be written again."""

    def __init__(self, file: Any) -> None:
        self.write = file.write


def _sound(container: Any, codec: str) -> Any:
    stream: Any = container.add_stream(codec, rate=48000)
    stream.layout = "mono"
    return stream


def _mux_silence(container: Any, stream: Any, seconds: float) -> None:
    for begin in range(0, int(stream.rate * seconds), 960):
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 960), np.float32), format="fltp", layout="mono")
        frame.sample_rate, frame.pts = stream.rate, begin
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


def write_audio(path: Path, seconds: float = 0.5) -> Path:
    """A file with a sound and no picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        _mux_silence(container, _sound(container, "aac"), seconds)
    return path


def scene(
    count: int = 24, size: tuple[int, int] = (64, 64), *, seed: int = 0, squares: int = 1
) -> list[NDArray[np.uint8]]:
    """A smooth background and bright squares that move to the right: (H, W) = `size`; equal for equal seeds."""
    rng = np.random.default_rng(seed)
    height, width = size
    y, x = np.mgrid[:height, :width]
    slopes = rng.uniform(-0.6, 0.6, (3, 2))
    base = np.stack([100 + a * (x - width / 2) + b * (y - height / 2) for a, b in slopes], axis=2)
    tops = [int(rng.integers(0, max(height - 16, 1))) for _ in range(squares)]
    colours = rng.integers(150, 256, (squares, 3))
    frames = []
    for number in range(count):
        frame = base.clip(0, 255).astype(np.uint8)
        for top, colour in zip(tops, colours, strict=True):
            left = number % max(width - 16, 1)
            frame[top : top + 16, left : left + 16] = colour
        frames.append(frame)
    return frames


def fake_artefact(frames: Frames, strength: int = 40) -> list[NDArray[np.uint8]]:
    """The same frames with a faint checkerboard of 4 pixels in their middle half: what a detector can learn."""
    height, width = frames[0].shape[:2]
    y, x = np.mgrid[:height, :width]
    inside = (abs(2 * y - height) < height / 2) & (abs(2 * x - width) < width / 2)
    pattern = np.where((y // 4 + x // 4) % 2 == 0, strength, -strength) * inside
    return [(frame.astype(np.int16) + pattern[..., None]).clip(0, 255).astype(np.uint8) for frame in frames]


def write_ffpp_tree(
    root: Path,
    pairs: Iterable[tuple[str, str]] = (("071", "054"), ("004", "982"), ("000", "003")),
    *,
    methods: Sequence[str] = METHODS,
    level: str = "c23",
    count: int = 24,
    size: tuple[int, int] = (64, 64),
    codec: str = "libx264",
) -> Path:
    """FaceForensics++ as its download script lays it out.

    Args:
        root: the raw folder.
        pairs: of the official splits; by default one each of train, val and test.
        methods: whose fakes are written, both a_b and b_a.
        level: folder of the compression.
        count, size: of the videos.
        codec: see `write_video`.
    """
    for pair in pairs:
        for target, source in (pair, pair[::-1]):
            frames = scene(count, size, seed=int(target))
            original = root / "original_sequences" / "youtube" / level / "videos" / f"{target}.mp4"
            write_video(original, frames, codec=codec)
            for number, method in enumerate(methods):
                fake = fake_artefact(frames, 40 + 4 * number)
                folder = root / "manipulated_sequences" / method / level / "videos"
                write_video(folder / f"{target}_{source}.mp4", fake, codec=codec)
    return root


def write_dfdc_tree(
    root: Path,
    parts: Sequence[int] = (0, 1, 40),
    *,
    originals: int = 1,
    fakes: int = 2,
    count: int = 24,
    size: tuple[int, int] = (64, 64),
    codec: str = "libx264",
) -> Path:
    """DFDC as its zip files unpack: dfdc_train_part_N with metadata.json, names of ten letters.

    Args:
        root: the raw folder.
        parts: numbers of the parts.
        originals: in each part.
        fakes: of each original.
        count, size: of the videos.
        codec: see `write_video`.
    """
    for part in parts:
        folder, metadata = root / f"dfdc_train_part_{part}", {}
        for number in range(originals):
            frames = scene(count, size, seed=1000 * part + number)
            name = f"{_letters(part)}{_letters(number)}real.mp4"
            write_video(folder / name, frames, codec=codec)
            metadata[name] = {"label": "REAL", "split": "train"}
            for copy in range(fakes):
                fake = f"{_letters(part)}{_letters(number)}fak{chr(97 + copy)}.mp4"
                write_video(folder / fake, fake_artefact(frames), codec=codec)
                metadata[fake] = {"label": "FAKE", "split": "train", "original": name}
        (folder / "metadata.json").write_text(json.dumps(metadata))
    return root


def write_video_folder(
    root: Path, *, videos: int = 2, count: int = 24, size: tuple[int, int] = (64, 64), codec: str = "libx264"
) -> Path:
    """A user's own videos: real/000.mp4 ..., fake/000.mp4 ... of the same scenes."""
    for number in range(videos):
        frames = scene(count, size, seed=number)
        write_video(root / "real" / f"{number:03d}.mp4", frames, codec=codec)
        write_video(root / "fake" / f"{number:03d}.mp4", fake_artefact(frames), codec=codec)
    return root


def _letters(number: int) -> str:
    """0 as aaa, 1 as aab ..."""
    return "".join(chr(97 + number // 26**place % 26) for place in (2, 1, 0))


def flip_bytes(path: Path, count: int = 60, *, seed: int = 0) -> None:
    """Damage bytes in the middle third of a file."""
    content = bytearray(path.read_bytes())
    rng = np.random.default_rng(seed)
    for place in rng.integers(len(content) // 3, 2 * len(content) // 3, count):
        content[place] ^= 0xFF
    path.write_bytes(content)
