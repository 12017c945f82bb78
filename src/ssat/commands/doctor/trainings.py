"""Real runs of `python -m src.train` on the embedded digits, in a temporary folder, several at a time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ssat.commands.doctor.finding import CheckFailed, Finding, failure
from ssat.commands.doctor.machine import usable_cpus
from ssat.core.checkpoints import load_checkpoint
from ssat.core.parent import VARIABLE as PARENT

TINY = (
    "encoder=vit_micro",
    "encoder.depth=2",
    "encoder.embed_dim=32",
    "encoder.num_heads=2",
    "data=digits",
    "data.patch_size=4",
    "data.samples_per_class=5",
    "mode=ssat",
    "epochs=3",
    "recipe.batch_size=16",
    "recipe.drop_last=true",  # of 2 images left over, two processes could not make a batch each
    "recipe.lr_rule=absolute",  # the same with one process as with two
    "recipe.eps=1e-4",  # Adam's own turns a rounding error of a gradient near 0 into a whole step
    "footprint.energy=false",
    "reconstruct_every=0",
    "trainer=cpu",
    "trainer.threads=1",
    "trainer.progress=off",
)
ONE_BATCH = (
    "data.samples_per_class=2",
    "recipe.batch_size=20",
    "epochs=60",
    "eval_every=60",
    "recipe.augment=null",
    "recipe.base_lr=3e-3",
    "recipe.label_smoothing=0",
    "recipe.weight_decay=0",
)
CLS_BOUND = 0.5  # of the cross-entropy at the end; ln 10 = 2.3 at the beginning; 0.16 on the machines it was tried on
SSL_BOUND = 0.5  # of the reconstruction loss, as a share of its first value; 0.32 there
RANKS_BOUND = 1e-5
EVERYTHING = ("epochs=2", "logger=wandb", "footprint.energy=true", "reconstruct_every=1", "data.num_workers=2")
RUN_SECONDS = 300.0  # after which a run counts as hanging
SIGNAL_SECONDS = 60.0  # in which a run ends after a signal
LOG_CHARACTERS = 3000
# Of a job in which this command was started, which a run would take for its own ranks.
OTHERS_VARIABLES = ("SLURM_", "TORCHELASTIC_", "RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_", "WANDB_SERVICE")
REPORT_IT = "report it with the file of out=<file.json>"


def environment() -> dict[str, str]:
    """That of a run: one thread, nothing sent anywhere, no rank of somebody else's job."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(OTHERS_VARIABLES)}
    return kept | {"OMP_NUM_THREADS": "1", "WANDB_MODE": "offline", "WANDB_ERROR_REPORTING": "false"}


class Runs:
    """The runs of this command and their processes, all of which end with `stop`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._live: list[subprocess.Popen[str]] = []
        self._stopped = False
        self._pool = ThreadPoolExecutor(max(2, min(4, int(usable_cpus()))))
        self.whole = self._pool.submit(self.train, "whole")

    def submit(self, check: Callable[[Runs], Finding], name: str) -> Future[Finding]:
        """Make the check in the background; it never raises."""

        def look() -> Finding:
            begun = time.monotonic()
            try:
                finding = check(self)
            except Exception as error:
                finding = failure(name, error)
            return replace(finding, seconds=time.monotonic() - begun)

        return self._pool.submit(look)

    def start(self, module: str, *words: str) -> subprocess.Popen[str]:
        """`ssat <module> <words>` in a process group of its own."""
        if self._stopped:
            raise CheckFailed("stopped")
        process = subprocess.Popen(
            [sys.executable, "-m", "ssat.commands", module, *words],
            cwd=self.folder,
            env=environment() | {PARENT: str(os.getpid())},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._live.append(process)
        return process

    def command(self, module: str, *words: str) -> str:
        """What the command prints.

        Raises:
            CheckFailed: it fails, or does not end.
        """
        process = self.start(module, *words)
        try:
            output, _ = process.communicate(timeout=RUN_SECONDS)
        except subprocess.TimeoutExpired:
            kill(process)
            raise CheckFailed(f"ssat {module} did not end within {RUN_SECONDS:.0f} s", cure=REPORT_IT) from None
        if process.returncode:
            last = next((line for line in reversed(output.splitlines()) if line.strip()), "it printed nothing")
            last = next((line for line in output.splitlines() if line.startswith("error: ")), last)
            text = f"ssat {module} exits with {process.returncode}: {last.strip()[:300]}"
            raise CheckFailed(text, cure=REPORT_IT, log=output[-LOG_CHARACTERS:])
        return output

    def settings(self, name: str, *overrides: str) -> list[str]:
        """The command line of a run in the folder `name`."""
        return [*TINY, f"runs_dir={self.folder}", f"run_dir={self.folder / 'runs' / name}", *overrides]

    def train(self, name: str, *overrides: str) -> Path:
        """A run to its end; returns its folder.

        Raises:
            CheckFailed: it fails, or does not end.
        """
        self.command("train", *self.settings(name, *overrides))
        return self.folder / "runs" / name

    def stop(self) -> None:
        """End every process; no other starts."""
        self._stopped = True
        self._pool.shutdown(wait=False, cancel_futures=True)
        for process in self._live:
            kill(process)
        self._pool.shutdown(wait=True)


def kill(process: subprocess.Popen[str]) -> None:
    """End a process and those that it has started."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def last_checkpoint(run: Path) -> Path:
    """The last checkpoint of a run's last phase."""
    return run / "joint" / "checkpoints" / "last.ckpt"


def weights(run: Path) -> dict[str, torch.Tensor]:
    """The tensors of the run's last checkpoint."""
    return load_checkpoint(last_checkpoint(run))["state_dict"]


def largest_difference(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    """Over all tensors; infinite where their names differ."""
    if a.keys() != b.keys():
        return float("inf")
    return max((a[name].double() - b[name].double()).abs().max().item() for name in a)


def record(run: Path) -> dict[str, Any]:
    """The record of a run."""
    return json.loads((run / "result.json").read_text())


def one_batch(runs: Runs, device: str = "cpu") -> Finding:
    """One batch is learnt by heart: labels and pixels."""
    run = runs.train(f"one_batch_{device}", *ONE_BATCH, *([f"trainer={device}"] if device != "cpu" else []))
    history = record(run)["phases"][0]["history"]
    cls, ssl = ([row[f"train/loss_{name}"] for row in history] for name in ("cls", "ssl"))
    text = (
        f"after {len(history)} steps on one batch L_cls {cls[0]:.2f} -> {cls[-1]:.2f} (bound {CLS_BOUND}),"
        f" L_SSAT {ssl[0]:.2f} -> {ssl[-1]:.2f} (bound {SSL_BOUND * ssl[0]:.2f})"
    )
    name, details = f"overfit, {device.upper()}", {"loss_cls": cls[::10], "loss_ssl": ssl[::10]}
    if cls[-1] < CLS_BOUND and ssl[-1] < SSL_BOUND * ssl[0]:
        return Finding(name, "ok", text, details=details)
    return Finding(name, "failed", text, f"training does not learn on this machine: {REPORT_IT}", details)


def compared(name: str, what: str, a: Path, b: Path, bound: float = 0.0) -> Finding:
    """Whether the weights of two runs are equal, up to `bound`."""
    first, second = weights(a), weights(b)
    difference = largest_difference(first, second)
    equal = "bit for bit" if bound == 0 else f"to {bound:.0e} (largest difference {difference:.1e})"
    if difference <= bound:
        return Finding(name, "ok", f"{what}: {len(first)} tensors equal {equal}", details={"difference": difference})
    text = f"{what}: the weights differ by up to {difference:.1e} (bound {bound:g})"
    return Finding(name, "failed", text, REPORT_IT, {"difference": difference})


def same_seed(runs: Runs) -> Finding:
    """The same command in two processes."""
    again = runs.train("again")
    return compared("determinism", "the same seed twice", runs.whole.result(), again)


def interrupted(runs: Runs, check: str = "resume", number: signal.Signals = signal.SIGKILL) -> Finding:
    """A run ended by a signal after its first epoch and continued by the same command, against an undisturbed one."""
    run = runs.folder / "runs" / number.name
    process = runs.start("train", *runs.settings(run.name))
    deadline = time.monotonic() + RUN_SECONDS
    while not last_checkpoint(run).exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    early = process.poll() is None
    code, seconds, output = ended(process, number)
    if not early and code:
        raise CheckFailed(f"the run failed before its signal (exit code {code})", log=output[-LOG_CHARACTERS:])
    if (run / "result.json").exists():
        return Finding(check, "skipped", "the run had ended before its signal: repeat the command")
    expected = -number if number == signal.SIGKILL else 128 + number  # a shell's number of it
    if code != expected or "Traceback" in output:
        text = f"after {number.name} the run ends with {code} in place of {expected}"
        raise CheckFailed(text, cure=REPORT_IT, log=output[-LOG_CHARACTERS:])
    step = load_checkpoint(last_checkpoint(run))["global_step"]
    runs.train(run.name)
    what = f"{number.name} after step {step} of {record(run)['steps']}, ended in {seconds:.1f} s and continued"
    return compared(check, what, runs.whole.result(), run)


def ended(process: subprocess.Popen[str], number: signal.Signals) -> tuple[int, float, str]:
    """Send a signal to a process alone, as `kill` does; its exit code, the seconds that it took and what it printed.

    Raises:
        CheckFailed: it does not end.
    """
    begun = time.monotonic()
    process.send_signal(number)
    try:
        output, _ = process.communicate(timeout=SIGNAL_SECONDS)
    except subprocess.TimeoutExpired:
        kill(process)
        raise CheckFailed(f"{SIGNAL_SECONDS:.0f} s after {number.name} the run goes on", cure=REPORT_IT) from None
    return process.returncode, time.monotonic() - begun, output


def two_ranks(runs: Runs) -> Finding:
    """Two gloo processes with half the batch each, against one process with the whole."""
    ranks = ("trainer=ddp_cpu", "trainer.threads=1", "trainer.progress=off", "recipe.batch_size=8")
    try:
        two = runs.train("two", *ranks)
    except CheckFailed as error:
        error.cure = "where the machine's name does not resolve, set GLOO_SOCKET_IFNAME=lo; else " + REPORT_IT
        raise
    return compared("two ranks", "2 gloo processes and 1 with the whole batch", runs.whole.result(), two, RANKS_BOUND)


def everything_on(runs: Runs) -> Finding:
    """Loader processes, W&B offline, energy and pictures in one run."""
    run = runs.train("everything", *EVERYTHING)
    values = record(run)
    offline = list(run.glob("wandb/offline-run-*/*.wandb"))
    pictures, energy = values["phases"][0]["reconstructions"], values["energy"]
    lacking = [
        what
        for what, there in (
            ("no W&B recording", offline),
            ("no pictures", pictures),
            ("no energy", energy["kwh"] is not None),
        )
        if not there
    ]
    if lacking:
        return Finding("run, all on", "failed", f"the run finished, but left {', '.join(lacking)}", REPORT_IT)
    kilobytes = sum(path.stat().st_size for path in offline) / 1e3
    text = (
        f"2 loader processes, W&B offline ({kilobytes:.0f} kB, nothing sent), {len(pictures)} pictures,"
        f" {1000 * energy['kwh']:.3f} Wh ({energy['source']})"
    )
    return Finding("run, all on", "ok", text)


def report_page(runs: Runs) -> Finding:
    """The HTML page of a finished run."""
    run, page = runs.whole.result(), runs.folder / "report.html"
    runs.command("report", f"runs={run.parent}", f"out={page}")
    if not page.exists() or record(run)["encoder"] not in page.read_text():
        return Finding("report", "failed", "the page was not written, or lacks the run", REPORT_IT)
    return Finding("report", "ok", f"a page of {page.stat().st_size / 1e3:.0f} kB was written")


CHECKS: dict[str, Callable[[Runs], Finding]] = {
    "determinism": same_seed,
    "resume": interrupted,
    "two ranks": two_ranks,
    "overfit, CPU": one_batch,
    "run, all on": everything_on,
    "report": report_page,
}


def on_gpu(runs: Runs) -> Finding:
    """The one batch on the GPU, in the precision that trainer=gpu has."""
    return one_batch(runs, "gpu")


def checks() -> dict[str, Callable[[Runs], Finding]]:
    """Those that this machine can make."""
    return CHECKS | ({"overfit, GPU": on_gpu} if torch.cuda.is_available() else {})
