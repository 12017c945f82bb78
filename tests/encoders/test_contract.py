"""What every encoder must keep (DESIGN section 3), parametrised over tests/encoders/cases.py."""

import math

import pytest
import torch

from src.encoders.base import Encoder
from src.encoders.cvt import ConvolutionalVisionTransformer
from src.encoders.vit import VisionTransformer
from src.errors import UserError
from tests.encoders.cases import CASES, build, hidden_pixels, images_for


@pytest.fixture(params=list(CASES))
def encoder(request) -> Encoder:
    return build(request.param)


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
    assert (encoder.forward_features(images) - alone).abs().max() <= 1e-5 * max(1.0, float(alone.detach().abs().max()))


def test_map_covers_the_image(encoder):
    images = images_for(encoder)
    final = encoder.forward_map(images)
    scale = encoder.latent_scales[-1]
    assert final.shape[0] == len(images) and final.ndim == 4
    assert final.shape[2:] == (-(-images.shape[2] // scale), -(-images.shape[3] // scale))


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


def test_every_trainable_parameter_but_those_of_the_masked_pass_gets_a_gradient(encoder):
    encoder.train()
    features = encoder.forward_features(images_for(encoder))
    (features * torch.randn_like(features)).mean().backward()
    without = {n for n, p in encoder.named_parameters() if p.requires_grad and p.grad is None}
    assert without == encoder.only_masked()


def test_images_of_another_size_or_channel_count_are_refused(encoder):
    images = images_for(encoder)
    for wrong in (images[:, :, :-1], images[:, :, :, :-1], torch.cat([images, images], 1)):
        with pytest.raises(UserError, match="the encoder takes"):
            encoder.forward_features(wrong)


def test_bf16_autocast_gives_finite_gradients(encoder):
    with torch.autocast("cpu", torch.bfloat16):
        features = encoder.forward_features(images_for(encoder))
    features.float().square().mean().backward()
    assert all(p.grad.isfinite().all() for p in encoder.parameters() if p.grad is not None)


def test_dense_pass_gives_the_features_map_and_blocks_of_the_single_passes(encoder):
    images = images_for(encoder)
    dense = encoder.forward_dense(images)
    assert torch.allclose(dense.features, encoder.forward_features(images), atol=1e-5, rtol=1e-5)
    assert dense.map.shape == encoder.forward_map(images).shape
    for ours, theirs in zip(dense.blocks, encoder.forward_blocks(images), strict=True):
        assert torch.equal(ours, theirs)


def test_dense_map_reaches_every_parameter_that_the_final_blocks_have(encoder):
    images = images_for(encoder)
    encoder.forward_dense(images).map.square().sum().backward()
    reached = [p for p in encoder.parameters() if p.grad is not None and p.grad.abs().sum() > 0]
    assert len(reached) > len(list(encoder.parameters())) / 2


def test_crop_of_the_whole_size_is_the_plain_pass(encoder):
    images = images_for(encoder)
    assert torch.allclose(encoder.forward_crop(images), encoder.forward_features(images), atol=1e-6)


def test_smaller_crops_give_features_or_are_refused_with_the_cure(encoder):
    sides = [max(cells // 2, 1) * encoder.unit_px for cells in encoder.mask_grid[-2:]]
    crops = torch.randn(2, encoder.in_chans, *sides)
    if isinstance(encoder, (VisionTransformer, ConvolutionalVisionTransformer)):
        assert encoder.forward_crop(crops).shape == (2, encoder.num_features)
    else:
        with pytest.raises(UserError, match=r"ssl\.local_views=0"):
            encoder.forward_crop(crops)
    with pytest.raises(UserError, match="ssl.local"):
        encoder.forward_crop(torch.randn(2, encoder.in_chans, sides[0] + 1, sides[1]))
