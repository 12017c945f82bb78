"""Whether an exported file computes what PyTorch computes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from ssat.core.errors import UserError

Logits = Callable[[Tensor], Tensor]  # images (B, C, H, W) to logits (B, K)

TOLERANCE = 1e-4  # largest difference of two logits that is allowed, as a share of the largest logit
BATCHES = (1, 7)  # of random input: the batch size is free in every format


class Parity(NamedTuple):
    """The comparison of two networks on the same input.

    Attributes:
        images: how many images or clips were compared.
        difference: the largest absolute difference of two logits.
        relative: the same as a share of the largest logit.
        same_top1: of how many images the most probable class is the same.
    """

    images: int
    difference: float
    relative: float
    same_top1: int

    def said(self, *, multi_label: bool = False) -> str:
        """In words; `multi_label`: the logits are of labels, of which an image may have several."""
        same = f"{agreed(multi_label=multi_label)} on {self.same_top1} of them"
        return f"largest difference {self.relative:.1e} of the largest logit, {same}"


def agreed(*, multi_label: bool) -> str:
    """What `Parity.same_top1` counts, in words."""
    return "same most probable label" if multi_label else "same top-1"


@torch.inference_mode()
def compare(reference: Logits, exported: Logits, batches: Iterable[Tensor]) -> Parity:
    """The comparison over `batches` of images (B, C, H, W).

    Raises:
        UserError: the reference itself gives nan or infinity.
    """
    images, same, difference, largest = 0, 0, 0.0, 0.0
    for batch in batches:
        ours, theirs = reference(batch).double(), exported(batch).double()
        if not ours.isfinite().all():
            raise UserError("the network predicts nan: the training has diverged, choose another run or checkpoint")
        if ours.shape != theirs.shape:
            raise UserError(f"the exported file gives logits {tuple(theirs.shape)} in place of {tuple(ours.shape)}")
        images += len(batch)
        same += int((ours.argmax(1) == theirs.argmax(1)).sum())
        # A nan of theirs must not get lost in max().
        difference = max(difference, (ours - theirs).abs().nan_to_num(torch.inf).max().item())
        largest = max(largest, ours.abs().max().item())
    return Parity(images, difference, difference / max(largest, torch.finfo(torch.float32).tiny), same)


def require(parity: Parity, what: str, name: str, *, multi_label: bool = False) -> None:
    """Refuse an export that computes something else.

    Args:
        parity: the comparison.
        what: the input was, e.g. "random images".
        name: of the format.
        multi_label: the logits are of labels.

    Raises:
        UserError: the logits differ by more than TOLERANCE, or a top-1 class differs.
    """
    if parity.relative <= TOLERANCE and parity.same_top1 == parity.images:
        return
    raise UserError(
        f"format={name} does not compute what PyTorch computes on {parity.images} {what}"
        f" ({parity.said(multi_label=multi_label)}; required are"
        f" {TOLERANCE:.0e} and all of them): nothing was written, take another format",
        key="format",
        value=name,
    )
