"""Everything worth knowing about a GPU in a few minutes: tests, steps, input, trainings, video, export.

    python -m benchmarks.gpu limit=480 [device=cuda] [out=runs/benchmarks/gpu] [only=env,step_64] [images=<folder>]

Each stage is a process of its own. It may take the seconds that it needs on an H200, or its share of those that are
left where that is more: what one stage does not use the later ones get. All of them take about ten minutes there; with
less the last ones are not begun. A stage that fails or passes its limit does not stop the next one; one whose packages
are missing is skipped with a word. After every stage `out` holds gpu.json (outcome, seconds, figures) and <stage>.log,
so what was measured is written whenever this ends, after Ctrl-C or SIGTERM, too. `images` is a folder with
train/<class>/* and test/<class>/* of 32 px images (default: made-up ones). device=cpu runs a tiny form of the same
stages. Exit code 0: no stage failed; 1: one did; 2: a mistake in the command. This file imports the standard library
alone.
"""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.device import DEVICES, refuse

ROOT = Path(__file__).resolve().parent.parent
DEFAULTS = {"limit": "480", "device": "cuda", "out": "runs/benchmarks/gpu", "only": "", "images": ""}
GRACE = 4.0  # seconds between SIGTERM and SIGKILL
SHOWN = 2000  # characters of a failed stage's log that the JSON repeats
FRAMEWORK = ("torch", "timm", "lightning", "torchmetrics", "hydra", "omegaconf", "rich")


@dataclass(frozen=True)
class Place:
    """Where the stages run and write."""

    device: str
    out: Path
    work: Path  # removed at the end: images, runs
    images: str = ""


@dataclass(frozen=True)
class Stage:
    """One process.

    Attributes:
        name: of the stage, its log and its figures.
        seconds: that it needs on an H200, with some to spare.
        command: its words.
        needs: packages that it imports.
        on_gpu: whether it measures what only a GPU has; elsewhere it is skipped.
    """

    name: str
    seconds: float
    command: Callable[[Place], list[str]]
    needs: tuple[str, ...] = ()
    on_gpu: bool = False


@dataclass
class Outcome:
    """What became of a stage; `figures` is what it wrote, `key` the one line of the table."""

    stage: str
    outcome: str
    seconds: float = 0.0
    limit: float = 0.0
    key: str = ""
    figures: dict[str, Any] = field(default_factory=dict)
    log: str = ""


def own(name: str, *words: str) -> Callable[[Place], list[str]]:
    """A stage of `benchmarks.gpu_stages`."""

    def command(place: Place) -> list[str]:
        settings = [f"device={place.device}", f"work={place.work}", f"images={place.images}"]
        return [sys.executable, "-m", "benchmarks.gpu_stages", name, *settings, *words]

    return command


def step(batch: int, *, baseline: str, variants: Sequence[str]) -> Callable[[Place], list[str]]:
    """The optimizer step at one batch size, in interleaved pairs."""

    def command(place: Place) -> list[str]:
        name = f"step_{batch}" + ("_compiled" if any("compile" in variant for variant in variants) else "")
        words = ["--device", place.device, "--baseline", baseline, "--variants", *variants, "--memory-batches"]
        words += ["--json", str(place.out / f"{name}.json")]
        if place.device == "cpu":
            words += ["--encoder", "vit_micro", "--patch-size", "8", "--batch", "2", "--pairs", "1"]
        else:
            words += ["--batch", str(batch), "--pairs", "5"]
        return [sys.executable, "-m", "benchmarks.step", *words]

    return command


PLAIN, PLAIN_BF16 = "two-pass", "two-pass bf16"
EAGER = ("packed", PLAIN_BF16, "two-pass sdpa bf16", "packed bf16")
# At 1,024 images the plain fp32 step alone needs more than 80 GB: it is a variant that may fail, not the baseline.
LARGE = ("packed", "two-pass sdpa bf16", "packed bf16", PLAIN)
STAGES = (
    Stage("env", 5, own("env"), ("torch",)),
    Stage("input", 20, own("input"), FRAMEWORK),
    Stage("step_64", 45, step(64, baseline=PLAIN, variants=EAGER), FRAMEWORK),
    Stage("train_graph", 60, own("train", "trainer.cuda_graph=true"), FRAMEWORK, on_gpu=True),
    Stage("tests", 100, own("tests"), (*FRAMEWORK, "pytest")),  # half of it is the first compilation
    Stage("export", 40, own("export"), FRAMEWORK),
    Stage("predict", 20, own("predict"), (*FRAMEWORK, "matplotlib")),
    Stage("video", 35, own("video"), FRAMEWORK),
    Stage("train_compile", 120, own("train", "trainer.compile=true"), FRAMEWORK),
    Stage("step_512", 75, step(512, baseline=PLAIN, variants=EAGER), FRAMEWORK),
    Stage("step_1024", 90, step(1024, baseline=PLAIN_BF16, variants=LARGE), FRAMEWORK),
    *(
        Stage(
            f"step_{batch}_compiled", 40, step(batch, baseline=PLAIN_BF16, variants=["packed bf16 compile"]), FRAMEWORK
        )
        for batch in (64, 512, 1024)
    ),
)


def options(words: Sequence[str], stages: Sequence[Stage]) -> dict[str, str]:
    """The command's words over the defaults; ends with one sentence for a mistake."""
    given = dict(word.partition("=")[::2] for word in words)
    if unknown := given.keys() - DEFAULTS.keys():
        refuse(f"{sorted(unknown)[0]!r} is not an option; options: {', '.join(DEFAULTS)}")
    option = DEFAULTS | given
    try:
        limit = float(option["limit"])
    except ValueError:
        limit = math.nan
    if not (math.isfinite(limit) and limit > 0):
        refuse(f"limit={option['limit']} is not a number of seconds above 0: give e.g. limit=480")
    if option["device"] not in DEVICES:
        refuse(f"device={option['device']} is not one of {', '.join(DEVICES)}")
    names = [stage.name for stage in stages]
    if strange := [name for name in filter(None, option["only"].split(",")) if name not in names]:
        refuse(f"only={strange[0]} is not a stage; stages: {', '.join(names)}")
    if option["images"] and not Path(option["images"], "train").is_dir():
        refuse(f"images={option['images']} has no folder train: give a folder with train/<class>/* and test/<class>/*")
    out = Path(option["out"])
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / ".written").touch()
        (out / ".written").unlink()
    except OSError as error:
        refuse(f"out={out} cannot be written ({error.strerror}): name another folder")
    if option["device"] == "cuda":
        require_cuda()
    return option


def require_cuda() -> None:
    """End with one sentence where PyTorch is missing or sees no GPU; asked of another process, torch is heavy."""
    if find_spec("torch") is None:
        refuse("device=cuda, but torch is not installed: install it first")
    code = "from benchmarks.device import require; require('cuda', 'device=')"
    if asked := subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True).returncode:
        refuse(f"device=cuda, but PyTorch sees no CUDA device here (exit code {asked}): take device=cpu")


def environment() -> dict[str, str]:
    """The stages' environment: the package is importable from src/, output is not held back."""
    path = os.pathsep.join(filter(None, [str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]))
    return os.environ | {"PYTHONPATH": path, "PYTHONUNBUFFERED": "1", "WANDB_MODE": "offline", "COLUMNS": "140"}


class Runner:
    """Runs stages one after the other; `stop` ends the one that runs, and the rest is not begun."""

    def __init__(self, place: Place) -> None:
        self.place, self.stopped = place, 0  # the signal, or 0

    def stop(self, number: int, frame: object) -> None:
        """A signal's handler."""
        self.stopped = number

    def outcome(self, stage: Stage, limit: float) -> Outcome:
        """Run one stage, at most `limit` seconds, with its output in <stage>.log."""
        for package in stage.needs:
            if find_spec(package) is None:
                return Outcome(stage.name, f"skipped: no package {package}")
        if stage.on_gpu and self.place.device == "cpu":
            return Outcome(stage.name, "skipped: needs a GPU")
        log, figures = self.place.out / f"{stage.name}.log", self.place.out / f"{stage.name}.json"
        figures.unlink(missing_ok=True)
        start = time.monotonic()
        with open(log, "w") as file:
            process = subprocess.Popen(
                stage.command(self.place),
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env=environment() | {"SSAT_FIGURES": str(figures)},
                start_new_session=True,
            )
            word = self.wait(process, start + limit)
            end_group(process)
        seconds = time.monotonic() - start
        return result(stage.name, word, seconds, limit, log=log, figures=figures)

    def wait(self, process: subprocess.Popen[bytes], deadline: float) -> str:
        while time.monotonic() < deadline and not self.stopped:
            try:
                code = process.wait(timeout=0.1)
            except subprocess.TimeoutExpired:
                continue
            return "ok" if code == 0 else f"failed: exit code {code}"
        return "stopped" if self.stopped else "past its limit"

    def run(self, stages: Sequence[Stage], limit: float) -> list[Outcome]:
        """Outcomes of all stages, written after each; a limit is a share of what is left, or what is needed."""
        end = time.monotonic() + limit
        outcomes: list[Outcome] = []
        for number, stage in enumerate(stages):
            left = end - time.monotonic()
            if self.stopped or left <= 0:
                outcomes.append(Outcome(stage.name, "not begun"))
                continue
            share = left * stage.seconds / sum(later.seconds for later in stages[number:])
            print(f"{stage.name} ...", file=sys.stderr, flush=True)
            outcomes.append(self.outcome(stage, max(share, min(left, stage.seconds))))
            write(self.place, limit, outcomes)
        write(self.place, limit, outcomes)
        return outcomes


def end_group(process: subprocess.Popen[bytes]) -> None:
    """End a stage and all that it has started: SIGTERM, and SIGKILL for what is still there after `GRACE`."""
    deadline = time.monotonic() + GRACE
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            while time.monotonic() < deadline:
                process.poll()  # a process that ended counts until its parent has asked
                os.killpg(process.pid, 0)
                time.sleep(0.05)
        except (ProcessLookupError, PermissionError):
            break
    process.wait()


def result(name: str, word: str, seconds: float, limit: float, *, log: Path, figures: Path) -> Outcome:
    """An outcome with the figures that the stage has written, whether it came to its end or not."""
    try:
        found = json.loads(figures.read_text())
    except (OSError, ValueError):
        found = {}
    text = log.read_text(errors="replace")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    key = found.get("key") or ratios(found) or (lines[-1] if lines else "")
    return Outcome(name, word, seconds, limit, key, found, "" if word == "ok" else text[-SHOWN:])


def ratios(report: dict[str, Any]) -> str:
    """Of a report of `benchmarks.step`: how many times as fast as the baseline each variant is, and its images/s."""
    parts = []
    for variant, found in report.get("ratios", {}).items():
        seconds = min(pair["variant"]["wall"] for pair in report["pairs"][variant])
        rate = report["settings"]["batch"] / seconds
        parts.append(f"{variant} {found['wall']['median']:.2f} ({rate:,.0f}/s)")
    return f"over {report['baseline']}: {', '.join(parts)}" if parts else ""


def write(place: Place, limit: float, outcomes: Sequence[Outcome]) -> None:
    """gpu.json, whole or not at all."""
    partial = place.out / ".gpu.json.partial"
    report = {"limit": limit, "device": place.device, "stages": [asdict(outcome) for outcome in outcomes]}
    partial.write_text(json.dumps(report, indent=1) + "\n")
    os.replace(partial, place.out / "gpu.json")


def table(outcomes: Sequence[Outcome]) -> str:
    """A line a stage."""
    wide = max(len(outcome.stage) for outcome in outcomes)
    words = max(max(len(outcome.outcome) for outcome in outcomes), len("outcome"))
    lines = [f"{'stage':{wide}}  {'outcome':{words}}  seconds  key figure"]
    for outcome in outcomes:
        row = f"{outcome.stage:{wide}}  {outcome.outcome:{words}}  {outcome.seconds:7.1f}  {outcome.key[:150]}"
        lines.append(row.rstrip())
    return "\n".join(lines)


def main(words: Sequence[str], stages: Sequence[Stage] = STAGES) -> int:
    """The command; returns its exit code."""
    if {"--help", "-h"} & {*words}:
        print(f"{__doc__}\nstages: {', '.join(stage.name for stage in stages)}")
        return 0
    option = options(words, stages)
    chosen = [stage for stage in stages if not option["only"] or stage.name in option["only"].split(",")]
    images = str(Path(option["images"]).resolve()) if option["images"] else ""
    with tempfile.TemporaryDirectory(prefix="ssat-gpu-") as work:
        runner = Runner(Place(option["device"], Path(option["out"]).resolve(), Path(work), images))
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, runner.stop)
        outcomes = runner.run(chosen, float(option["limit"]))
    print(table(outcomes))
    print(f"written to {Path(option['out']) / 'gpu.json'}")
    if runner.stopped:
        return 128 + runner.stopped
    return int(any(not outcome.outcome.startswith(("ok", "skipped")) for outcome in outcomes))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
