"""ResNet-50 against timm's."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

from ssat.core.errors import UserError
from ssat.encoders.resnet import ResNet
from ssat.runs.footprint import macs_of, trainable
from ssat.tasks.reconstruction import Reconstruction


def test_full_pass_is_timms() -> None:
    torch.manual_seed(0)
    encoder = ResNet(64).eval()
    theirs = timm.create_model("resnet50", num_classes=0).eval()
    theirs.load_state_dict(encoder.model.state_dict())
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(encoder.forward_features(images), theirs(images))


def test_parameters_and_macs_are_the_published_ones() -> None:
    encoder, head = ResNet(224).eval(), nn.Linear(2048, 1000)
    assert trainable(encoder) + trainable(head) == 25_557_032
    images = torch.zeros(1, 3, 224, 224)
    assert macs_of(lambda: head(encoder.forward_features(images))) / 1e9 == pytest.approx(4.09, rel=0.005)


@pytest.mark.parametrize(("stem", "side"), [("imagenet", 1), ("cifar", 4)])
def test_the_cifar_stem_keeps_a_map_of_small_images(stem: str, side: int) -> None:
    encoder = ResNet(32, stem=stem).eval()
    assert encoder.forward_map(torch.zeros(1, 3, 32, 32)).shape == (1, 2048, side, side)


def test_reconstruction_is_refused_with_the_reason() -> None:
    with pytest.raises(UserError, match="ResNet has no masked pass.*mode=scratch"):
        Reconstruction(ResNet(32, stem="cifar"))


def test_an_unknown_stem_is_refused() -> None:
    with pytest.raises(UserError, match=r"encoder.stem='small' is not one of imagenet, cifar"):
        ResNet(32, stem="small")
