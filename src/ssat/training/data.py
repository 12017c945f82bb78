"""The data module of a phase from a configuration."""

from __future__ import annotations

import functools
import os
from dataclasses import asdict, replace
from typing import Any

import torch

from ssat.config.create import create
from ssat.config.identity import is_official
from ssat.config.schema import Phase, Run
from ssat.core.errors import UserError
from ssat.core.launch import say
from ssat.core.views import View
from ssat.data.image import ImageDataModule
from ssat.data.sets import SOURCES
from ssat.data.sets.sources import Source
from ssat.data.transforms.augment import check_possible
from ssat.data.video.module import VideoDataModule
from ssat.data.video.source import VideoSource
from ssat.runs.machine import runs_on_cpu
from ssat.training.tasks import class_of, normalisation, task_options


@functools.cache
def _say_once(line: str) -> None:
    """Every phase of a run, and each of its estimates, asks for the same."""
    say(line)


AnyData = ImageDataModule | VideoDataModule


def build_views(config: Run, phase: Phase) -> list[View | str]:
    """The extra views that the phase's SSL tasks ask for."""
    views: list[View | str] = []
    for task in config.ssl.tasks.values() if phase.lam < 1 else ():
        views += class_of(task).needed_views(task_options(config, phase, task), img_size=config.data.img_size)
    hflip = config.data.hflip
    if hflip is not None:  # a mirrored digit is another digit
        views = [view if isinstance(view, str) else replace(view, hflip=hflip) for view in views]
    return views


def build_data(config: Run, phase: Phase, source: Source | VideoSource | None = None) -> AnyData:
    """The data of the configuration under the phase's augmentation, batch size and statistics.

    `source` takes the place of the one that the configuration names.
    """
    source = source or create(SOURCES, config.data.source.kind, config.data.source.options, "data.source")
    if isinstance(source, VideoSource):
        return _videos(config, phase, source)
    return _images(config, phase, source)


def build_images(config: Run, phase: Phase, source: Source | None = None) -> ImageDataModule:
    """`build_data` for what only looks at images.

    Raises:
        UserError: the data are videos.
    """
    data = build_data(config, phase, source)
    if isinstance(data, ImageDataModule):
        return data
    raise UserError(
        f"data={config.data.name} are videos, and this looks at single images: choose a set of images",
        key="data",
        value=config.data.name,
    )


def _videos(config: Run, phase: Phase, source: VideoSource) -> VideoDataModule:
    data, recipe = config.data, phase.recipe
    known = normalisation(config, phase)
    if not known or data.frames is None:
        raise UserError(
            f"data={data.name} are videos, and "
            + (
                "data.frames=null is for images: set the frames of a clip"
                if known
                else "their pixels are not measured: set recipe.statistics=imagenet, or give data.statistics.own"
            ),
            key="data.frames" if known else "recipe.statistics",
        )
    augment = None if recipe.clip_augment is None else asdict(recipe.clip_augment)
    if augment is not None and data.hflip is not None:
        augment["hflip_prob"] = data.hflip
    return VideoDataModule(
        source,
        img_size=data.img_size,
        frames=data.frames,
        frame_step=data.frame_step,
        **known,
        augment=augment,
        batch_size=recipe.batch_size,
        num_workers=num_workers(config),
        repeats=recipe.clips_per_video,
        balance=recipe.balance,
        max_clips=data.max_clips,
        seed=config.seed,
        drop_last=bool(recipe.drop_last),
        epoch_size=data.epoch_size,
        pin_memory=config.trainer.accelerator != "cpu" and torch.cuda.is_available(),
    )


def pipeline_of(config: Run, augment: dict[str, Any] | None, *, views: bool) -> str:
    """The name of the pipeline; `data.pipeline=auto` is `batched` wherever it can do the augmentation.

    That is the faster one at 32 and at 224 px on a CPU (docs/datasets.md). The choice follows from the configuration
    alone, so that a run that continues elsewhere sees the same images.

    Args:
        augment: the keys of the recipe's augmentation; None = none.
        views: the SSL task asks for extra ones, which only `batched` makes.
    """
    if config.data.pipeline != "auto":
        return config.data.pipeline or ("batched" if views else "timm")
    if augment is not None and not views:
        try:
            check_possible(augment)
        except UserError as error:
            why = str(error).partition(" is not possible")[0]
            _say_once(f"data.pipeline=auto: timm, since the batched pipeline cannot do {why}")
            return "timm"
    _say_once("data.pipeline=auto: batched")
    return "batched"


def _images(config: Run, phase: Phase, source: Source) -> ImageDataModule:
    data, recipe = config.data, phase.recipe
    known = normalisation(config, phase)
    augment = None if recipe.augment is None else asdict(recipe.augment)
    if augment is not None and data.hflip is not None:
        augment["hflip"] = data.hflip
    views = build_views(config, phase)
    module = ImageDataModule(
        source,
        img_size=data.img_size,
        channels=data.channels,
        mean=known.get("mean"),
        std=known.get("std"),
        own_statistics=not known,
        augment=augment,
        eval_crop_pct=recipe.eval_crop_pct,
        batch_size=recipe.batch_size,
        num_workers=num_workers(config),
        val_fraction=data.val_fraction,
        fraction=data.fraction,
        label_fraction=data.label_fraction if phase.lam > 0 else 1.0,  # pre-training reads no label
        unlabelled="keep" if phase.lam < 1 else "drop",
        labelled_share=data.labelled_share,
        epoch_size=data.epoch_size,
        samples_per_class=data.samples_per_class,
        seed=config.seed,
        on_bad_image=data.on_bad_image,
        subset=data.subset,
        protocol=data.protocol,
        pipeline=pipeline_of(config, augment, views=bool(views)),
        views=views,
        eval_views=phase.lam == 0,
        memory_gb=data.memory_gb,
        value_range=data.value_range,
        max_pixels=data.max_pixels,
        group=data.group,
        balance=recipe.balance and phase.lam > 0,
        test_fraction=0.0 if "test_fraction" in data.source.options else data.test_fraction,  # its reader takes it
        max_test=data.max_test,
        use_test=data.use_test,
        folds=data.folds,
        fold=data.fold,
        drop_last=is_official(config) if recipe.drop_last is None else recipe.drop_last,
        pin_memory=config.trainer.accelerator != "cpu" and torch.cuda.is_available(),
    )
    if source.multi_label != data.multi_label:  # a reader of the user's own
        raise UserError(
            f"data={data.name} gives images {'several labels' if source.multi_label else 'one class'} each, and the"
            " configuration says otherwise: data.source.labels names the table of several labels",
            key="data.source",
        )
    module.decides = config.monitor.select or module.decides
    return module


def labelled_images(data: AnyData) -> int:
    """Training images whose labels are used; of videos, whose classes tell, 0."""
    return data.labelled_images("train") if isinstance(data, ImageDataModule) else 0


def num_workers(config: Run) -> int:
    """Loader processes of one training process; null = none on a CPU, whose cores the model needs, else up to 8."""
    given = config.data.num_workers
    if given is not None:
        return given
    return 0 if runs_on_cpu(config) else min(8, (os.cpu_count() or 1) // config.trainer.devices)
