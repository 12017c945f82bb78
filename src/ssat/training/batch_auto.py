"""`batch=auto`: the largest batch of which a training step fits into the GPU's memory."""

from __future__ import annotations

import copy
import gc
import json
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch

from ssat.config.check import PRECISIONS
from ssat.config.identity import config_hash
from ssat.config.resolve import build
from ssat.config.schema import Run
from ssat.core.errors import UserError
from ssat.core.files import write_text
from ssat.core.launch import say
from ssat.runs.machine import runs_on_cpu
from ssat.training.build import build_module
from ssat.training.data import build_data
from ssat.training.fit import quiet

KEPT = ".batch_auto.json"  # in runs_dir: what was found, so that the same command finds its run again
MARGIN = 0.1  # of the memory, left free: evaluation and fragments need some
STEPS = 2  # the optimizer's state is there from the second one on


def largest_fitting(fits: Callable[[int], bool], start: int, limit: int) -> int:
    """The largest of `start` x 2^k, k also negative, that fits and is at most `limit`.

    Args:
        fits: whether a batch of this size does; one that does not means that no larger one does.
        start: is tried first.
        limit: images of an epoch.

    Raises:
        UserError: not even one image fits.
    """
    size = start
    if fits(size):
        while size * 2 <= limit and fits(size * 2):
            size *= 2
        return size
    while size > 1:
        size //= 2
        if fits(size):
            return size
    raise UserError("batch=auto: not even one image fits into the device's memory: take a smaller network", key="batch")


def fits_memory(step: Callable[[], Any]) -> bool:
    """Whether `step()` runs without the device running out of memory."""
    try:
        step()
        return True
    except torch.OutOfMemoryError:
        return False
    finally:
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def with_batch(config: Run) -> Run:
    """`config` with the batch that was found in place of `batch=auto`; itself where that is not asked for.

    Raises:
        UserError: not even one image fits.
    """
    if config.batch is None:
        return config
    if runs_on_cpu(config):
        size = config.recipe.batch_size
        say(f"batch=auto: on a CPU the batch has no such limit, recipe.batch_size={size} is used")
        return with_size(config, size)
    start = with_size(config, config.recipe.batch_size)
    key = f"{config_hash(start)} {torch.cuda.get_device_name()}"
    path = Path(config.runs_dir) / KEPT
    kept = json.loads(path.read_text()) if path.is_file() else {}
    if key not in kept:
        data = build_data(start, start.mode.phases[-1])
        data.setup()
        found = largest_fitting(
            lambda size: all(_trains(with_size(start, size), index) for index in range(len(start.mode.phases))),
            start.recipe.batch_size,
            data.samples("train") // start.trainer.processes,
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        kept |= {key: found}
        write_text(path, json.dumps(kept, indent=1))
    say(f"batch=auto: recipe.batch_size={kept[key]} fits, with {MARGIN:.0%} of the memory left")
    return with_size(config, kept[key])


def with_size(config: Run, size: int) -> Run:
    """`config` as if the user had typed recipe.batch_size=`size`: phases that follow the recipe follow."""
    values: dict[str, Any] = copy.deepcopy(dict(config.values)) | {"batch": None}
    before = config.recipe.batch_size
    mode = values["mode"]
    recipes = [values["recipe"], mode.get("ssl_recipe"), mode.get("probe_recipe")]
    for recipe in (*recipes, *(phase["recipe"] for phase in mode["phases"])):
        if recipe and recipe.get("batch_size") == before:
            recipe["batch_size"] = size
    return build(values)


def _trains(config: Run, index: int) -> bool:
    """Whether steps of a phase leave the margin."""

    def steps() -> None:
        phase = config.mode.phases[index]
        data = build_data(config, phase)
        data.setup()
        eager = replace(config, trainer=replace(config.trainer, compile=False))  # compiling takes minutes
        module = build_module(eager, phase, data.num_classes, data.class_counts("train"))
        with tempfile.TemporaryDirectory() as folder:
            trainer = pl.Trainer(
                accelerator=config.trainer.accelerator,
                devices=1,
                precision=PRECISIONS[config.trainer.precision],  # type: ignore[arg-type]
                max_steps=STEPS,
                limit_val_batches=0,
                logger=False,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
                use_distributed_sampler=False,
                default_root_dir=folder,
            )
            trainer.fit(module, datamodule=data)

    quiet()
    torch.cuda.reset_peak_memory_stats()
    if not fits_memory(steps):
        return False
    total = torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
    return torch.cuda.max_memory_reserved() <= (1 - MARGIN) * total
