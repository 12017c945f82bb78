"""What many tests start from: tiny real runs on the embedded digits, in this process or as the command itself."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir

from ssat.commands.train import find_run_dir
from ssat.commands.train import train as train_config
from ssat.config.resolve import resolve
from ssat.config.words import CONF

ROOT = Path(__file__).resolve().parents[1]

TINY = [
    "encoder=vit_micro",
    "encoder.depth=2",
    "encoder.embed_dim=32",
    "encoder.num_heads=2",
    "data=digits",
    "data.patch_size=4",
    "data.samples_per_class=16",
    "recipe.batch_size=16",
    "epochs=2",
    "footprint.energy=false",
    "reconstruct_every=1",
    "trainer=cpu",
    "trainer.threads=1",
    "monitor.pictures=false",
]


class Killed(BaseException):
    """In place of SIGKILL."""


@contextmanager
def killed_after(name: str, times: int) -> Iterator[None]:
    """What is done within is killed once a file `name` has been put in its place so many times.

    A real SIGKILL would cost a process of its own; here no file is put in its place any more after it.
    """
    replace, count = os.replace, 0

    def kill(source: Any, target: Any) -> None:
        nonlocal count
        if count < times:
            replace(source, target)
            count += Path(target).name == name
        if count == times:
            raise Killed

    with pytest.MonkeyPatch.context() as patch, suppress(Killed):
        patch.setattr(os, "replace", kill)
        yield
    assert count == times, "it ended before"


def start(*overrides: str, runs: Path) -> subprocess.Popen:
    """The command; the overrides come last and win."""
    flags = [word for word in overrides if word.startswith("-")]
    values = [word for word in overrides if not word.startswith("-")]
    return subprocess.Popen(
        [sys.executable, "-m", "src.train", *flags, *TINY, f"runs_dir={runs}", *values],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"WANDB_MODE": "offline"},
    )


def command(*overrides: str, runs: Path) -> subprocess.CompletedProcess:
    process = start(*overrides, runs=runs)
    out, err = process.communicate(timeout=300)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def train(*overrides: str, runs: Path) -> Path:
    """A run in this process; returns its folder."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = resolve(compose("train", overrides=[*TINY, f"runs_dir={runs}", *overrides]))
    train_config(config)
    return find_run_dir(config)


def only_run(runs: Path) -> Path:
    (record,) = runs.glob("[!.]*/*/result.json")
    return record.parent


def record_of(run: Path) -> dict:
    return json.loads((run / "result.json").read_text())


def weights(run: Path, phase: str = "joint") -> dict[str, torch.Tensor]:
    return torch.load(run / phase / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


def largest_difference(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    assert a.keys() == b.keys()
    return max((a[name].double() - b[name].double()).abs().max().item() for name in a)


def fail_of(result: subprocess.CompletedProcess) -> str:
    """The one sentence of a refused command."""
    assert result.returncode == 2, result.stderr
    assert "Traceback" not in result.stderr + result.stdout
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    return line


def wait_for(condition, process: subprocess.Popen, seconds: float = 200) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def start_and_kill(*settings: str, runs: Path, phase: str = "joint") -> None:
    """A run that is killed soon after its first checkpoint."""
    process = start(*settings, runs=runs)
    wait_for(lambda: list(runs.glob(f"*/*/{phase}/checkpoints/last.ckpt")), process)
    time.sleep(0.3)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not list(runs.glob("*/*/result.json")), "it was killed too late to show anything"


def config(*overrides: str) -> dict:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return resolve(compose("train", overrides=list(overrides)))


def on_two_ranks(work: Callable[[Path, int, int], None], folder: Path) -> tuple[Any, Any]:
    """What `work(folder, rank, 2)` saves as <rank>.pt in two processes at once."""
    first, second = on_ranks(work, folder, 2)
    return first, second


def on_ranks(work: Callable[[Path, int, int], None], folder: Path, world: int) -> list[Any]:
    """What `work(folder, rank, world)` saves as <rank>.pt in so many processes at once.

    Forked as a loader's workers are: two new programs would spend 10 CPU seconds on imports.
    """
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=work, args=(folder, rank, world), daemon=True) for rank in range(world)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=60)
    assert [process.exitcode for process in processes] == [0] * world
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(world)]
