"""Starts the processes of one run: every run its own process group, also inside a sweep."""

from __future__ import annotations

import os
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ssat.core.parent import end_with_parent
from ssat.core.ranks import run_ranks
from ssat.core.words import printable


def launched_externally() -> bool:
    """Whether torchrun or srun has already started one process per device.

    SLURM_NTASKS alone says nothing: a batch script has it too, and there the tasks are yet to be started.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ:
        return int(os.environ.get("WORLD_SIZE", "1")) > 1
    return "SLURM_PROCID" in os.environ and int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1


def is_main_process() -> bool:
    """Whether this is rank 0 of its run: the process that prints and writes."""
    if "RANK" in os.environ:
        return int(os.environ["RANK"]) == 0
    return not launched_externally() or int(os.environ["SLURM_PROCID"]) == 0


@contextmanager
def without_slurm() -> Iterator[None]:
    """Hide the variables of a SLURM job in which this run starts its own processes.

    Lightning would take them for ranks that srun started, and answer SLURM's signals with a requeue of its own.
    """
    hidden = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith("SLURM_")}
    if hidden:
        warnings.filterwarnings("ignore", message=".*`srun` command is available.*")
    try:
        yield
    finally:
        os.environ.update(hidden)


def run_processes(job: Callable[..., None], *args: Any, processes: int) -> None:
    """Run `job(*args)` in `processes` fresh processes that form one DDP group; in this one when there is only one.

    The processes are started here and not by Lightning, whose launcher repeats the command line and with it a whole
    Hydra sweep. They end with this process, and with one another. A signal is passed on to them as SIGTERM, so that
    they save before they stop; a second Ctrl-C kills them.

    Raises:
        UserError, OwnCodeError: as raised in a process; a process was killed, and which.
        RankCrashed: a process crashed; with its traceback.
        KeyboardInterrupt: after Ctrl-C, with what a process says of it.
        Stopped: after another signal, with the same.
    """
    if launched_externally():
        if "TORCHELASTIC_RUN_ID" in os.environ:  # SLURM ends its tasks itself
            end_with_parent(os.getppid())
        job(*args)
        return
    if processes == 1:
        _without_slurm(job, *args)
        return
    run_ranks(_without_slurm, (job, *args), processes)


def _without_slurm(job: Callable[..., None], *args: Any) -> None:
    with without_slurm():
        job(*args)


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def say(line: str) -> None:
    """Print `line` in the main process only, and keep it in the log of the run.

    On a terminal a line of fields, which two blanks separate, is broken between fields: not inside `ETA 36 s`.
    """
    if is_main_process():
        is_terminal = sys.stdout.isatty()
        line = printable(line)
        print(broken(line, shutil.get_terminal_size().columns) if is_terminal else line, flush=True)
        _log.keep(line)


def broken(line: str, width: int) -> str:
    """A line of fields as lines of at most `width` characters, the further ones indented; other text as it is."""
    first, *fields = line.split("  ")
    lines = [first]
    for field in fields:
        if len(lines[-1]) + 2 + len(field) <= width:
            lines[-1] += f"  {field}"
        else:
            lines.append(f"  {field}")
    return "\n".join(lines)


def note(text: str) -> None:
    """Keep `text` in the log of the run, without printing it."""
    if is_main_process():
        _log.keep(*text.splitlines())


class _Log:
    """What is said of a run; kept in memory until its folder is known."""

    def __init__(self) -> None:
        self.path: Path | None = None
        self.waiting: list[str] = []

    def keep(self, *lines: str) -> None:
        self.waiting += lines
        if self.path is not None:
            # A full disk stops the run where it writes its record, with a sentence, and not here.
            with suppress(OSError), open(self.path, "a", encoding="utf-8") as file:
                file.writelines(f"{line}\n" for line in self.waiting)
            self.waiting = []


_log = _Log()


def begin_log(path: Path | None = None) -> None:
    """Keep what is said from now on in the file `path`; None: of another run, whose folder is not known yet."""
    if path is None:
        _log.waiting = []
    _log.path = path
    if is_main_process():
        _log.keep()
