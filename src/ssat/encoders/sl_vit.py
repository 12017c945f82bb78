"""SL-ViT (Lee et al. 2021): shifted patches and locality self-attention in a plain ViT."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssat.core.errors import UserError
from ssat.encoders.layers import Attention, PatchEmbed
from ssat.encoders.vit import PosEmbed, VisionTransformer


class ShiftedPatchEmbed(nn.Module):
    """Shifted patch tokenisation (SPT): patches of the image and of its four diagonal shifts by half a patch.

    A patch then holds pixels of its neighbours (`patches_disjoint` is False). The masked pass therefore sets hidden
    pixels to 0 before the shifts, so that a visible patch sees nothing of a hidden one.

    Args:
        patch_size: pixels per side, even.
        in_chans: channels C of the images.
        embed_dim: width D.
        norm_eps: epsilon of the LayerNorm over a raw patch.
    """

    patches_disjoint = False

    def __init__(self, patch_size: int, in_chans: int, embed_dim: int, *, norm_eps: float = 1e-5) -> None:
        super().__init__()
        self.patch_size = patch_size
        width = 5 * in_chans * patch_size**2
        self.norm = nn.LayerNorm(width, eps=norm_eps)
        self.proj = nn.Linear(width, embed_dim)

    def patches(self, images: Tensor) -> Tensor:
        """(B, C, H, W) as raw patches (B, N, 5 * C * p * p) of the image and its shifts."""
        shift = self.patch_size // 2
        height, width = images.shape[2:]
        padded = F.pad(images, (shift,) * 4)
        corners = [(top, left) for top in (0, 2 * shift) for left in (0, 2 * shift)]
        shifted = [padded[:, :, top : top + height, left : left + width] for top, left in corners]
        return PatchEmbed.cut(torch.cat([images, *shifted], 1), self.patch_size)

    def forward(self, patches: Tensor) -> Tensor:
        """Raw patches (..., 5 * C * p * p) to (..., D)."""
        return self.proj(self.norm(patches))


class LocalAttention(Attention):
    """Locality self-attention (LSA): a learnable temperature per head, and no token attends to itself."""

    def __init__(self, dim: int, num_heads: int, *, qkv_bias: bool = False) -> None:
        super().__init__(dim, num_heads, qkv_bias=qkv_bias)
        self.scale = nn.Parameter(torch.full((num_heads,), (dim // num_heads) ** -0.5))

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """(B, H, Q, d): the queries are the first of the keys' tokens, so a token itself is on the diagonal."""
        others = ~torch.eye(q.shape[2], k.shape[2], dtype=torch.bool, device=q.device)
        with torch.autocast(q.device.type, enabled=q.device.type != "cpu"):
            # A CPU's bf16 kernel is slower than its fp32 one; and the temperature is kept in fp32.
            q, k, v = (x.float() if q.device.type == "cpu" else x for x in (q, k, v))
            q = q * self.scale.view(-1, 1, 1).to(q.dtype)
            return F.scaled_dot_product_attention(q, k, v, attn_mask=others, scale=1.0)


def sl_vit(
    img_size: int | tuple[int, int] = 32,
    patch_size: int = 4,
    *,
    in_chans: int = 3,
    embed_dim: int = 192,
    depth: int = 9,
    num_heads: int = 12,
    mlp_ratio: float = 2.0,
    drop_path: float = 0.1,
    pos_embed: PosEmbed = "learnable",
    norm_eps: float = 1e-5,
    checkpoint_blocks: bool = False,
) -> VisionTransformer:
    """The ViT of Lee et al. (2021) with SPT and LSA; its numbers by default, 2,729,878 parameters with ten classes.

    As theirs: linear layers without a query, key and value bias, Xavier-normal weights, class token and learnable
    table from N(0, 1), the same drop path in every block. The arguments are those of `VisionTransformer`.

    Raises:
        UserError: an odd patch size, which has no half; sizes that do not fit each other.
    """
    if patch_size % 2:
        raise UserError(
            f"encoder.patch_size={patch_size} is odd: sl_vit shifts the image by half a patch",
            key="encoder.patch_size",
            value=patch_size,
        )
    encoder = VisionTransformer(
        img_size,
        patch_size,
        in_chans=in_chans,
        embed_dim=embed_dim,
        depth=depth,
        num_heads=num_heads,
        mlp_ratio=mlp_ratio,
        qkv_bias=False,
        pos_embed=pos_embed,
        norm_eps=norm_eps,
        checkpoint_blocks=checkpoint_blocks,
    )
    encoder.patch_embed = ShiftedPatchEmbed(patch_size, in_chans, embed_dim, norm_eps=norm_eps)
    for block in encoder.blocks:
        block.attn = LocalAttention(embed_dim, num_heads)
        block.drop_path_rate = drop_path  # type: ignore[assignment]
    for module in encoder.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_normal_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for table in (encoder.cls_token, encoder.pos_embed):
        if table.requires_grad:
            nn.init.normal_(table)
    return encoder
