from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import deque
from pathlib import Path

import pytest

from ssat.data.video.pool import Lost, run
from tests.data.video.hanging import start
from tests.helpers import ROOT


@pytest.mark.skipif(sys.platform != "linux", reason="memory is bounded on Linux only")
def test_a_task_that_hangs_dies_or_takes_memory_does_not_end_the_others() -> None:
    tasks = deque(["a", "hang", "b", "die", "c", "fail", "memory", "d"])
    found = {}
    for task, result in run(start, tasks, workers=2, seconds=lambda task: 2 if task == "hang" else 60):
        found[task] = result
        if task == "a":
            tasks.append("later")  # what waited for it
    assert {task: result for task, result in found.items() if isinstance(result, str)} == {
        "a": "A", "b": "B", "c": "C", "d": "D", "later": "LATER",
    }  # fmt: skip
    assert found["hang"] == Lost(True, "it took longer than 2 s (timeout)")
    assert found["die"] == Lost(False, "its worker was ended by SIGKILL; the memory may have run out")
    assert found["fail"] == Lost(False, "unexpected RuntimeError: two lines")
    assert isinstance(found["memory"], Lost) and "MemoryError" in found["memory"].reason


def test_without_workers_it_works_here() -> None:
    results = dict(run(start, deque(["a", "fail"]), workers=0, seconds=lambda _: 1))
    assert results == {"a": "A", "fail": Lost(False, "unexpected RuntimeError: two lines")}


HANGING = """from collections import deque
from ssat.data.video.pool import run
from tests.data.video.hanging import start
tasks = deque(["a", "hang", "hang"])
for task, _ in run(start, tasks, workers=2, seconds=lambda task: 600):
    print(task, flush=True)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_workers_end_with_a_killed_command_in_the_midst_of_their_work() -> None:
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}
    line = [sys.executable, "-c", HANGING]
    command = subprocess.Popen(line, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
    assert command.stdout and command.stdout.readline() == "a\n"
    workers = _children(command.pid)
    assert len(workers) >= 2
    command.kill()
    command.communicate()
    deadline = time.monotonic() + 30
    while any(Path(f"/proc/{pid}").exists() for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)


def _children(pid: int) -> list[int]:
    return [int(word) for path in Path(f"/proc/{pid}/task").glob("*/children") for word in path.read_text().split()]
