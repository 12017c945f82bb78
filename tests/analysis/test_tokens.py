"""Distances and variances of tokens against closed forms."""

from __future__ import annotations

import math

import pytest
import torch

from ssat.analysis.tokens import (
    blocks_of,
    channel_variance,
    distance_in_space,
    distance_in_time,
    mean_distance,
    mean_norm,
    of_image,
    residual_stages,
    stage_names,
)
from ssat.core.errors import UserError
from ssat.encoders.layers import sincos_table
from tests.encoders.cases import build, images_for

PLAIN = ["vit", "vit-learnable", "vit-rectangular-grey", "sl-vit", "timm", "timm-registers-average"]
OTHERS = ["cvt", "swin", "swin-padded-merging", "mixer"]


def test_identical_tokens_have_no_distance() -> None:
    assert mean_distance(torch.randn(2, 1, 8).expand(2, 50, 8)).tolist() == [0.0, 0.0]


def test_one_hot_tokens_are_the_square_root_of_two_apart() -> None:
    assert mean_distance(torch.eye(16).unsqueeze(0)).item() == pytest.approx(1.41421, abs=1e-5)


def test_tokens_that_change_over_time_alone_are_apart_in_time_alone() -> None:
    moving = torch.eye(4).unsqueeze(1).expand(4, 9, 4).reshape(1, 36, 4)  # a token of its own for each slot
    assert distance_in_space(moving, 4).item() == 0
    assert distance_in_time(moving, 4).item() == pytest.approx(math.sqrt(2))
    still = torch.eye(9).repeat(4, 1).unsqueeze(0)  # and for each patch
    assert distance_in_space(still, 4).item() == pytest.approx(math.sqrt(2))
    assert distance_in_time(still, 4).item() == 0


def test_distances_in_space_and_in_time_are_means_over_all_such_pairs() -> None:
    tokens = torch.randn(2, 3, 4, 5)  # clips, slots, patches
    pairs = torch.cdist(tokens.flatten(1, 2), tokens.flatten(1, 2)).view(2, 3, 4, 3, 4)
    space = [pairs[:, t, a, t, b] for t in range(3) for a in range(4) for b in range(a)]
    time = [pairs[:, s, a, t, a] for a in range(4) for s in range(3) for t in range(s)]
    flat = tokens.flatten(1, 2)
    torch.testing.assert_close(distance_in_space(flat, 3), torch.stack(space).mean(0), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(distance_in_time(flat, 3), torch.stack(time).mean(0), atol=1e-4, rtol=1e-4)


def test_normal_tokens_of_width_192_are_19_570_deviations_apart() -> None:
    expected = 2 * math.exp(math.lgamma(96.5) - math.lgamma(96))  # mean of a chi distribution times sqrt(2)
    assert expected == pytest.approx(19.570, abs=1e-3)
    assert mean_distance(3 * torch.randn(2, 400, 192)).mean().item() == pytest.approx(3 * expected, rel=5e-3)


@pytest.mark.parametrize(("side", "distance", "variance"), [(16, 6.241, 0.1061), (14, 6.014, 0.0990)])
def test_the_position_table_alone_has_the_known_distance_and_variance(
    side: int, distance: float, variance: float
) -> None:
    table = sincos_table(192, (side, side)).unsqueeze(0)
    assert mean_distance(table).item() == pytest.approx(distance, abs=1e-3)
    assert channel_variance(table).item() == pytest.approx(variance, abs=1e-4)


def test_distance_is_the_mean_over_unordered_pairs() -> None:
    tokens = torch.randn(3, 7, 5, dtype=torch.float64)
    pairs = [(tokens[:, i] - tokens[:, j]).norm(dim=1) for i in range(7) for j in range(i)]
    torch.testing.assert_close(mean_distance(tokens).double(), torch.stack(pairs).mean(0), atol=1e-5, rtol=1e-5)


def test_variance_of_normal_tokens_is_theirs_and_of_a_constant_map_zero() -> None:
    tokens = 2 * torch.randn(4, 500, 64)
    assert channel_variance(tokens).mean().item() == pytest.approx(4, rel=0.01)
    assert channel_variance(tokens[:, :1].expand(-1, 500, -1)).abs().max().item() < 1e-10


def test_the_order_of_tokens_does_not_matter() -> None:
    tokens = torch.randn(2, 40, 12)
    shuffled = tokens[:, torch.randperm(40)]
    torch.testing.assert_close(channel_variance(shuffled), channel_variance(tokens))
    torch.testing.assert_close(mean_distance(shuffled), mean_distance(tokens))


def test_distance_over_length_does_not_see_the_scale() -> None:
    tokens = torch.randn(2, 30, 12)
    relative = mean_distance(tokens) / mean_norm(tokens)
    torch.testing.assert_close(mean_distance(9 * tokens) / mean_norm(9 * tokens), relative)


@pytest.mark.parametrize("case", PLAIN + OTHERS)
def test_stages_are_the_embedding_and_two_points_a_block(case: str) -> None:
    encoder = build(case)
    images = images_for(encoder)
    with torch.no_grad():
        stages, outputs = residual_stages(encoder, images), encoder.forward_blocks(images)
    assert len(stages) == 2 * len(outputs) + 1 == len(stage_names(len(outputs)))
    for stage, output in zip(stages[2::2], outputs, strict=True):
        torch.testing.assert_close(stage, output)


@pytest.mark.parametrize("case", PLAIN)
def test_attention_and_mlp_lie_between_the_stages(case: str) -> None:
    encoder = build(case)
    with torch.no_grad():
        embedded, attended, after = residual_stages(encoder, images_for(encoder))[:3]
        block = blocks_of(encoder)[0]
        scale1, scale2 = (getattr(block, name, torch.nn.Identity()) for name in ("ls1", "ls2"))
        torch.testing.assert_close(attended, embedded + scale1(block.attn(block.norm1(embedded))))
        torch.testing.assert_close(after, attended + scale2(block.mlp(block.norm2(attended))))


@pytest.mark.parametrize("case", PLAIN + OTHERS)
def test_only_the_tokens_of_the_image_are_compared(case: str) -> None:
    encoder = build(case)
    with torch.no_grad():
        last = of_image(encoder, residual_stages(encoder, images_for(encoder))[-1])
        final = encoder.forward_dense(images_for(encoder)).map
    assert last.shape[1] == final.shape[2] * final.shape[3]


def test_an_encoder_without_transformer_blocks_is_refused() -> None:
    with pytest.raises(UserError, match="^needs pre-norm residual blocks .*, and this is a ResNet"):
        blocks_of(build("resnet"))
