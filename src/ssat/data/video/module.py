"""Prepared videos to batches of clips."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from ssat.core.batch import Batch
from ssat.core.errors import UserError
from ssat.data.loaders import EVALUATIONS, LoaderModule
from ssat.data.sampler import EpochLoader
from ssat.data.subsets import Indices, balanced, balanced_size, spread
from ssat.data.transforms.clip_albumentations import augmentation
from ssat.data.transforms.clip_augment import ClipEval
from ssat.data.video.clips import EvalClips, Sample, TrainClips, collate, is_padded, normalise
from ssat.data.video.manifest import Entry
from ssat.data.video.overview import VideoOverview, overview_of
from ssat.data.video.source import VideoSource
from ssat.data.video.store import StoredClip


class VideoDataModule(LoaderModule):
    """Training clips, and all segments of the validation and test videos, of a `source`.

    An epoch shows one clip of each training video, at a random place, `repeats` times. The order, the places and the
    augmentation are functions of (seed, epoch, video). An evaluation sees every segment of `frames` frames of a video
    (section 5.4); `Batch.videos` says which video a clip is of.

    Args:
        source: the videos.
        img_size: side in pixels of the square frames in a batch.
        frames: of a clip.
        frame_step: frames of the original video from one frame of a clip to the next; a multiple of the store's.
        mean, std: (3,) of the normalisation, on [0, 1]; None = ImageNet's.
        augment: the arguments of `augmentation`; None = the evaluation transform.
        batch_size: clips of one rank.
        num_workers: worker processes of each loader.
        repeats: clips of each training video in an epoch.
        balance: an epoch shows as many videos of each class, those of the larger ones drawn anew in every epoch.
        max_clips: of each video in an evaluation; None = all.
        seed: of order, places and augmentation.
        drop_last: drop the last, incomplete training batch.
        pin_memory: for a faster copy to a GPU.
        epoch_size: clips of an epoch, see `EpochSampler`; None = all of them once.

    Raises:
        UserError: a value that is not possible.
    """

    unit = "clips"

    def __init__(
        self,
        source: VideoSource,
        *,
        img_size: int,
        frames: int = 16,
        frame_step: int = 4,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        augment: dict[str, Any] | None = None,
        batch_size: int = 8,
        num_workers: int = 0,
        repeats: int = 1,
        balance: bool = False,
        max_clips: int | None = None,
        seed: int = 0,
        drop_last: bool = False,
        pin_memory: bool = False,
        epoch_size: int | None = None,
    ) -> None:
        super().__init__(
            batch_size=batch_size, num_workers=num_workers, seed=seed, drop_last=drop_last, pin_memory=pin_memory
        )
        self.source, self.img_size, self.frames, self.epoch_size = source, img_size, frames, epoch_size
        self.mean, self.std = tuple(mean or IMAGENET_DEFAULT_MEAN), tuple(std or IMAGENET_DEFAULT_STD)
        self.step = _stored_step(frame_step, source)
        self.augment, self.repeats, self.balance, self.max_clips = augment, repeats, balance, max_clips
        # Which clips, of training and of evaluation.
        self._cut: dict[str, Any] = {"root": source.root, "frames": frames, "step": self.step}
        self.eval_transform = ClipEval(img_size)
        self.train_transform = self.eval_transform if augment is None else augmentation(img_size, **augment)
        self.class_names, self.num_classes = list(source.classes), len(source.classes)

    def setup(self, stage: str | None = None) -> None:
        """Refuse sets that cannot be trained on, or not be evaluated where the stage is an evaluation.

        Raises:
            UserError: no evaluation videos, or for a training none of a class.
        """
        if not self.sizes.keys() - {"train"}:
            raise UserError(f"{self.source.name} has no evaluation videos in {self.source.root}")
        if stage in EVALUATIONS:
            return
        if not self.source.splits.get("train"):
            raise UserError(f"{self.source.name} has no training videos in {self.source.root}")
        lacking = np.flatnonzero(np.bincount(self.labels("train"), minlength=self.num_classes) == 0)
        if len(lacking):
            raise UserError(
                f"{self.source.name} has no training video of class {self.class_names[lacking[0]]!r} in"
                f" {self.source.root}: prepare some, or look at its report.md for what failed"
            )
        self._check_batch(self.epoch_samples, 1)

    @property
    def sizes(self) -> dict[str, int]:
        """Videos of each split that has some."""
        return {name: len(entries) for name, entries in self.source.splits.items() if entries}

    @property
    def further_tests(self) -> list[str]:
        """Tests beside `test` that have videos of their own; what lies within `test` is measured with it."""
        every = {split: self._names(split) for split in self.sizes if split not in ("train", "val")}
        within = every.get("test", set())
        return [split for split, names in every.items() if split != "test" and not names <= within]

    def _names(self, split: str) -> set[str]:
        videos = *self.source.splits[split], *self.source.unscored.get(split, ())
        return {entry.video_id for entry in videos}

    @property
    def decides(self) -> str:
        """The metric that the best epoch has the highest value of; classes of unequal sizes fool the accuracy."""
        return "auc" if self.num_classes == 2 else "balanced_acc"

    def entries(self, split: str) -> list[Entry]:
        """The videos of a split; `Batch.videos` counts in them.

        Raises:
            UserError: there is no such split.
        """
        if split not in self.sizes:
            raise UserError(f"{self.source.name} has no {split} videos, only {', '.join(self.sizes)}")
        return list(self.source.splits[split])

    def labels(self, split: str) -> Indices:
        """(N,) class numbers of a split's videos."""
        return np.array([entry.label for entry in self.source.splits[split]], dtype=np.int64)

    def split(self, name: str) -> tuple[list[Entry], Indices]:
        """The videos of a split and their numbers."""
        entries = self.entries(name)
        return entries, np.arange(len(entries))

    def class_counts(self, split: str) -> dict[str, int]:
        """Videos of each class in a split."""
        counts = np.bincount(self.labels(split), minlength=self.num_classes)
        return dict(zip(self.class_names, counts.tolist(), strict=True))

    def short_videos(self) -> int:
        """Training videos that do not fill a clip."""
        return sum(is_padded(entry.n_stored, self.frames, self.step) for entry in self.source.splits["train"])

    def fingerprint(self) -> dict[str, Any]:
        """Name, videos per split, two SHA-256 of each (names and labels; those and the frames), and the passport."""
        splits = {name: self.entries(name) for name in self.sizes}
        named = {name: _digest([[e.video_id, e.label] for e in entries]) for name, entries in splits.items()}
        stored = {
            name: _digest([[e.video_id, e.label, e.clip_sha256, self.source.passport] for e in entries])
            for name, entries in splits.items()
        }
        sizes = {name: len(entries) for name, entries in splits.items()}
        passport = dict(self.source.passport)
        return {"name": self.source.name, "splits": sizes, "sha256": named, "content": stored, "passport": passport}

    def overview(self) -> VideoOverview:
        """Counts of each split."""
        return overview_of(self.source)

    def samples(self, split: str) -> int:
        """Clips that a pass over a split shows; of training, before those are dropped that do not fill a batch."""
        if split != "train":
            return len(self.eval_clips(split))
        labels = self.labels("train")
        return self.repeats * (balanced_size(labels, self.num_classes) if self.balance else len(labels))

    def _of_epochs(self) -> Indices | Callable[[int], Indices]:
        """The clips of an epoch, as `TrainClips` numbers them."""
        labels, classes, seed, repeats = self.labels("train"), self.num_classes, self.seed, self.repeats
        if not self.balance:
            return np.arange(repeats * len(labels))

        def drawn(epoch: int) -> Indices:
            chosen = balanced(labels, classes, seed, epoch)
            return np.concatenate([chosen + number * len(labels) for number in range(repeats)])

        return drawn

    def _train_samples(self, **options: Any) -> EpochLoader:
        return self._clip_loader(self._train_clips(), **options)

    def _train_clips(self) -> TrainClips:
        options: dict[str, Any] = {"transform": self.train_transform, "seed": self.seed, "repeat": self.repeats}
        return TrainClips(self.entries("train"), **self._cut, **options)

    def eval_clips(self, split: str) -> EvalClips:
        """Every segment of every video of `split`."""
        options: dict[str, Any] = {"transform": self.eval_transform, "max_clips": self.max_clips}
        return EvalClips(self.entries(split), **self._cut, **options)

    def eval_loader(self, split: str, perturb: Any = None) -> EpochLoader:
        """Every segment of every video of `split` once.

        Raises:
            UserError: there is no such split, or clips are to be perturbed.
        """
        if perturb is not None:
            raise UserError("data.perturb changes single images, and this run is of videos: leave it out")
        clips = self.eval_clips(split)
        return self._clip_loader(clips, batch_sampler=self._eval_batches(np.arange(len(clips))))

    def _clip_loader(self, clips: TrainClips | EvalClips, **options: Any) -> EpochLoader:
        prepare = partial(normalise, mean=self.mean, std=self.std, device=self._device)
        return self._loader(clips, collate, prepare=prepare, **options)

    def fixed_batch(self, n: int, split: str | None = None) -> Batch:
        """The first segments of n videos of `split`, spread evenly over its classes; None = test, else val."""
        split = split or self.test_split
        return self.first_clips(split, spread(self.labels(split), n))

    def first_clips(self, split: str, videos: Sequence[int] | Indices) -> Batch:
        """The first segment of each of these videos of a split."""
        clips = self.eval_clips(split)
        return self._batch([clips[0, int(place)] for place in np.searchsorted(clips.videos, videos)])

    def first_seconds(self, split: str, video: int) -> list[float]:
        """The time in the original video of each frame of its first segment, as it was stored with the frames."""
        clips, entry = self.eval_clips(split), self.entries(split)[video]
        seconds = StoredClip(self.source.root / entry.clip).meta["seconds"]
        return [seconds[place] for place in clips.windows[int(np.searchsorted(clips.videos, video))]]

    def training_images(self, indices: Sequence[int], epoch: int) -> Batch:
        """These training clips as they are in `epoch`."""
        clips = self._train_clips()
        return self._batch([clips[epoch, index] for index in indices])

    def _batch(self, samples: list[Sample]) -> Batch:
        (batch,) = normalise([collate(samples)], mean=self.mean, std=self.std, device=torch.device("cpu"))
        return batch


def _stored_step(frame_step: int, source: VideoSource) -> int:
    """Stored frames from one frame of a clip to the next."""
    stride = int(source.passport.get("stride", 1))
    if frame_step % stride:
        raise UserError(
            f"data.frame_step={frame_step} is not a multiple of {stride}: {source.root} was prepared with every"
            f" {stride}th frame (stride={stride})",
            key="data.frame_step",
            value=frame_step,
        )
    return frame_step // stride


def _digest(rows: Any) -> str:
    return hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()
