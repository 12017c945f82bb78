"""Files that `src.evaluate` has written beside a run, which cells read: what is in one, and why it does not count."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ssat.config.identity import config_hash
from ssat.config.resolve import build
from ssat.core.errors import UserError
from ssat.runs.record import Record, lookup, read_json


def read_evaluation(record: Record, name: str, faults: Callable[[Any], Iterator[str]]) -> tuple[Any, str]:
    """The content of a file, and why it does not count: None and empty where there is none.

    Args:
        record: of the run that it lies beside.
        name: of the file.
        faults: what is wrong with a content, in words; the first one is said.
    """
    path = record.folder / "evaluations" / name
    if not path.is_file():
        return None, ""
    try:
        values = read_json(path)
    except ValueError as error:
        return None, str(error)
    return values, next(faults(values), "")


def does_not_count(record: Record, name: str, fault: str) -> str:
    """The sentence for a file with a fault; empty without one."""
    return f"{name} of {record.folder.name} does not count: {fault}" if fault else ""


def settings_faults(record: Record, values: Any, wanted: Mapping[str, str], harmless: tuple[str, ...]) -> Iterator[str]:
    """Where a content is of another run, or was made with other options than the cell's command.

    Args:
        record: of the run.
        values: the content.
        wanted: options of the command, by name.
        harmless: beginnings of the overrides of `data` that change nothing that is measured.
    """
    settings = lookup(values, "settings")
    if not isinstance(settings, dict):
        yield "it does not say how it was made"
        return
    if lookup(values, "hash") not in (record.get("hash"), _hash_now(record)):
        yield "it is of another run"
    for key, value in wanted.items():
        if settings.get(key) != value:
            yield f"{key}={settings.get(key)}, not {value or 'empty'}"
    if (overrides := settings.get("overrides")) is not None and not isinstance(overrides, list):
        yield "settings.overrides is no list"
        return
    for override in overrides or []:
        if not isinstance(override, str) or (override.startswith("data.") and not override.startswith(harmless)):
            yield f"it was made with {override}"


def _hash_now(record: Record) -> str | None:
    """The run's hash by today's rule, where an earlier version has written its record."""
    try:
        return config_hash(build(record.get("config"), str(record.path)))
    except (UserError, TypeError, AttributeError):
        return None
