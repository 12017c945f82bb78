"""Whose code may run: a class that only a stranger's file names is never imported."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ssat.config.components import components
from ssat.config.schema import Run
from ssat.config.words import FOLDERS
from ssat.core.errors import UserError
from ssat.core.read import read_yaml


def trusted(run: Run, *, like: Run | None = None) -> Run:
    """`run`, whose configuration comes from a file of its folder, if it names no code but ours and the user's own.

    Args:
        run: what the file describes.
        like: a run that the user has composed: the classes that it names are the user's own.

    Raises:
        UserError: it names a class that no configuration file of the user's names.
    """
    own = {part.kind for _, _, part in components(like)} if like else set()
    for key, table, part in components(run):
        group = key.partition(".")[0]
        if part.kind in table or part.kind in own or part.kind in _named_by_the_user(group):
            continue
        raise UserError(
            f"{key}.kind={part.kind} is code that no configuration file of yours names, so it is not imported: repeat"
            f" the --config-dir of the training, whose folder {group} holds a file with this kind",
            key=f"{key}.kind",
            value=part.kind,
        )
    return run


def _named_by_the_user(group: str) -> set[str]:
    """Every `module:Class` in the files of a group."""
    return {kind for folder in FOLDERS for path in sorted((folder / group).glob("*.yaml")) for kind in _kinds(path)}


def _kinds(path: Path) -> Iterator[str]:
    try:
        node = read_yaml(path)
    except (OSError, ValueError):
        return
    nodes = [node]
    while nodes:
        node = nodes.pop()
        if isinstance(node, dict):
            if isinstance(node.get("kind"), str) and ":" in node["kind"]:
                yield node["kind"]
            nodes += node.values()
