"""Blocks that keep only their inputs for the backward pass, in every encoder that we offer."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

from ssat.encoders.base import Encoder
from ssat.encoders.resnet import ResNet
from ssat.encoders.resnet_cifar import CifarResNet
from ssat.encoders.timm_vit import TimmVisionTransformer
from ssat.encoders.videomae import VideoTransformer
from tests.encoders.cases import images_for, mask_for, small_cct, small_cvt, small_sl_vit, small_swin, small_vit

# More blocks than elsewhere: what they keep must outweigh the rest.
BUILDERS: dict[str, Callable[..., Encoder]] = {
    "vit": partial(small_vit, depth=6, drop_path=0.5),
    "sl-vit": partial(small_sl_vit, depth=6, drop_path=0.5),
    "cct": partial(small_cct, depth=16, drop_path=0.5),
    "cvt": partial(small_cvt, depths=(2, 2, 4), drop_path=0.5),
    "swin": partial(small_swin, depths=(2, 2, 4, 2), drop_path=0.5),
    "timm": partial(TimmVisionTransformer, "test_vit", 32, patch_size=8, drop_path=0.5),
    "videomae": partial(VideoTransformer, 4, 32, 8, embed_dim=48, depth=6, num_heads=3, drop_path=0.5),
    "resnet": partial(ResNet, 32, stem="cifar", depths=(2, 2, 2, 2), drop_path=0.5),
    "resnet-cifar": partial(CifarResNet, 16, blocks=3),
}


def losses(encoder: Encoder, images: Tensor) -> Tensor:
    """Of both passes where there are two."""
    if encoder.mask_style is None:
        return encoder(images).square().sum()
    features, latent = encoder.forward_joint(images, mask_for(encoder, len(images)))
    return features.square().sum() + sum(image.square().sum() for image in latent.maps)


@pytest.mark.parametrize("name", BUILDERS)
def test_checkpointed_blocks_give_the_same_numbers_and_keep_less(name: str) -> None:
    plain, again = (BUILDERS[name](checkpoint_blocks=on).train() for on in (False, True))
    again.load_state_dict(plain.state_dict())
    images = images_for(plain, 4)
    found, kept = [], []
    for encoder in (plain, again):
        torch.manual_seed(3)
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda x, to=sizes: (to.append(x.numel()), x)[1], lambda x: x):
            loss = losses(encoder, images)
        loss.backward()
        gradients = {key: p.grad for key, p in encoder.named_parameters() if p.grad is not None}
        found.append({"loss": loss.detach()} | gradients | dict(encoder.named_buffers()))
        kept.append(sum(sizes))
    assert found[0].keys() == found[1].keys()
    unequal = [key for key, value in found[0].items() if not torch.equal(value, found[1][key])]
    assert unequal == []  # the running statistics of batch norms too: a batch counts once
    assert kept[1] < kept[0] / 2


@pytest.mark.parametrize("name", BUILDERS)
def test_evaluation_keeps_everything_as_it_is(name: str) -> None:
    encoder = BUILDERS[name](checkpoint_blocks=True).eval()
    images = images_for(encoder)
    before = {key: value.clone() for key, value in encoder.named_buffers()}
    with torch.autograd.graph.saved_tensors_hooks(lambda x: x, lambda x: x):
        features = encoder(images)
    assert torch.equal(features, encoder(images))
    assert all(torch.equal(value, before[key]) for key, value in encoder.named_buffers())
