"""What the ranks of test_ranks do; nothing heavy is imported, so that they start at once."""

import os
import signal
import sys
import time
from pathlib import Path


class SlowToImport:
    """Takes long to be read in a new process, as the libraries of a training do."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple:
        return _read_slowly, (self.folder,)


def _read_slowly(folder: Path) -> None:
    (folder / f"reading_{os.getpid()}").touch()
    time.sleep(600)


def nothing(*_: object) -> None:
    pass


def say(folder: Path) -> int:
    rank = int(os.environ["RANK"])
    (folder / f"{rank}.pid.part").write_text(str(os.getpid()))
    (folder / f"{rank}.pid.part").rename(folder / f"{rank}.pid")
    return rank


def sleep(folder: Path) -> None:
    say(folder)
    time.sleep(600)


def deaf(folder: Path) -> None:
    """Rank 0 hears no signal, as in an exchange that nobody answers."""
    if int(os.environ["RANK"]) == 0:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
    say(folder)
    time.sleep(600)


def ends(folder: Path, rank: int, how: int) -> None:
    """One rank ends early: by the signal `-how`, or with the exit code `how`; the others wait for it."""
    if say(folder) == rank:
        while len(list(folder.glob("*.pid"))) < 2:
            time.sleep(0.01)
        if how < 0:
            os.kill(os.getpid(), -how)
        sys.exit(how)
    time.sleep(600)
