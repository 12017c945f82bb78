"""Reading weights from files: our checkpoints and run folders, the authors' layout, safetensors."""

from __future__ import annotations

import argparse
import os
import pickle
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import Tensor

from src.encoders.base import Encoder
from src.errors import UserError

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


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside its final name and renames it when it is complete.

    Lightning's own writer moves it from the temporary folder, which on another file system is a copy: a full disk or a
    kill in the middle of it leaves a cut file in place of the last good one.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.partial")
        try:
            with open(partial, "wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise


def checkpoint_of(path: Path) -> Path:
    """The file that `path` means: itself, or the last checkpoint of a run folder's last phase."""
    if not path.exists():
        raise UserError(f"mode.init_from={str(path)!r} does not exist: give a run folder or a checkpoint file")
    if path.is_file():
        return path
    candidates = sorted(path.glob("**/checkpoints/last.ckpt"), key=lambda file: file.stat().st_mtime)
    if not candidates:
        raise UserError(
            f"mode.init_from={str(path)!r} has no checkpoint: expected {path}/<phase>/checkpoints/last.ckpt"
        )
    return candidates[-1]


def encoder_weights(path: Path) -> StateDict:
    """The encoder's tensors of any supported file, under our names."""
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        content: Any = load_file(path)
    else:
        content = load_checkpoint(path)
    content = content.get("state_dict", content.get("model", content))
    tensors = {name: value for name, value in content.items() if isinstance(value, Tensor)}
    if any(name.startswith("encoder.") for name in tensors):
        return {name.removeprefix("encoder."): value for name, value in tensors.items() if name.startswith("encoder.")}
    outside = ("decoder", "mask_token", "head.")
    return {name: value for name, value in tensors.items() if not name.startswith(outside)}


def load_encoder(encoder: Encoder, path: Path) -> None:
    """Load `path` into `encoder`, every tensor of it.

    A fixed position table follows from the image size and is kept; a learnable one of another grid is resampled.

    Raises:
        UserError: the file is of another encoder; says the first differences.
    """
    given, own = encoder_weights(path), encoder.state_dict()
    if "pos_embed" in given and "pos_embed" in own and given["pos_embed"].shape != own["pos_embed"].shape:
        _fit_positions(encoder, given, own)
    problems = [f"{name} is missing in the file" for name in own if name not in given]
    problems += [f"{name} is not part of this encoder" for name in given if name not in own]
    problems += [
        f"{name} is {tuple(given[name].shape)} in the file and {tuple(own[name].shape)} here"
        for name in own
        if name in given and given[name].shape != own[name].shape
    ]
    if problems:
        raise UserError(
            f"{path} is of another encoder: {problems[0]}"
            + (f" (and {len(problems) - 1} more differences)" if len(problems) > 1 else "")
            + "; choose the encoder and sizes it was trained with"
        )
    encoder.load_state_dict(given)


def _fit_positions(encoder: Encoder, given: StateDict, own: StateDict) -> None:
    if given["pos_embed"].shape[-1] != own["pos_embed"].shape[-1]:
        return
    if not dict(encoder.named_parameters())["pos_embed"].requires_grad:
        given["pos_embed"] = own["pos_embed"]
        return
    from timm.layers import resample_abs_pos_embed

    grid = [int(side) for side in encoder.mask_grid]
    given["pos_embed"] = resample_abs_pos_embed(given["pos_embed"], new_size=grid, num_prefix_tokens=1)
