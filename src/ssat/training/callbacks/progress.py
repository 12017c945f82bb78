"""Progress on a terminal as a bar, elsewhere as lines, and for a sweep as a small file."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback, RichProgressBar
from rich.table import Column

from ssat.config.schema import Phase
from ssat.core.launch import say
from ssat.core.standing import Standing, write_standing
from ssat.core.words import duration
from ssat.training.callbacks.history import History, _is_eval
from ssat.training.callbacks.spare import spare

# Of an evaluation; the line of an epoch leaves them out.
LESSER = (
    "/acc5",
    "/log_loss",
    "/clip_auc",
    "/ap",
    "/eer",
    "/macro_f1",
    "/auroc",
    "/micro_f1",
    "/exact_match",
    "/hamming_acc",
)
PER_SECOND = 2  # times that the bar is drawn at most; drawing takes as long as a small step
NAME, BAR = 32, 16  # characters of the name at most, and of the bar
SHOWN = [f"{split}/{name}" for split in ("test", "val") for name in ("acc1", "auc", "map")]  # by the bar


def _per_second(pl_module: Any) -> str:
    return "clips/s" if pl_module.encoder.takes_clips else "img/s"


class _Eta:
    """Seconds left, from the batches so far, evaluation time included; also those before an interruption.

    The first batches of a fit take longer than others, and a resumed fit may have few more.
    """

    def __init__(self, seconds: float = 0.0) -> None:
        self.started = time.perf_counter() - seconds

    def seconds_per_batch(self, trainer: pl.Trainer) -> float:
        done = _batches_done(trainer)
        return (time.perf_counter() - self.started) / done if done else 0.0

    def left(self, trainer: pl.Trainer) -> float:
        done = _batches_done(trainer)
        total = int(trainer.num_training_batches) * (trainer.max_epochs or 1)
        left = max(0, total - done)
        if trainer.max_steps > 0:
            left = min(left, (trainer.max_steps - trainer.global_step) * trainer.accumulate_grad_batches)
        return self.seconds_per_batch(trainer) * left


def _batches_done(trainer: pl.Trainer) -> int:
    """Of all epochs of a phase, also before an interruption."""
    return trainer.fit_loop.epoch_loop.total_batch_idx + 1


@spare
class ProgressBar(RichProgressBar):
    """Lightning's rich bar on one line, with the time left of the whole phase, loss, accuracy and images per second."""

    def __init__(self, history: History, label: str) -> None:
        super().__init__(refresh_rate=PER_SECOND, leave=False)
        self._history, self._label, self._eta = history, label, _Eta()
        self._shown: dict[str, Any] = {}
        self._moved_at, self._stale = -math.inf, True

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin to count the time."""
        super().on_train_start(trainer, pl_module)
        self._eta = _Eta(self._history.seconds)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Move the bar and its estimate of the time left, unless it has just been moved."""
        self._stale |= batch_idx % pl_module.log_every == 0
        if time.monotonic() - self._moved_at < 1 / PER_SECOND and batch_idx + 1 < self.total_train_batches:
            return
        self._moved_at = time.monotonic()
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def configure_columns(self, trainer: pl.Trainer) -> list:
        """Name, bar and batches; the time left is among the values, of the whole phase."""
        name, bar, batches = super().configure_columns(trainer)[:3]
        name._table_column = Column(no_wrap=True, overflow="ellipsis", max_width=NAME)
        bar.bar_width = BAR
        return [name, bar, batches]

    def _get_train_description(self, current_epoch: int) -> str:
        return f"{self._label} {current_epoch + 1}/{self.trainer.max_epochs}"

    def _room(self, trainer: pl.Trainer) -> int:
        """Characters that are left of the line for values."""
        assert self._console is not None
        name = min(max(len(self._get_train_description(trainer.current_epoch)), len(self.validation_description)), NAME)
        total = len(str(self.total_train_batches))
        return self._console.width - name - BAR - (2 * total + 1) - 3 - 1

    def get_metrics(self, trainer: pl.Trainer, pl_module: Any) -> dict[str, Any]:
        """What the bar shows at its end, the most important first, as much as fits on one line."""
        # Reading a loss waits for the device: at most as often as the loggers do.
        if not self._shown or self._stale:
            self._stale = False
            self._shown = {
                name.removeprefix("train/"): f"{float(value):.4g}"
                for name, value in trainer.callback_metrics.items()
                if name.startswith("train/loss") or name == "lr" or name in SHOWN
            }
        left = self._eta.left(trainer)
        first = {
            **({"ETA": duration(left)} if left else {}),  # nothing is left of a phase at its end
            **{name: self._shown[name] for name in ("loss", *SHOWN) if name in self._shown},
            _per_second(pl_module): f"{self._history.images_per_s:,.0f}",
            "data_wait": f"{self._history.data_wait:.0%}",
        }
        return fitting(first | self._shown, self._room(trainer))


def fitting(values: dict[str, str], room: int) -> dict[str, str]:
    """The first of the values that fit as `name: value name: value` into so many characters."""
    kept: dict[str, str] = {}
    for name, value in values.items():
        room -= len(f"{name}: {value} ")
        if room < 0:
            break
        kept[name] = value
    return kept


@spare
class ProgressLines(Callback):
    """One line per epoch, for logs and pipes."""

    def __init__(self, history: History, label: str, decides: str = "acc1") -> None:
        self._history, self._label, self._eta = history, label, _Eta()
        self._decides = f"/{decides}"  # what the best epoch has the highest of

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin to count the time."""
        self._eta = _Eta(self._history.seconds)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Print the epoch's line."""
        if not trainer.is_global_zero:
            return
        row = self._history.rows[-1]
        # Of images balanced accuracy mostly repeats acc1; the record has it.
        lesser = LESSER if pl_module.encoder.takes_clips else (*LESSER, "/balanced_acc")  # type: ignore[union-attr]
        shown = [name for name in row if _is_eval(name) and (not name.endswith(lesser) or name.endswith(self._decides))]
        names = [name for name in row if name.startswith("train/loss") or name in shown]
        values = "  ".join(f"{name} {row[name]:.4g}" for name in names)
        left = self._eta.left(trainer)
        speed = f"{row['throughput/images_per_s']:.0f} {_per_second(pl_module)}"
        say(
            f"{self._label} {int(row['epoch']) + 1}/{trainer.max_epochs}  {values}  lr {row['lr']:.3g}  "
            f"{speed}  data_wait {row['throughput/data_wait']:.1%}" + (f"  ETA {duration(left)}" if left else "")
        )


@spare
class ProgressFile(Callback):
    """Says once a second how far the run is, in a file that the sweep which has started it reads.

    Args:
        path: of the file.
        history: of this phase.
        phases: of the run.
        phase: the one that is trained.
        decides: what the best epoch has the highest of.
    """

    def __init__(self, path: Path, history: History, phases: Sequence[Phase], phase: Phase, decides: str) -> None:
        self._path, self._history, self._phase, self._eta = path, history, phase, _Eta()
        self._decides = f"/{decides}"
        epochs, number = [each.epochs for each in phases], phases.index(phase)
        self._before, self._after = sum(epochs[:number]), sum(epochs[number + 1 :])
        self._written = -math.inf

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin to count the time."""
        self._eta = _Eta(self._history.seconds)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Write, unless it has just been written."""
        if trainer.is_global_zero and time.monotonic() - self._written >= 1:
            self._written = time.monotonic()
            write_standing(self._path, self._standing(trainer))

    def _standing(self, trainer: pl.Trainer) -> Standing:
        batches = max(1, int(trainer.num_training_batches))
        done = self._before + _batches_done(trainer) / batches
        # An epoch of a later phase is taken to last as long as one of this phase.
        left = self._eta.left(trainer) + self._after * batches * self._eta.seconds_per_batch(trainer)
        row = next((row for row in reversed(self._history.rows) if any(map(_is_eval, row))), {})
        measured = [
            f"{name} {value:.4g}" for name, value in row.items() if _is_eval(name) and name.endswith(self._decides)
        ]
        return Standing(
            self._phase.name,
            trainer.current_epoch + 1,
            self._phase.epochs,
            share=min(1.0, done / (self._before + self._phase.epochs + self._after)),
            measured=measured[0] if measured else "",
            left=left,
        )
