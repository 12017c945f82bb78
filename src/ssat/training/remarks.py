"""What a small training set makes of settings that were chosen for a large one."""

from __future__ import annotations

import math

from ssat.config.schema import Phase, Run
from ssat.core.schedules import warmed_up
from ssat.training.data import AnyData


def remarks(config: Run, phase: Phase, data: AnyData) -> list[str]:
    """Sentences on settings of a phase that do less, or something else, than they say on so few images.

    Args:
        config: of the run.
        phase: of the run.
        data: set up.
    """
    world, accumulate = config.trainer.processes, config.trainer.accumulate
    images, used = len(data.split("train")[1]), data.images_per_epoch(world)
    batches = math.ceil(used / (data.batch_size * world))
    steps = math.ceil(batches / accumulate)
    total = min(phase.epochs * steps, config.trainer.max_steps or math.inf)
    found = []
    if data.drop_last and images - used > 0.1 * images:
        found.append(
            f"each epoch leaves out {images - used} of {images:,} images, which do not fill a batch of"
            f" {data.batch_size * world}: a smaller recipe.batch_size, or recipe.drop_last=false, uses them"
        )
    if accumulate <= batches and batches % accumulate:
        found.append(
            f"the last step of an epoch has {batches % accumulate} of trainer.accumulate={accumulate} batches: an epoch"
            f" has {batches}"
        )
    decay = phase.recipe.ema_decay
    if decay and decay < 1 and 1 / (1 - decay) > total:
        found.append(
            f"recipe.ema_decay={decay:g} averages over {1 / (1 - decay):,.0f} steps, and there are {total:,}: the decay"
            f" warms up to {warmed_up(decay, int(total) - 1):.3g} only"
        )
    return found
