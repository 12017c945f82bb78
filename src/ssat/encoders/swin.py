"""Swin (Liu et al. 2021), timm's, with SimMIM's masked pass: a mask token stands for hidden tokens."""

from __future__ import annotations

from typing import Any

import torch
from timm.models.swin_transformer import SwinTransformer as TimmSwin
from timm.models.swin_transformer import SwinTransformerBlock, checkpoint_filter_fn
from torch import Tensor, nn

from ssat.core.errors import UserError
from ssat.encoders.base import Dense, Encoder, Latent, both_sides, split_mask, timm_names
from ssat.encoders.layers import through

STAGES = 4


def grids(img_size: tuple[int, int], patch_size: int) -> list[tuple[int, int]]:
    """Tokens (rows, cols) of the four stages; merging pads an odd side."""
    sides = [(img_size[0] // patch_size, img_size[1] // patch_size)]
    for _ in range(STAGES - 1):
        sides.append((-(-sides[-1][0] // 2), -(-sides[-1][1] // 2)))
    return sides


def unfit(img_size: tuple[int, int], patch_size: int, window_size: int, mask_unit: int) -> str:
    """Why Swin cannot take these sizes (pixels, tokens), or '' when it can."""
    for side in img_size:
        if side % patch_size:
            return f"img_size={side} is not a multiple of encoder.patch_size={patch_size}"
        if side % mask_unit:
            return f"img_size={side} is not a multiple of encoder.mask_unit={mask_unit}"
    total = patch_size * 2 ** (STAGES - 1)
    if mask_unit % patch_size or (total % mask_unit and mask_unit % total):
        return f"encoder.mask_unit={mask_unit} must be a multiple of encoder.patch_size={patch_size} and divide {total}"
    if (img_size[0] // mask_unit) * (img_size[1] // mask_unit) < 2:
        return f"img_size={img_size[0]} gives a mask grid of one cell with encoder.mask_unit={mask_unit}"
    for stage, grid in enumerate(grids(img_size, patch_size), 1):
        # A smaller grid is one window; a larger one that they do not divide is padded, and nothing masks the padding.
        if any(side > window_size and side % window_size for side in grid):
            return (
                f"encoder.window_size={window_size} does not divide the {grid[0]} x {grid[1]} tokens of stage {stage}"
                f" (data.img_size={img_size[0]}, encoder.patch_size={patch_size})"
            )
    return ""


def cure(img_size: tuple[int, int], patch_size: int, window_size: int, mask_unit: int) -> str:
    """What to change: windows that fit this image, and the nearest square images that fit these settings."""
    largest = max(side // patch_size for side in img_size)
    windows = [w for w in range(2, min(largest, 16) + 1) if not unfit(img_size, patch_size, w, mask_unit)]
    sizes = [s for s in range(mask_unit, 4 * max(img_size)) if not unfit((s, s), patch_size, window_size, mask_unit)]
    nearest = sorted(sorted(sizes, key=lambda size: abs(size - img_size[0]))[:3])
    advice = [
        f"encoder.window_size={' or '.join(map(str, windows))}" if windows else "",
        f"data.img_size={' or '.join(map(str, nearest))}" if nearest else "",
    ]
    return ", or ".join(filter(None, advice)) or "another encoder.patch_size or encoder.mask_unit"


class SwinTransformer(Encoder):
    """timm's Swin with a mask token; Swin-T by default.

    The masked pass embeds all patches, replaces hidden ones by the token and runs the network unchanged (Xie et al.
    2022). The embedding is patch by patch, so nothing of a hidden pixel is left.

    Args:
        img_size: pixels, a number or (height, width).
        patch_size: pixels per token and side.
        window_size: tokens per window and side; divides every stage's grid that is larger.
        mask_unit: pixels per mask cell and side; a multiple of `patch_size`.
        in_chans: channels of the images.
        embed_dim: width of the first stage; each later one has twice the width of the one before.
        depths: blocks of the four stages.
        num_heads: attention heads of the four stages.
        drop_path: stochastic depth, rising linearly from 0.
        checkpoint_blocks: keep only the inputs of the blocks for the backward pass and compute the rest again.

    Raises:
        UserError: patches, windows or mask cells do not divide the image; says which sizes they do divide.
    """

    mask_style = "replaced"
    separate = True
    stem = "model.patch_embed.proj.weight"
    timm_name = "swin_tiny_patch4_window7_224"

    def __init__(
        self,
        img_size: int | tuple[int, int] = 224,
        patch_size: int = 4,
        window_size: int = 7,
        mask_unit: int = 16,
        *,
        in_chans: int = 3,
        embed_dim: int = 96,
        depths: tuple[int, int, int, int] = (2, 2, 6, 2),
        num_heads: tuple[int, int, int, int] = (3, 6, 12, 24),
        drop_path: float = 0.1,
        checkpoint_blocks: bool = False,
    ) -> None:
        super().__init__()
        size = both_sides(img_size)
        if min(patch_size, window_size, mask_unit) < 1:
            raise UserError("encoder.patch_size, encoder.window_size and encoder.mask_unit must be at least 1")
        if len(depths) != STAGES or len(num_heads) != STAGES:
            raise UserError(f"encoder.depths={list(depths)} and encoder.num_heads={list(num_heads)} must have 4 values")
        problem = unfit(size, patch_size, window_size, mask_unit)
        if problem:
            raise UserError(f"{problem}: use {cure(size, patch_size, window_size, mask_unit)}", key="data.img_size")
        self.model = TimmSwin(
            img_size=size,
            patch_size=patch_size,
            in_chans=in_chans,
            num_classes=0,
            embed_dim=embed_dim,
            depths=tuple(depths),
            num_heads=tuple(num_heads),
            window_size=window_size,
            drop_path_rate=drop_path,
        )
        self.mask_token = nn.Parameter(torch.empty(1, 1, 1, embed_dim).normal_(std=0.02))
        self.img_size, self.in_chans, self.num_features = size, in_chans, self.model.num_features
        self.mask_grid, self.mask_cell_px = (size[0] // mask_unit, size[1] // mask_unit), mask_unit
        self.latent_dims, self.latent_scales = (self.num_features,), (patch_size * 2 ** (STAGES - 1),)
        self.depth, self.tokens_per_cell = sum(depths), mask_unit // patch_size
        self.checkpoint_blocks = checkpoint_blocks

    def embed(self, images: Tensor) -> Tensor:
        """(B, C, H, W) to tokens (B, h, w, D)."""
        self.check_images(images)
        return self.model.patch_embed(images)

    def forward_features(self, images: Tensor) -> Tensor:
        """timm's features before its classifier: the mean of the final map."""
        return self.model.forward_head(self.model.norm(self._through(self.embed(images))), pre_logits=True)

    def _through(self, tokens: Tensor, each: list[Tensor] | None = None) -> Tensor:
        """Tokens (B, h, w, D) after all stages; those of each block (B, N, D) are appended to `each`."""
        stages: Any = self.model.layers
        for stage in stages:
            tokens = stage.downsample(tokens)
            for block in stage.blocks:
                tokens = through(block, tokens, checkpointed=self.checkpoint_blocks and self.training)
                if each is not None:
                    each.append(tokens.flatten(1, 2))
        return tokens

    def forward_masked(self, images: Tensor, mask: Tensor, *, num_visible: int | None = None) -> Latent:
        """The final map of an image whose hidden tokens are the mask token (Xie et al. 2022)."""
        if num_visible is None:
            split_mask(mask)  # refuses rows that hide unequal numbers
        tokens = self.embed(images)
        cells = mask.view(len(mask), *self.mask_grid)
        hidden = cells.repeat_interleave(self.tokens_per_cell, 1).repeat_interleave(self.tokens_per_cell, 2)
        tokens = torch.where(hidden.unsqueeze(3), self.mask_token.to(tokens.dtype), tokens)
        final = self.model.norm(self._through(tokens))
        return Latent(maps=[final.permute(0, 3, 1, 2)], cls=None, visible_only=False)

    def forward_map(self, images: Tensor) -> Tensor:
        """The normalised final map (B, D, rows, cols)."""
        return self.model.norm(self._through(self.embed(images))).permute(0, 3, 1, 2)

    def forward_blocks(self, images: Tensor) -> list[Tensor]:
        """Tokens (B, N, D) after each block of all stages."""
        return self.forward_dense(images).blocks

    def forward_dense(self, images: Tensor) -> Dense:
        """Features, the final map, and the tokens of each block of all stages, in one pass."""
        outputs: list[Tensor] = []
        x = self._through(self.embed(images), outputs)
        features = self.model.forward_head(self.model.norm(x), pre_logits=True)
        return Dense(features, x.permute(0, 3, 1, 2), outputs)

    def residual_blocks(self) -> list[nn.Module]:
        """The blocks of all stages."""
        return [module for module in self.modules() if isinstance(module, SwinTransformerBlock)]

    def evidence_layer(self) -> nn.Module:
        """The norm of the final map, whose mean the classifier reads."""
        return self.model.norm

    def evidence_map(self, output: Tensor) -> Tensor:
        """(B, rows, cols, D) with the channels first."""
        return output.permute(0, 3, 1, 2)

    def adapt_weights(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """timm's own conversion: patches and bias tables are resampled; our mask token stays as it is."""
        own = {name: weights.pop(name) for name in ("mask_token",) if name in weights}
        plain = {name.removeprefix("model."): value for name, value in weights.items()}
        return own | timm_names(checkpoint_filter_fn(plain, self.model))

    def only_masked(self) -> set[str]:
        """The mask token."""
        return {"mask_token"}

    def no_weight_decay(self) -> set[str]:
        """The mask token, and what timm exempts: the bias tables."""
        return {"mask_token"} | {f"model.{name}" for name in self.model.no_weight_decay()}

    def layer_ids(self) -> dict[str, int]:
        """UM-MAE's rule: each block is one layer, and a merging belongs to the block after it."""
        return {name: self._layer_id(name) for name, _ in self.named_parameters()}

    def _layer_id(self, name: str) -> int:
        stages: Any = self.model.layers
        depths = [len(stage.blocks) for stage in stages]
        if not name.startswith("model.layers."):
            return 0 if name.startswith(("mask_token", "model.patch_embed.")) else sum(depths) + 1
        _, _, stage, kind, *rest = name.split(".")
        return sum(depths[: int(stage)]) + (int(rest[0]) if kind == "blocks" else 0) + 1
