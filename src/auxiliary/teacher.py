"""What the tasks with a teacher share: a copy of the student that follows it slowly."""

from __future__ import annotations

import math

import torch
from torch import nn


def cosine(start: float, end: float, progress: float) -> float:
    """From `start` to `end` along half a cosine."""
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * progress))


@torch.no_grad()
def follow(teacher: nn.Module, student: nn.Module, keep: float) -> None:
    """Exponential moving average: each parameter of `teacher` keeps the share `keep` of itself."""
    for average, parameter in zip(teacher.parameters(), student.parameters(), strict=True):
        average.lerp_(parameter, 1 - keep)
    for copied, buffer in zip(teacher.buffers(), student.buffers(), strict=True):
        copied.copy_(buffer)  # running statistics of batch norms are averages already
