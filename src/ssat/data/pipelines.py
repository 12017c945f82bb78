"""The batched pipeline of a data module: what the loader's workers do and what is done to whole batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ssat.core.views import View
from ssat.data.memory import DecodedDataset, IndexDataset, Memory, Prepare
from ssat.data.sets.sources import ImageList
from ssat.data.transforms.augment import EvalTransform, Normalise, TrainTransform
from ssat.data.transforms.views import ViewTransform


@dataclass(frozen=True)
class Batched:
    """The transforms of the batched pipeline; the attributes are those of `ImageDataModule`."""

    img_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    augment: dict[str, Any] | None
    seed: int
    eval_crop_pct: float
    views: tuple[View | str, ...]

    def train(self, *, crop: bool, number: int = -1) -> TrainTransform:
        """Of the training images, or of the view `number`; `crop` = False for images that are cropped already.

        Raises:
            UserError: the augmentation is not possible.
        """
        assert self.augment is not None
        normal: dict[str, Any] = {"mean": self.mean, "std": self.std, "seed": self.seed}
        return TrainTransform(self.img_size, augment=self.augment, crop=crop, number=number, **normal)

    def view(self, view: View | str, number: int, *, crop: bool) -> TrainTransform | ViewTransform:
        """Of the extra view `number`."""
        if isinstance(view, View):
            return ViewTransform(view, mean=self.mean, std=self.std, seed=self.seed, number=number, crop=crop)
        return self.train(crop=crop, number=number)

    def parts(
        self, images: ImageList, memory: Memory | None, device: torch.device, *, evaluate: bool, views: Sequence[Any]
    ) -> tuple[IndexDataset, Prepare]:
        """What a loader's workers do with `images`, and what is done to the batches afterwards."""
        train = None if evaluate or self.augment is None else self.train(crop=memory is not None)
        made = [self.view(view, number, crop=memory is not None) for number, view in enumerate(views)]
        if memory is None:
            dataset = DecodedDataset(images, self.img_size, crop_pct=self.eval_crop_pct, crops=[train, *made])
            return dataset, Prepare(train or Normalise(self.mean, self.std), None, device, made)
        whole = train or EvalTransform(self.img_size, mean=self.mean, std=self.std, crop_pct=self.eval_crop_pct)
        return IndexDataset(images), Prepare(whole, memory, device, made)
