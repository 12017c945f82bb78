import dataclasses
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from ssat.config.check_typed import check_sweeper, check_typed
from ssat.config.defaults import default_patch
from ssat.config.identity import check_same_run, config_hash, differences
from ssat.config.overrides import composed
from ssat.config.resolve import build, resolve
from ssat.config.schema import Run
from ssat.config.words import CONF
from ssat.core.errors import UserError
from ssat.core.words import nearest


def config(*overrides: str) -> Run:
    return resolve(composed(overrides))


@pytest.mark.parametrize(("img_size", "patch"), [(28, 2), (32, 2), (64, 4), (224, 16), (512, 32), (96, 6)])
def test_default_patch_follows_table_14(img_size, patch):
    assert default_patch(img_size) == patch


def test_modes_are_the_phases_of_the_paper():
    phases = {
        mode: [(phase.lam, phase.epochs, phase.recipe.name) for phase in config(f"mode={mode}").mode.phases]
        for mode in ("scratch", "ssat", "ssl_ft")
    }
    assert phases == {
        "scratch": [(1.0, 100, "official")],
        "ssat": [(0.1, 100, "official")],
        "ssl_ft": [(0.0, 100, "mae_pretrain"), (1.0, 100, "official")],
    }


def test_official_recipe_is_the_released_code():
    recipe = config().recipe
    expected = {
        "mixup": 0, "cutmix": 0, "label_smoothing": 0.1, "layer_decay": 1.0, "drop_path": 0, "base_lr": 1e-3,
        "lr_rule": "linear", "warmup_lr": 0, "warmup_epochs": 5, "min_lr": 1e-6, "norm_pix": False,
        "eval_crop_pct": 0.875, "weight_decay": 0.05, "clip_grad": None, "ema_decay": None,
    }  # fmt: skip
    assert {key: getattr(recipe, key) for key in expected} == expected


def test_paper_recipe_differs_from_the_released_code_where_table_14_does():
    ours, theirs = config("recipe=paper").recipe, config().recipe
    names = [field.name for field in dataclasses.fields(ours)]
    assert {name for name in names if getattr(ours, name) != getattr(theirs, name)} == {
        "name", "lr_rule", "warmup_lr", "drop_path", "mixup", "norm_pix", "scratch_pos_embed", "decoder"
    }  # fmt: skip


def test_a_recipe_has_the_weight_of_joint_training_unless_the_mode_names_one():
    def lams(*words):
        return [phase.lam for phase in config("recipe=small_data", *words).mode.phases]

    assert (lams(), lams("mode.lam=0.3"), lams("mode=scratch"), lams("mode=ssl_ft")) == (
        [0.5],
        [0.3],
        [1.0],
        [0.0, 1.0],
    )
    assert config_hash(config("recipe.lam=0.5")) == config_hash(config("mode.lam=0.5"))
    assert config_hash(config("recipe.lam=0.5", "mode=scratch")) == config_hash(config("mode=scratch"))


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["mode=scratch"], "mode=scratch does not read it"),
        (["mode=ssl"], "mode=ssl does not read it"),
        (["mode.lam=0.2"], "mode.lam=0.2 takes its place"),
        (["mode.phases.0.lam=0.3"], "mode.phases names another, 0.3"),
    ],
)
def test_a_typed_weight_that_no_joint_training_reads_is_refused(words, reason):
    words = [*words, "recipe.lam=0.4"]
    with pytest.raises(UserError, match=f"recipe.lam=0.4 is the weight of L_cls in mode=ssat, and {reason}: leave it"):
        check_typed(config(*words), words)


def test_the_weight_of_another_recipe_is_refused():
    words = ["mode=ssl_ft", "mode.ssl_recipe.lam=0.3"]
    with pytest.raises(UserError, match="mode.ssl_recipe.lam=0.3 .* only recipe.lam and mode.lam are read: leave it"):
        check_typed(config(*words), words)


@pytest.mark.parametrize(
    ("word", "key"),
    [
        ("recipe={lam:0.4}", "recipe.lam=0.4"),
        ("recipe={clip_augment:{}}", "recipe.clip_augment"),
        ('recipe={clip_augment:{hflip_prob:0.1},name:"a, b"}', "recipe.clip_augment.hflip_prob"),
    ],
)
def test_what_nothing_reads_is_refused_in_a_dictionary_too(word, key):
    with pytest.raises(UserError, match=f"^{key} is "):
        check_typed(config("mode=scratch"), [word])


def test_a_single_run_has_no_use_for_what_a_sweep_takes():
    check_sweeper(["hydra.mode=RUN", "hydra.sweeper.columns=null"])
    for word, key in (
        ("hydra.sweeper.rows={a:['seed=1']}", "hydra.sweeper.rows"),
        ("+hydra.sweeper.params.seed=1", "hydra.sweeper.params.seed"),
        ("hydra/sweeper=basic", "hydra/sweeper"),
        ("hydra/launcher=joblib", "hydra/launcher"),
    ):
        with pytest.raises(UserError, match=f"^{key} is of a sweep, and this is a single run: put -m before it"):
            check_sweeper([word])


def test_a_wrong_weight_is_named_by_the_key_that_was_typed():
    with pytest.raises(UserError, match="^recipe.lam='abc' is not possible"):
        config("recipe.lam=abc")
    with pytest.raises(UserError, match="^mode.lam=7 is not possible"):
        config("mode.lam=7")


def test_every_encoder_data_set_and_recipe_composes():
    for encoder in ("vit_t", "vit_s", "vit_b", "vit_micro"):
        config(f"encoder={encoder}")
    for data in ("data=digits", "data=cifar10"):
        config(data, "recipe=paper")
    config("data=image_folder", "data.root=x", "trainer=ddp_cpu", "logger=wandb")


def test_hash_ignores_how_a_run_is_watched():
    plain = config_hash(config())
    watched = config("logger=wandb", "data.num_workers=4", "experiment=x", "trainer.log_every=7", "force=true")
    assert config_hash(watched) == plain


@pytest.mark.parametrize("override", ["seed=1", "mode.lam=0.2", "encoder=vit_s", "recipe.base_lr=2e-3", "epochs=7"])
def test_hash_changes_with_what_is_computed(override):
    assert config_hash(config(override)) != config_hash(config())


FOLDER = ["data=image_folder", "data.root=x"]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([], ["data.pipeline=timm"]),
        ([], ["data.memory_gb=1"]),
        ([], ["data.max_pixels=1000"]),
        (["ssl=[mae,guidance]"], ["ssl=[mae,guidance]", "ssl.weights={mae:0.5,guidance:0.5}"]),
        ([*FOLDER, "data.classes=[b,1]"], [*FOLDER, 'data.classes=["1",b,b]']),
        (FOLDER, ["data=image_folder", "data.root=./x/"]),
        (FOLDER, ["data=image_folder", f"data.root={Path('x').absolute()}"]),
        (["mode.init_from=a.ckpt"], ["mode.init_from=b/../a.ckpt"]),
        (["encoder.pretrained=a.ckpt"], [f"encoder.pretrained={Path('a.ckpt').absolute()}"]),
        (["ssl=guidance", "ssl.teacher=a.ckpt"], ["ssl=guidance", "ssl.teacher=./a.ckpt"]),
    ],
)
def test_hash_is_that_of_the_computation_and_not_of_the_words(one, other):
    assert config_hash(config(*one)) == config_hash(config(*other))


def test_hash_knows_the_order_in_which_tasks_draw_their_weights():
    assert config_hash(config("ssl=[mae,guidance]")) != config_hash(config("ssl=[guidance,mae]"))


def test_differences_name_the_changed_keys():
    assert differences(config("seed=3"), config()) == ["seed: default -> 3"]


def test_a_configuration_of_another_project_is_refused_with_a_sentence(tmp_path):
    with pytest.raises(UserError, match="encoder=None is not possible"):
        check_same_run(config(), {"data": "imagenet"}, tmp_path)


def test_a_mandatory_key_is_asked_for_by_name():
    with pytest.raises(UserError, match="encoder.name has no default"):
        config("encoder=timm")
    with pytest.raises(UserError, match="data.root has no default"):
        config("data=image_folder")


@pytest.mark.parametrize(
    ("word", "meant"), [("recipe.base_lrr", "recipe.base_lr"), ("batch_size", "recipe.batch_size"), ("lam", "mode.lam")]
)
def test_nearest_key_is_found_by_its_whole_name_or_its_last_part(word, meant):
    options = ["recipe.base_lr", "recipe.batch_size", "mode.lam", "name", "seed"]
    assert nearest(word, options) == f" (did you mean {meant}?)"


@pytest.mark.parametrize(("word", "meant"), [("bfloat16", "bf16"), ("fp16", "16")])
def test_a_longer_name_of_a_precision_means_its_short_one(word, meant):
    assert nearest(word, ["32", "bf16", "16"]) == f" (did you mean {meant}?)"
    assert nearest("vit_x", ["vit", "vit_b", "vit_t"]).startswith(" (did you mean vit_")


def test_the_place_of_an_official_set_does_not_change_what_is_computed():
    def at(name: str, root: str) -> str:
        return config_hash(config(f"data={name}", f"data.root={root}"))

    assert at("svhn", "data") == at("svhn", "/elsewhere")
    assert at("image_folder", "data") != at("image_folder", "/elsewhere")


def test_a_folder_can_be_named_for_a_sweep_over_data_and_is_refused_where_none_is_read():
    config("+experiments=table10", "data=cifar10", "data.root=/mnt/data")
    with pytest.raises(UserError, match="data.root=/mnt/data is not read by data=digits"):
        config("data.root=/mnt/data")


def test_a_set_without_a_folder_keeps_its_name():
    values = dict(config("data=digits").values)
    without = build(values | {"data": {key: value for key, value in values["data"].items() if key != "root"}})
    assert config_hash(config("data=digits")) == config_hash(without)


@pytest.mark.sampled
@pytest.mark.parametrize("option", sorted(f"{p.parent.name}={p.stem}" for p in CONF.glob("encoder/*.yaml")))
def test_every_encoder_can_be_shown_resolved(option: str) -> None:
    """What `--cfg job --resolve` prints."""
    cfg = composed([option])
    OmegaConf.resolve(cfg)
    OmegaConf.to_yaml(cfg)
