"""What a benchmark says of a user's mistake: a device that is not here, a number too small, a word that is wrong."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

DEVICES = ("cpu", "cuda")


def refuse(sentence: str) -> NoReturn:
    """Print a user's mistake and exit with 2."""
    print(f"error: {sentence}", file=sys.stderr)
    raise SystemExit(2)


def require(device: str, option: str = "--device") -> None:
    """End with one sentence and exit code 2 where `device`, cpu or cuda, is not here.

    Args:
        device: what was asked for.
        option: how it was asked for, as the user types it.
    """
    typed = f"{option}{'' if option.endswith('=') else ' '}{device}"
    if device not in DEVICES:
        refuse(f"{typed} is not one of {', '.join(DEVICES)}")
    if device == "cpu":
        return
    import torch

    if not torch.cuda.is_available():
        refuse(f"{typed}, but PyTorch {torch.__version__} sees no CUDA device here: take {typed[: -len(device)]}cpu")


def at_least(least: int) -> Callable[[str], int]:
    """A type for argparse: a whole number at least so large."""

    def number(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if value < least:
            raise argparse.ArgumentTypeError(f"{text} is not a whole number at least {least}")
        return value

    return number


class Arguments(argparse.ArgumentParser):
    """The words of a benchmark: its help keeps the lines of `text` and shows every default."""

    def __init__(self, text: str | None) -> None:
        super().__init__(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)

    def add_argument(self, *names: Any, **options: Any) -> argparse.Action:
        """As argparse's; the default is added to `help`, unless there is none or it is told there."""
        said, default = options.get("help", ""), options.get("default")
        if default not in (None, argparse.SUPPRESS, []) and default is not False and "default:" not in said:
            shown = ", ".join(map(str, default)) if isinstance(default, list) else str(default)
            options["help"] = f"{said} (default: {shown})".strip().replace("%", "%%")
        return super().add_argument(*names, **options)


def output_file(text: str) -> Path:
    """A type for argparse: a file that can be written, tried before anything is measured."""
    path = Path(text)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{text} cannot be written ({error.strerror}): name another file") from error
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"{text} is a folder: name a file")
    return path


def present_folder(text: str) -> str:
    """A type for argparse: a folder that is there."""
    if not os.path.isdir(text):
        raise argparse.ArgumentTypeError(f"there is no folder {text}")
    return text


def told(main: Callable[[], None]) -> None:
    """Run a benchmark; what the package refuses is one sentence and exit code 2."""
    from ssat.core.errors import UserError

    try:
        main()
    except UserError as error:
        refuse(str(error))
