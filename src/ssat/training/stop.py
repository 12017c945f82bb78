"""Signals: a training saves before it ends, anything else ends at once."""

from __future__ import annotations

import os
import signal
from typing import Any

from ssat.core.interrupts import Stopped, handling
from ssat.core.launch import is_main_process

PROMISE = b"\nstopping: saving after this batch or this evaluation; Ctrl-C again ends at once\n"


class Stop:
    """The wish of a signal that this process ends.

    Attributes:
        received: number of the signal that waits to be obeyed, 0 = none.
        waits: whether a signal waits for the next moment that can be saved; else it raises `Stopped` at once, and so
            does a second Ctrl-C.
    """

    def __init__(self) -> None:
        self.received, self.waits = 0, False
        self._process, self._interrupted, self._raised = os.getpid(), False, False

    def listening(self) -> handling:
        """Around a training: takes the signals; only the main thread can."""
        return handling(self._take)

    def _take(self, number: int, frame: Any) -> None:
        again = number == signal.SIGINT and self._interrupted
        self._interrupted |= number == signal.SIGINT
        if self._raised and not again:
            return  # it is on its way out: DDP's ranks get a terminal's Ctrl-C, and SIGTERM of their parent
        if not self.waits or again:
            self._raised = True
            raise Stopped(self.received or number)
        if number == signal.SIGINT and self._process == os.getpid() and is_main_process():  # not a loader's worker
            os.write(2, PROMISE)  # print may have been interrupted by this very signal
        self.received = self.received or number
