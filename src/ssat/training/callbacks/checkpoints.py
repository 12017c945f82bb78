"""The checkpoints of a phase: a run that is killed at any moment goes on as if it had not been."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Checkpoint

from ssat.core.checkpoints import load_checkpoint
from ssat.core.errors import UserError
from ssat.core.interrupts import SIGNALS, Stopped
from ssat.core.launch import say
from ssat.training.callbacks.history import History
from ssat.training.callbacks.spare import spare
from ssat.training.earlier import forget_earlier, keep_earlier, put_aside_damaged, put_back, put_back_best
from ssat.training.stop import Stop

AGREE_EVERY = 8  # optimizer steps of several processes: to agree they wait for one another, and for the device
AGREE_WITHIN = 5.0  # seconds; slower steps are agreed on more often
PENDING = ".best.pending"  # no .ckpt: nobody takes it for a checkpoint


@spare
class Checkpoints(Checkpoint):
    """Writes `last.ckpt` and `best.ckpt`, one consistent state of the phase.

    `last.ckpt` is written at the end of every epoch, after its evaluation, and between two batches when `seconds` have
    passed or a signal asks to stop. Never in the middle of an accumulated step, whose gradients it would lose, nor
    after the last batch of an epoch, whose evaluation and row of the history it would lose: the epoch's end follows.

    `best.ckpt` holds the first epoch whose `monitor` is the highest of the history. It is written beside its place and
    takes it when `last.ckpt` knows of it, so that the two always belong together. Where a damaged `last.ckpt` falls
    back to the one before, `best.ckpt` goes back with it.

    Args:
        folder: of the checkpoints.
        history: its rows say which epoch is the best.
        stop: the signals.
        seconds: between two checkpoints within an epoch.
        monitor: accuracy of the best, or None for no best.
        whole: whether `best.ckpt` is whole; else it holds the weights only.
        keep: so many checkpoints of each name.
        back: how many checkpoints before the last one this training goes on from.

    Attributes:
        place: step and epoch of `last.ckpt` in words; empty before it is read or written.
    """

    def __init__(
        self,
        folder: Path,
        history: History,
        stop: Stop,
        *,
        seconds: float,
        monitor: str | None,
        whole: bool,
        keep: int = 1,
        back: int = 0,
    ) -> None:
        self.last, self.best, self._pending = folder / "last.ckpt", folder / "best.ckpt", folder / PENDING
        self._history, self._stop, self._monitor, self._whole = history, stop, monitor, whole
        self._seconds, self._saved_at = seconds, 0.0
        self._step, self.place = -1, ""
        self._agree_every, self._agreed_at = 1, 0.0  # until it is known how long a step takes
        self._keep, self._back = keep, back

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Know where the training goes on."""
        self._at(trainer, checkpoint["global_step"], checkpoint["epoch"])

    def _at(self, trainer: pl.Trainer, step: int, epoch: int) -> None:
        self._step, self.place = step, f"step {step} (epoch {epoch + 1} of {trainer.max_epochs})"

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Finish, or take back, what a killed run has begun to write, and put an earlier checkpoint in its place."""
        trainer.strategy.barrier("every process has read its checkpoint")
        if not trainer.is_global_zero:
            return
        if self._back:
            put_back(self.last, self._back)
            if not put_back_best(self.best, self._best_step()):
                say("there is no best.ckpt any more: those that were kept are of later epochs")
        elif lost := put_aside_damaged(self.best):
            say(f"{lost}; it is best.damaged now, and a best.ckpt comes with the next better epoch")
        for partial in self.last.parent.glob(".*.partial"):
            partial.unlink()
        if self._pending.exists():
            self._settle()

    def _settle(self) -> None:
        """The pending best takes its place if `last.ckpt` knows of it."""
        try:
            known = load_checkpoint(self._pending)["global_step"] == self._step
        except (UserError, KeyError):
            known = False
        if known:
            self._place_best()
        else:
            self._pending.unlink()

    def _place_best(self) -> None:
        keep_earlier(self.best, self._keep)
        os.replace(self._pending, self.best)

    def forget_earlier(self) -> None:
        """The phase has been trained: `last.ckpt` and `best.ckpt` alone stay."""
        for path in (self.last, self.best):
            forget_earlier(path)

    def _best_step(self) -> int | None:
        rows = [row for row in self._history.rows if self._monitor in row]
        return int(max(rows, key=lambda row: row[str(self._monitor)])["step"]) if rows else None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """From here on a signal waits for a moment that can be saved."""
        self._saved_at = self._agreed_at = time.monotonic()
        self._stop.waits = True

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Save between two batches, when it is time or when a signal has come."""
        done = batch_idx + 1
        ends_epoch = done >= trainer.num_training_batches or 0 <= trainer.max_steps <= trainer.global_step
        if ends_epoch or done % trainer.accumulate_grad_batches:
            return
        if trainer.world_size > 1 and done // trainer.accumulate_grad_batches % self._agree_every:
            return
        number, due = self._agreed(trainer)
        if number or due:
            self._save_last(trainer)
        if number:
            raise Stopped(number)

    def keep_best(self, trainer: pl.Trainer) -> None:
        """Save the end of the training if it is the best: where no epoch ends, it is evaluated after `last.ckpt`."""
        if self._is_best():
            trainer.save_checkpoint(self._pending, weights_only=not self._whole)
            if trainer.is_global_zero:
                self._place_best()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save the epoch, evaluated."""
        best = self._is_best()
        if best:
            trainer.save_checkpoint(self._pending, weights_only=not self._whole)
        self._save_last(trainer)
        if best and trainer.is_global_zero:
            self._place_best()
        self._obey(trainer)

    def _is_best(self) -> bool:
        if self._monitor is None or self._monitor not in self._history.rows[-1]:
            return False
        *earlier, score = [row[self._monitor] for row in self._history.rows if self._monitor in row]
        return all(score > other for other in earlier)

    def _save_last(self, trainer: pl.Trainer) -> None:
        trainer.save_checkpoint(self.last)
        self._saved_at = time.monotonic()
        self._at(trainer, trainer.global_step, trainer.current_epoch)

    def _agreed(self, trainer: pl.Trainer) -> tuple[int, bool]:
        """The signal that one of the processes has received, or 0, and whether it is time to save for one of them."""
        due = time.monotonic() - self._saved_at >= self._seconds
        if trainer.world_size == 1:
            return self._stop.received, due
        now = time.monotonic()
        said = [*(self._stop.received == number for number in SIGNALS), due, now - self._agreed_at]
        flags = torch.tensor(said, dtype=torch.float32, device=trainer.strategy.root_device)
        *received, dues, seconds = trainer.strategy.reduce(flags, reduce_op="sum").tolist()
        self._agreed_at = now
        within = AGREE_WITHIN * trainer.world_size / max(seconds, 1e-3)  # the same number on each
        self._agree_every = max(1, min(AGREE_EVERY, int(self._agree_every * within)))
        return next((int(number) for number, count in zip(SIGNALS, received, strict=True) if count), 0), bool(dues)

    def _obey(self, trainer: pl.Trainer) -> None:
        number, _ = self._agreed(trainer)
        if number:
            raise Stopped(number)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Obey a signal of the last moment; from here on one ends the process at once."""
        self._stop.waits = False
        self._obey(trainer)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """There is nothing more to wait for."""
        self._stop.waits = False
