"""One joint step against known tensors: the authors' code's (needs its files), and a slow formula's (tests/golden)."""

import ast
import os
import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ssat.core.batch import Batch
from ssat.core.errors import UserError
from ssat.encoders.vit import VisionTransformer
from ssat.tasks.masking import mask_from_noise
from ssat.training.authors_weights import from_official, to_official
from ssat.training.module import JointModule
from ssat.training.optim import adamw, parameter_groups
from ssat.training.steps import Progress

SHARED = Path(os.environ.get("SSAT_SHARED", Path(__file__).resolve().parents[3] / "shared"))
GOLDEN = {
    "authors": SHARED / "golden" / "official_ssat_vit.npz",
    "formula": Path(__file__).resolve().parents[1] / "golden" / "joint_step.npz",
}


@pytest.fixture(scope="module", params=list(GOLDEN))
def golden(request) -> dict[str, np.ndarray]:
    path = GOLDEN[request.param]
    if request.param == "authors" and not path.is_file():
        pytest.skip(f"needs {path} (set SSAT_SHARED to the folder that holds golden/)")
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def under(golden, prefix):
    return {name.removeprefix(prefix): value for name, value in golden.items() if name.startswith(prefix)}


def load(golden, state=None):
    config = ast.literal_eval(str(golden["config"]))
    return from_official(
        under(golden, "state/") if state is None else state,
        num_heads=config["num_heads"],
        decoder_num_heads=config["decoder_num_heads"],
        norm_pix=config["norm_pix_loss"],
    )


def step(golden, packed: bool):
    """The joint loss and every gradient, by the module's step (packed pass) or by the plain two-pass formulation."""
    encoder, task, head = load(golden)
    images, labels = torch.tensor(golden["images"]), torch.tensor(golden["labels"])
    mask = mask_from_noise(torch.tensor(golden["noise"]), float(golden["mask_ratio"]))
    lam = float(golden["lambda_weight"])
    if packed:
        made = []
        head.register_forward_hook(lambda module, args, output: made.append(output))
        task.forward = partial(task.forward, mask=mask)
        module = JointModule(encoder, num_classes=head.out_features, ssl=task, lam=lam, head=head, label_smoothing=0.1)
        loss, values = module.joint_step(Batch(images, labels), Progress(0, 0.0))
        (logits,), cls_loss, ssl_loss = made, values["loss_cls"], values["loss_ssl"]
    else:
        logits = head(encoder.norm(encoder.forward_blocks(images)[-1])[:, 0])
        cls_loss = F.cross_entropy(logits, labels, label_smoothing=0.1)
        ssl_loss = task.forward_reference(encoder, images, mask)
        loss = lam * cls_loss + (1 - lam) * ssl_loss
    loss.backward()
    return encoder, task, head, logits, cls_loss, ssl_loss, loss


def test_mask_is_identical(golden):
    mask = mask_from_noise(torch.tensor(golden["noise"]), float(golden["mask_ratio"]))
    assert torch.equal(mask, torch.tensor(golden["mask"]).bool())


@pytest.mark.parametrize("packed", [True, False])
def test_outputs_and_every_gradient_agree(golden, packed):
    encoder, task, head, logits, cls_loss, ssl_loss, loss = step(golden, packed)
    assert torch.allclose(logits, torch.tensor(golden["logits"]), atol=1e-5, rtol=0)
    assert ssl_loss.item() == pytest.approx(float(golden["reconstruction_loss"]), abs=1e-5)
    assert cls_loss.item() == pytest.approx(float(golden["classification_loss"]), abs=1e-5)
    assert loss.item() == pytest.approx(float(golden["total_loss"]), abs=1e-5)
    parameters = dict(encoder.named_parameters()) | dict(head.named_parameters(prefix="head"))
    parameters |= dict(task.named_parameters())
    expected = under(golden, "grad/")
    compared = 0
    for name, parameter in to_official_names(parameters).items():
        if parameter.requires_grad:
            difference = (parameter.grad - torch.tensor(expected[name])).abs().max().item()
            assert difference < 1e-5, name
            compared += 1
    assert compared == len(expected)


def to_official_names(parameters):
    from ssat.training.authors_weights import DECODER

    named = {}
    for name, parameter in parameters.items():
        prefix = next((ours for ours in DECODER if name.startswith(ours)), None)
        named[name if prefix is None else DECODER[prefix] + name.removeprefix(prefix)] = parameter
    return named


def test_every_patch_is_predicted_as_by_the_authors(golden):
    encoder, task, _ = load(golden)
    mask = torch.tensor(golden["mask"]).bool()
    latent = encoder.forward_masked(torch.tensor(golden["images"]), mask)
    everything = task.decoder.forward_all(latent, mask)
    assert torch.allclose(everything, torch.tensor(golden["pred"]), atol=1e-5, rtol=0)
    hidden = task.decoder(latent, mask)
    assert torch.allclose(hidden.flatten(0, 1), torch.tensor(golden["pred"])[mask], atol=1e-5, rtol=0)


def test_latent_is_the_authors_in_raster_order(golden):
    encoder, _, _ = load(golden)
    latent = encoder.forward_masked(torch.tensor(golden["images"]), torch.tensor(golden["mask"]).bool())
    noise, expected = torch.tensor(golden["noise"]), torch.tensor(golden["latent"])
    kept = noise.argsort(dim=1)[:, : expected.shape[1] - 1]
    raster = kept.argsort(dim=1).unsqueeze(-1).expand(-1, -1, expected.shape[-1])
    assert torch.allclose(latent.cls, expected[:, 0], atol=1e-5, rtol=0)
    assert torch.allclose(latent.maps[0], expected[:, 1:].gather(1, raster), atol=1e-5, rtol=0)


def test_weights_after_one_adamw_step_agree(golden):
    encoder, task, head, *_ = step(golden, packed=True)
    modules = torch.nn.ModuleDict({"encoder": encoder, "ssl": task, "head": head})
    groups = parameter_groups(modules.named_parameters(), weight_decay=0.05, no_decay=set(), layer_ids={})
    adamw(groups, lr=1e-3, betas=(0.9, 0.999), eps=1e-8).step()
    ours, expected = to_official(encoder, task, head), under(golden, "after_step/")
    assert expected
    for name, value in expected.items():
        assert torch.allclose(ours[name], torch.tensor(value), atol=1e-6, rtol=0), name


def test_official_layout_round_trips(golden):
    original, written = under(golden, "state/"), to_official(*load(golden))
    assert written.keys() == original.keys()
    assert all(torch.equal(written[name], torch.tensor(original[name])) for name in original)


def test_a_wrapped_checkpoint_of_tensors_is_read_like_one_of_arrays(golden):
    config = ast.literal_eval(str(golden["config"]))
    heads = {"num_heads": config["num_heads"], "decoder_num_heads": config["decoder_num_heads"]}
    state = {name: torch.tensor(value) for name, value in under(golden, "state/").items()}
    written = to_official(*from_official({"model": state, "epoch": 3}, **heads))
    assert all(torch.equal(written[name], state[name]) for name in state)


def test_a_checkpoint_without_decoder_or_head_gives_none_for_them(golden):
    config = ast.literal_eval(str(golden["config"]))
    state = {
        name: value
        for name, value in under(golden, "state/").items()
        if not name.startswith(("mask_token", "decoder_", "head."))
    }
    encoder, task, head = from_official(state, num_heads=config["num_heads"], decoder_num_heads=1)
    assert task is None
    assert head is None
    assert to_official(encoder).keys() == state.keys()


@pytest.mark.parametrize(
    "name",
    ["cls_token", "blocks.1.norm1.bias", "mask_token", "decoder_pos_embed", "decoder_pred.bias", "head.weight"],
)
def test_a_missing_tensor_is_named_as_in_the_checkpoint(golden, name):
    state = {key: value for key, value in under(golden, "state/").items() if key != name}
    with pytest.raises(UserError, match=rf"{re.escape(name)} is missing|1 tensor is missing \({re.escape(name)}\)"):
        load(golden, state)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"extra": np.zeros(2)}, r"1 tensor is unexpected \(extra\)"),
        ({"norm.weight": np.zeros(3)}, r"norm.weight is \(3,\)"),
        ({"epoch": 3}, "epoch is a int"),
        ({"pos_embed": np.zeros((1, 8, 48))}, "no square grid"),
    ],
)
def test_a_tensor_that_does_not_fit_is_named(golden, change, message):
    with pytest.raises(UserError, match=message):
        load(golden, under(golden, "state/") | change)


def test_mlp_widths_that_are_no_whole_multiple_are_kept():
    encoder = VisionTransformer(8, 2, embed_dim=28, depth=1, num_heads=2, mlp_ratio=61.5 / 28)
    assert encoder.blocks[0].mlp.fc1.out_features == 61
    read, _, _ = from_official(to_official(encoder), num_heads=2, decoder_num_heads=1)
    assert read.blocks[0].mlp.fc1.out_features == 61
