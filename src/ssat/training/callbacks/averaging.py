"""Moving average of the weights."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor

from ssat.core.schedules import warmed_up
from ssat.training.callbacks.spare import spare


@spare
class MovingAverage(WeightAveraging):
    """Exponential moving average of the weights, evaluated and saved in their place; its decay warms up.

    Buffers are the training's own.

    Args:
        decay: of each step, once the average has warmed up.
    """

    def __init__(self, decay: float) -> None:
        super().__init__(use_buffers=False, multi_avg_fn=self._follow)
        self.decay, self._updates = decay, 0

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any, **kwargs: Any) -> None:
        """Follow the weights after an optimizer step; the first one is copied."""
        self._updates = trainer.global_step - 1  # those behind this one: an int, which no device is waited for
        if self._updates < 1:
            super().on_train_batch_end(trainer, pl_module, *args, **kwargs)
        elif trainer.global_step > self._latest_update_step:
            self._update(pl_module)
            self._latest_update_step = trainer.global_step

    @torch.no_grad()
    def _update(self, pl_module: pl.LightningModule) -> None:
        """As `AveragedModel.update_parameters`, which reads its count of updates from the device, twice a step."""
        average = self._average_model
        assert average is not None
        self._follow([*average.module.parameters()], [*pl_module.parameters()], None)
        for own, given in zip(average.module.buffers(), pl_module.buffers(), strict=True):
            own.copy_(given)
        average.n_averaged += 1

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Put the average in place also where all epochs were done and the fit, continued, has trained nothing."""
        self._copy_average_to_current(pl_module)

    @torch.no_grad()
    def _follow(self, averages: list[Tensor], weights: list[Tensor], _: Any) -> None:
        torch._foreach_lerp_(averages, weights, 1 - warmed_up(self.decay, self._updates))
