"""Grad-CAM against its closed form."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from ssat.analysis.gradcam import class_activation, class_maps, stretched, target_layer
from ssat.core.errors import UserError
from tests.encoders.cases import CASES, Least, build, images_for


def test_a_mean_over_places_gives_what_each_place_adds() -> None:
    maps = torch.randn(2, 6, 3, 3, requires_grad=True)
    each = (maps * torch.randn(6, 1, 1)).sum(1)
    (gradient,) = torch.autograd.grad(each.mean((1, 2)).sum(), maps)
    torch.testing.assert_close(class_activation(maps, gradient), each.relu() / 9)


def test_a_map_is_stretched_to_zero_and_one_and_a_flat_one_is_zero() -> None:
    maps = stretched(torch.tensor([[[1.0, 3.0, 2.0]], [[4.0, 4.0, 4.0]], [[0.0, 0.0, 0.0]]]))
    assert maps.tolist() == [[[0.0, 1.0, 0.5]], [[0.0] * 3], [[0.0] * 3]]


def model_of(case: str) -> SimpleNamespace:
    encoder = build(case)
    head = nn.Linear(encoder.num_features, 4)
    return SimpleNamespace(encoder=encoder, head=head, logits=lambda x: head(encoder.forward_features(x)))


@pytest.mark.parametrize("case", ["vit", "vit-rectangular-grey", "sl-vit", "timm", "timm-registers-average", "cvt"])
def test_the_maps_are_those_of_a_change_of_the_activation(case: str) -> None:
    model = model_of(case)
    images, targets = images_for(model.encoder, 2), torch.tensor([0, 3])
    logits, predicted, true = class_maps(model, images, targets)
    torch.testing.assert_close(logits, model.logits(images))
    assert predicted.shape == (2, *model.encoder.mask_grid)
    # alpha_c by finite differences: every patch token's channel c is moved by the same small step.
    layer, patches, step = target_layer(model.encoder), math.prod(model.encoder.mask_grid), 1e-2
    moved: dict[str, torch.Tensor] = {}

    def add(module: nn.Module, inputs: object, output: torch.Tensor) -> torch.Tensor:
        moved["activation"] = output[:, -patches:]
        changed = output.clone()
        changed[:, -patches:] += moved["shift"]
        return changed

    hook = layer.register_forward_hook(add)
    alphas = []
    for channel in range(layer.normalized_shape[0]):
        scores = []
        for sign in (-1, 1):
            moved["shift"] = torch.zeros(layer.normalized_shape[0])
            moved["shift"][channel] = sign * step
            with torch.no_grad():
                scores.append(model.logits(images).gather(1, targets.unsqueeze(1)).squeeze(1))
        alphas.append((scores[1] - scores[0]) / (2 * step))
    hook.remove()
    cam = (moved["activation"] * torch.stack(alphas, 1).unsqueeze(1)).sum(2).relu().view_as(true)
    torch.testing.assert_close(true, stretched(cam), atol=5e-3, rtol=1e-3)


@pytest.mark.parametrize("case", ["swin", "resnet", "resnet-cifar"])
def test_where_a_mean_is_classified_each_place_speaks_by_the_head_s_weights(case: str) -> None:
    model = model_of(case)
    images, targets = images_for(model.encoder, 2), torch.tensor([0, 3])
    _, _, true = class_maps(model, images, targets)
    with torch.no_grad():
        each = torch.einsum("bdhw,bd->bhw", model.encoder.forward_map(images), model.head.weight[targets])
    torch.testing.assert_close(true, stretched(each.relu()), atol=1e-5, rtol=1e-4)


def test_a_class_score_that_does_not_see_the_image_gives_an_empty_map() -> None:
    model = model_of("vit")
    with torch.no_grad():
        model.head.weight.zero_()
    _, predicted, true = class_maps(model, images_for(model.encoder), torch.tensor([0, 1, 2]))
    assert not predicted.any() and not true.any()


def test_a_frozen_encoder_has_maps_too() -> None:
    model = model_of("vit")
    images, targets = images_for(model.encoder), torch.tensor([0, 1, 2])
    expected = class_maps(model, images, targets)[2]
    model.encoder.requires_grad_(False)
    torch.testing.assert_close(class_maps(model, images, targets)[2], expected)


@pytest.mark.parametrize("case", [case for case in CASES if not case.startswith("videomae") and case != "least"])
def test_every_encoder_of_images_has_maps(case: str) -> None:
    model = model_of(case)
    _, predicted, true = class_maps(model, images_for(model.encoder, 2), torch.tensor([0, 3]))
    for maps in (predicted, true):
        assert maps.ndim == 3 and len(maps) == 2 and maps.min() >= 0 and maps.max() <= 1 and not maps.isnan().any()


def test_an_encoder_without_such_a_layer_is_refused() -> None:
    with pytest.raises(UserError, match="Least has no layer whose places speak for a class"):
        target_layer(Least())
