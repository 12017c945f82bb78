"""Work in processes which may hang, take too much memory or be killed without ending the whole."""

from __future__ import annotations

import multiprocessing
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, NamedTuple, TypeVar

from ssat.core.errors import UserError
from ssat.core.parent import end_with_parent

T = TypeVar("T")
R = TypeVar("R")
START_SECONDS = 600.0  # for a process to import its libraries on a busy machine
MEMORY = 3 << 30  # bytes that a process on a CPU may allocate; the libraries take 1 GB of them


class Lost(NamedTuple):
    """A piece of work without a result.

    Attributes:
        timed_out: or its process ended, or raised an error.
        reason: in words.
    """

    timed_out: bool
    reason: str


def run(
    start: Callable[[], Callable[[T], R]],
    tasks: deque[T],
    *,
    workers: int,
    seconds: Callable[[T], float],
    bounded: bool = True,
) -> Generator[tuple[T, R | Lost], None, None]:
    """The results of `tasks` as they come.

    Args:
        start: called once in each process; gives the function that does the work. Must be picklable.
        tasks: emptied; whoever takes the results may add to it before taking the next one.
        workers: processes; 0 works in this one, where nothing can be timed out.
        seconds: that a task may take; its process is killed then.
        bounded: whether a process is refused memory beyond MEMORY (Linux); not with a GPU, which maps much.

    Raises:
        UserError: one that the work raised, or the processes do not start.
    """
    if workers == 0:
        work = start()
        while tasks:
            task = tasks.popleft()
            yield task, _result(work, task)
        return
    context = multiprocessing.get_context("spawn")
    team: list[_Worker[T]] = []
    try:
        while tasks or any(worker.busy for worker in team):
            while len(team) < min(workers, len(tasks) + sum(worker.busy for worker in team)):
                team.append(_Worker(context, start, bounded))
            for worker in team:
                if tasks and worker.ready and not worker.busy:
                    worker.give(tasks.popleft(), seconds)
            yield from _news(team)
    finally:
        for worker in team:
            worker.end()


def _said(error: Exception) -> str:
    return f"unexpected {type(error).__name__}: {str(error)[:200]}".replace("\n", " ")


class _Worker(Generic[T]):
    """A process and what it is doing."""

    def __init__(self, context: Any, start: Callable[[], Callable[[T], Any]], bounded: bool) -> None:
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, start, bounded), daemon=True)
        self.process.start()
        theirs.close()  # or its end would never be noticed
        self.task: tuple[T] | None = None
        self.ready, self.seconds = False, START_SECONDS
        self.deadline = time.monotonic() + START_SECONDS

    @property
    def busy(self) -> bool:
        return self.task is not None

    def give(self, task: T, seconds: Callable[[T], float]) -> None:
        self.task, self.seconds = (task,), seconds(task)
        self.deadline = time.monotonic() + self.seconds
        with suppress(OSError):  # it has just died, which the next look tells
            self.pipe.send(task)

    def end(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()


def _news(team: list[_Worker[T]]) -> Iterator[tuple[T, Any]]:
    """Wait for a message, an end or a deadline; removes processes that ended."""
    active = [worker for worker in team if worker.busy or not worker.ready]
    if not active:
        return
    left = min(worker.deadline for worker in active) - time.monotonic()
    heard = wait([worker.pipe for worker in team], max(left, 0))
    for worker in [*team]:
        if worker.pipe in heard:
            yield from _message(team, worker)
        elif (worker.busy or not worker.ready) and time.monotonic() >= worker.deadline:
            team.remove(worker)
            worker.end()
            if worker.task is None:
                raise UserError(f"a worker did not start in {START_SECONDS:.0f} s: take fewer workers")
            yield worker.task[0], Lost(True, f"it took longer than {worker.seconds:.0f} s (timeout)")


def _message(team: list[_Worker[T]], worker: _Worker[T]) -> Iterator[tuple[T, Any]]:
    try:
        kind, value = worker.pipe.recv()
    except (EOFError, OSError):
        team.remove(worker)
        worker.process.join()
        code, had = worker.process.exitcode, worker.task
        worker.end()
        if had is None and not worker.ready:
            raise UserError(f"a worker ended before its first video (exit code {code}): take fewer workers") from None
        if had is not None:
            yield had[0], Lost(False, _end(code))
        return
    if kind == "ready":
        worker.ready = True
        return
    if kind == "refused":
        raise UserError(value)
    if worker.task is not None:
        task, worker.task = worker.task[0], None
        yield task, value


def _end(code: int | None) -> str:
    if code is not None and code < 0:
        with suppress(ValueError):
            return f"its worker was ended by {signal.Signals(-code).name}; the memory may have run out"
    return f"its worker ended with exit code {code}"


def _serve(pipe: Connection, start: Callable[[], Callable[[Any], Any]], bounded: bool) -> None:
    """A process: work until the pipe closes, which it does too when the parent is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if parent := multiprocessing.parent_process():
        end_with_parent(parent.pid or 0)  # in the midst of a long video, too
    try:
        work = _prepared(start, bounded)
        pipe.send(("ready", None))
        while True:
            pipe.send(("done", _result(work, pipe.recv())))
    except UserError as error:
        with suppress(OSError):
            pipe.send(("refused", str(error)))
    except (EOFError, OSError):
        return


def _prepared(start: Callable[[], Callable[[T], R]], bounded: bool) -> Callable[[T], R]:
    work = start()
    if bounded and sys.platform == "linux":
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        most = MEMORY if hard == resource.RLIM_INFINITY else min(MEMORY, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (most, hard))
    return work


def _result(work: Callable[[T], R], task: T) -> R | Lost:
    try:
        return work(task)
    except UserError:
        raise
    except Exception as error:
        return Lost(False, _said(error))
