"""The words key=value of the commands that read their command line themselves."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from ssat.core.errors import UserError
from ssat.core.words import nearest


class Options(NamedTuple):
    """A command line, sorted.

    Attributes:
        values: of the command's own keys.
        names: words that stand alone.
        overrides: words that set a key of the run.
    """

    values: dict[str, str]
    names: list[str]
    overrides: list[str]


def read_options(
    words: Sequence[str],
    keys: Mapping[str, str],
    *,
    names: Collection[str] = (),
    aliases: Mapping[str, str] | None = None,
    handed_on: Collection[str] = (),
    empty: bool = False,
) -> Options:
    """`words` sorted into the command's own keys, names and overrides of a run.

    Args:
        words: of the command line.
        keys: the command's own, with what their value is, such as `<folder>`.
        names: words that may stand alone, flags such as --check too.
        aliases: other spellings.
        handed_on: groups whose keys are overrides of the run, such as `data`.
        empty: whether `key=` is a value.

    Raises:
        UserError: an unknown word, or a key without a value.
    """
    found = Options({}, [], [])
    for word in words:
        key, equals, value = word.partition("=")
        key = (aliases or {}).get(key, key)
        if not equals and key in names:
            found.names.append(key)
        elif equals and key in keys:
            if not value and not empty:
                raise UserError(f"{key} needs a value: {key}={keys[key]} (--help lists them)", key=key, value=value)
            found.values[key] = value
        elif equals and "." in key and key.split(".")[0] in handed_on:
            found.overrides.append(word)
        elif key in keys:
            raise UserError(f"{key} needs a value: {key}={keys[key]} (--help lists them)", key=key)
        else:
            hint = nearest(key, [*keys, *names])
            raise UserError(f"there is no option {word!r}{hint} (--help lists them)", key=key, value=value or None)
    return found


def is_true(key: str, text: str) -> bool:
    """The value of a switch.

    Raises:
        UserError: it is neither true nor false.
    """
    if text.lower() not in ("true", "false"):
        raise UserError(f"{key}={text} is not one of true, false", key=key, value=text)
    return text.lower() == "true"


def whole_number(key: str, text: str, *, least: int = 1) -> int:
    """The value of a count.

    Raises:
        UserError: it is no whole number from `least` on.
    """
    if not text.isdigit() or int(text) < least:
        raise UserError(f"{key}={text} is not possible: it must be a whole number from {least} on", key=key, value=text)
    return int(text)
