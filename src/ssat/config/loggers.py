"""`logger=[wandb,tensorboard]`: several trackers, and loggers of the user's own."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ssat.config.callbacks import class_path
from ssat.config.environment import Logger
from ssat.core.errors import UserError
from ssat.core.words import nearest

NAMES = ("csv", "tensorboard", "wandb", "mlflow", "trackio")


@dataclass(frozen=True)
class Tracker:
    """What records beside the CSV file: a name of NAMES, or the user's own `module:Class` with its arguments."""

    kind: str
    options: Mapping[str, Any] = field(default_factory=dict)


def trackers(logger: Logger) -> list[Tracker]:
    """What records beside the CSV file, each once.

    Raises:
        UserError: there is no such logger.
    """
    found: dict[str, Tracker] = {}
    for entry in (logger.name, *logger.also):
        each = _tracker(entry)
        if each.kind != "csv":
            found[each.kind] = each
    return list(found.values())


def _tracker(entry: Any) -> Tracker:
    if isinstance(entry, Mapping) and {"kind", "_target_"} & {*entry}:
        options = {str(name): value for name, value in entry.items() if name not in ("kind", "_target_")}
        return Tracker(class_path(entry), options)
    if isinstance(entry, str) and (entry in NAMES or ":" in entry):
        return Tracker(entry)
    raise UserError(
        f"logger: {entry} is not one of {', '.join(NAMES)}{nearest(str(entry), list(NAMES))}; one of your own is"
        " written as {kind: module:Class}",
        key="logger",
        value=entry,
    )


def expand_loggers(words: Sequence[str]) -> list[str]:
    """`logger=[a,b]` as what Hydra composes: the file of the first, and the others in `logger.also`.

    Raises:
        UserError: the list is empty.
    """
    expanded = []
    for word in words:
        listed = re.fullmatch(r"logger=\[(.*)\]", word, re.DOTALL)
        if not listed:
            expanded.append(word)
            continue
        first, _, rest = (part.strip() for part in listed[1].partition(","))
        if not first:
            raise UserError(f"{word} names no logger: write logger=[wandb,tensorboard]", key="logger", value="[]")
        if re.fullmatch(r"\w+", first):
            expanded += [f"logger={first}", *([f"logger.also=[{rest}]"] if rest else [])]
        else:  # one of the user's own
            expanded += ["logger=csv", f"logger.also=[{listed[1]}]"]
    return expanded
