"""Kills real commands at random moments, runs them on, and compares what they leave with an uninterrupted command.

Everything is drawn from one seed: what is killed, how, when, and which of its processes.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from ssat.core.files import write_text
from ssat.core.read import read_json
from tests.helpers import ROOT, TINY

SIGNALS = (signal.SIGTERM, signal.SIGKILL, signal.SIGINT)
STOPPED = (0, 130, 143, -signal.SIGTERM, -signal.SIGINT, -signal.SIGKILL)
SPENT = ("seconds", "train_seconds", "throughput/images_per_s", "throughput/data_wait")
HANG = 30.0  # seconds after a signal within which a command must have ended; on a slow machine half of its own time
ORPHAN = 10.0  # seconds that a process may outlive the command that has started it: a loader looks every 5 s
LONGEST = 900.0  # seconds of a command that nobody interrupts, on a busy machine
OURS = str(ROOT / "src/ssat")  # of a traceback's lines; what Python does before its first line is not ours
MARK = "SSAT_KILLS_MARK"  # of the environment, which all processes of a command inherit
COMMON = ["epochs=6", "checkpoint_minutes=0.0005", "trainer.progress=off"]
TRAIN = [sys.executable, "-m", "src.train"]


@dataclass(frozen=True)
class Target:
    """A command that is killed.

    Attributes:
        words: of its command line; `{out}` is the folder that it writes, `{root}` that of all.
        left: what it leaves in that folder, values by the place they stand in; two commands are compared by it.
        aims: which processes a signal may go to: `command` alone, its `group` as a terminal does, or one `child`.
        child_ends: whether a signal to a child is to end the command, as that to a rank.
        tolerance: of floating-point numbers; 0 = the same bits.
    """

    words: Sequence[str]
    left: Callable[[Path], dict[str, Any]]
    aims: tuple[str, ...] = ("command", "group")
    child_ends: bool = False
    tolerance: float = 0.0


@dataclass
class Tally:
    """What came of the kills."""

    kills: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    longest: float = 0.0  # seconds from a signal to the end of the last process


def left_by_runs(out: Path) -> dict[str, Any]:
    """What trainings have measured and saved, without what they have spent."""
    found: dict[str, Any] = {}
    for path in sorted(out.glob("[!.]*/*/result.json")):
        found |= {f"{path.parent.name} {key}": value for key, value in _left_by_run(path).items()}
    return found


def _left_by_run(path: Path) -> dict[str, Any]:
    record = read_json(path)
    found: dict[str, Any] = {"metrics": record["metrics"], "steps": record["steps"], "status": record["status"]}
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
    unfinished = [str(each.relative_to(path.parent)) for each in path.parent.rglob(".*.partial")]
    return found | {"unfinished files": unfinished}


def left_by_files(out: Path) -> dict[str, Any]:
    """The bytes of every file; without those that say when."""
    files = [path for path in sorted(out.rglob("*")) if path.is_file() and path.suffix not in (".log", ".lock")]
    return {str(path.relative_to(out)): path.read_bytes() for path in files}


def training(*words: str) -> Target:
    """One run in one process."""
    return Target([*TRAIN, *TINY, *COMMON, *words, "runs_dir={out}"], left_by_runs)


DDP = ("trainer=ddp_cpu", "trainer.devices=2", "trainer.threads=1")
SWEEP = ("-m", *TINY, *COMMON, "mode=scratch", "seed=0,1", "launcher=packed", "launcher.per_device=2")
TARGETS = {
    "scratch": training("mode=scratch", "recipe.drop_path=0.1"),
    "ssl_ft": training("mode=ssl_ft", "data.val_fraction=0.25"),
    "ssat": training("mode=ssat", "recipe.drop_path=0.1", "recipe.ema_decay=0.9"),
    "accumulated": training("mode=ssat", "recipe.batch_size=8", "trainer.accumulate=2", "data.pipeline=batched"),
    "dino": training("mode=ssat", "ssl=dino"),
    "knn": training("mode=ssl_ft", "monitor.knn_every=2", "eval_every=2"),
    "ddp": Target(
        [*TRAIN, *TINY, *COMMON, "mode=ssat", "recipe.drop_path=0.1", *DDP, "runs_dir={out}"],
        left_by_runs,
        ("command", "group", "child"),
        child_ends=True,
        tolerance=1e-6,
    ),
    "sweep": Target([*TRAIN, *SWEEP, "runs_dir={out}"], left_by_runs, ("command", "group", "child")),
    "prepare": Target([sys.executable, "-m", "tests.faults.prepare_small", "{root}/mirror", "{out}"], left_by_files),
}


def start(target: Target, out: Path) -> subprocess.Popen[str]:
    """The command, in a session of its own; all its processes carry a mark."""
    mark = uuid.uuid4().hex
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # bash's `&`; the command would be deaf, too
        signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(
        [word.format(out=out, root=out.parents[1]) for word in target.words],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=os.environ | {MARK: mark},
    )
    process.mark = mark  # type: ignore[attr-defined]
    return process


def whole(target: Target, out: Path) -> tuple[dict[str, Any], float]:
    """What the uninterrupted command leaves, and the seconds that it takes."""
    begin = time.monotonic()
    process = start(target, out)
    _, said = process.communicate(timeout=LONGEST)
    assert process.returncode == 0, said
    return target.left(out), time.monotonic() - begin


def kill(target: Target, out: Path, seconds: float, draw: random.Random, tally: Tally) -> None:
    """Kill the command once to three times, each time after it was begun anew, and run it to its end.

    Args:
        target: the command.
        out: the folder that it writes.
        seconds: that it takes uninterrupted.
        draw: of what is random.
        tally: to which kills and faults are added.
    """
    for _ in range(draw.choice((1, 2, 3))):
        _kill_once(target, out, seconds, draw, tally)
    process = start(target, out)
    _, said = process.communicate(timeout=LONGEST)
    if process.returncode:
        tally.faults.append(f"continued, it exits with {process.returncode}: {said[-500:]}")


def _kill_once(target: Target, out: Path, seconds: float, draw: random.Random, tally: Tally) -> None:
    how, aim, saving = draw.choice(SIGNALS), draw.choice(target.aims), draw.random() < 0.25
    after = draw.choice((draw.uniform(0, 0.3), draw.uniform(0.3, 1), draw.uniform(0.3, 1))) * seconds
    steps = _steps(out)
    process = start(target, out)
    _wait(process, after)
    if saving:
        _wait(process, seconds, lambda: _writes(out))
    members = _marked(process)
    children = [pid for pid in members if pid != process.pid]
    if process.poll() is not None or (aim == "child" and not children):
        process.communicate(timeout=LONGEST)
        return
    what = f"{how.name} to the {aim} after {after:.1f} s{', saving' if saving else ''}"
    tally.kills.append(what)
    with suppress(ProcessLookupError):
        if aim == "group":
            os.killpg(process.pid, how)
        else:
            os.kill(process.pid if aim == "command" else draw.choice(children), how)
    must_end = aim != "child" or target.child_ends
    begin = time.monotonic()
    hang = max(HANG, seconds / 2)
    said = _ended(process, hang if must_end else LONGEST)
    if said is None:
        tally.faults.append(f"{what}: it has not ended after {hang:.0f} s")
        for pid in _marked(process):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.communicate()
        return
    while (orphans := _marked(process)) and time.monotonic() - begin < hang + ORPHAN:
        time.sleep(0.05)
    if must_end:
        tally.longest = max(tally.longest, time.monotonic() - begin)
    for pid in orphans:
        tally.faults.append(f"{what}: process {pid} is left")
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    if (process.returncode not in STOPPED and aim != "child") or OURS in said:
        tally.faults.append(f"{what}: exit status {process.returncode}: {said[-500:]}")
    tally.faults += [f"{what}: {fault}" for fault in (*_unreadable(out), *_lost(steps, _steps(out)))]


def _ended(process: subprocess.Popen[str], seconds: float) -> str | None:
    try:
        process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        return None
    said = process.stderr.read() if not _marked(process) and process.stderr else ""
    return said


def _wait(process: subprocess.Popen[str], seconds: float, until: Callable[[], bool] = lambda: False) -> None:
    deadline = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < deadline and not until():
        time.sleep(0.005)


def _writes(out: Path) -> bool:
    """Whether a file is being written; folders may vanish meanwhile, at which Path.rglob raises."""
    return any(name.startswith(".") and name.endswith(".partial") for _, _, names in os.walk(out) for name in names)


def _marked(process: subprocess.Popen[str]) -> list[int]:
    """The processes of a command that live, by their mark."""
    wanted, found = f"{MARK}={process.mark}".encode(), []  # type: ignore[attr-defined]
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, IndexError):
            alive = (folder / "stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
            helps = b"resource_tracker" in (folder / "cmdline").read_bytes()  # Python's own, ends with the others
            if alive and not helps and wanted in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
    return found


def _steps(out: Path) -> dict[Path, int]:
    """The step of every last checkpoint."""
    found = {}
    for path in out.rglob("last.ckpt"):
        with suppress(Exception):
            found[path] = int(torch.load(path, weights_only=True)["global_step"])
    return found


def _lost(before: dict[Path, int], after: dict[Path, int]) -> list[str]:
    return [
        f"{path} was at step {step}, is at {after.get(path)}"
        for path, step in before.items()
        if after.get(path, -1) < step
    ]


def _unreadable(out: Path) -> list[str]:
    faults = []
    for path in out.rglob("*.ckpt"):
        try:
            torch.load(path, weights_only=True)
        except Exception as error:
            faults.append(f"{path} cannot be read: {error}")
    for path in out.rglob("[!.]*.json"):
        try:
            json.loads(path.read_text())
        except ValueError as error:
            faults.append(f"{path} cannot be read: {error}")
    return faults


def unequal(found: Any, wanted: Any, tolerance: float) -> list[str]:
    """The keys at which two commands have left different things."""
    return sorted(key for key in found.keys() | wanted.keys() if not _same(found.get(key), wanted.get(key), tolerance))


def _same(a: Any, b: Any, tolerance: float) -> bool:
    if tolerance and isinstance(a, float) and isinstance(b, float):
        return abs(a - b) <= tolerance * max(1.0, abs(a), abs(b))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_same(a[key], b[key], tolerance) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(_same(x, y, tolerance) for x, y in zip(a, b, strict=True))
    return bool(a == b)


def campaign(names: Sequence[str], kills: int, seed: int, out: Path, say: Callable[[str], None]) -> Tally:
    """Kill the targets in turn until there have been so many kills; each run is compared with the uninterrupted one.

    What has been tried is kept in `out`: the same campaign goes on where it was interrupted.
    """
    wanted, seconds = {}, {}
    for name in names:
        shutil.rmtree(out / "whole" / name, ignore_errors=True)
        wanted[name], seconds[name] = whole(TARGETS[name], out / "whole" / name)
        say(f"{name}: {seconds[name]:.1f} s uninterrupted")
    total, number = Tally(), 0
    while len(total.kills) < kills:
        name = names[number % len(names)]
        record, folder = out / f"{seed}-{number}.json", out / "killed" / f"{seed}-{number}"
        if record.is_file():
            tally = Tally(**read_json(record))
        else:
            shutil.rmtree(folder, ignore_errors=True)
            tally = Tally()
            kill(TARGETS[name], folder, seconds[name], random.Random(f"{seed} {number}"), tally)
            differs = unequal(TARGETS[name].left(folder), wanted[name], TARGETS[name].tolerance)
            tally.faults += [f"{name}: {key} differs" for key in differs[:5]]
            write_text(record, json.dumps(asdict(tally)))
            if not tally.faults:
                shutil.rmtree(folder)
        say(f"{name}: {'; '.join(tally.kills) or 'no kill'}: {'; '.join(tally.faults) or 'equal'}")
        total = Tally(total.kills + tally.kills, total.faults + tally.faults, max(total.longest, tally.longest))
        number += 1
    return total
