"""Decoders of masked image modelling; all of them are thrown away at inference."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from src.auxiliary.patches import patchify
from src.encoders.base import Encoder, Latent, gather_tokens, split_mask
from src.encoders.vit import Block, init_linear, sincos_table
from src.errors import UserError

FUSIONS = ("pool", "conv", "convmae", "last")
HIDDEN = {
    "dropped": "whose masked pass gives the visible tokens alone",
    "zeroed": "whose masked pass gives maps that are 0 at hidden cells",
    "replaced": "whose masked pass gives a map with a mask token's state at hidden cells",
}


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
        out_dim: numbers to predict per patch; None = its pixels.
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
        out_dim: int | None = None,
    ) -> None:
        super().__init__()
        _check_sizes(dim, depth, num_heads)
        self.embed = nn.Linear(encoder_dim, dim)
        self.mask_token = nn.Parameter(torch.empty(1, 1, dim).normal_(std=0.02))
        table = torch.cat([torch.zeros(1, dim), sincos_table(dim, grid)])
        self.pos_embed = nn.Parameter(table.unsqueeze(0), requires_grad=False)
        self.blocks = nn.ModuleList(Block(dim, num_heads, mlp_ratio=mlp_ratio) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.pred = nn.Linear(dim, out_dim or patch_size**2 * in_chans)
        self.apply(init_linear)

    def forward(self, latent: Latent, mask: Tensor, *, num_visible: int | None = None) -> Tensor:
        """Predictions (B, M, out_dim) of the hidden patches alone, in raster order.

        Attention does not care about order: the tokens stay as they are, hidden ones first, and get the positions they
        belong to; and the last block answers only the hidden tokens' queries.
        """
        visible, hidden = split_mask(mask, num_visible)
        positions = self.pos_embed.expand(len(mask), -1, -1)
        own = torch.cat([positions[:, :1], gather_tokens(positions, visible + 1)], dim=1)
        shown = self._embed(latent) + own[:, int(latent.cls is None) :]
        masked = self.mask_token + gather_tokens(positions, hidden + 1)
        x = torch.cat([masked.to(shown.dtype), shown], dim=1)
        for block in self.blocks[:-1]:
            x = block(x)
        return self.pred(self.norm(self.blocks[-1](x, queries=hidden.shape[1])))

    def forward_all(self, latent: Latent, mask: Tensor) -> Tensor:
        """Predictions (B, L, out_dim) of every patch in raster order: the plain formulation, for pictures, tests."""
        visible, _ = split_mask(mask)
        shown = self._embed(latent)
        tokens = self.mask_token.expand(len(mask), mask.shape[1], -1)
        index = visible.unsqueeze(-1).expand(-1, -1, shown.shape[-1])
        cls = int(latent.cls is not None)
        x = torch.cat([shown[:, :cls], tokens.to(shown.dtype).scatter(1, index, shown[:, cls:])], dim=1)
        x = x + self.pos_embed[:, 1 - cls :]
        for block in self.blocks:
            x = block(x)
        return self.pred(self.norm(x))[:, cls:]

    def _embed(self, latent: Latent) -> Tensor:
        """Class token, if there is one, and visible tokens: (B, [1 +] V, dim)."""
        cls = [] if latent.cls is None else [latent.cls.unsqueeze(1)]
        return self.embed(torch.cat([*cls, latent.maps[0]], dim=1))


class FusedDecoder(nn.Module):
    """Transformer blocks over the mask cells of an encoder with maps (after Gao et al. 2022).

    Args:
        grid: (rows, cols) of mask cells.
        unit_px: pixels per cell and side.
        in_chans: channels of the images.
        encoder_dims, encoder_scales: channels, and pixels per position and side, of each map.
        mask_token: whether a token of its own stands for hidden cells, as it must where the maps are 0 there.
        fuse: `pool` = the maps averaged over each cell, then 1x1 convolutions; `conv` = convolutions as large as a
            cell; `convmae` = such convolutions to the width of the last map, which is then projected, as ConvMAE has
            it; `last` = the last map alone.
        dim, depth, num_heads, mlp_ratio: of the blocks.
        out_dim: numbers to predict per cell; None = its pixels.

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
        mask_token: bool = True,
        fuse: str = "pool",
        dim: int = 128,
        depth: int = 1,
        num_heads: int = 16,
        mlp_ratio: float = 4.0,
        out_dim: int | None = None,
    ) -> None:
        super().__init__()
        if fuse not in FUSIONS:
            raise UserError(f"ssl.fuse={fuse!r} is not one of {', '.join(FUSIONS)}")
        _check_sizes(dim, depth, num_heads)
        self.grid = grid
        self.first = len(encoder_dims) - 1 if fuse == "last" else 0
        dims, scales = encoder_dims[self.first :], encoder_scales[self.first :]
        # Maps finer than the cells are averaged or convolved; a coarser one is repeated.
        self.convolved = fuse in ("conv", "convmae")
        self.cells = [max(1, unit_px // scale) for scale in scales]
        self.repeats = [max(1, scale // unit_px) for scale in scales]
        width = dims[-1] if fuse == "convmae" else dim
        self.project = nn.ModuleList(
            nn.Identity() if fuse == "convmae" and i == len(dims) - 1 else nn.Conv2d(d, width, size, size)
            for i, (d, size) in enumerate(zip(dims, self.cells if self.convolved else [1] * len(dims), strict=True))
        )
        self.embed = nn.Linear(width, dim) if fuse == "convmae" else nn.Identity()
        self.mask_token = nn.Parameter(torch.empty(1, 1, dim).normal_(std=0.02)) if mask_token else None
        self.pos_embed = nn.Parameter(sincos_table(dim, grid).unsqueeze(0), requires_grad=False)
        self.blocks = nn.ModuleList(Block(dim, num_heads, mlp_ratio=mlp_ratio) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.pred = nn.Linear(dim, out_dim or unit_px**2 * in_chans)
        self.apply(init_linear)

    def forward(self, latent: Latent, mask: Tensor, *, num_visible: int | None = None) -> Tensor:
        """Predictions (B, M, p * p * C) of the hidden cells alone, in raster order."""
        _, hidden = split_mask(mask, num_visible)
        return self.pred(self.norm(gather_tokens(self._decode(latent, mask), hidden)))

    def forward_all(self, latent: Latent, mask: Tensor) -> Tensor:
        """Predictions (B, L, p * p * C) of every cell in raster order."""
        return self.pred(self.norm(self._decode(latent, mask)))

    def _decode(self, latent: Latent, mask: Tensor) -> Tensor:
        fused = torch.stack(
            [self._on_cells(image, i) for i, image in enumerate(latent.maps[self.first :])],
        ).sum(0)
        tokens = self.embed(fused.flatten(2).transpose(1, 2))
        if self.mask_token is not None:
            tokens = torch.where(mask.unsqueeze(2), self.mask_token.to(tokens.dtype), tokens)
        x = tokens + self.pos_embed
        for block in self.blocks:
            x = block(x)
        return x

    def _on_cells(self, image: Tensor, index: int) -> Tensor:
        """The map (B, D, h, w) of one scale, projected, one position per mask cell."""
        cell, repeat = self.cells[index], self.repeats[index]
        if cell > 1 and not self.convolved:
            image = F.avg_pool2d(image, cell)
        image = self.project[index](image)
        if repeat > 1:
            image = image.repeat_interleave(repeat, 2).repeat_interleave(repeat, 3)
        return image[:, :, : self.grid[0], : self.grid[1]]


class PixelShuffleDecoder(nn.Module):
    """A 1x1 convolution of the last map to pixels, as SimMIM has it (Xie et al. 2022).

    Args:
        grid: (rows, cols) of mask cells.
        unit_px: pixels per cell and side.
        in_chans: channels of the images.
        encoder_dim: channels of the map.
        scale: pixels per position of the map, per side.
    """

    def __init__(self, grid: tuple[int, int], unit_px: int, *, in_chans: int, encoder_dim: int, scale: int) -> None:
        super().__init__()
        self.unit_px = unit_px
        self.size = (grid[0] * unit_px, grid[1] * unit_px)
        self.head = nn.Conv2d(encoder_dim, scale**2 * in_chans, 1)
        self.shuffle = nn.PixelShuffle(scale)

    def forward(self, latent: Latent, mask: Tensor, *, num_visible: int | None = None) -> Tensor:
        """Predictions (B, M, p * p * C) of the hidden cells alone, in raster order."""
        _, hidden = split_mask(mask, num_visible)
        return gather_tokens(self.forward_all(latent, mask), hidden)

    def forward_all(self, latent: Latent, mask: Tensor) -> Tensor:
        """Predictions (B, L, p * p * C) of every cell in raster order."""
        image = self.shuffle(self.head(latent.maps[-1]))
        return patchify(image[:, :, : self.size[0], : self.size[1]], self.unit_px)


Decoder = MAEDecoder | FusedDecoder | PixelShuffleDecoder

# The kinds of decoder, and which masked passes each can read.
READS = {"mae": "dropped", "convmae": "zeroed", "simmim": "replaced", "swin_light": "replaced"}


def build_decoder(
    encoder: Encoder, kind: str | None, *, fuse: str, out_dim: int | None = None, **blocks: Any
) -> Decoder:
    """The decoder `kind` for `encoder`; None = the one that fits it.

    Args:
        fuse: of a `FusedDecoder`.
        out_dim: numbers to predict per cell; None = its pixels.
        blocks: dim, depth, num_heads and mlp_ratio of its blocks.

    Raises:
        UserError: an unknown kind, or one that cannot read what the encoder's masked pass gives.
    """
    if encoder.hidden is None:
        raise UserError(
            f"{type(encoder).__name__} has no masked pass (its convolutions and batch norms would read the holes), so"
            " nothing can be reconstructed: use mode=scratch or mode=finetune, or ssl=simclr, dino or drloc, or choose"
            " a transformer as the encoder"
        )
    fitting = [name for name, hidden in READS.items() if hidden == encoder.hidden]
    kind = kind or fitting[0]
    if kind not in READS:
        raise UserError(f"ssl.decoder={kind!r} is not one of {', '.join(READS)}")
    if kind not in fitting:
        raise UserError(
            f"ssl.decoder={kind} cannot serve {type(encoder).__name__}, {HIDDEN[encoder.hidden]}:"
            f" use ssl={' or ssl='.join(fitting)}"
        )
    cells = (encoder.mask_grid[-2], encoder.mask_grid[-1])
    dims, scales = encoder.latent_dims, encoder.latent_scales
    unit, in_chans = encoder.unit_px, encoder.in_chans
    if kind == "mae":
        return MAEDecoder(cells, unit, in_chans=in_chans, encoder_dim=dims[-1], out_dim=out_dim, **blocks)
    if kind == "simmim":
        if out_dim is not None:
            raise UserError("ssl.decoder=simmim predicts pixels only: set ssl.target=pixels, or use ssl=swin_light")
        return PixelShuffleDecoder(cells, unit, in_chans=in_chans, encoder_dim=dims[-1], scale=scales[-1])
    return FusedDecoder(
        cells,
        unit,
        in_chans=in_chans,
        encoder_dims=dims,
        encoder_scales=scales,
        mask_token=kind == "convmae",
        fuse=fuse,
        out_dim=out_dim,
        **blocks,
    )


def _check_sizes(dim: int, depth: int, num_heads: int) -> None:
    if depth < 1:
        raise UserError(f"ssl.decoder_depth={depth} is not at least 1")
    if dim % num_heads or dim % 4:
        raise UserError(f"ssl.decoder_dim={dim} is not divisible by ssl.decoder_heads={num_heads} and by 4")
