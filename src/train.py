"""Train one run, or a sweep of runs with -m: python -m src.train encoder=vit_t data=flowers mode=ssat"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig, OmegaConf

from src.cli import CONF, disk_space, run_command, users_mistakes
from src.config import Config, check, check_same_run, config_hash, resolve
from src.errors import UserError
from src.launch import is_main_process


def find_run_dir(config: Config) -> Path:
    """The folder of this very run: `run_dir` if given, else runs_dir/<experiment or date>/<name>-<hash>.

    Without an experiment the folder's date is that of the first start, so that the command finds it on any later day.
    """
    if config["run_dir"]:
        return Path(config["run_dir"])
    runs, leaf = Path(config["runs_dir"]), f"{config['name']}-{config_hash(config)}"
    if config["experiment"]:
        return runs / str(config["experiment"]) / leaf
    known = sorted(path for path in runs.glob(f"[0-9]*-[0-9]*-[0-9]*/{leaf}") if path.is_dir())
    return known[0] if known else runs / datetime.now().strftime("%Y-%m-%d") / leaf


def finished(run_dir: Path, config: Config) -> dict | None:
    """The record of a finished run of this configuration in `run_dir`, or None.

    Raises:
        UserError: the folder holds a finished run of another configuration.
    """
    path = run_dir / "result.json"
    try:
        record = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is damaged: move it away, or force=true to start afresh") from error
    if record.get("status") != "finished":
        return None
    if record.get("hash") != config_hash(config):
        raise UserError(f"{run_dir} holds a finished run of another configuration: use another run_dir, or force=true")
    return record


def set_aside(run_dir: Path, runs_dir: Path) -> None:
    """Move an old run out of the way; nothing is deleted."""
    if not run_dir.exists():
        return
    target = runs_dir / ".replaced" / f"{run_dir.name}-{datetime.now():%Y%m%d-%H%M%S}"
    target.parent.mkdir(parents=True, exist_ok=True)
    run_dir.rename(target)
    print(f"force=true: the old run is now {target}")


@contextmanager
def locked(run_dir: Path) -> Iterator[None]:
    """Hold the run's folder; the lock goes with the process, however it ends.

    Raises:
        UserError: another process is training in it.
    """
    with open(run_dir / ".lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UserError(f"another process is training in {run_dir}: wait for it, or change seed or name") from error
        yield


def begin(config: Config, run_dir: Path) -> None:
    """Write the run's configuration.

    Raises:
        UserError: the folder holds an unfinished run of another one.
    """
    path = run_dir / "config.yaml"
    if path.exists():
        theirs: Any = OmegaConf.to_container(OmegaConf.load(path))
        check_same_run(config, theirs, run_dir)
    partial = run_dir / ".config.yaml.partial"
    OmegaConf.save(OmegaConf.create(config), partial)
    partial.replace(path)


def describe(record: dict) -> str:
    split = "test" if "test" in record["metrics"] else "val"
    accuracy = record["metrics"][split].get("acc1", {})
    values = f"{split}/acc1 last {accuracy['last']:.2f} %, best {accuracy['best']:.2f} %" if "best" in accuracy else ""
    if not accuracy:
        values = ", ".join(
            f"{split}/{name} last {value['last']:.4g}" for name, value in record["metrics"][split].items()
        )
    return f"{record['name']}: {values} in {record['seconds']:.0f} s"


def train(config: Config) -> None:
    """One run from start to result.json: skipped when finished, continued when interrupted."""
    check(config)
    run_dir = find_run_dir(config)
    if config["force"] and is_main_process():
        set_aside(run_dir, Path(config["runs_dir"]))
    record = finished(run_dir, config)
    if record:
        print(f"skipped, already finished: {describe(record)} ({run_dir}; force=true trains again)")
        return
    # Heavy imports only for a run that really trains: skipping a sweep's finished runs takes no time.
    from src.build import build_data, check_hardware
    from src.energy import check_country
    from src.launch import launched_externally, run_processes
    from src.phases import failed_record, run_phases
    from src.prepare import fetch_missing
    from src.results.record import write_record

    check_hardware(config)
    if config["footprint"]["energy"]:
        check_country(config["footprint"]["country"])
    if config["data"]["download"] and not launched_externally():
        fetch_missing(config["data"]["name"], Path(config["data"].get("root") or "."))
    for phase in config["mode"]["phases"]:
        data = build_data(config, phase)
        data.setup()
    if data.skipped:
        print(f"data.on_bad_image=skip: {len(data.skipped)} unreadable images left out, the first: {data.skipped[0]}")
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write to {run_dir}: {error.strerror}; set runs_dir to a folder of yours") from error
    if not is_main_process():
        run_phases(config, run_dir)
        return
    print(f"run folder: {run_dir}")
    with locked(run_dir):
        begin(config, run_dir)
        try:
            with disk_space():
                run_processes(run_phases, config, run_dir, processes=config["trainer"]["devices"])
        except Exception as error:
            with suppress(OSError):  # the disk may be full
                write_record(run_dir, failed_record(config, error))
            raise
    print(describe(json.loads((run_dir / "result.json").read_text())))


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="train")
def run(cfg: DictConfig) -> None:
    with users_mistakes():
        train(resolve(cfg))


if __name__ == "__main__":
    run_command(run, "train")
