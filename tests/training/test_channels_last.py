"""trainer.channels_last: the layout of weights and maps, the numbers of the other layout, and whole runs with it."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from rich.console import Console
from torch import Tensor, nn

import ssat
from ssat.commands.export import export
from ssat.config.identity import config_hash, identity
from ssat.core.errors import UserError
from ssat.training.build import build_module, use_channels_last
from ssat.training.optim import adamw
from tests import helpers
from tests.helpers import command, largest_difference, only_run, record_of, start_and_kill, train, weights
from tests.training.test_encoder_configs import composed

LAST = "trainer.channels_last=true"
SMALL = {
    "resnet_56": ["encoder.blocks=2"],
    "resnet_50": ["encoder.depths=[1,1,1,1]", "encoder.stem=cifar"],
    "cvt_13": ["encoder.dims=[16,32,32]", "encoder.depths=[1,1,2]", "encoder.num_heads=[1,2,2]"],
}
USUAL = ["encoder=resnet_56", "encoder.blocks=1"]
RUN = [*USUAL, "mode=scratch", LAST]


@pytest.fixture
def any_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny runs without the encoder that they have by default, a ViT."""
    monkeypatch.setattr(helpers, "TINY", [word for word in helpers.TINY if not word.startswith("encoder")])


def module_of(name: str, *overrides: str) -> Any:
    config = composed(name, *SMALL.get(name, []), "mode=scratch", *overrides)
    return build_module(config, config.mode.phases[0], 10)


def convolutions(module: nn.Module) -> Iterator[nn.Conv2d]:
    return (layer for layer in module.modules() if isinstance(layer, nn.Conv2d))


def is_channels_last(value: Tensor) -> bool:
    return value.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("name", SMALL)
def test_every_map_is_channels_last_though_the_images_are_not(name: str) -> None:
    module, maps = module_of(name, LAST), []
    for layer in convolutions(module):
        layer.register_forward_hook(lambda _, __, output: maps.append(output))
    module.encoder.forward_features(torch.randn(2, 3, 32, 32))
    assert maps and all(is_channels_last(each) for each in maps)


def trained(encoder: nn.Module, steps: int) -> dict[str, Tensor]:
    """The tensors after steps of the fused AdamW, which walks over memory and knows no strides."""
    generator = torch.Generator().manual_seed(0)
    optimizer = adamw([{"params": [*encoder.parameters()], "lr_scale": 1}], lr=1e-2, betas=(0.9, 0.95), eps=1e-8)
    for _ in range(steps):
        images = torch.randn(4, 3, 32, 32, generator=generator, dtype=torch.float64)
        optimizer.zero_grad()
        for part in images.chunk(2):  # the second gradient is added to the first
            F.cross_entropy(encoder(part), torch.tensor([1, 3])).backward()
        optimizer.step()
    return encoder.state_dict()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet_56", "resnet_50"])
def test_in_fp64_both_layouts_train_to_the_same_weights(name: str) -> None:
    plain = module_of(name).encoder.double()
    twin = copy.deepcopy(plain)
    use_channels_last(twin, name)
    assert any(not weight.is_contiguous() for weight in twin.parameters())
    assert largest_difference(trained(plain, 3), trained(twin, 3)) < 1e-9


def test_the_key_belongs_to_the_identity_of_a_run_only_where_it_is_set() -> None:
    plain, off, on = (composed("resnet_56", "mode=scratch", *words) for words in ([], [LAST[:-4] + "false"], [LAST]))
    assert config_hash(plain) == config_hash(off) != config_hash(on)
    assert identity(on) == identity(plain) | {"trainer.channels_last": True}


@pytest.mark.parametrize("name", ["vit_t", "swin_t", "sl_vit", "videomae_micro"])
def test_a_network_without_overlapping_convolutions_is_refused(name: str) -> None:
    videos = ["data=video_folder", "data.root=x", "data.frames=4"] if "video" in name else []
    with pytest.raises(UserError, match=f"and encoder={name} has none: set trainer.channels_last=false") as refused:
        module_of(name, *videos, LAST)
    assert refused.value.key == "trainer.channels_last"


def test_a_convolutional_teacher_is_laid_out_and_a_patch_embedding_is_not() -> None:
    config = composed("vit_micro", "ssl=guidance", "ssl.teacher=null", "mode=ssat", LAST)
    module = build_module(config, config.mode.phases[0], 10)
    teacher = [layer for layer in convolutions(module.ssl) if layer.kernel_size == (3, 3)]
    assert teacher and all(is_channels_last(layer.weight) for layer in teacher)
    assert all(layer.weight.is_contiguous() for layer in convolutions(module.encoder))


def test_a_training_is_refused_in_one_sentence_and_leaves_no_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"trainer\.channels_last=true is for 2-D convolutions whose windows overlap"):
        train(LAST, runs=tmp_path)
    assert not list(tmp_path.glob("[!.]*/*/result.json"))


@pytest.mark.usefixtures("any_encoder")
@pytest.mark.parametrize(
    "more",
    [
        pytest.param([], id="fp32", marks=pytest.mark.slow),
        pytest.param(["recipe.ema_decay=0.9", "trainer.precision=bf16"], id="ema-bf16"),
    ],
)
@pytest.mark.slow
def test_a_killed_run_ends_with_the_weights_of_an_uninterrupted_one(tmp_path: Path, more: list[str]) -> None:
    settings = [*RUN, "epochs=6", "recipe.mixup=0.8", "checkpoint_minutes=0.002", *more]
    start_and_kill(*settings, runs=tmp_path / "killed", phase="scratch")
    killed, whole = train(*settings, runs=tmp_path / "killed"), train(*settings, runs=tmp_path / "whole")
    assert largest_difference(weights(whole, "scratch"), weights(killed, "scratch")) == 0


@pytest.mark.slow
@pytest.mark.usefixtures("any_encoder")
def test_a_run_is_loaded_exported_and_started_from_in_the_usual_layout(tmp_path: Path) -> None:
    run = train(*RUN, runs=tmp_path)
    model = ssat.load(run)
    assert all(weight.is_contiguous() for weight in model.encoder.parameters())
    images = [np.full((8, 8, 3), value, np.uint8) for value in (0, 90, 200)]
    for name in ("safetensors", "torch_export"):
        export([f"run={run}", f"format={name}", f"out={tmp_path / name}"], Console(quiet=True))  # checks its parity
    again = ssat.load(tmp_path / "safetensors")
    assert [each.prob for each in model.predict(images)] == [each.prob for each in again.predict(images)]
    started = train(*USUAL, "mode=finetune", f"mode.init_from={run}", "epochs=1", runs=tmp_path / "more")
    assert record_of(started)["status"] == "finished"


@pytest.mark.usefixtures("any_encoder")
@pytest.mark.slow
def test_two_ranks_train_to_the_weights_of_two_ranks_in_the_usual_layout(tmp_path: Path) -> None:
    settings = ["trainer=ddp_cpu", "recipe.batch_size=8", "recipe.augment=null", "trainer.max_steps=3"]
    settings += ["recipe.optimizer=sgd", "recipe.base_lr=0.1", "recipe.lr_rule=absolute", "recipe.warmup_epochs=0"]
    found = []
    for folder, words in (("last", RUN), ("usual", [*USUAL, "mode=scratch"])):
        assert command(*words, *settings, runs=tmp_path / folder).returncode == 0
        found.append(weights(only_run(tmp_path / folder), "scratch"))
    assert largest_difference(*found) < 1e-4
