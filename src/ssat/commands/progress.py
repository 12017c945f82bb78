"""How far a command is that works through files: a bar in a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from ssat.core.terminal import Console, tell
from ssat.core.words import duration

LINE_EVERY = 10.0  # seconds between two lines of progress when the output is no terminal
Tell = Callable[..., None]  # see `progress`


class Pace:
    """How fast results come, measured from the first one on: before it, processes start and load their networks.

    Args:
        at_once: results that are made at the same time; the rate is known after so many further ones, because those of
            several processes come in bursts.
        clock: seconds.
    """

    def __init__(self, at_once: int = 1, clock: Callable[[], float] = time.monotonic) -> None:
        self._at_once, self._clock = max(at_once, 1), clock
        self._first: tuple[float, int] | None = None

    def rate(self, done: int) -> float | None:
        """Results per second when `done` are made; None before there is a rate."""
        if not done:
            return None
        now = self._clock()
        if self._first is None:
            self._first = now, done
        begin, before = self._first
        return (done - before) / (now - begin) if done - before >= self._at_once and now > begin else None

    def said(self, done: int, left: int, noun: str) -> str:
        """'0.31 videos/s, 2m05s left' for `left` further results; '' before there is a rate."""
        rate = self.rate(done)
        return "" if rate is None else f"{rate:.2g} {noun}/s, {duration(left / rate)} left"


@contextmanager
def progress(console: Console, verbs: tuple[str, str], noun: str, *, at_once: int = 1) -> Iterator[Tell]:
    """Shows how far the work is.

    Args:
        console: to print on.
        verbs: what is being done and what has been done: `("preparing", "prepared")`.
        noun: of the results, in the plural.
        at_once: see `Pace`.

    Yields:
        A function of `done` (results of this command), `total` and `kept` (those of earlier ones, which are of the
        total as well) and `also` (what else there is to say), to be called after every result.
    """
    pace, last = Pace(at_once), time.monotonic()

    def about(done: int, total: int, kept: int, also: str) -> str:
        return ", ".join(filter(None, (pace.said(done, total - kept - done, noun), also)))

    if console.is_terminal:
        columns = (
            TextColumn(f"{verbs[0]} {noun}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.description}"),
        )
        with Progress(*columns, console=console, transient=True) as bar:
            task = bar.add_task("")

            def update(done: int, total: int, kept: int = 0, also: str = "") -> None:
                bar.update(task, total=total, completed=kept + done, description=about(done, total, kept, also))

            yield update
        return

    def line(done: int, total: int, kept: int = 0, also: str = "") -> None:
        nonlocal last
        text = about(done, total, kept, also)  # at every call: it measures
        if time.monotonic() - last >= LINE_EVERY and kept + done < total:
            last = time.monotonic()
            tell(", ".join(filter(None, (f"{verbs[1]} {kept + done:,} of {total:,} {noun}", text))))

    yield line
