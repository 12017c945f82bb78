"""Jobs that start without importing anything: they are forked off a process that has imported what a training needs.

A fresh program imports for seconds, as long as a small run may train. The server is this module as a program. It reads
an order for each line of its standard input, and answers on its standard output with the process that it has forked
off, and with the exit code of that process once it has ended. It ends with its input, and its jobs end with it.
"""

from __future__ import annotations

import importlib
import json
import multiprocessing
import os
import random
import runpy
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ssat.core.interrupts import SIGNALS
from ssat.core.parent import VARIABLE as PARENT
from ssat.runs.energy import device_tdp, remember_tdp

# What a run imports, the slow parts at least; no part of them computes, which would start threads that a fork loses.
IMPORTED = (
    *("ssat.commands.train", "ssat.training.phases", "ssat.training.probe", "ssat.encoders.vit"),
    *("ssat.tasks.reconstruction", "ssat.results.comparisons", "ssat.sweeps.packed", "matplotlib.figure", "hydra.main"),
)

PATIENCE = 30  # seconds that the server waits for what is asked elsewhere; jobs can ask themselves


class Forked:
    """A job that the server has forked off, with as much of `subprocess.Popen` as a sweep needs."""

    def __init__(self) -> None:
        self.pid = 0
        self.code: int | None = None
        self.known = threading.Event()  # the pid, or that there will be none

    def poll(self) -> int | None:
        """The exit code; None before the end."""
        return self.code


class Warm:
    """The server, and the jobs that it has started; it imports while the caller goes on."""

    def __init__(self) -> None:
        self._server = subprocess.Popen(
            [sys.executable, "-m", "ssat.sweeps.warm"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # a job has its own log
            text=True,
            start_new_session=True,  # a terminal's Ctrl-C is for the sweep, which passes it on
        )
        assert self._server.stdin and self._server.stdout
        self._orders, self._answers = self._server.stdin, self._server.stdout
        self._jobs: dict[int, Forked] = {}
        self._ordering = threading.Lock()
        self._ready = self._ended = False
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    @property
    def pid(self) -> int:
        """Of the server."""
        return self._server.pid

    def start(
        self, words: Sequence[str], log: Path, env: Mapping[str, str], stopped: Callable[[], bool]
    ) -> Forked | None:
        """`ssat train <words>` as a process of its own session.

        Args:
            words: of the command line.
            log: gets its output.
            env: all of its environment.
            stopped: whether the job is not wanted any more; asked while the server still imports.

        Returns:
            None where the server has ended.
        """
        job = Forked()
        with self._ordering:
            if self._ended:
                return None
            number = len(self._jobs)
            self._jobs[number] = job
            order = {"number": number, "words": list(words), "log": str(log), "env": dict(env), "folder": os.getcwd()}
            with suppress(BrokenPipeError):
                self._orders.write(json.dumps(order) + "\n")
                self._orders.flush()
        while not job.known.wait(0.1):
            if stopped() and not self._ready:  # no job has begun
                self._kill()
        return job if job.pid else None

    def close(self) -> None:
        """End the server, once its jobs have ended; at once where it still imports."""
        if not self._ready:
            self._kill()
        with suppress(BrokenPipeError):
            self._orders.close()
        self._server.wait()
        self._listener.join()
        self._answers.close()

    def _kill(self) -> None:
        """End the server and what it has started to ask, but for its jobs, which have sessions of their own."""
        with suppress(ProcessLookupError):
            os.killpg(self._server.pid, signal.SIGKILL)

    def _listen(self) -> None:
        for line in self._answers:
            self._ready = True
            number, what, value = line.split()
            job = self._jobs[int(number)]
            if what == "pid":
                job.pid = int(value)
                job.known.set()
            else:
                job.code = int(value)
        with self._ordering:  # the server has ended, and its jobs with it
            self._ended = True
            for job in self._jobs.values():
                job.code = -signal.SIGKILL if job.code is None else job.code
                job.known.set()


def serve(orders: int, answers: int) -> dict[str, Any] | None:
    """Fork a process off for every order; returns the order in each of them, and None in the server at the end.

    Args:
        orders: file descriptor that the orders are read from.
        answers: file descriptor that is written to.
    """
    ended, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake)
    numbers: dict[int, int] = {}
    for line in _lines(orders, ended, lambda: _report(numbers, answers)):
        order: dict[str, Any] = json.loads(line)
        if not (pid := os.fork()):
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for inherited in (ended, wake, answers):
                os.close(inherited)
            return order
        numbers[pid] = order["number"]
        os.write(answers, f"{order['number']} pid {pid}\n".encode())
    return None


def _lines(orders: int, ended: int, at_an_end: Callable[[], None]) -> Iterator[bytes]:
    """What is read from `orders` until it ends; `at_an_end` is called when `ended` says that a process has ended."""
    rest = b""
    while True:
        ready, _, _ = select.select([orders, ended], [], [])
        if ended in ready:
            os.read(ended, 1024)
            at_an_end()
        if orders in ready:
            got = os.read(orders, 2**16)
            if not got:
                return
            *lines, rest = (rest + got).split(b"\n")
            yield from lines


def _report(numbers: dict[int, int], answers: int) -> None:
    while numbers:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        os.write(answers, f"{numbers.pop(pid)} code {os.waitstatus_to_exitcode(status)}\n".encode())


def become(order: Mapping[str, Any], handlers: Mapping[signal.Signals, Any]) -> None:
    """Turn this process into one that has just been started with the order's words, output, environment and folder.

    `handlers` are those of the signals at the start of a program.
    """
    os.setsid()
    for number, handler in handlers.items():
        signal.signal(number, handler)
    log = os.open(order["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    os.close(log)
    os.close(nothing)
    os.chdir(order["folder"])
    os.environ.clear()
    os.environ.update(order["env"])
    os.environ[PARENT] = str(os.getppid())  # it ends with the server
    sys.argv[1:] = ["train", *order["words"]]
    random.seed()  # every job would have the server's state
    import numpy as np

    np.random.seed()


def _elsewhere(function: Callable[[str], Any], word: str, answers: int) -> Callable[[], Any]:
    """Begin `function(word)` in a process of its own, as it starts threads, which a fork loses.

    Returns:
        What waits for its result, which is None where that process has ended without one, or takes too long.
    """
    receives, sends = multiprocessing.Pipe(duplex=False)

    def work() -> None:
        os.close(answers)  # the sweep waits for the end of what is written there
        sends.send(function(word))

    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    sends.close()

    def result() -> Any:
        try:
            return receives.recv() if receives.poll(PATIENCE) else None
        except EOFError:
            return None
        finally:
            receives.close()
            process.kill()
            process.join()

    return result


def main() -> None:
    """Import, then serve until the standard input ends; in a job, run it."""
    handlers = {number: signal.signal(number, signal.SIG_IGN) for number in SIGNALS}  # the sweep ends the server
    answers = os.dup(1)
    os.dup2(2, 1)  # nothing else may write answers
    watts = _elsewhere(device_tdp, "cpu", answers)
    for name in IMPORTED:
        importlib.import_module(name)
    if (known := watts()) is not None:
        remember_tdp("cpu", known)  # every job writes it down
    sys.stdout.flush()
    if order := serve(0, answers):
        become(order, handlers)
        runpy.run_module("ssat.commands", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
