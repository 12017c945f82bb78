"""recipe.sizes: when which size comes, what a step computes at it, and that evaluation and other runs are as before."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from ssat.config.identity import identity
from ssat.core.batch import Batch
from ssat.core.errors import UserError
from ssat.encoders.sl_vit import sl_vit
from ssat.encoders.vit import VisionTransformer
from ssat.tasks.latent import LatentReconstruction
from ssat.tasks.reconstruction import Reconstruction
from ssat.training.build import build_module
from ssat.training.compiled import CompiledLosses
from ssat.training.module import JointModule
from ssat.training.resolution import at_size, check_sizes, epochs_at, size_at
from ssat.training.steps import Progress
from tests.helpers import config, largest_difference, record_of, start_and_kill, train, weights

DECODER: dict[str, Any] = {"decoder_dim": 16, "decoder_depth": 2, "decoder_heads": 2}
SHIFTED = partial(sl_vit, 16, 4, embed_dim=24, depth=2, num_heads=3, drop_path=0)
LATENT = partial(LatentReconstruction, blocks=2)


def small(**options: Any) -> VisionTransformer:
    torch.manual_seed(0)
    return VisionTransformer(16, 4, embed_dim=16, depth=2, num_heads=2, **options)


def batch(images: int = 3) -> Batch:
    torch.manual_seed(1)
    return Batch(torch.randn(images, 3, 16, 16), torch.arange(images), indices=torch.arange(images))


def test_every_size_has_an_equal_part_of_the_epochs_and_the_last_part_is_the_full_size() -> None:
    assert [size_at((8, 12), epoch, 9) for epoch in range(9)] == [8] * 3 + [12] * 3 + [None] * 3
    assert [size_at((8,), epoch, 5) for epoch in range(5)] == [8, 8, 8, None, None]
    assert size_at((), 0, 5) is None
    assert epochs_at((8, 12), 9) == "8 px from epoch 1, 12 px from epoch 4, full size from epoch 7"


def test_a_size_of_which_no_patch_could_be_hidden_is_told_as_what_the_user_has_typed() -> None:
    task = Reconstruction(small(), **DECODER)
    with pytest.raises(UserError, match=r"recipe.sizes=\[4\]: 4 pixels are too small here .*: leave them out"):
        check_sizes(small(), task, [4])


@pytest.mark.parametrize("pos_embed", ["sincos", "learnable"])
def test_features_at_a_size_are_those_of_a_crop_of_it_and_the_full_pass_stays_as_it_was(pos_embed: Any) -> None:
    encoder, given = small(pos_embed=pos_embed).eval(), batch()
    before = encoder(given.images)
    expected = encoder.forward_crop(F.interpolate(given.images, size=8, mode="bilinear", antialias=True))
    with at_size(encoder, None, given, 8) as shown:
        assert shown.images.shape == (3, 3, 8, 8)
        torch.testing.assert_close(encoder(shown.images), expected)
    assert torch.equal(encoder(given.images), before)


@pytest.mark.parametrize("kind", [Reconstruction, LATENT], ids=["pixels", "latent"])
def test_the_task_hides_and_predicts_the_patches_of_the_present_size(kind: Any) -> None:
    encoder = small()
    task, given = kind(encoder, **DECODER).eval(), batch()
    before = task(encoder, given, True).loss
    with at_size(encoder, task, given, 8) as shown:
        mask = task.draw_mask(shown)
        assert mask.shape == (3, 4) and mask.sum(1).tolist() == [3, 3, 3]
        loss = task(encoder, shown, True).loss
        expected = task.forward_reference(encoder, shown.images, mask)  # without any shortcut
    torch.testing.assert_close(loss, expected)
    assert torch.equal(task(encoder, given, True).loss, before)


@pytest.mark.parametrize("build", [small, SHIFTED], ids=["vit", "sl_vit"])
def test_the_joint_pass_at_a_size_is_its_two_passes(build: Any) -> None:
    encoder = build().eval()
    task, given = Reconstruction(encoder, **DECODER), batch()
    with at_size(encoder, task, given, 12) as shown:
        mask = task.fixed_mask(shown.indices)
        features, latent = encoder.forward_joint(shown.images, mask)
        torch.testing.assert_close(features, encoder.forward_features(shown.images), rtol=1e-5, atol=1e-5)
        alone = encoder.forward_masked(shown.images, mask)
    torch.testing.assert_close(latent.maps[0], alone.maps[0], rtol=1e-5, atol=1e-5)


def test_a_learnable_table_learns_at_every_size() -> None:
    encoder = small(pos_embed="learnable")
    with at_size(encoder, None, batch(), 8) as shown:
        encoder(shown.images)[:, 0].sum().backward()  # the sum of all would be that of a norm, a constant
    assert encoder.pos_embed.grad is not None
    assert (encoder.pos_embed.grad != 0).any(dim=2).all()  # all 16 cells and the class token


def test_an_error_within_a_step_leaves_the_full_size() -> None:
    encoder = small()

    def failing_step() -> None:
        with at_size(encoder, None, batch(), 8):
            raise RuntimeError("of the step")

    with pytest.raises(RuntimeError, match="of the step"):
        failing_step()
    assert (encoder.img_size, encoder.mask_grid) == ((16, 16), (4, 4))


@pytest.mark.slow
def test_a_compiled_step_is_compiled_once_more_for_a_size_and_has_the_eager_loss() -> None:
    torch._dynamo.reset()
    task: dict[str, Any] = {"kind": "reconstruction", **DECODER}
    eager, module = (JointModule(small(), num_classes=3, ssl=task, lam=0.3, sizes=[8]) for _ in range(2))
    module.load_state_dict(eager.state_dict())
    module.compiled = CompiledLosses(module.losses, module, backend="aot_eager")
    for size in (8, None, 8):
        losses = []
        for each in (eager, module):
            with at_size(each.encoder, each.ssl, batch(), size) as shown:
                losses.append(each.joint_step(shown, Progress(0, 0.0))[0].item())
        assert losses[1] == pytest.approx(losses[0], abs=1e-5)
    assert (module.compiled.outcome.how, module.compiled.outcome.reason) == ("one graph", None)


def built(*words: str) -> JointModule:
    run = config("data=digits", "encoder=vit_micro", *words)
    return build_module(run, run.mode.phases[0], 10)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["recipe.sizes=[12,8]"], r"recipe.sizes=\[12, 8\] do not grow"),
        (["recipe.sizes=[8,16]"], r"give sizes below data.img_size=16"),
        (["recipe.sizes=[8,32]"], r"give sizes below data.img_size=16"),
        (
            ["recipe.sizes=[8,12]", "epochs=2"],
            "are 3 parts of the epochs with data.img_size=16, and there are 2 epochs",
        ),
        (["recipe.sizes=[7]"], "7 pixels are not whole patches of 2: give multiples of 2"),
        (["recipe.sizes=[8]", "trainer.cuda_graph=true"], "set trainer.cuda_graph=false"),
        (["recipe.sizes=[8]", "encoder=resnet_50", "mode=scratch"], "ResNet has one size: use encoder=vit_t"),
        (["recipe.sizes=[8]", "ssl=simclr"], "SimCLR has one size: use ssl=mae"),
    ],
)
def test_what_does_not_fit_is_one_sentence(words: list[str], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        built(*words)


def test_they_belong_to_the_identity_where_they_are_used_and_nowhere_else() -> None:
    plain, sized = identity(config("mode=scratch")), identity(config("mode=scratch", "recipe.sizes=[8]"))
    assert sized == plain | {"mode.phases.0.recipe.sizes": [8]}


@pytest.mark.slow
@pytest.mark.parametrize("more", [[], ["recipe.patch_dropout=0.25", "recipe.ema_decay=0.9"]])
def test_a_killed_run_ends_with_the_weights_of_an_uninterrupted_one(more: list[str], tmp_path: Path) -> None:
    settings = ["mode=ssat", "epochs=6", "recipe.sizes=[8,12]", "recipe.drop_path=0.1", "checkpoint_minutes=0.002"]
    start_and_kill(*settings, *more, runs=tmp_path / "killed")
    killed, whole = (train(*settings, *more, runs=tmp_path / name) for name in ("killed", "whole"))
    assert largest_difference(weights(whole), weights(killed)) == 0
    assert [row["test/acc1"] for row in record_of(whole)["phases"][0]["history"]] == [
        row["test/acc1"] for row in record_of(killed)["phases"][0]["history"]
    ]
