"""The classifier, its loss L_cls and its accuracy in training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from timm.loss import SoftTargetCrossEntropy
from torch import Tensor, nn

from ssat.config.schema import Recipe
from ssat.core.batch import NO_LABEL, Batch
from ssat.core.distributed import mean_over_processes, over_labelled
from ssat.core.errors import UserError

Normalize = Literal["weights", "none"]
SHOWN = 10  # classes whose names are listed in a sentence


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


def class_weights(w: float | str, counts: Mapping[str, int]) -> Tensor:
    """(K,) weights of the classes in L_cls: Eq. 3's [w, 1 - w] for [real, fake].

    The prose of the paper's Appendix D.3 calls w the weight of the fakes; the equation and its caption give it to the
    real videos.

    Args:
        w: of the first class of two; `auto` = every class counts as much as another: of two, w is the share of the
            second.
        counts: training images or videos of each class.

    Raises:
        UserError: w is not between 0 and 1, a number for other than two classes, or a class without images.
    """
    _refuse_empty("recipe.w", w, counts)
    if w == "auto":
        inverse = torch.tensor([1 / count for count in counts.values()], dtype=torch.float64)
        return (inverse / inverse.sum()).float()
    if len(counts) != 2 or not 0 < float(w) < 1:
        raise UserError(
            f"recipe.w={w} must lie between 0 and 1 and is the weight of one class of two; the data have {len(counts)}:"
            " use recipe.w=auto or null",
            key="recipe.w",
            value=w,
        )
    return torch.tensor([float(w), 1 - float(w)])


def weights_of_classes(given: Literal["balanced"] | Sequence[float], counts: Mapping[str, int]) -> Tensor:
    """(K,) weights of any number of classes in L_cls: `recipe.class_weights`.

    Args:
        given: one for each class, in the order of `counts`; `balanced` = n / (K n_k) with n_k of the n images in class
            k, as `sklearn.utils.class_weight.compute_class_weight` (King and Zeng 2001): their mean over the images
            is 1.
        counts: training images or videos of each class.

    Raises:
        UserError: another number of weights than classes, or `balanced` and a class without images.
    """
    if isinstance(given, str):
        _refuse_empty("recipe.class_weights", given, counts)
        total = sum(counts.values())
        return torch.tensor([total / (len(counts) * count) for count in counts.values()], dtype=torch.float64).float()
    if len(given) != len(counts):
        raise UserError(
            f"recipe.class_weights has {len(given)} weights, and the data have {len(counts)} classes: give one for"
            f" each, in the order {', '.join(counts) if len(counts) <= SHOWN else 'of their names'}, or"
            " recipe.class_weights=balanced",
            key="recipe.class_weights",
            value=list(given),
        )
    return torch.tensor([float(weight) for weight in given])


def recipe_weights(recipe: Recipe, counts: Mapping[str, int]) -> Tensor | None:
    """The weights of the classes that a recipe asks for, by `w` or `class_weights`; None where they weigh alike."""
    if recipe.class_weights is not None:
        return weights_of_classes(recipe.class_weights, counts)
    return None if recipe.w is None else class_weights(recipe.w, counts)


def _refuse_empty(key: str, value: float | str, counts: Mapping[str, int]) -> None:
    if not all(counts.values()):
        lacking = next(name for name, count in counts.items() if not count)
        raise UserError(
            f"{key}={value} weighs the classes, and the training data have none of {lacking}: add some, or set"
            f" {key}=null",
            key=key,
            value=value,
        )


class ClassLoss:
    """L_cls of a batch.

    Smoothed cross-entropy on class indices; soft cross-entropy on mixed targets (B, K), which mixing has smoothed.
    Computed in fp32.

    Args:
        label_smoothing: of the cross-entropy on class indices.
        partly_labelled: some targets are NO_LABEL; L_cls is the mean over the others.
        class_weights: (K,) of the classes; see the function. None = all count the same.
        normalize: what the weighted sum over the batch is divided by: `weights` = the sum of the targets' weights, over
            all processes, so that L_cls has the size of an unweighted one and lambda means the same; `none` = the
            number of targets, which is Eq. 3 as printed and makes L_cls smaller (3.4 times with 82 % fakes).
        focal_gamma: each image's loss is multiplied by (1 - p)^gamma, p the probability of its class: the focal loss
            of Lin et al. 2017, Eq. 4 and 5, over the softmax of all classes; 0 = cross-entropy. The class weights are
            its alpha. It has no soft targets, so `label_smoothing` must be 0.

    Raises:
        UserError: a focal loss of smoothed or mixed labels.
    """

    def __init__(
        self,
        label_smoothing: float,
        *,
        partly_labelled: bool = False,
        class_weights: Tensor | None = None,
        normalize: Normalize = "weights",
        focal_gamma: float = 0.0,
    ) -> None:
        if focal_gamma and label_smoothing:
            raise UserError(
                f"focal_gamma={focal_gamma:g} is a loss of one right class: set label_smoothing=0", key="focal_gamma"
            )
        self.focal_gamma = focal_gamma
        self.label_smoothing, self.partly_labelled = label_smoothing, partly_labelled
        self.class_weights = None if class_weights is None else class_weights.float()
        self.normalize = normalize

    def __call__(self, logits: Tensor | None, batch: Batch) -> Tensor:
        """The scalar loss of `logits` (v * B, K), v views of the batch's images; 0 without logits."""
        if logits is None:
            return batch.images.new_zeros(())
        assert batch.targets is not None, "a batch without targets cannot be classified"
        targets = torch.cat([batch.targets] * (len(logits) // len(batch.targets)))
        logits = logits.float()
        if self.class_weights is not None:
            self.class_weights = self.class_weights.to(logits.device)
            return self._weighted(logits, targets, self.class_weights)
        if self.focal_gamma:
            return self._weighted(logits, targets, logits.new_ones(logits.shape[1], dtype=torch.float32))
        if targets.is_floating_point():
            return SoftTargetCrossEntropy()(logits, targets)
        if self.partly_labelled:
            return self._over_labelled(logits, targets)
        return F.cross_entropy(logits, targets, label_smoothing=self.label_smoothing)

    def _over_labelled(self, logits: Tensor, targets: Tensor) -> Tensor:
        options: dict[str, Any] = {"label_smoothing": self.label_smoothing, "ignore_index": NO_LABEL}
        total = F.cross_entropy(logits, targets, reduction="sum", **options)
        return over_labelled(total, targets != NO_LABEL)

    def _weighted(self, logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        """Sum over samples and classes of -weight * target * log p, over what `normalize` says."""
        if targets.is_floating_point():
            if self.focal_gamma:
                raise UserError("the focal loss has no mixed labels: set recipe.mixup=0 and recipe.cutmix=0")
            total = F.cross_entropy(logits, targets.float(), weights, reduction="sum")
            with torch.autocast(logits.device.type, enabled=False):  # a product would be in half precision
                sizes = targets.float() @ weights
            counted = targets.new_ones(len(targets), dtype=torch.bool)
        else:
            options: dict[str, Any] = {"label_smoothing": self.label_smoothing, "ignore_index": NO_LABEL}
            if self.focal_gamma:
                each = F.cross_entropy(logits, targets, weights, reduction="none", **options)
                total = (each * self._focus(logits, targets)).sum()
            else:
                total = F.cross_entropy(logits, targets, weights, reduction="sum", **options)
            counted = targets != NO_LABEL
            sizes = weights[targets.clamp_min(0)] * counted
        if self.normalize == "none":
            sizes = counted.float()
        # Over all processes, as one process would divide the whole batch.
        size = mean_over_processes(sizes.sum())
        return total / torch.where(size > 0, size, torch.ones_like(size))

    def _focus(self, logits: Tensor, targets: Tensor) -> Tensor:
        """(1 - p)^gamma of each image."""
        right = logits.log_softmax(1).gather(1, targets.clamp_min(0)[:, None])[:, 0]
        # The derivative of 0^gamma is infinite for gamma below 1.
        return (-torch.expm1(right)).clamp_min(torch.finfo(right.dtype).eps) ** self.focal_gamma

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
