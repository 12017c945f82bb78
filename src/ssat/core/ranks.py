"""The processes of one run on this machine, its ranks: how they start, what each says at its end, and what all do then.

A rank that has ended leaves the others waiting for it in an exchange that nobody answers. So the process that has
started them gives them a moment, then ends them: no run hangs, whichever rank is killed, refused, stopped or crashes.
"""

from __future__ import annotations

import multiprocessing as mp
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from typing import Any

from ssat.core.errors import NotEnoughMemory, OwnCodeError, UserError
from ssat.core.interrupts import PATIENCE, SIGNALS, Stopped, handling
from ssat.core.parent import EndsWithParent

CODES = {128 + number: number for number in SIGNALS}  # with which a process ends that a signal has stopped
GRACE = 5.0  # seconds that the other ranks may take to say what they know once one has ended before its work was done
TO_CLOSE = 10.0  # the same where it was stopped: all have saved by then, and close their loggers
OUT_OF_MEMORY = (
    ", as Linux does where the machine's memory has run out: lower recipe.batch_size, and raise trainer.accumulate with"
    " it, or ask for more memory"
)


class RankCrashed(RuntimeError):
    """A rank has raised what is no mistake of the user's; the text holds the rank and its own traceback."""


@dataclass(frozen=True)
class Report:
    """What a rank says before it ends early.

    Attributes:
        at: seconds of the clock that all processes share: what another rank's end has caused comes later.
        mistake: the exception of a user's mistake; None where it is a crash, or a stop.
        trace: of a crash; empty where there is none.
        where: of a stop: where the same command continues.
    """

    at: float
    mistake: UserError | OwnCodeError | None = None
    trace: str = ""
    where: str = ""


@dataclass(eq=False)
class Rank:
    """A process of the run and what is known of it."""

    number: int
    process: Any
    pipe: Connection
    killed: bool = False  # by the process that has started it
    report: Report | None = field(default=None)

    @property
    def code(self) -> int | None:
        """Its exit code; below 0 = ended by that signal, None = it works."""
        code: int | None = self.process.exitcode
        return code

    @property
    def stopped_by(self) -> int:
        """The signal that it has obeyed; 0 = none."""
        code = self.code or 0
        return CODES.get(code, -code if -code in SIGNALS else 0)

    def read(self) -> None:
        """Take its report, if it has left one; a rank that was killed may have left a part of one."""
        with suppress(EOFError, OSError):
            if self.report is None and self.pipe.poll():
                self.report = self.pipe.recv()


def run_ranks(job: Callable[..., None], args: tuple[Any, ...], processes: int) -> None:
    """Run `job(*args)` in `processes` fresh processes; see `ssat.core.launch.run_processes`."""
    ranks: list[Rank] = []
    received: list[int] = []

    def stop(number: int, frame: Any = None) -> None:
        again = number == signal.SIGINT and number in received
        received.append(number)
        _send(ranks, signal.SIGKILL if again else signal.SIGTERM)

    with handling(stop):
        try:
            _start(ranks, job, args, processes)
            if received:
                _send(ranks, signal.SIGTERM)
            _supervise(ranks, received)
        finally:
            _send(ranks, signal.SIGKILL)
            for rank in ranks:
                rank.process.join()
                rank.read()
    _raise_outcome(ranks, received)


def _start(ranks: list[Rank], job: Callable[..., None], args: tuple[Any, ...], processes: int) -> None:
    context, port = mp.get_context("spawn"), free_port()
    resource_tracker.ensure_running()  # which takes the mask back
    # The ranks inherit it: a terminal's Ctrl-C during their imports waits, and is no traceback from the midst of one.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        for number in range(processes):
            ours, theirs = context.Pipe(duplex=False)
            inputs = (EndsWithParent(), number, processes, port, theirs, job, args)
            process = context.Process(target=_work, args=inputs)
            process.start()
            theirs.close()
            ranks.append(Rank(number, process, ours))
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _work(
    _: None, rank: int, processes: int, port: int, pipe: Connection, job: Callable[..., None], args: tuple[Any, ...]
) -> None:
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda number, _: os._exit(128 + number))  # until the job takes them
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
    os.environ |= {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "NODE_RANK": "0",
        "LOCAL_RANK": str(rank),
        "RANK": str(rank),
        "WORLD_SIZE": str(processes),
    }
    try:
        job(*args)
    except (UserError, OwnCodeError) as mistake:
        pipe.send(Report(time.monotonic(), mistake=_picklable(mistake)))
        sys.exit(1)
    except KeyboardInterrupt as interrupt:
        pipe.send(Report(time.monotonic(), where=str(interrupt)))
        sys.exit(128 + signal.SIGINT)
    except Stopped as stopped:
        pipe.send(Report(time.monotonic(), where=stopped.where))
        raise
    except Exception:
        pipe.send(Report(time.monotonic(), trace=traceback.format_exc()))
        sys.exit(1)
    finally:
        distributed = sys.modules.get("torch.distributed")  # a job that has not imported it need not wait for it
        if distributed is not None and distributed.is_initialized():
            distributed.destroy_process_group()


def _picklable(mistake: UserError | OwnCodeError) -> UserError | OwnCodeError:
    return mistake if isinstance(mistake, (NotEnoughMemory, OwnCodeError)) else UserError(str(mistake))


def _supervise(ranks: Sequence[Rank], received: Sequence[int]) -> None:
    """Wait until all ranks have ended; end those that would wait for one that has ended before."""
    deadline = float("inf")
    while left := [rank for rank in ranks if rank.code is None]:
        wait([rank.process.sentinel for rank in left], timeout=0.5)
        for rank in ranks:
            rank.read()
        if any(rank.code for rank in ranks):
            saved = any(rank.stopped_by and rank.report for rank in ranks)
            deadline = min(deadline, time.monotonic() + (TO_CLOSE if saved else GRACE))
        elif received:
            deadline = min(deadline, time.monotonic() + PATIENCE)
        if time.monotonic() > deadline:
            _send(ranks, signal.SIGKILL)


def _send(ranks: Sequence[Rank], number: int) -> None:
    for rank in ranks:
        if rank.code is None:
            rank.killed |= number == signal.SIGKILL
            with suppress(ProcessLookupError):
                os.kill(rank.process.pid, number)


def _raise_outcome(ranks: Sequence[Rank], received: Sequence[int]) -> None:
    """What the run comes to: done, stopped, or the first cause of its end; what that has caused is not told."""
    failed = [rank for rank in ranks if rank.code and not rank.killed]
    if not failed and not received:
        return
    stopped = received[0] if received else next((rank.stopped_by for rank in failed if rank.stopped_by), 0)
    if not received:
        for rank in failed:
            if not rank.stopped_by and (rank.code or 0) < 0:
                raise UserError(_killed(rank, len(ranks)))
    where = next((rank.report.where for rank in ranks if rank.report and rank.report.where), "")
    if stopped == signal.SIGINT:
        raise KeyboardInterrupt(where)
    if stopped:
        raise Stopped(stopped, where)
    reports = sorted((rank.report.at, rank.number) for rank in failed if rank.report)
    ordered = [ranks[number] for _, number in reports]
    for rank in ordered:
        if rank.report and rank.report.mistake:
            raise rank.report.mistake
    for rank in ordered:
        if rank.report and rank.report.trace:
            raise RankCrashed(f"rank {rank.number} of {len(ranks)}:\n{rank.report.trace}")
    raise RankCrashed(f"rank {failed[0].number} of {len(ranks)} ended with exit code {failed[0].code}")


def _killed(rank: Rank, processes: int) -> str:
    name = signal.Signals(-(rank.code or 0)).name
    why = OUT_OF_MEMORY if name == "SIGKILL" else ""
    return (
        f"rank {rank.number} of {processes} was killed ({name}){why}, and the others were ended with it; the same"
        " command goes on from the last checkpoint"
    )


def free_port() -> int:
    """A free TCP port of this machine."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port
