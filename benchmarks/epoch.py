"""What the training loop costs around the step, and a whole epoch against the authors' loop.

    python -m benchmarks.epoch overhead [--steps 200] [--pairs 7]
    python -m benchmarks.epoch authors --root <folder with train/<class>/* and test/<class>/*> [--images 10000]

`overhead`: a toy SSAT network (width 64, depth 2, batch 8) on batches that are ready, under Lightning with everything a
run has at its defaults (bar, CSV file, meters, checkpoints), against a bare Python loop of the same steps. Weights
after both must be equal to the last bit; then epochs of both are interleaved: CPU time of one thread. Compared is what
is spent outside forward and loss, backward and the optimizer's step: it is small, and what else the machine does
changes the time of a whole step by more. A row `+ x` is Lightning with x alone. What is done once an epoch (row of the
history, checkpoint) is its own column.

`authors`: one epoch of encoder=vit_t with everything on, in fp32 and, where the processor has it, bf16, against
`benchmarks.authors_loop` on the same images, each epoch in a process of its own; without the evaluation, which both
would do alike.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks.authors_loop import authors_epoch
from benchmarks.device import Arguments, at_least, output_file, present_folder, refuse, told
from ssat.config.overrides import composed
from ssat.config.resolve import resolve
from ssat.config.schema import Run
from ssat.core.allocator import HUGE_PAGES, keep_freed_memory
from ssat.core.batch import Batch
from ssat.encoders.layers import multiplies_bf16
from ssat.runs.machine import versions
from ssat.tracking.loggers import build_loggers
from ssat.training.build import build_module
from ssat.training.callbacks.checkpoints import Checkpoints
from ssat.training.callbacks.history import History
from ssat.training.callbacks.meter import Meter
from ssat.training.callbacks.progress import ProgressBar, ProgressLines
from ssat.training.callbacks.safety import FiniteGuard, Stamp
from ssat.training.callbacks.spare import spare
from ssat.training.data import AnyData, build_data
from ssat.training.fit import build_callbacks, build_trainer, quiet
from ssat.training.module import JointModule
from ssat.training.optim import optimizer_and_schedule
from ssat.training.steps import Progress, seed_step
from ssat.training.stop import Stop

ROOT = Path(__file__).resolve().parent.parent
COMMON = ["trainer=cpu", "trainer.threads=1", "trainer.progress=bar", "reconstruct_every=0", "epochs=1"]
TOY = [
    *("data=digits", "encoder=vit", "encoder.embed_dim=64", "encoder.depth=2", "encoder.num_heads=2"),
    *("ssl.decoder_dim=32", "ssl.decoder_heads=2", "ssl.decoder_depth=1", "recipe.batch_size=8", "mode=ssat"),
]
PARTS: dict[str, tuple[type, ...]] = {
    "+ history": (History,),
    "+ guard": (History, FiniteGuard),
    "+ energy meter": (History, Meter),
    "+ bar": (History, ProgressBar, ProgressLines),
    "+ checkpoints": (History, Checkpoints, Stamp),
}
LOGGER = "+ CSV file"
ALONE, ALL = "Lightning alone", "everything"


class Ready:
    """A loader of batches that exist."""

    seconds_waited = 0.0

    def __init__(self, batches: list[Batch]) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Batch]:
        return iter(self.batches)


@spare
class Stopwatch(Callback):
    """CPU and wall seconds of an epoch: of its steps, of what lies outside their computation, and of its end.

    It has no hook of a step: the bare loop would not pay for that.
    """

    def watch(self, module: JointModule, optimizer: Any) -> None:
        """Begin, and count the seconds of forward and loss, backward and the optimizer apart."""
        self.computing = 0.0
        step = self._counted(optimizer.step)

        def closure_first(closure: Any = None, **kwargs: Any) -> Any:
            loss = None if closure is None else closure()  # Lightning's, which holds forward and backward
            step(**kwargs)
            return loss

        optimizer.step = closure_first
        module.joint_step = self._counted(module.joint_step)  # type: ignore[method-assign]
        module.backward = self._counted(module.backward)  # type: ignore[method-assign]
        self.begin = now()

    def _counted(self, work: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **kwargs: Any) -> Any:
            before = time.thread_time()
            try:
                return work(*args, **kwargs)
            finally:
                self.computing += time.thread_time() - before

        return counted

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self.watch(pl_module, trainer.optimizers[0])

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.stepped = now()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.end = now()

    def measured(self) -> dict[str, float]:
        """Seconds."""
        parts = {"steps": (self.begin, self.stepped), "end": (self.stepped, self.end)}
        seconds = {
            f"{clock}_{name}": after[i] - before[i]
            for name, (before, after) in parts.items()
            for i, clock in enumerate(("cpu", "wall"))
        }
        return seconds | {"cpu_outside": seconds["cpu_steps"] - self.computing}


def now() -> tuple[float, float]:
    return time.process_time(), time.perf_counter()


def config_of(words: list[str]) -> Run:
    return resolve(composed([*COMMON, *words]))


def prepared(config: Run) -> tuple[AnyData, JointModule]:
    """Data and network of the run's only phase."""
    phase = config.mode.phases[0]
    data = build_data(config, phase)
    data.setup()
    return data, build_module(config, phase, data.num_classes)


def trainer_of(config: Run, data: AnyData, module: JointModule, folder: Path, parts: str) -> tuple[pl.Trainer, Any]:
    """The trainer of a run with `everything`, or only with some of its parts, and its stopwatch."""
    phase, history, watch = config.mode.phases[0], History(), Stopwatch()
    meter = Meter(config.footprint.country if config.footprint.energy else None)
    callbacks = build_callbacks(config, phase, folder, data, module, history, meter, {}, Stop())
    for bar in callbacks:
        if isinstance(bar, ProgressBar):  # draws as on a terminal of the usual size, to nowhere
            bar._console_kwargs = {"file": StringIO(), "force_terminal": True, "width": 120}
    if parts != ALL:
        callbacks = [each for each in callbacks if isinstance(each, PARTS.get(parts, ()))]
    loggers = build_loggers(config, phase, folder) if parts in (ALL, LOGGER) else []
    if not any(isinstance(each, ProgressBar) for each in callbacks):
        config = replace(config, trainer=replace(config.trainer, progress="off"))
    trainer = build_trainer(config, phase, folder, loggers, [watch, *callbacks], data)
    trainer.limit_val_batches = 0  # evaluation is not the loop that is measured
    return trainer, watch


def lightning_epoch(config: Run, batches: list[Batch], parts: str) -> tuple[dict[str, float], dict[str, Tensor]]:
    """Seconds of one epoch, and the weights after it."""
    data, module = prepared(config)
    with tempfile.TemporaryDirectory() as folder:
        trainer, watch = trainer_of(config, data, module, Path(folder), parts)
        data.train_dataloader = lambda: Ready(batches)  # type: ignore[method-assign, assignment, return-value]
        trainer.fit(module, datamodule=data)
    return watch.measured(), module.state_dict()


class Alone:
    """What the schedule asks of a trainer, for the bare loop."""

    accumulate_grad_batches, max_steps, max_epochs, train_dataloader, world_size = 1, -1, 1, (), 1

    def __init__(self, batches: int) -> None:
        self.num_training_batches = batches


def bare_epoch(config: Run, batches: list[Batch], parts: str = "") -> tuple[dict[str, float], dict[str, Tensor]]:
    """The same steps in a plain loop."""
    _, module = prepared(config)
    module.train()
    alone: Any = Alone(len(batches))
    made = optimizer_and_schedule(module, module.encoder, module.optimization, alone)
    optimizer, schedule = made["optimizer"], made["lr_scheduler"]["scheduler"]
    assert module.ssl is not None
    module.ssl.begin(module.encoder)
    watch = Stopwatch()
    watch.watch(module, optimizer)
    for step, batch in enumerate(batches):
        seed_step(config.seed, step, 0)
        loss, _ = module.joint_step(batch, Progress(step, step / len(batches)))
        optimizer.zero_grad()
        module.backward(loss)
        optimizer.step()
        module.ssl.after_step(module.encoder, (step + 1) / len(batches), step + 1)
        schedule.step()
    watch.stepped = watch.end = now()
    return watch.measured(), module.state_dict()


def interleaved(works: dict[str, Callable[[], dict[str, float]]], rounds: int) -> dict[str, list[dict[str, Any]]]:
    """Every work once a round, each between two of the first one, whose mean is its `baseline`."""
    first, *others = works
    measured: dict[str, list[dict[str, Any]]] = {name: [] for name in others}
    before = works[first]()
    for _ in range(rounds):
        for name in others:
            own, after = works[name](), works[first]()
            baseline = {key: (before[key] + after[key]) / 2 for key in before}
            measured[name].append({"own": own, "baseline": baseline, "load": os.getloadavg()[0]})
            before = after
    return measured


def summary(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def overhead(args: argparse.Namespace) -> tuple[Table, dict[str, Any]]:
    """Milliseconds a step of the loop around the step."""
    config = config_of(TOY)
    data, _ = prepared(config)
    batches = []
    while len(batches) < args.steps:
        batches += list(data.eval_loader("train") if "train" in data.sizes else data.train_dataloader())
    batches = [batch for batch in batches[: args.steps] if len(batch.images) == config.recipe.batch_size]
    bare, full = bare_epoch(config, batches)[1], lightning_epoch(config, batches, ALL)[1]
    if different := [name for name in bare if not torch.equal(bare[name], full[name])]:
        sys.exit(f"the two loops do not compute the same ({different[0]}): no times are reported")
    works: dict[str, Callable[[], dict[str, float]]] = {"bare loop": lambda: bare_epoch(config, batches)[0]}
    for name in (ALL, ALONE, LOGGER, *PARTS):
        works[name] = lambda name=name: lightning_epoch(config, batches, name)[0]  # type: ignore[misc]
    measured, steps = interleaved(works, args.pairs), len(batches)
    table = Table("loop", "ms a step", "outside, ms", "more than bare: median", "range", "once an epoch, ms")
    bare_ms, outside = (
        statistics.median(one["baseline"][key] for of in measured.values() for one in of) / steps * 1e3
        for key in ("cpu_steps", "cpu_outside")
    )
    table.add_row("bare loop", f"{bare_ms:.2f}", f"{outside:.2f}", "", "", "")
    rows = {}
    for name, of in measured.items():
        more = summary([(one["own"]["cpu_outside"] - one["baseline"]["cpu_outside"]) / steps * 1e3 for one in of])
        own, out, end = (
            statistics.median(one["own"][key] for one in of) * 1e3 for key in ("cpu_steps", "cpu_outside", "cpu_end")
        )
        rows[name] = {"ms_a_step": own / steps, "outside_ms": out / steps, "more_ms": more, "epoch_end_ms": end}
        span = f"{more['min']:+.2f} to {more['max']:+.2f}"
        table.add_row(name, f"{own / steps:.2f}", f"{out / steps:.2f}", f"{more['median']:+.2f}", span, f"{end:.0f}")
    return table, {"steps": steps, "bare_ms": bare_ms, "rows": rows, "rounds": measured}


AUTHORS = "authors"


def of_a_process(args: argparse.Namespace, loop: str) -> dict[str, float]:
    """Seconds of an epoch in a process of its own: what it asks of the system for memory stays with it."""
    words = [sys.executable, "-m", "benchmarks.epoch", "authors", "--root", args.root, "--images", str(args.images)]
    words += ["--batch", str(args.batch), *(["--pipeline", args.pipeline] if args.pipeline else []), "--of", loop]
    env = os.environ | ({} if loop == AUTHORS else {HUGE_PAGES: "1"})
    done = subprocess.run(words, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(done.returncode)
    return json.loads(done.stdout.splitlines()[-1])


def epoch_of(args: argparse.Namespace, loop: str) -> dict[str, float]:
    """Seconds of an epoch of the authors' loop, or of ours in the precision that it ends with."""
    words = words_of(args)
    every = build_data(config_of(words), config_of(words).mode.phases[0])
    every.setup()
    of_each = max(1, min(args.images // every.num_classes, every.samples("train") // every.num_classes))
    words.append(f"data.samples_per_class={of_each}")
    total = of_each * every.num_classes
    if total < args.batch:
        refuse(
            f"--images {args.images} gives {total}, {of_each} of each class, and a batch has {args.batch}: give more"
        )
    images = {"images": float(total // args.batch * args.batch)}
    if loop == AUTHORS:
        return authors_epoch(config_of(words)) | images
    keep_freed_memory()
    return our_epoch(config_of([*words, f"trainer.precision={loop.split()[-1]}"])) | images


def words_of(args: argparse.Namespace) -> list[str]:
    words = [
        *("encoder=vit_t", "data=image_folder", f"data.root={args.root}", "data.img_size=32", "mode=ssat"),
        *("encoder.patch_size=2", f"recipe.batch_size={args.batch}", "recipe.drop_last=true"),  # as the authors do
    ]
    return words + ([f"data.pipeline={args.pipeline}"] if args.pipeline else [])


def our_epoch(config: Run) -> dict[str, float]:
    """Seconds of a training epoch of the real run, its checkpoint included."""
    data, module = prepared(config)
    with tempfile.TemporaryDirectory() as folder:
        trainer, watch = trainer_of(config, data, module, Path(folder), ALL)
        trainer.fit(module, datamodule=data)
    took = watch.measured()
    return {clock: took[f"{clock}_steps"] + took[f"{clock}_end"] for clock in ("cpu", "wall")}


def authors(args: argparse.Namespace) -> tuple[Table, dict[str, Any]]:
    """Seconds of an epoch, ours and the authors', and their ratio."""
    loops = (AUTHORS, *(["ours bf16"] if multiplies_bf16() else []), "ours 32")
    works = {loop: functools.partial(of_a_process, args, loop) for loop in loops}
    measured = interleaved(works, args.pairs)
    table = Table("loop", "CPU s an epoch", "authors / ours: median", "range", "wall ratio")
    base = statistics.median(one["baseline"]["cpu"] for of in measured.values() for one in of)
    table.add_row("authors", f"{base:.1f}", "1", "", "1")
    rows = {}
    for name, of in measured.items():
        ratio = {
            clock: summary([one["baseline"][clock] / one["own"][clock] for one in of]) for clock in ("cpu", "wall")
        }
        own, cpu = statistics.median(one["own"]["cpu"] for one in of), ratio["cpu"]
        rows[name] = {"cpu_s": own, "ratio": ratio}
        table.add_row(
            name,
            f"{own:.1f}",
            f"{cpu['median']:.2f}",
            f"{cpu['min']:.2f}-{cpu['max']:.2f}",
            f"{ratio['wall']['median']:.2f}",
        )
    images = int(next(iter(measured.values()))[0]["own"]["images"])
    return table, {"images": images, "authors_s": base, "rows": rows, "rounds": measured}


def main() -> None:
    parser = Arguments(__doc__)
    parser.add_argument("what", choices=["overhead", "authors"])
    parser.add_argument("--steps", type=at_least(1), default=200, help="of an epoch of overhead")
    parser.add_argument("--pairs", type=at_least(1), default=7)
    parser.add_argument("--root", type=present_folder, help="folder of the images of authors")
    parser.add_argument("--images", type=at_least(1), default=10_000, help="of an epoch of authors")
    parser.add_argument("--batch", type=at_least(1), default=64, help="of authors")
    parser.add_argument("--pipeline", choices=["timm", "batched"], help="ours; default: that of the configuration")
    parser.add_argument("--json", type=output_file, help="default: runs/benchmarks/epoch-<what>.json")
    parser.add_argument("--of", help=argparse.SUPPRESS)  # the one loop of this process
    args = parser.parse_args()
    if args.what == "authors" and not args.root:
        refuse("authors reads images: give --root <folder with train/<class>/* and test/<class>/*>")
    torch.set_num_threads(1)
    quiet()
    for harmless in (".*no `val_dataloader`.*", ".*optimizer.step.*has been overridden.*"):
        warnings.filterwarnings("ignore", message=harmless)
    if args.of:
        print(json.dumps(epoch_of(args, args.of)))
        return
    table, report = overhead(args) if args.what == "overhead" else authors(args)
    Console(width=120).print(table)
    settings = {key: str(value) if isinstance(value, Path) else value for key, value in vars(args).items()}
    path = args.json or ROOT / "runs" / "benchmarks" / f"epoch-{args.what}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"settings": settings, "versions": versions(), **report}, indent=1))
    print(f"written to {path}")


if __name__ == "__main__":
    told(main)
