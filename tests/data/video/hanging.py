"""Work for the pool's tests, imported by its processes."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable


def start() -> Callable[[str], str]:
    def work(task: str) -> str:
        if task == "hang":
            time.sleep(600)
        if task == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if task == "fail":
            raise RuntimeError("two\nlines")
        if task == "memory":
            return str(len(bytearray(8 << 30)))
        return task.upper()

    return work
