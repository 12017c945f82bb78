"""CCT (Hassani et al. 2021), a small ViT with a convolutional tokenizer, with a pass over the visible cells only."""

from __future__ import annotations

import re
from typing import get_args

import torch.nn.functional as F
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
    split_mask,
    tokens_to_map,
)
from ssat.encoders.layers import (
    Attention,
    Mlp,
    drop_path,
    only_visible,
    sincos_sequence,
    table_at,
    through,
    with_own_table,
)
from ssat.encoders.vit import PosEmbed

PLANES = 64  # channels between two convolutions
OFFICIAL = (  # names of the authors' files, and ours
    (r"^tokenizer\.conv_layers\.(\d+)\.0\.", r"tokenizer.convs.\1."),
    (r"^classifier\.", ""),
    (r"^positional_emb$", "pos_embed"),
    (r"^attention_pool\.", "pool."),
    (r"\.self_attn\.", ".attn."),
    (r"\.linear([12])\.", r".mlp.fc\1."),
)


class ConvTokenizer(nn.Module):
    """Convolutions with ReLU, each followed by max pooling over 3 x 3 with stride 2; a position is a token.

    Args:
        in_chans: channels of the images.
        embed_dim: width D of the tokens.
        kernel: pixels per side of a convolution, odd; from 7 on it moves by 2, from 9 on by 3 pixels.
        convs: number of convolutions.
    """

    def __init__(self, in_chans: int, embed_dim: int, *, kernel: int, convs: int) -> None:
        super().__init__()
        stride = max(1, kernel // 2 - 1)
        widths = [in_chans, *[PLANES] * (convs - 1), embed_dim]
        self.scale = (2 * stride) ** convs  # pixels per token
        self.convs = nn.ModuleList(
            nn.Conv2d(width, after, kernel, stride, kernel // 2, bias=False)
            for width, after in zip(widths[:-1], widths[1:], strict=True)
        )
        for conv in self.convs:
            nn.init.kaiming_normal_(conv.weight)  # type: ignore[arg-type]

    def forward(self, images: Tensor, visible: Tensor | None = None) -> Tensor:
        """(B, C, H, W) to tokens (B, rows * cols, D).

        Hidden places of `visible` (B, 1, rows, cols) are 0 before and after every convolution: no hidden pixel is seen,
        and no response of a hidden place, as in a sparse convolution (Velez-Garcia et al. 2025, SCOTT).
        """
        x = images
        for conv in self.convs:
            x = F.relu(conv(only_visible(x, visible)))
            x = F.max_pool2d(only_visible(x, visible), 3, 2, 1)
        return x.flatten(2).transpose(1, 2)


class DroppingAttention(Attention):
    """Self-attention whose weights are dropped out in training.

    Args:
        dim: width D.
        num_heads: attention heads; divides `dim`.
        dropout: share of the weights.
    """

    def __init__(self, dim: int, num_heads: int, *, dropout: float) -> None:
        super().__init__(dim, num_heads, qkv_bias=False)
        self.dropout = dropout

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """(B, H, Q, d)."""
        if not (self.training and self.dropout):
            return super().attend(q, k, v)
        return F.scaled_dot_product_attention(q, k, v, dropout_p=self.dropout)


class CompactBlock(nn.Module):
    """x = norm1(x + attention(pre_norm(x))), then x + mlp(x): the authors normalise the sum itself between both.

    Args:
        dim: width D.
        num_heads: attention heads; divides `dim`.
        mlp_ratio: hidden width of the MLP over `dim`.
        attn_drop: dropout of the attention weights.
        drop_path: stochastic depth.
    """

    def __init__(self, dim: int, num_heads: int, *, mlp_ratio: float, attn_drop: float, drop_path: float) -> None:
        super().__init__()
        self.pre_norm, self.norm1 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attn = DroppingAttention(dim, num_heads, dropout=attn_drop)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))
        self.drop_path_rate = drop_path

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, D) to (B, N, D)."""
        rate = self.drop_path_rate if self.training else 0.0
        x = self.norm1(x + drop_path(self.attn(self.pre_norm(x)), rate))
        return x + drop_path(self.mlp(x), rate)


class CompactTransformer(Encoder):
    """CCT: a convolutional tokenizer, no class token, and features that weigh the tokens (sequence pooling).

    CCT-7/3x1 by default: 3,760,139 parameters with ten classes at 32 pixels, those of the paper.

    Args:
        img_size: pixels, a number or (height, width); whole tokens.
        in_chans: channels of the images.
        embed_dim: width D.
        depth: number of blocks.
        num_heads: attention heads; divides `embed_dim`.
        mlp_ratio: hidden width of the MLP over `embed_dim`.
        kernel: of the tokenizer's convolutions, odd and at least 3.
        convs: of the tokenizer.
        attn_drop: dropout of the attention weights.
        drop_path: stochastic depth, rising linearly from 0 to this rate over the blocks.
        pos_embed: 'learnable', or 'sincos', the authors' fixed table over the tokens in raster order.
        checkpoint_blocks: keep only the inputs of the blocks for the backward pass and compute the rest again.

    Raises:
        UserError: sizes that do not fit each other.
    """

    mask_style = "dropped"
    separate = True
    flat_tokens = True
    patch_dropout = 0.0
    stem = "tokenizer.convs.0.weight"

    def __init__(
        self,
        img_size: int | tuple[int, int] = 32,
        *,
        in_chans: int = 3,
        embed_dim: int = 256,
        depth: int = 7,
        num_heads: int = 4,
        mlp_ratio: float = 2.0,
        kernel: int = 3,
        convs: int = 1,
        attn_drop: float = 0.1,
        drop_path: float = 0.1,
        pos_embed: PosEmbed = "learnable",
        checkpoint_blocks: bool = False,
    ) -> None:
        super().__init__()
        check_choice("encoder.pos_embed", pos_embed, get_args(PosEmbed))
        for name, value, least in (("depth", depth, 1), ("convs", convs, 1), ("kernel", kernel, 3)):
            if value < least:
                raise UserError(f"encoder.{name}={value} is not at least {least}", key=f"encoder.{name}", value=value)
        if kernel % 2 == 0:
            raise UserError(
                f"encoder.kernel={kernel} is even: cct's convolutions have a middle, e.g. 3 or 7",
                key="encoder.kernel",
                value=kernel,
            )
        self.img_size, self.in_chans, self.num_features, self.depth = both_sides(img_size), in_chans, embed_dim, depth
        self.checkpoint_blocks = checkpoint_blocks
        self.tokenizer = ConvTokenizer(in_chans, embed_dim, kernel=kernel, convs=convs)
        self.mask_cell_px = self.tokenizer.scale
        self.latent_dims, self.latent_scales = (embed_dim,), (self.mask_cell_px,)
        self.mask_grid = self.table_grid = self._grid(self.img_size, "data.img_size")
        length = self.mask_grid[0] * self.mask_grid[1]
        table = sincos_sequence(length, embed_dim).unsqueeze(0)
        self.pos_embed = nn.Parameter(table, requires_grad=pos_embed == "learnable")
        if pos_embed == "learnable":
            nn.init.trunc_normal_(self.pos_embed, std=0.2)
        self.blocks = nn.ModuleList(
            CompactBlock(
                embed_dim,
                num_heads,
                mlp_ratio=mlp_ratio,
                attn_drop=attn_drop,
                drop_path=drop_path * i / max(1, depth - 1),
            )
            for i in range(depth)
        )
        self.norm = nn.LayerNorm(embed_dim)
        self.pool = nn.Linear(embed_dim, 1)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def _grid(self, size: tuple[int, ...], key: str) -> tuple[int, int]:
        cell = self.mask_cell_px
        if cell > max(size):
            raise UserError(
                f"encoder.kernel and encoder.convs make tokens of {cell:,} pixels, more than the {max(size)} of the"
                " image: set fewer convolutions, or a smaller kernel",
                key="encoder.convs",
            )
        for side in size:
            if side < cell or side % cell:
                below = max(cell, side // cell * cell)
                raise UserError(
                    f"{key}: {side} pixels are not whole tokens of {cell}, which encoder.kernel and encoder.convs make:"
                    f" use {below} or {below + cell}, or other convolutions",
                    key=key,
                    value=side,
                )
        return size[0] // cell, size[1] // cell

    def positions(self) -> Tensor:
        """`pos_embed` (1, N, D) for images of the present size."""
        return table_at(self.pos_embed, self.table_grid, self.mask_grid, prefix=0)

    def resize(self, img_size: tuple[int, int]) -> None:
        """Take images of another size of whole tokens; the position table is resampled to it."""
        self.mask_grid, self.img_size = self._grid(img_size, "recipe.sizes"), img_size

    def embed(self, images: Tensor) -> Tensor:
        """(B, C, H, W) to positioned tokens (B, N, D); in training without those of patch dropout."""
        self.check_images(images)
        x = self.tokenizer(images) + self.positions()
        if not (self.training and self.patch_dropout):
            return x
        return gather_tokens(x, kept_patches(len(x), x.shape[1], self.patch_dropout, x.device))

    def _through(self, x: Tensor) -> list[Tensor]:
        outputs = []
        for block in self.blocks:
            x = through(block, x, checkpointed=self.checkpoint_blocks and self.training)
            outputs.append(x)
        return outputs

    def _weighed(self, x: Tensor) -> Tensor:
        """Normalised tokens (B, N, D), each times its share of the features, which are their sum."""
        return self.pool(x).softmax(dim=1) * x

    def forward_features(self, images: Tensor) -> Tensor:
        """Sequence pooling of the normalised tokens: (B, D)."""
        return self._weighed(self.norm(self._through(self.embed(images))[-1])).sum(1)

    def forward_tokens(self, images: Tensor) -> Tensor:
        """(B, N, D): what each token adds to the features, times their number."""
        x = self._weighed(self.norm(self._through(self.embed(images))[-1]))
        return x * x.shape[1]

    def forward_masked(self, images: Tensor, mask: Tensor, *, num_visible: int | None = None) -> Latent:
        """The convolutions see visible cells alone, and the blocks their tokens alone."""
        self.check_images(images)
        visible, _ = split_mask(mask, num_visible)
        shown = (~mask).view(len(mask), 1, *self.mask_grid).to(images.dtype)
        x = gather_tokens(self.tokenizer(images, shown) + self.positions(), visible)
        return Latent(maps=[self.norm(self._through(x)[-1])], cls=None, visible_only=True)

    def forward_blocks(self, images: Tensor) -> list[Tensor]:
        """Tokens (B, N, D) after each block."""
        return self._through(self.embed(images))

    def forward_map(self, images: Tensor) -> Tensor:
        """Normalised tokens as a map (B, D, rows, cols)."""
        return tokens_to_map(self.norm(self.forward_blocks(images)[-1]), self.mask_grid)

    def forward_dense(self, images: Tensor) -> Dense:
        """Features, the last block's tokens as a map, and all tokens of each block, in one pass."""
        blocks = self.forward_blocks(images)
        return Dense(self._weighed(self.norm(blocks[-1])).sum(1), tokens_to_map(blocks[-1], self.mask_grid), blocks)

    def forward_crop(self, images: Tensor) -> Tensor:
        """`forward_features` of any size of whole tokens; the position table is resampled to it.

        Raises:
            UserError: the tokens do not divide the crop.
        """
        if tuple(images.shape[2:]) == self.img_size:
            return self.forward_features(images)
        grid = self._grid(tuple(images.shape[2:]), "ssl.local_size")
        x = self._through(self.tokenizer(images) + table_at(self.pos_embed, self.table_grid, grid, prefix=0))[-1]
        return self._weighed(self.norm(x)).sum(1)

    def evidence_layer(self) -> nn.Module:
        """The last norm: every token has its share of the features."""
        return self.norm

    def adapt_weights(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """The authors' tensors under our names; a learnable table of another grid is resampled, a fixed one stays."""
        for theirs, ours in OFFICIAL:
            weights = {re.sub(theirs, ours, name): value for name, value in weights.items()}
        return with_own_table(weights, self.pos_embed, self.table_grid, prefix=0)

    def only_full(self) -> set[str]:
        """The weights of the sequence pooling."""
        return {"pool.weight", "pool.bias"}

    def layer_ids(self) -> dict[str, int]:
        """Tokenizer and table are layer 0, each block is one layer, norm and pooling come last."""
        return {name: self._layer_id(name) for name, _ in self.named_parameters()}

    def _layer_id(self, name: str) -> int:
        if name.startswith("blocks."):
            return int(name.split(".")[1]) + 1
        return 0 if name.startswith(("tokenizer.", "pos_embed")) else self.depth + 1
