"""Train one run, or a sweep of runs with -m: python -m src.train encoder=vit_t data=flowers mode=ssat"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

import hydra
from omegaconf import DictConfig, OmegaConf

from src.cli import CONF, disk_space, run_command, users_mistakes
from src.config import Config, check, check_same_run, resolve
from src.errors import UserError
from src.estimate import estimate, sum_at_end
from src.launch import is_main_process
from src.run_folder import AFRESH, describe, find_finished, find_run_dir, read_config, usable


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
        UserError: the folder holds an unfinished run of another one, or a damaged one.
    """
    path = run_dir / "config.yaml"
    if path.exists():
        check_same_run(config, read_config(path, AFRESH), run_dir)
    partial = run_dir / ".config.yaml.partial"
    OmegaConf.save(OmegaConf.create(config), partial)
    partial.replace(path)


def train(config: Config) -> None:
    """One run from start to result.json: skipped when finished, continued when interrupted."""
    check(config)
    run_dir = find_run_dir(config)
    done = None if config["force"] else find_finished(config)
    if config["estimate"]:
        estimate(config, run_dir, done)
        return
    if done:
        print(f"skipped, already finished in {done[0]}: {describe(done[1])} (force=true trains again)")
        return
    if config["force"] and is_main_process():
        with usable(config, "written", key="runs_dir"):
            set_aside(run_dir, Path(config["runs_dir"]))
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
    with usable(config, "written"):
        run_dir.mkdir(parents=True, exist_ok=True)
        (run_dir / ".lock").touch()  # the folder may be another user's
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
    with sum_at_end():
        run_command(run, "train")
