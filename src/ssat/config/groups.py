"""The groups of configuration files: ours, and those of a folder that the user names by --config-dir."""

from __future__ import annotations

import re
from pathlib import Path

from ssat.config.words import CONF, EXPERIMENTS, FOLDERS
from ssat.core.errors import UserError

EXPERIMENT = "# @package _global_"  # the first line of a file that +experiments= takes


def groups() -> list[str]:
    """The names that `group=option` may begin with."""
    return sorted(path.name for path in CONF.iterdir() if path.is_dir())


def files(group: str) -> dict[str, Path]:
    """The files of `group` by name; those of `experiments` are for +experiments=."""
    folders = [folder / group for folder in FOLDERS] + [EXPERIMENTS] * (group == "experiments")
    found = {path.stem: path for folder in reversed(folders) for path in folder.glob("*.yaml") if path.is_file()}
    return {name: found[name] for name in sorted(found, key=_natural)}


def options(group: str) -> dict[str, Path]:
    """Those files that a user chooses from."""
    return {name: path for name, path in files(group).items() if _offered(group, path)}


def _natural(name: str) -> list[tuple[str, int]]:
    """table2 before table10."""
    return [(text, int(number or 0)) for text, number in re.findall(r"(\D*)(\d*)", name)]


def _offered(group: str, path: Path) -> bool:
    if path.stem == "schema" or path.stem.startswith("_"):
        return False
    return group != "experiments" or _text(path).startswith(EXPERIMENT)


def _text(path: Path) -> str:
    """A file that is only listed; whoever chooses it hears what is wrong with it."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def comments(path: Path) -> list[str]:
    """The comment at the head of a configuration file, line by line."""
    found = []
    for line in _text(path).splitlines():
        if not line.startswith("#"):
            break
        if not line.startswith("# @package"):
            found.append(line.removeprefix("#").strip())
    return found


def header(path: Path) -> str:
    """The first line of that comment, or ''."""
    return next(iter(comments(path)), "").rstrip(",: ")


def add_folder(name: str) -> None:
    """Let the configuration files of the folder `name` be chosen, beside ours.

    Raises:
        UserError: it is no folder, or holds no folder that is called like a group.
    """
    try:
        folder = Path(name).expanduser().resolve()
    except RuntimeError:  # no such user, or a link to itself
        folder = Path(name)
    if not folder.is_dir():
        raise UserError(f"--config-dir={name} is not a folder", key="--config-dir", value=name)
    known = [*groups(), "experiments"]
    if not any((folder / group).is_dir() for group in known):
        raise UserError(
            f"--config-dir={name} holds no folder of a group: a file of yours lies in it as, for example,"
            f" {name}/encoder/mine.yaml (groups: {', '.join(known)})",
            key="--config-dir",
            value=name,
        )
    if folder not in FOLDERS:
        FOLDERS.append(folder)


def take_folders(words: list[str]) -> list[str]:
    """`words` without `--config-dir <folder>`, whose folders are added.

    Raises:
        UserError: as `add_folder`, or no folder is named.
    """
    left, rest = [], iter(words)
    for word in rest:
        flag, equals, name = word.partition("=")
        if flag not in ("--config-dir", "-cd"):
            left.append(word)
            continue
        name = name if equals else next(rest, "")
        if not name:
            raise UserError("--config-dir needs a folder: --config-dir my_conf", key="--config-dir")
        add_folder(name)
    return left
