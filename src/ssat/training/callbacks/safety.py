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
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from ssat.core.batch import Batch
from ssat.core.errors import UserError
from ssat.core.tensors import non_finite, tensors_in
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


CURES = "lower recipe.base_lr, set recipe.clip_grad=1 or use trainer.precision=32"
ROLLBACK = (
    "on_nan=rollback goes back to the last good checkpoint, or to the beginning, and takes another order of the images"
)


class NonFiniteLoss(UserError):
    """A loss, a weight or a number of the optimizer became infinite or not a number.

    Args:
        event: the same on all processes: `step` and `epoch` (from 0) of the first one, and `what` it is.
        checkpoint: the last good one, if there is one.
        indices: the file with those of the batch, if it is known.

    Attributes:
        what: happened, and when.
        cause: that, the checkpoint, the indices, and what helps but for going back.
    """

    def __init__(self, event: Mapping[str, Any], checkpoint: Path | None, indices: Path | None = None) -> None:
        self.event, self.checkpoint, self.indices = dict(event), checkpoint, indices
        self.what = f"{event['what']} at step {event['step']} (epoch {event['epoch'] + 1})"
        kept = f"the last good checkpoint is {checkpoint}" if checkpoint else "there is no checkpoint yet"
        batch = f"; the batch's indices are in {indices}" if indices else ""
        self.cause = f"{self.what}: {kept}{batch}; {CURES}"
        super().__init__(f"{self.cause}; {ROLLBACK}")

    def __reduce__(self) -> Any:
        """Crosses processes."""
        return type(self), (self.event, self.checkpoint, self.indices)


@spare
class FiniteGuard(Callback):
    """Stops at a non-finite loss, before any checkpoint of it is written, and saves the batch's indices.

    Losses are read every `every` steps (1 on a CPU, where reading is free) and before each checkpoint, and so are the
    weights and the optimizer's numbers before each checkpoint. All processes stop at the same step.

    Args:
        folder: of the phase.
        every: steps between two looks.
        rollbacks: of the phase so far; checkpoints hold them.
    """

    def __init__(self, folder: Path, every: int, rollbacks: Sequence[Mapping[str, Any]] = ()) -> None:
        self._folder, self._every = folder, every
        self._pending: list[tuple[int, int, Tensor, Tensor | None]] = []
        self._rollbacks = [dict(each) for each in rollbacks]

    def state_dict(self) -> dict[str, Any]:
        """The rollbacks, where there are some."""
        return {"rollbacks": self._rollbacks} if self._rollbacks else {}

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Keep the loss, and look at the kept ones now and then."""
        self._pending.append((trainer.global_step, trainer.current_epoch, outputs["loss"], batch.indices))
        if len(self._pending) >= self._every:
            self.verify(trainer)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look before an epoch's evaluation, which could only say that the network predicts NaN."""
        if trainer.state.fn == TrainerFn.FITTING:
            self.verify(trainer, {"state_dict": pl_module.state_dict()})

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict) -> None:
        """Look at the kept losses first, and at what is to be saved: no checkpoint holds NaN."""
        parts = {part: checkpoint[part] for part in ("state_dict", "optimizer_states") if part in checkpoint}
        self.verify(trainer, parts)

    def verify(self, trainer: pl.Trainer, parts: Mapping[str, Any] | None = None) -> None:
        """Look at the losses since the last time, and at the tensors in `parts`.

        Raises:
            NonFiniteLoss: names the first bad step of all processes, and the checkpoint to go back to.
        """
        bad = self._bad_loss() if parts is None else self._bad_loss() or _bad_tensor(trainer, parts)
        step = _first_of_all(trainer, bad["step"] if bad else None)
        if step is None:
            return
        if bad is None or bad["step"] > step:
            bad = {"step": step, "epoch": trainer.current_epoch, "what": "the loss of another process"}
        event = {key: bad[key] for key in ("step", "epoch", "what")}
        last = self._folder / "checkpoints" / "last.ckpt"
        raise NonFiniteLoss(event, last if last.exists() else None, self._indices_file(trainer, bad))

    def _bad_loss(self) -> dict[str, Any] | None:
        pending, self._pending = self._pending, []
        if not pending or (len(pending) == 1 and math.isfinite(pending[0][2])):  # one needs no tensors
            return None
        bad = (~torch.isfinite(torch.stack([loss for _, _, loss, _ in pending]))).nonzero()
        if not len(bad):
            return None
        step, epoch, loss, indices = pending[int(bad[0])]
        kept = None if indices is None else indices.tolist()
        return {"step": step, "epoch": epoch, "what": f"the loss became {float(loss)}", "indices": kept}

    def _indices_file(self, trainer: pl.Trainer, bad: Mapping[str, Any]) -> Path | None:
        if "indices" not in bad:
            return None
        path = self._folder / f"non_finite_step_{bad['step']}_rank_{trainer.global_rank}.json"
        path.write_text(json.dumps(dict(bad)))
        return path


def _bad_tensor(trainer: pl.Trainer, parts: Mapping[str, Any]) -> dict[str, Any] | None:
    name = non_finite(dict(tensors_in(parts)))
    what = f"{name} is not finite"
    return None if name is None else {"step": trainer.global_step, "epoch": trainer.current_epoch, "what": what}


def _first_of_all(trainer: pl.Trainer, step: int | None) -> int | None:
    """The lowest of all processes' steps; None where none has one."""
    if trainer.world_size == 1:
        return step
    mine = torch.tensor(NEVER if step is None else step, device=trainer.strategy.root_device)
    torch.distributed.all_reduce(mine, torch.distributed.ReduceOp.MIN)
    first = int(mine)
    return None if first == NEVER else first


NEVER = 2**62
