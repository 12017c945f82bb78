"""CCT against a slow formula of its own; its published sizes are in tests/training/test_encoder_configs.py."""

from __future__ import annotations

import math
import re

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ssat.core.errors import UserError
from ssat.encoders.cct import CompactTransformer
from tests.encoders.cases import build, hidden_pixels, images_for, mask_for


def slow_tokens(encoder: CompactTransformer, image: Tensor, shown: Tensor) -> Tensor:
    """Tokens (N, D) of one image (C, H, W), position by position; `shown` (rows, cols) is 0 at hidden cells."""
    x = image
    for conv in encoder.tokenizer.convs:
        width, move = conv.weight.shape[-1], conv.stride[0]
        padded, before = F.pad(x * grown(shown, x), (width // 2,) * 4), x.shape[1:]
        x = torch.zeros(len(conv.weight), *(-(-side // move) for side in before))
        for row in range(x.shape[1]):
            for col in range(x.shape[2]):
                window = padded[:, row * move : row * move + width, col * move : col * move + width]
                x[:, row, col] = (conv.weight * window).sum((1, 2, 3)).clamp_min(0)
        padded = F.pad(x * grown(shown, x), (1,) * 4)
        pooled = torch.zeros(len(x), x.shape[1] // 2, x.shape[2] // 2)
        for row in range(pooled.shape[1]):
            for col in range(pooled.shape[2]):
                pooled[:, row, col] = padded[:, 2 * row : 2 * row + 3, 2 * col : 2 * col + 3].amax((1, 2))
        x = pooled
    return x.flatten(1).T + encoder.pos_embed[0]


def grown(shown: Tensor, x: Tensor) -> Tensor:
    return shown.repeat_interleave(x.shape[1] // len(shown), 0).repeat_interleave(x.shape[2] // shown.shape[1], 1)


def slow_blocks(encoder: CompactTransformer, x: Tensor) -> Tensor:
    """Normalised tokens (N, D) behind all blocks, head by head."""

    def normed(x: Tensor, norm: torch.nn.LayerNorm) -> Tensor:
        return (x - x.mean(1, keepdim=True)) / (
            x.var(1, unbiased=False, keepdim=True) + 1e-5
        ).sqrt() * norm.weight + norm.bias

    for block in encoder.blocks:
        q, k, v = (normed(x, block.pre_norm) @ block.attn.qkv.weight.T).chunk(3, 1)
        size, heads = q.shape[1] // block.attn.num_heads, []
        for head in range(block.attn.num_heads):
            part = slice(head * size, (head + 1) * size)
            heads.append((q[:, part] @ k[:, part].T / math.sqrt(size)).softmax(1) @ v[:, part])
        x = normed(x + torch.cat(heads, 1) @ block.attn.proj.weight.T + block.attn.proj.bias, block.norm1)
        hidden = F.gelu(x @ block.mlp.fc1.weight.T + block.mlp.fc1.bias)
        x = x + hidden @ block.mlp.fc2.weight.T + block.mlp.fc2.bias
    return normed(x, encoder.norm)


CASES = ["cct", "cct-one-convolution", "cct-rectangular-grey"]


@torch.no_grad()
@pytest.mark.parametrize("case", CASES)
def test_full_pass_equals_the_slow_formula(case: str) -> None:
    encoder = build(case)
    images = images_for(encoder)
    for image, got in zip(images, encoder.forward_features(images), strict=True):
        tokens = slow_blocks(encoder, slow_tokens(encoder, image, torch.ones(encoder.mask_grid)))
        shares = (tokens @ encoder.pool.weight[0] + encoder.pool.bias).softmax(0)
        assert (got - shares @ tokens).abs().max() < 1e-5


@torch.no_grad()
@pytest.mark.parametrize("case", CASES)
def test_masked_pass_equals_the_slow_formula_on_the_visible_cells(case: str) -> None:
    encoder = build(case)
    images, mask = images_for(encoder), mask_for(encoder)
    (tokens,) = encoder.forward_masked(images, mask).maps
    for image, hidden, got in zip(images, mask, tokens, strict=True):
        whole = slow_tokens(encoder, image, (~hidden).view(encoder.mask_grid).float())
        assert (got - slow_blocks(encoder, whole[~hidden])).abs().max() < 1e-5


@torch.no_grad()
def test_a_hidden_place_answers_nothing_even_beside_visible_ones() -> None:
    encoder = build("cct")
    images, mask = images_for(encoder), mask_for(encoder)
    shown = (~hidden_pixels(encoder, mask)).float()
    once = encoder.tokenizer(images * shown)  # pixels hidden, but not the places behind a convolution
    apart = (once - encoder.tokenizer(images, (~mask).view(3, 1, *encoder.mask_grid).float()))[~mask]
    assert apart.abs().max() > 1e-3


@torch.no_grad()
def test_tokens_average_to_the_features() -> None:
    encoder = build("cct")
    images = images_for(encoder)
    assert torch.allclose(encoder.forward_tokens(images).mean(1), encoder(images), atol=1e-6)


def test_training_drops_attention_and_evaluation_does_not() -> None:
    torch.manual_seed(0)
    encoder = CompactTransformer(8, embed_dim=16, depth=1, num_heads=2, attn_drop=0.5, drop_path=0.0)
    images = images_for(encoder)
    assert torch.equal(encoder.eval()(images), encoder(images))
    assert not torch.equal(encoder.train()(images), encoder(images))


def test_weights_start_as_the_authors_do() -> None:
    torch.manual_seed(0)
    encoder = CompactTransformer()
    assert float(encoder.pos_embed.detach().std()) == pytest.approx(0.2, rel=0.05)
    conv = encoder.tokenizer.convs[0].weight
    assert float(conv.detach().std()) == pytest.approx(math.sqrt(2 / 27), rel=0.05)  # He's rule for 3 x 3 x 3 inputs
    assert float(encoder.blocks[0].attn.qkv.weight.detach().std()) == pytest.approx(0.02, rel=0.02)
    assert encoder.blocks[0].attn.qkv.bias is None
    assert [block.drop_path_rate for block in encoder.blocks] == pytest.approx([0.1 * i / 6 for i in range(7)])


def test_files_of_the_authors_are_read_under_their_names() -> None:
    encoder = build("cct")
    ours = {name: value + 1 for name, value in encoder.state_dict().items()}
    names = {
        r"^tokenizer\.convs\.(\d)\.": r"tokenizer.conv_layers.\1.0.",
        r"\.attn\.": ".self_attn.",
        r"\.mlp\.fc(\d)\.": r".linear\1.",
        r"^pool\.": "attention_pool.",
        r"^pos_embed$": "positional_emb",
        r"^(?!tokenizer)": "classifier.",
    }
    theirs = {}
    for name, value in ours.items():
        for pattern, name_there in names.items():
            name = re.sub(pattern, name_there, name)
        theirs[name] = value
    assert {"classifier.blocks.1.self_attn.qkv.weight", "tokenizer.conv_layers.1.0.weight"} <= theirs.keys()
    found = encoder.adapt_weights(theirs)
    assert found.keys() == ours.keys() and all(torch.equal(found[name], ours[name]) for name in ours)


def test_a_table_of_another_grid_is_resampled_and_a_fixed_one_stays() -> None:
    learnable, fixed = build("cct"), build("cct-one-convolution")
    other = {"pos_embed": torch.randn(1, 64, 24)}
    assert learnable.adapt_weights(other)["pos_embed"].shape == learnable.pos_embed.shape
    table = fixed.adapt_weights({"pos_embed": torch.randn(1, 64, 24)})["pos_embed"]
    assert torch.equal(table, fixed.pos_embed)


@pytest.mark.parametrize("shape", [(1, 12, 24), (64, 24), (1, 3, 24), (1, 64, 12)])
@pytest.mark.parametrize("case", ["cct", "vit-learnable"])
def test_a_table_that_cannot_be_resampled_is_left_to_be_refused_with_its_shape(case: str, shape: tuple) -> None:
    given = torch.randn(shape)
    assert build(case).adapt_weights({"pos_embed": given})["pos_embed"] is given


def test_other_sizes_are_trained_on_with_a_resampled_table() -> None:
    encoder = build("cct")
    encoder.resize((24, 24))
    assert encoder.mask_grid == (6, 6)
    assert encoder(torch.randn(2, 3, 24, 24)).shape == (2, 24)
    with pytest.raises(UserError, match=r"recipe\.sizes: 18 pixels are not whole tokens of 4.*use 16 or 20"):
        encoder.resize((18, 18))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"img_size": 30, "convs": 2}, r"data\.img_size: 30 pixels are not whole tokens of 4, .*use 28 or 32"),
        ({"convs": 9}, r"tokens of 512 pixels, more than the 32 of the image: set fewer convolutions"),
        ({"kernel": 4}, r"encoder\.kernel=4 is even"),
        ({"kernel": 1}, r"encoder\.kernel=1 is not at least 3"),
        ({"convs": 0}, r"encoder\.convs=0 is not at least 1"),
        ({"depth": 0}, r"encoder\.depth=0 is not at least 1"),
        ({"num_heads": 5}, "256 is not divisible by num_heads=5"),
        ({"pos_embed": "rope"}, r"encoder\.pos_embed"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(options: dict, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        CompactTransformer(**options)
