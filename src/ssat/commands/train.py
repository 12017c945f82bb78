"""Train one run, or a sweep of runs with -m: python -m src.train encoder=vit_t data=flowers mode=ssat"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from functools import partial
from itertools import chain, count
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from ssat.config.check_typed import check_sweeper, check_typed
from ssat.config.command_line import disk_space, run_command, users_mistakes
from ssat.config.components import check_components
from ssat.config.identity import check_same_run, official_name
from ssat.config.loggers import check_logger
from ssat.config.resolve import resolve
from ssat.config.schema import Run
from ssat.config.words import CONF, command_line
from ssat.core.errors import UserError
from ssat.core.files import write_text
from ssat.core.interrupts import Stopped, ending_at_once
from ssat.core.launch import begin_log, is_main_process, launched_externally, note, say
from ssat.core.terminal import tell
from ssat.data.sets import SOURCES
from ssat.data.video import SETS
from ssat.estimate.command import estimate, sum_at_end
from ssat.runs.begun import locked, note_other_devices, remove_unfinished
from ssat.runs.decisive import decisive
from ssat.runs.folder import (
    AFRESH,
    LOG,
    compare_line,
    describe,
    find_finished,
    find_run_dir,
    is_same_older,
    read_config,
    usable,
    where_it_continues,
)
from ssat.runs.inputs import FILE, read_inputs, recorded, refuse_changes

CHANGED = "give the run the data it was begun with, or train anew with force=true"


def set_aside(run_dir: Path, runs_dir: Path) -> None:
    """Move an old run out of the way; nothing is deleted."""
    if not run_dir.exists():
        return
    place = runs_dir / ".replaced"
    name = f"{run_dir.name}-{datetime.now():%Y%m%d-%H%M%S}"
    # The same second comes again where the clock goes back.
    names = chain([name], (f"{name}-{number}" for number in count(2)))
    target = next(place / each for each in names if not (place / each).exists())
    target.parent.mkdir(parents=True, exist_ok=True)
    run_dir.rename(target)
    tell(f"force=true: the old run is now {target}")


def begin(config: Run, run_dir: Path, inputs: dict[str, Any]) -> None:
    """Write the run's configuration and what it reads.

    Raises:
        UserError: the folder holds an unfinished run of another configuration or of other data, or a damaged one.
    """
    path = run_dir / "config.yaml"
    begun = [path, *run_dir.glob("*/phase.json"), *run_dir.glob("*/checkpoints/last.ckpt")]
    if any(map(os.path.lexists, begun)):
        check_same_run(config, read_config(path, AFRESH), run_dir)
        refuse_changes(inputs, read_inputs(run_dir, AFRESH), run_dir, CHANGED)
    if not is_same_older(config, run_dir):  # an older form stays: by it the phases of before are known as this run's
        write_text(path, OmegaConf.to_yaml(OmegaConf.create(dict(config.values))))
    write_text(run_dir / FILE, json.dumps(inputs, indent=1))


def say_skipped(config: Run, folder: Path, record: dict[str, Any]) -> None:
    """Print that the run is finished in `folder`, having compared what it has read with what is there now.

    Raises:
        UserError: the data or the weights have changed since.
    """
    from ssat.training.inputs import present_inputs

    note = ""
    try:
        now = present_inputs(config)
    except UserError as error:
        root = config.data.extra.get("root")
        if config.data.source.kind == "image_folder" and root is not None and any(Path(root).glob("*")):
            raise UserError(f"{error}, so it is not what {folder} has read; {CHANGED}", key="data.root") from error
        note = f"; what it has read was not compared: {error}"
    else:
        refuse_changes(now, recorded(record), folder, CHANGED)
    tell(f"skipped, already finished in {folder}: {describe(record)} (force=true trains again{note})")


def check_root(config: Run) -> None:
    """Refuse a missing folder of the user's own images before anything heavy is imported.

    Raises:
        UserError: it does not exist.
    """
    root = config.data.extra.get("root")
    if root is not None and config.data.source.kind == "image_folder" and not Path(root).is_dir():
        raise UserError(
            f"data.root={root!r} is not a folder: give the one that holds train/<class>/*, or <class>/* with"
            " data.val_fraction (docs/datasets.md)",
            key="data.root",
            value=root,
        )


def refuse_mps_elsewhere(config: Run) -> None:
    """Refuse an Apple GPU on another system, which is known before PyTorch is imported.

    Raises:
        UserError: names the key.
    """
    if config.trainer.accelerator == "mps" and sys.platform != "darwin":
        raise UserError(
            "trainer.accelerator=mps, but there is no Apple GPU here: use trainer=cpu", key="trainer.accelerator"
        )


def refuse_other_kind(config: Run) -> None:
    """Refuse an encoder of images for videos, and one of clips for images, before any data are read.

    Raises:
        UserError: names both.
    """
    # An encoder of clips usually takes their length; only where this speaks against the data it is built to be sure.
    # Videos with data.frames=null are refused as such.
    frames, kind = config.data.frames, config.data.source.kind
    if frames is not None and kind in SOURCES and kind not in SETS:
        raise UserError(
            f"data.frames={frames} is of videos, and data={config.data.name} are images: leave it out",
            key="data.frames",
            value=frames,
        )
    if ("frames" in config.encoder.options) == (frames is not None or kind in SETS):
        return
    from ssat.training.build import build_encoder, check_dimensions

    check_dimensions(config, build_encoder(config, config.mode.phases[0]))


def start_line(config: Run) -> str:
    """What was asked for, said before the imports that take seconds and before the checks that need them."""
    phases = config.mode.phases
    task = f", ssl={'+'.join(config.ssl.tasks)}" if any(phase.lam < 1 for phase in phases) else ""
    epochs = " + ".join(str(phase.epochs) for phase in phases)
    what = f"{config.encoder.name} on {config.data.name}, mode={config.mode.name}{task}"
    return f"checking: {what}, {epochs} epoch{'s' * (epochs != '1')}, seed {config.seed}"


def found_batch(config: Run) -> Run:
    """`config` with a number in place of batch=auto.

    Raises:
        UserError: in a sweep, whose runs are to be compared.
    """
    if config.batch is None:
        return config
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        raise UserError(
            "batch=auto is of one run: find the number once, and give the sweep recipe.batch_size=<number>, so that its"
            " runs can be compared",
            key="batch",
            value="auto",
        )
    with ending_at_once():
        from ssat.training.batch_auto import with_batch

    fetch(config)
    return with_batch(config)


def fetch(config: Run) -> None:
    """Download a published set that is missing, where that is asked for."""
    from ssat.commands.prepare import fetch_missing  # here: a run that is skipped needs none of its imports

    if config.data.download and official_name(config) and not launched_externally():
        fetch_missing(official_name(config), Path(config.data.extra.get("root") or "."))


def train(config: Run) -> dict[str, Any] | None:
    """One run from start to result.json: skipped when finished, continued when interrupted.

    Returns:
        Its record; None of an estimate, and in a process that is not the main one.
    """
    begin_log()
    check_root(config)
    refuse_mps_elsewhere(config)
    say(start_line(config))
    with ending_at_once():
        check_components(config)
        refuse_other_kind(config)
    run_dir = find_run_dir(config)
    done = None if config.force else find_finished(config)
    if config.estimate:
        estimate(config, run_dir, done)
        return None
    if done:
        say_skipped(config, *done)
        return done[1]
    if is_main_process():
        note_other_devices(config, run_dir)
    if config.force and is_main_process():
        with usable(config, "written", key="runs_dir"):
            set_aside(run_dir, Path(config.runs_dir))
    try:
        return train_in(run_dir, config)
    except KeyboardInterrupt as interrupt:
        raise KeyboardInterrupt(str(interrupt) or where_it_continues(run_dir)) from None
    except Stopped as stopped:
        if is_main_process():
            name, where = signal.Signals(stopped.number).name, stopped.where or where_it_continues(run_dir)
            tell(f"stopped by {name}: {where}", file=sys.stderr)
        raise


def next_lines(run_dir: Path, config: Run) -> Iterator[str]:
    """Where the network lies, and what is usually done with it."""
    from ssat.runs.detection import PREDICTIONS  # here: it imports PyTorch, which a refusal must not wait for

    last = config.mode.phases[-1]
    folder = run_dir / last.name / "checkpoints"
    found = [name for name in ("best.ckpt", "last.ckpt") if (folder / name).is_file()]
    if found:
        yield f"checkpoints: {folder / found[0]}" + "".join(f", {name}" for name in found[1:])
    if (run_dir / last.name / PREDICTIONS).is_file():
        yield f"pictures and predictions: {run_dir / last.name}"
    if last.lam > 0:
        what = "photo.jpg" if config.data.frames is None else "video.mp4"  # no <...>: a shell would read from a file
        yield f"predict: {command_line('predict', [f'run={run_dir}', f'input={what}'])}"
    yield compare_line(config.runs_dir)


def train_in(run_dir: Path, config: Run) -> dict[str, Any] | None:
    """`train` of a run that is not finished."""
    # Heavy imports only for a run that really trains: skipping a sweep's finished runs takes no time.
    with ending_at_once():
        from ssat.core.launch import run_processes
        from ssat.runs.calibration import remark
        from ssat.runs.energy import check_country
        from ssat.runs.machine import check_hardware, slow_precision
        from ssat.runs.record import write_record
        from ssat.training.batch_auto import naming_the_batch
        from ssat.training.build import build_module
        from ssat.training.callbacks.chosen import check_own
        from ssat.training.data import build_data, labelled_images
        from ssat.training.extend import adopt, check_parent
        from ssat.training.inputs import module_inputs
        from ssat.training.phases import run_phases
        from ssat.training.record import failed_record
        from ssat.training.remarks import batches_of
        from ssat.training.steps import refuse_accumulate

    check_hardware(config)
    if slow := slow_precision(config):
        say(f"note: {slow}")
    check_own(config)
    if config.extend:
        check_parent(config, run_dir)
    if config.footprint.energy:
        check_country(config.footprint.country)
    fetch(config)
    prepared = {phase.name: build_data(config, phase) for phase in config.mode.phases}
    for data in prepared.values():
        data.setup()
    check_logger(config.logger)
    for phase in config.mode.phases:  # what cannot be built is refused before anything is written
        refuse_accumulate(config.trainer.accumulate, batches_of(config, prepared[phase.name]))
        build_module(config, phase, data.num_classes, data.class_counts("train"), labelled_images(data))
    if data.skipped:
        say(f"data.on_bad_image=skip: {len(data.skipped)} unreadable images left out, the first: {data.skipped[0]}")
    for line in data.overview().lines():
        say(line)
    inputs = module_inputs(config, data) if is_main_process() else {}  # reads the images and weights once
    with usable(config, "written"):
        run_dir.mkdir(parents=True, exist_ok=True)
        (run_dir / ".lock").touch()  # the folder may be another user's
        TemporaryFile(dir=run_dir).close()  # or read-only since, with its files our own
    # Processes of their own set their data up themselves: copying them there would cost more.
    job = run_phases if config.trainer.devices > 1 else partial(run_phases, prepared=prepared)
    if not is_main_process():
        job(config, run_dir)
        return None
    begin_log(run_dir / LOG)
    say(f"run folder: {run_dir}")
    then = partial(where_it_continues, run_dir)
    with locked(run_dir):
        remove_unfinished(run_dir)
        with disk_space(then):
            begin(config, run_dir, inputs)
        if config.extend:
            with disk_space(then):
                adopt(config, run_dir)
        try:
            with disk_space(then), naming_the_batch(config, prepared.values()):
                run_processes(job, config, run_dir, processes=config.trainer.devices)
        except Exception as error:
            if not isinstance(error, UserError):
                note("".join(traceback.format_exception(error)))
            with suppress(OSError):  # the disk may be full
                write_record(run_dir, failed_record(config, error))
            raise
    record: dict[str, Any] = json.loads((run_dir / "result.json").read_text())
    say(describe(record))
    if text := remark(record["phases"][-1]):
        say(f"note: {text}")
    return record


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="train")
def run(cfg: DictConfig) -> float | None:
    """What Hydra calls with the composed configuration; returns the decisive number, which a search compares."""
    record = None
    with users_mistakes():
        config = resolve(cfg)
        check_typed(config, HydraConfig.get().overrides.task)
        if HydraConfig.get().mode == RunMode.RUN:
            check_sweeper(HydraConfig.get().overrides.hydra)
        config = found_batch(config)
        record = train(config)
        if HydraConfig.get().mode == RunMode.RUN and is_main_process() and not config.estimate:
            found = find_finished(config)  # a run that is skipped may lie in another experiment's folder
            tell(*next_lines(found[0] if found else find_run_dir(config), config))
    return None if record is None else decisive(record)


def main() -> None:
    """The command."""
    with sum_at_end():
        run_command(run, "train")
