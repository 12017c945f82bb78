"""The bridge to timm's plain ViTs."""

from __future__ import annotations

import pytest
import timm
import torch

from ssat.core.errors import UserError
from ssat.encoders.timm_vit import TimmVisionTransformer
from ssat.encoders.vit import VisionTransformer
from ssat.tasks.masking import random_mask


@torch.no_grad()
@pytest.mark.parametrize(
    "name", ["test_vit", "test_vit2", "test_vit3", "vit_tiny_patch16_224", "deit3_small_patch16_224"]
)
def test_full_pass_is_timms(name: str) -> None:
    torch.manual_seed(0)
    encoder = TimmVisionTransformer(name, 64).eval()
    theirs = timm.create_model(name, num_classes=0, img_size=64).eval()
    theirs.load_state_dict(encoder.model.state_dict())
    images = torch.randn(2, 3, 64, 64)
    features = encoder.forward_features(images)
    assert features.shape == (2, encoder.num_features)
    assert torch.equal(features, theirs(images))


@torch.no_grad()
def test_the_same_weights_give_the_same_masked_pass_as_our_vit() -> None:
    torch.manual_seed(0)
    theirs = TimmVisionTransformer("vit_tiny_patch16_224", 32, patch_size=4).eval()
    ours = VisionTransformer(32, 4, embed_dim=192, depth=12, num_heads=3, pos_embed="learnable").eval()
    ours.load_state_dict({name.removeprefix("model."): value for name, value in theirs.state_dict().items()})
    images, mask = torch.randn(3, 3, 32, 32), random_mask(3, (8, 8), 0.75)
    a, b = theirs.forward_masked(images, mask), ours.forward_masked(images, mask)
    assert (a.cls - b.cls).abs().max() < 1e-5
    assert (a.maps[0] - b.maps[0]).abs().max() < 1e-5


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("vit_tinny_patch16_224", r"is not a model of timm \(did you mean vit_tiny_patch16_224\?\)"),
        ("swin_tiny_patch4_window7_224", "is not a plain ViT.*encoder=swin_t"),
        ("resnet50", "is not a plain ViT"),
        ("vit_small_r26_s32_224", "is not a plain ViT"),  # patches of a ResNet
        ("deit_tiny_distilled_patch16_224", "is not a plain ViT"),
    ],
)
def test_what_is_not_a_plain_vit_is_refused(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        TimmVisionTransformer(name, 64)


def test_a_size_that_patches_do_not_divide_is_refused() -> None:
    with pytest.raises(UserError, match="img_size=40 is not a multiple of the patch size 16"):
        TimmVisionTransformer("vit_tiny_patch16_224", 40)
