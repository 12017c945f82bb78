"""A run's folder in one command's hand, and what earlier commands have left of runs that are not finished."""

from __future__ import annotations

import fcntl
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path

from ssat.config.identity import BATCH_FACTORS, continued, differences
from ssat.config.resolve import build
from ssat.config.schema import Run
from ssat.config.trust import trusted
from ssat.core.errors import UserError
from ssat.core.files import UNFINISHED
from ssat.core.launch import say
from ssat.runs.folder import AFRESH, read_config, same_named


@contextmanager
def locked(run_dir: Path) -> Iterator[None]:
    """Hold the run's folder; the lock goes with the process, however it ends.

    Raises:
        UserError: another process is training in it, or its lock is no file.
    """
    path = run_dir / ".lock"
    if path.exists() and not path.is_file():
        raise UserError(f"{path} is no file, and it must be the lock of the run: move it away")
    with open(path, "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UserError(f"another process is training in {run_dir}: wait for it, or change seed or name") from error
        yield


OF_EARLIER_VERSIONS = re.compile(r"\..+\.json\.[0-9a-f]+")


def remove_unfinished(run_dir: Path) -> None:
    """Remove the files that killed processes were writing in a folder that this one holds (`locked`)."""
    for path in [*run_dir.rglob(".*")]:
        if (UNFINISHED.fullmatch(path.name) or OF_EARLIER_VERSIONS.fullmatch(path.name)) and path.is_file():
            path.unlink(missing_ok=True)


def note_other_devices(config: Run, run_dir: Path) -> None:
    """Say where a run that differs in its devices alone was begun and is not finished: this one begins anew."""
    if config.run_dir or config.force or (run_dir / "config.yaml").exists():
        return
    for folder in same_named(config, escape(config.experiment) if config.experiment else "[0-9]*-[0-9]*-[0-9]*"):
        if (folder / "result.json").exists() or not [*folder.glob("*/checkpoints/last.ckpt")]:
            continue
        with suppress(UserError, ValueError):
            begun = trusted(build(read_config(folder / "config.yaml", AFRESH)), like=config)
            changed = {text.partition(":")[0] for text in differences(config, begun)}
            if changed and changed <= {*BATCH_FACTORS}:
                say(f"note: {folder} is not finished: {continued(config, begun)}")
