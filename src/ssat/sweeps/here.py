"""Jobs of a sweep in processes of their own, several at once on this machine; slurm.py puts them on a cluster.

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
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from ssat.config.schema import Launcher
from ssat.core.errors import UserError
from ssat.core.interrupts import LEFT, PATIENCE, SIGNALS, Stopped, handling
from ssat.core.launch import cores
from ssat.core.parent import VARIABLE as PARENT
from ssat.core.standing import VARIABLE
from ssat.core.terminal import tell
from ssat.sweeps.board import Board, Running
from ssat.sweeps.jobs import Job, JobOutcome, own_words
from ssat.sweeps.warm import Forked, Warm

TO_END = 60.0  # seconds more than the ranks of a job have: what ends them says why
LOOK_EVERY = 0.5  # seconds between two looks at how far the jobs are
# One of them is there where a driver is: NVIDIA's, that of WSL, those of Jetson, and AMD's.
GPU_FILES = ("/dev/nvidiactl", "/dev/dxg", "/dev/nvhost-ctrl", "/dev/nvmap", "/dev/nvgpu", "/dev/kfd")
STOPPING = "stopping: each run saves first; a second Ctrl-C ends them at once"


class JobProcess:
    """One job as a process; called, it runs to its end and says what became of it.

    Args:
        words: of its command line.
        log: file for its output.
        env: variables beside those of this process.
        sweep: number of a process of this machine with which the job ends, wherever it is called; 0 = none.
        warm: forks it off; None = it is a program of its own.
    """

    def __init__(
        self,
        words: Sequence[str],
        log: Path,
        env: dict[str, str] | None = None,
        *,
        sweep: int = 0,
        warm: Warm | None = None,
    ) -> None:
        self.words, self.log, self.env, self.sweep = list(words), Path(log).resolve(), env or {}, sweep
        self.warm = warm
        self.process: subprocess.Popen | Forked | None = None
        self.asked: int | None = None  # the signal that `wait` is to send; set by a signal handler or another thread

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"process": None, "warm": None}

    def __call__(self) -> JobOutcome:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with open(self.log, "ab") as log:
            start = log.tell()
            if self.warm is not None:
                env = os.environ | self.env
                self.process = self.warm.start(self.words, self.log, env, lambda: self.asked is not None)
            if self.process is None and self.asked is not None:
                return JobOutcome("stopped")
            self.process = self.process or self._program(log)
        try:
            code = self.wait()
        except BaseException:
            self.asked = signal.SIGTERM
            self.wait()
            raise
        if self.asked is not None and code in (-signal.SIGKILL, -self.asked):
            return JobOutcome("stopped")  # it was not the machine's memory
        return read_outcome(code, self.log.read_bytes()[start:].decode(errors="replace"))

    def _program(self, log: BinaryIO) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, "-m", "ssat.commands", "train", *self.words],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=os.environ | self.env | {PARENT: str(os.getpid())},  # a killed sweep leaves no job behind
            start_new_session=True,  # a terminal's Ctrl-C reaches it, and DDP's processes with it, through `asked`
        )

    def wait(self) -> int:
        """The exit code, at the end; passes `asked` on, and kills what has not ended long after.

        It polls: a signal handler that waits for the same process must not lock up.
        """
        assert self.process is not None
        sent, deadline = None, float("inf")
        while (code := self.process.poll()) is None:
            if time.monotonic() > deadline:
                self.asked = signal.SIGKILL
            if self.sweep and not self.asked and not _lives(self.sweep):
                self.asked = signal.SIGTERM
            if self.asked != sent and self.asked is not None:
                with suppress(ProcessLookupError):  # it has ended, or has no session of its own yet
                    os.killpg(self.process.pid, self.asked)
                    sent, deadline = self.asked, time.monotonic() + PATIENCE + TO_END
            time.sleep(0.2)
        return code

    def checkpoint(self) -> Any:
        """submitit's call before a time limit or a preemption: save, and go on in a new SLURM job."""
        from submitit.helpers import DelayedSubmission

        self.asked = signal.SIGTERM
        self.wait()
        return DelayedSubmission(JobProcess(self.words, self.log, self.env, sweep=self.sweep))


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def read_outcome(code: int, log: str) -> JobOutcome:
    """What exit code and output of a job mean."""
    lines = [line for line in log.splitlines() if line.strip()]
    mistakes = [line for line in lines if line.startswith("error: ")]
    if code == 0:
        skipped = any(line.startswith("skipped, already finished") for line in lines)
        return JobOutcome("skipped" if skipped else "finished", lines[-1] if lines else "")
    if code in (*(128 + number for number in SIGNALS), *(-number for number in SIGNALS)):
        return JobOutcome("stopped")
    if code == 2 and mistakes:
        return JobOutcome("refused", mistakes[-1].removeprefix("error: "))
    if code == 1 and mistakes and lines[-1] == mistakes[-1]:  # of a callback of the user's own
        return JobOutcome("crashed", mistakes[-1].removeprefix("error: "), "\n".join(lines[-20:-1]))
    if code < 0:
        name = signal.Signals(-code).name
        cause = ": the machine's memory may have run out" if code == -signal.SIGKILL else ""
        return JobOutcome("crashed", f"killed by {name}{cause}")
    trace = log[log.find("Traceback (most recent call last)") :] if "Traceback (most" in log else "\n".join(lines[-20:])
    errors = [line for line in trace.splitlines() if re.match(r"[\w.]+(Error|Exception|Interrupt|Exit)\b", line)]
    return JobOutcome("crashed", errors[-1] if errors else lines[-1] if lines else f"exit code {code}", trace)


def devices_of(job: Job) -> int:
    """GPUs that a job asks for; 0 on a CPU."""
    trainer = job.config.trainer
    return 0 if trainer.accelerator == "cpu" else trainer.devices


@contextmanager
def warmed(launcher: Launcher) -> Iterator[Warm | None]:
    """Around a sweep: what forks its runs off, and imports while the sweep is put together; None where nothing can.

    They are forked on Linux without a GPU, if they are processes of this machine.
    """
    if launcher.name not in ("processes", "packed") or sys.platform != "linux" or any(map(os.path.exists, GPU_FILES)):
        yield None
        return
    warm = Warm()
    try:
        yield warm
    finally:
        warm.close()


def visible_gpus() -> list[str]:
    """The names of this machine's GPUs for CUDA_VISIBLE_DEVICES."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [name for name in given.split(",") if name.strip()]
    if sys.platform == "linux" and not any(map(os.path.exists, GPU_FILES)):
        return []  # PyTorch takes seconds to say that

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
    trainer = job.config.trainer
    return [] if trainer.threads else [f"trainer.threads={max(1, threads // trainer.devices)}"]


def check_launcher(launcher: Launcher, jobs: Sequence[Job]) -> None:
    """Refuse, before the first job, what cannot be started.

    Raises:
        UserError: names what is missing.
    """
    if launcher.name != "slurm":
        return
    try:
        import submitit  # noqa: F401
    except ImportError as error:
        raise UserError("launcher=slurm needs the package submitit: run pip install '.[slurm]'") from error
    if launcher.executor == "slurm" and not shutil.which("srun"):
        raise UserError("launcher=slurm finds no srun: start it on a login node, or try launcher.executor=local")
    if any(job.config.trainer.num_nodes > 1 for job in jobs):
        raise UserError("launcher=slurm gives every job one node: start trainer.num_nodes > 1 with srun")


@dataclass(frozen=True)
class Placement:
    """How many jobs run at once on this machine, with what each.

    Attributes:
        at_once: jobs at the same time.
        threads: CPU threads of one job.
        gpus: names for CUDA_VISIBLE_DEVICES, which the jobs get in turn.
        env: further variables of every job.
    """

    at_once: int
    threads: int
    gpus: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)


def place(launcher: Launcher, jobs: Sequence[Job]) -> Placement:
    """Of `launcher=processes`: `launcher.jobs` at once."""
    at_once = min(launcher.jobs, len(jobs))
    gpus = visible_gpus() if any(devices_of(job) for job in jobs) else []
    return Placement(at_once, launcher.threads or max(1, cores() // at_once), tuple(gpus))


def run_here(
    jobs: Sequence[Job],
    launcher: Launcher,
    folder: Path,
    placement: Placement | None = None,
    warm: Warm | None = None,
) -> Iterator[tuple[Job, JobOutcome]]:
    """Several jobs at once on this machine as `placement` says, by default `place`; yields each as it ends.

    What goes on is shown in the meantime (`Board`). `warm` forks them off, see `warmed`.

    Signals and leaving the iteration stop the jobs that run; each saves before it ends. Only a second Ctrl-C kills.

    Raises:
        KeyboardInterrupt: after Ctrl-C, once all jobs have ended; says where the same command continues.
        Stopped: after another signal; that has been said on stderr.
    """
    placement = placement or place(launcher, jobs)
    at_once, threads, gpus = min(placement.at_once, len(jobs)), placement.threads, placement.gpus
    slots: queue.SimpleQueue[int] = queue.SimpleQueue()
    for slot in range(at_once):
        slots.put(slot)
    running: dict[JobProcess, Running] = {}
    received: list[int] = []
    board = Board()

    def run(index: int, job: Job) -> tuple[Job, JobOutcome]:
        slot = slots.get()
        words, log = own_words(job.words) + thread_words(job, threads), folder / f"{index:03d}-{job.name}.log"
        standing = log.with_suffix(".json").resolve()
        env = {**placement.env, **share(slot, job, gpus), VARIABLE: str(standing)}
        # Ranks are programs of their own, and a CUDA context cannot be forked.
        process = JobProcess(words, log, env, warm=None if gpus or job.config.trainer.processes > 1 else warm)
        running[process] = Running(job.name, standing)  # before `received` is read: a signal finds it in one of the two
        try:
            return job, JobOutcome("stopped") if received else process()
        finally:
            del running[process]
            slots.put(slot)

    def stop(signum: int, frame: Any = None) -> None:
        received.append(signum)
        kills = received.count(signal.SIGINT) > 1
        for process in list(running):
            process.asked = signal.SIGKILL if kills else signal.SIGTERM  # at which a training saves

    with handling(stop), ThreadPoolExecutor(at_once) as threads_of_jobs:  # each waits for a process
        left = {threads_of_jobs.submit(run, index, job) for index, job in enumerate(jobs)}
        try:
            while left:
                ended, left = wait(left, LOOK_EVERY, FIRST_COMPLETED)
                if ended:
                    board.clear()
                    yield from (result.result() for result in ended)
                else:
                    board.show(list(running.values()), STOPPING if received else "")
        except BaseException:  # leaving the block waits for the jobs
            stop(signal.SIGTERM)
            raise
        finally:
            board.clear()
    if received:
        # Said here: an experiment file starts a sweep without -m on the command line.
        if received[0] == signal.SIGINT:
            raise KeyboardInterrupt(LEFT)
        tell(f"stopped by {signal.Signals(received[0]).name}: {LEFT}", file=sys.stderr)
        raise Stopped(received[0], LEFT)
