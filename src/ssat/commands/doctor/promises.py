"""What is promised of faults and of strangers' files, tried on this machine: promises=true."""

from __future__ import annotations

import io
import pickle
import resource
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import psutil
from PIL import Image

from ssat.commands.doctor.finding import CheckFailed, Finding
from ssat.commands.doctor.trainings import (
    LOG_CHARACTERS,
    REPORT_IT,
    RUN_SECONDS,
    SIGNAL_SECONDS,
    Runs,
    ended,
    interrupted,
    last_checkpoint,
    two_ranks,
)
from ssat.core.checkpoints import load_checkpoint
from ssat.core.errors import UserError
from ssat.runs.saved import saved_configuration

BOMB_SIDE, BOMB_BYTES = 65_500, 2e9  # pixels of an image that a file of some hundred bytes claims; memory it may cost
RANKS = ("trainer=ddp_cpu", "trainer.threads=1", "trainer.progress=off", "recipe.batch_size=8", "epochs=1000")


class Code:
    """An object whose pickle makes the file `mark` when it is read."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


def training_ranks(runs: Runs, name: str) -> tuple[subprocess.Popen[str], list[psutil.Process]]:
    """A long run of two ranks in its second epoch or later, and the processes that it has started.

    Raises:
        CheckFailed: it does not come so far.
    """
    process = runs.start("train", *runs.settings(name, *RANKS))
    deadline = time.monotonic() + RUN_SECONDS
    while not last_checkpoint(runs.folder / "runs" / name).exists():
        if process.poll() is not None or time.monotonic() > deadline:
            code, _, output = ended(process, signal.SIGKILL)
            raise CheckFailed(f"the run of two ranks failed ({code})", cure=REPORT_IT, log=output[-LOG_CHARACTERS:])
        time.sleep(0.05)
    return process, psutil.Process(process.pid).children(recursive=True)


def left_over(processes: list[psutil.Process]) -> int:
    """How many of them have not ended in time; those are killed."""
    alive = psutil.wait_procs(processes, timeout=SIGNAL_SECONDS)[1]
    for process in alive:
        with suppress(psutil.Error):
            process.kill()
    return len(alive)


def lost_rank(runs: Runs) -> Finding:
    """Where the system kills one of two ranks, as it does when memory runs out, the run ends and says why."""
    process, others = training_ranks(runs, "lost_rank")
    begun = time.monotonic()
    rank = next(each for each in others if "spawn_main" in " ".join(each.cmdline()))
    rank.kill()
    try:
        output, _ = process.communicate(timeout=SIGNAL_SECONDS)
    except subprocess.TimeoutExpired:
        left_over([*others, psutil.Process(process.pid)])
        text = f"{SIGNAL_SECONDS:.0f} s after one of two ranks was killed the other waits for it"
        raise CheckFailed(text, cure=REPORT_IT) from None
    seconds, alive = time.monotonic() - begun, left_over(others)
    sentences = [line for line in output.splitlines() if line.startswith("error: ")]
    if process.returncode == 0 or alive or "Traceback" in output or len(sentences) != 1:
        text = f"the run ends with {process.returncode}, {len(sentences)} sentences and {alive} processes left"
        raise CheckFailed(text, cure=REPORT_IT, log=output[-LOG_CHARACTERS:])
    return Finding("lost rank", "ok", f"the run ended in {seconds:.1f} s with one sentence and no process left")


def orphans(runs: Runs) -> Finding:
    """Where the process that has started two ranks is killed, they end too."""
    process, others = training_ranks(runs, "orphans")
    begun = time.monotonic()
    process.kill()
    if alive := left_over(others):
        text = f"{SIGNAL_SECONDS:.0f} s after a run was killed {alive} of its processes go on"
        raise CheckFailed(text, cure=REPORT_IT)
    return Finding(
        "orphans", "ok", f"{len(others)} processes ended {time.monotonic() - begun:.1f} s after a killed run"
    )


def stopped_ranks(runs: Runs) -> Finding:
    """SIGTERM to a run of two ranks, and not to them, ends all of them with a checkpoint."""
    process, others = training_ranks(runs, "stopped_ranks")
    try:
        code, seconds, output = ended(process, signal.SIGTERM)
    finally:
        alive = left_over(others)
    step = load_checkpoint(last_checkpoint(runs.folder / "runs" / "stopped_ranks"))["global_step"]
    if code != 128 + signal.SIGTERM or alive or "Traceback" in output:
        text = f"two ranks end with {code} after SIGTERM, and {alive} processes are left"
        raise CheckFailed(text, cure=REPORT_IT, log=output[-LOG_CHARACTERS:])
    return Finding("SIGTERM to ranks", "ok", f"both ended in {seconds:.1f} s, with a checkpoint of step {step}")


def code_in_files(runs: Runs) -> Finding:
    """A checkpoint with a pickled call and a configuration with a YAML tag are refused, and their code is not run."""
    folder = runs.folder / "strangers"
    folder.mkdir()
    mark = folder / "code_was_run"
    (folder / "last.ckpt").write_bytes(pickle.dumps({"state_dict": {}, "hparams": Code(mark)}, protocol=2))
    config = (runs.whole.result() / "config.yaml").read_text()
    (folder / "config.yaml").write_text(f"{config}\nnotes: !!python/object/apply:os.mkdir ['{mark}']\n")
    tries: dict[str, Callable[[], Any]] = {
        "a checkpoint with a pickled call": lambda: load_checkpoint(folder / "last.ckpt"),
        "a configuration with a YAML tag": lambda: saved_configuration(folder, []),
    }
    for what, read in tries.items():
        try:
            read()
        except UserError:
            continue
        finally:
            if mark.exists():
                raise CheckFailed(f"{what} has run its code: use no files of strangers here", cure=REPORT_IT)
        raise CheckFailed(f"{what} was read without a word", cure=REPORT_IT)
    return Finding("code in files", "ok", f"{' and '.join(tries)} are refused, no code was run")


def bomb() -> bytes:
    """A JPEG of some hundred bytes whose header claims `BOMB_SIDE` pixels each way."""
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "jpeg")
    data = bytearray(buffer.getvalue())
    size = data.index(b"\xff\xc0") + 5  # of the frame's header: marker, length, bits, then height and width
    data[size : size + 4] = struct.pack(">HH", BOMB_SIDE, BOMB_SIDE)
    return bytes(data)


def image_bomb(runs: Runs) -> Finding:
    """An image that claims gigabytes costs a sentence and no memory."""
    folder = runs.folder / "bomb"
    folder.mkdir()
    (folder / "bomb.jpg").write_bytes(bomb())
    process = runs.start("predict", f"run={runs.whole.result()}", f"input={folder}", f"out={folder / 'out'}")
    try:
        output, _ = process.communicate(timeout=SIGNAL_SECONDS)
    except subprocess.TimeoutExpired:
        raise CheckFailed(f"{SIGNAL_SECONDS:.0f} s are not enough to refuse it", cure=REPORT_IT) from None
    used = peak_of_children()
    text = f"{BOMB_SIDE:,} x {BOMB_SIDE:,} pixels in {len(bomb()):,} bytes"
    if process.returncode == 0 or "Traceback" in output or "bomb.jpg" not in output or used > BOMB_BYTES:
        text += f": predict ends with {process.returncode}, memory up to {used / 1e9:.1f} GB"
        raise CheckFailed(text, cure=REPORT_IT, log=output[-LOG_CHARACTERS:])
    return Finding("image bomb", "ok", f"{text} are refused, no process took more than {used / 1e9:.1f} GB")


def peak_of_children() -> float:
    """Bytes that the largest of this command's processes had in memory."""
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return float(peak if sys.platform == "darwin" else 1024 * peak)


CHECKS: dict[str, Callable[[Runs], Finding]] = {
    "code in files": code_in_files,
    "image bomb": image_bomb,
    "resume": interrupted,
    "SIGTERM": partial(interrupted, check="SIGTERM", number=signal.SIGTERM),
    "Ctrl-C": partial(interrupted, check="Ctrl-C", number=signal.SIGINT),
    "two ranks": two_ranks,
    "SIGTERM to ranks": stopped_ranks,
    "lost rank": lost_rank,
    "orphans": orphans,
}
