"""Command lines that cannot be right: each is refused in one sentence that names the key."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ssat.config.components import check_components
from ssat.config.overrides import composed, prepared
from ssat.config.resolve import resolve
from ssat.config.schema import Run
from ssat.core.errors import UserError
from tests.helpers import ROOT, fail_of


def accepted(*words: str) -> Run:
    run = resolve(composed(words))
    check_components(run)
    return run


def refusal(*words: str) -> UserError:
    with pytest.raises(UserError) as caught:
        accepted(*words)
    assert "\n" not in str(caught.value)
    return caught.value


@pytest.mark.sampled
@pytest.mark.parametrize(
    ("word", "key", "sentence"),
    [
        ("recipe.augment.hflip=-1", "recipe.augment.hflip", "=-1 is not possible: it must be a number at least 0"),
        ('recipe.mix_mode="a b"', "recipe.mix_mode", "='a b' is not possible: it must be one of batch, pair, elem"),
        ("recipe.lr_rule=linaer", "recipe.lr_rule", "did you mean linear?"),
        ("recipe.decoder=2", "recipe.decoder", "=2 is not possible: it must be keys with values"),
        ("recipe.no_decay=7", "recipe.no_decay", "=7 is not possible: it must be a list"),
        ("recipe.betas=[0.9]", "recipe.betas", "it must be a list of 2"),
        ("recipe.base_lr=nan", "recipe.base_lr", "it must be a number above 0"),
        ("recipe.batch_size=0", "recipe.batch_size", "it must be a whole number at least 1"),
        ("recipe.batch_size=null", "recipe.batch_size", "=null is not possible"),
        ("mode.balance_every=abc", "mode.balance_every", "='abc' is not possible: it must be a whole number"),
        ("mode.lam=1.5", "mode.lam", "it must be a number at least 0 and at most 1"),
        ("mode.lam=high", "mode.lam", "='high' is not possible"),
        ("mode.lam_schedule=linear", "mode.lam_end", "set mode.lam_end"),
        ("trainer.max_steps=0", "trainer.max_steps", "it must be a whole number at least 1 or null"),
        ("trainer.threads=true", "trainer.threads", "=true is not possible"),
        ("trainer.precision=8", "trainer.precision", "it must be one of 32, bf16, 16"),
        ("force=[1,2,3]", "force", "=[1, 2, 3] is not possible: it must be true or false"),
        ('estimate="a b"', "estimate", "='a b' is not possible: it must be true or false"),
        ("name=nan", "name", "=nan is not possible: it must be text"),
        ("name=a/b", "name", "must be a plain folder name"),
        ("experiment=../x", "experiment", "'../x' must be a plain folder name"),
        ("monitor=7", "monitor", "=7 is not possible: it must be keys with values"),
        ("seed=-1", "seed", "=-1 is not possible"),
        ("epochs=0", "epochs", "=0 is not possible: it must be a whole number at least 1"),
        ("epochs=1.5", "epochs", "=1.5 is not possible"),
        ("ssl.mask_ratio=abc", "ssl.mask_ratio", "='abc' is not possible: it must be a number"),
        ("encoder.embed_dim=abc", "encoder.embed_dim", "it must be a whole number"),
        ("encoder.kind=vitt", "encoder.kind", "did you mean vit?"),
        ("encoder.kind='os:environ'", "encoder.kind", "is no class or function whose arguments can be read"),
        ("encoder.kind=':X'", "encoder.kind", "is not written as module:Class"),
        ("encoder.kind='..x:Y'", "encoder.kind", "is not written as module:Class"),
        ("encoder.mlp_ratio=-2", "encoder.mlp_ratio", "it must be a number above 0"),
        ("encoder.drop_path=1.5", "encoder.drop_path", "it must be a number at least 0 and at most 1"),
        ("data.img_size=100000000000", "data.img_size", "at most 16384"),
        ("data.root=[a]", "data.root", "is not the name of a folder"),
        ("mode.init_from=previous", "mode.init_from", "there is no phase before the first"),
        (f"recipe.base_lr=1{'0' * 400}", "recipe.base_lr", "it must be a number above 0"),
        (f"seed={'9' * 5000}", "seed", "is not understood"),
        ('hydra.sweeper.rows={"a b":[x=1]}', "hydra.sweeper.rows", "and a name in a dictionary without them"),
        ("name=''", "name", "must be a plain folder name"),
        ("runs_dir=''", "runs_dir", "names no folder"),
        ("epochs=1000000000", "epochs", "at most 1000000"),
        ("ssl.kind=reconstruktion", "ssl.kind", "did you mean reconstruction?"),
        # names of files
        ("data=0", "data", "data can be: chaoyang, cifar10"),
        ("data=schema", "data", "data=schema does not exist"),
        ("data=_domainnet", "data", "data=_domainnet does not exist"),
        ("encoder=", "encoder", "encoder can be: cct_2, cct_7, cvt_13"),
        ("encoder=null", "encoder", "encoder can be: cct_2, cct_7, cvt_13"),
        ("encoder=[vit_t]", "encoder", "encoder can be: cct_2, cct_7, cvt_13"),
        ("encoder=vit_tt", "encoder", "encoder=vit_tt does not exist (did you mean vit_t?)"),
        ("trainer=", "trainer", "trainer can be: auto, cpu, ddp, ddp_cpu, gpu"),
        ("ssl=5", "ssl", "ssl can be: convmae"),
        ("ssl=[mae,", "ssl", "is not a list of tasks such as ssl=[mae,guidance]"),
        ("ssl=[mae,2]", "ssl", "is not a list of tasks such as ssl=[mae,guidance]"),
        ("ssl=[mae,NaN]", "ssl", "is not a list of tasks such as ssl=[mae,guidance]"),
        ("ssl=[mae,nope]", "ssl", "ssl=nope does not exist"),
        ("+experiments=tabel1", "experiments", "experiments=tabel1 does not exist (did you mean table1?)"),
        ("+experiments=claims", "experiments", "experiments=claims does not exist"),
        ("experiments=table1", "experiments", "write +experiments=<name>"),
        # unknown keys
        ("data.nope=1", "data.nope", "there is no key 'data.nope' (did you mean data.name?)"),
        ("lam=0.1", "lam", "there is no key 'lam' (did you mean mode.lam?)"),
        ("trainer={nope:1}", "trainer.nope", "there is no key 'trainer.nope'"),
        ("+recipe.base_lrr=1", "recipe.base_lrr", "did you mean recipe.base_lr?"),
        ("++recipe.base_lrr=1", "recipe.base_lrr", "did you mean recipe.base_lr?"),
        ("~recipe.base_lrr", "recipe.base_lrr", "did you mean recipe.base_lr?"),
        ("+callbacks.es._target_=os.remove", "callbacks.es._target_", "there is no key"),
        ("+trainer.gradient_clip_algorithm=value", "trainer.gradient_clip_algorithm", "there is no key"),
        ("+model@net=vit_t", "model@net", "there is no key"),
        ("+seed=1", "seed", "write seed=... without the sign"),
        ("~seed", "seed", "give it another value, seed=..."),
        ("~logger", "logger", "give it another value, logger=..."),
        # no overrides at all
        ("=3", "", "names no key"),
        ('hydra={sweeper:{rows:{a:["seed=1"]}}}', "hydra", "write hydra.<key>=<value>, a word for each"),
        ("hydra/sweeper=null", "hydra/sweeper", "'hydra/sweeper=null' is not possible: leave it out"),
        (
            "hydra.sweeper.params={seed:3}",
            "hydra.sweeper.params.seed",
            "write +hydra.sweeper.params.seed=...",
        ),
        ("hello", "hello", "has no value: write key=value"),
        ("--nope", "--nope", "unrecognized arguments: --nope"),
        ("seed=0=1", "seed", "in quotes"),
        ("seed=0,1", "seed", "put -m before them"),
        ("hydra.mode=x", None, "hydra.mode=x: Invalid value 'x'"),
    ],
)
def test_an_impossible_word_is_refused_with_its_key(word, key, sentence):
    error = refusal(word)
    assert error.key == key
    assert sentence in str(error)


def test_an_odd_batch_cannot_be_mixed():
    assert refusal("recipe.mixup=0.8", "recipe.batch_size=7").key == "recipe.batch_size"


@pytest.mark.parametrize(
    "words",
    [
        ["+experiments=table10", "data=digits"],
        ["ssl=[mae,drloc]"],
        ["ssl=several", "+ssl@ssl.tasks.mae=mae", "+ssl@ssl.tasks.drloc=drloc"],
        ["launcher=slurm", "+launcher.sbatch.qos=long"],
        ["+hydra.job.env_set.A=1"],
        ["++seed=3"],
        ["trainer={devices: 2}"],
    ],
)
def test_what_adds_a_file_or_an_option_of_sbatch_is_accepted(words):
    accepted(*words)


@pytest.mark.parametrize("flag", [["--experimental-rerun", "a.pickle"], ["--exp=a.pickle"]])
def test_hydras_pickles_are_not_read(flag: list[str]) -> None:
    with pytest.raises(UserError, match="--experimental-rerun=a.pickle reads a pickle, which can run any code"):
        prepared([*flag, "epochs=1"], "train")


def test_flags_may_stand_between_the_overrides():
    assert prepared(["seed=3", "-m", "epochs=2"], "train") == ["-m", "seed=3", "epochs=2"]


@pytest.mark.sampled
@pytest.mark.parametrize(
    "words",
    [
        ["seed=0=1"],
        ["--nope"],
        ["epochs=0"],
        ["data=0"],
        ["+trainer.gradient_clip_algorithm=value"],
        ["-m", "~logger", "seed=0,1"],
        ["-m", "data=0,digits"],
        ["ssl.mask_ratio=abc", "trainer=cpu"],
        ["data=image_folder", "data.root=/nope"],
        ["--config-dir", "nowhere"],
    ],
)
def test_the_command_prints_one_sentence_and_writes_nothing(words, tmp_path):
    result = run_elsewhere(["train", *words], tmp_path)
    assert words[-1].split("=")[0].lstrip("+~") in fail_of(result) or len(words) > 1
    assert len(result.stderr.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def run_elsewhere(words: list[str], folder: Path, start: list[str] | None = None) -> subprocess.CompletedProcess:
    """`ssat ...` in another folder than the repository's."""
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    line = [*(start or [sys.executable, "-m", "ssat.commands"]), *words]
    return subprocess.run(line, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
