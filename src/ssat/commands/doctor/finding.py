"""What one check found."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import Any

MARKS = ("ok", "warning", "failed", "skipped")


@dataclass(frozen=True)
class Finding:
    """One line of the answer.

    Attributes:
        check: what was looked at.
        mark: one of MARKS.
        text: the measured value, or why the check was skipped.
        cure: what to do, in one sentence; empty when there is nothing to do.
        details: more values, for the JSON file alone.
        seconds: how long the check took.
    """

    check: str
    mark: str
    text: str
    cure: str = ""
    details: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0


class CheckFailed(Exception):
    """A check cannot give its value; what follows is a finding, not a crash of the command."""

    def __init__(self, text: str, *, cure: str = "", log: str = "") -> None:
        super().__init__(text)
        self.cure, self.log = cure, log


def guarded(check: str, look: Callable[[], Iterable[Finding]]) -> Iterator[Finding]:
    """The findings of `look` with their seconds; whatever it raises is a failed `check`, and the next checks go on."""
    begun = perf_counter()
    try:
        for finding in look():
            yield replace(finding, seconds=perf_counter() - begun)
            begun = perf_counter()
    except Exception as error:
        yield replace(failure(check, error), seconds=perf_counter() - begun)


def failure(check: str, error: Exception) -> Finding:
    """The finding that `error` is."""
    if isinstance(error, CheckFailed):
        return Finding(check, "failed", str(error), error.cure, {"log": error.log} if error.log else {})
    text = " ".join(f"{type(error).__name__}: {error}".split())[:300]
    trace = "".join(traceback.format_exception(error))
    return Finding(check, "failed", text, "see the traceback in the file of out=<file.json>", {"traceback": trace})
