"""Starting a W&B run: online when the service answers in time, else offline, and what is said about it."""

from __future__ import annotations

import csv
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from src.config import Config
from src.provenance import git_commit
from src.results.wandb_names import RESULT_TAG, facts

_warned: set[Path] = set()  # run folders whose one warning has been printed


def warn(run_dir: Path, why: str, cure: str) -> None:
    """One line per run folder: a second failure has the same cure."""
    if run_dir not in _warned:
        _warned.add(run_dir)
        print(f"logger=wandb: {' '.join(why.split())[:200].rstrip('.')}; training goes on; {cure}", file=sys.stderr)


class Ears:
    """Takes what W&B would print; the messages about data that was not uploaded become our one warning."""

    def __init__(self, on_loss: Callable[[str], None]) -> None:
        self._on_loss = on_loss

    def info(self, msg: str) -> None:
        pass

    def warning(self, msg: str) -> None:
        if "sync" in msg or "imed out" in msg:
            self._on_loss(msg.removeprefix("wandb: ").removeprefix("WARNING "))

    error = warning


def start_run(config: Config, phase: Config, run_dir: Path, run_id: str, on_loss: Callable[[str], None]) -> Any:
    """A W&B run, online if the service can be reached within `logger.init_timeout`, else offline.

    W&B's own process may have died with an earlier run of this process: then a new one is started, once.
    """
    try:
        return _start(config, phase, run_dir, run_id, on_loss)
    except Exception:
        forget_service()
        return _start(config, phase, run_dir, run_id, on_loss)


def _start(config: Config, phase: Config, run_dir: Path, run_id: str, on_loss: Callable[[str], None]) -> Any:
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # W&B's own telemetry
    import wandb

    settings = quiet_settings(config)
    wandb.setup(settings)
    wandb.termsetup(settings, Ears(on_loss))
    why = why_offline(wandb, config)
    wanted = os.environ.get("WANDB_MODE", "online")
    if not why and wanted not in ("offline", "dryrun"):
        try:
            run = wandb.init(**describe(config, phase, run_dir, run_id), resume="allow", settings=settings)
            if run.settings.run_url:
                print(f"W&B: {run.settings.run_url}", flush=True)
            return run
        except Exception as error:
            why = f"W&B cannot be reached ({error})"
    set_aside(run_dir / "wandb", run_id)
    run = wandb.init(**describe(config, phase, run_dir, run_id), mode="offline", settings=settings)
    if why:
        warn(run_dir, why, f"recording offline, upload with: wandb sync {run_dir / 'wandb'}")
    return run


def quiet_settings(config: Config) -> Any:
    import wandb

    limits = config["logger"]
    return wandb.Settings(
        silent=True,
        init_timeout=limits["init_timeout"],
        finish_timeout=limits["finish_timeout"],
        finish_timeout_raises=True,
        allow_val_change=True,  # a resumed run may have other threads or workers
        x_disable_viewer=True,
    )


def why_offline(wandb: Any, config: Config) -> str:
    """Why the service will not take our data; empty when it will, or when nobody wants it to."""
    if os.environ.get("WANDB_MODE", "online") in ("offline", "dryrun", "disabled"):
        return ""
    os.environ.setdefault("WANDB_HTTP_TIMEOUT", str(config["logger"]["init_timeout"]))
    try:
        known = wandb.login(prompt=False, verify=True)
    except Exception as error:
        return f"W&B refuses the key or cannot be reached ({error})"
    return "" if known else "no W&B key found (wandb login)"


def describe(config: Config, phase: Config, run_dir: Path, run_id: str) -> dict[str, Any]:
    """Name, group, tags, notes and configuration of the W&B run."""
    logger = config["logger"]
    last = phase["name"] == config["mode"]["phases"][-1]["name"]
    known = facts(config, phase)
    tags = [known["encoder_name"], known["data_name"], known["mode_name"], known["ssl_name"]]
    notes = (
        f"{phase['name']} of {known['mode_name']}: {known['encoder_name']} on {known['data_name']}, "
        f"{phase['epochs']} epochs, lambda {phase['lam']}, seed {config['seed']}"
    )
    return {
        "project": logger["project"],
        "entity": logger["entity"],
        "name": f"{config['name']}-{phase['name']}",
        "id": run_id,
        "group": str(config["experiment"] or "runs"),
        "job_type": phase["name"],
        "tags": list(dict.fromkeys(str(tag)[:64] for tag in [*tags, *logger["tags"], *[RESULT_TAG] * last] if tag)),
        "notes": logger["notes"] or notes,
        "config": config | known | {"run_folder": run_dir.name, "git_commit": git_commit()},
        "dir": str(run_dir),
    }


def set_aside(folder: Path, run_id: str) -> None:
    """Move earlier recordings of this run out of the way of `wandb sync`; the new one repeats what they hold."""
    for old in [*folder.glob(f"offline-run-*-{run_id}"), *folder.glob(f"run-*-{run_id}")]:
        (folder / "superseded").mkdir(exist_ok=True)
        shutil.move(str(old), str(folder / "superseded" / old.name))


def kill_service() -> None:
    """End W&B's own process, a child of this one, which hangs and would hold up our exit."""
    for child in psutil.Process().children():
        with suppress(psutil.Error):
            if child.name().startswith("wandb-core"):
                child.kill()


def forget_service() -> None:
    """Let go of W&B's process, dead or alive, so that the next run starts another."""
    import wandb

    kill_service()
    with suppress(Exception):  # it says farewell to a process that is not there
        wandb.teardown()
    os.environ.pop("WANDB_SERVICE", None)


def earlier_points(folder: Path, *, before: int) -> Iterator[dict[str, float]]:
    """Rows of the CSV files below `folder`, each with its `step`, up to the step `before` at which a run continues.

    Every continuation writes a file of its own and repeats the steps after its checkpoint: the later file counts.
    """
    files = sorted(
        folder.glob("version_*/metrics.csv"), key=lambda path: int(path.parent.name.removeprefix("version_"))
    )
    read = [list(rows_of(path)) for path in files]
    for index, rows in enumerate(read):
        limit = min([before, *[later[0]["step"] for later in read[index + 1 :] if later]])
        yield from (row for row in rows if row["step"] < limit)


def rows_of(path: Path) -> Iterator[dict[str, float]]:
    """The rows of one metrics.csv without their empty cells; a row that was cut off is left out."""
    with suppress(OSError), open(path, newline="") as file:
        for row in csv.DictReader(file):
            with suppress(ValueError, TypeError):
                values = {name: float(value) for name, value in row.items() if value}
                if "step" in values:
                    yield values | ({"epoch": int(values["epoch"])} if "epoch" in values else {})
