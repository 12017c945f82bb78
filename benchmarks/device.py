"""What a benchmark says of a user's mistake: a device that is not here, a number too small, a word that is wrong."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import NoReturn

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


def told(main: Callable[[], None]) -> None:
    """Run a benchmark; what the package refuses is one sentence and exit code 2."""
    from ssat.core.errors import UserError

    try:
        main()
    except UserError as error:
        refuse(str(error))
