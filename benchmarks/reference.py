"""The joint model in its plainest form: two whole encoder passes, as the MAE and timm families write it.

The baseline of `benchmarks.step`. It shares no code with `src` and holds the released checkpoint layout, so that
`ssat.training.authors_weights.to_official` fills it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PlainAttention(nn.Module):
    """softmax(QK^T)V written out, or PyTorch's fused kernel with `sdpa`."""

    def __init__(self, dim: int, num_heads: int, *, sdpa: bool) -> None:
        super().__init__()
        self.num_heads, self.sdpa = num_heads, sdpa
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        b, n, d = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.num_heads, d // self.num_heads).permute(2, 0, 3, 1, 4)
        if self.sdpa:
            mixed = F.scaled_dot_product_attention(q, k, v)
        else:
            mixed = ((q @ k.transpose(-2, -1)) * (d // self.num_heads) ** -0.5).softmax(dim=-1) @ v
        return self.proj(mixed.transpose(1, 2).reshape(b, n, d))


class PlainBlock(nn.Module):
    def __init__(self, dim: int, num_heads: int, *, mlp_ratio: float, sdpa: bool) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = PlainAttention(dim, num_heads, sdpa=sdpa)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = nn.ModuleDict(
            {"fc1": nn.Linear(dim, int(dim * mlp_ratio)), "fc2": nn.Linear(int(dim * mlp_ratio), dim)}
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp["fc2"](F.gelu(self.mlp["fc1"](self.norm2(x))))


class TwoPass(nn.Module):
    """Loss of one joint step (Eq. 1) from images (B, C, H, W), labels (B,) and mask noise (B, L)."""

    def __init__(
        self,
        img_size: int,
        patch_size: int,
        *,
        in_chans: int,
        dim: int,
        depth: int,
        num_heads: int,
        num_classes: int,
        decoder_dim: int,
        decoder_depth: int,
        decoder_heads: int,
        mask_ratio: float = 0.75,
        lam: float = 0.1,
        mlp_ratio: float = 4.0,
        sdpa: bool = False,
    ) -> None:
        super().__init__()
        length = (img_size // patch_size) ** 2
        self.patch_size, self.mask_ratio, self.lam = patch_size, mask_ratio, lam
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(in_chans, dim, patch_size, patch_size)})
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, length + 1, dim), requires_grad=False)
        self.blocks = nn.ModuleList(PlainBlock(dim, num_heads, mlp_ratio=mlp_ratio, sdpa=sdpa) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.head = nn.Linear(dim, num_classes)
        self.decoder_embed = nn.Linear(dim, decoder_dim)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, decoder_dim))
        self.decoder_pos_embed = nn.Parameter(torch.zeros(1, length + 1, decoder_dim), requires_grad=False)
        self.decoder_blocks = nn.ModuleList(
            PlainBlock(decoder_dim, decoder_heads, mlp_ratio=mlp_ratio, sdpa=sdpa) for _ in range(decoder_depth)
        )
        self.decoder_norm = nn.LayerNorm(decoder_dim, eps=1e-6)
        self.decoder_pred = nn.Linear(decoder_dim, patch_size**2 * in_chans)

    def embed(self, images: Tensor) -> Tensor:
        return self.patch_embed["proj"](images).flatten(2).transpose(1, 2) + self.pos_embed[:, 1:]

    def encode(self, tokens: Tensor) -> Tensor:
        cls = (self.cls_token + self.pos_embed[:, :1]).expand(len(tokens), -1, -1)
        x = torch.cat([cls, tokens], dim=1)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)

    def decode(self, latent: Tensor, restore: Tensor) -> Tensor:
        x = self.decoder_embed(latent)
        missing = self.mask_token.repeat(len(x), restore.shape[1] + 1 - x.shape[1], 1)
        tokens = torch.cat([x[:, 1:], missing.to(x.dtype)], dim=1)
        tokens = tokens.gather(1, restore.unsqueeze(-1).repeat(1, 1, x.shape[2]))
        x = torch.cat([x[:, :1], tokens], dim=1) + self.decoder_pos_embed
        for block in self.decoder_blocks:
            x = block(x)
        return self.decoder_pred(self.decoder_norm(x))[:, 1:]

    def patchify(self, images: Tensor) -> Tensor:
        b, c, h, w = images.shape
        p = self.patch_size
        cells = images.reshape(b, c, h // p, p, w // p, p)
        return torch.einsum("bcrpsq->brspqc", cells).reshape(b, -1, p * p * c)

    def forward(self, images: Tensor, labels: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(joint loss, reconstruction loss, logits)."""
        shuffle = noise.argsort(dim=1)
        restore = shuffle.argsort(dim=1)
        kept = int(noise.shape[1] * (1 - self.mask_ratio))
        hidden = torch.ones_like(noise)
        hidden[:, :kept] = 0
        hidden = hidden.gather(1, restore)
        tokens = self.embed(images)
        latent = self.encode(tokens.gather(1, shuffle[:, :kept].unsqueeze(-1).repeat(1, 1, tokens.shape[2])))
        logits = self.head(self.encode(self.embed(images))[:, 0])
        error = (self.decode(latent, restore) - self.patchify(images)).square().mean(dim=-1)
        reconstruction = (error * hidden).sum() / hidden.sum()
        classification = F.cross_entropy(logits, labels, label_smoothing=0.1)
        return self.lam * classification + (1 - self.lam) * reconstruction, reconstruction, logits
