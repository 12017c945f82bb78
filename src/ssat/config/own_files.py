"""Configuration files of the user's own: what is wrong in one, and which of them sets a key."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig

from ssat.config.groups import EXPERIMENT, files
from ssat.config.register import SECTIONS
from ssat.config.words import CONF, EXPERIMENTS, FOLDERS
from ssat.core.errors import UserError
from ssat.core.read import Endless, read_text, read_yaml

NAMED = ("encoder", "ssl", "data")  # groups whose files give a name


def check_file(group: str, name: str) -> None:
    """Refuse the user's own file for `group`=`name` where it cannot be a part of a configuration.

    Raises:
        UserError: names the file, and what is missing in it.
    """
    path = files(group).get(name)
    if path is None or {CONF, EXPERIMENTS} & {*path.parents}:
        return
    try:
        text = read_text(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as UTF-8 text ({error!s:.80})", key=group, value=name) from error
    if group == "experiments":
        if not text.startswith(EXPERIMENT):
            raise UserError(f"{path} does not begin with the line {EXPERIMENT!r}: put it there", key=group, value=name)
        return
    node = _content(path)
    if node is None:
        raise UserError(f"{path} is empty: write keys into it, {_beginning(group)} first", key=group, value=name)
    if not isinstance(node, dict):
        raise UserError(f"{path} holds {node!r:.40}, and it must hold keys: write key: value", key=group, value=name)
    if not all(isinstance(key, str) for key in node):
        raise UserError(f"{path} has a key that is no text: write it in quotes", key=group, value=name)
    defaults = node.get("defaults", [])
    if not isinstance(defaults, list) or not all(isinstance(entry, (str, dict)) for entry in defaults):
        raise UserError(f"{path}: defaults={defaults!r:.60} is not a list of names", key=group, value=name)
    if name in defaults:
        raise UserError(f"{path} names itself in its defaults: name another file of {group}", key=group, value=name)
    if text.startswith(EXPERIMENT) or "defaults" in node:  # the first may set keys of other groups too
        return
    if group in SECTIONS:
        raise UserError(
            f"{path} has no defaults for the keys that it leaves out: begin it with {_beginning(group)}",
            key=group,
            value=name,
        )
    if group in NAMED and "name" not in node:
        raise UserError(f"{path} has no name: add name: {name}", key=f"{group}.name")


def _beginning(group: str) -> str:
    return "defaults: [schema, _self_]" if group in SECTIONS else f"defaults: [{next(iter(files(group)))}]"


def _content(path: Path) -> Any:
    try:
        return read_yaml(path)
    except Endless as error:
        raise UserError(f"{path} {str(error).removeprefix('it ')}", key=path.parent.name, value=path.stem) from error
    except (OSError, ValueError):
        return {"defaults": []}  # Hydra says what is wrong with it, and in which line


@contextmanager
def naming_files() -> Iterator[None]:
    """Adds to a mistake the file of the user's own that sets its key.

    Raises:
        UserError: the same, with the file.
    """
    try:
        yield
    except UserError as error:
        own = file_with(error.key, error.value)
        if own is None or str(own) in str(error):
            raise
        raise UserError(f"{error} (set in {own})", key=error.key, value=error.value) from error


def file_with(key: str | None, value: Any = None) -> Path | None:
    """The one chosen file of the user's own that sets the dotted `key`, to `value` if given; else None."""
    group, _, rest = (key or "").partition(".")
    chosen = HydraConfig.get().runtime.choices if HydraConfig.initialized() else {}
    places = [(group, rest), ("experiments", key)]
    found = [
        path
        for folder, name in places
        for path in _own(folder)
        if chosen.get(folder, path.stem) == path.stem and _sets(path, name, value)
    ]
    return found[0] if len(found) == 1 else None


def _own(group: str) -> list[Path]:
    folders = [folder / group for folder in FOLDERS if folder != CONF]
    return [path for folder in folders if group for path in sorted(folder.glob("*.yaml"))]


def _sets(path: Path, key: str | None, value: Any) -> bool:
    node = _content(path)
    for part in key.split(".") if key else [""]:
        if not isinstance(node, dict) or part not in node:
            return False
        node = node[part]
    return value is None or node == value
