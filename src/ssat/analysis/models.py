"""Trained runs as the analyses need them: network, images or clips, labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ssat.core.batch import NO_LABEL, Batch
from ssat.core.visible import visible
from ssat.data.dataset import ImageDataset, collate
from ssat.data.image import ImageDataModule
from ssat.data.video.module import VideoDataModule
from ssat.encoders.base import Encoder

Rows = dict[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class Model:
    """The network of one run in evaluation mode, in fp32, and its data.

    Attributes:
        name: as figures show it, e.g. SSL+FT; runs of one mode are told apart by their seed or hash.
        data: of images; or of videos, each of which is shown by one clip, and an image's index is a video's number.
        head: None for a run that has learned no labels.
        facts: what a record says of it: run, hash, mode, name, encoder, seed, checkpoint, epochs, finished.
    """

    name: str
    encoder: Encoder
    head: nn.Module | None
    data: ImageDataModule | VideoDataModule
    split: str
    device: torch.device
    facts: dict[str, Any]

    def logits(self, images: Tensor) -> Tensor:
        """(B, C, H, W) to (B, classes)."""
        assert self.head is not None, "this run has learned no labels"
        return self.head(self.encoder.forward_features(images))

    def batches(self, indices: Sequence[int], size: int) -> Iterator[Batch]:
        """These images of the split, or the first clips of its videos, as the run's evaluation sees them."""
        for start in range(0, len(indices), size):
            yield self._moved(self._clean(self.split, indices[start : start + size]))

    def training_batches(self, indices: Sequence[int], size: int, *, augmented: bool) -> Iterator[Batch]:
        """These training images as the run's training sees them in epoch 0, or as its evaluation does."""
        for start in range(0, len(indices), size):
            chunk = indices[start : start + size]
            if augmented:
                yield self._moved(self.data.training_images(chunk, epoch=0))
            else:
                yield self._moved(self._clean("train", chunk))

    def labels(self, split: str) -> np.ndarray:
        """Class numbers by index, NO_LABEL where there is none."""
        if isinstance(self.data, VideoDataModule):
            return self.data.labels(split)
        return self.data.split(split)[0].labels

    def _clean(self, split: str, indices: Sequence[int]) -> Batch:
        if isinstance(self.data, VideoDataModule):
            return self.data.first_clips(split, indices)
        dataset = ImageDataset(self.data.split(split)[0], self.data.eval_transform)
        return collate(dataset.__getitems__([(0, index) for index in indices]))

    def _moved(self, batch: Batch) -> Batch:
        assert batch.targets is not None
        return Batch(batch.images.to(self.device), batch.targets.to(self.device), (), batch.indices)


class Curve(NamedTuple):
    """Points of one line; `std` is the deviation over images, None where there is none."""

    x: list[float]
    y: list[float]
    std: list[float] | None = None


class Strip(NamedTuple):
    """A clip as a film strip: what a network makes of it, over time.

    Attributes:
        frames: (T, H, W, 3) in [0, 1].
        seconds: of each frame in the video.
        heat: (T, H, W) to be laid over the frames, from -`largest` to `largest`.
        largest: in the whole clip, also where not all of it is shown.
        caption: of the network's row.
    """

    frames: np.ndarray
    seconds: list[float]
    heat: np.ndarray
    largest: float
    caption: str


class Measured(NamedTuple):
    """What an analysis finds out about one model.

    Attributes:
        series: curves by the name of the panel they belong to.
        values: everything else that is worth keeping, as plain numbers.
        summary: the few numbers that say it in short.
        pictures: rows of pictures (n, H, W, 3) in [0, 1] by label, for Figures 10 and 12.
        captions: of each picture, by the label of the row.
        details: further such rows, of this model alone, by the name of the figure that they make.
        strips: film strips of clips, by the panel of the curve that belongs to each.
    """

    series: dict[str, Curve]
    values: dict[str, Any]
    summary: dict[str, float]
    pictures: Rows | None = None
    captions: dict[str, list[str]] | None = None
    details: dict[str, Rows] | None = None
    strips: dict[str, Strip] | None = None


def distinct_names(facts: Sequence[dict[str, Any]]) -> list[str]:
    """The runs' names, those of one name told apart by encoder, seed or hash, whichever differs first."""
    names = [fact["name"] for fact in facts]
    for key, shown in (("encoder", "{}, {}"), ("seed", "{}, seed {}"), ("hash", "{}, {}")):
        values: dict[str, set[Any]] = {}
        for name, fact in zip(names, facts, strict=True):
            values.setdefault(name, set()).add(fact[key])
        names = [
            shown.format(name, fact[key]) if len(values[name]) > 1 else name
            for name, fact in zip(names, facts, strict=True)
        ]
    return names


def choose_images(model: Model, count: int, seed: int) -> list[int]:
    """Up to `count` indices of the model's split, drawn without repetition, in ascending order."""
    _, indices = model.data.split(model.split)
    order = np.random.default_rng(seed).permutation(len(indices))[:count]
    return np.sort(indices[order]).tolist()


def choose_training_images(model: Model, count: int, seed: int) -> list[int]:
    """Up to `count` indices of labelled training images, in random order."""
    _, indices = model.data.split("train")
    labelled = indices[model.labels("train")[indices] != NO_LABEL]
    return np.random.default_rng(seed).permutation(labelled)[:count].tolist()


def choose_varied(model: Model, count: int, seed: int) -> list[int]:
    """Up to `count` images of the model's split, of as many classes as possible, in the order of the classes."""
    _, indices = model.data.split(model.split)
    labels = model.labels(model.split)
    taken: Counter[int] = Counter()
    ranked = []
    for order, index in enumerate(np.random.default_rng(seed).permutation(indices).tolist()):
        label_of = int(labels[index])
        ranked.append((taken[label_of], order, label_of, index))  # an image's number within its class counts first
        taken[label_of] += 1
    return [index for _, index in sorted((label_of, index) for _, _, label_of, index in sorted(ranked)[:count])]


def pixels(images: Tensor, data: ImageDataModule | VideoDataModule) -> np.ndarray:
    """Normalised (B, C, H, W) as what one sees: (B, H, W, 3) in [0, 1]; clips (B, C, T, H, W) as (B, T, H, W, 3)."""
    if images.ndim == 5:
        return np.stack([pixels(clip.transpose(0, 1), data) for clip in images])
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (data.mean, data.std))
    return visible((images.cpu() * std + mean).clamp(0, 1)).permute(0, 2, 3, 1).numpy()
