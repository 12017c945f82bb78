"""One row of figures per epoch."""

from __future__ import annotations

import time
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback

from ssat.core.batch import Batch
from ssat.training.callbacks.spare import spare


@spare
class History(Callback):
    """One row per epoch, kept in the checkpoint so that a resumed run has all of them."""

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []
        self.began = False  # this process has trained: a checkpoint, if there was one, has been restored
        self._started = 0.0
        self._begin()

    def _begin(self, images: int = 0, seconds: float = 0.0, waited: float = 0.0) -> None:
        """Begin the epoch's row, or go on after what an interrupted run has spent in this epoch."""
        self._images, self._train_seconds, self._waited = images, seconds, waited
        self._before, self._waited_before = seconds, waited
        self._evaluation: dict[str, float] = {}  # of this epoch

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Everything is restored; no epoch starts where one goes on."""
        self.began, self._started = True, time.perf_counter() - self._before
        self._loader: Any = trainer.train_dataloader

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin the epoch's row."""
        self._begin()
        self._started = time.perf_counter()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Count images and the seconds that the batch waited for data."""
        self._images += batch.images.shape[0] * trainer.world_size
        self._train_seconds = time.perf_counter() - self._started
        self._waited = self._waited_before + self._loader.seconds_waited

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Forget what earlier evaluations have measured: Lightning keeps it, and this one may measure less."""
        for name in [name for name in trainer.callback_metrics if _is_eval(name)]:
            del trainer.callback_metrics[name]

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take what the epoch's evaluation has measured."""
        self._evaluation = {name: float(value) for name, value in trainer.callback_metrics.items() if _is_eval(name)}

    @property
    def seconds(self) -> float:
        """That the epochs so far have taken, and the running one before its interruption."""
        return sum(row["seconds"] for row in self.rows) + self._before

    @property
    def images_per_s(self) -> float:
        """Training images per second over all ranks, in the running epoch."""
        return self._images / self._train_seconds if self._train_seconds else 0.0

    @property
    def data_wait(self) -> float:
        """Share of the training time, from 0 to 1, that this rank waited for data in the running epoch."""
        return self._waited / self._train_seconds if self._train_seconds else 0.0

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Close the epoch's row."""
        row: dict[str, float] = {"epoch": trainer.current_epoch, "step": trainer.global_step}
        row |= pl_module.epoch_means()  # type: ignore[operator]
        row |= self._evaluation
        row["lr"] = float(trainer.optimizers[0].param_groups[-1]["lr"])
        row["throughput/images_per_s"] = self.images_per_s
        row["throughput/data_wait"] = self.data_wait
        row["train_seconds"] = self._train_seconds
        row["seconds"] = time.perf_counter() - self._started
        self.rows.append(row)
        epoch_means = {f"epoch/{name}": value for name, value in row.items() if name.startswith("train/")}
        for logger in trainer.loggers:
            logger.log_metrics(
                epoch_means | {name: row[name] for name in row if name.startswith("throughput/") or name == "epoch"},
                step=trainer.global_step,
            )

    def state_dict(self) -> dict[str, Any]:
        """The rows so far, and what the running epoch has spent."""
        running = {"images": self._images, "seconds": self._train_seconds, "waited": self._waited}
        return {"rows": self.rows, "running": running}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on after the rows of a checkpoint."""
        self.rows = list(state_dict["rows"])
        self._begin(**state_dict.get("running", {}))


def _is_eval(name: str) -> bool:
    return name.startswith(("test/", "val/"))
