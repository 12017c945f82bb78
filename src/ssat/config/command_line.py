"""What every command does around its work: one clear sentence and an exit code for a user's mistake."""

from __future__ import annotations

import errno
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NoReturn

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode

from ssat.config.groups import take_folders
from ssat.config.overrides import FAULTS, mistake, of_composition, of_flags, prepared
from ssat.config.words import as_typed_here
from ssat.core import interrupts
from ssat.core.errors import OwnCodeError, UserError, enough_memory, usable_paths
from ssat.core.words import printable

# Mistakes that were already printed; the process exits with 2 at its end.
reported: list[str] = []


@contextmanager
def users_mistakes() -> Iterator[None]:
    """Around one run: a user's mistake is one sentence on stderr, and the process exits with 2 at its end.

    What the user's own code has raised is its own lines and a sentence, and the process exits with 1.

    Raising it through Hydra would end in Hydra's own lines. A job of a sweep raises: the sweeper collects mistakes.
    """
    try:
        with enough_memory("the run"), usable_paths():
            yield
    except UserError as error:
        if HydraConfig.get().mode == RunMode.MULTIRUN:
            raise
        print(printable(as_typed_here(f"error: {error}")), file=sys.stderr)
        reported.append(str(error))
    except OwnCodeError as error:
        if HydraConfig.get().mode == RunMode.MULTIRUN:
            raise
        print(printable(as_typed_here(f"{error.lines}\nerror: {error}")), file=sys.stderr)
        raise SystemExit(1) from None


def run_command(command: Callable[[], None], config_name: str) -> None:
    """Run a Hydra command; a user's mistake prints one sentence and exits with 2, a bug keeps its traceback."""
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        with usable_paths():
            words = take_folders(sys.argv[1:])
        if {"--help", "-h"} & {*words}:
            from ssat.config.help import show_help

            show_help(config_name, [word for word in words if not word.startswith("-")])
            return
        sys.argv[1:] = prepared(words, config_name)
        command()
    except UserError as error:
        fail(str(error))
    except FAULTS as error:
        fail(explain(error, config_name))
    except ValueError as error:
        if of_flags(error):
            fail(f"{error}: write key=value (--help lists them)")
        if not of_composition(error):
            raise
        fail(explain(error, config_name))
    except KeyboardInterrupt as interrupt:
        interrupts.last_word(str(interrupt) or interrupts.then())
        raise SystemExit(130) from None
    if reported:
        raise SystemExit(2)


def run_words(
    command: Callable[[list[str]], object], usage: str, *, interrupted: str, config_dir: bool = False
) -> None:
    """Run a command that reads key=value words itself: `--help`, and one sentence for a mistake or for Ctrl-C.

    Args:
        command: takes the words.
        usage: its help.
        interrupted: what has become of its work then.
        config_dir: whether it takes `--config-dir <folder>`.
    """
    if {"--help", "-h"} & {*sys.argv[1:]}:
        print(as_typed_here(usage), end="")
        return
    try:
        with enough_memory("this"), usable_paths():
            command(take_folders(sys.argv[1:]) if config_dir else sys.argv[1:])
    except UserError as error:
        fail(str(error))
    except KeyboardInterrupt:
        interrupts.last_word(interrupted)
        raise SystemExit(130) from None


def fail(message: str) -> NoReturn:
    """Print the sentence of a user's mistake and exit with 2."""
    print(printable(as_typed_here(f"error: {message}")), file=sys.stderr)
    raise SystemExit(2)


@contextmanager
def disk_space(then: Callable[[], str] = lambda: interrupts.AGAIN) -> Iterator[None]:
    """Turns a full disk, a used-up quota or a limit of the file size into a sentence.

    `then`: what the same command does when there is room.

    Raises:
        UserError: there is no space left.
    """
    hook = threading.excepthook

    def pass_over(thread: threading.ExceptHookArgs) -> None:
        # TensorBoard writes in a thread, which hands the error over to the next call.
        if getattr(thread.exc_value, "errno", None) not in FULL:
            hook(thread)

    threading.excepthook = pass_over
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        what, cure = FULL[error.errno]
        where = f" writing {error.filename}" if error.filename else ""
        raise UserError(f"{what}{where}: {cure}, then {then()}") from error
    finally:
        threading.excepthook = hook


# Why nothing more can be written, and what to do.
FULL = {
    errno.ENOSPC: ("no space left on the disk", "free some"),
    errno.EDQUOT: ("your quota of the disk is used up", "free some of it"),
    errno.EFBIG: ("files may not grow that large here", "raise the limit (ulimit -f)"),
}


def explain(error: Exception, config_name: str, words: Sequence[str] | None = None) -> str:
    """One sentence for a mistake in overrides, by default the command line's, with the nearest right name."""
    return str(mistake(error, config_name, sys.argv[1:] if words is None else words))
