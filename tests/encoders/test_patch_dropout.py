"""Patch dropout: how many patches the full pass computes, which ones, and what stays as it was."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from ssat.core.errors import UserError
from ssat.encoders.base import Encoder, kept_patches
from ssat.runs.footprint import count_step_macs
from tests.encoders.cases import build, images_for, mask_for

PLAIN = ["vit", "vit-learnable", "sl-vit", "cct", "timm", "timm-registers-average", "timm-no-class-token"]


def blocks_of(encoder: Any) -> nn.Module:
    return encoder.model.blocks if hasattr(encoder, "model") else encoder.blocks


def tokens_seen(encoder: Encoder, call: Any) -> list[int]:
    """Tokens of an image in the first block, for each of its calls."""
    seen: list[int] = []
    hook = blocks_of(encoder)[0].register_forward_pre_hook(lambda _, given: seen.append(given[0].shape[1]))  # type: ignore[index,operator]
    call()
    hook.remove()
    return seen


@pytest.mark.parametrize("case", PLAIN)
def test_training_computes_the_kept_patches_and_evaluation_all_of_them(case: str) -> None:
    encoder, cells = build(case), 16
    images = images_for(encoder)
    whole = encoder(images)
    encoder.patch_dropout = 0.3
    assert torch.equal(encoder(images), whole)
    assert tokens_seen(encoder, lambda: encoder(images)) == [encoder.num_prefix + cells]
    assert tokens_seen(encoder.train(), lambda: encoder(images)) == [encoder.num_prefix + 11]  # int(16 * 0.7)


@pytest.mark.parametrize("case", PLAIN)
def test_no_dropout_is_the_same_to_the_last_bit_and_draws_nothing(case: str) -> None:
    encoder = build(case)
    images, mask = images_for(encoder), mask_for(encoder)
    evaluated, state = encoder.forward_joint(images, mask)[0], torch.get_rng_state()
    assert torch.equal(encoder.train().forward_joint(images, mask)[0], evaluated)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("joint", [False, True])
def test_the_features_are_those_of_the_kept_patches_alone(joint: bool) -> None:
    encoder = build("vit")
    images, hidden = images_for(encoder), mask_for(encoder)
    encoder.patch_dropout = 0.5
    torch.manual_seed(1)
    kept = kept_patches(3, 16, 0.5, images.device)
    mask = torch.ones(3, 16, dtype=torch.bool).scatter_(1, kept, False)
    alone = encoder.forward_masked_plain(images, mask).cls  # a pass of its own over the same patches
    torch.manual_seed(1)
    encoder.train()
    features = encoder.forward_joint(images, hidden)[0] if joint else encoder(images)
    torch.testing.assert_close(features, alone, rtol=1e-5, atol=1e-5)


def test_the_masked_view_of_the_joint_pass_keeps_its_patches() -> None:
    encoder = build("vit")
    images, mask = images_for(encoder), mask_for(encoder)
    before = encoder.forward_joint(images, mask)[1]
    encoder.patch_dropout = 0.5
    after = encoder.train().forward_joint(images, mask)[1]
    torch.testing.assert_close(after.maps[0], before.maps[0], rtol=1e-5, atol=1e-5)


def test_every_patch_is_kept_equally_often_and_each_image_has_its_own() -> None:
    torch.manual_seed(0)
    kept = kept_patches(4000, 10, 0.6, torch.device("cpu"))
    assert kept.shape == (4000, 4)
    assert all(len({*row}) == 4 for row in kept.tolist())
    share = torch.bincount(kept.flatten(), minlength=10) / 4000
    assert (share - 0.4).abs().max() < 0.04  # five deviations
    assert len({tuple(sorted(row)) for row in kept.tolist()}) == 210  # all choices of 4 out of 10


def test_a_share_that_keeps_no_patch_is_refused() -> None:
    with pytest.raises(UserError, match="recipe.patch_dropout=0.95 leaves none of the 16 patches of an image"):
        kept_patches(2, 16, 0.95, torch.device("cpu"))


def test_a_step_is_counted_with_the_patches_that_it_computes() -> None:
    encoder, head = build("vit"), nn.Linear(24, 3)
    whole = count_step_macs(encoder, None, (3, 12, 12), head=head)
    encoder.patch_dropout, state = 0.5, torch.get_rng_state()
    half = count_step_macs(encoder, None, (3, 12, 12), head=head)
    assert 0.45 < half / whole < 0.6  # the class token stays
    assert torch.equal(torch.get_rng_state(), state) and not encoder.training
