"""Checkpoint files: read safely, written whole."""

from __future__ import annotations

import argparse
import errno
import os
import pickle
import re
import struct
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ssat.core.checksum import damage, seal, with_crc32
from ssat.core.errors import UserError
from ssat.core.files import replacing
from ssat.core.tensors import non_finite, tensors_in

StateDict = dict[str, Tensor]
# How torch.load stumbles over damaged bytes.
STUMBLED: tuple[type[Exception], ...] = (
    *(RuntimeError, EOFError, ValueError, LookupError, TypeError, AttributeError),
    *(struct.error, OverflowError, AssertionError, OSError),
)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """The content of a checkpoint on the CPU; nothing but tensors and plain values is ever unpickled.

    Raises:
        UserError: the file is missing, cut short, damaged by its checksums, or holds code.
    """
    if not path.is_file():
        raise UserError(f"there is no checkpoint {path}")
    if reason := damage(path):
        raise UserError(f"{path} is not a readable checkpoint, it is damaged ({reason}): move it away")
    try:
        # MAE-style checkpoints carry their command line as a Namespace, which is plain data.
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except PermissionError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})") from error
    except pickle.UnpicklingError as error:
        if not _is_pickled(path):
            raise UserError(f"{path} is damaged (its beginning is of no checkpoint): move it away") from error
        raise UserError(
            f"{path} holds more than tensors and plain values, so it is not loaded: save only its state_dict"
        ) from error
    except STUMBLED as error:
        reason = error.strerror if isinstance(error, OSError) else str(error).split(". ")[0]
        # A number, a key or an invalid argument is where torch stumbled, and says nothing of the file.
        said = f" ({reason})" if reason and " " in reason and reason != os.strerror(errno.EINVAL) else ""
        raise UserError(
            f"{path} is not a readable checkpoint{said}: it was cut short or is of another format; move it away"
        ) from error
    if not isinstance(content, dict):
        raise UserError(f"{path} holds a {type(content).__name__}, and a checkpoint is a dictionary: move it away")
    return content


def write_checkpoint(content: Mapping[str, Any], path: Path, *, before: Callable[[], None] = lambda: None) -> None:
    """Write `content` to `path` with a checksum, whole or not at all; `before` it takes its place, call that."""
    with replacing(path) as partial, open(partial, "w+b") as file:
        try:
            with with_crc32():
                torch.save(content, file)
        except RuntimeError as error:
            # On a full disk or after a signal torch.save stumbles over its own cut file, which hides the reason.
            if isinstance(error.__context__, (OSError, KeyboardInterrupt, SystemExit)):
                raise error.__context__ from None
            raise
        seal(file)
        before()


def _is_pickled(path: Path) -> bool:
    """Whether the file begins as torch's: a zip file, a pickle of protocol 2 and later, or an old tar file.

    torch takes anything else for a pickle, whose first bytes it then calls unsafe.
    """
    with open(path, "rb") as file:
        start = file.read(512)
    return start.startswith((b"PK\3\4", b"\x80")) or start[257:262] == b"ustar"


def weights_of(checkpoint: Mapping[str, Any], path: Path) -> StateDict:
    """The tensors of all modules in the checkpoint that `path` holds.

    Raises:
        UserError: it has none, or one that is not dense or holds no values.
    """
    weights = checkpoint.get("state_dict")
    if not isinstance(weights, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in weights.items()
    ):
        raise UserError(f"{path} is damaged, it has no state_dict of named tensors: move it away")
    return _dense(weights, path)


def _dense(tensors: StateDict, path: Path) -> StateDict:
    """`tensors`, of which each has all its values in memory; a sparse or a meta tensor claims any shape for nothing."""
    for name, value in tensors.items():
        if value.layout is not torch.strided or value.is_meta or value.is_quantized or value.is_nested:
            kind = "quantized" if value.is_quantized else "on the meta device" if value.is_meta else "not dense"
            raise UserError(
                f"{path} is damaged, its tensor {name[:60]!r} is {kind}, without plain values: move it away"
            )
    return tensors


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
    weights_of(checkpoint, path)
    for part in ("state_dict", "optimizer_states"):
        if bad := non_finite(dict(tensors_in(checkpoint[part], part))):
            raise UserError(f"{path} is damaged, {bad} is not finite: {cure}")
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


# Where a file keeps its weights: Lightning's and most others', MAE's, DeepSpeed's; where there are none, averaged ones
# and DINO's. Each may lie in another.
CONTAINERS = ("state_dict", "model", "module", "state_dict_ema", "model_ema", "student")
# What torch.compile, DDP and frameworks of a network and its heads put before every name, in any order.
AROUND = ("encoder.", "backbone.", "student.", "model.", "module.", "_orig_mod.")
# What a published file holds besides the encoder.
OUTSIDE = ("decoder", "encoder_to_decoder", "mask_token", "head.", "classifier.")
TEACHER = re.compile(r"^((module|model|_orig_mod)\.)*ssl\.(tasks\.\w+\.)?teacher\.")


def encoder_weights(path: Path, own: Collection[str], *, teacher: bool = False) -> StateDict:
    """The encoder's tensors of any supported file, without what was put before their names; or the teacher's.

    Args:
        path: of the file.
        own: the encoder's names: what is before them is taken away, and no part of them.
        teacher: whether to read the SSL task's teacher.

    Raises:
        UserError: the file holds no tensors, or no teacher.
    """
    content: Any = read_safetensors(path) if path.suffix == ".safetensors" else load_checkpoint(path)
    while found := next((key for key in CONTAINERS if isinstance(content.get(key), dict)), None):
        content = content[found]
    tensors = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    if not tensors:
        raise UserError(f"{path} is damaged, it has no state_dict of tensors: move it away")
    _dense(tensors, path)
    if teacher:
        averaged = {TEACHER.sub("", name): value for name, value in tensors.items() if TEACHER.match(name)}
        if not averaged:
            raise UserError(f"mode.start=teacher, but {path} holds none: only ssl=dino and ssl=latent keep one")
        return averaged
    tensors = unwrapped(tensors, own)
    return {name: value for name, value in tensors.items() if name in own or not name.startswith(OUTSIDE)}


def unwrapped(tensors: StateDict, own: Collection[str]) -> StateDict:
    """The largest part of `tensors` behind prefixes of `AROUND`, down to where most of the names `own` are found.

    Example:
        >>> sorted(unwrapped({"module.backbone.norm": torch.ones(1), "module.head": torch.ones(1)}, ["norm"]))
        ['norm']
    """
    while largest := max((within(tensors, prefix) for prefix in AROUND), key=len):
        found = sum(name in own for name in tensors)
        # transformers has the embeddings beside its `encoder.`
        if 2 * found > len(own) or any(name.startswith("embeddings.") for name in tensors):
            break
        tensors = largest
    return tensors


def within(tensors: StateDict, prefix: str) -> StateDict:
    """Those whose names begin with `prefix`, without it."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def read_safetensors(path: Path) -> StateDict:
    """The tensors of a safetensors file, on the CPU.

    Raises:
        UserError: it is missing, or no such file.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    # Flipped bytes of the header name types that torch has not, or shapes that it takes for other arguments.
    except (SafetensorError, OSError, ValueError, LookupError, TypeError, RuntimeError, AttributeError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"{path} is no readable safetensors file ({reason}): give another") from error
