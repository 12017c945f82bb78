"""`logger=[wandb,tensorboard]`: several trackers, and loggers of the user's own."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

from ssat.config.callbacks import class_path
from ssat.config.create import checked_options
from ssat.config.environment import Logger
from ssat.core.errors import UserError
from ssat.core.words import nearest

PACKAGES = {"mlflow": "mlflow-skinny", "trackio": "trackio"}  # of the extra `trackers`
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


def check_logger(logger: Logger) -> None:
    """Refuse what cannot record, before anything is written or built.

    Raises:
        UserError: a logger is named twice, its package is not installed, or one of the user's own does not exist or
            does not derive from Lightning's Logger.
    """
    _refuse_twice(logger)
    for each in trackers(logger):
        if ":" in each.kind:
            from lightning.pytorch.loggers import Logger as Base

            checked_options({}, each.kind, each.options, f"logger.{each.kind}", of=Base)
        elif not _installed(each.kind):
            package = PACKAGES.get(each.kind, each.kind)
            extra = ", or the extra `trackers`" if each.kind in PACKAGES else ""
            raise UserError(
                f"logger={each.kind} needs the package {package}: pip install {package}{extra}; logger=csv needs none",
                key="logger",
                value=each.kind,
            )


def _installed(package: str) -> bool:
    """Whether Python finds it; of mlflow, whether Lightning does, which looks for the distribution too."""
    if find_spec(package) is None:
        return False
    if package != "mlflow":
        return True
    from lightning_utilities.core.imports import RequirementCache

    return bool(RequirementCache("mlflow>=1.0.0", "mlflow") or RequirementCache("mlflow-skinny>=1.0.0", "mlflow"))


def _refuse_twice(logger: Logger) -> None:
    # Where the first of a list is the user's own, `logger.name` is csv though the list does not say so.
    also = [*logger.also]
    is_own_list = logger.name == "csv" and also and not isinstance(also[0], str)
    kinds = [_tracker(entry).kind for entry in (also if is_own_list else [logger.name, *also])]
    if twice := [kind for kind in kinds if kinds.count(kind) > 1]:
        raise UserError(f"logger names {twice[0]} twice: keep one of them", key="logger", value=twice[0])


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
