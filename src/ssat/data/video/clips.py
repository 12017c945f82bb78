"""Clips of stored videos: which frames, their random part a pure function of (seed, epoch, index), and batches."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ssat.core.batch import Batch
from ssat.core.errors import UserError
from ssat.data.sampler import Key
from ssat.data.video.manifest import Entry
from ssat.data.video.store import StoredClip

# (T, 3, H, W) uint8 and its random numbers -> (T, 3, h, w) uint8
ClipTransform = Callable[[Tensor, np.random.Generator], Tensor]
Sample = tuple[Tensor, int, int, int]  # (3, T, H, W) uint8 clip, class number, index, number of the video


def is_padded(n_stored: int, frames: int, step: int) -> bool:
    """Whether the video is too short for one clip, so that its last frame is repeated."""
    return n_stored < _span(frames, step)


def segments(n_stored: int, frames: int, step: int) -> list[list[int]]:
    """Clips that cover a whole video: the paper averages "all 16-frame segments" (Appendix D.3).

    Every `step`-th frame from the first on is in one of them. They follow one another; the last one ends with the last
    of those frames, and so may overlap the one before it.

    Args:
        n_stored: frames of the video, at least 1.
        frames: of a clip.
        step: from one frame of a clip to the next.

    Returns:
        The frames of every clip; a video that `is_padded` has one clip, which repeats its last frame.
    """
    sampled = math.ceil(n_stored / step)
    starts = list(range(0, sampled - frames + 1, frames)) or [0]
    if starts[-1] + frames < sampled:
        starts.append(sampled - frames)
    return [_window(start * step, n_stored, frames, step) for start in starts]


def random_window(n_stored: int, frames: int, step: int, start: float) -> list[int]:
    """The frames of one clip, all places being as likely.

    Args:
        n_stored: frames of the video, at least 1.
        frames: of the clip.
        step: from one frame to the next.
        start: in [0, 1), the place.
    """
    places = max(1, n_stored - _span(frames, step) + 1)
    return _window(int(start * places), n_stored, frames, step)


def _span(frames: int, step: int) -> int:
    return (frames - 1) * step + 1


def _window(first: int, n_stored: int, frames: int, step: int) -> list[int]:
    last = first + (n_stored - 1 - first) // step * step
    return [min(first + number * step, last) for number in range(frames)]


class TrainClips(Dataset[Sample]):
    """One clip of every video, at a random place and transformed, asked for by (epoch, index).

    Place and transform are pure functions of (seed, epoch, index); no global generator is used.

    Args:
        entries: the videos, with stored frames.
        root: folder of the prepared set.
        frames: of a clip.
        step: stored frames from one frame of a clip to the next.
        transform: of the clip.
        seed: of the random numbers.
        repeat: clips of each video in an epoch; index i is of video i % len(entries) (VideoMAE: 2).

    Attributes:
        labels: (N,) class of every index.

    Raises:
        UserError: a video has no stored frames; when a clip is asked for: its file is damaged.
    """

    def __init__(
        self,
        entries: Sequence[Entry],
        root: Path,
        *,
        frames: int,
        step: int,
        transform: ClipTransform,
        seed: int,
        repeat: int = 1,
    ) -> None:
        self.entries, self.root, self.transform, self.seed = _with_frames(entries), Path(root), transform, seed
        self.frames, self.step, self.repeat = frames, step, repeat
        self.labels = np.tile(np.array([entry.label for entry in entries], dtype=np.int64), repeat)

    def __len__(self) -> int:
        return len(self.entries) * self.repeat

    def __getitem__(self, key: Key) -> Sample:
        epoch, index = key
        rng = np.random.default_rng((self.seed, epoch, index))
        video = index % len(self.entries)
        entry = self.entries[video]
        window = random_window(entry.n_stored, self.frames, self.step, rng.random())
        clip = self.transform(_stored(self.root, entry).read(window), rng)
        return _channels_first(clip), entry.label, index, video


class EvalClips(Dataset[Sample]):
    """Every segment of every video, in order, asked for by (epoch, index); of the epoch nothing depends.

    Args:
        entries: the videos, with stored frames; a video's number is its place here.
        root: folder of the prepared set.
        frames: of a clip.
        step: stored frames from one frame of a clip to the next.
        transform: of the clip; its random numbers are those of the index.
        max_clips: of a video, spread evenly over it; None = all.

    Attributes:
        labels: (N,) class of every clip.
        videos: (N,) number of every clip's video.

    Raises:
        UserError: a video has no stored frames; when a clip is asked for: its file is damaged.
    """

    def __init__(
        self,
        entries: Sequence[Entry],
        root: Path,
        *,
        frames: int,
        step: int,
        transform: ClipTransform,
        max_clips: int | None = None,
    ) -> None:
        self.entries, self.root, self.transform = _with_frames(entries), Path(root), transform
        clips = [_spread(segments(entry.n_stored, frames, step), max_clips) for entry in entries]
        self.windows = [window for each in clips for window in each]
        self.videos = np.repeat(np.arange(len(entries)), [len(each) for each in clips])
        self.labels = np.array([entry.label for entry in entries], dtype=np.int64)[self.videos]
        self._open: tuple[int, StoredClip] | None = None  # the video that the last clip was of

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, key: Key) -> Sample:
        _, index = key
        video = int(self.videos[index])
        entry = self.entries[video]
        if self._open is None or self._open[0] != video:
            self._open = video, _stored(self.root, entry)
        clip = self.transform(self._open[1].read(self.windows[index]), np.random.default_rng(index))
        return _channels_first(clip), entry.label, index, video


def _with_frames(entries: Sequence[Entry]) -> list[Entry]:
    for entry in entries:
        if entry.n_stored < 1 or not entry.clip:
            raise UserError(
                f"the video {entry.video_id} has no stored frames ({entry.status}: {entry.reason or 'no reason'}):"
                " prepare the videos again, or leave it out"
            )
    return list(entries)


def _spread(clips: list[list[int]], most: int | None) -> list[list[int]]:
    if most is None or len(clips) <= most:
        return clips
    # The middles of `most` equal parts: of one clip the middle one, never twice the same.
    return [clips[int((number + 0.5) * len(clips) / most)] for number in range(most)]


def _stored(root: Path, entry: Entry) -> StoredClip:
    stored = StoredClip(root / entry.clip)
    found = f"{len(stored)} frames of {stored.meta.get('video_id')}"
    if found != f"{entry.n_stored} frames of {entry.video_id}":
        raise UserError(
            f"the stored clip {stored.path} has {found}, and the manifest says {entry.n_stored} of {entry.video_id}:"
            " remove it and run the same python -m src.prepare again, which makes what is missing"
        )
    return stored


def _channels_first(clip: Tensor) -> Tensor:
    return clip.transpose(0, 1).contiguous()


def collate(samples: list[Sample]) -> Batch:
    """Samples to a Batch of images (B, 3, T, H, W) uint8, targets, indices and videos, each (B,) int64."""
    clips, targets, indices, videos = zip(*samples, strict=True)
    return Batch(torch.stack(clips), torch.tensor(targets), (), torch.tensor(indices), None, torch.tensor(videos))


def normalise(
    batches: list[Batch], *, mean: Sequence[float], std: Sequence[float], device: torch.device
) -> list[Batch]:
    """Batches of uint8 clips (B, C, T, H, W) as float32 of zero mean, computed on `device`.

    With `functools.partial` the `prepare` of `sampler.EpochLoader`: workers then pass on a quarter of the bytes.

    Args:
        batches: of `collate`.
        mean, std: (C,) of the normalisation, on [0, 1].
        device: of the training.
    """
    scale = (1 / (255 * torch.tensor(std, device=device))).view(-1, 1, 1, 1)
    shift = (-torch.tensor(mean, device=device) / torch.tensor(std, device=device)).view(-1, 1, 1, 1)
    return [
        batch._replace(images=batch.images.to(device, non_blocking=True).float() * scale + shift) for batch in batches
    ]
