"""SL-ViT against its published sizes and a slow formula of its own."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssat.core.errors import UserError
from ssat.encoders.sl_vit import sl_vit
from ssat.encoders.vit import VisionTransformer
from ssat.runs.footprint import trainable
from ssat.tasks.masking import random_mask
from tests.encoders.cases import build, images_for


@pytest.mark.parametrize(("classes", "parameters"), [(10, 2_729_878), (100, 2_747_248)])
def test_parameters_are_the_published_ones(classes: int, parameters: int) -> None:
    assert trainable(sl_vit(32)) + trainable(nn.Linear(192, classes)) == parameters


def test_weights_start_as_the_authors_do() -> None:
    torch.manual_seed(0)
    encoder = sl_vit(32)
    assert float(encoder.pos_embed.detach().std()) == pytest.approx(1, abs=0.05)
    assert float(encoder.cls_token.detach().std()) == pytest.approx(1, abs=0.15)
    qkv = encoder.blocks[0].attn.qkv
    assert qkv.bias is None
    assert float(qkv.weight.std()) == pytest.approx(math.sqrt(2 / (192 + 576)), rel=0.02)
    assert torch.equal(encoder.blocks[3].attn.scale, torch.full((12,), 0.25))
    assert [block.drop_path_rate for block in encoder.blocks] == [0.1] * 9


def slow_patches(image: Tensor, p: int) -> Tensor:
    """Shifted patches (N, 5 * C * p * p) of one image (C, H, W), pixel by pixel."""
    channels, height, width = image.shape
    half, rows = p // 2, []
    for top in range(0, height, p):
        for left in range(0, width, p):
            values = []
            for down, right in ((0, 0), (-half, -half), (-half, half), (half, -half), (half, half)):
                for c in range(channels):
                    for y in range(top + down, top + down + p):
                        for x in range(left + right, left + right + p):
                            inside = 0 <= y < height and 0 <= x < width
                            values.append(float(image[c, y, x]) if inside else 0.0)
            rows.append(values)
    return torch.tensor(rows)


def slow_tokens(encoder: VisionTransformer, patches: Tensor, positions: Tensor) -> Tensor:
    """All blocks on one image's patches (N, K) at `positions`, head by head, softmax as written in the paper."""
    embed = encoder.patch_embed
    normed = F.layer_norm(patches, patches.shape[1:], embed.norm.weight, embed.norm.bias, 1e-5)
    x = normed @ embed.proj.weight.T + embed.proj.bias + encoder.pos_embed[0, 1:][positions]
    x = torch.cat([encoder.cls_token[0] + encoder.pos_embed[0, :1], x])
    for block in encoder.blocks:
        h = F.layer_norm(x, x.shape[1:], block.norm1.weight, block.norm1.bias, 1e-5)
        q, k, v = (h @ block.attn.qkv.weight.T).chunk(3, dim=1)
        heads = []
        for head in range(block.attn.num_heads):
            size = q.shape[1] // block.attn.num_heads
            part = slice(head * size, (head + 1) * size)
            scores = (q[:, part] @ k[:, part].T) * block.attn.scale[head]
            scores[range(len(x)), range(len(x))] = -987654321.0
            heads.append(scores.softmax(1) @ v[:, part])
        x = x + torch.cat(heads, 1) @ block.attn.proj.weight.T + block.attn.proj.bias
        h = F.layer_norm(x, x.shape[1:], block.norm2.weight, block.norm2.bias, 1e-5)
        h = F.gelu(h @ block.mlp.fc1.weight.T + block.mlp.fc1.bias)
        x = x + h @ block.mlp.fc2.weight.T + block.mlp.fc2.bias
    return F.layer_norm(x, x.shape[1:], encoder.norm.weight, encoder.norm.bias, 1e-5)


@torch.no_grad()
@pytest.mark.parametrize("case", ["sl-vit", "sl-vit-rectangular-grey"])
def test_full_pass_equals_the_slow_formula(case: str) -> None:
    encoder = build(case)
    images = images_for(encoder)
    features = encoder.forward_features(images)
    for image, got in zip(images, features, strict=True):
        patches = slow_patches(image, encoder.mask_cell_px)
        expected = slow_tokens(encoder, patches, torch.arange(len(patches)))[0]
        assert (got - expected).abs().max() < 1e-5


@torch.no_grad()
def test_masked_pass_equals_the_slow_formula_on_an_image_without_hidden_pixels() -> None:
    encoder = build("sl-vit")
    images, mask = images_for(encoder), random_mask(3, encoder.mask_grid, 0.6)
    latent = encoder.forward_masked(images, mask)
    for i, (image, hidden) in enumerate(zip(images, mask, strict=True)):
        shown = (~hidden).view(encoder.mask_grid).repeat_interleave(4, 0).repeat_interleave(4, 1)
        visible = (~hidden).nonzero()[:, 0]
        expected = slow_tokens(encoder, slow_patches(image * shown, 4)[visible], visible)
        assert (torch.cat([latent.cls[i : i + 1], latent.maps[0][i]]) - expected).abs().max() < 1e-5


def test_an_odd_patch_is_refused() -> None:
    with pytest.raises(UserError, match=r"encoder.patch_size=7 is odd"):
        sl_vit(28, 7)
