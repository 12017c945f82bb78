"""Seconds until the commands do something: help, a refusal, the first training step, a report, a prediction.

    python -m benchmarks.startup                      # every command three times, interleaved
    python -m benchmarks.startup --repeats 7 --imports train

Each command is a process of its own, as a user starts it; `cpu` is its own and its children's CPU time. The commands
take turns, so that a slowly changing load meets all of them; median and range. `--imports` names what is broken down
by `python -X importtime`: milliseconds of each top package's own modules, without what they import.
"""

from __future__ import annotations

import json
import os
import platform
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.device import Arguments, at_least, output_file, told

ROOT = Path(__file__).resolve().parent.parent
TINY = ["encoder=vit_micro", "encoder.depth=2", "data=digits", "data.samples_per_class=5", "recipe.batch_size=16"]
TINY += ["epochs=1", "footprint.energy=false", "reconstruct_every=0", "trainer=cpu", "trainer.threads=1"]
TINY += ["monitor.pictures=false"]
LINE = re.compile(r"import time:\s+(\d+) \|\s+\d+ \|\s+(\S+)")


def commands(folder: Path) -> dict[str, list[str]]:
    """Words after `python -m`, by what is measured; `folder` gets the runs."""
    train = ["src.train", *TINY, f"runs_dir={folder}", "experiment=startup"]
    run = next(iter(folder.glob("startup/*/result.json")), folder / "none").parent
    return {
        "train --help": ["src.train", "--help"],
        "train, refused": ["src.train", "encoder=vit_x"],
        "train, one step": [*train, "trainer.max_steps=1", "force=true", "eval_every=1"],
        "report": ["src.report", f"runs={folder}", f"out={folder / 'report.html'}"],
        "predict": ["src.predict", f"run={run}", f"input={folder / 'photo.png'}", f"out={folder / 'predicted'}"],
    }


def execute(words: list[str], *flags: str) -> tuple[dict[str, float], str]:
    """Seconds of `python -m words` and what it wrote to stderr.

    Raises:
        SystemExit: it failed otherwise than by refusing.
    """
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run([sys.executable, *flags, "-m", *words], cwd=ROOT, capture_output=True, text=True)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode != (2 if "encoder=vit_x" in words else 0):
        raise SystemExit(f"python -m {' '.join(words)} failed:\n{done.stderr[-2000:]}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"wall": wall, "cpu": cpu, "load": os.getloadavg()[0]}, done.stderr


def imported(words: list[str]) -> dict[str, float]:
    """Milliseconds of each top package's own modules, the longest first."""
    spent: Counter[str] = Counter()
    for own, module in LINE.findall(execute(words, "-X", "importtime")[1]):
        spent[module.partition(".")[0]] += int(own)
    return {name: own / 1000 for name, own in spent.most_common()}


def main() -> None:
    parser = Arguments(__doc__)
    parser.add_argument("--repeats", type=at_least(1), default=3)
    parser.add_argument(
        "--imports",
        nargs="*",
        choices=list(commands(Path())),
        default=["train --help", "train, one step", "report", "predict"],
    )
    parser.add_argument("--json", type=output_file, default=ROOT / "runs" / "benchmarks" / "startup.json")
    args = parser.parse_args()
    report: dict[str, Any] = {"python": platform.python_version(), "times": {}, "imports": {}}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        from PIL import Image

        Image.new("RGB", (40, 40), (90, 120, 30)).save(folder / "photo.png")
        execute(commands(folder)["train, one step"])
        measured: dict[str, list[dict[str, float]]] = {name: [] for name in commands(folder)}
        for _ in range(args.repeats):
            for name, seconds in measured.items():
                seconds.append(execute(commands(folder)[name])[0])
        for name, seconds in measured.items():
            report["times"][name] = seconds
            for clock in ("cpu", "wall"):
                values = [each[clock] for each in seconds]
                span = f"{min(values):.2f}-{max(values):.2f}"
                print(f"{name:16} {clock:4} {statistics.median(values):6.2f} s  {span}", flush=True)
        for name in args.imports:
            report["imports"][name] = imported(commands(folder)[name])
            shown = "  ".join(f"{module} {ms:.0f}" for module, ms in list(report["imports"][name].items())[:14])
            print(f"imports of {name}, ms: {sum(report['imports'][name].values()):.0f} in all: {shown}")
    args.json.parent.mkdir(parents=True, exist_ok=True)
    args.json.write_text(json.dumps(report, indent=1) + "\n")
    print(f"written to {args.json}")


if __name__ == "__main__":
    told(main)
