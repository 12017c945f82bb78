"""`--help` explains every group, option and key, on any terminal and in a pipe."""

import dataclasses
import re
import sys
from pathlib import Path

import pytest

from ssat.config import schema
from ssat.config.groups import groups, header, options
from ssat.config.help import SECTIONS, keys_of, show_help
from ssat.core.errors import UserError
from tests.config.test_overrides import run_elsewhere
from tests.helpers import command, fail_of


@pytest.fixture
def helped(capsys, monkeypatch):
    """What --help prints of some topics."""

    def told(*topics: str, columns: int = 100) -> str:
        monkeypatch.setenv("COLUMNS", str(columns))
        show_help("train", topics)
        return capsys.readouterr().out

    return told


def test_every_group_and_every_option_is_explained_by_its_first_comment(helped):
    out = " ".join(helped().split())
    for group in groups():
        assert f"{group}: " in out
        for name, path in options(group).items():
            assert f"{name} {' '.join(header(path).split())}" in out


def test_what_is_internal_is_not_offered(helped):
    lines = [line for line in helped().splitlines() if line.startswith("  ") and line[2] != " "]
    offered = {line.split()[0] for line in lines}
    assert offered >= {"digits", "vit_t", "official"}
    assert not offered & {"_domainnet", "schema", "_self_", "claims", "data.source=", "values="}


def test_keys_without_a_group_have_default_and_help(helped):
    out = helped(columns=130)
    for field in dataclasses.fields(schema.Run):
        if field.name in ("seed", "epochs", "force", "eval_every"):
            assert f"  {field.name}={str(field.default).lower()} " in out
            assert field.metadata["help"][:40] in out


@pytest.mark.parametrize("section", list(SECTIONS))
def test_a_section_explains_every_key(helped, section):
    place, kind = SECTIONS[section]
    out = helped(section)
    for key in keys_of(kind, place):
        assert f"  {key.place}=" in out


def test_a_key_of_an_option_is_explained_with_the_option(helped):
    told = " ".join(helped("data.held_out=Deepfakes").split())
    assert told.startswith("data.held_out=null Deepfakes | Face2Face") and "a key of data=ffpp; python" in told
    told = " ".join(helped("data.root").split())
    assert "a key of data=ffpp;" in told and "data.root=data/dfdc_clips the prepared folder" in told
    assert "a key of encoder=videomae_b, encoder=videomae_micro, encoder=videomae_s" in " ".join(
        helped("encoder.tubelet_size").split()
    )
    with pytest.raises(UserError, match=r"no group or key 'data.heldout' \(did you mean data.held_out\?\)"):
        helped("data.heldout")


@pytest.mark.parametrize("name", ["ffpp", "dfdc", "dfdcp", "video_folder"])
def test_a_set_of_videos_lists_what_decides_its_clips(helped, name):
    told = helped(f"data={name}")
    assert all(told.count(f"  data.{key}=") == 1 for key in ("frames", "frame_step", "max_clips", "average"))
    assert "data.frame_step" not in helped("data=digits")


def test_a_key_tells_range_and_default(helped):
    assert helped("recipe.drop_path", columns=130) == (
        "  recipe.drop_path=0.0  row 4: the code's 0.1 never reaches the model (a number at least 0 and at most 1)\n"
    )


def test_an_encoder_shows_its_arguments_with_values_and_comments(helped):
    out = helped("encoder=vit_s", columns=130)
    assert "ViT-S as in DeiT" in out
    assert re.search(r"^  encoder.embed_dim=384 +\(a whole number\)$", out, re.MULTILINE)  # its own
    assert "  encoder.depth=12 " in out  # of the file that it builds on
    assert "sincos (fixed, as the authors)" in out  # a comment there
    assert "default: follows data.img_size" in " ".join(out.split())


@pytest.mark.parametrize(
    "option", ["ssl=mae", "recipe=paper", "mode=ssl_ft", "data=hf", "input=up224", "encoder=cvt_13"]
)
def test_every_kind_of_option_is_explained(helped, option):
    group, _, name = option.partition("=")
    assert header(options(group)[name])[:30] in helped(option)


@pytest.mark.parametrize(
    ("word", "answer"),
    [("recipee", "did you mean recipe?"), ("recipe.base_lrr", "did you mean recipe.base_lr?"), ("xyz", "launcher")],
)
def test_an_unknown_word_is_answered_with_the_nearest(helped, word, answer):
    with pytest.raises(UserError, match=re.escape(f"there is no group or key '{word}'")) as refused:
        helped(word)
    assert answer in str(refused.value)


def test_an_unknown_option_is_refused_with_the_nearest():
    with pytest.raises(UserError, match="did you mean vit_t"):
        show_help("train", ["encoder=vit_tt"])


def test_the_words_of_a_command_are_explained_whatever_their_values(helped):
    assert helped("epochs=3") == helped("epochs")
    assert helped("+experiments=table3") == helped("experiments=table3")
    assert "Table 3" in helped("experiments=table3") and "  experiment: table3" in helped("experiments=table3")


@pytest.mark.parametrize("columns", [40, 60, 100, 300])
def test_lines_fit_the_terminal(helped, columns):
    for line in helped("launcher", "trainer", columns=columns).splitlines():
        assert len(line) <= columns or len(line.split()) == 1


def test_help_needs_no_torch_and_works_elsewhere(tmp_path):
    script = tmp_path / "helped.py"
    script.write_text(
        "import sys\nfrom ssat.commands.__main__ import main\nmain('train')\nassert 'torch' not in sys.modules\n"
    )
    result = run_elsewhere([], tmp_path, start=[sys.executable, str(script), "--help"])
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("usage: ssat train [-m] group=option")
    assert "python -m src." not in result.stdout


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--resolve"], "The --resolve flag can only be used in conjunction with --cfg or --help"),
        (["--cfg=job", "--multirun"], "Only one of --run, --multirun, --cfg, --info and --shell_completion can be"),
        (["--shell-completion"], "Expecting one subcommand from ['install', 'uninstall', 'query'] to be set"),
    ],
    ids=["resolve", "two", "completion"],
)
def test_flags_of_hydra_that_do_not_fit_are_a_sentence(flags: list[str], sentence: str, tmp_path: Path) -> None:
    assert fail_of(command(*flags, runs=tmp_path)).startswith(f"error: {sentence}")
