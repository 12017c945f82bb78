"""The video transformer of VideoMAE (Tong et al. 2022), the backbone of the paper's section 5.4."""

from __future__ import annotations

import re

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssat.core.checkpoints import StateDict
from ssat.core.errors import UserError
from ssat.encoders.base import (
    Dense,
    Encoder,
    Latent,
    both_sides,
    gather_tokens,
    patch_grid,
    split_mask,
    tokens_to_map,
)
from ssat.encoders.layers import Attention, Block, init_linear, sincos_sequence, through


class VideoAttention(Attention):
    """Self-attention whose queries and values have a bias and whose keys have none.

    Args:
        dim: width D.
        num_heads: attention heads; divides `dim`.
    """

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__(dim, num_heads, qkv_bias=False)
        self.q_bias = nn.Parameter(torch.zeros(dim))
        self.v_bias = nn.Parameter(torch.zeros(dim))

    def bias(self) -> Tensor:
        """(3D,): the keys' part is 0."""
        return torch.cat([self.q_bias, torch.zeros_like(self.v_bias), self.v_bias])


class VideoBlock(Block):
    """The plain block with `VideoAttention`; encoder and decoder of VideoMAE are made of it.

    Args:
        dim: width D.
        num_heads: attention heads; divides `dim`.
        mlp_ratio: hidden width of the MLP over `dim`.
        drop_path: share of the samples for which a branch is dropped in training.
        norm_eps: epsilon of both LayerNorms.
    """

    def __init__(
        self, dim: int, num_heads: int, *, mlp_ratio: float = 4.0, drop_path: float = 0.0, norm_eps: float = 1e-6
    ) -> None:
        super().__init__(dim, num_heads, mlp_ratio=mlp_ratio, drop_path=drop_path, norm_eps=norm_eps)
        self.attn = VideoAttention(dim, num_heads)


class TubeletEmbed(nn.Module):
    """Linear embedding of tubelets; holds a convolution so that weights keep the field's layout.

    Args:
        tubelet_size: frames of a tubelet.
        patch_size: pixels of it per side.
        in_chans: channels C of the clips.
        embed_dim: width D.
    """

    def __init__(self, tubelet_size: int, patch_size: int, in_chans: int, embed_dim: int) -> None:
        super().__init__()
        self.size = (tubelet_size, patch_size, patch_size)
        self.proj = nn.Conv3d(in_chans, embed_dim, self.size, self.size)
        nn.init.xavier_uniform_(self.proj.weight.view(embed_dim, -1))

    def tubelets(self, clips: Tensor) -> Tensor:
        """(B, C, T, H, W) as raw tubelets (B, N, C * t * p * p), in the order of the convolution's weight."""
        t, p, _ = self.size
        cells = clips.unflatten(4, (-1, p)).unflatten(3, (-1, p)).unflatten(2, (-1, t))
        return cells.permute(0, 2, 4, 6, 1, 3, 5, 7).flatten(4).flatten(1, 3)

    def forward(self, tubelets: Tensor) -> Tensor:
        """Raw tubelets (..., C * t * p * p) to (..., D)."""
        return F.linear(tubelets, self.proj.weight.flatten(1), self.proj.bias)


class VideoTransformer(Encoder):
    """ViT on clips (B, C, T, H, W) with one token per tubelet and no class token; official VideoMAE parameter names.

    The features are the normalised mean of all tokens (`fc_norm`); the masked pass ends in a norm of its own (`norm`).
    `forward_map` gives (B, D, T / t, H / p, W / p).

    Args:
        frames: of a clip, T.
        img_size: pixels of a frame, a number or (height, width).
        patch_size: pixels of a tubelet per side, p; divides both.
        tubelet_size: frames of a tubelet, t; divides `frames`.
        in_chans: channels of the clips.
        embed_dim: width D.
        depth: number of blocks.
        num_heads: attention heads; divides `embed_dim`.
        mlp_ratio: hidden width of the MLP over `embed_dim`.
        drop_path: stochastic depth, rising linearly from 0 to this rate over the blocks.
        checkpoint_blocks: keep only the inputs of the blocks for the backward pass and compute the rest again: less
            memory, a third more time.
        norm_eps: epsilon of every LayerNorm.

    Raises:
        UserError: sizes that do not fit each other.
    """

    mask_style = "dropped"
    separate = True
    flat_tokens = True
    stem = "patch_embed.proj.weight"
    pos_embed: Tensor

    def __init__(
        self,
        frames: int = 16,
        img_size: int | tuple[int, int] = 224,
        patch_size: int = 16,
        *,
        tubelet_size: int = 2,
        in_chans: int = 3,
        embed_dim: int = 384,
        depth: int = 12,
        num_heads: int = 6,
        mlp_ratio: float = 4.0,
        drop_path: float = 0.0,
        checkpoint_blocks: bool = False,
        norm_eps: float = 1e-6,
    ) -> None:
        super().__init__()
        if tubelet_size < 1 or frames < tubelet_size or frames % tubelet_size:
            raise UserError(
                f"encoder.frames={frames} is not a multiple of encoder.tubelet_size={tubelet_size}: change one of them",
                key="encoder.frames",
                value=frames,
            )
        if depth < 1:
            raise UserError(f"encoder.depth={depth} is not at least 1", key="encoder.depth", value=depth)
        sides = both_sides(img_size)
        self.img_size = (frames, *sides)
        self.mask_grid, self.mask_cell_px = (frames // tubelet_size, *patch_grid(sides, patch_size)), patch_size
        self.in_chans, self.num_features, self.depth = in_chans, embed_dim, depth
        self.latent_dims, self.latent_scales = (embed_dim,), (patch_size,)
        self.checkpoint_blocks = checkpoint_blocks

        self.patch_embed = TubeletEmbed(tubelet_size, patch_size, in_chans, embed_dim)
        slots, rows, cols = self.mask_grid
        table = sincos_sequence(slots * rows * cols, embed_dim).unsqueeze(0)
        # It follows from the sizes, and published files do not hold it.
        self.register_buffer("pos_embed", table, persistent=False)
        self.blocks = nn.ModuleList(
            VideoBlock(
                embed_dim,
                num_heads,
                mlp_ratio=mlp_ratio,
                drop_path=drop_path * i / max(1, depth - 1),
                norm_eps=norm_eps,
            )
            for i in range(depth)
        )
        self.norm = nn.LayerNorm(embed_dim, eps=norm_eps)
        self.fc_norm = nn.LayerNorm(embed_dim, eps=norm_eps)
        self.apply(init_linear)

    def raw_tubelets(self, images: Tensor) -> Tensor:
        """(B, C, T, H, W) as (B, N, C * t * p * p).

        Raises:
            UserError: clips of another size or channel count than the encoder was built for.
        """
        self.check_images(images)
        return self.patch_embed.tubelets(images)

    def embed(self, images: Tensor) -> Tensor:
        """(B, C, T, H, W) to positioned tokens (B, N, D)."""
        return self.patch_embed(self.raw_tubelets(images)) + self.pos_embed

    def forward_features(self, images: Tensor) -> Tensor:
        """The mean of all tokens (B, D), normalised."""
        return self._pooled(self._last(self.embed(images)))

    def forward_tokens(self, images: Tensor) -> Tensor:
        """Features of each token (B, N, D): normalised by the scale of the mean token, which they all share."""
        tokens = self._last(self.embed(images))
        norm, mean = self.fc_norm, tokens.mean(1, keepdim=True)
        scale = (mean.var(2, unbiased=False, keepdim=True) + norm.eps).rsqrt()
        return (tokens - tokens.mean(2, keepdim=True)) * scale * norm.weight + norm.bias

    def forward_masked(self, images: Tensor, mask: Tensor, *, num_visible: int | None = None) -> Latent:
        """Only the visible tubelets are embedded and computed; they are gathered raw, which needs no gradient."""
        visible, _ = split_mask(mask, num_visible)
        positions = gather_tokens(self.pos_embed.expand(len(visible), -1, -1), visible)
        x = self.patch_embed(gather_tokens(self.raw_tubelets(images), visible)) + positions
        return self._latent(x)

    def forward_masked_plain(self, images: Tensor, mask: Tensor, *, num_visible: int | None = None) -> Latent:
        """As VideoMAE: every tubelet is embedded, then the hidden ones are dropped."""
        visible, _ = split_mask(mask, num_visible)
        return self._latent(gather_tokens(self.embed(images), visible))

    def forward_blocks(self, images: Tensor) -> list[Tensor]:
        """Tokens (B, N, D) after each block: slot by slot, each in raster order."""
        x = self.embed(images)
        return [x := self._through(block, x) for block in self.blocks]

    def forward_dense(self, images: Tensor) -> Dense:
        """Features, the last block's tokens as (B, D, T / t, H / p, W / p), and all tokens of each block."""
        blocks = self.forward_blocks(images)
        return Dense(self._pooled(blocks[-1]), tokens_to_map(blocks[-1], self.mask_grid), blocks)

    def _through(self, block: nn.Module, x: Tensor) -> Tensor:
        return through(block, x, checkpointed=self.checkpoint_blocks and self.training)

    def _last(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = self._through(block, x)
        return x

    def _pooled(self, x: Tensor) -> Tensor:
        return self.fc_norm(x.mean(1))

    def _latent(self, x: Tensor) -> Latent:
        return Latent(maps=[self.norm(self._last(x))], cls=None, visible_only=True)

    def residual_blocks(self) -> list[nn.Module]:
        """All blocks."""
        return list(self.blocks)

    def adapt_weights(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Of official files and of transformers' the encoder's part, under our names."""
        of_transformers = any(name.endswith("patch_embeddings.projection.weight") for name in weights)
        return from_transformers(weights) if of_transformers else weights

    def only_masked(self) -> set[str]:
        """The norm after the masked pass."""
        return {"norm.weight", "norm.bias"}

    def only_full(self) -> set[str]:
        """The norm of the mean token."""
        return {"fc_norm.weight", "fc_norm.bias"}

    def layer_ids(self) -> dict[str, int]:
        """As for the plain ViT: the embedding is layer 0, each block is one layer, the norms come last."""
        return {name: self._layer_id(name) for name, _ in self.named_parameters()}

    def _layer_id(self, name: str) -> int:
        if name.startswith("blocks."):
            return int(name.split(".")[1]) + 1
        return 0 if name.startswith("patch_embed.") else len(self.blocks) + 1


# transformers' names of VideoMAE's parts and the official ones; longer names first.
OFFICIAL = {
    "embeddings.patch_embeddings.projection.": "patch_embed.proj.",
    "encoder.layer.": "blocks.",
    "attention.attention.query.bias": "attn.q_bias",
    "attention.attention.value.bias": "attn.v_bias",
    "attention.attention.": "attn.",
    "attention.output.dense.": "attn.proj.",
    "intermediate.dense.": "mlp.fc1.",
    "output.dense.": "mlp.fc2.",
    "layernorm_before.": "norm1.",
    "layernorm_after.": "norm2.",
    "layernorm.": "norm.",
}
PARTS = ("query", "key", "value")


def from_transformers(weights: StateDict) -> StateDict:
    """The tensors of a VideoMAE checkpoint of the library transformers under official names.

    Queries, keys and values become one matrix. Its own classifier and decoder are left out.
    """
    ours: StateDict = {}
    for name, value in weights.items():
        name = name.removeprefix("videomae.")
        for theirs, official in OFFICIAL.items():
            name = name.replace(theirs, official)
        ours[name] = value
    for first in [name for name in ours if re.fullmatch(r"blocks\.\d+\.attn\.query\.weight", name)]:
        prefix = first.removesuffix("query.weight")
        if all(f"{prefix}{part}.weight" in ours for part in PARTS):
            ours[prefix + "qkv.weight"] = torch.cat([ours.pop(f"{prefix}{part}.weight") for part in PARTS])
    return ours
