"""What happens to the tokens from block to block: their distances (Figure 7) and their variance (Figure 8)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssat.analysis.models import Curve, Measured, Model
from ssat.core.errors import UserError
from ssat.encoders.base import Encoder


def blocks_of(encoder: Encoder, *, flat: bool = False) -> list[nn.Module]:
    """The encoder's residual blocks in their order.

    Args:
        encoder: states `residual_blocks` and `flat_tokens`.
        flat: whether the analysis needs one flat token grid.

    Raises:
        UserError: the encoder has no such blocks, or no flat token grid where one is needed.
    """
    blocks = encoder.residual_blocks()
    if not blocks or (flat and not encoder.flat_tokens):
        plain = "vit_t, vit_s, vit_b, sl_vit or most of timm's"
        wanted = f"a plain ViT ({plain})" if flat else f"pre-norm residual blocks ({plain}, cvt_13 or swin_t)"
        raise UserError(f"needs {wanted}, and this is a {type(encoder).__name__}")
    return blocks


@torch.inference_mode()
def check_several_tokens(model: Model, *, with_cls: bool = False) -> None:
    """Raises: UserError: the encoder has no residual blocks, or a single token after one of them."""
    (batch,) = model.batches([0], 1)
    counts = [tokens.shape[1] for tokens in _after_blocks(model.encoder, batch.images, with_cls=with_cls)]
    if min(counts) < 2:
        side = " x ".join(map(str, model.encoder.img_size))
        raise UserError(
            f"an input of {side} has a single token after block {counts.index(min(counts))}, and it needs two: train"
            " with a larger data.img_size, or leave it out"
        )


def check_both_axes(model: Model) -> None:
    """Raises: UserError: the encoder has no residual blocks, or no two tokens of a clip differ in time, or in space."""
    blocks_of(model.encoder)
    slots, *patches = model.encoder.mask_grid
    if slots < 2 or math.prod(patches) < 2:
        raise UserError(
            f"it has {slots} time slots of {math.prod(patches)} patches, and distances in time and in space need two"
            " of each: leave it out"
        )


def residual_stages(encoder: Encoder, images: Tensor) -> list[Tensor]:
    """Tokens (B, N, D): embedded, then after the attention and after the MLP of each block: 2 * depth + 1 of them.

    They are read inside `forward_blocks`, whose outputs are the stages after the MLPs.
    """
    blocks = blocks_of(encoder)
    seen: list[Tensor] = []

    def keep(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        seen.append(inputs[0].flatten(1, -2))  # Swin's come as (B, h, w, D)

    watched = [blocks[0], *(block.norm2 for block in blocks)]
    hooks = [module.register_forward_pre_hook(keep) for module in watched]  # type: ignore[union-attr]
    try:
        outputs = encoder.forward_blocks(images)
    finally:
        for hook in hooks:
            hook.remove()
    embedded, *attended = seen
    stages = [embedded]
    for after_attention, after_mlp in zip(attended, outputs, strict=True):
        stages += [after_attention, after_mlp]
    return stages


def stage_names(depth: int) -> list[str]:
    """Names of the embedding and of the two parts of each block."""
    return ["embedding", *(f"{part} {block}" for block in range(1, depth + 1) for part in ("attention", "mlp"))]


def of_image(encoder: Encoder, tokens: Tensor) -> Tensor:
    """`tokens` (B, N, D) without class token and registers."""
    return encoder.image_tokens(tokens)


def _after_blocks(encoder: Encoder, images: Tensor, *, with_cls: bool) -> list[Tensor]:
    """Tokens (B, N, D): embedded, then after each block."""
    stages = residual_stages(encoder, images)[::2]
    return stages if with_cls else [of_image(encoder, tokens) for tokens in stages]


def mean_distance(tokens: Tensor) -> Tensor:
    """Mean Euclidean distance of all pairs of different tokens (B, N, D) of an image: (B,)."""
    # pdist never forms the matrix, whose diagonal is not exactly 0 when it comes from a product.
    return torch.stack([F.pdist(image).mean() for image in tokens.float()])


def mean_norm(tokens: Tensor) -> Tensor:
    """Mean length of the tokens (B, N, D) of an image: (B,)."""
    return tokens.float().norm(dim=2).mean(1)


def channel_variance(tokens: Tensor) -> Tensor:
    """Unbiased variance over the tokens (B, N, D), averaged over the channels (Park & Kim 2022): (B,)."""
    return tokens.float().var(dim=1).mean(1)


def distance_in_space(tokens: Tensor, slots: int) -> Tensor:
    """`mean_distance` over the pairs of one time slot; tokens (B, slots * patches, D) of clips: (B,)."""
    return _mean_of_groups(tokens.unflatten(1, (slots, -1)))


def distance_in_time(tokens: Tensor, slots: int) -> Tensor:
    """`mean_distance` over the pairs of one patch at different times; tokens (B, slots * patches, D) of clips: (B,)."""
    return _mean_of_groups(tokens.unflatten(1, (slots, -1)).transpose(1, 2))


def _mean_of_groups(groups: Tensor) -> Tensor:
    """Mean over the groups of `mean_distance` within each: (B, G, N, D) to (B,)."""
    return mean_distance(groups.flatten(0, 1)).unflatten(0, groups.shape[:2]).mean(1)


def _curve(x: list[float], values: Tensor) -> Curve:
    """`values` (points, images) as mean and deviation over the images."""
    deviation = values.std(1) if values.shape[1] > 1 else torch.zeros(len(values))
    return Curve(x, values.mean(1).tolist(), deviation.tolist())


@torch.inference_mode()
def distances(model: Model, indices: Sequence[int], *, batch_size: int, with_cls: bool = False) -> Measured:
    """Figure 7: distance between tokens, embedded (depth 0) and after each block, also over their mean length.

    Of clips also the distances within a time slot, and of one patch from slot to slot.
    """
    plain, scaled = [], []
    grid = model.encoder.mask_grid if model.encoder.takes_clips else ()
    apart: dict[str, list[Tensor]] = {"distance in space": [], "distance in time": []} if grid else {}
    for batch in model.batches(indices, batch_size):
        stages = _after_blocks(model.encoder, batch.images, with_cls=with_cls)
        found = torch.stack([mean_distance(tokens) for tokens in stages])
        plain.append(found.cpu())
        scaled.append((found / torch.stack([mean_norm(tokens) for tokens in stages])).cpu())
        for parts, measure in zip(apart.values(), (distance_in_space, distance_in_time), strict=False):
            parts.append(torch.stack([measure(tokens, grid[0]) for tokens in stages]).cpu())
    distance, relative = torch.cat(plain, 1), torch.cat(scaled, 1)
    depth = [float(block) for block in range(len(distance))]
    series = {"distance": _curve(depth, distance), "relative distance": _curve(depth, relative)}
    series |= {name: _curve(depth, torch.cat(parts, 1)) for name, parts in apart.items()}
    summary = {
        "largest distance": max(series["distance"].y),
        "at block": float(max(depth, key=lambda block: series["distance"].y[int(block)])),
        "distance after the last block": series["distance"].y[-1],
        "over token length": series["relative distance"].y[-1],
    }
    if apart:
        space, time = (series[name].y[-1] for name in apart)
        summary |= {"in space after the last block": space, "in time after the last block": time}
    return Measured(series, {}, summary)


@torch.inference_mode()
def variances(model: Model, indices: Sequence[int], *, batch_size: int) -> Measured:
    """Figure 8: variance of the feature map, embedded and after every attention and MLP, over depth from 0 to 1."""
    found = []
    for batch in model.batches(indices, batch_size):
        stages = residual_stages(model.encoder, batch.images)
        found.append(torch.stack([channel_variance(of_image(model.encoder, tokens)) for tokens in stages]).cpu())
    variance = torch.cat(found, 1)
    x = [stage / (len(variance) - 1) for stage in range(len(variance))]
    curve = _curve(x, variance)
    steps = torch.tensor(curve.y).diff()
    summary = {
        "embedded": curve.y[0],
        "after the last block": curve.y[-1],
        "change by attention, mean": float(steps[::2].mean()),
        "change by MLP, mean": float(steps[1::2].mean()),
    }
    return Measured({"variance": curve}, {"stages": stage_names(len(steps) // 2)}, summary)
