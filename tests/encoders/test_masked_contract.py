"""What every masked pass must keep (ssat.encoders.base), parametrised over tests/encoders/cases.py."""

import pytest
import torch
from torch import Tensor

from ssat.encoders.base import Encoder, Latent
from tests.encoders.cases import CASES, build, hidden_pixels, images_for, mask_for

pytestmark = pytest.mark.sampled


@pytest.fixture(params=list(CASES))
def encoder(request) -> Encoder:
    encoder = build(request.param)
    if encoder.mask_style is None:
        pytest.skip("has no masked pass")
    return encoder


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


def test_latent_has_the_promised_shapes(encoder):
    images, mask = images_for(encoder), mask_for(encoder)
    latent = encoder.forward_masked(images, mask)
    assert len(latent.maps) == len(encoder.latent_dims) == len(encoder.latent_scales)
    for tokens, dim, scale in zip(latent.maps, encoder.latent_dims, encoder.latent_scales, strict=True):
        if latent.visible_only:
            assert tokens.shape == (len(images), int((~mask[0]).sum()), dim)
        else:
            assert tokens.shape == (len(images), dim, -(-images.shape[2] // scale), -(-images.shape[3] // scale))
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


def test_bf16_autocast_is_finite_and_near_fp32(encoder):
    images, mask = images_for(encoder), mask_for(encoder)
    expected, full = encoder.forward_joint(images, mask)
    with torch.autocast("cpu", torch.bfloat16):
        features, latent = encoder.forward_joint(images, mask)
        loss = joint_scalar(features, latent)
    loss.backward()
    assert torch.allclose(features.float(), expected, atol=0.1)
    for ours, plain in zip(tensors_of(latent), tensors_of(full), strict=True):
        assert (ours.float() - plain).abs().mean() < 0.05
    assert all(grad.isfinite().all() for grad in gradients(encoder).values())


def test_a_mask_that_hides_unequal_numbers_is_refused(encoder):
    mask = mask_for(encoder)
    mask[0] = False
    mask[0, 0] = True
    with pytest.raises(ValueError, match="same number"):
        encoder.forward_masked(images_for(encoder), mask)


def test_every_trainable_parameter_but_those_of_the_full_pass_gets_a_gradient(encoder):
    encoder.train()
    latent = encoder.forward_masked(images_for(encoder), mask_for(encoder))
    generator = torch.Generator().manual_seed(1)
    # A decoder of maps does not read the class token.
    read = latent.maps if encoder.mask_style != "dropped" else tensors_of(latent)
    sum((out * torch.randn(out.shape, generator=generator)).mean() for out in read).backward()
    without = {n for n, p in encoder.named_parameters() if p.requires_grad and p.grad is None}
    assert without == encoder.only_full()


def test_some_images_have_the_features_that_they_have_among_all(encoder):
    if not encoder.separate:
        pytest.skip("images of a batch change each other's features")
    images, mask = images_for(encoder), mask_for(encoder)
    expected, whole = encoder.forward_joint(images, mask)
    rows = torch.tensor([len(images) - 1])
    features, latent = encoder.forward_joint(images, mask, rows=rows)
    assert torch.allclose(features, expected[rows], atol=1e-5, rtol=0)
    for a, b in zip(tensors_of(latent), tensors_of(whole), strict=True):
        assert torch.allclose(a, b, atol=1e-5, rtol=0)


def test_an_encoder_that_normalises_over_the_batch_does_not_call_its_images_separate(encoder):
    norms = [part for part in encoder.modules() if isinstance(part, torch.nn.modules.batchnorm._BatchNorm)]
    assert not (encoder.separate and norms)
