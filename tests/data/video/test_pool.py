from __future__ import annotations

import sys
from collections import deque

import pytest

from ssat.data.video.pool import Lost, run
from tests.data.video.hanging import start


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
