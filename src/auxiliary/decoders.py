"""Decoders of masked image modelling; all of them are thrown away at inference."""

from __future__ import annotations

import torch
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
        if depth < 1:
            raise UserError(f"ssl.decoder_depth={depth} is not at least 1")
        if dim % num_heads or dim % 4:
            raise UserError(f"ssl.decoder_dim={dim} is not divisible by ssl.decoder_heads={num_heads} and by 4")
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
