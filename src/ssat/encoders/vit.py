"""The plain vision transformer, with one packed pass over the full and the masked view."""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from ssat.core.choices import check_choice
from ssat.core.errors import UserError
from ssat.encoders.base import (
    Dense,
    Encoder,
    Latent,
    both_sides,
    gather_tokens,
    kept_patches,
    patch_grid,
    split_mask,
    tokens_to_map,
)
from ssat.encoders.layers import Block, PatchEmbed, init_linear, sincos_table, table_at, through, with_own_table

PosEmbed = Literal["sincos", "learnable"]


class VisionTransformer(Encoder):
    """ViT (Dosovitskiy et al. 2021) with class token; parameter names as in timm and the authors' code.

    Args:
        img_size: pixels, a number or (height, width).
        patch_size: pixels per side; divides both.
        in_chans: channels of the images.
        embed_dim: width D.
        depth: number of blocks.
        num_heads: attention heads; divides `embed_dim`.
        mlp_ratio: hidden width of the MLP over `embed_dim`.
        qkv_bias: whether the query, key and value projections have a bias.
        drop_path: stochastic depth, rising linearly from 0 to this rate over the blocks.
        pos_embed: 'sincos', the fixed table of MAE, or 'learnable'.
        norm_eps: epsilon of every LayerNorm.
        checkpoint_blocks: keep only the inputs of the blocks for the backward pass and compute the rest again: less
            memory, the same numbers, a third more time.

    Raises:
        UserError: sizes that do not fit each other.
    """

    mask_style = "dropped"
    flat_tokens = True
    num_prefix = 1
    patch_dropout = 0.0
    separate = True
    stem = "patch_embed.proj.weight"

    def __init__(
        self,
        img_size: int | tuple[int, int] = 224,
        patch_size: int = 16,
        *,
        in_chans: int = 3,
        embed_dim: int = 192,
        depth: int = 12,
        num_heads: int = 3,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        drop_path: float = 0.0,
        pos_embed: PosEmbed = "sincos",
        norm_eps: float = 1e-6,
        checkpoint_blocks: bool = False,
    ) -> None:
        super().__init__()
        self.checkpoint_blocks = checkpoint_blocks
        self.img_size = both_sides(img_size)
        grid = patch_grid(self.img_size, patch_size)
        check_choice("encoder.pos_embed", pos_embed, get_args(PosEmbed))
        if depth < 1:
            raise UserError(f"encoder.depth={depth} is not at least 1", key="encoder.depth", value=depth)
        self.mask_grid, self.mask_cell_px = grid, patch_size
        self.table_grid = grid  # of `pos_embed`
        self.in_chans, self.num_features, self.depth = in_chans, embed_dim, depth
        self.latent_dims, self.latent_scales = (embed_dim,), (patch_size,)

        self.patch_embed: Any = PatchEmbed(patch_size, in_chans, embed_dim)
        self.cls_token = nn.Parameter(torch.empty(1, 1, embed_dim).normal_(std=0.02))
        if pos_embed == "sincos":
            # The class token's row is zero.
            table = torch.cat([torch.zeros(1, embed_dim), sincos_table(embed_dim, grid)])
            self.pos_embed = nn.Parameter(table.unsqueeze(0), requires_grad=False)
        else:
            self.pos_embed = nn.Parameter(torch.empty(1, 1 + grid[0] * grid[1], embed_dim))
            nn.init.trunc_normal_(self.pos_embed, std=0.02)
        self.blocks = nn.ModuleList(
            Block(
                embed_dim,
                num_heads,
                mlp_ratio=mlp_ratio,
                qkv_bias=qkv_bias,
                drop_path=drop_path * i / max(1, depth - 1),
                norm_eps=norm_eps,
            )
            for i in range(depth)
        )
        self.norm = nn.LayerNorm(embed_dim, eps=norm_eps)
        self.apply(init_linear)

    def raw_patches(self, images: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, C, H, W) as (B, N, C * p * p); nothing of the cells hidden by `mask` (B, L) is in a visible patch.

        Raises:
            UserError: images of another size or channel count than the encoder was built for.
        """
        self.check_images(images)
        if mask is not None and not self.patch_embed.patches_disjoint:
            shown = (~mask).view(len(mask), 1, *self.mask_grid).to(images.dtype)
            images = images * shown.repeat_interleave(self.mask_cell_px, 2).repeat_interleave(self.mask_cell_px, 3)
        return self.patch_embed.patches(images)

    def positions(self) -> Tensor:
        """`pos_embed` (1, 1 + N, D) for images of the present size."""
        return table_at(self.pos_embed, self.table_grid, self.mask_grid)

    def resize(self, img_size: tuple[int, int]) -> None:
        """Take images of another size of whole patches; the position table is resampled to it."""
        if any(side < self.mask_cell_px or side % self.mask_cell_px for side in img_size):
            raise UserError(
                f"recipe.sizes: {img_size[0]} pixels are not whole patches of {self.mask_cell_px}: give multiples of"
                f" {self.mask_cell_px}, or another encoder.patch_size",
                key="recipe.sizes",
                value=img_size[0],
            )
        self.img_size, self.mask_grid = img_size, patch_grid(img_size, self.mask_cell_px)

    def with_cls(self, tokens: Tensor) -> Tensor:
        """Puts the class token before positioned patch tokens: (B, N, D) to (B, 1 + N, D)."""
        cls = (self.cls_token + self.pos_embed[:, :1]).expand(tokens.shape[0], -1, -1)
        return torch.cat([cls.to(tokens.dtype), tokens], dim=1)

    def embed(self, images: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, C, H, W) to positioned tokens (B, 1 + N, D)."""
        return self.with_cls(self.patch_embed(self.raw_patches(images, mask)) + self.positions()[:, 1:])

    def forward_features(self, images: Tensor) -> Tensor:
        """The normalised class token (B, D); the last block answers its query alone, since nothing else is read."""
        return self._class_token(self._full_view(self.raw_patches(images)))

    def _full_view(self, patches: Tensor) -> Tensor:
        """Positioned tokens (B, 1 + N, D) of raw patches; in training without those of patch dropout."""
        if not (self.training and self.patch_dropout):
            return self.with_cls(self.patch_embed(patches) + self.positions()[:, 1:])
        kept = kept_patches(len(patches), patches.shape[1], self.patch_dropout, patches.device)
        return self.with_cls(self.embed_visible(patches, kept))

    def forward_features_plain(self, images: Tensor) -> Tensor:
        """The same with every token of the last block."""
        return self.norm(self.forward_blocks(images)[-1])[:, 0]

    def _through(self, block: Any, *args: Any, **options: Any) -> Tensor:
        return through(block, *args, checkpointed=self.checkpoint_blocks and self.training, **options)

    def _class_token(self, x: Tensor) -> Tensor:
        for block in self.blocks[:-1]:
            x = self._through(block, x)
        return self.norm(self._through(self.blocks[-1], x, queries=1))[:, 0]

    def forward_masked(self, images: Tensor, mask: Tensor, *, num_visible: int | None = None) -> Latent:
        """Only the visible patches are embedded and computed (He et al. 2022)."""
        visible, _ = split_mask(mask, num_visible)
        x = self.with_cls(self.embed_visible(self.raw_patches(images, mask), visible))
        for block in self.blocks:
            x = self._through(block, x)
        return self._latent(x)

    def forward_masked_plain(self, images: Tensor, mask: Tensor, *, num_visible: int | None = None) -> Latent:
        """As MAE writes it: embed every patch, then drop the hidden ones."""
        visible, _ = split_mask(mask, num_visible)
        x = self.embed(images, mask)
        x = torch.cat([x[:, :1], gather_tokens(x[:, 1:], visible)], dim=1)
        for block in self.blocks:
            x = self._through(block, x)
        return self._latent(x)

    def embed_visible(self, patches: Tensor, visible: Tensor) -> Tensor:
        """Positioned tokens (B, V, D) of the visible patches; gathered raw, so the gather needs no gradient."""
        positions = gather_tokens(self.positions()[:, 1:].expand(len(visible), -1, -1), visible)
        return self.patch_embed(gather_tokens(patches, visible)) + positions

    def _latent(self, x: Tensor) -> Latent:
        x = self.norm(x)
        return Latent(maps=[x[:, 1:]], cls=x[:, 0], visible_only=True)

    def forward_joint(
        self, images: Tensor, mask: Tensor, *, num_visible: int | None = None, rows: Tensor | None = None
    ) -> tuple[Tensor, Latent]:
        """Both views packed into one flat tensor; gives the numbers of the two plain passes."""
        visible, _ = split_mask(mask, num_visible)
        patches = self.raw_patches(images)
        full = self._full_view(patches if rows is None else patches[rows])
        own = patches if self.patch_embed.patches_disjoint else self.raw_patches(images, mask)
        masked = self.with_cls(self.embed_visible(own, visible))
        samples = [full.shape[:2], masked.shape[:2]]
        x = torch.cat([full.flatten(0, 1), masked.flatten(0, 1)])
        for block in self.blocks[:-1]:
            x = self._through(block.forward_packed, x, samples)
        full, masked = (
            view.view(*shape, -1) for view, shape in zip(x.split([b * n for b, n in samples]), samples, strict=True)
        )
        features = self.norm(self._through(self.blocks[-1], full, queries=1))[:, 0]
        return features, self._latent(self._through(self.blocks[-1], masked))

    def forward_blocks(self, images: Tensor) -> list[Tensor]:
        """Tokens (B, 1 + N, D) after each block, the class token first."""
        x = self.embed(images)
        outputs = []
        for block in self.blocks:
            x = self._through(block, x)
            outputs.append(x)
        return outputs

    def forward_map(self, images: Tensor) -> Tensor:
        """Normalised patch tokens as a map (B, D, rows, cols)."""
        return tokens_to_map(self.norm(self.forward_blocks(images)[-1])[:, 1:], self.mask_grid)

    def forward_dense(self, images: Tensor) -> Dense:
        """Class token, patch tokens as a map, and all tokens of each block, in one pass."""
        blocks = self.forward_blocks(images)
        return Dense(self.norm(blocks[-1][:, :1])[:, 0], tokens_to_map(blocks[-1][:, 1:], self.mask_grid), blocks)

    def forward_crop(self, images: Tensor) -> Tensor:
        """`forward_features` of any size of whole patches; the position table is resampled to it, as DINO does.

        Raises:
            UserError: the patches do not divide the crop.
        """
        size = tuple(images.shape[2:])
        if size == self.img_size:
            return self.forward_features(images)
        if any(side % self.mask_cell_px for side in size):
            raise UserError(
                f"crops of {size} pixels are not whole patches of {self.mask_cell_px}:"
                " choose another ssl.local_size, or encoder.patch_size",
                key="ssl.local_size",
            )
        grid = tuple(side // self.mask_cell_px for side in size)
        positions = table_at(self.pos_embed, self.table_grid, grid)
        x = self.patch_embed(self.patch_embed.patches(images)) + positions[:, 1:]
        return self._class_token(self.with_cls(x))

    def residual_blocks(self) -> list[nn.Module]:
        """All blocks."""
        return list(self.blocks)

    def adapt_weights(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """A fixed position table stays this encoder's own; a learnable one of another grid is resampled."""
        return with_own_table(weights, self.pos_embed, self.table_grid, prefix=1)

    def no_weight_decay(self) -> set[str]:
        """A learnable position table, as in timm; the class token is decayed, as by the authors."""
        return {"pos_embed"}

    def layer_ids(self) -> dict[str, int]:
        """MAE's rule: embedding and tables are layer 0, each block is one layer, the norm comes last."""
        return {name: self._layer_id(name) for name, _ in self.named_parameters()}

    def _layer_id(self, name: str) -> int:
        if name.startswith("blocks."):
            return int(name.split(".")[1]) + 1
        return 0 if name.startswith(("patch_embed.", "cls_token", "pos_embed")) else len(self.blocks) + 1
