"""One row of figures per epoch."""

from __future__ import annotations

import time
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback

from ssat.core.batch import Batch


class History(Callback):
    """One row per epoch, kept in the checkpoint so that a resumed run has all of them."""

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []
        self.began = False  # this process has trained: a checkpoint, if there was one, has been restored
        self._images, self._started, self._train_seconds, self._waited = 0, 0.0, 0.0, 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Everything is restored."""
        self.began = True

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin the epoch's row."""
        self._images, self._started, self._train_seconds = 0, time.perf_counter(), 0.0

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Count images and the seconds that the batch waited for data."""
        self._images += len(batch.images) * trainer.world_size
        self._train_seconds = time.perf_counter() - self._started
        loader: Any = trainer.train_dataloader
        self._waited = loader.seconds_waited

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
        if trainer.num_val_batches and (trainer.current_epoch + 1) % (trainer.check_val_every_n_epoch or 1) == 0:
            row |= {name: float(value) for name, value in trainer.callback_metrics.items() if _is_eval(name)}
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
        """The rows so far."""
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on after the rows of a checkpoint."""
        self.rows = list(state_dict["rows"])


def _is_eval(name: str) -> bool:
    return name.startswith(("test/", "val/"))
