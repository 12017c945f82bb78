"""The one exception for a user's mistake."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

FIRST_KEY = re.compile(r"-{0,2}[a-z_][\w-]*(\.\w+)*(?==)")


class UserError(ValueError):
    """A wrong value, file or key of the user's; its message is one sentence: what, where, and the cure.

    Commands print the message and exit with code 2. Every other exception is a bug and keeps its traceback.

    Attributes:
        key: the configuration key or option that is wrong, as the user types it; by default that with which the
            message begins as `key=value`, else None.
        value: its value.
    """

    def __init__(self, message: str, *, key: str | None = None, value: Any = None) -> None:
        super().__init__(message)
        first = FIRST_KEY.match(message)
        self.key, self.value = (first[0] if first else None) if key is None else key, value


def cause_of(error: UserError, *cures: str) -> str:
    """The sentence of a mistake without the cure at its end: `move it away`, or one of `cures`."""
    ends = "|".join(map(re.escape, ("move it away", *cures)))
    return re.sub(rf"[:;] (?:{ends})$", "", str(error))


class NotEnoughMemory(UserError):
    """An allocation on a CPU or a GPU was refused.

    Attributes:
        reason: what the allocator has said, in one line.
    """

    def __init__(self, message: str, *, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason


class OwnCodeError(Exception):
    """Code of the user's own, such as a callback, has raised; the message is one sentence: what, where, and the cure.

    Commands print `lines` and the message and exit with code 1.

    Attributes:
        lines: the part of the traceback that is of the user's code, and what it has raised.
    """

    def __init__(self, message: str, lines: str) -> None:
        super().__init__(message, lines)  # both, so that it crosses processes
        self.lines = lines

    def __str__(self) -> str:
        return self.args[0]


# What a path that the user has named can be answered with.
REFUSED = (errno.ENAMETOOLONG, errno.ELOOP, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR)


@contextmanager
def usable_paths() -> Iterator[None]:
    """Turns the system's refusal of a path into a sentence.

    Raises:
        UserError: the path is too long, leads to itself, or may not be used.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in REFUSED or error.filename is None:
            raise
        raise UserError(f"{error.filename!s:.200} cannot be used ({error.strerror}): name another path") from error


# PyTorch is not imported for this; its allocator on a CPU, and oneDNN, raise plain RuntimeErrors.
ALLOCATOR = ("DefaultCPUAllocator", "Storage size calculation overflowed")
ONEDNN = ("could not create a primitive", "could not create a memory object", "could not execute a primitive")


def refused_memory(error: BaseException) -> str | None:
    """What an allocator has said that refused memory, in one line; None where `error` is another one."""
    text = str(error).splitlines()[0] if str(error) else "no memory is left"
    refused = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    refused |= isinstance(error, RuntimeError) and (text in ONEDNN or any(words in text for words in ALLOCATOR))
    if not refused:
        return None
    return re.sub(r"^\[enforce fail at .*?\] err == 0\. |\. Error code .*$", "", text)


def lacks_deterministic(error: BaseException) -> str | None:
    """The operation that PyTorch refuses under deterministic algorithms; None where `error` is another one."""
    found = re.match(r"(.+?) does not have a deterministic implementation", str(error))
    return found[1] if found and isinstance(error, RuntimeError) else None


@contextmanager
def enough_memory(what: str) -> Iterator[None]:
    """Turns a refused allocation, on a CPU or a GPU, into a sentence about `what`.

    Raises:
        NotEnoughMemory: the block asked for more memory than there is.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        reason = refused_memory(error)
        if reason is None:
            raise
        raise NotEnoughMemory(
            f"{what} does not fit into the device's memory ({reason}): lower recipe.batch_size, and raise"
            " trainer.accumulate with it, or take a smaller network",
            reason=reason,
        ) from error
