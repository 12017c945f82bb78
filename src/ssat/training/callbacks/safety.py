"""What keeps a run from being lost: its stamp, and a guard against NaN."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from ssat.core.batch import Batch
from ssat.core.errors import UserError
from ssat.training.callbacks.spare import spare


@spare
class Stamp(Callback):
    """Makes every checkpoint of a phase say what it is: enough to go on from it, and to load it alone.

    The module writes it, because Lightning asks no callback where only weights are saved, as in `best.ckpt`.

    Args:
        config: plain values of the run.
        inputs: what the run reads: fingerprint of the data, class names, weights.
        drop_last: of the training batches; no other run can go on from the checkpoint.
        phase: its name.
        mean, std: (channels,) of the normalisation.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        inputs: Mapping[str, Any],
        *,
        drop_last: bool,
        phase: str,
        mean: Sequence[float],
        std: Sequence[float],
    ) -> None:
        self._stamp = {
            **{"config": dict(config), "inputs": dict(inputs), "drop_last": drop_last, "phase": phase},
            "statistics": {"mean": [*map(float, mean)], "std": [*map(float, std)]},
        }

    def setup(self, trainer: pl.Trainer, pl_module: Any, stage: str) -> None:
        """Hand it to the `JointModule`."""
        pl_module.stamp = self._stamp


class NonFiniteLoss(UserError):
    """The loss became infinite or not a number."""


@spare
class FiniteGuard(Callback):
    """Stops at a non-finite loss, before any checkpoint of it is written, and saves the batch's indices.

    Losses are read every `every` steps (1 on a CPU, where reading is free) and before each checkpoint.
    """

    def __init__(self, folder: Path, every: int) -> None:
        self._folder, self._every = folder, every
        self._pending: list[tuple[int, int, Tensor, Tensor | None]] = []

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Keep the loss, and look at the kept ones now and then."""
        self._pending.append((trainer.global_step, trainer.current_epoch, outputs["loss"], batch.indices))
        if len(self._pending) >= self._every:
            self.verify(trainer)

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict) -> None:
        """Look at the kept losses first: no checkpoint holds NaN."""
        self.verify(trainer)

    def verify(self, trainer: pl.Trainer) -> None:
        """Raises: NonFiniteLoss naming the first bad step and the checkpoint to go back to."""
        pending, self._pending = self._pending, []
        if not pending or (len(pending) == 1 and math.isfinite(pending[0][2])):  # one needs no tensors
            return
        bad = (~torch.isfinite(torch.stack([loss for _, _, loss, _ in pending]))).nonzero()
        if not len(bad):
            return
        step, epoch, loss, indices = pending[int(bad[0])]
        path = self._folder / f"non_finite_step_{step}_rank_{trainer.global_rank}.json"
        path.write_text(
            json.dumps(
                {
                    "step": step,
                    "epoch": epoch,
                    "loss": str(float(loss)),
                    "indices": None if indices is None else indices.tolist(),
                }
            )
        )
        last = self._folder / "checkpoints" / "last.ckpt"
        kept = f"the last good checkpoint is {last}" if last.exists() else "there is no checkpoint yet"
        raise NonFiniteLoss(
            f"the loss became {float(loss)} at step {step} (epoch {epoch}): {kept}; the batch's indices are in {path};"
            f" lower recipe.base_lr, set recipe.clip_grad=1 or use trainer.precision=32"
        )
