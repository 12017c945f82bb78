"""CvT (Wu et al. 2021, the official architecture), with a pass that sees the visible cells of an image only."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssat.core.errors import UserError
from ssat.encoders.base import Dense, Encoder, Latent, both_sides, gather_tokens, split_mask
from ssat.encoders.layers import Mlp, QuickGELU, drop_path, only_visible, through, up

EPS = 1e-5


def on_grid(tokens: Tensor, grid: tuple[int, int], ids: Tensor | None) -> Tensor:
    """Tokens (B, N, D) of the whole grid, or of its positions `ids` (B, N), as a map (B, D, *grid), 0 elsewhere."""
    if ids is not None:
        whole = tokens.new_zeros(tokens.shape[0], grid[0] * grid[1], tokens.shape[2])
        tokens = whole.scatter(1, ids.unsqueeze(2).expand(-1, -1, tokens.shape[2]), tokens)
    return tokens.transpose(1, 2).unflatten(2, grid)


class MaskedBatchNorm(nn.BatchNorm2d):
    """Batch normalisation; of a partly visible map by the statistics of its visible positions.

    The running statistics belong to full images: a masked map neither changes them nor is normalised by them, also in
    evaluation.
    """

    def forward(self, x: Tensor, visible: Tensor | None = None) -> Tensor:
        """(B, C, H, W), and which positions count (B, 1, H, W) as 0 and 1."""
        if visible is None:
            return super().forward(x)
        values, where = (part.to(torch.promote_types(x.dtype, torch.float32)) for part in (x, visible))
        count = where.sum()
        mean = (values * where).sum((0, 2, 3), keepdim=True) / count
        variance = ((values - mean).square() * where).sum((0, 2, 3), keepdim=True) / count
        weight, bias = self.weight.view(-1, 1, 1), self.bias.view(-1, 1, 1)
        return (((values - mean) * (variance + self.eps).rsqrt() * weight + bias) * where).to(x.dtype)


class ConvProjection(nn.Module):
    """Depthwise convolution, batch norm and a linear layer: the query, key or value of a block."""

    def __init__(self, dim: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(dim, dim, 3, stride, 1, groups=dim, bias=False)
        self.bn = MaskedBatchNorm(dim, eps=EPS)
        self.linear = nn.Linear(dim, dim)

    def forward(self, x: Tensor, cls: Tensor | None, visible: Tensor | None, ids: Tensor | None = None) -> Tensor:
        """Map (B, D, h, w) and class token (B, 1, D) to tokens (B, [1 +] N, D), of the positions `ids` (B, N) alone."""
        tokens = self.bn(self.conv(x), visible).flatten(2).transpose(1, 2)
        if ids is not None:
            tokens = gather_tokens(tokens, ids)
        return self.linear(tokens if cls is None else torch.cat([cls, tokens], 1))


class ConvAttention(nn.Module):
    """Self-attention with convolutional projections; keys and values on a grid of half the side."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads, self.scale = num_heads, dim**-0.5  # of the width, not of a head's, as the official code
        self.q, self.k, self.v = ConvProjection(dim, 1), ConvProjection(dim, 2), ConvProjection(dim, 2)
        self.proj = nn.Linear(dim, dim)

    def heads(self, x: Tensor) -> Tensor:
        """(B, N, D) as (B, H, N, D / H)."""
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)

    def forward(self, x: Tensor, cls: Tensor | None, visible: Tensor | None, ids: Tensor | None = None) -> Tensor:
        """Tokens (B, [1 +] h * w, D) of a map (B, D, h, w); `visible` (B, 1, h, w) is 0 where nothing may be seen.

        With `ids` (B, V) only those positions ask and are answered.
        """
        seen, keys = None, None
        if visible is not None:
            x = x * visible
            # A key is visible when its 3 x 3 window has seen a visible position.
            seen = F.max_pool2d(visible, 3, 2, 1)
            keys = seen.flatten(1).bool()
            if cls is not None:
                keys = torch.cat([keys.new_ones(len(keys), 1), keys], 1)
            keys = keys[:, None, None]
        q, k, v = self.q(x, cls, visible, ids), self.k(x, cls, seen), self.v(x, cls, seen)
        mixed = self._attend(self.heads(q), self.heads(k), self.heads(v), keys)
        return self.proj(mixed.transpose(1, 2).flatten(2))

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, keys: Tensor | None) -> Tensor:
        if q.device.type != "cpu" or q.dtype in (torch.float32, torch.float64):
            return F.scaled_dot_product_attention(q, k, v, attn_mask=keys, scale=self.scale)
        with torch.autocast("cpu", enabled=False):
            q, k, v = q.float(), k.float(), v.float()
            return F.scaled_dot_product_attention(q, k, v, attn_mask=keys, scale=self.scale)


class ConvBlock(nn.Module):
    """Pre-norm block of a stage."""

    def __init__(self, dim: int, num_heads: int, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=EPS)
        self.attn = ConvAttention(dim, num_heads)
        self.norm2 = nn.LayerNorm(dim, eps=EPS)
        self.mlp = Mlp(dim, 4 * dim, QuickGELU())
        self.drop_path_rate = drop_path

    def forward(
        self, x: Tensor, grid: tuple[int, int], visible: Tensor | None, ids: Tensor | None, *, cls: bool
    ) -> Tensor:
        """Tokens (B, [1 +] N, D): a class token if `cls`, then those of the grid, or of its positions `ids` (B, N)."""
        normed = self.norm1(x)
        image = on_grid(normed[:, int(cls) :], grid, ids)
        x = x + self._drop_path(self.attn(image, normed[:, :1] if cls else None, visible, ids))
        return x + self._drop_path(self.mlp(self.norm2(x)))

    def _drop_path(self, branch: Tensor) -> Tensor:
        return drop_path(branch, self.drop_path_rate) if self.training else branch


class Stage(nn.Module):
    """Overlapping convolutional embedding, blocks, and in the last stage a class token."""

    def __init__(
        self,
        in_dim: int,
        dim: int,
        depth: int,
        num_heads: int,
        *,
        kernel: int,
        stride: int,
        pad: int,
        drop_path: float,
        cls: bool,
        checkpoint_blocks: bool,
    ) -> None:
        super().__init__()
        self.checkpoint_blocks = checkpoint_blocks
        self.embed = nn.Conv2d(in_dim, dim, kernel, stride, pad)
        self.norm = nn.LayerNorm(dim, eps=EPS)
        self.cls_token = nn.Parameter(torch.empty(1, 1, dim)) if cls else None
        self.blocks = nn.ModuleList(ConvBlock(dim, num_heads, drop_path * i / max(1, depth - 1)) for i in range(depth))

    def forward(
        self, x: Tensor, cells: Tensor | None, *, ids: Tensor | None = None, each: list[Tensor] | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """(B, C, H, W) to the stage's map (B, D, h, w) and class token (B, 1, D); `cells` (B, 1, g, g) are visible.

        With their positions `ids` (B, V) in the stage's own grid the blocks compute the visible tokens alone. Each
        block's tokens are appended to `each`.
        """
        x = self.embed(only_visible(x, cells))
        grid = (x.shape[2], x.shape[3])
        visible = None if cells is None else up(cells, grid)
        x = self.norm(x.flatten(2).transpose(1, 2))
        if ids is not None:
            x = gather_tokens(x, ids)
        cls = self.cls_token is not None
        if self.cls_token is not None:
            # len(x) would be a constant in a graph of torch.export.
            x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], 1)
        for block in self.blocks:
            x = through(block, x, grid, visible, ids, cls=cls, checkpointed=self.checkpoint_blocks and self.training)
            if each is not None:
                each.append(x)
        return on_grid(x[:, int(cls) :], grid, ids), x[:, :1] if cls else None


class ConvolutionalVisionTransformer(Encoder):
    """CvT with three stages and a class token in the last; CvT-13 by default.

    The masked pass is ConvMAE's idea carried over to overlapping convolutions: whatever is spatial sees visible cells
    only (images and maps are multiplied by the mask before each convolution, batch norms use the visible positions'
    statistics, attention skips keys that have seen nothing), and whatever is pointwise is left alone.

    Args:
        img_size: pixels, a number or (height, width); a multiple of the product of the strides.
        in_chans: channels of the images.
        strides: of the three embeddings; 4, 2, 2 in the official network, 1, 2, 2 for small images.
        dims: widths of the three stages.
        depths: blocks of the three stages.
        num_heads: attention heads of the three stages.
        drop_path: stochastic depth of the last stage, rising linearly from 0.
        checkpoint_blocks: keep only the inputs of the blocks for the backward pass and compute the rest again.

    Raises:
        UserError: the strides do not divide the image, or leave a mask of one cell.
    """

    mask_style = "zeroed"
    stem = "stages.0.embed.weight"

    def __init__(
        self,
        img_size: int | tuple[int, int] = 224,
        *,
        in_chans: int = 3,
        strides: tuple[int, int, int] = (4, 2, 2),
        dims: tuple[int, int, int] = (64, 192, 384),
        depths: tuple[int, int, int] = (1, 2, 10),
        num_heads: tuple[int, int, int] = (1, 3, 6),
        drop_path: float = 0.1,
        checkpoint_blocks: bool = False,
    ) -> None:
        super().__init__()
        size = both_sides(img_size)
        total = strides[0] * strides[1] * strides[2]
        side = next((side for side in size if side % total), None)
        if side is not None:
            below = max(total, side // total * total)
            reason = f"img_size={side} is not a multiple of {total}, the product of encoder.strides={list(strides)}"
            cure = f"use data.img_size={below} or {below + total}, or other strides"
            raise UserError(f"{reason}: {cure}", key="data.img_size", value=side)
        self.img_size, self.in_chans = size, in_chans
        self.mask_grid, self.mask_cell_px = (size[0] // total, size[1] // total), total
        if self.mask_grid[0] * self.mask_grid[1] < 2:
            reason = f"img_size={size[0]} gives a mask grid of one cell with encoder.strides={list(strides)}"
            cure = f"use data.img_size={2 * total} or more, or smaller strides"
            raise UserError(f"{reason}: {cure}", key="data.img_size", value=size[0])
        self.num_features, self.depth = dims[-1], sum(depths)
        self.latent_dims = tuple(dims)
        self.latent_scales = (strides[0], strides[0] * strides[1], total)
        kernels, pads = (7, 3, 3), (2 if strides[0] == 4 else 3, 1, 1)
        widths = (in_chans, *dims)
        self.stages = nn.ModuleList(
            Stage(
                widths[i],
                dims[i],
                depths[i],
                num_heads[i],
                kernel=kernels[i],
                stride=strides[i],
                pad=pads[i],
                drop_path=drop_path if i == 2 else 0.0,
                cls=i == 2,
                checkpoint_blocks=checkpoint_blocks,
            )
            for i in range(3)
        )
        self.norm = nn.LayerNorm(dims[-1], eps=EPS)
        self.apply(_init)

    def maps(
        self, images: Tensor, cells: Tensor | None, *, ids: Tensor | None = None, each: list[Tensor] | None = None
    ) -> tuple[list[Tensor], Tensor]:
        """The three stages' maps and the last one's class token (B, 1, D); `ids` (B, V) for the last stage."""
        maps, cls, x = [], None, images
        for stage in self.stages:
            x, cls = stage(x, cells, ids=ids if stage is self.stages[-1] else None, each=each)
            maps.append(x)
        assert cls is not None
        return maps, cls

    def forward_features(self, images: Tensor) -> Tensor:
        """The normalised class token (B, D)."""
        self.check_images(images)
        _, cls = self.maps(images, None)
        return self.norm(cls)[:, 0]

    def forward_dense(self, images: Tensor) -> Dense:
        """Class token, the last stage's map, and the tokens of each block of all stages, in one pass."""
        self.check_images(images)
        blocks: list[Tensor] = []
        maps, cls = self.maps(images, None, each=blocks)
        return Dense(self.norm(cls)[:, 0], maps[-1], blocks)

    def forward_crop(self, images: Tensor) -> Tensor:
        """`forward_features` of any size that the strides divide: CvT has no position table.

        Raises:
            UserError: the strides do not divide the crop.
        """
        if any(side % self.mask_cell_px for side in images.shape[2:]):
            reason = (
                f"crops of {tuple(images.shape[2:])} pixels are not a multiple of {self.mask_cell_px}, the product of"
            )
            cure = "choose another ssl.local_size, smaller strides, or ssl.local_views=0"
            raise UserError(f"{reason} encoder.strides: {cure}", key="ssl.local_size")
        return self.norm(self.maps(images, None)[1])[:, 0]

    def forward_masked(self, images: Tensor, mask: Tensor, *, num_visible: int | None = None) -> Latent:
        """The three stages' maps, 0 at hidden cells; the last stage computes the visible positions alone."""
        self.check_images(images)
        visible, _ = split_mask(mask, num_visible)
        return self._latent(images, mask, visible)

    def forward_masked_plain(self, images: Tensor, mask: Tensor, *, num_visible: int | None = None) -> Latent:
        """The same with every position computed and the hidden ones set to 0."""
        return self._latent(images, mask, None)

    def _latent(self, images: Tensor, mask: Tensor, ids: Tensor | None) -> Latent:
        cells = (~mask).view(len(mask), 1, *self.mask_grid).to(images.dtype)
        maps, cls = self.maps(images, cells, ids=ids)
        shown = [only_visible(image, cells) for image in maps]
        return Latent(maps=shown, cls=cls[:, 0], visible_only=False)

    def forward_map(self, images: Tensor) -> Tensor:
        """The last stage's map (B, D, rows, cols)."""
        return self.maps(images, None)[0][-1]

    def forward_blocks(self, images: Tensor) -> list[Tensor]:
        """Tokens (B, N, D) after each block; those of the last stage begin with the class token."""
        return self.forward_dense(images).blocks

    def image_tokens(self, tokens: Tensor) -> Tensor:
        """Only the last stage, whose grid is the mask's, has a class token."""
        return tokens[:, int(tokens.shape[1] == self.mask_grid[0] * self.mask_grid[1] + 1) :]

    def residual_blocks(self) -> list[nn.Module]:
        """The blocks of all stages."""
        return [module for module in self.modules() if isinstance(module, ConvBlock)]

    def no_weight_decay(self) -> set[str]:
        """The class token, as the official code has it."""
        return {"stages.2.cls_token"}

    def only_full(self) -> set[str]:
        """The norm of the class token, which a decoder does not read."""
        return {"norm.weight", "norm.bias"}

    def layer_ids(self) -> dict[str, int]:
        """ConvMAE's rule: both first stages and the last embedding are layer 0; each block of the last stage is one."""
        return {name: self._layer_id(name) for name, _ in self.named_parameters()}

    def _layer_id(self, name: str) -> int:
        if name.startswith("stages.2.blocks."):
            return int(name.split(".")[3]) + 1
        return 0 if name.startswith("stages.") else len(self.stages[2].blocks) + 1  # type: ignore[arg-type]


def _init(module: nn.Module) -> None:
    """The official initialisation; convolutions keep PyTorch's."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
    elif isinstance(module, Stage) and module.cls_token is not None:
        nn.init.trunc_normal_(module.cls_token, std=0.02)
