"""The plain vision transformer, with one packed pass over the full and the masked view."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn

from src.encoders.base import Dense, Encoder, Latent, gather_tokens, split_mask
from src.errors import UserError


def sincos_table(dim: int, grid: tuple[int, int]) -> Tensor:
    """Fixed 2-D sine-cosine table (rows * cols, dim), row-major.

    The first half of the channels encodes the column, the second the row; each half is dim/4 sines, then dim/4 cosines
    of position * 10000^(-i / (dim/4)) (He et al. 2022).
    """
    if dim % 4:
        raise UserError(f"a sine-cosine position table needs a width divisible by 4, not {dim}")
    omega = 10000.0 ** (-torch.arange(dim // 4, dtype=torch.float64) / (dim / 4))
    rows, cols = torch.meshgrid(*(torch.arange(side, dtype=torch.float64) for side in grid), indexing="ij")

    def encode(position: Tensor) -> Tensor:
        angles = position.reshape(-1, 1) * omega
        return torch.cat([angles.sin(), angles.cos()], dim=1)

    return torch.cat([encode(cols), encode(rows)], dim=1).float()


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Scaled dot-product attention of (B, H, N, d); in fp32 on a CPU, whose bf16 kernel is slower than its fp32 one."""
    if q.device.type != "cpu" or q.dtype == torch.float32:
        return F.scaled_dot_product_attention(q, k, v)
    with torch.autocast("cpu", enabled=False):
        return F.scaled_dot_product_attention(q.float(), k.float(), v.float()).to(q.dtype)


class Attention(nn.Module):
    """Multi-head self-attention."""

    def __init__(self, dim: int, num_heads: int, *, qkv_bias: bool = True) -> None:
        super().__init__()
        if dim % num_heads:
            raise UserError(f"width {dim} is not divisible by num_heads={num_heads}")
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)

    def heads(self, x: Tensor) -> Tensor:
        """(B, N, D) as (B, H, N, D / H)."""
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention of heads: (B, H, Q, d)."""
        return attend(q, k, v)

    def mix(self, qkv: Tensor) -> Tensor:
        """Attention of projected tokens (B, N, 3D), before the output projection: (B, N, D)."""
        q, k, v = (self.heads(part) for part in qkv.chunk(3, dim=-1))
        return self.attend(q, k, v).transpose(1, 2).flatten(2)

    def forward(self, x: Tensor, queries: int | None = None) -> Tensor:
        """(B, N, D) to (B, N, D), or to (B, queries, D): only the first `queries` tokens ask."""
        if queries is None:
            return self.proj(self.mix(self.qkv(x)))
        dim = x.shape[-1]
        bias = self.qkv.bias
        q = F.linear(x[:, :queries], self.qkv.weight[:dim], None if bias is None else bias[:dim])
        k, v = F.linear(x, self.qkv.weight[dim:], None if bias is None else bias[dim:]).chunk(2, dim=-1)
        return self.proj(self.attend(self.heads(q), self.heads(k), self.heads(v)).transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    def __init__(self, dim: int, hidden: int, activation: nn.Module | None = None) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.activation = activation or nn.GELU()
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.activation(self.fc1(x)))


def drop_samples(branch: Tensor, rate: float) -> Tensor:
    """`branch` (B, ...) with whole samples dropped at random and the others scaled up (stochastic depth)."""
    if rate == 0.0:
        return branch
    kept = torch.rand(len(branch), *[1] * (branch.ndim - 1), device=branch.device) >= rate
    return branch * kept.to(branch.dtype) / (1 - rate)


class Block(nn.Module):
    """Pre-norm transformer block with stochastic depth."""

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        drop_path: float = 0.0,
        norm_eps: float = 1e-6,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=norm_eps)
        self.attn = Attention(dim, num_heads, qkv_bias=qkv_bias)
        self.norm2 = nn.LayerNorm(dim, eps=norm_eps)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))
        self.drop_path = drop_path

    def kept(self, branch: Tensor, samples: list[tuple[int, int]]) -> Tensor:
        """`branch` (T, D) or (B, N, D) with whole samples dropped; `samples` lists its views as (samples, tokens)."""
        if not self.training or self.drop_path == 0.0:
            return branch
        keep = 1 - self.drop_path
        draws = [
            (torch.rand(count, 1, device=branch.device) < keep).expand(count, tokens).reshape(-1)
            for count, tokens in samples
        ]
        return branch * (torch.cat(draws).to(branch.dtype) / keep).view(*branch.shape[:-1], 1)

    def forward(self, x: Tensor, queries: int | None = None) -> Tensor:
        """(B, N, D) to (B, N, D), or to (B, queries, D): the other tokens are then keys and values only."""
        branch = self.attn(self.norm1(x), queries)
        x = x if queries is None else x[:, :queries]
        samples = [(x.shape[0], x.shape[1])]
        x = x + self.kept(branch, samples)
        return x + self.kept(self.mlp(self.norm2(x)), samples)

    def forward_packed(self, x: Tensor, samples: list[tuple[int, int]]) -> Tensor:
        """The same on several views in one flat (T, D): linear layers see all tokens, attention each view apart."""
        qkv = self.attn.qkv(self.norm1(x))
        views = qkv.split([count * tokens for count, tokens in samples])
        mixed = [
            self.attn.mix(view.view(count, tokens, -1)).flatten(0, 1)
            for view, (count, tokens) in zip(views, samples, strict=True)
        ]
        x = x + self.kept(self.attn.proj(torch.cat(mixed)), samples)
        return x + self.kept(self.mlp(self.norm2(x)), samples)


def init_linear(module: nn.Module) -> None:
    """Xavier-uniform weights and zero biases, the authors' and MAE's initialisation (qkv as one matrix)."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


class PatchEmbed(nn.Module):
    """Linear embedding of patches; holds a convolution so that weights keep the field's layout."""

    own_pixels = True  # a patch holds no pixel of another

    def __init__(self, patch_size: int, in_chans: int, embed_dim: int) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.proj = nn.Conv2d(in_chans, embed_dim, patch_size, patch_size)
        nn.init.xavier_uniform_(self.proj.weight.view(embed_dim, -1))

    @staticmethod
    def cut(images: Tensor, patch_size: int) -> Tensor:
        """(B, C, H, W) as raw patches (B, N, C * p * p), channels first, the order the convolution's weight has."""
        b, c, h, w = images.shape
        p = patch_size
        return images.view(b, c, h // p, p, w // p, p).permute(0, 2, 4, 1, 3, 5).reshape(b, -1, c * p * p)

    def patches(self, images: Tensor) -> Tensor:
        """`cut` to this module's patches."""
        return self.cut(images, self.patch_size)

    def forward(self, patches: Tensor) -> Tensor:
        """Raw patches (..., C * p * p) to (..., D)."""
        return F.linear(patches, self.proj.weight.flatten(1), self.proj.bias)


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

    Raises:
        UserError: sizes that do not fit each other.
    """

    hidden = "dropped"
    stem = "patch_embed.proj.weight"
    num_prefix = 1

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
        pos_embed: str = "sincos",
        norm_eps: float = 1e-6,
    ) -> None:
        super().__init__()
        height, width = (img_size, img_size) if isinstance(img_size, int) else img_size
        self.img_size = (height, width)
        for side in self.img_size:
            if patch_size < 1 or side < patch_size or side % patch_size:
                below = max(patch_size, side // patch_size * patch_size)
                raise UserError(
                    f"img_size={side} is not a multiple of patch_size={patch_size}: "
                    f"use data.img_size={below} or {below + patch_size}, or another encoder.patch_size"
                )
        if pos_embed not in ("sincos", "learnable"):
            raise UserError(f"encoder.pos_embed={pos_embed!r} is not one of sincos, learnable")
        if depth < 1:
            raise UserError(f"encoder.depth={depth} is not at least 1")
        grid = (height // patch_size, width // patch_size)
        self.mask_grid, self.unit_px = grid, patch_size
        self.in_chans, self.num_features = in_chans, embed_dim
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
        if mask is not None and not self.patch_embed.own_pixels:
            shown = (~mask).view(len(mask), 1, *self.mask_grid).to(images.dtype)
            images = images * shown.repeat_interleave(self.unit_px, 2).repeat_interleave(self.unit_px, 3)
        return self.patch_embed.patches(images)

    def with_cls(self, tokens: Tensor) -> Tensor:
        """Puts the class token before positioned patch tokens: (B, N, D) to (B, 1 + N, D)."""
        cls = (self.cls_token + self.pos_embed[:, :1]).expand(tokens.shape[0], -1, -1)
        return torch.cat([cls.to(tokens.dtype), tokens], dim=1)

    def embed(self, images: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, C, H, W) to positioned tokens (B, 1 + N, D)."""
        return self.with_cls(self.patch_embed(self.raw_patches(images, mask)) + self.pos_embed[:, 1:])

    def forward_features(self, images: Tensor) -> Tensor:
        x = self.embed(images)
        for block in self.blocks[:-1]:
            x = block(x)
        # The classifier reads the class token alone, so the last block answers only its query.
        return self.norm(self.blocks[-1](x, queries=1))[:, 0]

    def forward_masked(self, images: Tensor, mask: Tensor, *, num_visible: int | None = None) -> Latent:
        visible, _ = split_mask(mask, num_visible)
        x = self.with_cls(self.embed_visible(self.raw_patches(images, mask), visible))
        for block in self.blocks:
            x = block(x)
        return self.latent(x)

    def forward_masked_plain(self, images: Tensor, mask: Tensor) -> Latent:
        """As MAE writes it: embed every patch, then drop the hidden ones."""
        visible, _ = split_mask(mask)
        x = self.embed(images, mask)
        x = torch.cat([x[:, :1], gather_tokens(x[:, 1:], visible)], dim=1)
        for block in self.blocks:
            x = block(x)
        return self.latent(x)

    def embed_visible(self, patches: Tensor, visible: Tensor) -> Tensor:
        """Positioned tokens (B, V, D) of the visible patches; gathered raw, so the gather needs no gradient."""
        positions = gather_tokens(self.pos_embed[:, 1:].expand(len(visible), -1, -1), visible)
        return self.patch_embed(gather_tokens(patches, visible)) + positions

    def latent(self, x: Tensor) -> Latent:
        x = self.norm(x)
        return Latent(maps=[x[:, 1:]], cls=x[:, 0], visible_only=True)

    def forward_joint(self, images: Tensor, mask: Tensor, *, num_visible: int | None = None) -> tuple[Tensor, Latent]:
        """Both views packed into one flat tensor; the numbers of the two plain passes."""
        visible, _ = split_mask(mask, num_visible)
        patches = self.raw_patches(images)
        full = self.with_cls(self.patch_embed(patches) + self.pos_embed[:, 1:])
        own = patches if self.patch_embed.own_pixels else self.raw_patches(images, mask)
        masked = self.with_cls(self.embed_visible(own, visible))
        samples = [full.shape[:2], masked.shape[:2]]
        x = torch.cat([full.flatten(0, 1), masked.flatten(0, 1)])
        for block in self.blocks[:-1]:
            x = block.forward_packed(x, samples)  # type: ignore[operator]
        full, masked = (
            view.view(*shape, -1) for view, shape in zip(x.split([b * n for b, n in samples]), samples, strict=True)
        )
        features = self.norm(self.blocks[-1](full, queries=1))[:, 0]
        return features, self.latent(self.blocks[-1](masked))

    def forward_blocks(self, images: Tensor) -> list[Tensor]:
        x = self.embed(images)
        outputs = []
        for block in self.blocks:
            x = block(x)
            outputs.append(x)
        return outputs

    def forward_map(self, images: Tensor) -> Tensor:
        tokens = self.norm(self.forward_blocks(images)[-1])[:, 1:]
        return tokens.transpose(1, 2).unflatten(2, self.mask_grid)

    def forward_dense(self, images: Tensor) -> Dense:
        blocks = self.forward_blocks(images)
        final = blocks[-1][:, 1:].transpose(1, 2).unflatten(2, self.mask_grid)
        return Dense(self.norm(blocks[-1][:, :1])[:, 0], final, blocks)

    def forward_crop(self, images: Tensor) -> Tensor:
        """The position table is resampled to the crop's grid, also a fixed one (as DINO's local views have it)."""
        size = tuple(images.shape[2:])
        if size == self.img_size:
            return self.forward_features(images)
        if any(side % self.unit_px for side in size):
            raise UserError(
                f"crops of {size} pixels are not whole patches of {self.unit_px}:"
                " choose another ssl.local_size, or encoder.patch_size"
            )
        grid = [side // self.unit_px for side in size]
        positions = resample_abs_pos_embed(self.pos_embed, new_size=grid, old_size=list(self.mask_grid))
        x = self.patch_embed(self.patch_embed.patches(images)) + positions[:, 1:]
        x = self.with_cls(x)
        for block in self.blocks[:-1]:
            x = block(x)
        return self.norm(self.blocks[-1](x, queries=1))[:, 0]

    def adapt_weights(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        own, given = self.pos_embed, weights.get("pos_embed")
        if given is None or given.shape == own.shape or given.shape[-1] != own.shape[-1]:
            return weights
        if not own.requires_grad:
            return weights | {"pos_embed": own.detach()}  # a fixed table follows from the image size
        return weights | {"pos_embed": resample_abs_pos_embed(given, new_size=list(self.mask_grid))}

    def no_weight_decay(self) -> set[str]:
        # The authors decay the class token; a learnable table is exempt as in timm.
        return {"pos_embed"}

    def layer_ids(self) -> dict[str, int]:
        return {name: self._layer_id(name) for name, _ in self.named_parameters()}

    def _layer_id(self, name: str) -> int:
        if name.startswith("blocks."):
            return int(name.split(".")[1]) + 1
        return 0 if name.startswith(("patch_embed.", "cls_token", "pos_embed")) else len(self.blocks) + 1
