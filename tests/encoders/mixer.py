"""MLP-Mixer (Tolstikhin et al. 2021): what somebody adds who reads docs/extend.md."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ssat.encoders.base import Encoder, Latent, both_sides, split_mask, tokens_to_map
from ssat.encoders.layers import Mlp


class MixerBlock(nn.Module):
    """An MLP over the tokens, then one over the channels."""

    def __init__(self, tokens: int, dim: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.token_mlp, self.channel_mlp = Mlp(tokens, 2 * tokens), Mlp(dim, 4 * dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, D) to (B, N, D)."""
        x = x + self.token_mlp(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        return x + self.channel_mlp(self.norm2(x))


class Mixer(Encoder):
    """Patches are embedded one by one; in the masked pass a mask token stands for the hidden ones."""

    mask_style = "replaced"
    flat_tokens = True

    def __init__(
        self,
        img_size: int | tuple[int, int] = 32,
        patch_size: int = 4,
        *,
        in_chans: int = 3,
        embed_dim: int = 192,
        depth: int = 8,
    ) -> None:
        super().__init__()
        self.img_size, self.in_chans, self.num_features, self.depth = both_sides(img_size), in_chans, embed_dim, depth
        self.mask_grid = (self.img_size[0] // patch_size, self.img_size[1] // patch_size)
        self.mask_cell_px = patch_size
        self.latent_dims, self.latent_scales = (embed_dim,), (patch_size,)
        self.embed = nn.Conv2d(in_chans, embed_dim, patch_size, patch_size)
        self.mask_token = nn.Parameter(torch.zeros(embed_dim))
        tokens = self.mask_grid[0] * self.mask_grid[1]
        self.blocks = nn.ModuleList(MixerBlock(tokens, embed_dim) for _ in range(depth))
        self.norm = nn.LayerNorm(embed_dim)

    def forward_blocks(self, images: Tensor, mask: Tensor | None = None) -> list[Tensor]:
        self.check_images(images)
        x = self.embed(images).flatten(2).transpose(1, 2)
        if mask is not None:
            x = torch.where(mask.unsqueeze(2), self.mask_token.to(x.dtype), x)
        outputs = []
        for block in self.blocks:
            x = block(x)
            outputs.append(x)
        return outputs

    def forward_features(self, images: Tensor) -> Tensor:
        return self.norm(self.forward_blocks(images)[-1]).mean(1)

    def forward_masked(self, images: Tensor, mask: Tensor, *, num_visible: int | None = None) -> Latent:
        split_mask(mask, num_visible)  # refuses rows that hide different numbers of cells
        tokens = self.norm(self.forward_blocks(images, mask)[-1])
        return Latent([tokens_to_map(tokens, self.mask_grid)], cls=None, visible_only=False)

    def residual_blocks(self) -> list[nn.Module]:
        return list(self.blocks)

    def only_masked(self) -> set[str]:
        return {"mask_token"}
