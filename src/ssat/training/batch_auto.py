"""The largest batch of which a training step fits into the memory: for `batch=auto`, and where it has run out."""

from __future__ import annotations

import copy
import gc
import json
import math
import multiprocessing as mp
import os
import sys
import tempfile
import traceback
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch

from ssat.config.check import PRECISIONS
from ssat.config.identity import config_hash
from ssat.config.resolve import build
from ssat.config.schema import Run
from ssat.core.allocator import give_back_freed_memory, keep_freed_memory
from ssat.core.errors import NotEnoughMemory, UserError, enough_memory, refused_memory
from ssat.core.files import write_text
from ssat.core.launch import launched_externally, say, without_slurm
from ssat.core.parent import EndsWithParent
from ssat.runs.folder import read_record
from ssat.runs.machine import runs_on_cpu
from ssat.training.build import build_module
from ssat.training.data import AnyData, build_data
from ssat.training.fit import quiet

KEPT = ".batch_auto.json"  # in runs_dir: what was found, so that the same command finds its run again
MARGIN = 0.1  # of the memory, left free: evaluation and fragments need some
ROOM = 2**28  # bytes of a CPU's memory that a run takes beside its steps: loggers, meters, pictures
MORE = 1.2  # on a CPU, whose memory has no such account: so many times the images must fit
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


def largest_divisor(fits: Callable[[int], bool], of: int) -> int | None:
    """The largest divisor of `of`, below it, that fits, found by bisection; None where not even 1 does."""
    divisors = [size for size in range(1, of // 2 + 1) if of % size == 0]
    fitting = bisect_left(divisors, True, key=lambda size: not fits(size))
    return divisors[fitting - 1] if fitting else None


def fits_memory(step: Callable[[], Any]) -> bool:
    """Whether `step()` runs without the device running out of memory."""
    try:
        step()
        return True
    except (MemoryError, RuntimeError) as error:
        if refused_memory(error) is None:
            raise
        traceback.clear_frames(error.__traceback__)  # they hold the tensors
        return False
    finally:
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def with_batch(config: Run) -> Run:
    """`config` with the batch that was found in place of `batch=auto`; itself where that is not asked for.

    Raises:
        UserError: not even one image fits, or several processes would look for it.
    """
    if config.batch is None:
        return config
    if launched_externally():
        raise UserError(
            "batch=auto is found by one process, and torchrun or srun has started several: find the number on one GPU,"
            " and give recipe.batch_size=<number>",
            key="batch",
            value="auto",
        )
    one = with_size(config, 1)  # larger batches than there are images are refused
    data = build_data(one, one.mode.phases[-1])
    data.setup()
    images = data.epoch_samples // config.trainer.processes
    start = with_size(config, max(1, min(config.recipe.batch_size, images)))
    size = start.recipe.batch_size
    if runs_on_cpu(config):
        say(f"batch=auto: a larger batch is no faster on a CPU, recipe.batch_size={size} is used")
        return start
    key = f"{config_hash(start)} {torch.cuda.get_device_name()}"
    path = Path(config.runs_dir) / KEPT
    kept = read_record(path, "remove it") if path.is_file() else {}
    if key not in kept:
        phases = range(len(start.mode.phases))
        found = largest_fitting(
            lambda size: all(_trains(with_size(start, size), index) for index in phases), size, images
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        kept |= {key: found}
        write_text(path, json.dumps(kept, indent=1))
    say(f"batch=auto: recipe.batch_size={kept[key]} fits, with {MARGIN:.0%} of the memory left")
    return with_size(config, kept[key])


@contextmanager
def naming_the_batch(config: Run, prepared: Iterable[AnyData]) -> Iterator[None]:
    """Where the training in this block runs out of memory: a sentence with the largest batch that fits.

    Args:
        config: of the run.
        prepared: data modules of the run, whose memory is given back before others are tried.

    Raises:
        NotEnoughMemory: with the words to type.
    """
    try:
        with enough_memory("the run"):
            yield
    except NotEnoughMemory as error:
        recipe = config.recipe
        others = any(phase.recipe.batch_size != recipe.batch_size for phase in config.mode.phases)
        if others or recipe.batch_size == 1 or launched_externally():
            raise
        for each in (error, error.__cause__):
            traceback.clear_frames(each.__traceback__ if each else None)  # they hold network, optimizer and tensors
        for data in prepared:
            data.release()
        gc.collect()
        give_back_freed_memory()
        say(f"memory ran out ({error.reason}): trying {STEPS} steps with smaller batches")
        size = largest_divisor(lambda size: _trains_elsewhere(config, size), recipe.batch_size)
        if size is None:
            raise
        raise NotEnoughMemory(_advice(config, size), reason=error.reason) from None


def _trains_elsewhere(config: Run, size: int) -> bool:
    """Whether a fresh process trains some steps of every phase; the heap of this one is in pieces."""
    say(f"  recipe.batch_size={size} ...")
    tried = math.ceil(size * MORE) if runs_on_cpu(config) else size  # on a GPU `_trains` sees how much memory is left
    with without_slurm():
        process = mp.get_context("spawn").Process(
            target=_try, args=(EndsWithParent(), with_size(config, tried)), daemon=True
        )
        process.start()
        process.join()
    return process.exitcode == 0  # Linux may kill it, too


def _try(_: None, config: Run) -> None:
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 1)
    os.dup2(silent, 2)
    if config.trainer.threads:
        torch.set_num_threads(config.trainer.threads)
    keep_freed_memory()
    room = torch.ones(ROOM // 4 if runs_on_cpu(config) else 0)  # written to: an untouched page takes no memory
    fits = all(_trains(config, index) for index in range(len(config.mode.phases)))
    del room
    sys.exit(not fits)


def _advice(config: Run, size: int) -> str:
    batch, accumulate = config.recipe.batch_size, config.trainer.accumulate
    again = accumulate * batch // size
    further = ", or encoder.checkpoint_blocks=true" * (config.encoder.options.get("checkpoint_blocks") is False)
    return (
        f"recipe.batch_size={batch} does not fit into the device's memory: type recipe.batch_size={size}"
        f" trainer.accumulate={again}, which trains on as many images a step ({size} is the largest divisor of {batch}"
        f" of which {STEPS} steps fit with room to spare){further}"
    )


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
    """Whether steps of a phase fit, and leave the margin of a GPU's memory."""

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
    if runs_on_cpu(config):
        return fits_memory(steps)
    torch.cuda.reset_peak_memory_stats()
    if not fits_memory(steps):
        return False
    total = torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
    return torch.cuda.max_memory_reserved() <= (1 - MARGIN) * total
