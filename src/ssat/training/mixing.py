"""Mixup and CutMix of the training batches."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from timm.data.mixup import Mixup
from torch import Tensor

from ssat.config.schema import Recipe
from ssat.core.batch import Batch
from ssat.core.errors import UserError
from ssat.tasks.base import Task


@dataclass(frozen=True)
class Mixing:
    """Mixup (Zhang et al. 2018) and CutMix (Yun et al. 2019); the defaults mix nothing.

    Attributes:
        mixup: alpha of mixup; 0 = off.
        cutmix: alpha of CutMix; 0 = off.
        prob: share of the batches that are mixed.
        switch_prob: of those, the share mixed by CutMix, where both are on.
        mode: one amount per `batch`, `pair` or `elem` (image).
    """

    mixup: float = Recipe.mixup
    cutmix: float = Recipe.cutmix
    prob: float = Recipe.mix_prob
    switch_prob: float = Recipe.mix_switch_prob
    mode: str = Recipe.mix_mode


class Mix:
    """A batch with mixed images and soft targets, by timm; the batch itself where nothing is mixed.

    Args:
        mixing: what is mixed; None = nothing.
        num_classes: K of the soft targets (B, K); None = there are no targets, and nothing is mixed.
        label_smoothing: of the soft targets.
        multi_label: targets are labels (B, K) and are mixed as they are; the loss smooths them.
        task: reads the images before they are mixed (`Batch.unmixed`), or does not; None = there is none.

    Raises:
        UserError: the task compares the images with views of them, which mixing would change.
    """

    def __init__(
        self,
        mixing: Mixing | None,
        num_classes: int | None,
        label_smoothing: float,
        task: Task | None = None,
        *,
        multi_label: bool = False,
    ) -> None:
        self.multi_label = multi_label
        self.keep_unmixed = task is not None and task.reads_unmixed
        self.mixup: Mixup | None = None
        if num_classes is not None and mixing is not None and (mixing.mixup or mixing.cutmix):
            if task is not None and task.compares_images:
                raise UserError(
                    "the SSL task compares views, and recipe.mixup or cutmix would mix the one that it shares with the"
                    " classification: set ssl.share=third, or turn them off"
                )
            self.mixup = Mixup(
                mixup_alpha=mixing.mixup,
                cutmix_alpha=mixing.cutmix,
                prob=mixing.prob,
                switch_prob=mixing.switch_prob,
                mode=mixing.mode,
                label_smoothing=0.0 if multi_label else label_smoothing,
                num_classes=num_classes,
            )

    def __call__(self, batch: Batch) -> Batch:
        """The batch to train on.

        Raises:
            UserError: an odd number of images, which cannot be paired.
        """
        if self.mixup is None:
            return batch
        if len(batch.images) % 2:
            raise UserError(
                f"mixup pairs images, and a batch has {len(batch.images)} of them: set recipe.mixup=0 and cutmix=0,"
                " or choose another batch size or number of labels"
            )
        # timm mixes in place, and a loader of the user's may hand out the same tensors again.
        if self.multi_label:
            images, targets = self._mixed_labels(self.mixup, batch)
        else:
            images, targets = self.mixup(batch.images.clone(), batch.targets)
        return batch._replace(images=images, targets=targets, unmixed=batch.images if self.keep_unmixed else None)

    @staticmethod
    def _mixed_labels(mixup: Mixup, batch: Batch) -> tuple[Tensor, Tensor]:
        """timm mixes classes: with each image as a class of its own it says the share of every image (B, B)."""
        assert batch.targets is not None
        mixup.num_classes = len(batch.images)
        images, shares = mixup(batch.images.clone(), torch.arange(len(batch.images), device=batch.images.device))
        return images, shares.to(batch.targets.dtype) @ batch.targets
