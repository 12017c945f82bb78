"""What evaluation measures of several labels of an image (multi-label)."""

from __future__ import annotations

from typing import Any, cast

import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torchmetrics import Metric

from ssat.runs.label_scores import LabelPredictions, label_epoch_metrics

STATES = ("indices", "targets", "logits")


class AllLabels(Metric):
    """Keeps targets and logits of every image, over all processes."""

    full_state_update = False

    def __init__(self) -> None:
        super().__init__()
        for name in STATES:
            self.add_state(name, [], dist_reduce_fx="cat")

    def update(self, indices: Tensor, targets: Tensor, logits: Tensor) -> None:
        """Keep a batch: indices (B,) in the data, labels (B, K) of 0 and 1, and logits (B, K)."""
        for name, value in zip(STATES, (indices, targets.round().long(), logits), strict=True):
            getattr(self, name).append(value.detach())

    def compute(self) -> dict[str, NDArray[Any]]:
        """The arguments of `LabelPredictions`, by index: in an order that does not tell which process had which."""
        parts = {name: getattr(self, name) for name in STATES}
        whole = {name: (torch.cat(each) if isinstance(each, list) else each).cpu() for name, each in parts.items()}
        order = whole["indices"].argsort(stable=True)
        # Arrays: of tensors torchmetrics would squeeze those of a single image.
        return {name: each[order].numpy() for name, each in whole.items()}


class LabelMeters(nn.ModuleDict):
    """Measures several labels of an image, as `Meters` does one class, over all processes.

    Attributes:
        kept: every prediction of the last `take`; None before it, or where nothing was counted.
    """

    def __init__(self) -> None:
        super().__init__({"predictions": AllLabels()})
        self.kept: LabelPredictions | None = None

    def keep_logits(self) -> None:
        """They are always kept."""

    def add(self, logits: Tensor, targets: Tensor, indices: Tensor | None = None) -> None:
        """Count logits (B, K) of a batch with its labels (B, K) and indices (B,)."""
        numbers = torch.full((len(targets),), -1, device=targets.device) if indices is None else indices
        cast("Metric", self["predictions"]).update(numbers, targets, logits)

    def take(self) -> dict[str, Tensor]:
        """What `label_epoch_metrics` says, by name, over all processes; starts anew. Nothing where nothing was counted.

        Raises:
            UserError: a prediction is nan.
        """
        meter = cast("Metric", self["predictions"])
        self.kept = LabelPredictions(**meter.compute()) if meter.update_called else None
        device = meter.device
        meter.reset()
        if self.kept is None:
            return {}
        return {name: torch.tensor(value, device=device) for name, value in label_epoch_metrics(self.kept).items()}
