"""Commands at the price of a fork: everything is imported once, and each command line runs in a child of its own."""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
HEAVY = (
    "torch",
    "torchvision",
    "timm",
    "lightning.pytorch",
    "torchmetrics",
    "hydra",
    "omegaconf",
    "rich",
    "safetensors",
)
OURS = ("train", "evaluate", "predict.command", "embed.command", "export", "analyze", "report", "prepare", "advise")
MEMORY = 2 << 30  # bytes that a command may take beyond what the server has


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    Attributes:
        code: exit code; -9 = it was killed.
        out: stdout and stderr.
        seconds: of processor time: a busy machine is no fault of the command.
        hung: whether it was killed at its limit of wall-clock time.
        memory: peak of resident bytes, the server's own included.
        left: processes of its group that outlived it.
    """

    code: int
    out: str
    seconds: float
    hung: bool
    memory: int
    left: int

    def faults(self, patience: float) -> list[str]:
        """What no command may do: a traceback, an exit by a signal, a long silence, a flood of memory, orphans."""
        found = ["a traceback"] if "Traceback (most recent call last)" in self.out else []
        found += [f"{self.seconds:.0f} s of computing"] if self.seconds >= patience else []
        found += ["no end"] if self.hung else [f"ended by signal {-self.code}"] if self.code < 0 else []
        found += [f"{self.memory / 2**30:.1f} GB"] if self.memory >= MEMORY else []
        found += [f"{self.left} processes left"] if self.left else []
        says = [line for line in self.out.splitlines() if line.startswith("error: ") or "error: " in line]
        return found + ["exit code 2 without a sentence" for _ in range(self.code == 2 and not says)]


class Server:
    """A process that has imported everything, and forks a child for each command."""

    def __init__(self) -> None:
        environment = os.environ | {"OMP_NUM_THREADS": "1", "WANDB_MODE": "offline", "HF_HUB_OFFLINE": "1"}
        environment["PYTHONPATH"] = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.fuzz.forked"],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._ask({})

    def run(self, words: Sequence[str], folder: Path, *, limit: float = 120.0) -> Ended:
        """`ssat <words>` in `folder`, at most `limit` seconds of wall-clock time."""
        return Ended(**self._ask({"words": list(words), "folder": str(folder), "limit": limit}))

    def _ask(self, question: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.close()
        self._process.wait(timeout=30)
        self._process.stdout.close()


def serve() -> None:
    """Answer questions until standard input ends."""
    import importlib

    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for name in (*HEAVY, *(f"ssat.commands.{name}" for name in OURS)):
        importlib.import_module(name)
    for line in sys.stdin:
        question = json.loads(line)
        answer = _child(**question) if question else {}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _child(words: list[str], folder: str, limit: float) -> dict[str, Any]:
    reading, writing = os.pipe()
    start = time.monotonic()
    child = os.fork()
    if child == 0:
        _command(words, folder, reading, writing)
    os.close(writing)
    said, ended = bytearray(), False
    while (left := start + limit - time.monotonic()) > 0:
        if not select.select([reading], [], [], left)[0]:
            break
        if not (chunk := os.read(reading, 1 << 16)):
            ended = True
            break
        said += chunk[: (1 << 20) - len(said)]
    if not ended:
        os.kill(child, signal.SIGKILL)
    _, status, usage = os.wait4(child, 0)
    try:
        os.killpg(child, signal.SIGKILL)
        orphans = 1
    except ProcessLookupError:
        orphans = 0
    os.close(reading)
    return {
        "code": os.waitstatus_to_exitcode(status),
        "out": said.decode(errors="replace"),
        "seconds": usage.ru_utime + usage.ru_stime,
        "hung": not ended,
        "memory": usage.ru_maxrss * 1024,
        "left": orphans,
    }


def load(run: str) -> None:
    """`ssat.load` as a command."""
    import ssat
    from ssat.core.errors import UserError

    try:
        ssat.load(run)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


def _command(words: list[str], folder: str, reading: int, writing: int) -> None:
    os.close(reading)
    os.setpgid(0, 0)
    os.chdir(folder)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(writing, 1)
    os.dup2(writing, 2)
    os.close(writing)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    code: Any = 1
    try:
        from ssat.commands.__main__ import main

        sys.argv = ["ssat", *words]
        # Those of the server know of other files.
        sys.stdin, sys.stdout, sys.stderr = os.fdopen(0), os.fdopen(1, "w"), os.fdopen(2, "w")
        load(words[1]) if words[0] == "load" else main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    serve()
