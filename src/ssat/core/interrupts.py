"""Signals outside of a training: one line and the exit code 128 + the signal's number, never a traceback.

Ctrl-C (130), SIGTERM (143), and SIGUSR1 (138) or SIGUSR2 (140), with which a cluster announces that a job must go.

Imports nothing heavy: it is to be at work before anything else is imported. `ssat.training.stop` takes the signals
while something can be saved.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys

TYPE_CHECKING = False  # type checkers know the name; typing and contextlib would take a part of the first moment
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType
    from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
AGAIN = "the same command begins again"
LEFT = "the same command continues with what is left"
PATIENCE = 900.0  # seconds after a signal: longer than any evaluation that is waited for
_owner = os.getpid()  # processes that are forked off inherit the handlers
_codes: dict[int, int] = {number: 128 + number for number in SIGNALS}


class Stopped(SystemExit):
    """A signal has ended the run.

    Attributes:
        number: of the signal; the exit code is 128 more.
        where: a sentence that says where the same command continues; empty where nobody knows yet.
    """

    def __init__(self, number: int, where: str = "") -> None:
        super().__init__(128 + number)
        self.number, self.where = number, where


def then() -> str:
    """What the same command does where a signal comes before a run could say it: a sweep skips what is finished."""
    return LEFT if {"-m", "--multirun"} & {*sys.argv} else AGAIN


def end_at_once(*, stopped: int = 128 + signal.SIGTERM) -> None:
    """From now on a signal ends this process at once: nothing has been begun that could be left half-done.

    Args:
        stopped: exit code after SIGTERM, here and in what follows.
    """
    global _owner
    _owner = os.getpid()
    _codes[signal.SIGTERM] = stopped
    _take(_end)
    # The first that is registered runs last: Python's own end gives the signals back to the system, which would kill.
    atexit.register(_take, signal.SIG_IGN)


def raise_once() -> None:
    """From now on Ctrl-C raises KeyboardInterrupt and another signal SystemExit; a further one ends at once."""
    _take(_raise)


def last_word(text: str) -> None:
    """Print the line with which a command ends after Ctrl-C; from then on a further signal ends it without a word."""
    ours = [number for number in SIGNALS if signal.getsignal(number) in (_raise, _end_impatiently)]
    for number in ours:
        signal.signal(number, _ignore)  # one that came before this line has its say here
    print(f"\ninterrupted: {text}", file=sys.stderr, flush=True)
    for number in ours:
        signal.signal(number, _end_silently)


def end_at_exit() -> None:
    """Once Python takes itself down, a signal ends it without a word: nothing is lost any more."""
    atexit.register(_take, _end_silently)


class ending_at_once:  # noqa: N801  (it is used like a function, as contextlib's are)
    """Around heavy imports: an exception in the midst of one comes out as something else, so a signal ends at once."""

    def __enter__(self) -> None:
        self._before = [number for number in SIGNALS if signal.getsignal(number) is _raise]
        for number in self._before:
            signal.signal(number, _end)

    def __exit__(self, *_: object) -> None:
        for number in self._before:
            signal.signal(number, _raise)


class handling:  # noqa: N801  (see above)
    """Around what passes signals on or saves first: they call `handler`; only the main thread can set that."""

    def __init__(self, handler: Callable[[int, Any], None]) -> None:
        self._handler = handler
        self._before: dict[int, Any] = {}

    def __enter__(self) -> None:
        import threading

        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.getsignal(number) for number in SIGNALS}
            _take(self._handler)

    def __exit__(self, *_: object) -> None:
        for number, before in self._before.items():
            if before is not None:  # a handler that is not Python's
                signal.signal(number, before)


def _take(handler: Any) -> None:
    for number in SIGNALS:
        if signal.getsignal(number) not in (None, signal.SIG_IGN):  # nohup, and `&` in a script, ignore Ctrl-C
            signal.signal(number, handler)


def _end(number: int, frame: FrameType | None) -> None:
    if not _is_forked(number):
        _tell(number, then())
        _leave(number)


def _raise(number: int, frame: FrameType | None) -> None:
    if _is_forked(number):
        return
    if number == signal.SIGINT:
        _take(_end_impatiently)
        raise KeyboardInterrupt
    _tell(number, then())
    _take(_end_silently)
    raise SystemExit(_codes[number])


def _end_impatiently(number: int, frame: FrameType | None) -> None:
    """A further signal, before the command has said where it continues."""
    if not _is_forked(number):
        _tell(number, "ended at once")
        _leave(number)


def _end_silently(number: int, frame: FrameType | None) -> None:
    if not _is_forked(number):
        os._exit(_codes[number])


def _ignore(number: int, frame: FrameType | None) -> None:
    pass


def _tell(number: int, where: str) -> None:
    _take(_ignore)  # one line, however often Ctrl-C is pressed
    what = "\ninterrupted" if number == signal.SIGINT else f"stopped by {signal.Signals(number).name}"
    os.write(2, f"{what}: {where}\n".encode())


def _leave(number: int) -> None:
    try:  # noqa: SIM105  (contextlib, see above)
        sys.stdout.flush()
    except Exception:  # this very signal may have interrupted a print
        pass
    os._exit(_codes[number])


def _is_forked(number: int) -> bool:
    """Whether this is a process that was forked off; it does what it would do without these handlers."""
    if os.getpid() == _owner:
        return False
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    return True
