"""Versions, processors, GPUs, disk and shared memory."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from pathlib import Path
from typing import Any

import psutil
import torch
from packaging.requirements import InvalidRequirement, Requirement
from packaging.version import Version

from ssat.commands.doctor.finding import Finding
from ssat.config.schema import Trainer
from ssat.core.launch import cores
from ssat.runs.machine import hardware, versions

ROOT = Path(__file__).resolve().parents[4]
SHOWN = ("python", "torch", "torchvision", "lightning", "timm", "hydra-core", "numpy")
ON_CPU = Trainer(accelerator="cpu")
GB = 1e9
LOW_DISK, NO_DISK = 10 * GB, 1 * GB  # a checkpoint of ViT-B with its optimizer takes 1 GB
LOW_SHM = 1 * GB  # two batches per loader worker of 224-pixel images take some 100 MB


def installed(name: str) -> str | None:
    """The version of an installed package, without a build's local part such as +cpu."""
    try:
        return Version(version(name)).public
    except PackageNotFoundError:
        return None


def _requirements(lines: list[str]) -> list[Requirement]:
    """Those of the lines that are requirements of this Python and system."""
    found = []
    for line in lines:
        try:
            requirement = Requirement(line.strip())
        except InvalidRequirement:
            continue
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            found.append(requirement)
    return found


def _needs(project: Path) -> tuple[list[str], str]:
    """The package's requirements and Python versions: of `project`, or as they were installed where it is not there."""
    if not project.is_file():
        return requires("ssat") or [], metadata("ssat")["Requires-Python"]
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    table = tomllib.loads(project.read_text())["project"]
    return table["dependencies"], table["requires-python"]


def check_versions(root: Path = ROOT) -> Iterator[Finding]:
    """What is installed against the ranges of pyproject.toml (out of range: failed)."""
    needs, supported = _needs(root / "pyproject.toml")
    ranges = _requirements(needs)
    python = Requirement(f"python{supported}")
    here = {"python": versions()["python"]} | {need.name: installed(need.name) for need in ranges}
    wrong = [
        f"{need.name} is {here[need.name] or 'not installed'}, needed is {need.specifier or 'any version'}"
        for need in [python, *ranges]
        if not need.specifier.contains(here[need.name] or "0", prereleases=True) or here[need.name] is None
    ]
    if wrong:
        cure = "`make setup` installs the pinned versions"
        yield Finding("versions", "failed", "; ".join(wrong), cure, {"versions": here})
        return
    shown = ", ".join(f"{name} {here[name]}" for name in SHOWN if name in here)
    yield Finding(
        "versions", "ok", f"{shown}; all {len(ranges)} ranges of pyproject.toml kept", details={"versions": here}
    )


def check_lock(root: Path = ROOT) -> Iterator[Finding]:
    """What is installed against requirements.lock (another version: a warning)."""
    lock = root / "requirements.lock"
    if not lock.is_file():
        yield Finding("requirements.lock", "skipped", "an installed package has none")
        return
    pins = _requirements(lock.read_text().splitlines())
    drifted, same, absent = [], 0, []
    for pin in pins:
        here, pinned = installed(pin.name), str(pin.specifier).removeprefix("==")
        if here is None:
            absent.append(pin.name)
        elif pin.specifier.contains(here, prereleases=True):
            same += 1
        else:
            drifted.append(f"{pin.name} {here} (pinned: {pinned})")
    text = f"{same} of {len(pins)} packages as pinned"
    text += f", {len(absent)} not installed" if absent else ""
    details = {"not installed": absent, "other version": drifted}
    if not drifted:
        yield Finding("requirements.lock", "ok", text, details=details)
        return
    listed = ", ".join(drifted[:5]) + (f" and {len(drifted) - 5} more" if len(drifted) > 5 else "")
    cure = "`make setup` installs the pinned versions; results may differ from documented ones until then"
    yield Finding("requirements.lock", "warning", f"{text}, {listed}", cure, details)


def usable_cpus() -> float:
    """Cores that this process may use: its affinity, and in a container its quota."""
    count = float(cores())
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
    except (OSError, ValueError):
        return count
    return count if quota == "max" else min(count, int(quota) / int(period))


def check_cpu() -> Iterator[Finding]:
    """Name, cores, threads and memory."""
    usable, threads, memory = usable_cpus(), torch.get_num_threads(), psutil.virtual_memory()
    text = (
        f"{hardware(ON_CPU)['device']}, {usable:g} of {os.cpu_count()} cores usable, {threads} PyTorch threads,"
        f" {memory.available / GB:.0f} of {memory.total / GB:.0f} GB memory free"
    )
    if threads > 1 and threads > 1.5 * usable:
        yield Finding(
            "CPU", "warning", text, f"set trainer.threads={max(1, int(usable))}: more threads than cores are slow"
        )
    elif memory.available < 2 * GB:
        yield Finding("CPU", "warning", text, "free some memory: a run with its libraries takes 1 to 2 GB")
    else:
        yield Finding("CPU", "ok", text)


@dataclass(frozen=True)
class Driver:
    """NVIDIA's driver: its version, the newest CUDA it runs, and the GPUs it sees."""

    version: str
    cuda: tuple[int, int]
    gpus: int


def nvidia_driver() -> Driver | None:
    """The driver, or None where there is none."""
    import pynvml

    try:
        pynvml.nvmlInit()
        cuda = pynvml.nvmlSystemGetCudaDriverVersion_v2()
        text = pynvml.nvmlSystemGetDriverVersion()
        return Driver(text, (cuda // 1000, cuda % 1000 // 10), pynvml.nvmlDeviceGetCount())
    except pynvml.NVMLError:
        return None


def gpu_problem(driver: Driver | None, build: str | None, hidden: bool) -> Finding | None:
    """Why PyTorch sees no GPU: there is none, it is hidden, or the PyTorch build and the driver do not fit each other.

    Args:
        driver: NVIDIA's.
        build: the CUDA version PyTorch was built for, such as '12.8'; None for a build without CUDA.
        hidden: whether CUDA_VISIBLE_DEVICES is set.
    """
    if driver is None or driver.gpus == 0:
        return Finding("GPU", "ok", "none here (no NVIDIA driver or device): training uses the CPU")
    seen = f"the driver {driver.version} sees {driver.gpus} GPU(s), PyTorch none"
    if hidden:
        return Finding("GPU", "warning", seen, "CUDA_VISIBLE_DEVICES hides them: unset it to train on them")
    if build is None:
        return Finding(
            "GPU", "failed", f"{seen}: this PyTorch is built without CUDA", "`make clean setup` installs it with CUDA"
        )
    if tuple(int(part) for part in build.split(".")[:2]) > driver.cuda:
        newest = f"{driver.cuda[0]}.{driver.cuda[1]}"
        text = f"{seen}: PyTorch is built for CUDA {build}, the driver runs up to {newest}"
        return Finding("GPU", "failed", text, "update the driver, or install a PyTorch that it can run (docs/faq.md)")
    return Finding("GPU", "failed", seen, "start Python's `import torch; torch.cuda.init()`, which says why")


def check_gpus() -> Iterator[Finding]:
    """Each GPU with its memory, and a small product computed on it; or why there is none."""
    if torch.backends.mps.is_available():
        yield Finding("GPU", "ok", "Apple GPU (MPS), not tried with this framework yet: trainer=cpu avoids it")
        return
    driver = nvidia_driver()
    if not torch.cuda.is_available():
        problem = gpu_problem(driver, torch.version.cuda, "CUDA_VISIBLE_DEVICES" in os.environ)
        yield problem or Finding("GPU", "ok", "none here")
        return
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        bf16 = torch.cuda.get_device_capability(index) >= (8, 0)
        text = (
            f"{torch.cuda.get_device_name(index)}, {free / GB:.0f} of {total / GB:.0f} GB free,"
            f" bf16 {'yes' if bf16 else 'only emulated'}, CUDA {torch.version.cuda},"
            f" driver {driver.version if driver else 'unknown'}"
        )
        square = torch.full((64, 64), 0.5, device=f"cuda:{index}", dtype=torch.bfloat16) @ torch.ones(
            64, 64, device=f"cuda:{index}", dtype=torch.bfloat16
        )
        if not bool((square == 32).all()):
            yield Finding(f"GPU {index}", "failed", f"{text}: a product is wrong", "try another GPU or driver")
        elif not bf16:
            yield Finding(f"GPU {index}", "warning", text, "use trainer.precision=16: this GPU has no bf16 units")
        elif free < 2 * GB:
            yield Finding(
                f"GPU {index}", "warning", text, "another program holds its memory: stop it, or use another GPU"
            )
        else:
            yield Finding(f"GPU {index}", "ok", text)


def check_disk(runs_dir: Path) -> Iterator[Finding]:
    """Free space where runs are written, and whether files can be written there."""
    folder = next(path for path in [runs_dir.absolute(), *runs_dir.absolute().parents] if path.exists())
    cure = "set runs_dir=<a folder of yours>, or change its owner or rights"
    if not folder.is_dir():
        yield Finding("runs folder", "failed", f"{runs_dir}: {folder} is a file, not a folder", cure)
        return
    try:
        with tempfile.TemporaryDirectory(prefix=".ssat-doctor-", dir=folder) as trial:
            (Path(trial) / "a").write_text("written")
            os.replace(Path(trial) / "a", Path(trial) / "b")
    except OSError as error:
        yield Finding("runs folder", "failed", f"{runs_dir} cannot be written to ({error.strerror})", cure)
        return
    free = shutil.disk_usage(folder).free
    text = f"{runs_dir} can be written to, {free / GB:,.0f} GB free"
    if free >= LOW_DISK:
        yield Finding("runs folder", "ok", text)
        return
    cure = "free some space, or set runs_dir=<a folder on another disk>: checkpoints of ViT-B take 1 GB each"
    yield Finding(
        "runs folder", "failed" if free < NO_DISK else "warning", text.replace(" 0 GB", f" {free / 1e6:.0f} MB"), cure
    )


def check_shared_memory(folder: Path = Path("/dev/shm")) -> Iterator[Finding]:
    """Room for the batches that loader processes hand over."""
    if not folder.is_dir():
        yield Finding("shared memory", "skipped", f"this system has no {folder}")
        return
    usage = shutil.disk_usage(folder)
    text = f"{usage.free / GB:.1f} of {usage.total / GB:.1f} GB free in {folder}"
    if usage.free >= LOW_SHM:
        yield Finding("shared memory", "ok", text)
        return
    cure = "loader processes need it: start a container with --shm-size=8g, or set data.num_workers=0"
    yield Finding("shared memory", "warning", text, cure)


def snapshot() -> dict[str, Any]:
    """Versions and hardware as every run records them."""
    return {"versions": versions(), "hardware": hardware(ON_CPU)}
