"""A trained network that predicts: batches of tensors, and stored videos."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ssat.core.errors import UserError
from ssat.data.image import ImageDataModule
from ssat.data.sets.sources import ImageList, Source
from ssat.data.video.clips import EvalClips, collate, normalise
from ssat.data.video.faces import DetectorName
from ssat.data.video.manifest import Entry
from ssat.data.video.module import VideoDataModule
from ssat.data.video.preparation import PrepareOptions
from ssat.data.video.source import VideoSource
from ssat.data.video.store import StoredClip
from ssat.runs.predicted import Clip
from ssat.runs.saved import COPY
from ssat.training.data import build_data, build_images
from ssat.training.evaluation import PRECISIONS
from ssat.training.saved_network import SavedNetwork, refuse_unlabelled


class Predictor:
    """A trained network on a device; the data that it was trained on need not be there.

    Args:
        saved: the network.
        device: that it computes on.
        batch_size: clips or images at a time; 0 = that of the training.

    Attributes:
        module: encoder and head, in evaluation mode.

    Raises:
        UserError: the weights are of another network.
    """

    def __init__(self, saved: SavedNetwork, *, device: torch.device, batch_size: int = 0) -> None:
        config = saved.config
        self.saved, self.phase, self.known, self.device = saved, saved.phase, saved.known, device
        # One file lies behind every batch: worker processes would take longer to start than to read it.
        self.config = replace(config, data=replace(config.data, num_workers=0))
        self.module = saved.module().to(device)
        self.precision = PRECISIONS.get(config.trainer.precision)
        self.batch_size = batch_size or self.phase.recipe.batch_size

    def check_labels(self) -> None:
        """Raises: UserError: the network has learned none."""
        refuse_unlabelled(self.module.head is not None, self.saved.run or self.saved.path)

    @torch.inference_mode()
    def outputs(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Features (B, D) and logits (B, K) of normalised images or clips, float32; None without a head."""
        with torch.autocast(self.device.type, self.precision) if self.precision else nullcontext():
            features = self.module.encoder.forward_features(images.to(self.device))
            logits = None if self.module.head is None else self.module.head(features)
        return features.float(), None if logits is None else logits.float()

    def logits(self, images: Tensor) -> Tensor:
        """(B, K) of normalised images or clips (B, ...), float32, not calibrated.

        Raises:
            UserError: the network has learned no labels.
        """
        self.check_labels()
        _, logits = self.outputs(images)
        assert logits is not None
        return logits

    def video(self, root: Path, entry: Entry, within: tuple[float, float] | None = None) -> VideoPrediction:
        """What the network says of a stored video: the mean over its clips, as `src.evaluate` takes it.

        Args:
            root: folder of the prepared videos.
            entry: of the video, with stored frames.
            within: of the clips only those that lie at least by half in these seconds, or the nearest one.

        Raises:
            UserError: the stored file is damaged, a prediction is nan, or the network has learned no labels.
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
            kept.append(self.logits(normal.images).cpu())
            assert batch.videos is not None
            self.module.meters.add(kept[-1], batch.targets, batch.videos)
        self.module.meters.take()  # its mean is that of src.evaluate to the last bit
        (probs, _), *_ = self.module.meters.scores.values()
        of_clips = torch.cat(kept).double().softmax(dim=1).tolist()
        found = [Clip(*spans[index], each) for index, each in zip(chosen, of_clips, strict=True)]
        return VideoPrediction(probs.tolist(), found)

    def _videos(self, root: Path) -> VideoDataModule:
        source = VideoSource("input", self.known.classes, root, {}, passport=self.known.passport)
        data = build_data(self.config, self.phase, source)
        assert isinstance(data, VideoDataModule)
        return data

    def image_data(self) -> ImageDataModule:
        """The data module of the training without its images: it says how an image is transformed.

        Raises:
            UserError: the network is of videos.
        """
        data = self.config.data
        hot = np.zeros((1, len(self.known.classes)), np.int8) if data.multi_label else None
        none = ImageList(np.zeros((1, 8, 8, 3), np.uint8), np.zeros(1, np.int64), hot=hot)
        source = Source("input", list(self.known.classes), none, none)
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
        if self.known.moments is not None:
            named = {self.phase.recipe.statistics: self.known.moments}
            plain = replace(plain, statistics=replace(data.statistics, **named))
        phase = replace(self.phase, recipe=replace(self.phase.recipe, batch_size=1, drop_last=False))
        return build_images(replace(self.config, data=plain), phase, source)


def device_of(name: str | torch.device | None) -> torch.device:
    """The device of this name; None = the GPU if there is one, else the CPU.

    Raises:
        UserError: PyTorch has no such device, or finds none here.
    """
    gpu = torch.cuda.is_available()
    if name is None:
        return torch.device("cuda" if gpu else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"device={name} is no device of PyTorch: use cpu or cuda", key="device", value=name) from error
    if device.type == "cuda" and not gpu:
        raise UserError(f"device={name} is not possible: PyTorch finds no GPU; leave it out", key="device", value=name)
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"device={name} is not possible ({reason}): use cpu", key="device", value=name) from error
    return device


@dataclass(frozen=True)
class VideoPrediction:
    """(K,) probabilities of a video or of one face in it, and the clips that they are the mean of."""

    probs: list[float]
    clips: list[Clip]


def clip_options(saved: SavedNetwork, detector: str = "", max_seconds: str = "") -> PrepareOptions:
    """How the clips of a network's training were made, with what the user wants otherwise; "" is nothing.

    Raises:
        UserError: the record is damaged, or the faces came from a file.
    """
    names = {field.name for field in fields(PrepareOptions)}
    try:
        options = PrepareOptions(**{key: value for key, value in saved.known.passport.items() if key in names})
        numbers = [options.every, options.size, options.stride, options.max_seconds, options.quality]
        if options.detector not in get_args(DetectorName) or not all(0 < number < 1e6 for number in numbers):
            raise ValueError
    except (TypeError, ValueError):
        where = f"{saved.run}/inputs.json" if saved.run else saved.path
        raise UserError(f"the passport of {where} is damaged: {COPY}") from None
    options = replace(options, no_face="skip")  # a stranger's video without a face has no score
    if max_seconds:
        options = replace(options, max_seconds=float(max_seconds))
    if detector:
        return replace(options, detector=detector)  # type: ignore[arg-type]
    if options.detector == "boxes":
        raise UserError(
            "the clips of this run were cropped by a file of boxes, which knows nothing of other videos: say"
            " detector=mtcnn, or none for videos that show a face only",
            key="detector",
        )
    return options


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
