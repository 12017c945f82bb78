"""Checkpoint files: read safely, written whole."""

from __future__ import annotations

import argparse
import pickle
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ssat.core.errors import UserError

StateDict = dict[str, Tensor]


def load_checkpoint(path: Path) -> dict[str, Any]:
    """The content of a checkpoint on the CPU; nothing but tensors and plain values is ever unpickled.

    Raises:
        UserError: the file is missing, cut short, or holds code.
    """
    if not path.is_file():
        raise UserError(f"there is no checkpoint {path}")
    try:
        # MAE-style checkpoints carry their command line as a Namespace, which is plain data.
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path} holds more than tensors and plain values, so it is not loaded: save only its state_dict"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError) as error:
        reason = str(error).split(". ")[0]
        raise UserError(
            f"{path} is not a readable checkpoint ({reason}): it was cut short or is of another format; move it away"
        ) from error


def checkpoint_of(path: Path, key: str = "mode.init_from") -> Path:
    """The file that `path`, the value of `key`, means: itself, or the last checkpoint of a run folder's last phase."""
    if not path.exists():
        raise UserError(f"{key}={str(path)!r} does not exist: give a run folder or a checkpoint file")
    if path.is_file():
        return path
    candidates = sorted(path.glob("**/checkpoints/last.ckpt"), key=lambda file: file.stat().st_mtime)
    if not candidates:
        raise UserError(f"{key}={str(path)!r} has no checkpoint: expected {path}/<phase>/checkpoints/last.ckpt")
    return candidates[-1]


TEACHER = re.compile(r"^ssl\.(tasks\.\w+\.)?teacher\.")


def encoder_weights(path: Path, *, teacher: bool = False) -> StateDict:
    """The encoder's tensors of any supported file, under our names; or those of the SSL task's teacher.

    Raises:
        UserError: there is no teacher in it.
    """
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        content: Any = load_file(path)
    else:
        content = load_checkpoint(path)
    content = content.get("state_dict", content.get("model", content))
    tensors = {name: value for name, value in content.items() if isinstance(value, Tensor)}
    if teacher:
        averaged = {TEACHER.sub("", name): value for name, value in tensors.items() if TEACHER.match(name)}
        if not averaged:
            raise UserError(f"mode.start=teacher, but {path} holds none: only ssl=dino and ssl=latent keep one")
        return averaged
    if any(name.startswith("encoder.") for name in tensors):
        return {name.removeprefix("encoder."): value for name, value in tensors.items() if name.startswith("encoder.")}
    outside = ("decoder", "mask_token", "head.")
    return {name: value for name, value in tensors.items() if not name.startswith(outside)}
