"""What a small training set makes of settings that were chosen for a large one."""

from __future__ import annotations

import math

from ssat.config.callbacks import early_stopping
from ssat.config.schema import Phase, Run
from ssat.core.schedules import evaluation_period, warmed_up
from ssat.data.image import ImageDataModule
from ssat.data.video.module import VideoDataModule
from ssat.training.data import AnyData
from ssat.training.resolution import epochs_at


def batches_of(config: Run, data: AnyData) -> int:
    """Batches of each process in an epoch."""
    world = config.trainer.processes
    return math.ceil(data.images_per_epoch(world) / (data.batch_size * world))


def evaluated_every(config: Run, phase: Phase, data: AnyData) -> int:
    """Epochs of a phase between two evaluations."""
    evaluated = data.samples(data.eval_split) / config.trainer.processes
    return evaluation_period(
        config.eval_every,
        phase.epochs,
        batches=batches_of(config, data),
        eval_batches=math.ceil(evaluated / data.batch_size),
    )


def _on_labels(data: ImageDataModule, used: int) -> list[str]:
    known, samples = data.labelled_images("train"), data.sizes["train"]
    each = data.batch_size * known / samples
    if data.labelled_share is None:
        if data.batch_size < 2 or each >= data.batch_size / 4:
            return []
        return [
            f"a batch of {data.batch_size} has {each:.2g} images with labels on average: data.labelled_share=0.5"
            " gives it more, in as many steps"
        ]
    if (labelled := data.labelled_batches()) is None:
        return []
    share, others = labelled.per_batch / data.batch_size, samples - known
    shown = used - round(share * used)
    part = f"{shown:,} of the {others:,} others, other ones each time"
    of_them = part if shown < others else f"all {others:,} others"
    return [
        f"an epoch shows each of the {known:,} images with labels about {share * used / known:.2g} times and {of_them}"
        " (data.labelled_share)"
    ]


def _on_size(data: AnyData, samples: int) -> str:
    size = data.epoch_samples
    if size < samples:
        return f"an epoch shows {size:,} of the {samples:,} {data.unit}, other ones each time (data.epoch_size)"
    return f"an epoch shows each of the {samples:,} {data.unit} {size / samples:.3g} times (data.epoch_size)"


def remarks(config: Run, phase: Phase, data: AnyData) -> list[str]:
    """Sentences on settings of a phase that do less, or something else, than they say on so few images or clips.

    Args:
        config: of the run.
        phase: of the run.
        data: set up.
    """
    world, accumulate = config.trainer.processes, config.trainer.accumulate
    shown, samples, used = data.samples("train"), data.epoch_samples, data.images_per_epoch(world)
    batches = batches_of(config, data)
    steps = math.ceil(batches / accumulate)
    total = min(phase.epochs * steps, config.trainer.max_steps or math.inf)
    found = []
    if data.epoch_size and data.epoch_size != shown and data.labelled_batches() is None:
        found.append(_on_size(data, shown))
    if isinstance(data, ImageDataModule) and shown < data.sizes["train"]:
        found.append(
            f"an epoch shows {shown:,} of {data.sizes['train']:,} images, as many of each class, drawn anew each time"
            " (recipe.balance)"
        )
    if 0 < phase.lam < 1 and isinstance(data, ImageDataModule):
        found += _on_labels(data, used)
    if samples > used and data.labelled_batches() is None:
        left_out = (
            f"each epoch trains on {used:,} of {samples:,} {data.unit} and leaves out {samples - used:,},"
            " other ones each time"
        )
        if data.drop_last:
            found.append(
                f"{left_out}: they do not fill a batch of {data.batch_size * world} (recipe.drop_last=false keeps it)"
            )
        else:
            found.append(f"{left_out}: the last batch has an even number" + " on each process" * (world > 1))
    if isinstance(data, VideoDataModule) and (short := data.short_videos()):
        found.append(
            f"{short:,} of {data.sizes['train']:,} training videos are shorter than a clip of {data.frames} frames, of"
            f" which {config.data.frame_step} of the video make a step: their last frame is repeated; set a smaller"
            " data.frame_step or data.frames"
        )
    if accumulate <= batches and batches % accumulate:
        found.append(
            f"the last step of an epoch has {batches % accumulate} of trainer.accumulate={accumulate} batches: an epoch"
            f" has {batches}"
        )
    if (stopping := early_stopping(config.callbacks)) and phase.lam > 0:
        watched, patience = f"{data.eval_split}/{data.decides}", stopping.patience
        times = "the last evaluation" if patience == 1 else f"{patience} evaluations"
        chosen_on = " on the test images, which is optimistic (data.val_fraction=0.1 keeps others)"
        found.append(f"ends early when {watched} has not risen in {times}" + chosen_on * (data.eval_split == "test"))
    if config.eval_every == "auto" and (every := evaluated_every(config, phase, data)) > 1:
        found.append(
            f"evaluates every {every} epochs and after the last one: a pass over {data.samples(data.eval_split):,}"
            f" {data.eval_split} {data.unit} is much beside {used:,} to train on (eval_every=auto)"
        )
    if phase.recipe.sizes:
        found.append(f"trains on smaller images first: {epochs_at(phase.recipe.sizes, phase.epochs)} (recipe.sizes)")
    own, asked = config.encoder.options.get("drop_path"), phase.recipe.drop_path
    if asked and own is not None and own != asked:
        found.append(
            f"recipe.drop_path={asked:g} is not used: encoder={config.encoder.name} has its own,"
            f" encoder.drop_path={own:g} (null takes the recipe's)"
        )
    decay = phase.recipe.ema_decay
    if decay and decay < 1 and 1 / (1 - decay) > total:
        found.append(
            f"recipe.ema_decay={decay:g} averages over {1 / (1 - decay):,.0f} steps, and there are {total:,}: the decay"
            f" warms up to {warmed_up(decay, int(total) - 1):.3g} only"
        )
    return found
