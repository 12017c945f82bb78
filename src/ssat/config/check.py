"""Refuses combinations of values that cannot work, before anything is built or written."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from ssat.config.callbacks import early_stopping
from ssat.config.check_classes import check_classes, check_folds
from ssat.config.loggers import trackers
from ssat.config.schema import Phase, Recipe, Run
from ssat.core.errors import UserError
from ssat.data.options import check_range
from ssat.data.pixels import MOST_PIXELS

OF_CLASSES = ("acc1", "balanced_acc", "macro_f1", "auroc")  # monitor.select
OF_LABELS = ("map", "auroc", "macro_f1", "micro_f1", "exact_match", "hamming_acc")  # the same under data.labels
PRECISIONS = {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}  # ours and Lightning's names


def shown_key(key: str) -> str:
    """The key as the user knows it: a phase's recipe is the recipe, its other keys are the mode's."""
    key = re.sub(r"^mode\.phases\.\d+\.(recipe|epochs)\b", r"\1", key)
    return re.sub(r"^mode\.phases\.\d+\.", "mode.", key)


def check(run: Run) -> None:
    """Refuse what the schema's single values cannot tell.

    Raises:
        UserError: names the key, its value and what is possible.
    """
    if not run.mode.phases:
        raise UserError("mode.phases is empty: a mode has at least one phase", key="mode.phases", value=[])
    check_range(run.data.value_range)
    check_folds(run.data)
    for phase in run.mode.phases:
        check_phase(run, phase)
    starts = run.mode.init_from, run.encoder.pretrained
    if run.mode.name in ("finetune", "linear") and not any(starts):
        raise UserError(
            f"mode={run.mode.name} needs start weights: mode.init_from=<run folder or file> or encoder.pretrained=...",
            key="mode.init_from",
        )
    if run.mode.phases[0].init_from == "previous":
        raise UserError(
            "mode.init_from=previous: there is no phase before the first, name a run folder or a file",
            key="mode.init_from",
            value="previous",
        )
    if all(starts):
        raise UserError(
            f"mode.init_from={starts[0]} and encoder.pretrained={starts[1]} are both given: keep one of them",
            key="mode.init_from",
            value=starts[0],
        )
    check_select(run)
    check_exchange(run)
    check_callbacks(run)
    trackers(run.logger)
    phases = [(f"mode.phases.{number}.name", phase.name) for number, phase in enumerate(run.mode.phases)]
    for key, value in (("name", run.name), ("experiment", run.experiment), *phases):
        plain = value is None or (Path(value).name == value and value.isprintable() and len(value.encode()) < 200)
        if value is not None and (not plain or value.startswith(".") or not value.strip()):
            raise UserError(
                f"{key}={value[:60]!r} must be a plain folder name, without a path separator or a leading dot",
                key=key,
                value=value,
            )
    for key, value in (("runs_dir", run.runs_dir), ("run_dir", run.run_dir)):
        if value is not None and not value.strip():
            raise UserError(f"{key}={value!r} names no folder: give one, or leave the key out", key=key, value=value)


def check_ranges(recipe: Recipe) -> None:
    """The pairs [low, high] of a recipe.

    Raises:
        UserError: a pair is not in this order, or not possible.
    """
    augment = recipe.augment
    for name in ("crop_scale", "crop_ratio", "re_area", "re_ratio") if augment else ():
        low, high = getattr(augment, name)
        if not 0 < low <= high or (name in ("crop_scale", "re_area") and high > 1):
            limit = " and at most 1" if name in ("crop_scale", "re_area") else ""
            raise UserError(
                f"recipe.augment.{name}=[{low:g}, {high:g}] is not possible: it is [low, high], both above 0{limit}",
                key=f"recipe.augment.{name}",
                value=[low, high],
            )
    if not all(0 <= beta < 1 for beta in recipe.betas):
        raise UserError(
            f"recipe.betas={list(recipe.betas)} is not possible: both lie in [0, 1)",
            key="recipe.betas",
            value=list(recipe.betas),
        )


def check_exchange(run: Run) -> None:
    """Raises: UserError: how gradients are exchanged, of a run with a single process."""
    if run.trainer.grad_dtype != "32" and run.trainer.processes == 1:
        raise UserError(
            f"trainer.grad_dtype={run.trainer.grad_dtype} is of several processes (trainer.devices, trainer.num_nodes),"
            " and this run has one: leave it out",
            key="trainer.grad_dtype",
            value=run.trainer.grad_dtype,
        )


def check_select(run: Run) -> None:
    """Raises: UserError: monitor.select where there is no such choice."""
    select = run.monitor.select
    if select is None:
        return
    if run.data.frames is not None:
        why = f"is of images, and data={run.data.name} are videos, whose best epoch has the highest AUC (of more than"
        why += " two classes the highest balanced accuracy)"
    elif all(phase.lam == 0 for phase in run.mode.phases):
        why = f"chooses by labels, and mode={run.mode.name} learns none"
    elif select not in (OF_LABELS if run.data.multi_label else OF_CLASSES):
        of = (
            ("one class each", OF_LABELS) if run.data.multi_label else ("several labels each (data.labels)", OF_CLASSES)
        )
        raise UserError(
            f"monitor.select={select} is of images with {of[0]}: choose one of {', '.join(of[1])}",
            key="monitor.select",
            value=select,
        )
    else:
        return
    raise UserError(f"monitor.select={select} {why}: leave it out", key="monitor.select", value=select)


def check_callbacks(run: Run) -> None:
    """Raises: UserError: a callback that does not exist, or early stopping where nothing is watched."""
    if early_stopping(run.callbacks) and all(phase.lam == 0 for phase in run.mode.phases):
        raise UserError(
            f"callbacks=[early_stopping] watches the accuracy, and mode={run.mode.name} learns no labels: leave it out",
            key="callbacks",
            value="early_stopping",
        )


def check_videos(run: Run, recipe: Recipe) -> None:
    """What is of videos alone, and what videos do not take.

    Raises:
        UserError: names the key.
    """
    videos = run.data.frames is not None
    if not videos and recipe.clips_per_video != 1:
        raise UserError(
            f"recipe.clips_per_video={recipe.clips_per_video} is of videos, and data={run.data.name} are images: leave"
            " it out",
            key="recipe.clips_per_video",
            value=recipe.clips_per_video,
        )
    if videos and (recipe.cutmix or recipe.mixup):
        raise UserError(
            "recipe.mixup and recipe.cutmix mix images, and a mixed video is neither real nor fake: set both to 0",
            key="recipe.mixup",
            value=recipe.mixup,
        )
    of_images: tuple[tuple[str, Any, Any], ...] = (
        ("fraction", run.data.fraction, 1.0),
        ("label_fraction", run.data.label_fraction, 1.0),
        ("labelled_share", run.data.labelled_share, None),
        ("samples_per_class", run.data.samples_per_class, None),
        ("test_fraction", 0.0 if "test_fraction" in run.data.source.options else run.data.test_fraction, 0.0),
        ("max_test", run.data.max_test, None),
        ("use_test", run.data.use_test, True),
        ("folds", run.data.folds, None),
        ("fold", run.data.fold, None),
        ("group", run.data.group, None),
        ("value_range", run.data.value_range, None),
        ("max_pixels", run.data.max_pixels, MOST_PIXELS),
        ("pipeline", run.data.pipeline, None),
        ("subset", run.data.subset, "stratified"),
        ("protocol", run.data.protocol, "paper"),
        ("on_bad_image", run.data.on_bad_image, "error"),
    )
    if run.data.source.kind in ("ffpp", "dfdc") and run.data.val_fraction:
        raise UserError(
            f"data.val_fraction={run.data.val_fraction:g} is not used by data={run.data.name}, whose own lists name the"
            " validation videos: leave it out",
            key="data.val_fraction",
            value=run.data.val_fraction,
        )
    for key, value, default in of_images:
        if videos and value != default:
            raise UserError(
                f"data.{key}={value} is of images, and data={run.data.name} are videos: leave it out"
                + (" (groups are made by src.prepare)" if key == "group" else ""),
                key=f"data.{key}",
                value=value,
            )


def check_patch_dropout(run: Run, phase: Phase) -> None:
    """Raises: UserError: patch dropout that leaves nothing, or that nothing of the phase reads."""
    dropout = phase.recipe.patch_dropout
    refused = {
        "leaves no patch: use a share below 1, such as 0.5": dropout == 1,
        f"is of the classification view, and the phase {phase.name} classifies nothing: leave it out": phase.lam == 0,
        f"changes how the encoder learns, and the phase {phase.name} keeps it as it is: leave it out": phase.frozen,
        "has not been recorded in a CUDA graph: set trainer.cuda_graph=false": run.trainer.cuda_graph,
    }
    for why, holds in refused.items():
        if dropout and holds:
            raise UserError(f"recipe.patch_dropout={dropout:g} {why}", key="recipe.patch_dropout", value=dropout)


def check_sizes(run: Run, phase: Phase) -> None:
    """Raises: UserError: sizes that do not grow to the data's own, or that something else of the run does not know."""
    sizes, full = [*phase.recipe.sizes], run.data.img_size
    refused = {
        f"do not grow: give sizes below data.img_size={full}, the smallest first": sizes != sorted({*sizes} - {full})
        or max(sizes, default=0) > full,
        f"are {len(sizes) + 1} parts of the epochs with data.img_size={full}, and there are {phase.epochs} epochs: give"
        " fewer sizes": len(sizes) >= phase.epochs,
        "are several shapes, and a CUDA graph has one: set trainer.cuda_graph=false": run.trainer.cuda_graph,
    }
    for why, holds in refused.items():
        if sizes and holds:
            raise UserError(f"recipe.sizes={sizes} {why}", key="recipe.sizes", value=sizes)


def check_phase(run: Run, phase: Phase) -> None:
    """Lambda, its schedule and the recipe of one phase.

    Raises:
        UserError: names the key, its value and what is possible.
    """
    schedule = phase.lam_schedule
    if schedule != "constant" and not 0 < phase.lam < 1:
        raise UserError(
            f"mode.lam_schedule={schedule} needs both losses: set mode.lam between 0 and 1, not {phase.lam:g}",
            key="mode.lam",
            value=phase.lam,
        )
    if schedule in ("linear", "cosine") and phase.lam_end is None:
        raise UserError(f"mode.lam_schedule={schedule} needs an end: set mode.lam_end", key="mode.lam_end")
    if schedule in ("constant", "balanced") and phase.lam_end is not None:
        raise UserError(
            f"mode.lam_end={phase.lam_end:g} is not used by mode.lam_schedule={schedule}: choose linear or cosine",
            key="mode.lam_end",
            value=phase.lam_end,
        )
    if run.trainer.compile and (schedule == "balanced" or run.monitor.conflict_every):
        # Measured: the second gradient of one compiled graph can be wrong by percents.
        raise UserError(
            "mode.lam_schedule=balanced and monitor.conflict_every read the gradients of a step more than once, and"
            " compiled passes do not give them exactly: set trainer.compile=false",
            key="trainer.compile",
            value=True,
        )
    recipe = phase.recipe
    check_ranges(recipe)
    check_classes(run, phase)
    check_videos(run, recipe)
    check_patch_dropout(run, phase)
    check_sizes(run, phase)
    if recipe.ema_decay == 1:
        raise UserError(
            "recipe.ema_decay=1 would evaluate an average that never moves: use a value below 1, such as 0.9998",
            key="recipe.ema_decay",
            value=recipe.ema_decay,
        )
    if (recipe.mixup or recipe.cutmix) and recipe.batch_size % 2:
        raise UserError(
            f"recipe.batch_size={recipe.batch_size} is odd, and mixup pairs images: make it even",
            key="recipe.batch_size",
            value=recipe.batch_size,
        )
