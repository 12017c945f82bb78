"""Where a training stands: the steps behind it and before it, and the randomness of each of them."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import NamedTuple

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor

from ssat.core.batch import Batch
from ssat.core.errors import UserError


class Progress(NamedTuple):
    """How far a training is when a batch begins.

    Attributes:
        batches: that this process has seen before.
        share: of the schedule's optimizer steps that are done, in [0, 1].
        lam: weight of L_cls at this step, on the device: what is compiled or replayed takes no other number from the
            host; None = it follows from `share`.
    """

    batches: int
    share: float
    lam: Tensor | None = None


# A joint loss, and what `EpochMeans` takes of it.
Step = tuple[Tensor, dict[str, Tensor]]
Losses = Callable[[Batch, Progress], Step]


def progress_at(trainer: pl.Trainer, batch_idx: int, epochs: int | None) -> Progress:
    """The progress when batch `batch_idx` of the current epoch begins; see `total_steps` for `epochs`."""
    return Progress(batches_before(trainer, batch_idx), share_done(trainer, trainer.global_step, epochs))


def batches_per_epoch(trainer: pl.Trainer) -> int:
    """Training batches of this process in one epoch.

    Raises:
        UserError: the loader has no length.
    """
    if trainer.train_dataloader is None:
        trainer.fit_loop.setup_data()
    batches = trainer.num_training_batches
    if math.isinf(batches):
        raise UserError(
            "the training loader has no length, and the schedule of the learning rate needs one: give the loader a"
            " __len__, or use a data set that is not iterable only"
        )
    return int(batches)


def batches_before(trainer: pl.Trainer, batch_idx: int) -> int:
    """Batches that this process has seen when batch `batch_idx` of the current epoch begins."""
    return trainer.current_epoch * batches_per_epoch(trainer) + batch_idx


def check_accumulation(trainer: pl.Trainer) -> None:
    """Refuse an optimizer step of more batches than an epoch has: the schedule and the record would count them all.

    Raises:
        UserError: says how many there are.
    """
    refuse_accumulate(trainer.accumulate_grad_batches, batches_per_epoch(trainer))


def refuse_accumulate(accumulate: int, batches: float) -> None:
    """Raises: UserError: a step would take more batches than an epoch has."""
    if accumulate > batches:
        raise UserError(
            f"trainer.accumulate={accumulate} is more than the {batches} batches of an epoch: set at most {batches}, or"
            " a smaller recipe.batch_size",
            key="trainer.accumulate",
            value=accumulate,
        )


def window_scale(trainer: pl.Trainer, batch_idx: int) -> float:
    """What makes the gradient of a step the mean over its batches, of which the last step of an epoch has fewer.

    Lightning divides by `accumulate_grad_batches` also there.
    """
    batches, accumulate = batches_per_epoch(trainer), trainer.accumulate_grad_batches
    rest = batches % accumulate
    return accumulate / rest if rest and batch_idx >= batches - rest else 1.0


def total_steps(trainer: pl.Trainer, epochs: int | None) -> int:
    """Optimizer steps of the whole schedule; a run that is stopped early keeps the schedule of all its epochs.

    Args:
        trainer: its data are set up if they are not yet.
        epochs: of the schedule; None = the trainer's `max_epochs`, or its `max_steps` where that is unlimited.

    Raises:
        UserError: nothing says where the schedule ends.
    """
    per_epoch = math.ceil(batches_per_epoch(trainer) / trainer.accumulate_grad_batches)
    epochs = trainer.max_epochs if epochs is None else epochs
    if epochs is not None and epochs >= 0:
        return per_epoch * epochs
    if trainer.max_steps < 0:
        raise UserError(
            "Trainer(max_epochs=-1) has no end, and the schedule of the learning rate needs one: set max_epochs or"
            " max_steps, or optimization=Optimization(epochs=...)"
        )
    return trainer.max_steps


def share_done(trainer: pl.Trainer, steps: int, epochs: int | None) -> float:
    """Share of the schedule that is done after `steps` optimizer steps, in [0, 1]."""
    return min(1.0, steps / max(1, total_steps(trainer, epochs)))


def seed_step(seed: int, step: int, rank: int) -> None:
    """Seed every global generator for one training step.

    Dropout, drop path and mixing then follow from (seed, step, rank) alone, so that a resumed run repeats them without
    any saved random state.
    """
    mixed = (seed * 0x9E3779B97F4A7C15 + step * 0xBF58476D1CE4E5B9 + rank * 0x94D049BB133111EB) % 2**64
    mixed ^= mixed >> 31
    random.seed(mixed)
    np.random.seed(mixed % 2**32)
    _seed_torch(mixed % 2**63)


def _seed_torch(seed: int) -> None:
    """`torch.manual_seed` of the devices that are there: for every absent kind that one formats a stack trace."""
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)
    if torch.backends.mps.is_available():
        torch.mps.manual_seed(seed)
