import pytest
from hydra import compose, initialize_config_dir

from src.cli import CONF
from src.config import check, config_hash, default_patch, differences, nearest, resolve
from src.errors import UserError


def config(*overrides: str) -> dict:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return resolve(compose("train", overrides=list(overrides)))


@pytest.mark.parametrize(("img_size", "patch"), [(28, 2), (32, 2), (64, 4), (224, 16), (512, 32), (96, 6)])
def test_default_patch_follows_table_14(img_size, patch):
    assert default_patch(img_size) == patch


def test_modes_are_the_phases_of_the_paper():
    phases = {
        mode: [(p["lam"], p["epochs"], p["recipe"]["name"]) for p in config(f"mode={mode}")["mode"]["phases"]]
        for mode in ("scratch", "ssat", "ssl_ft")
    }
    assert phases == {
        "scratch": [(1.0, 100, "official")],
        "ssat": [(0.1, 100, "official")],
        "ssl_ft": [(0.0, 100, "mae_pretrain"), (1.0, 100, "official")],
    }


def test_official_recipe_is_the_released_code():
    recipe = config()["recipe"]
    expected = {
        "mixup": 0, "cutmix": 0, "label_smoothing": 0.1, "layer_decay": 1.0, "drop_path": 0, "base_lr": 1e-3,
        "lr_rule": "linear", "warmup_lr": 0, "warmup_epochs": 5, "min_lr": 1e-6, "norm_pix": False,
        "eval_crop_pct": 0.875, "weight_decay": 0.05, "clip_grad": None, "ema_decay": None,
    }  # fmt: skip
    assert {key: recipe[key] for key in expected} == expected


def test_paper_recipe_differs_from_the_released_code_where_table_14_does():
    ours, theirs = config("recipe=paper")["recipe"], config()["recipe"]
    changed = {key for key in ours if ours[key] != theirs[key]}
    assert changed == {
        "name", "lr_rule", "warmup_lr", "drop_path", "mixup", "norm_pix", "scratch_pos_embed", "decoder"
    }  # fmt: skip


def test_every_encoder_data_set_and_recipe_composes():
    for encoder in ("vit_t", "vit_s", "vit_b", "vit_micro"):
        check(config(f"encoder={encoder}"))
    for data in ("data=digits", "data=cifar10"):
        check(config(data, "recipe=paper"))
    check(config("data=image_folder", "data.root=x", "trainer=ddp_cpu", "logger=wandb"))


def test_hash_ignores_how_a_run_is_watched():
    plain = config_hash(config())
    watched = config("logger=wandb", "data.num_workers=4", "experiment=x", "trainer.log_every=7", "force=true")
    assert config_hash(watched) == plain


@pytest.mark.parametrize("override", ["seed=1", "mode.lam=0.2", "encoder=vit_s", "recipe.base_lr=2e-3", "epochs=7"])
def test_hash_changes_with_what_is_computed(override):
    assert config_hash(config(override)) != config_hash(config())


def test_differences_name_the_changed_keys():
    assert differences(config("seed=3"), config()) == [
        "name: vit_t-digits-ssat-s0 -> vit_t-digits-ssat-s3",
        "seed: 0 -> 3",
    ]


def test_a_configuration_of_another_project_differs_without_a_crash():
    assert "data: imagenet -> None" in differences(config(), {"data": "imagenet"})


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["mode.lam=1.5"], "lam=1.5 of phase 'joint' is outside [0, 1]"),
        (["mode.lam=-0.1"], "lam=-0.1 of phase 'joint' is outside [0, 1]"),
        (["mode.lam=high"], "lam='high' of phase 'joint' is outside [0, 1]"),
        (["epochs=0"], "epochs=0 is not possible"),
        (["epochs=1.5"], "epochs=1.5 of phase 'joint' is not a whole number"),
        (["recipe.batch_size=0"], "recipe.batch_size=0 is not possible"),
        (["recipe.lr_rule=linaer"], "did you mean linear?"),
        (["recipe.mixup=0.8", "recipe.batch_size=7"], "recipe.batch_size=7 is odd"),
        (["recipe.mixup=0.8", "recipe.batch_size=null"], "recipe.batch_size=None is not possible"),
        (["recipe.batch_size=16.5"], "recipe.batch_size=16.5 is not possible: it must be a whole number"),
        (["trainer.precision=8"], "trainer.precision=8 is not one of 32, bf16, 16"),
        (["name=a/b"], "must be a plain folder name"),
        (["seed=-1"], "seed=-1 is not possible"),
    ],
)
def test_impossible_values_are_refused_with_one_sentence(overrides, sentence):
    with pytest.raises(UserError) as caught:
        check(config(*overrides))
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


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


def test_the_place_of_an_official_set_does_not_change_what_is_computed() -> None:
    def at(name: str, root: str) -> str:
        return config_hash({"data": {"name": name, "root": root, "source": {"root": root}}})

    assert at("svhn", "data") == at("svhn", "/elsewhere")
    assert at("image_folder", "data") != at("image_folder", "/elsewhere")


def test_a_folder_can_be_named_for_a_sweep_over_data_and_is_refused_where_none_is_read():
    check(config("+experiments=table10", "data=cifar10", "data.root=/mnt/data"))
    with pytest.raises(UserError, match="data.root=/mnt/data is not read by data=digits"):
        check(config("data.root=/mnt/data"))


def test_a_set_without_a_folder_keeps_its_name():
    digits = config("data=digits")
    without = digits | {"data": {key: value for key, value in digits["data"].items() if key != "root"}}
    assert config_hash(digits) == config_hash(without)
