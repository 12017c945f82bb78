"""JSON and YAML files that a stranger may have written: read, or refused as damaged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

DEEPEST = 64  # levels of lists and mappings in one another; no file of ours has ten


def read_json(path: Path) -> Any:
    """The value in a JSON file.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no JSON, or nested too deep.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except RecursionError as error:
        raise ValueError("nested too deep") from error


def plain_yaml(path: Path) -> str:
    """The text of a YAML file without references, which may make a small file endless or huge.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no YAML, has references, or is nested too deep.
    """
    text = path.read_text(encoding="utf-8")
    depth = 0
    try:
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if isinstance(event, yaml.AliasEvent) or depth > DEEPEST:
                raise ValueError("it has references, or is nested too deep")
    except yaml.YAMLError as error:
        raise ValueError("it is no YAML") from error
    return text
