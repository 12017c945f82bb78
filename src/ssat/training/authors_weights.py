"""The authors' checkpoint layout, read and written."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ssat.core.errors import UserError
from ssat.core.tensors import fill
from ssat.encoders.layers import sincos_table
from ssat.encoders.vit import VisionTransformer
from ssat.tasks.reconstruction import Reconstruction

# Ours on the left; everything else of the encoder keeps its name.
DECODER = {
    "decoder.mask_token": "mask_token",
    "decoder.pos_embed": "decoder_pos_embed",
    "decoder.embed.": "decoder_embed.",
    "decoder.blocks.": "decoder_blocks.",
    "decoder.norm.": "decoder_norm.",
    "decoder.pred.": "decoder_pred.",
}


def _depth(state: Mapping[str, Any], prefix: str) -> int:
    return len({name.split(".")[1] for name in state if name.startswith(f"{prefix}.")})


def _mlp_ratio(state: Mapping[str, Tensor], prefix: str, width: int) -> float:
    # One float up: int(width * (hidden / width)) falls one short of hidden for many sizes (28 and 61, say).
    return math.nextafter(state[f"{prefix}.0.mlp.fc1.weight"].shape[0] / width, math.inf)


def _ours(name: str) -> str:
    for ours, theirs in DECODER.items():
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    return name


def _theirs(name: str) -> str:
    for ours, theirs in DECODER.items():
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    return name


def _tensors(state_dict: Mapping[str, Any]) -> dict[str, Tensor]:
    state = {}
    for name, value in state_dict.items():
        if not isinstance(value, Tensor | np.ndarray):
            raise UserError(f"the checkpoint is not in the authors' layout: {name} is a {type(value).__name__}")
        state[name] = torch.as_tensor(value).detach().clone()
    return state


def from_official(
    state_dict: Mapping[str, Any], *, num_heads: int, decoder_num_heads: int, norm_pix: bool = False
) -> tuple[VisionTransformer, Reconstruction | None, nn.Linear | None]:
    """(encoder, reconstruction task, head) from a checkpoint of the authors' joint model.

    Args:
        state_dict: their parameters by name, as tensors or arrays; a checkpoint {'model': ...} is opened.
        num_heads: heads of the encoder; a state dict does not tell.
        decoder_num_heads: heads of the decoder.
        norm_pix: whether the target patches were normalised.

    Returns:
        The task or the head is None when the checkpoint has none.

    Raises:
        UserError: keys or shapes that are not this layout.
    """
    state_dict = state_dict.get("model", state_dict)
    state = _tensors(state_dict)
    has_task = any(name.startswith(("mask_token", "decoder_")) for name in state)
    has_head = any(name.startswith("head.") for name in state)
    needed = ["patch_embed.proj.weight", "pos_embed", "blocks.0.mlp.fc1.weight"]
    needed += ["mask_token", "decoder_blocks.0.mlp.fc1.weight"] * has_task + ["head.weight"] * has_head
    missing = [name for name in needed if name not in state]
    if missing:
        raise UserError(f"the checkpoint is not in the authors' layout: {missing[0]} is missing")
    dim, in_chans, patch_size, _ = state["patch_embed.proj.weight"].shape
    side = math.isqrt(state["pos_embed"].shape[1] - 1)
    if side**2 != state["pos_embed"].shape[1] - 1:
        raise UserError(f"the position table has {state['pos_embed'].shape[1] - 1} patches, which is no square grid")
    fixed = torch.allclose(state["pos_embed"][0, 1:].float(), sincos_table(dim, (side, side)), atol=1e-5)
    encoder = VisionTransformer(
        side * patch_size,
        patch_size,
        in_chans=in_chans,
        embed_dim=dim,
        depth=_depth(state, "blocks"),
        num_heads=num_heads,
        mlp_ratio=_mlp_ratio(state, "blocks", dim),
        qkv_bias="blocks.0.attn.qkv.bias" in state,
        pos_embed="sincos" if fixed else "learnable",
    )
    task = None
    if has_task:
        width = state["mask_token"].shape[-1]
        task = Reconstruction(
            encoder,
            norm_pix=norm_pix,
            decoder_dim=width,
            decoder_depth=_depth(state, "decoder_blocks"),
            decoder_heads=decoder_num_heads,
            decoder_mlp_ratio=_mlp_ratio(state, "decoder_blocks", width),
        )
    head = nn.Linear(dim, state["head.weight"].shape[0]) if has_head else None
    ours = {_ours(name): value for name, value in state.items()}
    parts: list[tuple[str, nn.Module | None]] = [("decoder.", task and task.decoder), ("head.", head), ("", encoder)]
    for prefix, module in parts:
        values = {name.removeprefix(prefix): ours.pop(name) for name in list(ours) if name.startswith(prefix)}
        if module is not None:
            _load(module, values, prefix)
    return encoder, task, head


def _load(module: nn.Module, values: dict[str, Tensor], prefix: str) -> None:
    cure = "give a checkpoint of their joint model, whole"
    fill(module, values, "the checkpoint is not in the authors' layout", cure, lambda name: _theirs(prefix + name))


def to_official(
    encoder: VisionTransformer, task: Reconstruction | None = None, head: nn.Module | None = None
) -> dict[str, Tensor]:
    """The inverse of `from_official`: the authors' names and layout."""
    state = dict(encoder.state_dict())
    if task is not None:
        for name, value in task.decoder.state_dict(prefix="decoder.").items():
            ours = next(prefix for prefix in DECODER if name.startswith(prefix))
            state[DECODER[ours] + name.removeprefix(ours)] = value
    if head is not None:
        state |= head.state_dict(prefix="head.")
    return state
