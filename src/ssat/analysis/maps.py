"""Where the class token looks in the last block (Figure 12)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ssat.analysis.attention import (
    attention_blocks,
    class_token_attention,
    each_attention,
    keep_mass,
    rollout,
    upsample,
)
from ssat.analysis.models import Measured, Model, pixels
from ssat.analysis.plots import intensity
from ssat.core.errors import UserError


def check(model: Model) -> None:
    """Raises: UserError: the encoder is no plain ViT, or has no class token."""
    attention_blocks(model.encoder)
    if not model.encoder.num_prefix:
        raise UserError(f"{model.facts['encoder']} has no class token, whose attention this figure shows")


def _last_block(model: Model, images: Tensor) -> Tensor:
    """Attention of the class token (B, H, patches) in the last block."""
    prefix = model.encoder.num_prefix
    return each_attention(model.encoder, images, lambda weights: class_token_attention(weights, prefix))[-1]


def _through_all(model: Model, images: Tensor) -> Tensor:
    """Attention of the class token (B, patches) through all blocks."""
    mean = each_attention(model.encoder, images, lambda weights: weights.mean(1))
    return class_token_attention(rollout(mean).unsqueeze(1), model.encoder.num_prefix).squeeze(1)


@torch.inference_mode()
def maps(
    model: Model, indices: Sequence[int], *, batch_size: int, mass: float = 1.0, through_all: bool = False
) -> Measured:
    """Figure 12: the heads' mean, and every head, over the patches of each image.

    Args:
        model: of a plain ViT with a class token.
        indices: images of the model's split.
        batch_size: images at a time.
        mass: below 1, only the fewest patches that hold this share of the attention are shown (DINO: 0.6).
        through_all: the rollout through all blocks in place of the last block's mean.

    Raises:
        UserError: the encoder is no plain ViT, or has no class token.
    """
    check(model)
    grid = model.encoder.mask_grid[-2:]
    seen, means, heads, indices_seen = [], [], [], []
    for batch in model.batches(indices, batch_size):
        assert batch.indices is not None
        each = _last_block(model, batch.images)
        mean = _through_all(model, batch.images) if through_all else each.mean(1)
        seen.append(pixels(batch.images, model.data))
        means.append(mean.cpu())
        heads.append(each.cpu())
        indices_seen += batch.indices.tolist()
    mean, each, images = torch.cat(means), torch.cat(heads), np.concatenate(seen)
    rows = {"image": images, model.name: _drawn(mean, grid, images, mass)}
    heads_rows = {f"head {h + 1}": _drawn(each[:, h], grid, images, mass) for h in range(each.shape[1])}
    top = mean.sort(1, descending=True).values.cumsum(1)
    patches = (top < 0.6).sum(1).float() + 1
    values: dict[str, Any] = {
        "images": [
            {"index": index, "map": [[round(v, 6) for v in row] for row in mean[i].view(grid).tolist()]}
            for i, index in enumerate(indices_seen)
        ]
    }
    summary = {"share of patches that hold 60 % of the attention, %": float(100 * patches.mean() / mean.shape[1])}
    return Measured({}, values, summary, rows, details={"heads": rows | heads_rows})


def _drawn(flat: Tensor, grid: tuple[int, ...], images: np.ndarray, mass: float) -> np.ndarray:
    shown = keep_mass(flat, mass) if mass < 1 else flat
    upsampled = upsample(shown.unflatten(1, grid), images.shape[1:3], "nearest")
    return intensity(upsampled.numpy())
