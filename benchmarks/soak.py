"""Trains for many epochs with everything on, and watches whether memory, open files or threads of the training grow.

python -m benchmarks.soak [--epochs 300] [--workers 0] [--out <folder>] [<more words of src.train>]; exit status 1 where
memory grows by 2 % or more after the first 20 epochs, or files or threads by one.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import psutil

from benchmarks.device import at_least, told
from ssat.core.standing import VARIABLE, read_standing
from tests.helpers import TINY

EVERYTHING = [
    "mode=ssat",
    "recipe.ema_decay=0.9",
    "monitor.knn_every=2",
    "monitor.linear_every=10",
    "monitor.conflict_every=10",
    "reconstruct_every=5",
    "logger=wandb",
    "footprint.energy=true",
    "checkpoint_minutes=0.01",
]
WARM_UP = 20  # epochs in which caches fill
GROWTH = 0.02  # of the memory, after them


@dataclass(frozen=True)
class Sample:
    """What the training's own process holds in an epoch; workers and W&B are processes of their own.

    Attributes:
        epoch: from 1.
        resident, own: bytes in memory; those of them that no other process shares.
        files: open descriptors.
        threads: that run.
        children: processes below it.
    """

    epoch: int
    resident: int
    own: int
    files: int
    threads: int
    children: int


def sample(process: psutil.Process, epoch: int) -> Sample:
    """One look at the process."""
    memory = process.memory_full_info()
    children = len(process.children(recursive=True))
    return Sample(epoch, memory.rss, memory.uss, process.num_fds(), process.num_threads(), children)


def grown(values: Sequence[int], window: int = WARM_UP) -> float:
    """Growth of the median of the last `window` values over that of the first, as a share: 0.02 = 2 %."""
    window = max(1, min(window, len(values) // 2))
    return median(values[-window:]) / median(values[:window]) - 1


def watch(words: list[str], out: Path) -> list[Sample]:
    """Run a training to its end; a sample of every epoch that was seen."""
    standing, samples = out / "standing.json", list[Sample]()
    env = os.environ | {"WANDB_MODE": "offline", VARIABLE: str(standing)}
    with (out / "log.txt").open("w") as log:
        run = subprocess.Popen(
            [sys.executable, "-m", "src.train", *TINY, *EVERYTHING, *words], env=env, stdout=log, stderr=log
        )
        process = psutil.Process(run.pid)
        while run.poll() is None:
            now = read_standing(standing)
            if now and now.epoch > (samples[-1].epoch if samples else 0):
                samples.append(sample(process, now.epoch))
            time.sleep(0.2)
    if run.returncode:
        raise SystemExit(f"the training ended with {run.returncode}: see {out / 'log.txt'}")
    return samples


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=at_least(3 * WARM_UP), default=300)
    parser.add_argument("--workers", type=at_least(0), default=0)
    parser.add_argument("--out", type=Path)
    args, words = parser.parse_known_args()
    out = args.out or Path(tempfile.mkdtemp(prefix="soak-"))
    out.mkdir(parents=True, exist_ok=True)
    given = [f"epochs={args.epochs}", f"data.num_workers={args.workers}", f"runs_dir={out}", *words]
    samples = watch(given, out)
    (out / "samples.json").write_text(json.dumps([asdict(each) for each in samples]))
    steady = [each for each in samples if WARM_UP < each.epoch < args.epochs]  # the last one draws the end's pictures
    growth = {name: grown([getattr(each, name) for each in steady]) for name in ("resident", "own")}
    more = {name: steady[-1].__dict__[name] - steady[0].__dict__[name] for name in ("files", "threads", "children")}
    megabytes = f"{steady[0].resident / 1e6:.0f} -> {steady[-1].resident / 1e6:.0f} MB"
    print(f"epochs {steady[0].epoch} to {steady[-1].epoch}, {len(steady)} looks, {args.workers} workers: {megabytes}")
    print(", ".join(f"{name} {value:+.2%}" for name, value in growth.items()))
    print(", ".join(f"{name} {steady[0].__dict__[name]} ({value:+d})" for name, value in more.items()))
    print(f"samples: {out / 'samples.json'}")
    # `own` is told alone: pages that forked workers share become own ones when they are written.
    sys.exit(growth["resident"] >= GROWTH or more["files"] > 0 or more["threads"] > 0)


if __name__ == "__main__":
    told(main)
