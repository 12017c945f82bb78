"""Kills trainings at random moments, runs them on, and compares what they leave with an uninterrupted run.

python -m benchmarks.kills --kills 60 [--seed 0] [--out <folder>]; exit status 1 where a run differs.
"""

from __future__ import annotations

import itertools
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import torch

from benchmarks.device import Arguments, at_least, told
from tests.helpers import TINY

SETTINGS = {
    "scratch": ["mode=scratch", "recipe.drop_path=0.1"],
    "ssl_ft": ["mode=ssl_ft", "data.val_fraction=0.25"],
    "ssat": ["mode=ssat", "recipe.drop_path=0.1", "recipe.ema_decay=0.9"],
    "ssat-accumulated": ["mode=ssat", "recipe.batch_size=8", "trainer.accumulate=2", "data.pipeline=batched"],
    "ssat-dino": ["mode=ssat", "ssl=dino"],
    "ssl_ft-knn": ["mode=ssl_ft", "monitor.knn_every=2", "eval_every=2"],
}
COMMON = ["epochs=6", "checkpoint_minutes=0.0005", "trainer.progress=off"]
SIGNALS = (signal.SIGTERM, signal.SIGKILL, signal.SIGINT)
INTERRUPTED = (0, 130, 143, -signal.SIGTERM, -signal.SIGINT, -signal.SIGKILL)
SPENT = ("seconds", "train_seconds", "throughput/images_per_s", "throughput/data_wait")


def start(words: list[str], runs: Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "src.train", *TINY, *COMMON, *words, f"runs_dir={runs}"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def left_behind(runs: Path) -> dict[str, object]:
    """What a run has measured and saved, without what it has spent: values by the place they stand in."""
    (path,) = runs.glob("[!.]*/*/result.json")
    record = json.loads(path.read_text())
    found: dict[str, object] = {"metrics": record["metrics"], "steps": record["steps"], "status": record["status"]}
    for number, phase in enumerate(record["phases"]):
        rows = [{name: value for name, value in row.items() if name not in SPENT} for row in phase["history"]]
        found |= {f"phase {number}": [phase["metrics"], phase["steps"]], f"history {number}": rows}
    for file in sorted(path.parent.rglob("*.ckpt")):
        saved, name = torch.load(file, weights_only=True), str(file.relative_to(path.parent))
        found[name] = [saved["epoch"], saved["global_step"]]
        found |= {f"{name} {key}": value.tolist() for key, value in saved["state_dict"].items()}
        for number, state in enumerate(saved.get("optimizer_states", ())):
            tensors = {str(at): {k: v.tolist() for k, v in each.items()} for at, each in state["state"].items()}
            found[f"{name} optimizer {number}"] = tensors
    return found


def killed(words: list[str], runs: Path, seconds: float, draw: random.Random) -> tuple[list[str], list[str]]:
    """Kill a run once or twice and run it to its end.

    Returns:
        The kills that met a running process, and what went wrong.
    """
    kills, faults = [], []
    for _ in range(draw.choice((1, 1, 2))):
        process, how, after = start(words, runs), draw.choice(SIGNALS), draw.uniform(0.3, 1) * seconds
        time.sleep(after)
        if process.poll() is None:
            kills.append(f"{how.name} after {after:.1f} s")
            process.send_signal(how)
        _, stderr = process.communicate(timeout=600)
        if process.returncode not in INTERRUPTED or "Traceback" in stderr:
            faults.append(f"exit status {process.returncode} at {how.name}: {stderr[-500:]}")
    process = start(words, runs)
    _, stderr = process.communicate(timeout=600)
    return kills, faults + ([stderr[-500:]] if process.returncode else [])


def main() -> None:
    parser = Arguments(__doc__)
    parser.add_argument("--kills", type=at_least(1), default=60)
    parser.add_argument("--seed", type=at_least(0), default=0)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    out, draw = args.out or Path(tempfile.mkdtemp()), random.Random(args.seed)
    whole, seconds = {}, {}
    for name, words in SETTINGS.items():
        begin = time.monotonic()
        assert start(words, out / "whole" / name).wait() == 0, name
        whole[name], seconds[name] = left_behind(out / "whole" / name), time.monotonic() - begin
        print(f"{name}: {seconds[name]:.1f} s uninterrupted", flush=True)
    count, wrong, hows = 0, 0, Counter[str]()
    for number, name in enumerate(itertools.cycle(SETTINGS)):
        if count >= args.kills:
            break
        runs = out / str(number)
        kills, faults = killed(SETTINGS[name], runs, seconds[name], draw)
        found = {} if faults else left_behind(runs)
        keys = (
            []
            if faults
            else [key for key in found.keys() | whole[name].keys() if found.get(key) != whole[name].get(key)]
        )
        count, wrong = count + len(kills), wrong + bool(keys or faults)
        hows.update(kill.split()[0] for kill in kills)
        print(
            f"{name}: {', '.join(kills) or 'no kill'}: {'; '.join(faults) or sorted(keys)[:5] or 'equal'}", flush=True
        )
    print(f"{count} kills ({', '.join(f'{n} {how}' for how, n in hows.items())}), {wrong} runs differ")
    sys.exit(wrong > 0)


if __name__ == "__main__":
    told(main)
