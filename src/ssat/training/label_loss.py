"""L_cls of several labels of an image (multi-label): binary cross-entropy of each label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ssat.config.schema import Recipe
from ssat.core.batch import Batch
from ssat.core.distributed import over_labelled
from ssat.core.errors import UserError

SHOWN = 10  # labels whose names are listed in a sentence


def pos_weights(given: Literal["balanced"] | Sequence[float], counts: Mapping[str, int], images: int) -> Tensor:
    """(K,) weights of the images that have a label, against 1 of those that do not: PyTorch's `pos_weight`.

    Args:
        given: one for each label, in the order of `counts`; `balanced` = negatives / positives of each label, so that
            both sides weigh as much.
        counts: training images with each label.
        images: training images.

    Raises:
        UserError: another number of weights than labels, or `balanced` and a label that none or all images have.
    """
    if not isinstance(given, str):
        if len(given) == len(counts):
            return torch.tensor([float(weight) for weight in given])
        order = ", ".join(counts) if len(counts) <= SHOWN else "of their names"
        raise UserError(
            f"recipe.class_weights has {len(given)} weights, and the data have {len(counts)} labels: give one for each,"
            f" in the order {order}, or recipe.class_weights=balanced",
            key="recipe.class_weights",
            value=list(given),
        )
    constant = [name for name, count in counts.items() if not 0 < count < images]
    if constant:
        raise UserError(
            f"recipe.class_weights=balanced divides the training images without a label by those with it, and"
            f" {'none has' if not counts[constant[0]] else 'all have'} the label {constant[0]!r}: add others, or leave"
            " it out with data.label_columns=[...]",
            key="recipe.class_weights",
            value=given,
        )
    return torch.tensor([(images - count) / count for count in counts.values()], dtype=torch.float64).float()


def recipe_pos_weights(recipe: Recipe, counts: Mapping[str, int], images: int) -> Tensor | None:
    """Those that a recipe asks for; None where both sides of a label weigh 1."""
    return None if recipe.class_weights is None else pos_weights(recipe.class_weights, counts, images)


class LabelLoss:
    """L_cls of a batch whose targets are labels (B, K): the mean over images and labels of the binary cross-entropy.

    Computed in fp32. Mixed targets, between 0 and 1, are taken as they are.

    Args:
        label_smoothing: e makes (1 - e) y + e / 2 of a target y, as Keras' BinaryCrossentropy: each label is a
            question of its own with two answers.
        partly_labelled: some targets are rows of NO_LABEL; L_cls is the mean over the others.
        pos_weight: (K,) factor of the part of images that have a label, see `torch.nn.BCEWithLogitsLoss`; the sum is
            not divided by it. None = 1.
        focal_gamma: each decision's loss is multiplied by (1 - p)^gamma, p the probability of the right answer: the
            focal loss of Lin et al. 2017, Eq. 4, as they use it, with sigmoids; 0 = cross-entropy. It has no soft
            targets, so `label_smoothing` must be 0.

    Raises:
        UserError: a focal loss of smoothed or mixed labels.
    """

    def __init__(
        self,
        label_smoothing: float,
        *,
        partly_labelled: bool = False,
        pos_weight: Tensor | None = None,
        focal_gamma: float = 0.0,
    ) -> None:
        if focal_gamma and label_smoothing:
            raise UserError(
                f"focal_gamma={focal_gamma:g} is a loss of right and wrong: set label_smoothing=0", key="focal_gamma"
            )
        self.label_smoothing, self.partly_labelled, self.focal_gamma = label_smoothing, partly_labelled, focal_gamma
        self.pos_weight = None if pos_weight is None else pos_weight.float()

    def __call__(self, logits: Tensor | None, batch: Batch) -> Tensor:
        """The scalar loss of `logits` (v * B, K), v views of the batch's images; 0 without logits."""
        if logits is None:
            return batch.images.new_zeros(())
        assert batch.targets is not None, "a batch without targets cannot be classified"
        logits, targets = logits.float(), torch.cat([batch.targets.float()] * (len(logits) // len(batch.targets)))
        smoothed = targets * (1 - self.label_smoothing) + self.label_smoothing / 2
        if self.pos_weight is not None:
            self.pos_weight = self.pos_weight.to(logits.device)
        if not self.partly_labelled and not self.focal_gamma:
            return F.binary_cross_entropy_with_logits(logits, smoothed, pos_weight=self.pos_weight)
        each = F.binary_cross_entropy_with_logits(logits, smoothed, pos_weight=self.pos_weight, reduction="none")
        if self.focal_gamma:
            each = each * self._focus(logits, targets)
        if not self.partly_labelled:
            return each.mean()
        known = targets[:, 0] >= 0
        return over_labelled(torch.where(known[:, None], each, 0.0).mean(dim=1).sum(), known)

    def _focus(self, logits: Tensor, targets: Tensor) -> Tensor:
        """(1 - p)^gamma of each decision."""
        right = F.logsigmoid(torch.where(targets > 0.5, logits, -logits))
        # The derivative of 0^gamma is infinite for gamma below 1.
        return (-torch.expm1(right)).clamp_min(torch.finfo(right.dtype).eps) ** self.focal_gamma

    def values(self, loss: Tensor, logits: Tensor | None, batch: Batch) -> dict[str, Tensor]:
        """`loss_cls` for `EpochMeans`: labels in training have no accuracy, evaluation measures them."""
        return {} if logits is None or batch.targets is None else {"loss_cls": loss}
