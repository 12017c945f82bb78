"""What evaluation measures."""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torchmetrics import MeanMetric, Metric
from torchmetrics.classification import MulticlassAccuracy

from ssat.runs.image_classes import ImagePredictions, epoch_metrics

RANKED = 20  # classes at most of which every evaluation takes the AUROC: each class costs a sort of all images
ALL = "predictions"  # name of the meter that keeps every prediction


class Predictions(Metric):
    """Keeps what is predicted of every image, over all processes.

    Args:
        with_logits: keep the logits (B, K) and not only the predicted class.
    """

    full_state_update = False

    def __init__(self, *, with_logits: bool) -> None:
        super().__init__()
        self.with_logits = with_logits
        for name in ("indices", "targets", "predicted", *(["logits"] if with_logits else [])):
            self.add_state(name, [], dist_reduce_fx="cat")

    def update(self, indices: Tensor, targets: Tensor, logits: Tensor) -> None:
        """Keep a batch: indices (B,) in the data, classes (B,) and logits (B, K)."""
        rows: dict[str, Any] = {"indices": indices, "targets": targets, "predicted": logits.argmax(1)}
        if self.with_logits:
            rows["logits"] = logits
        for name, value in rows.items():
            getattr(self, name).append(value.detach())

    def compute(self) -> dict[str, NDArray[Any]]:
        """The arguments of `ImagePredictions`, by index: in an order that does not tell which process had which."""
        names = ("indices", "targets", "predicted", *(["logits"] if self.with_logits else []))
        parts = {name: getattr(self, name) for name in names}
        whole = {name: (torch.cat(each) if isinstance(each, list) else each).cpu() for name, each in parts.items()}
        order = whole["indices"].argsort(stable=True)
        # Arrays: of tensors torchmetrics would squeeze those of a single image.
        return {name: each[order].numpy() for name, each in whole.items()}


class Meters(nn.ModuleDict):
    """Meters by the name of what they measure: `loss`, `acc1` and `acc5`; or `loss_ssl` where nothing is classified.

    Args:
        num_classes: of the classifier, None = there is none; `acc5` needs more than 5.

    Attributes:
        ranked: `take` gives `auroc`.
        kept: every prediction of the last `take`; None before it, or where nothing was counted.
    """

    def __init__(self, num_classes: int | None) -> None:
        super().__init__()
        self.num_classes = num_classes or 0
        self.ranked = 1 < self.num_classes <= RANKED
        self.kept: ImagePredictions | None = None
        if num_classes is None:
            self.update({"loss_ssl": MeanMetric()})
            return
        accuracies = {
            f"acc{k}": MulticlassAccuracy(num_classes, top_k=k, average="micro") for k in (1, 5) if k < num_classes
        }
        self.update({"loss": MeanMetric(), **accuracies, ALL: Predictions(with_logits=self.ranked)})

    def meter(self, name: str) -> Metric:
        """One of them."""
        return cast("Metric", self[name])

    def keep_logits(self) -> None:
        """From the next evaluation on keep the logits of every image, of however many classes."""
        if not cast("Predictions", self[ALL]).with_logits:
            self[ALL] = Predictions(with_logits=True).to(self.meter("loss").device)

    def rank(self) -> None:
        """From the next evaluation on measure the AUROC, of however many classes."""
        self.ranked = True
        self.keep_logits()

    def add(self, logits: Tensor, targets: Tensor, indices: Tensor | None = None) -> None:
        """Count logits (B, K) of a batch with its targets (B,) and indices (B,); the loss is not smoothed."""
        self.meter("loss").update(F.cross_entropy(logits, targets), weight=len(logits))
        self.meter(ALL).update(torch.full_like(targets, -1) if indices is None else indices, targets, logits)
        for name in self:
            if name.startswith("acc"):
                self.meter(name).update(logits, targets)

    def add_loss(self, ssl_loss: Tensor, images: int) -> None:
        """Count the task's loss (scalar), the mean over so many images."""
        self.meter("loss_ssl").update(ssl_loss, weight=images)

    def take(self) -> dict[str, Tensor]:
        """What they say by name, over all processes, accuracies in percent; starts anew.

        Of more than one class also `balanced_acc` and `macro_f1`, percent, and `auroc` in [0, 1] where it is `ranked`
        and the images are of several classes. Nothing where nothing was counted.

        Raises:
            UserError: a prediction is nan.
        """
        values, self.kept = {}, None
        for name in self:
            if self.meter(name).update_called:  # on all processes or on none: `sampler.eval_batches`
                found = self.meter(name).compute()
                if name == ALL:
                    self.kept = ImagePredictions(**found)
                else:
                    values[name] = found * (100 if name.startswith("acc") else 1)
            self.meter(name).reset()
        if self.kept is not None and self.num_classes > 1:
            device = self.meter("loss").device
            more = epoch_metrics(self.kept, self.num_classes, ranked=self.ranked)
            values |= {name: torch.tensor(value, device=device) for name, value in more.items()}
        return values
