"""Opening a W&B run: online when the service answers in time, else offline, with one line on stderr."""

from __future__ import annotations

import os
import re
import secrets
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from ssat.config.schema import Phase, Run
from ssat.core.files import write_text
from ssat.core.launch import is_main_process
from ssat.core.terminal import tell
from ssat.runs.machine import git_commit
from ssat.tracking.names import RESULT_TAG, columns
from ssat.tracking.service import end_service

ID_FILE = "wandb_id"  # in a phase's folder
CSV_HAS_ALL = "the CSV file has every value"
_warned: set[Path] = set()  # run folders whose one line has been printed


def warn(run_dir: Path, problem: str, cure: str) -> None:
    """Print one line per run folder: a second problem has the same cure."""
    if run_dir not in _warned:
        _warned.add(run_dir)
        tell(f"logger=wandb: {' '.join(problem.split())[:200].rstrip('.')}; training goes on; {cure}", file=sys.stderr)


class MessageFilter:
    """Takes what W&B would print, and keeps in `lost` what says that data was not uploaded."""

    def __init__(self, lost: list[str]) -> None:
        self._lost = lost

    def info(self, msg: str) -> None:
        """Drop `msg`."""

    def warning(self, msg: str) -> None:
        """Keep `msg` if it is about lost data."""
        if "not be synced" in msg or "imed out" in msg:
            self._lost.append(msg.removeprefix("wandb: ").removeprefix("WARNING "))

    error = warning


def run_id(folder: Path, config_hash: str) -> str:
    """The W&B id of the training in `folder`, a phase's: made once and kept there, so that a continued run goes on with
    its curve, and one that is repeated in another folder (`force=true`, another experiment) has its own.

    A training that an earlier version began, whose id was made of the configuration alone, keeps that.
    """
    path, before = folder / ID_FILE, f"{config_hash}-{folder.name}"
    with suppress(OSError, ValueError):
        known = path.read_text().strip()
        if re.fullmatch(r"[\w-]+", known, re.ASCII):
            return known
    began_before = any((folder.parent / "wandb").glob(f"*run-*-{before}"))
    made = before if began_before else f"{config_hash}-{secrets.token_hex(4)}-{folder.name}"
    if is_main_process():
        try:
            write_text(path, made + "\n")
        except OSError as error:
            warn(folder.parent, f"the id of the W&B run cannot be kept ({error})", "a continued run gets its own curve")
    return made


def open_run(config: Run, phase: Phase, run_dir: Path, run_id: str, lost: list[str]) -> Any:
    """A W&B run: online, else offline, else one that records nothing, as that of every process but rank 0.

    What W&B says of data that it does not upload is added to `lost`.
    """
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # W&B's own telemetry
    wanted = os.environ.get("WANDB_MODE", "online") if is_main_process() else "disabled"
    arguments = run_arguments(config, phase, run_dir) | {"id": run_id}
    problem, run = "", None
    for mode in (wanted, "offline", "disabled"):
        try:
            run = _start(mode, config, arguments, lost)
            break
        except Exception as error:
            end_service()  # it may have died with an earlier run of this process
            problem = problem or f"W&B cannot be reached or refuses the key ({error})"
    if problem:
        recorded = mode == "offline"
        cure = f"recording offline, upload with: wandb sync {run_dir / 'wandb'}" if recorded else CSV_HAS_ALL
        warn(run_dir, problem, cure)
    return run


def _start(mode: str, config: Run, arguments: dict[str, Any], lost: list[str]) -> Any:
    import wandb

    settings = wandb.Settings(
        mode=mode,  # type: ignore[arg-type]
        silent=True,
        init_timeout=config.logger.init_timeout,
        finish_timeout=config.logger.finish_timeout,
        finish_timeout_raises=True,
        allow_val_change=True,  # a resumed run may have other threads or workers
    )
    wandb.setup(settings)
    wandb.termsetup(settings, MessageFilter(lost))
    if mode == "online" and not wandb.login(prompt=False, verify=False):
        raise LookupError("no W&B key found: wandb login")
    run = wandb.init(**arguments, resume="allow", settings=settings)
    if mode == "online":
        tell(f"W&B: {run.url}")
    return run


def run_arguments(config: Run, phase: Phase, run_dir: Path) -> dict[str, Any]:
    """Name, group, tags, notes and configuration of the W&B run, as `wandb.init` takes them."""
    logger, known = config.logger, columns(config, phase)
    has_result = phase.name == config.mode.phases[-1].name
    tags = [config.encoder.name, config.data.name, config.mode.name, known["ssl_name"], *logger.tags]
    notes = (
        f"{phase.name} of {config.mode.name}: {config.encoder.name} on {config.data.name}, "
        f"{phase.epochs} epochs, lambda {phase.lam}, seed {config.seed}"
    )
    return {
        "project": logger.project,
        "entity": logger.entity,
        "name": f"{config.name}-{phase.name}",
        "group": config.experiment or "runs",
        "job_type": phase.name,
        "tags": list(dict.fromkeys(tag[:64] for tag in [*tags, *[RESULT_TAG] * has_result] if tag)),
        "notes": logger.notes or notes,
        "config": dict(config.values) | known | {"run_folder": run_dir.name, "git_commit": git_commit()},
        "dir": str(run_dir),
    }
