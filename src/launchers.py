"""Jobs of a sweep in processes of their own, several at once on this machine; src/cluster.py puts them on a cluster.

A job is the command `python -m src.train key=value ...` whose output goes to a log file. So nothing but text crosses
processes, a killed job takes no other one with it, and every job may start its own DDP group.
"""

from __future__ import annotations

import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from src.errors import UserError
from src.sweep import Job, Outcome, own_words

PATIENCE = 120.0  # seconds that a stopped job may take to save


class Command:
    """One job as a process; called, it runs to its end and says what became of it."""

    def __init__(self, words: Sequence[str], log: Path, env: dict[str, str] | None = None) -> None:
        self.words, self.log, self.env = list(words), Path(log).resolve(), env or {}
        self.process: subprocess.Popen | None = None
        self.asked: int | None = None  # the signal that `wait` is to send; set by a signal handler or another thread

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"process": None}

    def __call__(self) -> Outcome:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with open(self.log, "ab") as log:
            start = log.tell()
            self.process = subprocess.Popen(
                [sys.executable, "-m", "src.train", *self.words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=os.environ | self.env,
                start_new_session=True,  # a terminal's Ctrl-C reaches it, and DDP's processes with it, through `asked`
            )
        try:
            code = self.wait()
        except BaseException:
            self.asked = signal.SIGINT
            self.wait()
            raise
        return read_outcome(code, self.log.read_bytes()[start:].decode(errors="replace"))

    def wait(self) -> int:
        """The exit code, at the end; passes `asked` on, and kills what has not ended PATIENCE seconds later.

        It polls: a signal handler that waits for the same process must not lock up.
        """
        assert self.process is not None
        sent, deadline = None, float("inf")
        while (code := self.process.poll()) is None:
            if time.monotonic() > deadline:
                self.asked = signal.SIGKILL
            if self.asked != sent and self.asked is not None:
                with suppress(ProcessLookupError):
                    os.killpg(self.process.pid, self.asked)
                sent, deadline = self.asked, time.monotonic() + PATIENCE
            time.sleep(0.2)
        return code

    def checkpoint(self) -> Any:
        """submitit's call before a time limit or a preemption: save, and go on in a new SLURM job."""
        from submitit.helpers import DelayedSubmission

        self.asked = signal.SIGTERM
        self.wait()
        return DelayedSubmission(Command(self.words, self.log, self.env))


def read_outcome(code: int, log: str) -> Outcome:
    """What exit code and output of a job mean."""
    lines = [line for line in log.splitlines() if line.strip()]
    mistakes = [line for line in lines if line.startswith("error: ")]
    if code == 0:
        skipped = any(line.startswith("skipped, already finished") for line in lines)
        return Outcome("skipped" if skipped else "finished", lines[-1] if lines else "")
    if code in (130, 143, -signal.SIGINT, -signal.SIGTERM):
        return Outcome("stopped")
    if code == 2 and mistakes:
        return Outcome("refused", mistakes[-1].removeprefix("error: "))
    if code < 0:
        name = signal.Signals(-code).name
        cause = ": the machine's memory may have run out" if code == -signal.SIGKILL else ""
        return Outcome("crashed", f"killed by {name}{cause}")
    trace = log[log.find("Traceback (most recent call last)") :] if "Traceback (most" in log else "\n".join(lines[-20:])
    errors = [line for line in trace.splitlines() if re.match(r"[\w.]+(Error|Exception|Interrupt|Exit)\b", line)]
    return Outcome("crashed", errors[-1] if errors else lines[-1] if lines else f"exit code {code}", trace)


def devices_of(job: Job) -> int:
    """GPUs that a job asks for; 0 on a CPU."""
    trainer = job.config["trainer"]
    return 0 if trainer["accelerator"] == "cpu" else int(trainer["devices"])


def visible_gpus() -> list[str]:
    """The names of this machine's GPUs for CUDA_VISIBLE_DEVICES."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [name for name in given.split(",") if name.strip()]
    import torch

    return [str(index) for index in range(torch.cuda.device_count())]


def share(slot: int, job: Job, gpus: Sequence[str]) -> dict[str, str]:
    """The environment of the job in `slot`: GPUs of its own as long as there are enough, in turn after that."""
    count = min(devices_of(job), len(gpus))
    if not count:
        return {}
    return {"CUDA_VISIBLE_DEVICES": ",".join(gpus[(slot * count + i) % len(gpus)] for i in range(count))}


def thread_words(job: Job, threads: int) -> list[str]:
    """CPU threads for each process of a job that does not say how many itself."""
    trainer = job.config["trainer"]
    return [] if trainer["threads"] else [f"trainer.threads={max(1, threads // int(trainer['devices']))}"]


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def check_launcher(options: dict[str, Any], jobs: Sequence[Job]) -> None:
    """Refuse, before the first job, what cannot be started.

    Raises:
        UserError: a package is missing, or a value of `launcher` is not possible.
    """
    if options["name"] == "joblib":
        whole: tuple[str, ...] = ("jobs", "threads")
    elif options["name"] == "slurm":
        whole = ("timeout_min", "cpus", "gpus", "parallel", "requeue")
        try:
            import submitit  # noqa: F401
        except ImportError as error:
            raise UserError("launcher=slurm needs the package submitit: run pip install '.[slurm]'") from error
        if options["executor"] not in ("slurm", "local"):
            raise UserError(f"launcher.executor={options['executor']!r} is not one of slurm, local")
        if options["executor"] == "slurm" and not shutil.which("srun"):
            raise UserError("launcher=slurm finds no srun: start it on a login node, or try launcher.executor=local")
        if any(int(job.config["trainer"]["num_nodes"]) > 1 for job in jobs):
            raise UserError("launcher=slurm gives every job one node: start trainer.num_nodes > 1 with srun")
    else:
        return
    for key in whole:
        value = options[key]
        low = 0 if key in ("gpus", "requeue") else 1
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < low):
            raise UserError(f"launcher.{key}={value!r} is not possible: it must be a whole number, at least {low}")


def run_here(jobs: Sequence[Job], options: dict[str, Any], folder: Path) -> Iterator[tuple[Job, Outcome]]:
    """`launcher=joblib`: `launcher.jobs` jobs at once on this machine; yields each as it ends.

    Ctrl-C, SIGTERM and leaving the iteration stop the jobs that run; each saves before it ends. A second Ctrl-C kills.
    """
    from joblib import Parallel, delayed

    at_once = min(options["jobs"], len(jobs))
    threads = options["threads"] or max(1, cores() // at_once)
    gpus = visible_gpus() if any(devices_of(job) for job in jobs) else []
    slots: queue.SimpleQueue[int] = queue.SimpleQueue()
    for slot in range(at_once):
        slots.put(slot)
    running: set[Command] = set()
    received: list[int] = []

    def run(index: int, job: Job) -> tuple[Job, Outcome]:
        slot = slots.get()
        words = own_words(job.words) + thread_words(job, threads)
        command = Command(words, folder / f"{index:03d}-{job.name}.log", share(slot, job, gpus))
        running.add(command)  # before `received` is read: a signal finds the command in one of the two
        try:
            return job, Outcome("stopped") if received else command()
        finally:
            running.discard(command)
            slots.put(slot)

    def stop(signum: int, frame: Any = None) -> None:
        again = bool(received)
        received.append(signum)
        for command in list(running):
            command.asked = signal.SIGKILL if again else signal.SIGINT

    # Threads that each wait for a process. In joblib's own process pool one killed worker ends every job.
    results = Parallel(n_jobs=at_once, backend="threading", return_as="generator_unordered")(
        delayed(run)(index, job) for index, job in enumerate(jobs)
    )
    with handling(stop):  # an exception inside joblib would make it wait for jobs that nobody has stopped
        try:
            # `yield from` would close joblib's generator before ours.
            for result in results:  # noqa: UP028
                yield result
        except GeneratorExit:
            stop(signal.SIGINT)
            deque(results, maxlen=0)
            raise
    if received:
        raise KeyboardInterrupt if signal.SIGINT in received else SystemExit(128 + received[0])


@contextmanager
def handling(handler: Callable[[int, Any], None]) -> Iterator[None]:
    """SIGINT and SIGTERM call `handler` inside the block; only the main thread can set that."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, old in previous.items():
            signal.signal(number, old)
