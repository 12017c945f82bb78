"""What every encoder must keep (DESIGN section 3), parametrised over tests/encoders/cases.py."""

import math

import pytest
import torch
from torch import Tensor

from src.encoders.base import Encoder, Latent
from tests.encoders.cases import CASES, build, hidden_pixels, images_for, mask_for


@pytest.fixture(params=list(CASES))
def encoder(request) -> Encoder:
    return build(request.param)


def tensors_of(latent: Latent) -> list[Tensor]:
    return [*latent.maps, *([] if latent.cls is None else [latent.cls])]


def joint_scalar(features: Tensor, latent: Latent) -> Tensor:
    """A scalar to which every output contributes, each element with its own weight."""
    generator = torch.Generator().manual_seed(1)
    outputs = [features, *tensors_of(latent)]
    return sum((out.float() * torch.randn(out.shape, generator=generator)).mean() for out in outputs)


def gradients(encoder: Encoder) -> dict[str, Tensor]:
    return {name: p.grad for name, p in encoder.named_parameters() if p.requires_grad}


def test_masked_pass_ignores_hidden_pixels(encoder):
    images, mask = images_for(encoder), mask_for(encoder)
    other = torch.where(hidden_pixels(encoder, mask), torch.full_like(images, 7.0), images)
    assert not torch.equal(images, other)
    for a, b in zip(
        tensors_of(encoder.forward_masked(images, mask)), tensors_of(encoder.forward_masked(other, mask)), strict=True
    ):
        assert torch.allclose(a, b, atol=1e-6, rtol=0)


def test_masked_pass_sees_every_visible_cell(encoder):
    images, mask = images_for(encoder), mask_for(encoder)
    before = tensors_of(encoder.forward_masked(images, mask))
    for cell in (~mask[0]).nonzero()[:, 0]:
        only = torch.ones_like(mask)
        only[:, cell] = False
        other = torch.where(hidden_pixels(encoder, only), images, -images)
        after = tensors_of(encoder.forward_masked(other, mask))
        assert any((a[0] - b[0]).abs().max() > 1e-4 for a, b in zip(before, after, strict=True))


def test_full_pass_ignores_the_mask(encoder):
    images = images_for(encoder)
    expected = encoder.forward_features(images)
    for _ in range(2):
        features, _ = encoder.forward_joint(images, mask_for(encoder))
        assert torch.allclose(features, expected, atol=1e-5, rtol=0)


def test_full_pass_sees_every_cell(encoder):
    images = images_for(encoder, batch=1)
    expected = encoder.forward_features(images)
    for cell in range(math.prod(encoder.mask_grid)):
        others = torch.ones(1, math.prod(encoder.mask_grid), dtype=torch.bool)
        others[:, cell] = False
        features = encoder.forward_features(torch.where(hidden_pixels(encoder, others), images, -images))
        assert (features - expected).abs().max() > 1e-4


def test_features_of_an_image_do_not_depend_on_its_batch(encoder):
    images = images_for(encoder)
    alone = torch.cat([encoder.forward_features(image[None]) for image in images])
    assert torch.allclose(encoder.forward_features(images), alone, atol=1e-5, rtol=0)


def test_latent_has_the_promised_shapes(encoder):
    images, mask = images_for(encoder), mask_for(encoder)
    latent = encoder.forward_masked(images, mask)
    assert len(latent.maps) == len(encoder.latent_dims) == len(encoder.latent_scales)
    for tokens, dim, scale in zip(latent.maps, encoder.latent_dims, encoder.latent_scales, strict=True):
        if latent.visible_only:
            assert tokens.shape == (len(images), int((~mask[0]).sum()), dim)
        else:
            assert tokens.shape == (len(images), dim, images.shape[2] // scale, images.shape[3] // scale)
    if latent.cls is not None:
        assert latent.cls.shape == (len(images), encoder.latent_dims[-1])


def test_giving_num_visible_changes_no_number(encoder):
    images, mask = images_for(encoder), mask_for(encoder)
    known = int((~mask[0]).sum())
    for a, b in zip(
        tensors_of(encoder.forward_masked(images, mask)),
        tensors_of(encoder.forward_masked(images, mask, num_visible=known)),
        strict=True,
    ):
        assert torch.equal(a, b)


def test_plain_masked_pass_agrees(encoder):
    images, mask = images_for(encoder), mask_for(encoder)
    for a, b in zip(
        tensors_of(encoder.forward_masked(images, mask)),
        tensors_of(encoder.forward_masked_plain(images, mask)),
        strict=True,
    ):
        assert torch.allclose(a, b, atol=1e-5, rtol=0)


def test_joint_pass_is_the_two_passes_with_gradients(encoder):
    images, mask = images_for(encoder), mask_for(encoder)
    results = []
    for joint in (encoder.forward_joint, lambda *views: Encoder.forward_joint(encoder, *views)):
        encoder.zero_grad()
        features, latent = joint(images, mask)
        joint_scalar(features, latent).backward()
        grads = {name: grad.clone() for name, grad in gradients(encoder).items()}
        results.append(([features, *tensors_of(latent)], grads))
    (outputs, grads), (plain_outputs, plain_grads) = results
    for a, b in zip(outputs, plain_outputs, strict=True):
        assert torch.allclose(a, b, atol=1e-5, rtol=0)
    for name, grad in plain_grads.items():
        assert torch.allclose(grads[name], grad, atol=1e-5, rtol=0), name


def test_every_trainable_parameter_gets_a_gradient_from_the_joint_loss(encoder):
    encoder.train()
    joint_scalar(*encoder.forward_joint(images_for(encoder), mask_for(encoder))).backward()
    for name, grad in gradients(encoder).items():
        assert grad is not None and grad.abs().sum() > 0, name


def test_map_covers_the_image(encoder):
    images = images_for(encoder)
    final = encoder.forward_map(images)
    scale = encoder.latent_scales[-1]
    assert final.shape[0] == len(images) and final.ndim == 4
    assert final.shape[2:] == (images.shape[2] // scale, images.shape[3] // scale)


def test_blocks_give_tokens(encoder):
    images = images_for(encoder)
    outputs = encoder.forward_blocks(images)
    assert outputs
    assert all(out.ndim == 3 and len(out) == len(images) for out in outputs)


def test_layer_ids_name_every_parameter_from_0_to_the_rest(encoder):
    ids = encoder.layer_ids()
    assert ids.keys() == dict(encoder.named_parameters()).keys()
    assert set(ids.values()) == set(range(max(ids.values()) + 1))


def test_no_weight_decay_names_exist(encoder):
    assert encoder.no_weight_decay() <= dict(encoder.named_parameters()).keys()


def test_state_dict_restores_the_features(encoder, request):
    images = images_for(encoder)
    torch.manual_seed(5)
    fresh = CASES[request.node.callspec.params["encoder"]]().eval()
    assert not torch.allclose(fresh.forward_features(images), encoder.forward_features(images), atol=1e-3)
    fresh.load_state_dict(encoder.state_dict())
    assert torch.equal(fresh.forward_features(images), encoder.forward_features(images))


def test_bf16_autocast_is_finite_and_near_fp32(encoder):
    images, mask = images_for(encoder), mask_for(encoder)
    expected, _ = encoder.forward_joint(images, mask)
    with torch.autocast("cpu", torch.bfloat16):
        features, latent = encoder.forward_joint(images, mask)
        loss = joint_scalar(features, latent)
    loss.backward()
    assert torch.allclose(features.float(), expected, atol=0.1)
    assert all(grad.isfinite().all() for grad in gradients(encoder).values())


def test_a_mask_that_hides_unequal_numbers_is_refused(encoder):
    mask = mask_for(encoder)
    mask[0] = False
    mask[0, 0] = True
    with pytest.raises(ValueError, match="same number"):
        encoder.forward_masked(images_for(encoder), mask)
