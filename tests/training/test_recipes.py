"""Every recipe builds, and the presets say what their sources say."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from ssat.config.check import check
from ssat.config.resolve import resolve
from ssat.config.schema import Run
from ssat.config.words import CONF
from ssat.core.errors import UserError
from ssat.data.image import ImageDataModule
from ssat.data.transforms.clip_albumentations import augmentation
from ssat.data.transforms.clip_augment import ClipAugment
from ssat.data.transforms.timm_transforms import train_transform
from ssat.training.build import build_module
from ssat.training.data import _say_once, build_data
from ssat.training.module import JointModule
from ssat.training.optim import effective_lr, module_groups
from tests.helpers import record_of, train

NAMES = sorted(path.stem for path in (CONF / "recipe").glob("*.yaml"))
ENCODERS = {
    "convmae_ft": ["encoder=cvt_13", "encoder.depths=[1,1,2]"],
    "ummae_ft": ["encoder=swin_t", "encoder.depths=[1,1,2,1]"],
    "sl_vit": ["encoder=sl_vit", "encoder.depth=2"],
    "drloc": ["encoder=swin_t", "encoder.depths=[1,1,2,1]", "encoder.drop_path=0.2"],
    "guidance": ["encoder=deit_ti", "encoder.depth=2", "encoder.patch_size=8"],
    "videomae": ["data=ffpp", "encoder=videomae_micro"],
}


def composed(*overrides: str) -> Run:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = resolve(compose("train", overrides=list(overrides)))
    check(config)
    return config


def built(name: str, *overrides: str) -> tuple[Run, JointModule]:
    encoder = ENCODERS.get(name, ["encoder=vit_micro"])
    config = composed(f"recipe={name}", "data=cifar10", *encoder, "mode=scratch", *overrides)
    return config, build_module(config, config.mode.phases[0], 10)


@pytest.mark.parametrize(
    ("words", "pipeline", "said"),
    [
        ([], "batched", "data.pipeline=auto: batched"),
        (["recipe.augment=null"], "batched", "data.pipeline=auto: batched"),
        (["recipe.augment.auto_augment=cifar10"], "timm", "cannot do recipe.augment.auto_augment='cifar10'"),
        (["recipe.augment.auto_augment=augmix-m5-w4-d2"], "timm", "auto_augment='augmix-m5-w4-d2'"),
        (["recipe.augment.re_mode=mean"], "timm", "cannot do recipe.augment.re_mode='mean'"),
    ],
)
def test_auto_is_the_batched_pipeline_where_it_can_do_the_recipe(
    capsys: pytest.CaptureFixture[str], words: list[str], pipeline: str, said: str
) -> None:
    _say_once.cache_clear()
    config = composed("data=digits", "encoder=vit_micro", "mode=scratch", "data.pipeline=auto", *words)
    data = build_data(config, config.mode.phases[0])
    build_data(config, config.mode.phases[0])
    assert isinstance(data, ImageDataModule) and data.pipeline == pipeline
    (line,) = capsys.readouterr().out.splitlines()
    assert said in line


def groups(module: JointModule) -> dict[str, tuple[float, float]]:
    """(weight decay, lr scale) of every trained parameter."""
    o = module.optimization
    found = module_groups(
        module,
        module.encoder,
        weight_decay=o.weight_decay,
        layer_decay=o.layer_decay,
        decay_all=o.decay_all,
        no_decay=o.no_decay,
    )
    names = {id(p): name for name, p in module.named_parameters()}
    return {names[id(p)]: (g["weight_decay"], g["lr_scale"]) for g in found for p in g["params"]}


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_builds_a_module_and_a_pipeline(name: str) -> None:
    config, module = built(name)
    recipe = config.recipe
    assert recipe.name == name
    assert sum(p.requires_grad for p in module.parameters()) == len(groups(module))
    if recipe.augment is None:
        assert augmentation(32, **asdict(recipe.clip_augment)) == ClipAugment(32)
    else:
        train_transform(32, mean=(0.5,) * 3, std=(0.2,) * 3, augment=asdict(recipe.augment))


@pytest.mark.parametrize(
    ("name", "batch", "lr"),
    [
        ("convmae_ft", 1024, 2e-3),
        ("ummae_ft", 1024, 2e-3),
        ("sl_vit", 128, 1e-3),
        ("drloc", 1024, 1e-3),
        ("guidance", 128, 5e-4),
    ],
)
def test_the_learning_rate_at_the_sources_batch_is_the_sources(name: str, batch: int, lr: float) -> None:
    recipe = built(name)[0].recipe
    assert effective_lr(recipe.base_lr, recipe.lr_rule, batch) == pytest.approx(lr)


def test_sl_vit_decays_every_parameter_and_the_others_do_not() -> None:
    assert {decay for decay, _ in groups(built("sl_vit")[1]).values()} == {0.05}
    guidance = groups(built("guidance")[1])
    for name in ("encoder.cls_token", "encoder.pos_embed", "encoder.norm.weight", "head.bias"):
        assert guidance[name][0] == 0.0
    assert guidance["encoder.blocks.0.attn.qkv.weight"][0] == 0.05


def test_layer_decay_follows_the_sources_layers() -> None:
    convmae = groups(built("convmae_ft")[1])  # two blocks in the last stage: the head is layer 3
    assert convmae["encoder.stages.0.embed.weight"][1] == pytest.approx(0.65**3)
    assert convmae["encoder.stages.1.blocks.0.mlp.fc1.weight"][1] == pytest.approx(0.65**3)
    assert convmae["encoder.stages.2.blocks.1.mlp.fc1.weight"][1] == pytest.approx(0.65)
    assert convmae["head.weight"][1] == 1
    ummae = groups(built("ummae_ft")[1])  # five blocks: the head is layer 6
    assert ummae["encoder.model.patch_embed.proj.weight"][1] == pytest.approx(0.85**6)
    assert ummae["encoder.model.layers.2.downsample.reduction.weight"][1] == pytest.approx(0.85**3)
    assert ummae["encoder.model.layers.2.blocks.0.mlp.fc1.weight"][1] == pytest.approx(0.85**3)
    assert ummae["encoder.model.layers.3.blocks.0.mlp.fc1.weight"][1] == pytest.approx(0.85)


def test_statistics_are_the_sources() -> None:
    for name, std in (("sl_vit", 0.2470), ("drloc", 0.229), ("guidance", 0.229), ("official", 0.2023)):
        run = built(name)[0]
        assert getattr(run.data.statistics, run.recipe.statistics).std[0] == std


def test_a_parameter_that_is_not_there_cannot_be_exempt() -> None:
    with pytest.raises(UserError, match="recipe.no_decay=.*class_token.* names no parameter of vit_micro"):
        built("official", "recipe.no_decay=[class_token]")


def test_sl_vits_recipe_trains(tmp_path: Path) -> None:
    run = train(
        *("recipe=sl_vit", "recipe.batch_size=16", "data.img_size=16", "epochs=1", "mode=ssat", "encoder.patch_size=4"),
        runs=tmp_path,
    )
    assert record_of(run)["status"] == "finished"
