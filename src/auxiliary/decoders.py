"""Decoders of masked image modelling; all of them are thrown away at inference."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from src.encoders.base import Latent, gather_tokens, split_mask
from src.encoders.vit import Block, init_linear, sincos_table
from src.errors import UserError


class MAEDecoder(nn.Module):
    """A few transformer blocks over visible and mask tokens (He et al. 2022); 2 x 128 with 16 heads in the paper.

    Args:
        grid: (rows, cols) of patches.
        patch_size: pixels per side.
        in_chans: channels of the images.
        encoder_dim: width of the latent.
        dim: width of the decoder.
        depth: number of blocks.
        num_heads: attention heads.
        mlp_ratio: hidden width of the MLP over `dim`.
    """

    def __init__(
        self,
        grid: tuple[int, int],
        patch_size: int,
        *,
        in_chans: int,
        encoder_dim: int,
        dim: int = 128,
        depth: int = 2,
        num_heads: int = 16,
        mlp_ratio: float = 4.0,
    ) -> None:
        super().__init__()
        _check_sizes(dim, depth, num_heads)
        self.embed = nn.Linear(encoder_dim, dim)
        self.mask_token = nn.Parameter(torch.empty(1, 1, dim).normal_(std=0.02))
        table = torch.cat([torch.zeros(1, dim), sincos_table(dim, grid)])
        self.pos_embed = nn.Parameter(table.unsqueeze(0), requires_grad=False)
        self.blocks = nn.ModuleList(Block(dim, num_heads, mlp_ratio=mlp_ratio) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.pred = nn.Linear(dim, patch_size**2 * in_chans)
        self.apply(init_linear)

    def forward(self, latent: Latent, mask: Tensor, *, num_visible: int | None = None) -> Tensor:
        """Predictions (B, M, p * p * C) of the hidden patches alone, in raster order.

        Attention does not care about order: the tokens stay as they are, hidden ones first, and get the positions they
        belong to; and the last block answers only the hidden tokens' queries.
        """
        visible, hidden = split_mask(mask, num_visible)
        positions = self.pos_embed.expand(len(mask), -1, -1)
        shown = self._embed(latent) + torch.cat([positions[:, :1], gather_tokens(positions, visible + 1)], dim=1)
        masked = self.mask_token + gather_tokens(positions, hidden + 1)
        x = torch.cat([masked.to(shown.dtype), shown], dim=1)
        for block in self.blocks[:-1]:
            x = block(x)
        return self.pred(self.norm(self.blocks[-1](x, queries=hidden.shape[1])))

    def forward_all(self, latent: Latent, mask: Tensor) -> Tensor:
        """Predictions (B, L, p * p * C) of every patch in raster order: the plain formulation, for pictures, tests."""
        visible, _ = split_mask(mask)
        shown = self._embed(latent)
        tokens = self.mask_token.expand(len(mask), mask.shape[1], -1)
        index = visible.unsqueeze(-1).expand(-1, -1, shown.shape[-1])
        x = torch.cat([shown[:, :1], tokens.to(shown.dtype).scatter(1, index, shown[:, 1:])], dim=1) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        return self.pred(self.norm(x))[:, 1:]

    def _embed(self, latent: Latent) -> Tensor:
        """Class token and visible tokens (B, 1 + V, dim)."""
        assert latent.cls is not None and latent.visible_only, "this decoder reads the tokens of a plain ViT"
        return self.embed(torch.cat([latent.cls.unsqueeze(1), latent.maps[0]], dim=1))


class FusedDecoder(nn.Module):
    """Transformer blocks over the mask cells of an encoder with maps of several scales (after Gao et al. 2022).

    Args:
        grid: (rows, cols) of mask cells.
        unit_px: pixels per cell and side.
        in_chans: channels of the images.
        encoder_dims, encoder_scales: channels, and pixels per position and side, of each map.
        fuse: `pool` = the maps averaged over each cell, then 1x1 convolutions; `conv` = convolutions as large as a
            cell; `last` = the last map alone.
        dim, depth, num_heads, mlp_ratio: of the blocks.

    Raises:
        UserError: an unknown `fuse`, or sizes that do not fit.
    """

    def __init__(
        self,
        grid: tuple[int, int],
        unit_px: int,
        *,
        in_chans: int,
        encoder_dims: tuple[int, ...],
        encoder_scales: tuple[int, ...],
        fuse: str = "pool",
        dim: int = 128,
        depth: int = 1,
        num_heads: int = 16,
        mlp_ratio: float = 4.0,
    ) -> None:
        super().__init__()
        if fuse not in ("pool", "conv", "last"):
            raise UserError(f"ssl.fuse={fuse!r} is not one of pool, conv, last")
        _check_sizes(dim, depth, num_heads)
        self.fuse = fuse
        self.cells = [unit_px // scale for scale in encoder_scales]
        first = len(encoder_dims) - 1 if fuse == "last" else 0
        sizes = [cell if fuse == "conv" else 1 for cell in self.cells]
        self.first = first
        self.project = nn.ModuleList(
            nn.Conv2d(width, dim, size, size) for width, size in zip(encoder_dims[first:], sizes[first:], strict=True)
        )
        self.mask_token = nn.Parameter(torch.empty(1, 1, dim).normal_(std=0.02))
        self.pos_embed = nn.Parameter(sincos_table(dim, grid).unsqueeze(0), requires_grad=False)
        self.blocks = nn.ModuleList(Block(dim, num_heads, mlp_ratio=mlp_ratio) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.pred = nn.Linear(dim, unit_px**2 * in_chans)
        self.apply(init_linear)

    def forward(self, latent: Latent, mask: Tensor, *, num_visible: int | None = None) -> Tensor:
        """Predictions (B, M, p * p * C) of the hidden cells alone, in raster order."""
        _, hidden = split_mask(mask, num_visible)
        return self.pred(self.norm(gather_tokens(self._decode(latent, mask), hidden)))

    def forward_all(self, latent: Latent, mask: Tensor) -> Tensor:
        """Predictions (B, L, p * p * C) of every cell in raster order."""
        return self.pred(self.norm(self._decode(latent, mask)))

    def _decode(self, latent: Latent, mask: Tensor) -> Tensor:
        assert not latent.visible_only, "this decoder reads maps"
        maps, cells = latent.maps[self.first :], self.cells[self.first :]
        if self.fuse != "conv":
            maps = [F.avg_pool2d(image, cell) if cell > 1 else image for image, cell in zip(maps, cells, strict=True)]
        fused = torch.stack([project(image) for project, image in zip(self.project, maps, strict=True)]).sum(0)
        tokens = fused.flatten(2).transpose(1, 2)
        x = torch.where(mask.unsqueeze(2), self.mask_token.to(tokens.dtype), tokens) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        return x


def _check_sizes(dim: int, depth: int, num_heads: int) -> None:
    if depth < 1:
        raise UserError(f"ssl.decoder_depth={depth} is not at least 1")
    if dim % num_heads or dim % 4:
        raise UserError(f"ssl.decoder_dim={dim} is not divisible by ssl.decoder_heads={num_heads} and by 4")
