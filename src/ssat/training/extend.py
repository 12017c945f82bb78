"""A run that extends another one: its folder begins with what the other one has computed, which stays as it is.

The other run is the one of the same command without `extend`. Weights, optimizer, averages, history and seconds of its
last checkpoint are taken over; then the learning rate is that of the longer schedule (`Optimization.warmup_of`).
"""

from __future__ import annotations

import os
import shutil
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason

from ssat.config.identity import check_same_run, config_hash
from ssat.config.resolve import build
from ssat.config.schema import Run
from ssat.core.checkpoints import check_continuable, load_checkpoint, write_checkpoint
from ssat.core.errors import UserError, cause_of
from ssat.core.launch import launched_externally, say
from ssat.runs.folder import AFRESH, find_finished, find_run_dir, read_phase, read_record
from ssat.runs.record import as_number, lookup, write_record
from ssat.training.record import lacoste_of

FILE = "extended.json"  # in the folder of a run that extends another
CURE = "train the run before, with the same command without extend"
OWN = ("phase.json", "wandb_id", "trackio_id", "mlflow_id")  # of a phase's folder: the other run's alone
RUNNING = {"wait_count": 0, "stopped_epoch": 0, "stopping_reason_message": None} | {
    "stopping_reason": EarlyStoppingReason.NOT_STOPPED.value
}


def find_parent(config: Run) -> tuple[Run, Path]:
    """The run that `config` extends, and its folder.

    Raises:
        UserError: it has not begun, or not come to its last phase.
    """
    parent = build(dict(config.values) | {"extend": None})
    done = find_finished(parent)
    folder, phase = done[0] if done else find_run_dir(parent), parent.mode.phases[-1]
    if not (folder / phase.name / "checkpoints" / "last.ckpt").is_file():
        what = f"has no checkpoint of phase {phase.name}" if folder.is_dir() else "does not exist"
        raise UserError(
            f"extend={config.extend} goes on from a run, and {folder} {what}: {CURE}, or set epochs={config.extend}",
            key="extend",
            value=config.extend,
        )
    return parent, folder


def check_parent(config: Run, run_dir: Path) -> None:
    """Refuse to extend what cannot be extended, before anything is written.

    Raises:
        UserError: there is no run before it, or its checkpoint or an earlier phase's record is damaged.
    """
    parent, folder = find_parent(config)
    if not os.path.lexists(run_dir / config.mode.phases[-1].name):  # else it has been taken over
        _readable(parent, folder, config.mode.phases[-1].epochs)


def _readable(parent: Run, folder: Path, epochs: int) -> dict[str, Any]:
    """The last checkpoint of the run before."""
    path = folder / parent.mode.phases[-1].name / "checkpoints" / "last.ckpt"
    try:
        checkpoint = load_checkpoint(path)
        check_continuable(checkpoint, path, CURE, epochs=parent.mode.phases[-1].epochs)
        check_same_run(parent, checkpoint.get("config"), folder)
    except UserError as error:
        reason = cause_of(error, CURE)
        afresh = "train that run again (the same command without extend, with force=true), or set epochs"
        raise UserError(f"extend: {reason}; {afresh}={epochs}", key="extend") from error
    for phase in parent.mode.phases[:-1]:
        read_phase(folder / phase.name / "phase.json", parent)
    return checkpoint


def adopt(config: Run, run_dir: Path) -> None:
    """Copy what the run before has computed into `run_dir`, each phase whole or not at all, once.

    Raises:
        UserError: there is no such run, or its checkpoint is damaged.
    """
    last = config.mode.phases[-1]
    if os.path.lexists(run_dir / last.name):
        return
    if launched_externally():
        raise UserError(
            "extend copies a run before its processes start: use trainer.devices in place of torchrun or srun"
        )
    parent, folder = find_parent(config)
    checkpoint = _readable(parent, folder, last.epochs)
    for phase in parent.mode.phases[:-1]:
        if not os.path.lexists(run_dir / phase.name):
            record = read_phase(folder / phase.name / "phase.json", parent)
            partial = _copy(folder / phase.name, run_dir)
            write_record(partial, record | {"hash": config_hash(config)}, name="phase.json")
            partial.rename(run_dir / phase.name)
    at = {"epoch": checkpoint["epoch"] + 1, "step": checkpoint["global_step"]}
    about = {
        "from": parent.mode.phases[-1].epochs,
        "to": last.epochs,
        "at": at,
        "run": str(folder),
        "hash": config_hash(parent),
        "inherited": _inherited(config, parent, folder, checkpoint),
        "finished": (folder / "result.json").is_file(),
        "when": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }
    write_record(run_dir, about, name=FILE)
    partial = _copy(folder / last.name, run_dir)
    for path in sorted((partial / "checkpoints").glob("*.ckpt")):
        _restamp(path, config)
    partial.rename(run_dir / last.name)
    say(
        f"{last.name}: extends {folder} from {about['from']} to {last.epochs} epochs, at step {at['step']} (epoch"
        f" {at['epoch']}); the learning rate is that of {last.epochs} epochs from here on, without another warm-up"
    )


def _inherited(config: Run, parent: Run, folder: Path, checkpoint: dict[str, Any]) -> dict[str, float | None]:
    """Seconds, energy and CO2 that the run before has spent: its earlier phases, and the last one to `checkpoint`.

    They are in the totals of this run too, as its weights have cost them; None where a part is not known.
    """
    meter = lookup(checkpoint, "callbacks.Meter") or {}
    seconds = as_number(meter.get("seconds"))
    energy = {key: as_number(meter.get(key)) if meter.get("source") else None for key in ("kwh", "co2_kg")}
    energy["co2_kg_lacoste"] = None if seconds is None else lacoste_of(config, seconds)
    earlier = [read_phase(folder / phase.name / "phase.json", parent) for phase in parent.mode.phases[:-1]]
    parts = {"seconds": [seconds, *(phase["seconds"] for phase in earlier)]}
    parts |= {key: [value, *(phase["energy"][key] for phase in earlier)] for key, value in energy.items()}
    return {key: None if None in values else sum(values) for key, values in parts.items()}


def _copy(source: Path, run_dir: Path) -> Path:
    """A copy of a phase's folder beside its place, without the files that are the other run's alone."""
    partial = run_dir / f".{source.name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    return Path(shutil.copytree(source, partial, ignore=shutil.ignore_patterns(*OWN, ".*")))


def _restamp(path: Path, config: Run) -> None:
    """Make the checkpoint of the other run one of `config`; early stopping waits anew."""
    checkpoint = load_checkpoint(path)
    values = dict(config.values)
    checkpoint["config"] = values
    if "run" in checkpoint.get("hyper_parameters", {}):
        checkpoint["hyper_parameters"]["run"] = values
    for name, state in checkpoint.get("callbacks", {}).items():
        if name.startswith("EarlyStopping"):
            checkpoint["callbacks"][name] = state | RUNNING
    write_checkpoint(checkpoint, path)


def about_extension(run_dir: Path) -> dict[str, Any] | None:
    """What the record says of the run that this one extends; None where it extends none."""
    path = run_dir / FILE
    return read_record(path, AFRESH) if path.is_file() else None
