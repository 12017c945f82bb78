"""A process that ends with the one that has started it, also where that one is killed."""

from __future__ import annotations

import os
import signal
from typing import Any

VARIABLE = "SSAT_PARENT"  # of the environment: the number of the process that a new one is to end with
PR_SET_PDEATHSIG = 1  # prctl(2)


def end_with_parent(parent: int) -> None:
    """From now on this process is killed when `parent`, which has started it, ends; at once if it has ended already.

    Linux kills it as soon as the thread that has started it ends. Elsewhere a thread looks once a second.
    """
    import ctypes  # here: most processes need none of this

    library = ctypes.CDLL(None)
    if hasattr(library, "prctl"):
        library.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        _end_without(parent)
    else:
        import threading

        threading.Thread(target=_look, args=(parent,), daemon=True).start()


def end_with_starter() -> None:
    """`end_with_parent` of a process whose environment names its parent; its own children do not inherit that."""
    if parent := os.environ.pop(VARIABLE, ""):
        end_with_parent(int(parent))


class EndsWithParent:
    """Pickled before the arguments of a new process, it acts there before they are read, which imports much."""

    def __reduce__(self) -> Any:
        return end_with_parent, (os.getpid(),)


def _end_without(parent: int) -> None:
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def _look(parent: int) -> None:
    import time

    while True:
        _end_without(parent)
        time.sleep(1)
