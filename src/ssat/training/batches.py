"""Batches of a plain loader as ours."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from ssat.core.batch import NO_LABEL, Batch
from ssat.core.distributed import world_size
from ssat.core.errors import UserError


def as_batch(given: Any, number: int) -> Batch:
    """`given` as a `Batch`: one already, images (B, C, H, W), or (images,) or (images, targets) of a plain loader.

    A plain loader's images are numbered in the order in which all processes see them, so that no two batches have the
    same random masks.

    Args:
        given: what the loader gives.
        number: of the batch in this process, from 0.

    Raises:
        UserError: something else.
    """
    if isinstance(given, Batch):
        return given
    parts = (given,) if isinstance(given, Tensor) else given
    if (
        not isinstance(parts, (tuple, list))
        or len(parts) not in (1, 2)
        or not all(isinstance(p, Tensor) for p in parts)
    ):
        held = f" of {len(parts)}" if isinstance(parts, (tuple, list)) else ""
        raise UserError(
            f"a batch is a {type(given).__name__}{held}, and the module takes (images, targets) as tensors, or a"
            " ssat.core.batch.Batch: let the loader's collate_fn make one"
        )
    images, count = parts[0], len(parts[0])
    rank = dist.get_rank() if world_size() > 1 else 0
    first = (number * world_size() + rank) * count
    indices = torch.arange(first, first + count, device=images.device)
    return Batch(images, parts[1] if len(parts) == 2 else None, indices=indices)


def labelled_alone(batch: Batch, at_most: int | None = None) -> Batch:
    """The batch with the images that have labels as `classified`, at least one, and their targets alone.

    Args:
        batch: with targets.
        at_most: so many of the batch have labels, or fewer: as many images are chosen (or all), filled up by others,
            and nothing waits for the device to count them. None = they are counted.
    """
    targets = batch.targets
    assert targets is not None, "a batch without targets cannot be classified"
    missing = (targets if targets.ndim == 1 else targets[:, 0]) == NO_LABEL
    if at_most is not None:
        rows = missing.to(torch.int8).argsort(stable=True)[:at_most]
    else:
        found = missing.logical_not().nonzero()[:, 0]
        rows = found if len(found) else found.new_zeros(1)
    return batch._replace(classified=rows, targets=targets[rows])
