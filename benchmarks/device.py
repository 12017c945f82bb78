"""Whether the device that a benchmark was asked for is here."""

from __future__ import annotations

import sys
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
