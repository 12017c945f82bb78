"""What watches a training phase: history, progress, guards, pictures and meters."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback, RichProgressBar
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import Tensor

from src.auxiliary.reconstruction import Reconstruction
from src.batch import Batch
from src.energy import EnergyMeter
from src.errors import UserError


class History(Callback):
    """One row per epoch, kept in the checkpoint so that a resumed run has all of them."""

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []
        self._images, self._started, self._train_seconds, self._waited = 0, 0.0, 0.0, 0.0

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._images, self._started, self._train_seconds = 0, time.perf_counter(), 0.0

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
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
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows = list(state_dict["rows"])


def _is_eval(name: str) -> bool:
    return name.startswith(("test/", "val/"))


def _duration(seconds: float) -> str:
    hours, minutes = divmod(int(seconds + 0.5) // 60, 60)
    return f"{hours}h{minutes:02d}" if hours else f"{minutes}m{int(seconds + 0.5) % 60:02d}s"


class _Eta:
    """Seconds left, from the batches of this fit alone, evaluation time included."""

    def __init__(self) -> None:
        self.started, self.batches = time.perf_counter(), 0

    def left(self, trainer: pl.Trainer) -> float:
        if not self.batches:
            return 0.0
        done = trainer.fit_loop.epoch_loop.total_batch_idx + 1
        total = int(trainer.num_training_batches) * (trainer.max_epochs or 1)
        return (time.perf_counter() - self.started) / self.batches * max(0, total - done)


class ProgressBar(RichProgressBar):
    """Lightning's rich bar with the losses, lr, images/s and the time left of the whole phase."""

    def __init__(self, history: History, label: str) -> None:
        super().__init__(leave=False)
        self._history, self._label, self._eta = history, label, _Eta()
        self._shown: dict[str, Any] = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        self._eta = _Eta()

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self._eta.batches += 1
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def configure_columns(self, trainer: pl.Trainer) -> list:
        return super().configure_columns(trainer)[:-1]  # without batches/s: images/s says more

    def _get_train_description(self, current_epoch: int) -> str:
        return f"{self._label} {current_epoch + 1}/{self.trainer.max_epochs}"

    def get_metrics(self, trainer: pl.Trainer, pl_module: Any) -> dict[str, Any]:
        # Reading a loss waits for the device: only as often as the loggers do.
        if not self._shown or trainer.fit_loop.epoch_loop.batch_idx % pl_module.log_every == 0:
            self._shown = {
                name.removeprefix("train/"): f"{float(value):.4g}"
                for name, value in trainer.callback_metrics.items()
                if name.startswith("train/loss") or name in ("lr", "test/acc1", "val/acc1")
            }
        extra = {
            "img/s": f"{self._history.images_per_s:.0f}",
            "data_wait": f"{self._history.data_wait:.0%}",
            "ETA": _duration(self._eta.left(trainer)),
        }
        return self._shown | extra


class ProgressLines(Callback):
    """One line per epoch, for logs and pipes."""

    def __init__(self, history: History, label: str) -> None:
        self._history, self._label, self._eta = history, label, _Eta()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._eta = _Eta()

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self._eta.batches += 1

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        row = self._history.rows[-1]
        names = [name for name in row if name.startswith("train/loss") or _is_eval(name) and "acc5" not in name]
        values = "  ".join(f"{name} {row[name]:.4g}" for name in names)
        print(
            f"{self._label} {int(row['epoch']) + 1}/{trainer.max_epochs}  {values}  lr {row['lr']:.3g}  "
            f"{row['throughput/images_per_s']:.0f} img/s  data_wait {row['throughput/data_wait']:.1%}  "
            f"ETA {_duration(self._eta.left(trainer))}",
            flush=True,
        )


class Stamp(Callback):
    """Writes the configuration into every checkpoint, as plain values, so that it cannot be resumed as another run."""

    def __init__(self, config: dict[str, Any]) -> None:
        self._config = config

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict) -> None:
        checkpoint["config"] = self._config


class NonFiniteLoss(UserError):
    """The loss became infinite or not a number."""


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
        self._pending.append((trainer.global_step, trainer.current_epoch, outputs["loss"], batch.indices))
        if len(self._pending) >= self._every:
            self.verify(trainer)

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict) -> None:
        self.verify(trainer)

    def verify(self, trainer: pl.Trainer) -> None:
        """Raises: NonFiniteLoss naming the first bad step and the checkpoint to go back to."""
        pending, self._pending = self._pending, []
        if not pending:
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
            f"the loss became {float(loss)} at step {step} (epoch {epoch}): {kept}; the batch's image indices are in "
            f"{path}; lower recipe.base_lr, set recipe.clip_grad=1 or use trainer.precision=32"
        )


class SaveOnSignal(Callback):
    """Saves the last checkpoint at SIGTERM; Ctrl-C may fall into the middle of a step, so nothing is saved then."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        if isinstance(exception, SIGTERMException) and trainer.state.fn == "fit":
            trainer.save_checkpoint(self._path)


class Meter(Callback):
    """Seconds and energy of the phase, carried through checkpoints; a killed run loses what it spent after its last."""

    def __init__(self, country: str | None) -> None:
        self._country = country
        self._meter: EnergyMeter | None = None
        self._before: dict[str, Any] = {"seconds": 0.0, "kwh": 0.0, "co2_kg": 0.0, "source": None}
        self._started = 0.0
        self.totals: dict[str, Any] = {}

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._started = time.perf_counter()
        if self._country and trainer.local_rank == 0:
            self._meter = EnergyMeter(self._country)
            self._meter.start()

    def _add(self, energy: dict[str, Any]) -> dict[str, Any]:
        seconds = self._before["seconds"] + time.perf_counter() - self._started
        if not energy:
            return self._before | {"seconds": seconds}
        return {
            "seconds": seconds,
            "kwh": self._before["kwh"] + energy["kwh"],
            "co2_kg": self._before["co2_kg"] + energy["co2_kg"],
            "source": energy["source"],
        }

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.totals = self._add(self._meter.stop() if self._meter else {})
        self._meter = None

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        if self._meter:
            self._meter.stop()
            self._meter = None

    def state_dict(self) -> dict[str, Any]:
        return self._add(self._meter.read() if self._meter else {})

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._before = dict(state_dict)


class Reconstructions(Callback):
    """Original | masked | reconstructed, for a fixed batch with fixed masks, as a PNG every few epochs."""

    def __init__(self, folder: Path, batch: Batch, mean: list[float], std: list[float], every: int) -> None:
        self._folder, self._batch, self._every = folder, batch, every
        self._mean, self._std = torch.tensor(mean).view(-1, 1, 1), torch.tensor(std).view(-1, 1, 1)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        epoch = trainer.current_epoch + 1
        if not trainer.is_global_zero or (epoch % self._every and epoch != trainer.max_epochs):
            return
        picture = self.picture(pl_module)
        self._folder.mkdir(parents=True, exist_ok=True)
        write_png(picture, self._folder / f"epoch_{epoch:04d}.png")
        for logger in trainer.loggers:
            if hasattr(logger, "log_image"):
                logger.log_image("reconstructions", [picture.permute(1, 2, 0).numpy()], step=trainer.global_step)
            elif isinstance(logger, pl.loggers.TensorBoardLogger):
                logger.experiment.add_image("reconstructions", picture, trainer.global_step)

    @torch.no_grad()
    def picture(self, pl_module: Any) -> Tensor:
        """(3, H, W) uint8: three rows, a column per image."""
        images, indices = self._batch.images.to(pl_module.device), self._batch.indices
        assert indices is not None
        was_training = pl_module.training
        pl_module.eval()
        task = next(part for part in pl_module.ssl.modules() if isinstance(part, Reconstruction) and part.has_pictures)
        mask = task.fixed_mask(indices).to(pl_module.device)
        rebuilt = task.reconstruct(pl_module.encoder, images, mask)
        hidden = task.hide(images, mask)
        pl_module.train(was_training)
        rows = [self._denormalise(row.float().cpu()) for row in (images, hidden, rebuilt)]
        return _grid(torch.stack(rows))

    def _denormalise(self, images: Tensor) -> Tensor:
        pixels = (images * self._std + self._mean).clamp(0, 1)
        return pixels.expand(-1, 3, -1, -1) if pixels.shape[1] == 1 else pixels


def _grid(rows: Tensor, gap: int = 2, shortest: int = 64) -> Tensor:
    """(R, N, 3, h, w) in [0, 1] as one (3, H, W) uint8 picture, small images enlarged without smoothing."""
    scale = max(1, shortest // rows.shape[-1])
    rows = rows.repeat_interleave(scale, -1).repeat_interleave(scale, -2)
    padded = torch.nn.functional.pad(rows, (gap, gap, gap, gap), value=1.0)
    count, columns, channels, height, width = padded.shape
    picture = padded.permute(2, 0, 3, 1, 4).reshape(channels, count * height, columns * width)
    return (picture * 255).round().to(torch.uint8)


def write_png(picture: Tensor, path: Path) -> None:
    """Writes (3, H, W) uint8 atomically."""
    from PIL import Image

    partial = path.with_name(f".{path.name}.partial")
    Image.fromarray(picture.permute(1, 2, 0).contiguous().numpy()).save(partial, format="PNG")
    os.replace(partial, path)
