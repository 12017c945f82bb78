"""JSON and YAML files that a stranger may have written: read, or refused as damaged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

DEEPEST = 64  # levels of lists and mappings in one another; no file of ours has ten


def read_text(path: Path) -> str:
    """The UTF-8 text of a file; a pipe or a device of its name, which may never end, is not opened.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no UTF-8, or no file.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        raise ValueError("it is no file")
    return path.read_text(encoding="utf-8")


def read_json(path: Path, *, unique: bool = False) -> Any:
    """The value in a JSON file.

    Args:
        path: of the file.
        unique: whether a name that an object holds twice is refused; otherwise its last value counts.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no JSON, nested too deep, or holds a name twice.
    """
    try:
        return json.loads(read_text(path), object_pairs_hook=_unique if unique else None)
    except RecursionError as error:
        raise ValueError("nested too deep") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for number, name in enumerate(names) if name in names[:number])
        raise ValueError(f"it holds {twice!r} twice")
    return found


def plain_yaml(path: Path) -> str:
    """The text of a YAML file without references, which may make a small file endless or huge.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no YAML, has references, or is nested too deep.
    """
    text = read_text(path)
    depth = 0
    try:
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if isinstance(event, yaml.AliasEvent) or depth > DEEPEST:
                raise ValueError("it has references, or is nested too deep")
    except yaml.YAMLError as error:
        raise ValueError("it is no YAML") from error
    return text
