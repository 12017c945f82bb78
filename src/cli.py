"""What every command does around its work: one clear sentence and an exit code for a user's mistake."""

from __future__ import annotations

import errno
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, MissingConfigException
from hydra.types import RunMode
from omegaconf.errors import OmegaConfBaseException

from src.config import flatten, nearest
from src.errors import UserError

CONF = Path(__file__).resolve().parent.parent / "conf"


# Mistakes that were already printed; the process exits with 2 at its end.
reported: list[str] = []


@contextmanager
def users_mistakes() -> Iterator[None]:
    """Around one run: a user's mistake is one sentence on stderr, and the process exits with 2 at its end.

    Raising it through Hydra would end in Hydra's own lines. A job of a sweep raises: the sweeper collects mistakes.
    """
    try:
        yield
    except UserError as error:
        if HydraConfig.get().mode == RunMode.MULTIRUN:
            raise
        print(f"error: {error}", file=sys.stderr)
        reported.append(str(error))


def run_command(command: Callable[[], None], config_name: str) -> None:
    """Run a Hydra command; a user's mistake prints one sentence and exits with 2, a bug keeps its traceback."""
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        sys.argv[1:] = expand_tasks(sys.argv[1:])
        command()
    except UserError as error:
        fail(str(error))
    except (HydraException, OmegaConfBaseException) as error:
        fail(explain(error, config_name))
    except KeyboardInterrupt:
        print("\ninterrupted: the same command continues from the last checkpoint", file=sys.stderr)
        raise SystemExit(130) from None
    if reported:
        raise SystemExit(2)


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
        if not all(names) or not names:
            raise UserError(
                f"{word} is not a list of tasks such as ssl=[mae,guidance]; to sweep over lists, run one command each"
            )
        if len(set(names)) < len(names):
            raise UserError(f"{word} names a task twice: name each once and set ssl.weights")
        several = ["ssl=several", *(f"+ssl@ssl.tasks.{name}={name}" for name in names)]
        expanded += several if len(names) > 1 else [f"ssl={names[0]}"]
    return expanded


def run_words(command: Callable[[list[str]], object], usage: str, *, interrupted: str) -> None:
    """Run a command that reads key=value words itself: `--help`, and one sentence for a mistake or for Ctrl-C."""
    if {"--help", "-h"} & {*sys.argv[1:]}:
        print(usage, end="")
        return
    try:
        command(sys.argv[1:])
    except UserError as error:
        fail(str(error))
    except KeyboardInterrupt:
        print(f"\ninterrupted: {interrupted}", file=sys.stderr)
        raise SystemExit(130) from None


def fail(message: str) -> NoReturn:
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(2)


@contextmanager
def disk_space() -> Iterator[None]:
    """Turns a full disk into a sentence.

    Raises:
        UserError: there is no space left.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        where = f" writing {error.filename}" if error.filename else ""
        raise UserError(
            f"no space left on the disk{where}: free some and repeat the command, it goes on from its last checkpoint"
        ) from error


def explain(error: Exception, config_name: str, words: Sequence[str] | None = None) -> str:
    """One sentence for a mistake in overrides, by default the command line's, with the nearest right name."""
    text = str(error).replace("ssl@ssl.tasks", "ssl")
    if isinstance(error, MissingConfigException) and error.options is not None:
        group, _, name = str(error.missing_cfg_file).rpartition("/")
        options = [option for option in error.options if option not in ("base", "domainnet", "vit") or option == name]
        return f"{group}={name} does not exist{nearest(name, options)}; {group} can be: {', '.join(options)}"
    match = re.search(r"Could not override '([^']+)'", text)
    if match:
        key = match.group(1)
        return (
            f"there is no key {key!r}{nearest(key, known_keys(config_name, sys.argv[1:] if words is None else words))}"
        )
    match = re.search(r"Could not (?:override|append|delete) .*?'?([\w./@]+)'?", text)
    return " ".join(text.split())[:400]


def known_keys(config_name: str, words: Sequence[str]) -> list[str]:
    """Every key and group of the configuration under the groups that `words` choose, as far as they exist."""
    groups = sorted(path.name for path in CONF.iterdir() if path.is_dir())
    chosen = [
        word
        for word in words
        if word.split("=")[0] in groups
        and "," not in word
        and (CONF / word.replace("=", "/")).with_suffix(".yaml").is_file()
    ]
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose(config_name, overrides=chosen)
    from omegaconf import OmegaConf

    keys = set(flatten(OmegaConf.to_container(cfg, resolve=False)))
    for key in list(keys):
        while "." in key:
            key = key.rpartition(".")[0]
            keys.add(key)
    return sorted(keys | set(groups))
