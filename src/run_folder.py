"""Where a run lies, and whether it is already finished there or in the folder of another experiment."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

from src.config import Config, config_hash
from src.errors import UserError


def run_name(config: Config) -> str:
    """The name of the run's folder: <name>-<hash of what it computes>."""
    return f"{config['name']}-{config_hash(config)}"


def find_run_dir(config: Config) -> Path:
    """The folder of this very run: `run_dir` if given, else runs_dir/<experiment or date>/<name>-<hash>.

    Without an experiment the folder's date is that of the first start, so that the command finds it on any later day.
    """
    if config["run_dir"]:
        return Path(config["run_dir"])
    runs, leaf = Path(config["runs_dir"]), run_name(config)
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


def find_finished(config: Config) -> tuple[Path, dict] | None:
    """Folder and record of this very run where it is finished: in its own folder, else in another experiment's.

    A `run_dir` of the user's is looked at alone.

    Raises:
        UserError: its own folder holds a finished run of another configuration, or a damaged record.
    """
    own = find_run_dir(config)
    record = finished(own, config)
    if record:
        return own, record
    if config["run_dir"]:
        return None
    for path in sorted(Path(config["runs_dir"]).glob(f"[!.]*/{run_name(config)}/result.json")):
        try:
            record = finished(path.parent, config)
        except UserError:
            continue  # another experiment's damaged record is not this run's matter
        if record:
            return path.parent, record
    return None


def describe(record: dict) -> str:
    """One line: name, accuracies and seconds of a finished run."""
    split = "test" if "test" in record["metrics"] else "val"
    accuracy = record["metrics"][split].get("acc1", {})
    values = f"{split}/acc1 last {accuracy['last']:.2f} %, best {accuracy['best']:.2f} %" if "best" in accuracy else ""
    if not accuracy:
        values = ", ".join(
            f"{split}/{name} last {value['last']:.4g}" for name, value in record["metrics"][split].items()
        )
    return f"{record['name']}: {values} in {record['seconds']:.0f} s"
