"""Signals: a training saves before it ends, anything else ends at once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ssat.core.interrupts import SIGNALS, Stopped
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

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take the signals inside the block; only the main thread can."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        handlers = {number: signal.getsignal(number) for number in SIGNALS}
        # None is a handler that is not Python's; nohup, and `&` in a script, ignore Ctrl-C.
        before = {number: handler for number, handler in handlers.items() if handler not in (None, signal.SIG_IGN)}
        for number in before:
            signal.signal(number, self._take)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

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
