"""Trains every SSL task with every encoder it serves, 100 steps in each mode, and prints how the losses went.

python -m benchmarks.pairs --root <folder with train/<class>/* and test/<class>/*>; repeated, it goes on where it was.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import subprocess
import sys
from pathlib import Path

from benchmarks.device import Arguments, present_folder, told
from tests.tasks.pairs import ENCODERS, TASKS, encoder_of, refusal

MODES = ("ssat", "ssl_ft")  # the first phase of ssl_ft is mode=ssl
ENDS = 4  # logged values that the first and the last mean are taken over
COMMON = [
    "data=image_folder",
    "data.img_size=32",
    "data.samples_per_class=80",
    "recipe.batch_size=8",
    "recipe.lr_rule=absolute",
    "epochs=1",
    "trainer=cpu",
    "trainer.progress=off",
    "trainer.threads=1",
    "footprint.energy=false",
    "reconstruct_every=0",
]
RATES = {"resnet_56": "1e-3"}
RATE = "1e-4"


def train(args: argparse.Namespace, encoder: str, mode: str, *more: str) -> Path:
    """Run the real command; returns the run's folder.

    Raises:
        CalledProcessError: the command failed; its output is printed.
    """
    folder = Path(args.out, "-".join([encoder, mode, *(word.split("=")[1] for word in more if word[:4] == "ssl=")]))
    rate = RATES.get(encoder, RATE)
    words = [*COMMON, f"data.root={args.root}", f"encoder={encoder}", f"mode={mode}", f"run_dir={folder}"]
    words += ["encoder.name=vit_tiny_patch16_224", "encoder.patch_size=4"] if encoder == "timm" else []
    words += ["encoder.patch_size=4"] if encoder in ("vit_t", "sl_vit") else []
    words += [f"recipe.base_lr={rate}"]
    if mode == "ssl_ft":
        words += ["mode.ssl_recipe.lr_rule=absolute", f"mode.ssl_recipe.base_lr={rate}", "mode.head_init=xavier"]
    command = [sys.executable, "-m", "src.train", *words, *more]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        print(" ".join(command), done.stdout[-2000:], done.stderr[-3000:], sep="\n", file=sys.stderr)
        done.check_returncode()
    return folder


def losses(phase: Path, name: str) -> tuple[float, float]:
    """Mean of the first and of the last logged values of a training loss."""
    with open(phase / "csv" / "version_0" / "metrics.csv", newline="") as file:
        values = [float(row[name]) for row in csv.DictReader(file) if row.get(name)]
    return statistics.fmean(values[:ENDS]), statistics.fmean(values[-ENDS:])


def measured(folder: Path, mode: str) -> dict[str, tuple[float, float]]:
    if mode == "ssat":
        return {key: losses(folder / "joint", f"train/loss_{key}") for key in ("cls", "ssl")}
    return {
        "ssl": losses(folder / "pretrain", "train/loss_ssl"),
        "cls": losses(folder / "finetune", "train/loss_cls"),
    }


def tables(results: dict[str, dict[str, tuple[float, float]]]) -> str:
    """Markdown: a table a mode, cells 'L_cls first to last; L_SSL first to last'."""
    parts = []
    for mode in MODES:
        parts.append(f"`mode={mode}`\n\n| encoder | " + " | ".join(f"`{t}`" for t in TASKS) + " |")
        parts[-1] += "\n|" + "---|" * (len(TASKS) + 1)
        for encoder in ENCODERS:
            cells = [results.get(f"{encoder} {task} {mode}") for task in TASKS]
            shown = [
                "" if cell is None else "; ".join(f"{cell[k][0]:.3g} to {cell[k][1]:.3g}" for k in ("cls", "ssl"))
                for cell in cells
            ]
            parts[-1] += f"\n| {encoder} | " + " | ".join(shown) + " |"
    return "\n\n".join(parts) + "\n"


def main() -> None:
    parser = Arguments(__doc__)
    parser.add_argument("--root", type=present_folder, required=True, help="image folder to train on")
    parser.add_argument("--out", default="runs/pairs", help="folder of the runs and of pairs.json")
    parser.add_argument("--encoders", nargs="+", choices=list(ENCODERS), default=list(ENCODERS))
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=TASKS)
    args = parser.parse_args()
    results = {}
    teacher = train(args, "resnet_56", "scratch")
    for encoder in args.encoders:
        model = encoder_of(encoder)
        for task in (task for task in args.tasks if refusal(encoder, model, task) is None):
            for mode in MODES:
                more = [f"ssl.teacher={teacher}"] if task == "guidance" else []
                folder = train(args, encoder, mode, f"ssl={task}", *more)
                results[f"{encoder} {task} {mode}"] = measured(folder, mode)
                print(encoder, task, mode, results[f"{encoder} {task} {mode}"], flush=True)
    Path(args.out, "pairs.json").write_text(json.dumps(results, indent=2) + "\n")
    print(tables(results))


if __name__ == "__main__":
    told(main)
