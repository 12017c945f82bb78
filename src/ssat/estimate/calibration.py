"""The clock of a calibration: it cuts a fit short and takes its time apart at Lightning's hooks."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback

from ssat.training.callbacks.meter import Meter
from ssat.training.callbacks.pictures import Reconstructions, write_png

WINDOW_SECONDS = 10.0  # of timed batches, in as many epochs as that takes
FEWEST = 4  # timed batches, however long they take


@dataclass
class Lap:
    """When things happened in one epoch of the calibration, in seconds of the clock.

    The window of timed batches begins after `skipped` of them, which wait for the loader, and ends after `size`.
    """

    start: float
    skipped: int
    size: int
    window: float = 0.0
    trained: float = 0.0
    eval_start: float = 0.0
    eval_first: float = 0.0  # when as many batches are done as the loader prepares at once
    eval_last: float = 0.0
    eval_count: int = 0
    eval_end: float = 0.0
    end: float = 0.0

    @property
    def timed(self) -> tuple[float, int]:
        """Seconds and number of the batches in the window; an epoch that has no more than is skipped counts whole."""
        if self.size > self.skipped:
            return self.trained - self.window, self.size - self.skipped
        return self.trained - self.start, self.size

    @property
    def evaluating(self) -> float:
        """Seconds of the evaluation."""
        return self.eval_end - self.eval_start


class Calibration(Callback):
    """Cuts the epochs of a fit short, and ends it when enough of them are timed; the first only warms up.

    It must be the first callback, so that its times enclose what the others do.

    Args:
        meter: of the energy.
        folder: of files that are only written to time it.
        together: batches that the loader prepares at once.
        period: batches after which something costly comes round, such as an optimizer step.
        epochs: at most so many are timed.
        window: seconds of timed batches.
    """

    def __init__(
        self,
        meter: Meter,
        folder: Path,
        *,
        together: int,
        period: int,
        epochs: int,
        window: float = WINDOW_SECONDS,
    ) -> None:
        self._meter, self._folder = meter, folder
        self._together, self._period, self._epochs = together, period, epochs
        self._window = window
        self.laps: list[Lap] = []
        self.marks: list[tuple[dict[str, Any], float, float]] = []  # around the timed epochs: meter, clock, CPU seconds
        self.checkpoint = self.picture = 0.0
        self.last_bytes = self.picture_bytes = 0
        self.started = self.fit_end = 0.0
        self._one_batch = 0.0
        self._wanted = 1  # laps after the first

    @staticmethod
    def _now() -> float:
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()
        return time.perf_counter()

    def _mark(self) -> None:
        self.marks.append((self._meter.state_dict(), time.perf_counter(), time.process_time()))

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        self.started = self._now()

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin a lap."""
        available = int(trainer.num_training_batches)
        skipped = min(self._together, available)
        wanted = 1  # of the first lap: the second group of batches is the first without one-time costs
        if self.laps:
            wanted = max(FEWEST, math.ceil(self._window / max(self._one_batch, 1e-4)))
            # Every rank must stop at the same batch.
            wanted = trainer.strategy.broadcast(math.ceil(wanted / self._period) * self._period)
        self.laps.append(Lap(self._now(), skipped, min(available, skipped + wanted)))

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Note when the batch began."""
        if len(self.laps) == 1:
            self._one_batch = self._now()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Note what the batch took, and end the lap when it is long enough."""
        lap = self.laps[-1]
        if len(self.laps) == 2 and batch_idx == 0:
            self._mark()
        if batch_idx + 1 == lap.skipped:
            lap.window = self._now()
        if batch_idx + 1 < lap.size:
            return
        lap.trained = self._now()
        if len(self.laps) == 1:
            self._one_batch = lap.trained - self._one_batch
        elif len(self.laps) == 2:
            wanted = min(self._epochs, math.ceil(self._window / (lap.trained - lap.start)))
            self._wanted = trainer.strategy.broadcast(wanted)
        trainer.should_stop = True  # this epoch, not yet the fit

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note when the evaluation began."""
        self.laps[-1].eval_start = self._now()

    def on_validation_batch_end(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        """Count an evaluation batch."""
        lap = self.laps[-1]
        lap.eval_count, lap.eval_last = lap.eval_count + 1, self._now()
        if lap.eval_count == self._together:
            lap.eval_first = lap.eval_last

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note when the evaluation ended."""
        self.laps[-1].eval_end = self._now()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """End the lap."""
        trainer.should_stop = len(self.laps) > self._wanted

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Time what the end of a training takes."""
        self._mark()
        ends = [lap.start for lap in self.laps[1:]] + [self._now()]
        for lap, end in zip(self.laps, ends, strict=True):
            lap.end = end
        path = self._folder / "timed.ckpt"
        trainer.save_checkpoint(path)
        self.checkpoint = self._now() - self.laps[-1].end
        artist: Any = next((part for part in trainer.callbacks if isinstance(part, Reconstructions)), None)  # type: ignore[attr-defined]
        if not trainer.is_global_zero:
            return
        self.last_bytes = path.stat().st_size
        if artist is not None:
            started, path = self._now(), self._folder / "timed.png"
            write_png(artist.picture(pl_module), path)
            self.picture, self.picture_bytes = self._now() - started, path.stat().st_size

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop the clock."""
        self.fit_end = self._now()

    def parts(self) -> dict[str, Any]:
        """The seconds of `Cost`, by the laps after the first."""
        first, *laps = self.laps
        batch = sum(lap.timed[0] for lap in laps) / sum(lap.timed[1] for lap in laps)
        around = sum(lap.end - lap.start - lap.size * batch - lap.evaluating for lap in laps) / len(laps)
        evaluation = sum(lap.evaluating for lap in laps) / len(laps)
        count, per_batch = laps[-1].eval_count, 0.0
        if count > self._together:
            seconds = sum(lap.eval_last - lap.eval_first for lap in laps) / len(laps)
            per_batch = seconds / (count - self._together)
        elif count:
            per_batch = evaluation / count
        usual = first.size * batch + around + evaluation
        after = self.fit_end - laps[-1].end - self.checkpoint - self.picture
        return {
            "once": max(0.0, first.end - self.started - usual),
            "batch": batch,
            "epoch": max(0.0, around),
            "evaluation": max(0.0, evaluation - count * per_batch),
            "eval_batch": per_batch,
            "checkpoint": self.checkpoint,
            "picture": self.picture,
            "end": max(0.0, after + self._meter.totals["seconds"] - (self.fit_end - self.started)),
        }

    def power(self) -> dict[str, Any]:
        """Watts of the timed epochs and kg CO2 per kWh, by the meter."""
        (first, *_), (last, *_) = self.marks
        if not last["source"]:
            return {"watts": None, "kg_per_kwh": 0.0, "source": None}
        if last["seconds"] - first["seconds"] < 2:
            first = {"kwh": 0.0, "seconds": 0.0}  # too short for codecarbon: the mean since the start
        watts = (last["kwh"] - first["kwh"]) * 3.6e6 / (last["seconds"] - first["seconds"])
        kg_per_kwh = last["co2_kg"] / last["kwh"] if last["kwh"] else 0.0
        return {"watts": watts, "kg_per_kwh": kg_per_kwh, "source": last["source"]}

    @property
    def cpu_share(self) -> float:
        """CPU seconds of this process per second of the timed epochs: up to its threads."""
        (_, began, cpu), (_, ended, cpu_ended) = self.marks
        return (cpu_ended - cpu) / (ended - began)
