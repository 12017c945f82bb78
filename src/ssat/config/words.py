"""The words of a command line, the keys they name, and where the configuration files lie."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from ssat.core.errors import UserError

PACKAGE = Path(__file__).resolve().parent.parent

# In an installed package conf/ and experiments/ lie inside it, in the repository beside src/.
FILES = PACKAGE if (PACKAGE / "conf").is_dir() else PACKAGE.parent.parent
CONF = FILES / "conf"
EXPERIMENTS = FILES / "experiments"
FOLDERS = [CONF]  # with configuration files that the user has chosen; --config-dir adds one


def in_repository() -> bool:
    """Whether the user stands in the root of the repository, where `python -m src.train` works."""
    return (FILES / "src" / "train.py").is_file() and Path.cwd() == FILES


def command_line(command: str, words: Iterable[str] = ()) -> str:
    """One of our commands as it is typed here, quoted for a shell: `python -m src.train ...` or `ssat train ...`."""
    start = ("python", "-m", f"src.{command}") if in_repository() else ("ssat", command)
    return shlex.join([*start, *words])


def as_typed_here(text: str) -> str:
    """A help text or message whose `python -m src.<command>` is as it is typed here."""
    return text if in_repository() else re.sub(r"python -m src\.(\w+)", r"ssat \1", text)


def words_of_cell(cells: Mapping[str, Sequence[str]] | None, row: str, column: str) -> list[str]:
    """The overrides that one cell of an experiment has beside those of its row and its column.

    Args:
        cells: of the experiment file: a pattern of `row / column` such as `SSAT / zero-shot *`, and its overrides, in
            which {runs_dir} and {seed} stand for the run's own.
        row: of the cell.
        column: of the cell.
    """
    place = " / ".join(name for name in (row, column) if name)
    found = [words for pattern, words in (cells or {}).items() if fnmatchcase(place, pattern)]
    return [re.sub(r"\{(runs_dir|seed)\}", r"${\1}", word) for words in found for word in words]


# Numbers, true and null are no words to Hydra, which takes them for a mistake of its own.
TASK = re.compile(r"(?!(?:true|false|null|nan|inf)$)[a-z_]\w*", re.IGNORECASE)


def expand_tasks(words: list[str]) -> list[str]:
    """ssl=[a,b] as what Hydra composes: ssl=several with the configuration of each task under ssl.tasks.

    Raises:
        UserError: a sweep over lists, or a task named twice.
    """
    expanded = []
    for word in words:
        if not word.startswith("ssl=["):
            expanded.append(word)
            continue
        listed = re.fullmatch(r"ssl=\[([\w\s,]*)\]", word)
        names = [name.strip() for name in listed[1].split(",")] if listed else []
        if not names or not all(TASK.fullmatch(name) for name in names):
            raise UserError(
                f"{word} is not a list of tasks such as ssl=[mae,guidance]; to sweep over lists, run one command each",
                key="ssl",
                value=word.partition("=")[2],
            )
        if len(set(names)) < len(names):
            raise UserError(
                f"{word} names a task twice: name each once and set ssl.weights",
                key="ssl",
                value=word.partition("=")[2],
            )
        several = ["ssl=several", *(f"+ssl@ssl.tasks.{name}={name}" for name in names)]
        expanded += several if len(names) > 1 else [f"ssl={names[0]}"]
    return expanded
