"""The classifier, its loss L_cls and its accuracy in training."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from timm.loss import SoftTargetCrossEntropy
from torch import Tensor, nn

from ssat.core.batch import NO_LABEL, Batch
from ssat.core.distributed import mean_over_processes, world_size


def linear_head(num_features: int, num_classes: int, init: str = "xavier", *, norm: bool = False) -> nn.Module:
    """The linear classifier of features (B, num_features).

    Args:
        num_features: of the encoder.
        num_classes: of the data.
        init: `xavier` as the authors', `small` (std 2e-5) as MAE's fine-tuning.
        norm: batch norm without affine before it, as MAE's linear probing (He et al. 2022, A.1).
    """
    head = nn.Linear(num_features, num_classes)
    nn.init.xavier_uniform_(head.weight) if init == "xavier" else nn.init.trunc_normal_(head.weight, std=2e-5)
    nn.init.zeros_(head.bias)
    if norm:
        return nn.Sequential(nn.BatchNorm1d(num_features, affine=False, eps=1e-6), head)
    return head


def head_from(head: nn.Module | None, num_features: int, num_classes: int | None) -> nn.Module:
    """`head` itself, or a linear one."""
    return linear_head(num_features, num_classes or 0) if head is None else head


class ClassLoss:
    """L_cls of a batch.

    Smoothed cross-entropy on class indices; soft cross-entropy on mixed targets (B, K), which mixing has smoothed.

    Args:
        label_smoothing: of the cross-entropy on class indices.
        partly_labelled: some targets are NO_LABEL; L_cls is the mean over the others.
    """

    def __init__(self, label_smoothing: float, *, partly_labelled: bool = False) -> None:
        self.label_smoothing, self.partly_labelled = label_smoothing, partly_labelled

    def __call__(self, logits: Tensor | None, batch: Batch) -> Tensor:
        """The scalar loss of `logits` (v * B, K), v views of the batch's images; 0 without logits."""
        if logits is None:
            return batch.images.new_zeros(())
        assert batch.targets is not None, "a batch without targets cannot be classified"
        targets = torch.cat([batch.targets] * (len(logits) // len(batch.targets)))
        if targets.is_floating_point():
            return SoftTargetCrossEntropy()(logits, targets)
        if self.partly_labelled:
            return self._over_labelled(logits, targets)
        return F.cross_entropy(logits, targets, label_smoothing=self.label_smoothing)

    def _over_labelled(self, logits: Tensor, targets: Tensor) -> Tensor:
        options: dict[str, Any] = {"label_smoothing": self.label_smoothing, "ignore_index": NO_LABEL}
        total = F.cross_entropy(logits, targets, reduction="sum", **options)
        # Over all processes: one with few labels then weighs as much as its labels do.
        labelled = mean_over_processes((targets != NO_LABEL).sum().float())
        return total / labelled.clamp_min(1 / world_size())

    def values(self, loss: Tensor, logits: Tensor | None, batch: Batch) -> dict[str, Tensor]:
        """`loss_cls`, and `acc1` in percent of the batch's first view, for `EpochMeans`.

        Where images lack labels, `acc1` is a sum with its `acc1_count`. Mixed targets have no accuracy: none is right.
        """
        if logits is None or batch.targets is None:
            return {}
        if batch.targets.is_floating_point():
            return {"loss_cls": loss}
        right = logits[: len(batch.targets)].argmax(1) == batch.targets
        if not self.partly_labelled:
            return {"loss_cls": loss, "acc1": right.float().mean() * 100}
        labelled = (batch.targets != NO_LABEL).sum().float()
        return {"loss_cls": loss, "acc1": right.sum() * 100.0, "acc1_count": labelled}
