"""fp16: the loss is scaled so that small gradients do not vanish; a step that overflows is skipped, and counted."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.plugins.precision import MixedPrecision


class CountingScaler(torch.amp.GradScaler):
    """PyTorch's scaler of the loss, which also counts its overflows; checkpoints hold both.

    Attributes:
        overflows: optimizer steps that were skipped, because a gradient was not finite.
    """

    def __init__(self, device: str, **kwargs: Any) -> None:
        super().__init__(device, **kwargs)
        self.overflows = 0

    def update(self, new_scale: Any = None) -> None:
        """After each step: a lower scale for the next one means that this one was skipped."""
        before = self.get_scale()
        super().update(new_scale)
        self.overflows += self.get_scale() < before

    def state_dict(self) -> dict[str, Any]:
        """PyTorch's, and the count."""
        return super().state_dict() | {"overflows": self.overflows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The counterpart; checkpoints of earlier versions have no count."""
        super().load_state_dict(state_dict)
        self.overflows = int(state_dict.get("overflows", 0))


def scaled_precision(device: str, **kwargs: Any) -> MixedPrecision:
    """Lightning's fp16 mixed precision on `device` with a scaler that counts; the other arguments are the scaler's."""
    return MixedPrecision("16-mixed", device, CountingScaler(device, **kwargs))


def skipped_steps(trainer: pl.Trainer) -> int | None:
    """Optimizer steps that fp16 has skipped; None in another precision."""
    scaler = getattr(trainer.precision_plugin, "scaler", None)
    return scaler.overflows if isinstance(scaler, CountingScaler) else None
