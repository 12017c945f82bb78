"""How good the advice of `src.advise` is: its regret against the best of all candidates, each trained for the budget.

    python -m benchmarks.advise out=advice.json budget=120s sets=digits,digits_20,digits_5 pilots=0.5,0.2
    python -m benchmarks.advise out=advice.json budget=120s sets=pmnist root=<folder with pneumoniamnist.npz>

For each set: the advice, then every candidate as the advice's plan says, with all training images and tested once on
the test images after its last epoch. Regret = the highest test accuracy minus that of the advised candidate, in points;
also of the likely best one, of always training from scratch, and of always taking SSAT with lambda 0.1. `seeds=2`
trains each candidate twice and compares means. Every command is resumable, and so is this: what is finished is skipped.
`sets` are names of SETS; `runs_dir` keeps the runs.
"""

from __future__ import annotations

import json
import math
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.device import refuse, told
from ssat.advise.pilots import configured
from ssat.runs.folder import find_finished
from ssat.runs.machine import versions
from ssat.runs.record import Record

ROOT = Path(__file__).resolve().parent.parent
SMALL = ["encoder=vit_micro", "encoder.depth=2", "encoder.embed_dim=48", "encoder.num_heads=3", "data.patch_size=4"]
DIGITS = [
    *("data=digits", *SMALL, "recipe.base_lr=2e-3", "recipe.batch_size=32"),
    *("recipe.augment.crop_scale=[0.6,1.0]", "recipe.augment.auto_augment=null", "recipe.augment.re_prob=0.0"),
]
SETS = {
    "digits": DIGITS,
    "digits_20": [*DIGITS, "data.label_fraction=0.2"],
    "digits_5": [*DIGITS, "data.label_fraction=0.05"],
    "pmnist": ["data=pmnist", *SMALL, "recipe.base_lr=1e-3", "recipe.batch_size=64"],
    "cifar10": [
        *("data=image_folder", "data.img_size=32", *SMALL, "recipe.base_lr=1e-3", "recipe.batch_size=64"),
        *("data.samples_per_class=200", "data.max_test=2000"),
    ],
}
NEEDS_ROOT = ("pmnist", "cifar10")
COMMON = [
    *(
        "data.pipeline=batched",
        "recipe.lr_rule=absolute",
        "ssl.decoder_dim=32",
        "ssl.decoder_heads=2",
        "ssl.decoder_depth=1",
    ),
    *("trainer=cpu", "trainer.threads=1", "footprint.energy=false", "reconstruct_every=0", "monitor.pictures=false"),
    "eval_every=1000000",
]
DEFAULTS = {
    "budget": "120s",
    "pilots": "0.5",
    "sets": "digits",
    "seeds": "1",
    "root": "",
    "out": "",
    "runs_dir": "runs",
}
PAPER = "SSAT, lambda 0.1"


def words_of(name: str, options: dict[str, str]) -> list[str]:
    """The words of src.train that all candidates of a set share."""
    root = [f"data.root={options['root']}"] if name in NEEDS_ROOT else []
    return [*SETS[name], *COMMON, *root, f"runs_dir={options['runs_dir']}"]


def command(name: str, words: list[str]) -> None:
    """Run one of our commands.

    Raises:
        CalledProcessError: it failed.
    """
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    subprocess.run([sys.executable, "-m", "ssat.commands", name, *words], check=True, cwd=ROOT, env=environment)


def advice_of(name: str, pilots: str, options: dict[str, str]) -> dict[str, Any]:
    """What src.advise writes about a set."""
    runs = Path(options["runs_dir"])
    words = words_of(name, options)
    command("advise", [*words, f"budget={options['budget']}", f"pilots={pilots}"])
    written = sorted(runs.glob("advise-*/advice.json"), key=lambda path: path.stat().st_mtime)
    return json.loads(written[-1].read_text())


def tested(words: list[str], experiment: str) -> tuple[float, float]:
    """Test accuracy in percent and seconds of a training of these words."""
    words = [*words, f"experiment={experiment}"]
    config = configured(words)
    if find_finished(config) is None:
        command("train", [*words, "trainer.progress=off"])
    found = find_finished(config)
    assert found is not None
    record = Record(found[0], "", found[1])
    assert record.split == "test" and record.accuracy is not None
    return record.accuracy, float(record.values["seconds"])


def measure(name: str, options: dict[str, str]) -> dict[str, Any]:
    """Advice and regret of one set; all advices share the grid of the first."""
    advices = {pilots: advice_of(name, pilots, options) for pilots in options["pilots"].split(",")}
    first = next(iter(advices.values()))
    grid = {}
    for candidate in first["candidates"]:
        words = [*words_of(name, options), *candidate["words"]]
        runs = [tested([*words, f"seed={seed}"], f"regret-{name}") for seed in range(int(options["seeds"]))]
        accuracies = [accuracy for accuracy, _ in runs]
        grid[candidate["name"]] = {
            "accuracies": accuracies,
            "accuracy": statistics.fmean(accuracies),
            "seconds": [seconds for _, seconds in runs],
            "epochs": candidate["epochs"],
        }
        print(f"{name}: {candidate['name']}: {grid[candidate['name']]}", flush=True)
    best = max(grid.values(), key=lambda each: each["accuracy"])["accuracy"]

    def regret(chosen: str) -> float:
        return best - grid[chosen]["accuracy"]

    return {
        "set": name,
        "words": words_of(name, options),
        "budget": options["budget"],
        "grid": grid,
        "advices": {
            pilots: {
                "advised": advice["advised"],
                "likely": advice["likely"],
                "decided": advice["decided"],
                "regret": regret(advice["advised"]),
                "regret_of_likely": regret(advice["likely"]),
                "covered": covered(advice, grid),
                "slopes": slopes(advice, grid),
                "spent_seconds": advice["spent_seconds"],
                "sentence": advice["sentence"],
                "candidates": advice["candidates"],
            }
            for pilots, advice in advices.items()
        },
        "regret_of_scratch": regret("scratch"),
        "regret_of_paper": regret(PAPER) if PAPER in grid else None,
        "mean_of_all": best - statistics.fmean(each["accuracy"] for each in grid.values()),
    }


def covered(advice: dict[str, Any], grid: dict[str, Any]) -> list[bool]:
    """Whether the gain over scratch on the test images lies in its interval, of each candidate but scratch."""
    scratch, found = grid["scratch"]["accuracy"], []
    for candidate in advice["candidates"]:
        expected = candidate["expected"]
        if candidate["name"] != "scratch" and expected is not None:
            gain = grid[candidate["name"]]["accuracy"] - scratch
            found.append(expected["gain_low"] <= gain <= expected["gain_high"])
    return found


def slopes(advice: dict[str, Any], grid: dict[str, Any]) -> dict[str, float]:
    """Log-odds that each candidate has gained per doubling, from its longest pilots to the end of its training."""
    found = {}
    for candidate in advice["candidates"]:
        done = [pilot for pilot in candidate["pilots"] if "accuracy" in pilot]
        share = max((pilot["share"] for pilot in done), default=1.0)
        before = [pilot["accuracy"] for pilot in done if pilot["share"] == share]
        if before and share < 1:
            gained = odds(grid[candidate["name"]]["accuracy"]) - odds(statistics.fmean(before))
            found[candidate["name"]] = gained / math.log2(1 / share)
    return found


def odds(percent: float) -> float:
    """The logarithm of right over wrong."""
    return math.log(max(percent, 0.5) / max(100 - percent, 0.5))


def show(results: list[dict[str, Any]]) -> None:
    """A line for each set and size of the pilots."""
    table = Table(box=None, title="regret in points of test accuracy")
    titles = (
        "set",
        "pilots",
        "best",
        "advised",
        "regret",
        "likely",
        "regret ",
        "scratch",
        "lambda 0.1",
        "random",
        "covered",
    )
    for title in titles:
        table.add_column(title, justify="left" if title in ("set", "advised", "likely") else "right")
    for result in results:
        best = max(result["grid"].values(), key=lambda each: each["accuracy"])["accuracy"]
        paper = result["regret_of_paper"]
        rest = (
            f"{result['regret_of_scratch']:.1f}",
            "-" if paper is None else f"{paper:.1f}",
            f"{result['mean_of_all']:.1f}",
        )
        for pilots, advice in result["advices"].items():
            chosen = (
                advice["advised"],
                f"{advice['regret']:.1f}",
                advice["likely"],
                f"{advice['regret_of_likely']:.1f}",
            )
            share = f"{sum(advice['covered'])} of {len(advice['covered'])}"
            table.add_row(result["set"], pilots, f"{best:.1f}", *chosen, *rest, share)
    Console(width=160).print(table)


def main() -> None:
    given = dict(word.partition("=")[::2] for word in sys.argv[1:])
    if unknown := [key for key in given if key not in DEFAULTS]:
        refuse(f"there is no option {unknown[0]!r}: choose from {', '.join(DEFAULTS)}")
    options = DEFAULTS | given
    names = options["sets"].split(",")
    if unknown := [name for name in names if name not in SETS]:
        refuse(f"sets={unknown[0]} is not one of {', '.join(SETS)}")
    if not options["root"] and any(name in NEEDS_ROOT for name in names):
        refuse(f"{' and '.join(NEEDS_ROOT)} need root=<folder of their images>")
    results = []
    for name in names:
        results.append(measure(name, options))
        if options["out"]:
            Path(options["out"]).write_text(json.dumps({"versions": versions(), "sets": results}, indent=1) + "\n")
    show(results)


if __name__ == "__main__":
    told(main)
