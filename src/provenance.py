"""Where a result comes from: code, libraries and machine."""

from __future__ import annotations

import platform
import resource
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

LIBRARIES = ("torch", "torchvision", "lightning", "timm", "torchmetrics", "hydra-core", "numpy", "pillow", "codecarbon")


def git_commit() -> str | None:
    """The commit of the code, with '+' when the working tree differs from it; None outside a repository."""
    root = Path(__file__).resolve().parent.parent

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def versions() -> dict[str, str]:
    return {"python": platform.python_version()} | {name: version(name) for name in LIBRARIES}


def hardware(config: dict[str, Any]) -> dict[str, Any]:
    """Devices of the run as used."""
    t = config["trainer"]
    on_gpu = t["accelerator"] != "cpu" and torch.cuda.is_available()
    return {
        "device": torch.cuda.get_device_name(0) if on_gpu else _cpu_name(),
        "accelerator": "cuda" if on_gpu else t["accelerator"] if t["accelerator"] == "mps" else "cpu",
        "processes": t["devices"] * t["num_nodes"],
        "threads": torch.get_num_threads(),
        "precision": str(t["precision"]),
        "system": platform.platform(),
    }


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
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
