"""A trained run, ready to predict what belongs to no set."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ssat.config.schema import Moments, Phase, Run
from ssat.core.batch import Batch
from ssat.core.errors import UserError
from ssat.data.image import ImageDataModule
from ssat.data.sets.sources import ImageList, Source
from ssat.data.video.clips import EvalClips, collate, normalise
from ssat.data.video.manifest import Entry
from ssat.data.video.module import VideoDataModule
from ssat.data.video.source import VideoSource
from ssat.data.video.store import StoredClip
from ssat.runs.predicted import Clip
from ssat.training.data import build_data
from ssat.training.evaluation import PRECISIONS, find_checkpoint, load_network


@dataclass(frozen=True)
class Known:
    """What a run's record says of its last phase, as far as predicting needs it.

    Attributes:
        classes: names, in the order of the labels.
        passport: how the clips were made; {} of images.
        moments: of the normalisation; None where they are in the configuration.
    """

    classes: Sequence[str]
    passport: dict[str, Any]
    moments: Moments | None = None


class Predictor:
    """The network of a run; the data that it was trained on need not be there.

    Args:
        config: of the run.
        run: its folder.
        checkpoint: last, best or a file.
        known: what the record says.
        device: of the network.
        batch_size: clips or images at a time; 0 = that of the training.

    Attributes:
        path: of the checkpoint.

    Raises:
        UserError: the run has learned no labels, or the checkpoint is not right.
    """

    def __init__(
        self, config: Run, run: Path, checkpoint: str, known: Known, *, device: torch.device, batch_size: int = 0
    ) -> None:
        self.phase = config.mode.phases[-1]
        if self.phase.lam == 0:
            raise UserError(f"run={run} has learned no labels (lam=0), so it predicts none: fine-tune it first")
        # One file lies behind every batch: worker processes would take longer to start than to read it.
        self.config = replace(config, data=replace(config.data, num_workers=0))
        self.known, self.device = known, device
        self.path = find_checkpoint(run, self.phase.name, checkpoint)
        module, self.epoch = load_network(config, run, self.phase, self.path, len(known.classes))
        self.module = module.to(device)
        self.precision = PRECISIONS.get(config.trainer.precision)
        self.batch_size = batch_size or self.phase.recipe.batch_size

    @torch.inference_mode()
    def _logits(self, images: Tensor) -> Tensor:
        moved = images.to(self.device)
        with torch.autocast(self.device.type, self.precision) if self.precision else nullcontext():
            return self.module(moved).float()

    def video(self, root: Path, entry: Entry, within: tuple[float, float] | None = None) -> Prediction:
        """What the network says of a stored video: the mean over its clips, as `src.evaluate` takes it.

        Args:
            root: folder of the prepared videos.
            entry: of the video, with stored frames.
            within: of the clips only those that lie at least by half in these seconds, or the nearest one.

        Raises:
            UserError: the stored file is damaged, or a prediction is nan.
        """
        data = self._videos(root)
        clips = EvalClips(
            [entry],
            root,
            frames=data.frames,
            step=data.step,
            transform=data.eval_transform,
            max_clips=data.max_clips,
        )
        spans = _spans(clips, StoredClip(root / entry.clip).meta["seconds"], data.step, entry.fps)
        chosen = [*range(len(clips))] if within is None else _inside(spans, within)
        kept = []
        for first in range(0, len(chosen), self.batch_size):
            batch = collate([clips[0, index] for index in chosen[first : first + self.batch_size]])
            (normal,) = normalise([batch], mean=data.mean, std=data.std, device=torch.device("cpu"))
            kept.append(self._logits(normal.images).cpu())
            assert batch.videos is not None
            self.module.meters.add(kept[-1], batch.targets, batch.videos)
        self.module.meters.take()  # its mean is that of src.evaluate to the last bit
        (probs, _), *_ = self.module.meters.scores.values()
        of_clips = torch.cat(kept).double().softmax(dim=1).tolist()
        found = [Clip(*spans[index], each) for index, each in zip(chosen, of_clips, strict=True)]
        return Prediction(probs.tolist(), found)

    def _videos(self, root: Path) -> VideoDataModule:
        source = VideoSource("input", self.known.classes, root, {}, passport=self.known.passport)
        data = build_data(self.config, self.phase, source)
        assert isinstance(data, VideoDataModule)
        return data

    def images(self, root: Path, names: Sequence[str]) -> Iterator[tuple[str, list[float] | None]]:
        """Probabilities of image files by name, in batches; None of one that cannot be read.

        Raises:
            UserError: a prediction is nan.
        """
        for first in range(0, len(names), self.batch_size):
            batch = names[first : first + self.batch_size]
            data = self._images(root, batch)
            assert data.source.test is not None
            good = [batch[index] for index in data.source.test.readable()[0].tolist()]
            probs = iter(self._of_images(self._images(root, good)) if good else ())
            yield from ((name, next(probs) if name in good else None) for name in batch)

    def _of_images(self, data: ImageDataModule) -> list[list[float]]:
        data.setup()
        data.batch_size = self.batch_size
        loader: Iterable[Batch] = data.eval_loader("test")
        logits = torch.cat([self._logits(batch.images) for batch in loader])
        probs = logits.double().softmax(dim=1)
        if probs.isnan().any():
            raise UserError("the network predicts nan: the training has diverged, choose another run or checkpoint")
        return probs.tolist()

    def _images(self, root: Path, names: Sequence[str]) -> ImageDataModule:
        data = self.config.data
        none = ImageList(np.zeros((1, 8, 8, 3), np.uint8), np.zeros(1, np.int64))  # there is no training
        source = Source("input", list(self.known.classes), none, ImageList(names, np.zeros(len(names), np.int64), root))
        plain = replace(
            data,
            val_fraction=0.0,
            fraction=1.0,
            label_fraction=1.0,
            samples_per_class=None,
            group=None,
            protocol="paper",
            on_bad_image="error",
        )
        phase = replace(self.phase, recipe=replace(self.phase.recipe, batch_size=1, drop_last=False))
        if self.known.moments is not None:
            statistics = replace(data.statistics, own=self.known.moments)
            plain = replace(plain, statistics=statistics)
        return _image_data(replace(self.config, data=plain), phase, source)


@dataclass(frozen=True)
class Prediction:
    """(K,) probabilities of a video or of one face in it, and the clips that they are the mean of."""

    probs: list[float]
    clips: list[Clip]


def _image_data(config: Run, phase: Phase, source: Source) -> ImageDataModule:
    built = build_data(config, phase, source)
    assert isinstance(built, ImageDataModule)
    return built


def _spans(clips: EvalClips, seconds: Sequence[float], step: int, fps: float) -> list[tuple[float, float]]:
    """First and last second of each clip; its last frame lasts until the next one of a clip would follow."""
    times: NDArray[np.float64] = np.asarray(seconds, dtype=np.float64)
    gap = float(np.median(np.diff(times))) if len(times) > 1 else 1 / (fps or 25.0)
    last = times[-1] + gap
    return [
        (round(float(times[window[0]]), 4), round(float(min(times[window[-1]] + step * gap, last)), 4))
        for window in clips.windows
    ]


def _inside(spans: Sequence[tuple[float, float]], within: tuple[float, float]) -> list[int]:
    """Those of which half or more lies between two seconds, or the one of which most does."""
    shares = [max(min(end, within[1]) - max(begin, within[0]), 0) / max(end - begin, 1e-9) for begin, end in spans]
    return [index for index, share in enumerate(shares) if share >= 0.5] or [int(np.argmax(shares))]
