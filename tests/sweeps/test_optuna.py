"""`hydra/sweeper=optuna` gets a run's decisive number and tells its best trial."""

import re
import shlex
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from optuna.samplers import GridSampler, TPESampler

from ssat.config.overrides import composed, prepared
from ssat.config.search import check_options, check_space, no_option
from ssat.config.words import FOLDERS
from ssat.core.errors import UserError
from ssat.runs.decisive import decisive
from ssat.sweeps.trials import best_lines
from tests.config.test_overrides import run_elsewhere
from tests.helpers import ROOT, command, fail_of

SEARCH = ["-m", "hydra/sweeper=optuna", "recipe.base_lr=interval(1e-4,1e-2)"]
BOTH = {"acc1": {"last": 70.0, "best": 75.0}, "balanced_acc": {"last": 60.0, "best": 66.0}, "loss": {"last": 0.9}}


def record(**values) -> dict:
    return {"metrics": {"test": BOTH}, "selection": "last", "config": {"data": {"frames": None}}} | values


def test_the_decisive_number_is_the_one_of_the_tables_or_of_the_validation_split():
    assert decisive(record()) == 70
    assert decisive(record(selection="max")) == 75
    assert decisive(record(config={"monitor": {"select": "balanced_acc"}})) == 60
    val = {"acc1": {"last": 71.0, "best": 72.0}}
    assert decisive(record(metrics={"test": BOTH, "val": val})) == 72
    videos = {"auc": {"last": 0.8, "best": 0.9}, "acc1": {"last": 60.0, "best": 70.0}}
    assert decisive(record(metrics={"test": videos}, config={"data": {"frames": 16}})) == 0.8
    assert decisive(record(metrics={"test": {"loss": {"last": 0.5, "best": 0.4}}})) == 0.5
    assert decisive({}) is None


def test_accuracy_is_maximised_and_a_loss_minimised_unless_the_user_says_so():
    assert "hydra.sweeper.direction=maximize" in prepared(SEARCH, "train")
    assert "hydra.sweeper.direction=minimize" in prepared([*SEARCH, "mode=ssl"], "train")
    given = prepared([*SEARCH, "hydra.sweeper.direction=minimize", "hydra.sweeper.n_jobs=3"], "train")
    assert sum("direction" in word or "n_jobs" in word for word in given) == 2
    assert not [word for word in prepared(["-m", "seed=0,1"], "train") if word.startswith("hydra.sweeper")]


def experiment(folder: Path, task: str = "scratch", launcher: str = "local", **hydra: object) -> list[str]:
    """The word for an experiment file of the user's own that searches."""
    content = {
        "defaults": [{"override /hydra/sweeper": "optuna"}, {"override /mode": task}],
        "epochs": 1,
        "hydra": hydra,
    }
    content["defaults"].append({"override /launcher": launcher})
    (folder / "experiments").mkdir(exist_ok=True)
    (folder / "experiments" / "find.yaml").write_text(f"# @package _global_\n{yaml.safe_dump(content)}")
    return ["+experiments=find"]


def test_a_search_of_an_experiment_file_has_what_is_usual_beneath_what_the_file_says(tmp_path, monkeypatch):
    monkeypatch.setattr("ssat.config.groups.FOLDERS", [*FOLDERS, tmp_path])
    both = {"mode": "MULTIRUN", "sweeper": {"n_trials": 2, "n_jobs": 3}}
    by_file = prepared(experiment(tmp_path, task="ssl", **both), "train")
    by_words = prepared(["-m", "hydra/sweeper=optuna", "mode=ssl", "hydra.sweeper.n_jobs=3"], "train")
    assert {*by_words} - {*by_file} == {"-m", "mode=ssl", "hydra.sweeper.n_jobs=3"}
    assert {*by_file} - {*by_words} == {"+experiments=find"}
    for wrong, said in (({}, "put -m before it"), ({"launcher": "slurm", "mode": "MULTIRUN"}, "launcher=slurm is not")):
        launcher = wrong.pop("launcher", "local")
        with pytest.raises(UserError, match=said):
            prepared(experiment(tmp_path, launcher=launcher, **wrong), "train")


@pytest.mark.slow
def test_an_experiment_file_searches_and_its_best_command_is_one_run(tmp_path):
    params = {"recipe.base_lr": "interval(1e-4,1e-2)"}
    words = experiment(tmp_path, **{"mode": "MULTIRUN", "sweeper": {"n_trials": 2, "params": params}})
    words = [f"--config-dir={tmp_path}", *words, "trainer.max_steps=1"]
    result = command(*words, runs=tmp_path / "runs")
    assert result.returncode == 0 and "[2/2] recipe.base_lr=" in result.stdout, result.stderr
    best = shlex.split(result.stdout.splitlines()[-1])
    assert best[-1] == "hydra.mode=RUN"
    again = subprocess.run([sys.executable, *best[1:]], cwd=ROOT, capture_output=True, text=True)
    assert again.returncode == 0 and "search:" not in again.stdout and "skipped" in again.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [(["hydra/sweeper=optuna", "seed=1"], "put -m before it"), ([*SEARCH, "launcher=slurm"], "leave it out")],
)
def test_a_search_that_cannot_be_is_refused(words, said):
    with pytest.raises(UserError, match=said):
        composed(words)


def test_without_the_package_the_sentence_names_the_extra(monkeypatch):
    monkeypatch.setattr("ssat.config.search.find_spec", lambda name: None)
    with pytest.raises(UserError, match="the extra `sweep`"):
        prepared(SEARCH, "train")


def test_the_best_trial_is_told_with_the_command_of_its_run():
    found = {"best_value": 78.9, "best_params": {"recipe.base_lr": 0.003}}
    best, repeat = best_lines(found, ["mode=ssat", "recipe.base_lr=interval(1e-4,1e-2)"])
    assert best == "best trial: 78.9 with recipe.base_lr=0.003"
    assert repeat.endswith("mode=ssat recipe.base_lr=0.003")


def test_a_start_does_not_import_optuna(tmp_path):
    start = [sys.executable, "-X", "importtime", "-m", "ssat.commands"]
    result = run_elsewhere(["train", "epochs=0"], tmp_path, start=start)
    imported = set(re.findall(r"^import time: .*\| +(\w+)", result.stderr, re.MULTILINE))
    assert fail_of(result) and "hydra" in imported and not {"optuna", "sqlalchemy"} & imported


@pytest.mark.slow
def test_four_trials_are_drawn_again_by_the_same_seed(tmp_path):
    words = [*SEARCH, "hydra.sweeper.n_trials=4"]
    words += ["hydra.sweeper.sampler.seed=3", "mode=ssat", "mode.lam=choice(0.1,0.5)"]
    first = command(*words, "epochs=1", runs=tmp_path)
    assert first.returncode == 0, first.stderr
    assert len(list(tmp_path.glob("*/*/result.json"))) == 4
    again = command(*words, "epochs=1", runs=tmp_path)
    assert again.stdout.count("skipped, already finished") == 4  # the same four trials
    (best,) = [line for line in first.stdout.splitlines() if line.startswith("best trial: ")]
    assert best in again.stdout.splitlines()
    accuracies = re.findall(r"skipped.*acc1 last ([\d.]+) %", again.stdout)
    assert max(map(float, accuracies)) == pytest.approx(float(best.split()[2]), abs=0.01)


def test_several_labels_are_searched_by_their_map_and_not_by_a_loss_which_would_be_maximised():
    several = {"map": {"last": 0.6, "best": 0.7}, "auroc": {"last": 0.8, "best": 0.9}, "loss": {"last": 0.5}}
    assert decisive(record(metrics={"test": several})) == 0.6
    assert decisive(record(metrics={"test": several}, config={"monitor": {"select": "auroc"}})) == 0.8


QUICK = ["hydra/sweeper=optuna", "mode=scratch", "epochs=1", "trainer.max_steps=1"]


@pytest.mark.slow
def test_a_trial_that_fails_does_not_end_the_search(tmp_path):
    words = [*QUICK, "-m", "hydra/sweeper/sampler=grid"]
    result = command(*words, "recipe.base_lr=choice(-1,1e-3)", "recipe.drop_path=choice(0.1,2)", runs=tmp_path)
    assert result.returncode == 2 and "Traceback" not in result.stderr
    lines = result.stdout.splitlines()
    assert [line.split()[0] for line in lines if re.match(r"\[\d/4\] ", line)] == [f"[{n}/4]" for n in range(1, 5)]
    rows = [line for line in lines if re.match(r" +\d  (finished|refused) ", line)]
    assert len(rows) == 4 and sum("refused" in row for row in rows) == 3
    (run,) = tmp_path.glob("*/*/result.json")
    assert "-base_lr=0.001-drop_path=0.1-s0-" in run.parent.name
    assert "search: 1 finished, 0 skipped (already finished), 3 failed" in lines
    assert [line for line in lines if line.startswith("best trial: ")][0].endswith("base_lr=0.001 recipe.drop_path=0.1")
    assert "\x1b" not in result.stdout + result.stderr and "Error executing job" not in result.stderr


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ({"n_trials": 0}, "n_trials=0 is not possible"),
        ({"n_jobs": 0}, "n_jobs=0 is not possible"),
        ({"direction": "up"}, "direction=up is not possible: it is maximize or minimize"),
        ({"direction": ["minimize", "maximize"]}, "a run has one number"),
        ({"max_failure_rate": 2.0}, "max_failure_rate=2.0 is not possible"),
    ],
)
def test_an_impossible_option_of_the_search_is_one_sentence(option, said):
    usual = {"n_trials": 2, "n_jobs": 1, "direction": "maximize", "max_failure_rate": 1.0}
    check_options(usual)
    with pytest.raises(UserError, match=said):
        check_options(usual | option)


def test_a_search_varies_something_and_a_grid_has_no_interval():
    parse = OverridesParser.create().parse_overrides
    with pytest.raises(UserError, match="has nothing to search"):
        check_space(parse(["seed=0"]), {})
    check_space(parse(["seed=0"]), {"search_space": {"seed": {}}})
    interval = parse(["recipe.base_lr=interval(1e-3,2e-3)"])
    check_space(interval, {"sampler": partial(TPESampler)})
    with pytest.raises(UserError, match="an interval has none"):
        check_space(interval, {"sampler": partial(GridSampler)})


def test_a_key_under_the_sweeper_is_known():
    assert "did you mean hydra.sweeper.n_trials?" in str(no_option("hydra.sweeper.n_trails", SEARCH))
    assert "write hydra/sweeper=optuna with it" in str(no_option("hydra.sweeper.n_trials", ["-m", "seed=0,1"]))
    assert no_option("recipe.base_lr", SEARCH) is None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["recipe.base_lr=1e-3,2e-3", "hydra.sweeper.n_trials=0"], "hydra.sweeper.n_trials=0 is not possible"),
        (["recipe.base_lr=1e-3,2e-3", "hydra.sweeper.direction=up"], "it is maximize or minimize"),
        (["recipe.base_lr=interval(1e-3,2e-3)", "hydra/sweeper/sampler=grid"], "an interval has none"),
        (["recipe.base_lr=interval(2e-3,1e-3)"], "Optuna refuses the search"),
        (["seed=0"], "has nothing to search"),
        (["seed=0,1", "hydra.sweeper.n_trails=2"], "did you mean hydra.sweeper.n_trials?"),
    ],
)
def test_a_search_that_cannot_begin_is_one_sentence(words, said, tmp_path):
    assert said in fail_of(command("-m", *QUICK, *words, runs=tmp_path))
    assert not list(tmp_path.glob("[!.]*"))
