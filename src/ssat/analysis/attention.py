"""Attention weights, computed in the open because fused kernels keep them to themselves (Figures 6 and 12)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import Attention as TimmAttention
from torch import Tensor, nn

from ssat.analysis.models import Curve, Measured, Model
from ssat.analysis.tokens import blocks_of
from ssat.core.errors import UserError
from ssat.encoders.base import Encoder
from ssat.encoders.layers import Attention
from ssat.encoders.sl_vit import LocalAttention
from ssat.encoders.videomae import VideoAttention

TOLERANCE = 1e-5  # between the open computation and the kernel's output, relative to the larger of 1 and the output
BINS = 60


def attention_blocks(encoder: Encoder) -> list[nn.Module]:
    """The attention modules of a plain ViT.

    Raises:
        UserError: the encoder is no plain ViT, or its attention is not the plain one.
    """
    modules: list[Any] = [getattr(block, "attn", None) for block in blocks_of(encoder, flat=True)]
    for module in modules:
        if type(module) not in (Attention, LocalAttention, VideoAttention, TimmAttention):
            raise UserError(
                f"the weights of this encoder's attention, {type(module).__name__}, cannot be computed here"
            )
    return modules


def _scores(module: Any, q: Tensor, k: Tensor) -> Tensor:
    """Logits (B, H, N, N) of the softmax."""
    if isinstance(module, LocalAttention):
        scores = q * module.scale.view(-1, 1, 1) @ k.transpose(2, 3)
        return scores.masked_fill(torch.eye(q.shape[2], dtype=torch.bool, device=q.device), -math.inf)
    return q * q.shape[3] ** -0.5 @ k.transpose(2, 3)


def open_attention(module: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    """Weights (B, H, N, N), of rows that sum to 1, and output (B, N, D) of an attention module on tokens (B, N, D)."""
    ours = isinstance(module, Attention)
    projected = module.project(x) if ours else module.qkv(x)
    q, k, v = (part.unflatten(2, (module.num_heads, -1)).transpose(1, 2) for part in projected.chunk(3, dim=2))
    if not ours:
        q, k = module.q_norm(q), module.k_norm(k)
    weights = _scores(module, q, k).softmax(3)
    mixed = (weights @ v).transpose(1, 2).flatten(2)
    if not ours:
        mixed = module.norm(mixed)
        mixed = mixed if module.gate is None else mixed * module.gate(x).sigmoid()
    return weights, module.proj(mixed)


def each_attention(encoder: Encoder, images: Tensor, use: Callable[[Tensor], Tensor]) -> list[Tensor]:
    """`use` of each block's weights (B, H, N, N), in the order of the blocks; one block's weights are held at a time.

    Raises:
        RuntimeError: the weights do not give the output that the network itself computes.
    """
    found: list[Tensor] = []

    def look(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        weights, again = open_attention(module, inputs[0])
        error = float(((again - output).abs().max() / output.abs().max().clamp_min(1)).detach())
        if not error <= TOLERANCE:
            raise RuntimeError(f"attention recomputed from its weights is off by {error:.1e} in block {len(found) + 1}")
        found.append(use(weights))

    hooks = [module.register_forward_hook(look) for module in attention_blocks(encoder)]
    try:
        encoder.forward_blocks(images)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def received(weights: Tensor) -> Tensor:
    """What each token receives from all: column sums of the heads' mean weights (B, H, N, N), (B, N), N in total."""
    return weights.mean(1).sum(1)


def entropy(profile: Tensor) -> Tensor:
    """Entropy in nats of what tokens receive (..., N), which sums to N; ln N where all receive the same."""
    shares = profile / profile.sum(-1, keepdim=True)
    return torch.special.entr(shares).sum(-1)


def histogram(profiles: Tensor) -> tuple[list[float], list[float]]:
    """Edges, geometric from 0.01 to N with all below in the first bin, and shares of the values of (images, N)."""
    n = profiles.shape[1]
    edges = torch.logspace(-2, math.log10(n), BINS + 1, dtype=torch.float64)
    clipped = profiles.double().clamp(float(edges[0]), float(edges[-1])).flatten().cpu()
    counts, _ = torch.histogram(clipped, edges)
    return edges.tolist(), (counts / counts.sum()).tolist()


def describe(profiles: Tensor) -> dict[str, Any]:
    """What the tokens of one block receive (images, N), over the images."""
    mean = profiles.mean(0)
    edges, shares = histogram(profiles)
    one = len(profiles) == 1
    return {
        "mean": mean.tolist(),
        "std": [0.0] * len(mean) if one else profiles.std(0).tolist(),
        "max": float(mean.max()),
        "argmax": int(mean.argmax()),
        "entropy": float(entropy(mean)),
        "max_of_images": {"mean": float(profiles.amax(1).mean()), "std": _std(profiles.amax(1))},
        "entropy_of_images": {"mean": float(entropy(profiles).mean()), "std": _std(entropy(profiles))},
        "histogram": {"edges": edges, "shares": shares},
    }


def _std(values: Tensor) -> float:
    return float(values.std()) if len(values) > 1 else 0.0


def _filled(edges: Sequence[float], shares: Sequence[float]) -> Curve:
    """A histogram as a curve over the bins' geometric middles, without the empty bins at both ends but one."""
    middles = [math.sqrt(low * high) for low, high in zip(edges[:-1], edges[1:], strict=True)]
    filled = [i for i, share in enumerate(shares) if share > 0]
    part = slice(max(0, filled[0] - 1), filled[-1] + 2)
    return Curve(middles[part], list(shares[part]))


PLACES = ("first", "middle", "last")


def places(depth: int) -> dict[str, int]:
    """The blocks that Figure 6 shows, counted from 0: of twelve the first, the sixth and the last."""
    return dict(zip(PLACES, (0, max(0, depth // 2 - 1), depth - 1), strict=True))


@torch.inference_mode()
def profiles_of(model: Model, indices: Sequence[int], *, batch_size: int) -> Tensor:
    """What every token receives in each block: (blocks, images, N)."""
    found = []
    for batch in model.batches(indices, batch_size):
        found.append(torch.stack(each_attention(model.encoder, batch.images, received)).cpu())
    return torch.cat(found, 1).double()


def attention(model: Model, indices: Sequence[int], *, batch_size: int) -> Measured:
    """Figure 6: what every token receives from all, in the first, the middle and the last block; all are recorded."""
    profiles = profiles_of(model, indices, batch_size=batch_size)
    blocks = [{"block": number} | describe(block) for number, block in enumerate(profiles, 1)]
    series, summary = {}, {}
    for place, index in places(len(blocks)).items():
        block = blocks[index]
        tokens = [float(token) for token in range(len(block["mean"]))]
        series[f"{place} block"] = Curve(tokens, block["mean"], block["std"])
        series[f"{place} block, histogram"] = _filled(**block["histogram"])
        summary[f"max, {place} block"] = block["max"]
        summary[f"entropy, {place} block"] = block["entropy"]
    shown = {place: index + 1 for place, index in places(len(blocks)).items()}
    values = {"tokens": profiles.shape[2], "prefix": model.encoder.num_prefix, "shown": shown, "blocks": blocks}
    return Measured(series, values, summary | {"ln of tokens": math.log(profiles.shape[2])})


def in_slots_and_patches(profiles: Tensor, grid: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Means of what tokens (clips, t * h * w) receive: of each slot (clips, t), and of each patch (clips, h * w)."""
    tokens = profiles.unflatten(1, (grid[0], -1))
    return tokens.mean(2), tokens.mean(1)


def clip_attention(model: Model, indices: Sequence[int], *, batch_size: int) -> Measured:
    """Figure 6 on clips: what a time slot's tokens receive, what a patch's receive, each from all tokens of the clip.

    There is no class token, so that this is the mean over all queries. 1 is what uniform attention gives.
    """
    profiles, grid = profiles_of(model, indices, batch_size=batch_size), model.encoder.mask_grid
    series, summary, blocks = {}, {}, []
    shown = {place: index + 1 for place, index in places(len(profiles)).items()}
    for number, profile in enumerate(profiles, 1):
        whole = {key: value for key, value in describe(profile).items() if key not in ("mean", "std")}  # 1,568 tokens
        slots, patches = (_means(part) for part in in_slots_and_patches(profile, grid))
        blocks.append({"block": number, "slots": slots._asdict(), "patches": patches._asdict()} | whole)
        for place in (place for place, block in shown.items() if block == number):
            series[f"{place} block, over time"], series[f"{place} block, by patch"] = slots, patches
            series[f"{place} block, histogram"] = _filled(**whole["histogram"])
            summary[f"largest of a slot, {place} block"] = max(slots.y)
            summary[f"largest of a patch, {place} block"] = max(patches.y)
    values = {"tokens": profiles.shape[2], "grid": list(grid), "shown": shown, "blocks": blocks}
    return Measured(series, values, summary)


def _means(values: Tensor) -> Curve:
    """`values` (clips, points) as mean and deviation over the clips."""
    deviation = values.std(0) if len(values) > 1 else torch.zeros(values.shape[1])
    return Curve([float(point) for point in range(values.shape[1])], values.mean(0).tolist(), deviation.tolist())


def class_token_attention(weights: Tensor, prefix: int) -> Tensor:
    """How the class token looks at the image: (B, H, N, N) to (B, H, patches), each row of sum 1."""
    rows = weights[:, :, 0, prefix:]
    return rows / rows.sum(-1, keepdim=True).clamp_min(torch.finfo(rows.dtype).tiny)


def rollout(weights: Sequence[Tensor]) -> Tensor:
    """Attention through all blocks (Abnar & Zuidema 2020): mean weights (B, N, N) of each block to (B, N, N)."""
    together = torch.eye(weights[0].shape[1], device=weights[0].device).expand_as(weights[0])
    for block in weights:
        together = 0.5 * (block + torch.eye(block.shape[1], device=block.device)) @ together
    return together


def keep_mass(maps: Tensor, mass: float) -> Tensor:
    """`maps` (..., N) of sum 1 with all set to 0 but the fewest patches that hold at least the share `mass`."""
    largest, order = maps.sort(-1, descending=True)
    kept = (largest.cumsum(-1) - largest) < mass
    return torch.zeros_like(maps).scatter(-1, order, torch.where(kept, largest, 0.0))


def upsample(maps: Tensor, size: tuple[int, int], mode: str) -> Tensor:
    """(B, h, w) to (B, H, W); `nearest` shows the patches, `bilinear` does not."""
    smooth = {} if mode == "nearest" else {"align_corners": False}
    return F.interpolate(maps.unsqueeze(1).float(), size=size, mode=mode, **smooth).squeeze(1)
