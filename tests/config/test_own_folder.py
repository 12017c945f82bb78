"""Configuration files and classes of a user's own: --config-dir, in one run, in sweeps and in later commands."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from ssat.config.components import check_components
from ssat.config.groups import take_folders
from ssat.config.overrides import composed
from ssat.config.resolve import resolve
from ssat.config.words import FOLDERS
from ssat.core.errors import UserError
from ssat.runs.saved import saved_configuration
from tests.config.test_overrides import run_elsewhere
from tests.helpers import TINY, fail_of

QUICK = [word for word in TINY if not word.startswith("encoder")] + ["epochs=1", "trainer.max_steps=1"]


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture
def own(tmp_path) -> Path:
    """A folder with an encoder of the user's: its file in my_conf, its module beside it."""
    write(
        tmp_path / "my_conf" / "encoder" / "mine.yaml",
        "# My ViT\ndefaults: [vit_micro]\nkind: my_module:MyEncoder\nname: mine\ndepth: 2\n",
    )
    write(
        tmp_path / "my_module.py",
        "from ssat.encoders.vit import VisionTransformer\n\n\nclass MyEncoder(VisionTransformer):\n    pass\n",
    )
    return tmp_path


def refusal(*words: str) -> UserError:
    with pytest.raises(UserError) as caught:
        check_components(resolve(composed(words)))
    assert "\n" not in str(caught.value)
    return caught.value


def test_a_file_of_ones_own_is_chosen_like_ours_and_named_among_the_options(own):
    words = take_folders(["--config-dir", str(own / "my_conf"), "encoder=mine"])
    assert resolve(composed(words)).encoder.kind == "my_module:MyEncoder"
    assert "mine" in str(refusal("encoder=mnie"))


@pytest.mark.parametrize(
    ("file", "text", "words", "key"),
    [
        ("recipe/own.yaml", "defaults: [official]\nbtach_size: 8\n", ["recipe=own"], "recipe.btach_size"),
        ("trainer/own.yaml", "defaults: [schema]\ngpus: 8\n", ["trainer=own"], "trainer.gpus"),
        ("encoder/own.yaml", "defaults: [vit_micro]\nembed_dmi: 8\n", ["encoder=own"], "encoder.embed_dmi"),
        ("ssl/own.yaml", "defaults: [mae]\nmask_ration: 0.5\n", ["ssl=own"], "ssl.mask_ration"),
        ("data/own.yaml", "defaults: [digits]\nimage_size: 8\n", ["data=own"], "data.image_size"),
        ("mode/own.yaml", "defaults: [ssat]\nlambda: 0.5\n", ["mode=own"], "mode.lambda"),
        ("experiments/own.yaml", "# @package _global_\nhooks: {es: 1}\n", ["+experiments=own"], "hooks"),
        ("encoder/own.yaml", "kind: no_such_module:Net\nname: own\n", ["encoder=own"], "encoder.kind"),
        ("encoder/own.yaml", "kind: os:Net\nname: own\n", ["encoder=own"], "encoder.kind"),
        ("encoder/own.yaml", "defaults: [vit_mikro]\nname: own\n", ["encoder=own"], "encoder"),
        ("encoder/own.yaml", "kind: [vit\n", ["encoder=own"], None),
        ("encoder/own.yaml", "kind: vit\nname: own\ndepth:4\n", ["encoder=own"], None),
        ("encoder/own.yaml", "kind: vit\n", ["encoder=own"], "encoder.name"),
        ("encoder/own.yaml", "- vit\n", ["encoder=own"], "encoder"),
        ("recipe/own.yaml", "", ["recipe=own"], "recipe"),
        ("data/own.yaml", "source: {kind: digits}\nname: own\n", ["data=own"], "data"),
        ("experiments/own.yaml", "epochs: 3\n", ["+experiments=own"], "experiments"),
        ("experiments/own.yaml", "# @package _global_\nepoch: 3\n", ["+experiments=own"], "epoch"),
    ],
)
def test_what_is_wrong_in_a_file_of_ones_own_is_refused_with_its_key_and_file(tmp_path, file, text, words, key):
    write(tmp_path / file, text)
    error = refusal(*take_folders([f"--config-dir={tmp_path}", *words]))
    assert error.key == key and str(tmp_path / file) in str(error)


def test_the_line_without_a_colon_is_named_and_not_the_next_one(tmp_path):
    write(tmp_path / "encoder/own.yaml", "kind: vit\nname: own\ndepth:4\n")
    assert "own.yaml, line 3 " in str(refusal(*take_folders([f"--config-dir={tmp_path}", "encoder=own"])))


def test_an_argument_that_a_file_does_not_list_is_named_with_the_cure(tmp_path):
    write(tmp_path / "encoder/own.yaml", "kind: vit\nname: own\nembed_dim: 32\n")
    error = refusal(*take_folders([f"--config-dir={tmp_path}", "encoder=own", "encoder.num_heads=2"]))
    assert error.key == "encoder.num_heads" and "add num_heads: ... to that file" in str(error)


@pytest.mark.parametrize(
    ("flags", "sentence"), [(["--config-dir"], "needs a folder"), (["-cd", "x"], "is not a folder")]
)
def test_a_folder_that_is_none_is_refused(flags, sentence):
    with pytest.raises(UserError, match=sentence):
        take_folders(flags)


def test_a_group_in_place_of_its_parent_is_refused(own):
    with pytest.raises(UserError, match="holds no folder of a group"):
        take_folders(["--config-dir", str(own / "my_conf" / "encoder")])


def test_a_run_of_the_users_class_is_evaluated_only_with_its_folder(own):
    words = ["encoder=mine", "data=digits"]
    values = resolve(composed(take_folders(["--config-dir", str(own / "my_conf"), *words]))).values
    write(own / "run" / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(dict(values))))
    assert saved_configuration(own / "run", []).encoder.kind == "my_module:MyEncoder"
    del FOLDERS[1:]
    with pytest.raises(UserError) as caught:
        saved_configuration(own / "run", [])
    assert (caught.value.key, caught.value.value) == ("encoder.kind", "my_module:MyEncoder")


@pytest.mark.slow
def test_jobs_of_a_sweep_and_later_commands_find_the_users_class(own):
    sweep = ["train", "-m", "--config-dir", "my_conf", "encoder=mine", *QUICK, "launcher=processes"]
    result = run_elsewhere(sweep, own)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "1 finished" in result.stdout
    (run,) = own.glob("runs/*/*/result.json")
    refused = run_elsewhere(["evaluate", f"run={run.parent}"], own)
    assert "encoder.kind=my_module:MyEncoder is code that no configuration file" in fail_of(refused)
    evaluated = run_elsewhere(["evaluate", "--config-dir", "my_conf", f"run={run.parent}"], own)
    assert evaluated.returncode == 0, evaluated.stderr


def test_a_word_of_the_command_line_is_not_blamed_on_the_file(tmp_path):
    write(tmp_path / "encoder/own.yaml", "defaults: [vit_micro]\nname: own\ndepth: 3\n")
    assert "own.yaml" not in str(refusal(*take_folders([f"--config-dir={tmp_path}", "encoder=own", "encoder.depth=x"])))


BOMB = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 9))


@pytest.mark.parametrize(
    "content",
    [
        *(b"# caf\xe9\nkind: vit\n", b"1: 2\n", b"defaults: 5\n", b"defaults: [[vit_t]]\n", b"defaults: [mine]\n"),
        *(b"x: &a [*a]\n", b"a: " + b"[" * 3000, b"kind: vit\0\n", BOMB.encode()),
    ],
    ids=["latin-1", "number", "defaults", "nested", "itself", "cycle", "deep", "nul", "bomb"],
)
def test_a_hostile_file_is_one_sentence(tmp_path, content):
    (tmp_path / "encoder").mkdir()
    (tmp_path / "encoder" / "mine.yaml").write_bytes(content)
    assert refusal(*take_folders([f"--config-dir={tmp_path}", "encoder=mine"]))
