"""Arguments with a fixed set of values."""

from __future__ import annotations

from collections.abc import Iterable

from ssat.core.errors import UserError
from ssat.core.words import nearest


def check_choice(key: str, value: object, choices: Iterable[str]) -> None:
    """Refuse a `value` of the configuration key `key` that is none of `choices`.

    Raises:
        UserError: names the key, its value, and what is possible.
    """
    possible = list(choices)
    if value not in possible:
        raise UserError(
            f"{key}={value!r} is not one of {', '.join(possible)}{nearest(str(value), possible)}", key=key, value=value
        )
