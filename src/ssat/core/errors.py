"""The one exception for a user's mistake."""

from __future__ import annotations

from typing import Any


class UserError(ValueError):
    """A wrong value, file or key of the user's; its message is one sentence: what, where, and the cure.

    Commands print the message and exit with code 2. Every other exception is a bug and keeps its traceback.

    Attributes:
        key: the configuration key or option that is wrong, as the user types it, or None.
        value: its value.
    """

    def __init__(self, message: str, *, key: str | None = None, value: Any = None) -> None:
        super().__init__(message)
        self.key, self.value = key, value
