"""How the processes of a run exchange their gradients."""

from __future__ import annotations

from typing import Any

from lightning.pytorch.strategies import DDPStrategy
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import bf16_compress_hook

from ssat.config.schema import Trainer

HOOKS = {"bf16": bf16_compress_hook}


class Ddp(DDPStrategy):
    """DDP whose gradients lie in the buckets that are sent, so that they are not copied.

    No `static_graph`: it saves the search for unused parameters, which is off (`training.freezing` leaves none), and
    would accept a trainable parameter without a gradient, which DDP reports otherwise.

    Args:
        grad_dtype: in which gradients are sent: 32, or bf16 with half the bytes. They are added in that type.
    """

    def __init__(self, grad_dtype: str = "32", **kwargs: Any) -> None:
        super().__init__(gradient_as_bucket_view=True, **kwargs)
        self.grad_dtype = grad_dtype

    def configure_ddp(self) -> None:
        """Wrap the module; Lightning's own argument for a hook is not read on a CPU, where gloo sends bf16 as well."""
        super().configure_ddp()
        if self.grad_dtype in HOOKS:
            model: Any = self.model
            model.register_comm_hook(None, HOOKS[self.grad_dtype])


def strategy_of(trainer: Trainer) -> Any:
    """Lightning's `strategy` for a run."""
    return Ddp(trainer.grad_dtype) if trainer.processes > 1 else "auto"
