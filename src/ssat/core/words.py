"""Words for messages and flat keys."""

from __future__ import annotations

import difflib
import html
import re
from collections.abc import Sequence
from typing import Any


def flatten(config: Any, prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries and lists as {'recipe.betas.0': 0.9, ...}."""
    if isinstance(config, dict):
        items = config.items()
    elif isinstance(config, list):
        items = dict(enumerate(config)).items()
    else:
        return {prefix: config}
    flat: dict[str, Any] = {}
    for key, value in items:
        flat |= flatten(value, f"{prefix}.{key}" if prefix else str(key))
    return flat


def printable(text: str) -> str:
    """`text` with control characters as they are written in Python: a file's name cannot steer the terminal."""
    return "".join(char if char.isprintable() or char == "\n" else repr(char)[1:-1] for char in text)


def one_line(text: str) -> str:
    """`printable`, with a line feed as `\\n`, too: a name is no more than its line."""
    return printable(text).replace("\n", "\\n")


def markdown_text(text: str) -> str:
    """Text that Markdown shows as it is, also in a table: no tag, link, code, emphasis or control character."""
    plain = html.escape(printable(" ".join(text.splitlines())), quote=False)
    return re.sub(r"[\\|*`]|\](?=\()", r"\\\g<0>", plain)


def utf_8(text: str) -> str:
    """`text` in which a byte of a file's name that is no UTF-8 is `\\udcff` (of the byte ff), as `printable` has it."""
    return text.encode("utf-8", "backslashreplace").decode()


def nearest(word: str, options: list[str]) -> str:
    """' (did you mean x?)' for the option most like `word`, by its whole name or its last part; else ''."""

    def likeness(option: str) -> float:
        whole = difflib.SequenceMatcher(None, word, option).ratio()
        leaf = difflib.SequenceMatcher(None, word.rpartition(".")[2], option.rpartition(".")[2]).ratio()
        letters = iter(word)
        ends = option[:1] + option[-1:] == word[:1] + word[-1:]
        shortened = 2 * len(option) >= len(word) > 3 and ends and all(one in letters for one in option)
        ending = option and word.endswith(option)  # fp16 means 16 rather than bf16, and bfloat16 means bf16
        return max(whole, leaf, 0.9 if shortened else 0.8 if ending else 0)

    best = max(options, key=likeness, default="")
    return f" (did you mean {best}?)" if best and likeness(best) > 0.6 else ""


def many(count: int, noun: str) -> str:
    """'1 run' or '1,234 runs'."""
    return f"{count:,} {noun}{'s' * (count != 1)}"


def first_few(words: Sequence[str], most: int = 3) -> str:
    """The first `most` words as a list, and how many more there are: 'a, b, c and 2 more'."""
    return ", ".join(words[:most]) + (f" and {len(words) - most} more" if len(words) > most else "")


def duration(seconds: float) -> str:
    """Seconds as 8.2 s, 2m05s or 3h07m."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}m{rest:02d}s" if minutes < 60 else f"{minutes // 60}h{minutes % 60:02d}m"
