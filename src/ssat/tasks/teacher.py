"""Moving average of the student, which DINO and the latent reconstruction use as their teacher."""

from __future__ import annotations

import torch
from torch import nn


@torch.no_grad()
def follow(teacher: nn.Module, student: nn.Module, keep: float) -> None:
    """One step of the exponential moving average: teacher = keep * teacher + (1 - keep) * student."""
    for average, parameter in zip(teacher.parameters(), student.parameters(), strict=True):
        average.lerp_(parameter, 1 - keep)
    for copied, buffer in zip(teacher.buffers(), student.buffers(), strict=True):
        copied.copy_(buffer)  # running statistics of batch norms are averages already
