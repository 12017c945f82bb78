"""What is seen of runs that go on at the same time: on a terminal a live line each, elsewhere a line now and then."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from ssat.core.standing import read_standing
from ssat.core.terminal import Console, tell

LINE_EVERY = 30.0  # seconds between two lines of a run when the output is no terminal
BAR = 10  # characters


@dataclass(frozen=True)
class Running:
    """A run that has been started: its name, and the file in which it says how far it is."""

    name: str
    standing: Path


class Board:
    """Shows the runs that go on, whenever it is asked to.

    Args:
        console: to print on; by default stdout.
        clock: seconds.
    """

    def __init__(self, console: Console | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._console, self._clock = console or Console(), clock
        self._is_live = self._console.is_terminal and not self._console.is_dumb_terminal
        self._live: Live | None = None
        self._said: dict[Path | str, float] = {}  # when a run's last line was printed, or the note

    def show(self, running: Sequence[Running], note: str = "") -> None:
        """Draw the lines of the runs and the note anew, or print those that are due."""
        if not self._is_live:
            self._print(running, note)
            return
        if self._live is None:
            self._live = Live(console=self._console, auto_refresh=False, transient=True)
            self._live.start()
        self._live.update(Group(table(running), *([note] if note else [])), refresh=True)

    def clear(self) -> None:
        """Take the lines off the terminal, so that others can be printed."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _print(self, running: Sequence[Running], note: str) -> None:
        now = self._clock()
        if note and note not in self._said:
            self._said[note] = now
            tell(note)
        for run in running:
            standing, begins = read_standing(run.standing), run.standing not in self._said
            if begins or (standing is not None and now - self._said[run.standing] >= LINE_EVERY):
                self._said[run.standing] = now
                tell(f"started: {run.name}" if begins else f"{run.name}: {standing}")


def table(running: Sequence[Running]) -> Table:
    """A line for each run: name, bar, phase and epoch, last accuracy, time left."""
    grid = Table.grid(padding=(0, 1), expand=True)
    grid.add_column(no_wrap=True, overflow="ellipsis", ratio=1)  # the name gives way: its end is a hash
    for _ in range(4):
        grid.add_column(no_wrap=True)
    for run in running:
        standing = read_standing(run.standing)
        bar = ProgressBar(total=1.0, completed=standing.share if standing else 0.0, width=BAR, complete_style="cyan")
        words = (standing.place, standing.measured, standing.remaining) if standing else ("starting", "", "")
        grid.add_row(run.name, bar, *words)
    return grid
