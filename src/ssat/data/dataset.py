"""Transformed images by (epoch, index), their random part a pure function of (seed, epoch, index)."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms import Compose

from ssat.core.batch import Batch
from ssat.data.sampler import Key
from ssat.data.sets.sources import ImageList
from ssat.data.transforms.timm_transforms import Transform

Sample = tuple[Tensor, int | Tensor, int]  # (C, H, W) image, class number or (K,) labels, index


class ImageDataset(Dataset[Sample]):
    """Transformed images, asked for by (epoch, index).

    With a `seed` the random part of the transform is a pure function of (seed, epoch, index), and the global generators
    of Python, NumPy and PyTorch, which the transform draws from, are left as they were.

    Args:
        perturb: changes the evaluation's cropped image, given it and its index, before it becomes a tensor.
        kept: of an evaluation: its cropped images by index, filled here, so that each is decoded once; None = not kept.
    """

    def __init__(
        self,
        images: ImageList,
        transform: Transform,
        *,
        seed: int | None = None,
        perturb: Callable[[Image.Image, int], Image.Image] | None = None,
        kept: dict[int, Any] | None = None,
    ) -> None:
        self.images = images
        self.transform = transform
        self.seed = seed
        self.perturb = perturb
        self.kept = kept

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, key: Key) -> Sample:
        return self.__getitems__([key])[0]

    def __getitems__(self, keys: list[Key]) -> list[Sample]:
        if self.seed is None:
            return [self._sample(index) for _, index in keys]
        states = random.getstate(), np.random.get_state(), torch.get_rng_state()
        try:
            return [self._seeded_sample(self.seed, epoch, index) for epoch, index in keys]
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])
            torch.set_rng_state(states[2])

    def _seeded_sample(self, seed: int, epoch: int, index: int) -> Sample:
        words = np.random.SeedSequence((seed, epoch, index)).generate_state(3).tolist()
        random.seed(words[0])
        np.random.seed(words[1])
        torch.default_generator.manual_seed(words[2])  # torch.manual_seed would reseed the GPU as well
        return self._sample(index)

    def _sample(self, index: int) -> Sample:
        if self.perturb is None and self.kept is None:
            return self.transform(self.images.read(index)), self._target(index), index
        resize, crop, *rest = self.transform.transforms  # type: ignore[attr-defined]
        kept = self.kept or {}
        image = kept[index] if index in kept else crop(resize(self.images.read(index)))
        if self.kept is not None:
            self.kept[index] = image
        if self.perturb is not None:
            image = self.perturb(image, index)
        return Compose(rest)(image), self._target(index), index

    def _target(self, index: int) -> int | Tensor:
        if self.images.hot is None:
            return int(self.images.labels[index])
        return torch.from_numpy(self.images.targets([index])[0])


def collate(samples: list[Sample]) -> Batch:
    """Samples to a Batch of images (B, C, H, W) float32, indices (B,) int64, and targets (B,) int64 or (B, K)."""
    images, targets, indices = zip(*samples, strict=True)
    several = isinstance(targets[0], Tensor)
    return Batch(
        torch.stack(images), torch.stack(targets) if several else torch.tensor(targets), (), torch.tensor(indices)
    )
