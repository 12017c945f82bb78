"""Curves of a value over a training."""

from __future__ import annotations

import math


def cosine(start: float, end: float, progress: float) -> float:
    """From `start` to `end` along half a cosine."""
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * progress))
