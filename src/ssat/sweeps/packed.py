"""`launcher=packed`: several runs of a sweep share each device, through processes; what such a sweep achieves.

A small network leaves most of a large GPU idle. Processes share it in turns; under NVIDIA's Multi-Process Service (MPS)
their kernels also run at the same time (docs/scaling.md). On a CPU the runs are packed by cores.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ssat.config.schema import Launcher
from ssat.core.errors import UserError
from ssat.core.launch import cores
from ssat.core.terminal import tell
from ssat.core.words import duration, many
from ssat.sweeps.here import Placement, devices_of, visible_gpus
from ssat.sweeps.jobs import Job, JobOutcome

RUNS_ON_A_GPU = 2  # by default
CONTROL = "nvidia-cuda-mps-control"
PATIENCE = 30  # seconds that MPS may take to start or to end
LEAST = 0.5 * 2**30  # bytes that a process needs before its first step, of the machine and of a GPU (a CUDA context)
OUT_OF_MEMORY = ("does not fit into the device's memory", "out of memory", "OutOfMemoryError", "MemoryError", "SIGKILL")


@dataclass(frozen=True)
class Packing(Placement):
    """Where the runs of a packed sweep go, and in which words that is said."""

    per_device: int = 1
    lines: tuple[str, ...] = field(default=())


def pack(launcher: Launcher, jobs: Sequence[Job]) -> Packing:
    """Decide how many runs go on at once, on which devices, with how many threads.

    Raises:
        UserError: a GPU that is asked for is not there, or the memory cannot hold so many processes.
    """
    gpus = present_gpus() if any(devices_of(job) for job in jobs) else []
    if not gpus and any(job.config.trainer.accelerator == "gpu" for job in jobs):
        raise UserError(
            "launcher=packed with trainer.accelerator=gpu, but PyTorch sees no GPU here: use trainer=cpu, which packs"
            " by cores",
            key="trainer.accelerator",
            value="gpu",
        )
    at_once = min(len(jobs), on_gpus(launcher, jobs, gpus) if gpus else on_cores(launcher, jobs, cores()))
    per_device = (launcher.per_device or RUNS_ON_A_GPU) if gpus else at_once
    refuse_too_many(at_once, jobs)
    for gpu, free in (free_bytes(gpus) if gpus else {}).items():
        if per_device * LEAST > free:
            raise UserError(
                f"launcher.per_device={per_device} needs at least {gib(per_device * LEAST)} of GPU {gpu}, which has"
                f" {gib(free)} free: at most {int(free // LEAST)} runs can share it",
                key="launcher.per_device",
                value=per_device,
            )
    threads = launcher.threads or max(1, cores() // max(1, at_once))
    where = f"{per_device} on each of {many(len(gpus), 'GPU')}" if gpus else f"on {many(cores(), 'CPU core')}"
    line = f"packed: {many(at_once, 'run')} at once, {where}, {many(threads, 'thread')} a run"
    return Packing(at_once, threads, tuple(gpus), {}, per_device, (line,))


def on_gpus(launcher: Launcher, jobs: Sequence[Job], gpus: Sequence[str]) -> int:
    """Runs at once: `launcher.per_device` on each GPU, or on each group of GPUs where a run uses several."""
    widest = max(devices_of(job) for job in jobs)
    return (launcher.per_device or RUNS_ON_A_GPU) * max(1, len(gpus) // widest)


def on_cores(launcher: Launcher, jobs: Sequence[Job], available: int) -> int:
    """Runs at once on a CPU, the one device: `launcher.per_device`, by default as many as find cores."""
    trainers = [job.config.trainer for job in jobs]
    widest = max((t.devices * (t.threads or launcher.threads or 1) for t in trainers), default=1)
    return launcher.per_device or max(1, available // widest)


def present_gpus() -> list[str]:
    """The names of this machine's GPUs for CUDA_VISIBLE_DEVICES.

    Raises:
        UserError: CUDA_VISIBLE_DEVICES names one that is not here.
    """
    names = visible_gpus()
    if "CUDA_VISIBLE_DEVICES" not in os.environ or not names:
        return names
    import torch

    here = torch.cuda.device_count()  # the driver leaves out the first unknown name and all after it
    if len(names) > here:
        raise UserError(
            f"CUDA_VISIBLE_DEVICES={','.join(names)} names GPU {names[here]}, which is not on this machine: give those"
            " that nvidia-smi -L lists",
            key="CUDA_VISIBLE_DEVICES",
            value=names[here],
        )
    return names


def refuse_too_many(at_once: int, jobs: Sequence[Job]) -> None:
    """Refuse more processes than the machine's memory can hold, even before their first step.

    Raises:
        UserError: says how many fit.
    """
    free = available_bytes()
    processes = max((job.config.trainer.devices for job in jobs), default=1)
    of_one = processes * LEAST
    if free is not None and at_once * of_one > free:
        raise UserError(
            f"launcher.per_device: {many(at_once, 'run')} at once need at least {gib(at_once * of_one)} of memory, and"
            f" {gib(free)} are available: at most {max(1, int(free // of_one))} fit",
            key="launcher.per_device",
            value=at_once,
        )


def available_bytes() -> int | None:
    """Memory of the machine that a new process can have; None where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable")), None)


def free_bytes(gpus: Sequence[str]) -> dict[str, int]:
    """Free memory of each GPU by nvidia-smi, which makes no CUDA context; empty where it does not say."""
    if not (smi := shutil.which("nvidia-smi")):
        return {}
    asked = [smi, "--query-gpu=memory.free", "--format=csv,noheader,nounits", f"--id={','.join(gpus)}"]
    try:
        done = subprocess.run(asked, capture_output=True, text=True, timeout=PATIENCE, check=True)
        return dict(zip(gpus, (int(line) * 2**20 for line in done.stdout.split()), strict=False))
    except (OSError, subprocess.SubprocessError, ValueError):
        return {}


def gib(amount: float) -> str:
    """Bytes as GiB."""
    return f"{amount / 2**30:.1f} GiB"


@contextmanager
def sharing(packing: Packing, folder: Path) -> Iterator[Packing]:
    """Around the runs: MPS where GPUs are shared and it can be started, ended with the sweep; says and records which.

    Args:
        packing: as decided by `pack`.
        folder: of the sweep, whose packed.txt holds the lines.
    """
    shares = bool(packing.gpus) and packing.per_device > 1
    with mps() if shares else _nothing() as (env, line):
        lines = (*packing.lines, *([line] if line else []))
        tell(*lines)
        keep(folder, lines)
        yield replace(packing, env=env, lines=lines)


def keep(folder: Path, lines: Iterable[str]) -> None:
    """Add lines to what the sweep's folder says of a packed sweep."""
    with open(folder / "packed.txt", "a", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in lines)


@contextmanager
def _nothing() -> Iterator[tuple[dict[str, str], str]]:
    yield {}, ""


@contextmanager
def mps() -> Iterator[tuple[dict[str, str], str]]:
    """NVIDIA's Multi-Process Service inside the block; yields the environment that its clients need, and one line.

    A service that is already there is used and left running.
    """
    control = shutil.which(CONTROL)
    if control is None:
        yield {}, f"MPS: not used, {CONTROL} is not installed here; the runs take turns on a GPU"
        return
    if _ask(control, "get_server_list", {}) is None:
        yield {}, "MPS: the service that already runs on this machine"
        return
    place = tempfile.mkdtemp(prefix="ssat-mps-")  # a socket's path must be short
    env = {"CUDA_MPS_PIPE_DIRECTORY": place, "CUDA_MPS_LOG_DIRECTORY": place}
    failed = _start(control, env)
    try:
        if failed:
            yield {}, f"MPS: not used, {CONTROL} -d failed ({failed}); the runs take turns on a GPU"
        else:
            yield env, "MPS: started, and ended with the sweep"
    finally:
        if not failed and (failed := _ask(control, "quit", env)):
            print(f"MPS: did not end ({failed}): end it with CUDA_MPS_PIPE_DIRECTORY={place} {CONTROL} <<< quit")
        else:
            shutil.rmtree(place, ignore_errors=True)


def _start(control: str, env: Mapping[str, str]) -> str | None:
    # Without CUDA_VISIBLE_DEVICES: with it the daemon would number the GPUs anew, and a run's own choice would miss.
    around = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    return _run([control, "-d"], {**around, **env})


def _ask(control: str, order: str, env: Mapping[str, str]) -> str | None:
    return _run([control], {**os.environ, **env}, order)


def _run(command: list[str], env: dict[str, str], order: str = "") -> str | None:
    """None when it succeeded, else why not, in one line."""
    # Files, not pipes: a daemon keeps what it inherits open, and reading a pipe would wait for its end.
    with tempfile.TemporaryFile("w+") as said:
        try:
            done = subprocess.run(
                command, input=f"{order}\n", stdout=said, stderr=said, text=True, env=env, timeout=PATIENCE
            )
        except (OSError, subprocess.SubprocessError) as error:
            return " ".join(str(error).split())
        said.seek(0)
        text = " ".join(said.read().split())[-200:]
    return None if done.returncode == 0 else text or f"exit code {done.returncode}"


def advised(outcome: JobOutcome, packing: Packing) -> JobOutcome:
    """The outcome of a run that shared its device; where the memory did not suffice, with what to do."""
    ended_early = outcome.status in ("refused", "crashed")
    if not ended_early or packing.at_once < 2 or not any(word in outcome.reason for word in OUT_OF_MEMORY):
        return outcome
    fewer = max(1, packing.per_device // 2)
    advice = f"{many(packing.per_device, 'run')} shared the device: launcher.per_device={fewer} gives each more memory"
    return replace(outcome, reason=f"{outcome.reason}; {advice}")


def throughput(records: Sequence[Mapping[str, Any]], seconds: float) -> str:
    """One line: runs an hour and trained images a second of a sweep, start-up and evaluation included.

    Args:
        records: of the runs that were trained in it.
        seconds: from its first start to its last end.
    """
    images = sum(
        row.get("throughput/images_per_s", 0) * row.get("train_seconds", 0)
        for record in records
        for phase in record.get("phases", ())
        for row in phase.get("history", ())
    )
    rate = 3600 * len(records) / seconds
    return (
        f"throughput: {many(len(records), 'run')} in {duration(seconds)}: {rate:,.{0 if rate >= 100 else 1}f} runs/h,"
        f" {images / seconds:,.0f} images/s of all runs together"
    )
