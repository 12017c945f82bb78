"""A mode is a list of phases; a phase is one fit. Finished phases are skipped, an interrupted one continues."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ssat.config.command_line import disk_space
from ssat.config.identity import check_same_run
from ssat.config.schema import Phase, Run
from ssat.core.allocator import keep_freed_memory
from ssat.core.checkpoints import check_continuable, weights_of
from ssat.core.errors import UserError, cause_of, enough_memory, lacks_deterministic, refused_memory
from ssat.core.interrupts import AGAIN, Stopped
from ssat.core.launch import begin_log, is_main_process, say
from ssat.core.tensors import require_same
from ssat.data.image import ImageDataModule
from ssat.runs.folder import AFRESH, LOG, read_phase, where_it_continues
from ssat.runs.inputs import refuse_changes
from ssat.runs.record import lookup, write_record
from ssat.tracking.loggers import build_loggers, close_loggers
from ssat.training.build import build_module
from ssat.training.callbacks.checkpoints import Checkpoints
from ssat.training.callbacks.chosen import naming_callbacks, stopped_early
from ssat.training.callbacks.history import History
from ssat.training.callbacks.meter import Meter
from ssat.training.callbacks.safety import NonFiniteLoss
from ssat.training.data import AnyData, build_data, labelled_images
from ssat.training.earlier import earlier, newest_sound
from ssat.training.extend import about_extension
from ssat.training.fit import build_callbacks, build_trainer, quiet
from ssat.training.inputs import module_inputs
from ssat.training.loss_scale import skipped_steps
from ssat.training.meters import Meters
from ssat.training.record import finished_record, over_nodes, phase_record
from ssat.training.remarks import remarks
from ssat.training.stop import Stop
from ssat.training.weights import start_from

ROLLBACKS = 3  # of a phase, with on_nan=rollback


def run_phases(config: Run, run_dir: Path, *, prepared: Mapping[str, AnyData] | None = None) -> None:
    """Run every phase that is not finished yet and write `result.json`; called once in each process of a run.

    `prepared`: data modules that are set up already, by phase.

    Raises:
        KeyboardInterrupt: after Ctrl-C; says where the same command continues.
        Stopped: after another signal; says the same.
    """
    stop = Stop()
    try:
        # Here: each process of a run says it itself.
        with stop.listening(), enough_memory("the run"), disk_space(partial(where_it_continues, run_dir)):
            _run_phases(config, run_dir, prepared or {}, stop)
    except Stopped as stopped:
        where = stopped.where or where_it_continues(run_dir)
        if stopped.number == signal.SIGINT:
            raise KeyboardInterrupt(where) from None
        stopped.where = where
        raise


def _run_phases(config: Run, run_dir: Path, prepared: Mapping[str, AnyData], stop: Stop) -> None:
    quiet()
    begin_log(run_dir / LOG)
    keep_freed_memory()
    t = config.trainer
    if t.deterministic:  # cuBLAS reads it when the GPU is used first
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    if t.threads or t.devices > 1:
        torch.set_num_threads(t.threads or max(1, (os.cpu_count() or 1) // t.devices))
    started = datetime.now(timezone.utc).isoformat(timespec="seconds")
    results: list[dict[str, Any]] = []
    for phase in config.mode.phases:
        done = run_dir / phase.name / "phase.json"
        if os.path.lexists(done):
            results.append(read_phase(done, config))
            say(f"{phase.name}: already finished")
            continue
        results.append(run_phase(config, phase, run_dir, stop, prepared.get(phase.name)))
        if is_main_process():
            write_record(run_dir / phase.name, results[-1], name="phase.json")
    if is_main_process():
        write_record(run_dir, finished_record(config, results, started) | {"extended": about_extension(run_dir)})
    close_loggers()  # now, with the record's figures, and before a sweep's next run opens its own


def check_choice(phase: Phase, data: AnyData) -> None:
    """Raises: UserError: the best epoch is to be chosen by a number that the evaluation images do not define."""
    split = data.eval_split
    if phase.lam > 0 and isinstance(data, ImageDataModule) and data.multi_label:
        if not any(data.class_counts(split).values()):
            raise UserError(
                f"the best epoch is that with the highest mAP, and no {split} image has a label: choose other images",
                key="monitor.select",
            )
        return
    if phase.lam > 0 and data.decides == "auroc" and sum(map(bool, data.class_counts(split).values())) < 2:
        raise UserError(
            f"monitor.select=auroc ranks the images of two classes, and all {split} images are of one: choose"
            " monitor.select=acc1, or other images",
            key="monitor.select",
            value="auroc",
        )


def run_phase(config: Run, phase: Phase, run_dir: Path, stop: Stop, data: AnyData | None = None) -> dict[str, Any]:
    """One fit, continued from its last checkpoint if there is one; returns the phase's part of the record.

    With on_nan=rollback as many fits as it takes, each from the last checkpoint, which is finite.
    """
    data = data or build_data(config, phase)
    data.setup()
    rollbacks: list[dict[str, Any]] = []
    while True:
        try:
            return _fit_once(config, phase, run_dir, stop, data, rollbacks)
        except NonFiniteLoss as error:
            if config.on_nan == "stop":
                raise
            if len(rollbacks) >= ROLLBACKS:
                often = f"on_nan=rollback has gone back {ROLLBACKS} times in this phase"
                raise UserError(f"{error.cause}; {often}") from error
            rollbacks.append(error.event)
            where = f"going back to {error.checkpoint}" if error.checkpoint else "beginning anew"
            say(f"{phase.name}: {error.what}: {where}, with another order of the images")


def _good_checkpoint(phase: Phase, last: Path) -> tuple[int, dict[str, Any]] | None:
    """The newest sound checkpoint and how many before `last` it is; None where there is none yet."""
    found = newest_sound(last, lambda content, path: check_continuable(content, path, AFRESH, epochs=phase.epochs))
    if found is None:
        return None
    back, checkpoint, wrong = found
    if wrong:
        goes_on = f"going on from the checkpoint before it, {earlier(last, back).name}"
        say(f"{phase.name}: {cause_of(wrong, AFRESH)}; {goes_on}")
    return back, checkpoint


def _fit_once(
    config: Run, phase: Phase, run_dir: Path, stop: Stop, data: AnyData, rollbacks: list[dict[str, Any]]
) -> dict[str, Any]:
    """`run_phase` up to its end, or to a loss that is not finite; `rollbacks` gets those of the checkpoint."""
    folder = run_dir / phase.name
    module = build_module(config, phase, data.num_classes, data.class_counts("train"), labelled_images(data))
    module.eval_split = data.eval_split
    check_choice(phase, data)
    if phase.lam > 0 and data.decides == "auroc" and isinstance(module.meters, Meters):
        module.meters.rank()
    last = folder / "checkpoints" / "last.ckpt"
    inputs = module_inputs(config, data)  # hashed once, before the training: start weights may be large
    found, back = _good_checkpoint(phase, last), 0
    if found:
        back, checkpoint = found
        file = earlier(last, back)
        check_same_run(config, checkpoint.get("config"), file)
        require_same(module, weights_of(checkpoint, file), f"{file} does not hold the network of this run", AFRESH)
        refuse_changes(inputs, checkpoint.get("inputs") or {}, file, AFRESH)
        known = lookup(checkpoint, "callbacks.FiniteGuard.rollbacks")
        if isinstance(known, list) and len(known) > len(rollbacks):
            rollbacks[:] = known
        data.drop_last = checkpoint.get("drop_last", True)  # before it was written, every training dropped them
        say(f"{phase.name}: continuing at step {checkpoint['global_step']} (epoch {checkpoint['epoch'] + 1})")
    else:
        start_from(phase, module, run_dir, config)
    if rollbacks:
        rollbacks[-1].setdefault("back_to", checkpoint["global_step"] if found else 0)
    data.reshuffled = len(rollbacks)
    footprint = config.footprint
    history, meter = History(), Meter(footprint.country if footprint.energy else None)
    loggers = build_loggers(config, phase, folder)
    callbacks = build_callbacks(
        config, phase, folder, data, module, history, meter, inputs, stop, back=back, rollbacks=rollbacks
    )
    checkpoints = next(each for each in callbacks if isinstance(each, Checkpoints))
    trainer = build_trainer(config, phase, folder, loggers, callbacks, data)
    for remark in remarks(config, phase, data):
        say(f"{phase.name}: {remark}")
    try:
        with naming_callbacks(config, callbacks, lambda: f"correct it; then {where_it_continues(run_dir)}"):
            trainer.fit(module, datamodule=data, ckpt_path=earlier(last, back) if found else None, weights_only=True)
        if stopped := stopped_early(trainer, phase.epochs):
            say(f"{phase.name}: stopped after epoch {stopped['epoch'] + 1} of {phase.epochs}: {stopped['reason']}")
        totals = over_nodes(meter.totals)
        if not any(name.startswith(f"{data.eval_split}/") for name in history.rows[-1]):
            history.rows[-1] |= trainer.validate(module, datamodule=data, verbose=False)[0]
            checkpoints.keep_best(trainer)
        if config.checkpoint_keep is None and trainer.is_global_zero:
            checkpoints.forget_earlier()
        record = phase_record(config, phase, run_dir, trainer, module, data, inputs, history.rows, totals)
        return record | {"rollbacks": rollbacks, "skipped_steps": skipped_steps(trainer)}
    except Stopped as stopped:
        place = checkpoints.place or ("the last checkpoint" if last.exists() else "the beginning")
        nothing_kept = where_it_continues(run_dir) == AGAIN
        stopped.where = AGAIN if nothing_kept else f"the same command continues from {place} of phase {phase.name}"
        raise
    except (RuntimeError, LookupError, TypeError, ValueError, AttributeError) as error:
        if operation := lacks_deterministic(error):
            elsewhere = "" if trainer.strategy.root_device.type == "cpu" else ", or use trainer=cpu"
            raise UserError(
                f"trainer.deterministic=true: PyTorch has no deterministic {operation} here: set it to"
                f" false{elsewhere}",
                key="trainer.deterministic",
                value=True,
            ) from error
        if isinstance(error, UserError) or history.began or not last.exists() or refused_memory(error) is not None:
            raise
        reason = f"{type(error).__name__}: {str(error).strip().splitlines()[0]:.120}" if str(error) else repr(error)
        raise UserError(f"the training cannot go on from {last} ({reason}): if it is damaged, {AFRESH}") from error
