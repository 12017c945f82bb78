"""What every encoder must keep (ssat.encoders.base), parametrised over tests/encoders/cases.py."""

import importlib
import inspect
import math
from pathlib import Path
from typing import Any, get_type_hints

import pytest
import torch

from ssat.core.errors import UserError
from ssat.encoders import ENCODERS
from ssat.encoders.base import Encoder
from ssat.encoders.contract import check_contract
from ssat.training.optim import parameter_groups
from tests.encoders.cases import CASES, Least, build, hidden_pixels, images_for

pytestmark = pytest.mark.sampled


@pytest.fixture(params=list(CASES))
def encoder(request) -> Encoder:
    return build(request.param)


def needs(encoder: Encoder, *methods: str) -> None:
    """Skip what an encoder that trains on labels alone, or on whole images alone, does not have."""
    missing = [method for method in methods if not encoder.implements(method)]
    if missing:
        pytest.skip(f"has no {missing[0]}")


def test_the_contract_is_complete(encoder):
    check_contract(encoder, "case")
    assert encoder.implements("forward_features")
    assert encoder.implements("forward_masked") == (encoder.mask_style is not None)


def test_calling_the_encoder_gives_its_features(encoder):
    images = images_for(encoder)
    features = encoder(images)
    assert features.shape == (len(images), encoder.num_features)
    assert torch.equal(features, encoder.forward_features(images))


def test_plain_full_pass_agrees(encoder):
    images = images_for(encoder)
    plain = encoder.forward_features_plain(images)
    assert torch.allclose(encoder.forward_features(images), plain, atol=1e-5, rtol=1e-5)


def test_full_pass_sees_every_cell(encoder):
    needs(encoder, "forward_masked")
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


def test_map_covers_the_image_at_the_last_latent_scale(encoder):
    needs(encoder, "forward_map")
    images = images_for(encoder)
    scale = encoder.latent_scales[-1]
    size = (*encoder.mask_grid[:-2], *(-(-side // scale) for side in images.shape[-2:]))
    assert encoder.forward_map(images).shape == (len(images), encoder.latent_dims[-1], *size)


def test_there_are_as_many_blocks_as_the_stated_depth(encoder):
    needs(encoder, "forward_blocks")
    images = images_for(encoder)
    outputs = encoder.forward_blocks(images)
    assert len(outputs) == encoder.depth > 0
    assert all(out.ndim == 3 and len(out) == len(images) for out in outputs)


def test_flat_tokens_are_one_per_mask_cell_after_the_prefix(encoder):
    needs(encoder, "forward_blocks")
    outputs = encoder.forward_blocks(images_for(encoder))
    tokens = (encoder.num_prefix + math.prod(encoder.mask_grid), encoder.latent_dims[-1])
    assert all(out.shape[1:] == tokens for out in outputs) == encoder.flat_tokens
    last = encoder.image_tokens(outputs[-1])
    final = encoder.forward_dense(images_for(encoder)).map
    assert last.shape[1] == math.prod(final.shape[2:])


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
    needs(encoder, "forward_dense")
    images = images_for(encoder)
    dense = encoder.forward_dense(images)
    assert torch.allclose(dense.features, encoder.forward_features(images), atol=1e-5, rtol=1e-5)
    assert dense.map.shape == encoder.forward_map(images).shape
    assert torch.allclose(dense.map.flatten(2).transpose(1, 2), encoder.image_tokens(dense.blocks[-1]), atol=1e-6)
    for ours, theirs in zip(dense.blocks, encoder.forward_blocks(images), strict=True):
        assert torch.equal(ours, theirs)


def test_dense_map_reaches_every_parameter_that_the_features_reach_but_final_norm_and_pooling(encoder):
    needs(encoder, "forward_dense")
    dense = encoder.forward_dense(images_for(encoder))
    named = {name: p for name, p in encoder.named_parameters() if p.requires_grad}

    def reached(output: torch.Tensor) -> set[str]:
        weights = torch.randn(output.shape)
        gradients = torch.autograd.grad((output * weights).sum(), named.values(), retain_graph=True, allow_unused=True)
        return {name for name, gradient in zip(named, gradients, strict=True) if gradient is not None}

    missed = reached(dense.features) - reached(dense.map) - encoder.only_full()
    assert len(missed) <= 2
    assert all(name.endswith(("norm.weight", "norm.bias")) and "blocks" not in name for name in missed)


def test_crop_of_the_whole_size_is_the_plain_pass(encoder):
    images = images_for(encoder)
    assert torch.allclose(encoder.forward_crop(images), encoder.forward_features(images), atol=1e-6)


def test_smaller_crops_give_features_or_are_refused_with_the_cure(encoder):
    needs(encoder, "forward_dense")
    sides = [max(cells // 2, 1) * encoder.mask_cell_px for cells in encoder.mask_grid[-2:]]
    crops = torch.randn(2, encoder.in_chans, *sides)
    if encoder.implements("forward_crop"):
        assert encoder.forward_crop(crops).shape == (2, encoder.num_features)
    else:
        with pytest.raises(UserError, match=r"ssl\.local_views=0"):
            encoder.forward_crop(crops)
    with pytest.raises(UserError, match="ssl.local"):
        encoder.forward_crop(torch.randn(2, encoder.in_chans, sides[0] + 1, sides[1]))


@pytest.mark.parametrize("kind", list(ENCODERS))
def test_arguments_of_every_kind_state_precise_types(kind):
    module, _, name = ENCODERS[kind].partition(":")
    make = getattr(importlib.import_module(module), name)
    annotations = get_type_hints(make.__init__ if inspect.isclass(make) else make)
    assert all(annotations[argument] not in (Any, object) for argument in inspect.signature(make).parameters)


def test_an_encoder_of_ones_own_takes_at_most_75_lines():
    assert len(Path(__file__).with_name("mixer.py").read_text().splitlines()) <= 75


def test_labels_alone_need_sizes_and_one_method():
    encoder = Least()
    check_contract(encoder, "mine:Least")
    images = torch.randn(2, 3, 4, 4)
    assert encoder(images).shape == (2, 5)
    assert encoder.layer_ids() == {"layer.weight": 0, "layer.bias": 0}
    assert encoder.mask_style is None and not encoder.implements("forward_dense")


def test_one_layer_for_all_means_the_same_learning_rate_for_all():
    encoder = Least()
    groups = parameter_groups(
        encoder.named_parameters(), weight_decay=0.1, no_decay=set(), layer_ids=encoder.layer_ids(), layer_decay=0.5
    )
    assert {group["lr_scale"] for group in groups} == {1.0}


COMPLETE = {
    "mask_style": "replaced",
    "mask_grid": (2, 2),
    "mask_cell_px": 2,
    "latent_dims": (5,),
    "latent_scales": (2,),
    "forward_masked": lambda self, images, mask, *, num_visible=None: None,
}


@pytest.mark.parametrize(
    ("attributes", "sentence"),
    [
        (COMPLETE, None),
        (COMPLETE | {"mask_style": "blurred"}, "mask_style='blurred', which is not one of dropped, zeroed, replaced"),
        ({"mask_style": "zeroed"}, "no method forward_masked"),
        (COMPLETE | {"mask_grid": (3, 2)}, r"covers \(6, 4\) pixels and not img_size=\(4, 4\)"),
        (COMPLETE | {"latent_scales": (1, 2)}, "of other length"),
        ({"flat_tokens": True, "mask_grid": (2, 2)}, "must state its depth and have the method forward_blocks"),
        ({"flat_tokens": True, "depth": 3}, "does not state mask_grid"),
        *(
            ({key: value for key, value in COMPLETE.items() if key != name}, f"does not state {name}, ")
            for name in ("mask_grid", "mask_cell_px", "latent_dims", "latent_scales")
        ),
    ],
)
def test_what_a_class_lacks_is_said_when_it_is_built(attributes, sentence):
    encoder = type("Mine", (Least,), attributes)()
    if sentence is None:
        check_contract(encoder, "mine:Mine")
        return
    with pytest.raises(UserError, match=f"^encoder.kind=mine:Mine: Mine .*{sentence}") as caught:
        check_contract(encoder, "mine:Mine")
    assert caught.value.key == "encoder.kind" and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["num_features", "img_size", "in_chans"])
def test_a_size_that_a_constructor_forgets_is_named(name):
    encoder = Least()
    delattr(encoder, name)
    with pytest.raises(UserError, match=f"Least does not state {name}, .*: set it in the constructor"):
        check_contract(encoder, "mine:Least")


def test_what_is_no_encoder_or_has_no_features_is_refused():
    with pytest.raises(UserError, match="Linear is not an Encoder: derive it from"):
        check_contract(torch.nn.Linear(2, 2), "torch.nn:Linear")
    with pytest.raises(UserError, match="Encoder has no method forward_features"):
        check_contract(Encoder(), "mine:Encoder")
