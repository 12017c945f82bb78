"""Where a result comes from: code, libraries and machine."""

from __future__ import annotations

import platform
import resource
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from ssat.config.schema import Run, Trainer
from ssat.core.errors import UserError
from ssat.core.launch import cores, launched_externally
from ssat.encoders.layers import multiplies_bf16


def runs_on_cpu(config: Run) -> bool:
    """Whether the run computes on the CPU."""
    return config.trainer.accelerator == "cpu" or not torch.cuda.is_available()


def log_every(config: Run) -> int:
    """Steps between two logged values."""
    return config.trainer.log_every or (5 if runs_on_cpu(config) else 50)


def check_hardware(config: Run) -> None:
    """Refuse devices that this machine does not have.

    Raises:
        UserError: says what was asked for and what there is.
    """
    t = config.trainer
    if t.num_nodes > 1 and not launched_externally():
        raise UserError(
            f"trainer.num_nodes={t.num_nodes} needs one process per device to be started on every node: "
            "use srun, or torchrun --nnodes ... -m src.train"
        )
    gpus = torch.cuda.device_count()
    if t.accelerator == "gpu" and not gpus:
        raise UserError("trainer.accelerator=gpu, but PyTorch sees no GPU here: use trainer=cpu (or trainer=ddp_cpu)")
    there, kind = (max(2, cores()), "processors") if runs_on_cpu(config) else (gpus, "GPUs")
    if t.devices > there:
        raise UserError(f"trainer.devices={t.devices}, but this machine has {there} {kind}: ask for no more than that")
    if t.precision == "16" and runs_on_cpu(config):
        raise UserError("trainer.precision=16 needs a GPU: use trainer.precision=bf16 or 32 on a CPU")
    if t.accelerator == "mps" and not torch.backends.mps.is_available():
        raise UserError("trainer.accelerator=mps, but there is no Apple GPU here: use trainer=cpu")


def slow_precision(config: Run) -> str | None:
    """A sentence where the run's precision is slower than 32 bits on this processor; None elsewhere."""
    if config.trainer.precision != "bf16" or not runs_on_cpu(config) or has_bf16() is not False:
        return None
    return (
        "trainer.precision=bf16 is slower than 32 here, for this processor has no instructions for bf16: type"
        " trainer.precision=32"
    )


def has_bf16() -> bool | None:
    """Whether this processor has instructions for products of bf16; None of one that is not asked (not x86)."""
    return multiplies_bf16() if platform.machine() in ("x86_64", "AMD64") else None


LIBRARIES = ("torch", "torchvision", "lightning", "timm", "torchmetrics", "hydra-core", "numpy", "pillow", "codecarbon")

GIT_SECONDS = 20  # a file system that hangs keeps no run from its record


def git_commit() -> str | None:
    """The commit of the code, with '+' when the working tree differs from it; None where git does not say."""
    root = Path(__file__).resolve().parents[3]

    def git(*words: str) -> str:
        options: dict[str, Any] = {"capture_output": True, "text": True, "errors": "replace", "check": True}
        return subprocess.run(["git", *words], cwd=root, timeout=GIT_SECONDS, **options).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def versions() -> dict[str, str | None]:
    """Versions of Python and of the libraries; None for one that is not installed."""
    return {"python": platform.python_version()} | {name: _version(name) for name in LIBRARIES}


def _version(library: str) -> str | None:
    try:
        return version(library)
    except PackageNotFoundError:
        return None


def hardware(trainer: Trainer) -> dict[str, Any]:
    """Devices of the run as used."""
    t = trainer
    on_gpu = t.accelerator != "cpu" and torch.cuda.is_available()
    return {
        "device": torch.cuda.get_device_name(0) if on_gpu else _cpu_name(),
        "accelerator": "cuda" if on_gpu else t.accelerator if t.accelerator == "mps" else "cpu",
        "processes": t.processes,
        "threads": torch.get_num_threads(),
        "precision": t.precision,
        "cpu_has_bf16": None if on_gpu else has_bf16(),
        "system": platform.platform(),
    }


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def peak_memory_bytes() -> int:
    """Peak device memory on a GPU, else the peak resident memory of this process."""
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return torch.cuda.max_memory_allocated()
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
