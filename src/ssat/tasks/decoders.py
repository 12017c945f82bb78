"""Decoders of masked image modelling; all of them are thrown away at inference."""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssat.core.choices import check_choice
from ssat.core.errors import UserError
from ssat.encoders.base import Encoder, Latent, MaskStyle, gather_tokens, split_mask
from ssat.encoders.layers import Block, init_linear, sincos_table, table_at
from ssat.tasks.patches import patchify

DecoderKind = Literal["mae", "convmae", "simmim", "swin_light"]
Fusion = Literal["pool", "conv", "convmae", "last"]
# What each decoder can read: the `mask_style` of the encoder.
READS: dict[str, MaskStyle] = {"mae": "dropped", "convmae": "zeroed", "simmim": "replaced", "swin_light": "replaced"}
GIVES: dict[MaskStyle, str] = {
    "dropped": "the visible tokens alone",
    "zeroed": "maps that are 0 at hidden cells",
    "replaced": "a map in which a mask token stood for hidden cells",
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

    Raises:
        UserError: sizes that do not fit each other.
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
        check_sizes(dim, depth, num_heads)
        self.embed = nn.Linear(encoder_dim, dim)
        self.mask_token = nn.Parameter(torch.empty(1, 1, dim).normal_(std=0.02))
        self.grid = self.table_grid = grid  # of the patches, and of `pos_embed`
        table = torch.cat([torch.zeros(1, dim), sincos_table(dim, grid)])
        self.pos_embed = nn.Parameter(table.unsqueeze(0), requires_grad=False)
        self.blocks = nn.ModuleList(Block(dim, num_heads, mlp_ratio=mlp_ratio) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.pred = nn.Linear(dim, out_dim or patch_size**2 * in_chans)
        self.apply(init_linear)

    def forward(self, latent: Latent, mask: Tensor, *, num_visible: int | None = None) -> Tensor:
        """Predictions (B, M, out_dim) of the hidden patches alone, in raster order.

        The tokens are not sorted back into raster order, since attention does not depend on order: hidden ones come
        first, and each gets its own position. The last block answers only the hidden tokens' queries.
        """
        visible, hidden = split_mask(mask, num_visible)
        positions = table_at(self.pos_embed, self.table_grid, self.grid).expand(len(mask), -1, -1)
        own = torch.cat([positions[:, :1], gather_tokens(positions, visible + 1)], dim=1)
        shown = self._embed(latent) + own[:, int(latent.cls is None) :]
        masked = self.mask_token + gather_tokens(positions, hidden + 1)
        x = torch.cat([masked.to(shown.dtype), shown], dim=1)
        for block in self.blocks[:-1]:
            x = block(x)
        return self.pred(self.norm(self.blocks[-1](x, queries=hidden.shape[1])))

    def forward_all(self, latent: Latent, mask: Tensor, *, num_visible: int | None = None) -> Tensor:
        """Predictions (B, L, out_dim) of every patch in raster order: the plain formulation, for pictures and tests."""
        visible, _ = split_mask(mask, num_visible)
        shown = self._embed(latent)
        tokens = self.mask_token.expand(len(mask), mask.shape[1], -1)
        index = visible.unsqueeze(-1).expand(-1, -1, shown.shape[-1])
        cls = int(latent.cls is not None)
        x = torch.cat([shown[:, :cls], tokens.to(shown.dtype).scatter(1, index, shown[:, cls:])], dim=1)
        x = x + table_at(self.pos_embed, self.table_grid, self.grid)[:, 1 - cls :]
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
        mask_cell_px: pixels per cell and side.
        in_chans: channels of the images.
        encoder_dims: channels of each map.
        encoder_scales: pixels per position of each map, per side.
        mask_token: whether the decoder has a token that stands for hidden cells; maps that are 0 there need one.
        fuse: how the maps become one token per cell. `pool` = average over the cell, then a 1x1 convolution; `conv` = a
            convolution as large as the cell; `convmae` = such a convolution to the width of the last map, then one
            linear layer for all maps, as ConvMAE; `last` = the last map alone.
        dim: width of the blocks.
        depth: number of blocks.
        num_heads: attention heads.
        mlp_ratio: hidden width of the MLP over `dim`.
        out_dim: numbers to predict per cell; None = its pixels.

    Raises:
        UserError: an unknown `fuse`, or sizes that do not fit.
    """

    def __init__(
        self,
        grid: tuple[int, int],
        mask_cell_px: int,
        *,
        in_chans: int,
        encoder_dims: tuple[int, ...],
        encoder_scales: tuple[int, ...],
        mask_token: bool = True,
        fuse: Fusion = "pool",
        dim: int = 128,
        depth: int = 1,
        num_heads: int = 16,
        mlp_ratio: float = 4.0,
        out_dim: int | None = None,
    ) -> None:
        super().__init__()
        check_choice("ssl.fuse", fuse, get_args(Fusion))
        check_sizes(dim, depth, num_heads)
        self.grid = grid
        self.first = len(encoder_dims) - 1 if fuse == "last" else 0
        dims, scales = encoder_dims[self.first :], encoder_scales[self.first :]
        # Maps finer than the cells are averaged or convolved; a coarser one is repeated.
        self.convolved = fuse in ("conv", "convmae")
        self.cells = [max(1, mask_cell_px // scale) for scale in scales]
        self.repeats = [max(1, scale // mask_cell_px) for scale in scales]
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
        self.pred = nn.Linear(dim, out_dim or mask_cell_px**2 * in_chans)
        self.apply(init_linear)

    def forward(self, latent: Latent, mask: Tensor, *, num_visible: int | None = None) -> Tensor:
        """Predictions (B, M, p * p * C) of the hidden cells alone, in raster order."""
        _, hidden = split_mask(mask, num_visible)
        return self.pred(self.norm(gather_tokens(self._decode(latent, mask), hidden)))

    def forward_all(self, latent: Latent, mask: Tensor, *, num_visible: int | None = None) -> Tensor:
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
        mask_cell_px: pixels per cell and side.
        in_chans: channels of the images.
        encoder_dim: channels of the map.
        scale: pixels per position of the map, per side.
    """

    def __init__(
        self, grid: tuple[int, int], mask_cell_px: int, *, in_chans: int, encoder_dim: int, scale: int
    ) -> None:
        super().__init__()
        self.mask_cell_px = mask_cell_px
        self.size = (grid[0] * mask_cell_px, grid[1] * mask_cell_px)
        self.head = nn.Conv2d(encoder_dim, scale**2 * in_chans, 1)
        self.shuffle = nn.PixelShuffle(scale)

    def forward(self, latent: Latent, mask: Tensor, *, num_visible: int | None = None) -> Tensor:
        """Predictions (B, M, p * p * C) of the hidden cells alone, in raster order."""
        _, hidden = split_mask(mask, num_visible)
        return gather_tokens(self.forward_all(latent, mask), hidden)

    def forward_all(self, latent: Latent, mask: Tensor, *, num_visible: int | None = None) -> Tensor:
        """Predictions (B, L, p * p * C) of every cell in raster order."""
        image = self.shuffle(self.head(latent.maps[-1]))
        return patchify(image[:, :, : self.size[0], : self.size[1]], self.mask_cell_px)


Decoder = MAEDecoder | FusedDecoder | PixelShuffleDecoder
PIXELS_ONLY = "simmim"


def build_decoder(
    encoder: Encoder, kind: DecoderKind | None, *, fuse: Fusion, out_dim: int | None = None, **blocks: Any
) -> Decoder:
    """The decoder `kind` for `encoder`; None = the first one that fits it.

    Args:
        encoder: has a masked pass; only its sizes are read.
        kind: one of `READS`, or None.
        fuse: of a `FusedDecoder`.
        out_dim: numbers to predict per cell; None = its pixels.
        blocks: dim, depth, num_heads and mlp_ratio of its blocks.

    Raises:
        UserError: an unknown kind, or one that cannot read what the encoder's masked pass gives.
    """
    if kind is not None:
        check_choice("ssl.decoder", kind, READS)
    assert encoder.mask_style is not None, "a decoder needs an encoder with a masked pass"
    fitting = [name for name, style in READS.items() if style == encoder.mask_style]
    able = [name for name in fitting if out_dim is None or name != PIXELS_ONLY]
    if kind is not None and kind not in fitting:
        # The options of conf/ssl that predict pixels have the names of their decoders.
        cure = f"ssl={' or ssl='.join(able)}" if out_dim is None else f"ssl.decoder={' or '.join(able)}"
        raise UserError(
            f"ssl.decoder={kind} cannot serve {type(encoder).__name__}, whose masked pass gives"
            f" {GIVES[encoder.mask_style]}: use {cure}",
            key="ssl.decoder",
            value=kind,
        )
    cells = (encoder.mask_grid[-2], encoder.mask_grid[-1])
    dims, scales = encoder.latent_dims, encoder.latent_scales
    unit, in_chans = encoder.mask_cell_px, encoder.in_chans
    chosen = kind or able[0]
    if chosen == "mae":
        return MAEDecoder(cells, unit, in_chans=in_chans, encoder_dim=dims[-1], out_dim=out_dim, **blocks)
    if chosen == PIXELS_ONLY:
        if out_dim is not None:
            raise UserError(
                "ssl.decoder=simmim predicts pixels only: set ssl.target=pixels, or use ssl=swin_light",
                key="ssl.decoder",
                value=kind,
            )
        return PixelShuffleDecoder(cells, unit, in_chans=in_chans, encoder_dim=dims[-1], scale=scales[-1])
    return FusedDecoder(
        cells,
        unit,
        in_chans=in_chans,
        encoder_dims=dims,
        encoder_scales=scales,
        mask_token=encoder.mask_style == "zeroed",
        fuse=fuse,
        out_dim=out_dim,
        **blocks,
    )


def check_sizes(dim: int, depth: int, num_heads: int) -> None:
    """Raises: UserError: a decoder without blocks, or of a width that its heads or the position table cannot share."""
    if depth < 1:
        raise UserError(f"ssl.decoder_depth={depth} is not at least 1", key="ssl.decoder_depth", value=depth)
    if dim % num_heads or dim % 4:
        raise UserError(
            f"ssl.decoder_dim={dim} is not divisible by ssl.decoder_heads={num_heads} and by 4",
            key="ssl.decoder_dim",
            value=dim,
        )
