"""Attention weights: known answers, and equality with what the networks compute themselves."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from ssat.analysis.attention import (
    attention_blocks,
    class_token_attention,
    describe,
    each_attention,
    entropy,
    histogram,
    in_slots_and_patches,
    keep_mass,
    open_attention,
    places,
    received,
    rollout,
    upsample,
)
from ssat.core.errors import UserError
from tests.encoders.cases import build, images_for

PLAIN = ["vit", "vit-learnable", "vit-rectangular-grey", "sl-vit", "timm", "timm-registers-average"]
OF_CLIPS = ["videomae", "videomae-rectangular-grey"]
N = 257


def test_uniform_attention_gives_each_token_one_and_the_largest_entropy() -> None:
    profile = received(torch.full((2, 3, N, N), 1 / N))
    torch.testing.assert_close(profile, torch.ones(2, N))
    assert entropy(profile)[0].item() == pytest.approx(math.log(N)) == pytest.approx(5.549, abs=1e-3)


def test_identity_attention_cannot_be_told_from_uniform() -> None:
    torch.testing.assert_close(received(torch.eye(N).expand(1, 3, N, N)), torch.ones(1, N))


def test_a_token_that_gets_everything_receives_all_of_it() -> None:
    weights = torch.zeros(1, 3, N, N)
    weights[..., 0] = 1
    profile = received(weights)
    assert profile[0, 0] == N and profile[0, 1:].abs().max() == 0
    assert entropy(profile).item() == 0


@pytest.mark.parametrize("case", [*PLAIN, *OF_CLIPS])
def test_rows_sum_to_one_and_columns_to_the_number_of_tokens(case: str) -> None:
    encoder = build(case)
    sums: list[Tensor] = []
    with torch.no_grad():
        profiles = each_attention(encoder, images_for(encoder), lambda w: (sums.append(w.sum(3)), received(w))[1])
    assert len(profiles) == len(attention_blocks(encoder))
    for rows, profile in zip(sums, profiles, strict=True):
        torch.testing.assert_close(rows, torch.ones_like(rows))
        torch.testing.assert_close(profile.sum(1), torch.full((len(profile),), float(profile.shape[1])))


@pytest.mark.parametrize("case", [*PLAIN, *OF_CLIPS])
def test_the_open_computation_gives_what_the_fused_kernel_gives(case: str) -> None:
    encoder = build(case)
    for module in attention_blocks(encoder):
        x = torch.randn(2, 10, module.qkv.in_features)
        with torch.no_grad():
            weights, output = open_attention(module, x)
            torch.testing.assert_close(output, module(x), atol=1e-5, rtol=1e-5)
        assert weights.shape == (2, module.num_heads, 10, 10)


def test_weights_that_do_not_explain_the_output_are_never_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = build("vit")
    attend = type(encoder.blocks[0].attn).attend
    monkeypatch.setattr(type(encoder.blocks[0].attn), "attend", lambda self, q, k, v: 1.01 * attend(self, q, k, v))
    with pytest.raises(RuntimeError, match="off by .* in block 1"):
        each_attention(encoder, images_for(encoder), received)


def test_no_token_of_sl_vit_attends_to_itself() -> None:
    encoder = build("sl-vit")
    with torch.no_grad():
        diagonals = each_attention(encoder, images_for(encoder), lambda w: w.diagonal(dim1=2, dim2=3).clone())
    assert all((diagonal == 0).all() for diagonal in diagonals)


@pytest.mark.parametrize(("depth", "expected"), [(12, [0, 5, 11]), (4, [0, 1, 3]), (1, [0, 0, 0])])
def test_the_blocks_of_figure_6(depth: int, expected: list[int]) -> None:
    assert list(places(depth).values()) == expected


def test_the_histogram_counts_every_value() -> None:
    profiles = torch.cat([torch.zeros(1, 100), torch.ones(2, 100), torch.full((1, 100), 100.0)])
    edges, shares = histogram(profiles)
    assert sum(shares) == pytest.approx(1)
    assert (shares[0], shares[-1]) == (0.25, 0.25)
    assert edges[0] == pytest.approx(0.01) and edges[-1] == pytest.approx(100)


def test_a_block_is_described_by_the_mean_over_images() -> None:
    profiles = torch.tensor([[1.0, 3.0], [3.0, 1.0]])
    found = describe(profiles)
    assert found["mean"] == [2.0, 2.0]
    assert found["std"] == pytest.approx([math.sqrt(2)] * 2)
    assert found["max"] == 2.0 and found["max_of_images"] == {"mean": 3.0, "std": 0.0}


@pytest.mark.parametrize("case", PLAIN)
def test_attention_over_the_patches_is_the_row_without_the_prefix(case: str) -> None:
    encoder = build(case)
    prefix = encoder.num_prefix
    with torch.no_grad():
        weights = each_attention(encoder, images_for(encoder), lambda w: w)[-1]
    raw, shown = weights[:, :, 0, prefix:], class_token_attention(weights, prefix)
    torch.testing.assert_close(raw.sum(2), 1 - weights[:, :, 0, :prefix].sum(2))
    torch.testing.assert_close(shown.sum(2), torch.ones_like(shown[:, :, 0]))
    torch.testing.assert_close(shown * raw.sum(2, keepdim=True), raw)


def test_rollout_through_uniform_blocks_keeps_rows_and_a_share_for_oneself() -> None:
    through = rollout([torch.full((1, 8, 8), 1 / 8)] * 3)
    torch.testing.assert_close(through.sum(2), torch.ones(1, 8))
    # The identity survives all three blocks with half to the third power; the rest is uniform.
    torch.testing.assert_close(through[0], 0.125 * torch.eye(8) + 0.875 / 8)


def test_mass_keeps_the_fewest_patches_that_hold_it() -> None:
    maps = torch.tensor([[0.1, 0.4, 0.2, 0.3], [0.25, 0.25, 0.25, 0.25]])
    assert keep_mass(maps, 0.6)[0].tolist() == pytest.approx([0, 0.4, 0, 0.3])
    assert (keep_mass(maps, 0.6)[1] > 0).sum() == 3
    torch.testing.assert_close(keep_mass(maps, 1.0), maps)


def test_slots_and_patches_of_a_clip_receive_the_mean_of_their_tokens() -> None:
    profile = torch.zeros(1, 2, 2, 3)
    profile[0, 1, 0, 2] = 12  # of all twelve tokens one receives everything
    slots, patches = in_slots_and_patches(profile.flatten(1), (2, 2, 3))
    assert slots.tolist() == [[0, 2]]
    assert patches.tolist() == [[0, 0, 6, 0, 0, 0]]
    uniform = in_slots_and_patches(torch.ones(1, 12), (2, 2, 3))
    assert [part.tolist() for part in uniform] == [[[1] * 2], [[1] * 6]]


def test_nearest_upsampling_repeats_each_patch() -> None:
    small = torch.arange(4.0).view(1, 2, 2)
    assert upsample(small, (4, 4), "nearest")[0].tolist() == [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]]


def test_other_attention_is_refused() -> None:
    with pytest.raises(UserError, match="^needs a plain ViT .*, and this is a"):
        attention_blocks(build("swin"))
    encoder = build("vit")
    encoder.blocks[1].attn = nn.Identity()
    with pytest.raises(UserError, match="Identity, cannot be computed"):
        attention_blocks(encoder)
