"""Checkpoint files: read safely, written whole."""

from __future__ import annotations

import argparse
import errno
import os
import pickle
import re
import struct
from collections.abc import Mapping
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
            content = torch.load(path, map_location="cpu", weights_only=True)
    except PermissionError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})") from error
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path} holds more than tensors and plain values, so it is not loaded: save only its state_dict"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, LookupError, TypeError, AttributeError, struct.error) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error).split(". ")[0]
        # A number, a key or an invalid argument is where torch stumbled, and says nothing of the file.
        said = f" ({reason})" if reason and " " in reason and reason != os.strerror(errno.EINVAL) else ""
        raise UserError(
            f"{path} is not a readable checkpoint{said}: it was cut short or is of another format; move it away"
        ) from error
    if not isinstance(content, dict):
        raise UserError(f"{path} holds a {type(content).__name__}, and a checkpoint is a dictionary: move it away")
    return content


def weights_of(checkpoint: Mapping[str, Any], path: Path) -> StateDict:
    """The tensors of all modules in the checkpoint that `path` holds.

    Raises:
        UserError: it has none.
    """
    weights = checkpoint.get("state_dict")
    if not isinstance(weights, dict) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise UserError(f"{path} is damaged, it has no state_dict of tensors: move it away")
    return weights


# What a training that is continued reads of its checkpoint.
NEEDED = {
    # One optimizer: Lightning goes on without its state where it finds none.
    **{"state_dict": dict, "loops": dict, "callbacks": dict, "optimizer_states": list, "lr_schedulers": list},
    **{"epoch": int, "global_step": int, "pytorch-lightning_version": str},
}


def check_continuable(checkpoint: Mapping[str, Any], path: Path, cure: str, *, epochs: int) -> None:
    """Refuse the checkpoint of `path` where a training of `epochs` epochs cannot go on from it.

    Raises:
        UserError: a part is missing, of another type or out of range; `cure` says what to do then.
    """
    for key, kind in NEEDED.items():
        value = checkpoint.get(key)
        if not isinstance(value, kind) or value == {} or (isinstance(value, list) and len(value) != 1):
            raise UserError(f"{path} is damaged, its {key} is {value!r:.40}: {cure}")
    bad = [key for key, value in weights_of(checkpoint, path).items() if not torch.isfinite(value).all()]
    if bad:
        raise UserError(f"{path} is damaged, {bad[0]} is not finite: {cure}")
    if not isinstance(checkpoint["callbacks"].get("History"), dict):
        raise UserError(f"{path} is damaged, it has no history of the epochs: {cure}")
    if not 0 <= checkpoint["epoch"] <= epochs or checkpoint["global_step"] < 0:
        at = f"step {checkpoint['global_step']} (epoch {checkpoint['epoch']})"
        raise UserError(f"{path} is at {at}, which a training of {epochs} epochs has not: {cure}")


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


# Where a file keeps its weights: Lightning's and most others', MAE's, DeepSpeed's.
WRAPPERS = ("state_dict", "model", "module")
# What torch.compile, DDP (in either order) and frameworks of a network and its heads put before every name.
AROUND = ("_orig_mod.", "module.", "_orig_mod.", "backbone.")
# What a published file holds besides the encoder.
OUTSIDE = ("decoder", "encoder_to_decoder", "mask_token", "head.", "classifier.")
TEACHER = re.compile(r"^ssl\.(tasks\.\w+\.)?teacher\.")


def encoder_weights(path: Path, *, teacher: bool = False) -> StateDict:
    """The encoder's tensors of any supported file, under our names; or those of the SSL task's teacher.

    Raises:
        UserError: there is no teacher in it.
    """
    if path.suffix == ".safetensors":
        content: Any = read_safetensors(path)
    else:
        content = load_checkpoint(path)
    wrapper = next((key for key in WRAPPERS if key in content), None)
    content = content if wrapper is None else content[wrapper]
    if not isinstance(content, dict):
        raise UserError(f"{path} is damaged, it has no state_dict of tensors: move it away")
    tensors = {name: value for name, value in content.items() if isinstance(value, Tensor)}
    for prefix in AROUND:
        tensors = within(tensors, prefix)
    if teacher:
        averaged = {TEACHER.sub("", name): value for name, value in tensors.items() if TEACHER.match(name)}
        if not averaged:
            raise UserError(f"mode.start=teacher, but {path} holds none: only ssl=dino and ssl=latent keep one")
        return averaged
    bare = any(name.startswith("embeddings.") for name in tensors)  # transformers has them beside its `encoder.`
    if any(name.startswith("encoder.") for name in tensors) and not bare:
        return within(tensors, "encoder.")
    return {name: value for name, value in tensors.items() if not name.startswith(OUTSIDE)}


def within(tensors: StateDict, prefix: str) -> StateDict:
    """Those whose names begin with `prefix`, without it; all of them if no name does."""
    inner = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
    return inner or tensors


def read_safetensors(path: Path) -> StateDict:
    """The tensors of a safetensors file, on the CPU.

    Raises:
        UserError: it is missing, or no such file.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is no readable safetensors file ({error}): give another") from error
