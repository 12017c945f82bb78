"""What evaluation measures."""

from __future__ import annotations

from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import MeanMetric, Metric
from torchmetrics.classification import MulticlassAccuracy


class Meters(nn.ModuleDict):
    """Meters by the name of what they measure: `loss`, `acc1` and `acc5`; or `loss_ssl` where nothing is classified.

    Args:
        num_classes: of the classifier, None = there is none; `acc5` needs more than 5.
    """

    def __init__(self, num_classes: int | None) -> None:
        if num_classes is None:
            super().__init__({"loss_ssl": MeanMetric()})
            return
        accuracies = {
            f"acc{k}": MulticlassAccuracy(num_classes, top_k=k, average="micro") for k in (1, 5) if k < num_classes
        }
        super().__init__({"loss": MeanMetric(), **accuracies})

    def meter(self, name: str) -> Metric:
        """One of them."""
        return cast("Metric", self[name])

    def add(self, logits: Tensor, targets: Tensor, videos: Tensor | None = None) -> None:
        """Count logits (B, K) of a batch with its targets (B,); the loss is not smoothed."""
        self.meter("loss").update(F.cross_entropy(logits, targets), weight=len(logits))
        for name in self:
            if name.startswith("acc"):
                self.meter(name).update(logits, targets)

    def add_loss(self, ssl_loss: Tensor, images: int) -> None:
        """Count the task's loss (scalar), the mean over so many images."""
        self.meter("loss_ssl").update(ssl_loss, weight=images)

    def take(self) -> dict[str, Tensor]:
        """What they say by name, over all processes, accuracies in percent; starts anew."""
        values = {}
        for name in self:
            values[name] = self.meter(name).compute() * (100 if name.startswith("acc") else 1)
            self.meter(name).reset()
        return values
