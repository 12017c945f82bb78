"""The words key=value of the commands that read their command line themselves."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Collection, Mapping, Sequence
from numbers import Integral
from typing import Any, NamedTuple

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

    A value in quotes of its own, as Hydra's commands want some (`'run="a=b"'`), is what stands between them.

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
    for place, word in enumerate(words):
        key, equals, value = word.partition("=")
        key = (aliases or {}).get(key, key)
        if not equals and key in names:
            found.names.append(key)
        elif equals and key in keys:
            if not value and not empty:
                raise UserError(f"{key} needs a value: {key}={keys[key]} (--help lists them)", key=key, value=value)
            found.values[key] = unquoted(value)
        elif equals and "." in key and key.split(".")[0] in handed_on:
            found.overrides.append(word)
        elif key in keys:
            raise UserError(f"{key} needs a value: {key}={keys[key]} (--help lists them)", key=key)
        else:
            hint = nearest(key, [*keys, *names]) or ("" if equals else continued(words[:place], word))
            raise UserError(f"there is no option {word!r}{hint} (--help lists them)", key=key, value=value or None)
    return found


def unquoted(text: str) -> str:
    """What stands between the quotes of `text`, as Hydra reads it; `text` itself without quotes around it."""
    if not re.fullmatch(r"""(?s)"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'""", text):
        return text
    return re.sub(rf"(\\+)({text[0]}|$)", lambda match: match[0][1::2], text[1:-1])


def _in_shell(key: str, value: str) -> str:
    return shlex.quote(f"{key}={value}")


def continued(before: Sequence[str], word: str, form: Callable[[str, str], str] = _in_shell) -> str:
    """'; for one value with blanks write ...' where `word` may be the rest of the value before it; else ''.

    Args:
        before: the words of the command line before it.
        word: one without `=`.
        form: of a key and its value, as it is typed in a shell.
    """
    parts: list[str] = [word]
    for earlier in reversed(before):
        key, equals, value = earlier.partition("=")
        if equals and value:
            whole = form(key.lstrip("+"), " ".join([value, *parts]))
            return f"; for one value with blanks in it write {whole}"
        if equals or earlier.startswith("-"):
            return ""
        parts.insert(0, earlier)
    return ""


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


def check_whole(name: str, value: Any, least: int) -> None:
    """Refuse an argument in Python that is no whole number from `least` on.

    Raises:
        UserError: says its name and value.
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or int(value) < least:
        raise UserError(
            f"{name}={value!r:.40} is not possible: it must be a whole number from {least} on", key=name, value=value
        )
