"""Seconds of training until a test accuracy is reached, of one setting and of variants of it.

    python -m benchmarks.time_to_accuracy accuracy=90 variant="recipe.patch_dropout=0.5" variant="recipe.ema_decay=0.99"
    python -m benchmarks.time_to_accuracy accuracy=40 root=<folder with train/<class>/* and test/<class>/*> variant=...

`setting` holds words of `python -m src.train` for all runs, `variant` (any number of them) the words that one of them
has besides; the baseline has none. `seeds` runs of each, in alternating order, each a process of its own on one thread.
The accuracy is that of every evaluation, after each epoch; the seconds are those of the training before it, evaluations
left out. The ratio is that of the two runs of one seed. Prints a table and writes JSON (`json=<file>`) after every run.
Default data: the embedded digits; with `root` images of 32 px. `device=cuda` trains on a GPU.
"""

from __future__ import annotations

import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import lightning.pytorch as pl
from rich.console import Console
from rich.table import Table

from benchmarks.device import refuse, require, told
from ssat.config.overrides import check, composed
from ssat.config.resolve import resolve
from ssat.runs.machine import versions

ROOT = Path(__file__).resolve().parent.parent
BASELINE = "baseline"
COMMON = [
    *("encoder=vit_micro", "mode=ssat", "epochs=20", "trainer.threads=1", "trainer.progress=off"),
    *("eval_every=1", "reconstruct_every=0", "footprint.energy=false", "monitor.pictures=false"),
]
IMAGES = ["data=image_folder", "data.img_size=32", "encoder.patch_size=4", "data.pipeline=batched"]
T = TypeVar("T")


@dataclass(frozen=True)
class Asked:
    """The words of the command.

    Attributes:
        accuracy: to be reached, %.
        variants: words of src.train, one text each.
        setting: words of all runs.
        seeds: runs of each.
        root: folder of images; empty = the digits.
        device: cpu or cuda.
        json: the file to be written.
    """

    accuracy: float
    variants: tuple[str, ...] = ()
    setting: str = ""
    seeds: int = 3
    root: str = ""
    device: str = "cpu"
    json: Path = ROOT / "runs" / "benchmarks" / "time_to_accuracy.json"


@dataclass(frozen=True)
class Point:
    """An evaluation: seconds of training before it, of the processor and of the wall's clock, and the accuracy, %."""

    cpu: float
    wall: float
    accuracy: float


class Clock(pl.Callback):
    """Appends a line for every evaluation, and the last one of a phase, to a file; see `points_of`."""

    def __init__(self, path: str) -> None:
        self.path = path

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.spent, self.since = (0.0, 0.0), now()

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.spent = self._so_far()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        found = [value for name, value in trainer.callback_metrics.items() if name in ("val/acc1", "test/acc1")]
        self._write(self.spent, float(found[0]) if found else None)
        self.since = now()

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._write(self._so_far(), None, last=True)

    def _so_far(self) -> tuple[float, float]:
        cpu, wall = (spent + end - begin for spent, begin, end in zip(self.spent, self.since, now(), strict=True))
        return cpu, wall

    def _write(self, spent: tuple[float, float], accuracy: float | None, *, last: bool = False) -> None:
        with open(self.path, "a") as file:
            print(json.dumps({"cpu": spent[0], "wall": spent[1], "accuracy": accuracy, "last": last}), file=file)


def now() -> tuple[float, float]:
    return time.process_time(), time.perf_counter()


def points_of(text: str) -> list[Point]:
    """The evaluations in what `Clock` has written; the seconds of a phase come after those of the phases before it."""
    points, cpu, wall = [], 0.0, 0.0
    for line in map(json.loads, text.splitlines()):
        if line["accuracy"] is not None:
            points.append(Point(cpu + line["cpu"], wall + line["wall"], line["accuracy"]))
        if line["last"]:
            cpu, wall = cpu + line["cpu"], wall + line["wall"]
    return points


def reached(points: Sequence[Point], accuracy: float) -> Point | None:
    """The first evaluation with at least this accuracy."""
    return next((point for point in points if point.accuracy >= accuracy), None)


def order(items: Sequence[T], seed: int) -> list[T]:
    """Every other seed the other way round: what else the machine does meets all of them."""
    return list(items) if seed % 2 == 0 else list(reversed(items))


def words_of(asked: Asked, variant: str, seed: int) -> list[str]:
    """Words after `python -m src.train`, later ones win."""
    data = [*IMAGES, f"data.root={asked.root}"] if asked.root else ["data=digits"]
    own = [] if variant == BASELINE else shlex.split(variant)
    trainer = "trainer=gpu" if asked.device == "cuda" else "trainer=cpu"
    return [*COMMON, trainer, *data, *shlex.split(asked.setting), *own, f"seed={seed}"]


def trained(words: Sequence[str]) -> list[Point]:
    """Run the command in a folder that is deleted; its evaluations.

    Raises:
        SystemExit: it failed; what it said is printed.
    """
    with tempfile.TemporaryDirectory(prefix="ssat-accuracy-") as folder:
        lines = Path(folder, "clock.jsonl")
        clock = f'callbacks=[{{kind: "benchmarks.time_to_accuracy:Clock", path: "{lines}"}}]'
        path = os.pathsep.join(filter(None, [str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]))
        done = subprocess.run(
            [sys.executable, "-m", "src.train", *words, clock, f"runs_dir={folder}"],
            **{"cwd": ROOT, "capture_output": True, "text": True},
            env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path},
        )
        if done.returncode:
            said = [line for line in done.stderr.splitlines() if line.startswith("error: ")] or [done.stderr]
            refuse(f"python -m src.train {shlex.join(words)} has failed: {said[-1].removeprefix('error: ')}")
        return points_of(lines.read_text())


def summary(asked: Asked, runs: dict[str, dict[int, list[Point]]]) -> list[dict[str, Any]]:
    """A row for each variant: seconds to the accuracy, their ratio to the baseline's, the final accuracy."""
    first = {name: {seed: reached(points, asked.accuracy) for seed, points in of.items()} for name, of in runs.items()}
    rows = []
    for name, of in runs.items():
        there = {seed: point for seed, point in first[name].items() if point is not None}
        final = [points[-1].accuracy for points in of.values()]
        row: dict[str, Any] = {"variant": name, "runs": len(of), "reached": len(there), "final": final}
        for clock in ("cpu", "wall"):
            base = {seed: getattr(point, clock) for seed, point in first[BASELINE].items() if point is not None}
            row[clock] = [getattr(point, clock) for point in there.values()]
            row[f"{clock}_total"] = [getattr(points[-1], clock) for points in of.values()]
            row[f"{clock}_ratio"] = [
                base[seed] / getattr(point, clock) for seed, point in there.items() if seed in base
            ]
        rows.append(row)
    return rows


def table_of(asked: Asked, rows: Sequence[dict[str, Any]]) -> Table:
    """What is printed."""
    to = f"to {asked.accuracy:g} %"
    heads = (f"CPU s {to}", f"wall s {to}", "times as fast (range)", "reached", "CPU s in all", "final accuracy, %")
    table = Table("variant", *heads)
    for row in rows:
        ratio = "" if row["variant"] == BASELINE else shown(row["cpu_ratio"], ".2f", spread=True)
        spread = f" ± {statistics.stdev(row['final']):.1f}" if len(row["final"]) > 1 else ""
        table.add_row(
            *(row["variant"], shown(row["cpu"], ".1f"), shown(row["wall"], ".1f"), ratio),
            *(f"{row['reached']} of {row['runs']}", shown(row["cpu_total"], ".1f")),
            f"{statistics.fmean(row['final']):.1f}{spread}",
        )
    return table


def shown(values: Sequence[float], form: str, *, spread: bool = False) -> str:
    """The median, with its range if asked for; a dash for no value."""
    if not values:
        return "-"
    median = f"{statistics.median(values):{form}}"
    return f"{median} ({min(values):{form}} to {max(values):{form}})" if spread else median


def asked_for(words: Sequence[str]) -> Asked:
    """The command's words; ends with one sentence for a mistake."""
    known: dict[str, Callable[[str], Any]] = {
        **{"accuracy": float, "seeds": int, "json": Path, "setting": str, "root": str, "device": str}
    }
    asked = Asked(accuracy=-1)
    for word in words:
        key, _, value = word.partition("=")
        if key == "variant":
            asked = replace(asked, variants=(*asked.variants, value))
            continue
        if key not in known:
            refuse(f"{word!r} is not an option; options: {', '.join(f'{name}=' for name in (*known, 'variant'))}")
        try:
            asked = replace(asked, **{key: known[key](value)})
        except ValueError:
            refuse(f"{word!r}: {key} is a number")
    if not 1 <= asked.accuracy <= 100:
        refuse("accuracy= is the accuracy to be reached in percent, 1 to 100: such as accuracy=90")
    if asked.seeds < 1:
        refuse(f"seeds={asked.seeds} trains nothing: give at least 1")
    if asked.root and not Path(asked.root, "train").is_dir():
        refuse(f"root={asked.root} has no folder train: give a folder with train/<class>/* and test/<class>/*")
    if repeated := [name for name in asked.variants if asked.variants.count(name) > 1 or not name.strip()]:
        refuse(f"variant={repeated[0]} is empty or there twice: give every variant once")
    try:
        commands = [words_of(asked, name, 0) for name in (BASELINE, *asked.variants)]
    except ValueError as error:  # of shlex
        refuse(f"setting= or variant= cannot be read ({error}): close every quotation mark")
    told(partial(check_all, commands))
    return asked


def check_all(commands: Sequence[Sequence[str]]) -> None:
    """Refuse what `src.train` would, of every variant before hours of the first one.

    Raises:
        UserError: says what is wrong.
    """
    for words in commands:
        check(words, "train")
        resolve(composed(list(words)))


def main(words: Sequence[str]) -> None:
    if {"--help", "-h"} & {*words}:
        print(__doc__)
        return
    asked = asked_for(words)
    require(asked.device, "device=")
    names, load = [BASELINE, *asked.variants], []
    runs: dict[str, dict[int, list[Point]]] = {name: {} for name in names}
    for seed in range(asked.seeds):
        for name in order(names, seed):
            load.append(os.getloadavg()[0])
            runs[name][seed] = points = trained(words_of(asked, name, seed))
            print(f"seed {seed}, {name}: {points[-1].accuracy:.1f} % after {points[-1].cpu:.1f} s of CPU", flush=True)
            report = {
                "asked": asdict(asked) | {"json": None},
                "command": f"python -m benchmarks.time_to_accuracy {shlex.join(words)}",
                "words": {each: words_of(asked, each, 0) for each in names},
                "rows": summary(asked, runs) if all(runs.values()) else [],
                "runs": {
                    each: {of: [asdict(p) for p in all_of] for of, all_of in runs[each].items()} for each in names
                },
                "load": load,
                "versions": versions(),
            }
            asked.json.parent.mkdir(parents=True, exist_ok=True)
            asked.json.write_text(json.dumps(report, indent=2) + "\n")
    Console(width=150).print(table_of(asked, report["rows"]))


if __name__ == "__main__":
    main(sys.argv[1:])
