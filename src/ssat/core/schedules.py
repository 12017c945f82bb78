"""Curves of a value over a training."""

from __future__ import annotations

import math
from typing import Literal


def cosine(start: float, end: float, progress: float) -> float:
    """From `start` to `end` along half a cosine."""
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * progress))


def warmed_up(decay: float, updates: int) -> float:
    """The decay of a moving average after so many updates: min(decay, (1 + t) / (10 + t)).

    With a constant one the average of a short training is mostly its first, untrained weights: 0.9998 forgets them over
    some 5,000 steps (TensorFlow's `ExponentialMovingAverage(num_updates=...)` has the same rule).
    """
    return min(decay, (1 + updates) / (10 + updates))


EVALUATION_SHARE = 0.1  # of the training since the last evaluation
STEP_COST = 3  # forward passes: itself, and a backward pass of about two


def evaluation_period(asked: int | Literal["auto"], epochs: int, *, batches: int, eval_batches: int) -> int:
    """Epochs between two evaluations; auto = so many that evaluating takes a tenth of what training takes, by counts.

    Args:
        asked: `eval_every`.
        epochs: of the phase; at least one evaluation comes.
        batches: of a training epoch.
        eval_batches: of an evaluation, of the same size.
    """
    by_counts = math.ceil(eval_batches / (EVALUATION_SHARE * STEP_COST * batches))
    return min(by_counts if asked == "auto" else asked, epochs)
