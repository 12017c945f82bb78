"""Curves of a value over a training."""

from __future__ import annotations

import math


def cosine(start: float, end: float, progress: float) -> float:
    """From `start` to `end` along half a cosine."""
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * progress))


def warmed_up(decay: float, updates: int) -> float:
    """The decay of a moving average after so many updates: min(decay, (1 + t) / (10 + t)).

    With a constant one the average of a short training is mostly its first, untrained weights: 0.9998 forgets them over
    some 5,000 steps (TensorFlow's `ExponentialMovingAverage(num_updates=...)` has the same rule).
    """
    return min(decay, (1 + updates) / (10 + updates))
