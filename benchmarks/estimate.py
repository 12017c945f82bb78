"""How near `estimate=true` comes: each configuration is estimated and then trained, in turn, in fresh processes.

python -m benchmarks.estimate [--repeats 2] [--only digits] [--cifar <folder with train/<class>/* and test/<class>/*>]
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.device import Arguments, at_least, told

COMMON = ["trainer=cpu", "trainer.threads=1", "trainer.progress=off", "experiment=estimate"]
CASES = {
    "digits": ["encoder=vit_micro", "data=digits", "mode=ssat", "epochs=12"],
    "jpeg": [
        *("encoder=vit_micro", "encoder.patch_size=4", "data=image_folder", "data.img_size=32", "mode=ssl_ft"),
        *("data.samples_per_class=200", "epochs=4"),
    ],
    "vit_t": [
        *("encoder=vit_t", "encoder.patch_size=4", "data=image_folder", "data.img_size=32", "mode=ssat"),
        *("data.samples_per_class=64", "epochs=3", "data.pipeline=batched"),
    ],
    "cvt_13": ["encoder=cvt_13", "data=digits", "mode=scratch", "epochs=2", "data.samples_per_class=64"],
}


def command(words: list[str], folder: Path) -> dict[str, float]:
    """Run src.train; returns its seconds and CPU seconds.

    Raises:
        CalledProcessError: it failed; its output is printed.
    """
    started, before = time.perf_counter(), cpu_seconds()
    done = subprocess.run(
        [sys.executable, "-m", "src.train", *words, f"runs_dir={folder}"], capture_output=True, text=True
    )
    if done.returncode:
        print(done.stdout, done.stderr, sep="\n", file=sys.stderr)
        done.check_returncode()
    return {"wall": time.perf_counter() - started, "cpu": cpu_seconds() - before}


def cpu_seconds() -> float:
    """Of all children so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def startup() -> float:
    """CPU seconds that a training command takes before it does anything: its imports."""
    before = cpu_seconds()
    subprocess.run([sys.executable, "-c", "import src.train, ssat.training.phases"], check=True)
    return cpu_seconds() - before


def compare(name: str, words: list[str]) -> dict[str, Any]:
    """One estimate and one run; `ratio` = estimated / real.

    `cpu` compares CPU seconds (one thread): other work on the machine changes them little, and the seconds much.
    """
    with tempfile.TemporaryDirectory() as folder:
        runs = Path(folder)
        took = command([*words, "estimate=true"], runs)
        (path,) = runs.glob(".estimates/*.json")
        predicted = json.loads(path.read_text())
        left = sorted(path.name for path in runs.rglob("*"))
        assert left == sorted([".estimates", path.name]), f"the estimate left {left}"
        whole = command(words, runs)
        (path,) = runs.glob("*/*/result.json")
        real = json.loads(path.read_text())
        written = sum(
            file.stat().st_size for file in path.parent.rglob("*") if file.suffix in (".ckpt", ".csv", ".png")
        )
    pairs = {
        "seconds": (predicted["total"]["seconds"], real["seconds"]),
        "cpu": (sum(row["seconds"] * row["cpu_share"] for row in predicted["phases"]), whole["cpu"] - startup()),
        "kwh": (predicted["total"]["kwh"], real["energy"]["kwh"]),
        "memory": (predicted["peak_memory_bytes"], real["peak_memory_bytes"]),
        "disk": (predicted["total"]["disk_bytes"], written),
    }
    return {
        "case": name,
        "steps": [sum(phase["steps"] for phase in predicted["phases"]), real["steps"]],
        "pairs": pairs,
        "ratio": {key: a / b for key, (a, b) in pairs.items()},
        "command": {"estimate": took, "run": whole},
    }


def main() -> None:
    parser = Arguments(__doc__)
    parser.add_argument("--repeats", type=at_least(1), default=2)
    parser.add_argument("--only", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--cifar", default="data/cifar10_jpeg", help="image folder of 32-pixel images")
    parser.add_argument("--out", default=None, help="JSON file")
    args = parser.parse_args()
    table = Table(box=None, title="estimated / real")
    titles = ("case", "steps", "seconds", "CPU s", "kWh", "memory", "disk", "real seconds", "the estimate took")
    for title in titles:
        table.add_column(title, justify="left" if title == "case" else "right")
    results = []
    for _ in range(args.repeats):  # in turn: other work on the machine comes and goes
        for name in args.only:
            words = [*CASES[name], *COMMON]
            words += [f"data.root={args.cifar}"] if "data=image_folder" in words else []
            results.append(result := compare(name, words))
            ratios = [f"{result['ratio'][key]:.2f}" for key in ("seconds", "cpu", "kwh", "memory", "disk")]
            steps = "equal" if len(set(result["steps"])) == 1 else " / ".join(map(str, result["steps"]))
            row = [name, steps, *ratios, f"{result['pairs']['seconds'][1]:.0f}"]
            table.add_row(*row, f"{result['command']['estimate']['wall']:.0f} s")
            print(*row, flush=True)
            if args.out:
                Path(args.out).write_text(json.dumps(results, indent=2) + "\n")
    Console(width=120).print(table)


if __name__ == "__main__":
    told(main)
