"""A step as Lightning takes it, without what does nothing in most trainings; `benchmarks.epoch` measures the rest."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from lightning.pytorch.loops.optimization.automatic import _AutomaticOptimization
from lightning.pytorch.plugins.precision import MixedPrecision, Precision
from torch import Tensor
from torch.optim import Optimizer

from ssat.training.callbacks.spare import looks_between


class PlainOptimization(_AutomaticOptimization):
    """Forward, forgetting the last gradients, backward, clipping, step: in Lightning's order and with its counts.

    Where something may stand between them, Lightning's own loop takes the step: several processes, accumulation, scaled
    losses, callbacks or modules that look into a step.
    """

    def run(self, optimizer: Optimizer, batch_idx: int, kwargs: Any) -> dict[str, Any]:
        """The loss of one batch, after the step."""
        if self._skip_backward or not is_plain(self.trainer):  # each time: callbacks may change it
            return super().run(optimizer, batch_idx, kwargs)
        trainer, counts = self.trainer, self.optim_progress.optimizer
        losses: list[Tensor] = []
        module: Any = trainer.lightning_module
        compute = partial(self._computed, module, optimizer, batch_idx, kwargs, losses)
        counts.step.increment_ready()
        module.optimizer_step(trainer.current_epoch, batch_idx, optimizer, compute)
        counts.step.increment_completed()
        return {"loss": losses[0]}

    def _computed(
        self, module: Any, optimizer: Optimizer, batch_idx: int, batch: Mapping[str, Any], losses: list[Tensor]
    ) -> Tensor:
        """The loss, whose gradients are those of the parameters afterwards."""
        trainer, counts = self.trainer, self.optim_progress.optimizer
        before, module._current_fx_name = module._current_fx_name, "training_step"  # where self.log finds itself
        loss: Any = trainer.strategy.training_step(*batch.values())
        module._current_fx_name = before
        counts.zero_grad.increment_ready()
        counts.zero_grad.increment_started()
        module.optimizer_zero_grad(trainer.current_epoch, batch_idx, optimizer)
        counts.zero_grad.increment_completed()
        module.backward(loss)
        losses.append(loss.detach())
        module.configure_gradient_clipping(optimizer, trainer.gradient_clip_val, trainer.gradient_clip_algorithm)
        return losses[0]


def is_plain(trainer: Any) -> bool:
    """Whether the steps of a `pl.Trainer` have no other parts than forward, backward, clipping and the optimizer's."""
    module = trainer.lightning_module
    precision = trainer.strategy.precision_plugin
    return (
        trainer.world_size == 1
        and trainer.accumulate_grad_batches == 1
        and (type(precision) is Precision or (type(precision) is MixedPrecision and precision.scaler is None))
        and getattr(module, "replay", None) is None
        and not any(map(looks_between, (*trainer.callbacks, module)))
    )
