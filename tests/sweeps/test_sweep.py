"""Sweeps of tiny real runs as commands, and the rules of rows x columns on their own."""

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra._internal.callbacks import Callbacks
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.types import HydraContext
from omegaconf import DictConfig

from ssat.config.check_typed import whole_keys
from ssat.config.identity import config_hash
from ssat.config.resolve import resolve
from ssat.config.schema import Launcher, Run
from ssat.config.words import CONF
from ssat.core.errors import UserError
from ssat.runs.folder import find_finished, find_run_dir
from ssat.sweeps.jobs import (
    Job,
    JobOutcome,
    Request,
    exit_code,
    outcome_of,
    own_words,
    repeat_command,
    report_failure,
    stages,
    summary,
    variants,
)
from tests.helpers import ROOT, TINY, fail_of, record_of

QUICK = ["data.samples_per_class=5", "epochs=1", "reconstruct_every=0"]


def sweep(*words: str, runs: Path) -> subprocess.CompletedProcess:
    """The command with -m; the words come last and win."""
    line = [sys.executable, "-m", "src.train", "-m", *TINY, *QUICK, f"runs_dir={runs}", *words]
    return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=500)


def config_of(*words: str, runs: Path) -> Run:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return resolve(compose("train", overrides=[*TINY, *QUICK, f"runs_dir={runs}", *words]))


def labels(found: list) -> list[str]:
    return [variant.label for variant in found]


def test_variants_are_rows_times_columns_row_by_row_without_the_skipped():
    found = variants({"a": ["seed=1"], "b": []}, {"x": ["data=svhn"], "y": ["data=pmnist"]}, skip=["b / x"])
    assert labels(found) == ["a / x", "a / y", "b / y"]
    assert found[0].words == ("seed=1", "data=svhn")


@pytest.mark.parametrize(
    "words",
    [
        *(3, ["seed=1"], {"a": 1}, {"a": "seed=1"}, {"a": {"mode.lam": 0.3}}, {"a": [1]}),
        *({"a": [""]}, {"a": ["=1"]}, {"a": ["seed"]}, {"a": ["seed=1", " "]}),
    ],
)
@pytest.mark.parametrize("place", ["rows", "columns", "cells"])
def test_rows_columns_and_cells_are_names_with_lists_of_overrides(place, words):
    given = {"rows": None, "columns": None} | {place: words}
    with pytest.raises(
        UserError, match=rf"^hydra.sweeper.{place} has .* where a name with a list of overrides must be"
    ):
        variants(**given)


def test_names_may_be_numbers_and_overrides_nothing():
    found = variants({0: ["seed=1"], True: None}, {0.5: None}, cells={"0 / *": None})
    assert labels(found) == ["0 / 0.5", "True / 0.5"]


def test_every_form_of_an_override_is_possible_in_a_row():
    words = ["seed=1", "+experiments=x", "++recipe.lam=", "~callbacks", "ssl@ssl.tasks.mae=mae"]
    assert variants({"a": words}, None)[0].words == tuple(words)


def test_params_of_a_sweep_are_overrides_of_whole_keys():
    params = {"encoder": {"depth": "1,2"}, "recipe.betas": [0.9, 0.95], "data.label_fraction": None}
    assert whole_keys(params) == {
        "encoder.depth": "1,2",
        "recipe.betas": "[0.9, 0.95]",
        "data.label_fraction": "null",
    }


@pytest.mark.parametrize("skip", [3, "a / x", [1]])
def test_skip_is_a_list_of_names(skip):
    with pytest.raises(UserError, match="^hydra.sweeper.skip=.* is not a list of 'row / column'"):
        variants({"a": []}, {"x": []}, skip=skip)


def test_without_rows_and_columns_there_is_one_nameless_variant():
    assert labels(variants(None, None)) == [""]
    assert labels(variants({"a": None}, None)) == ["a"]
    assert labels(variants(None, {"x": ["seed=1"]})) == ["x"]


def test_a_columns_override_wins_over_its_rows_and_the_command_lines_over_both():
    (variant,) = variants({"a": ["epochs=3", "seed=1"]}, {"x": ["epochs=4", "data=svhn"]}, given=["+data=digits"])
    assert variant.words == ("seed=1", "epochs=4")


def test_a_list_of_tasks_in_a_row_is_one_key_that_the_command_line_can_replace():
    (variant,) = variants({"both": ["ssl=[mae,drloc]"]}, None)
    assert variant.words == ("ssl=several", "+ssl@ssl.tasks.mae=mae", "+ssl@ssl.tasks.drloc=drloc")
    (variant,) = variants({"both": ["ssl=[mae,drloc]"]}, None, given=["ssl=simclr"])
    assert variant.words == ()


def test_another_data_set_on_the_command_line_has_its_own_batch():
    columns = {"CIFAR": ["data=cifar10", "trainer.accumulate=1"], "IN": ["data=imagenet", "trainer.accumulate=8"]}
    assert [variant.words for variant in variants(None, columns)] == [tuple(words) for words in columns.values()]
    assert [variant.words for variant in variants(None, columns, given=["data=image_folder"])] == [(), ()]
    assert variants({"drloc": ["trainer.accumulate=8"]}, columns, given=["data=x"])[0].words == (
        "trainer.accumulate=8",
    )


def test_skip_must_name_a_variant():
    with pytest.raises(UserError, match="skip names 'a / z'"):
        variants({"a": []}, {"x": []}, skip=["a / z"])


def test_the_repeat_command_is_what_the_user_would_type_quoted_for_a_shell():
    words = ["name=it's", "ssl=several", "+ssl@ssl.tasks.mae=mae", "+ssl@ssl.tasks.drloc=drloc", "launcher=processes"]
    line = shlex.split(repeat_command([*words, "launcher.jobs=2"]))
    assert line == ["python", "-m", "src.train", "name=it's", "ssl=[mae,drloc]"]


def test_one_run_of_an_experiment_file_does_not_start_its_sweep():
    assert own_words(["+experiments=table1", "seed=1"])[-1] == "hydra.mode=RUN"


def test_a_crashs_reason_is_one_line_also_of_a_process_of_a_process():
    crash = outcome_of(RuntimeError("\n\n-- Process 0 terminated --\nTraceback ...\n\nZeroDivisionError: a bug\n"))
    assert (crash.status, crash.reason) == ("crashed", "ZeroDivisionError: a bug")
    assert outcome_of(KeyError("x")).reason == "KeyError: 'x'"
    assert outcome_of(UserError("wrong")) == JobOutcome("refused", "wrong")


@pytest.mark.parametrize(
    ("statuses", "code"),
    [(["finished", "skipped"], 0), (["refused", "finished"], 2), (["refused", "crashed"], 1), ([], 0)],
)
def test_the_exit_code_tells_mistakes_from_crashes(statuses, code):
    assert exit_code([JobOutcome(status) for status in statuses]) == code


def test_the_summary_counts_what_was_not_started():
    job = Request("run", "a / x", ("seed=1",))
    lines = summary([(job, JobOutcome("finished")), (job, JobOutcome("crashed", "no luck"))], total=4)
    assert lines[0] == "sweep: 1 finished, 0 skipped (already finished), 1 failed, 2 not finished"
    assert lines[1:] == ["  crashed: run (a / x)", "    no luck", "    python -m src.train seed=1"]


def test_equal_reasons_are_one_line_of_the_summary_with_the_first_names(capsys):
    jobs = [Request(f"run{number}", "", (f"seed={number}",)) for number in range(24)]
    refused = [(job, JobOutcome("refused", "no videos")) for job in jobs[:20]]
    starts = [(job, JobOutcome("refused", f"it starts from {job}", common="no start")) for job in jobs[20:23]]
    lines = summary([*refused, *starts, (jobs[23], JobOutcome("crashed", "no luck"))], total=24)
    assert lines[1:] == [
        "  20 runs cannot start: no videos",
        "    run0, run1, run2 and 17 more",
        "  3 runs cannot start: no start",
        "    run20, run21, run22",
        *("  crashed: run23", "    no luck", "    python -m src.train seed=23"),
    ]
    told: set[str] = set()
    for job, outcome in [*refused[:2], *starts]:
        report_failure(job, outcome, told)
    report_failure(*refused[2], told, begun=False)  # no line has said that it begins
    assert capsys.readouterr().err.splitlines() == [
        "error: run0: no videos",
        "error: run1: as before",
        "error: run20: it starts from run20",
    ]


def test_an_estimate_names_data_that_are_not_there_once(tmp_path):
    words = ["encoder=videomae_micro", "data=ffpp", f"data.root={tmp_path / 'none'}", "mode=scratch,ssat", "seed=0,1"]
    result = sweep(*words, "estimate=true", runs=tmp_path)
    assert result.returncode == 2 and "[1/4]" not in result.stdout
    assert "  4 runs cannot start: " in result.stdout and result.stderr.count("error: ") == 1


@pytest.fixture
def sweeper():
    """A sweeper as Hydra sets it up, without the command around it."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        sweeper_class = Plugins.instance().class_name_to_class["hydra_plugins.ssat_sweeper.VariantSweeper"]
        made = sweeper_class(None, None, rows=None, columns=None, skip=None, cells=None, trains_nothing=None)
        loader = GlobalHydra.instance().config_loader()
        made.hydra_context = HydraContext(config_loader=loader, callbacks=Callbacks())
        made.config = compose("train", return_hydra_config=True)
        yield made


def test_jobs_have_the_configuration_that_hydra_composes(sweeper):
    sweeper.rows = {"a": ["mode=scratch", "encoder=vit_s"], "b": ["encoder=cvt_13", "mode=ssat", "mode.lam=0.3"]}
    sweeper.columns = {"x": ["data=cifar10"], "y": ["data=svhn", "input=up224"]}
    jobs, _ = sweeper.compose(sweeper.combine(["seed=1,2", "recipe.mixup=0.5"]))
    assert len(jobs) == 8
    for job in jobs:
        assert job.config == resolve(compose("train", overrides=list(job.words)))


def test_what_computes_the_same_is_one_job(sweeper):
    sweeper.rows = {"a": ["mode=ssat"], "the default": [], "other": ["mode=scratch"]}
    sweeper.params = {"trainer.threads": "1,2"}
    assert [job.label for job in sweeper.compose(sweeper.combine([]))[0]] == ["a", "other"]


def test_the_command_line_pins_what_rows_vary(sweeper):
    sweeper.rows = {str(depth): [f"ssl.decoder_depth={depth}"] for depth in (1, 2, 4)}
    ((job,), _) = sweeper.compose(sweeper.combine(["ssl.decoder_depth=4"]))
    assert job.config.ssl.tasks["mae"].options["decoder_depth"] == 4


def test_a_wrong_key_in_a_row_names_its_row_before_anything_starts(sweeper):
    sweeper.rows = {"good": [], "bad": ["recipe.base_lrr=1"]}
    with pytest.raises(UserError, match=r"bad: there is no key 'recipe.base_lrr' \(did you mean recipe.base_lr\?\)"):
        sweeper.compose(sweeper.combine([]))


def test_an_experiment_without_a_training_says_what_to_do_instead(sweeper):
    sweeper.trains_nothing = "Table 13 counts videos"
    with pytest.raises(UserError, match="Table 13 counts videos"):
        sweeper.sweep([])


# Runs that start from another run of the sweep


def begins(sweeper, tmp_path) -> list[str]:
    """Sets up two rows: one fine-tunes the network that the other trains; returns what the command line adds."""
    sweeper.rows = {"from it": [], "first": []}
    folder = "{runs_dir}/mine/first-s{seed}"
    sweeper.cells = {
        "from it": ["mode=finetune", f"mode.init_from={folder}"],
        "fir*": ["mode=scratch", f"run_dir={folder}"],
    }
    return [f"runs_dir={tmp_path}"]


def test_overrides_of_a_cell_name_the_runs_own_folder_and_seed(sweeper, tmp_path):
    sweeper.rows = {"a": ["mode=ssat"], "b": ["mode=scratch"]}
    sweeper.columns = {"x 1": ["data=svhn"], "x 2": ["data=cifar10"]}
    sweeper.cells = {"a / x *": ["run_dir={runs_dir}/it-{seed}", "mode.lam=0.3"], "b / x 2": ["data=digits"]}
    jobs, _ = sweeper.compose(sweeper.combine(["seed=0,3", f"runs_dir={tmp_path}"]))
    assert [job.config.run_dir for job in jobs[:2]] == [f"{tmp_path}/it-0", f"{tmp_path}/it-3"]
    assert [job.config.data.name for job in jobs[-2:]] == ["digits", "digits"]


def test_a_pattern_that_fits_no_cell_is_refused(sweeper):
    sweeper.rows, sweeper.cells = {"a": []}, {"b *": ["seed=1"]}
    with pytest.raises(UserError, match=r"cells names 'b \*'"):
        sweeper.combine([])


def stage_names(jobs: list[Job]) -> list[list[str]]:
    return [[f"{job.label} {job.config.seed}" for job in stage] for stage in stages(jobs)]


def test_a_run_comes_after_the_run_that_it_starts_from(sweeper, tmp_path):
    jobs, _ = sweeper.compose(sweeper.combine([*begins(sweeper, tmp_path), "seed=0,1"]))
    assert stage_names(jobs) == [["first 0", "first 1"], ["from it 0", "from it 1"]]
    assert "-init_from=first-s0-" in jobs[0].name


@pytest.mark.parametrize(("status", "code", "third"), [("crashed", 1, "refused"), ("finished", 0, "finished")])
def test_nothing_starts_from_a_run_that_did_not_finish(sweeper, tmp_path, capsys, status, code, third):
    words = begins(sweeper, tmp_path)
    begun = []

    def launch_here(jobs: list[Job], total: int, before: int) -> Iterator[tuple[Job, JobOutcome]]:
        for number, job in enumerate(jobs, before):
            begun.append((number, job.label))
            yield job, JobOutcome(status if job.label == "first" else "finished")

    sweeper.launch_here = launch_here
    sweeper.config.hydra.sweep.dir = str(tmp_path / "sweep")
    end = 0
    try:
        sweeper.sweep(words)
    except SystemExit as error:
        end = int(error.code)
    assert (end, begun[0]) == (code, (0, "first"))
    assert (len(begun) == 1) == (third == "refused")
    assert ("starts from the run of" in capsys.readouterr().err) == (third == "refused")


def launched(sweeper, *words: str) -> tuple[list[int], int]:
    """The seeds that a sweep launches, none of which is trained here, and the sweep's exit code."""
    started = []

    def launch(jobs: list[Job], total: int, launcher: Launcher, packing: None) -> list[tuple[Job, JobOutcome]]:
        started.extend(job.config.seed for job in jobs)
        return [(job, JobOutcome("finished")) for job in jobs]

    sweeper.launch = launch
    try:
        sweeper.sweep(list(words))
    except SystemExit as end:
        return started, int(end.code)
    return started, 0


@pytest.mark.parametrize("record", [[], {"status": "finished", "hash": "another"}])
def test_a_job_with_a_record_that_is_not_its_own_does_not_stop_the_others(sweeper, tmp_path, capsys, record):
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "result.json").write_text(json.dumps(record))
    sweeper.rows = {"bad": [f"run_dir={tmp_path / 'bad'}", "seed=1"], "good": ["seed=2"]}
    assert launched(sweeper, f"runs_dir={tmp_path}") == ([2], 2)
    assert "error: " in capsys.readouterr().err


def test_a_finished_job_without_its_accuracy_is_skipped(sweeper, tmp_path, capsys):
    ((job,), _) = sweeper.compose(sweeper.combine([f"runs_dir={tmp_path}"]))
    folder = find_run_dir(job.config)
    folder.mkdir(parents=True)
    record = {"status": "finished", "hash": config_hash(job.config), "metrics": {"test": {"acc1": {"last": None}}}}
    (folder / "result.json").write_text(json.dumps(record | {"name": "it", "seconds": 3}))
    assert launched(sweeper, f"runs_dir={tmp_path}") == ([], 0)
    assert f"skipped, already finished in {folder}: it: in 3 s" in capsys.readouterr().out


def test_a_bug_in_one_jobs_check_does_not_stop_the_others(sweeper, tmp_path, capsys, monkeypatch):
    def faulty(cfg: DictConfig) -> Run:
        if cfg.seed == 1:
            raise KeyError("a bug")
        return resolve(cfg)

    monkeypatch.setattr(sys.modules["hydra_plugins.ssat_sweeper"], "resolve", faulty)
    assert launched(sweeper, f"runs_dir={tmp_path}", "seed=1,2") == ([2], 1)
    out, err = capsys.readouterr()
    assert "sweep: 1 finished, 0 skipped (already finished), 1 failed" in out
    assert err.count("Traceback") == 1 and "KeyError: 'a bug'" in err


def test_a_sweep_into_a_folder_that_cannot_be_made_is_one_sentence(sweeper):
    sweeper.config = compose("train", overrides=["runs_dir=/proc/nowhere/x"], return_hydra_config=True)
    with pytest.raises(UserError, match=r"^runs_dir=/proc/nowhere/x cannot be written \(No such file or directory\)"):
        sweeper.sweep(["runs_dir=/proc/nowhere/x"])


def test_estimates_need_no_cluster(sweeper, tmp_path, monkeypatch):
    pytest.importorskip("submitit")
    monkeypatch.setenv("PATH", "")
    sweeper.config = compose("train", overrides=["launcher=slurm"], return_hydra_config=True)
    words = [f"runs_dir={tmp_path}", "seed=1,2"]
    assert launched(sweeper, *words, "estimate=true") == ([1, 2], 0)
    with pytest.raises(UserError, match="finds no srun"):
        sweeper.sweep(words)


def test_a_run_finished_for_another_experiment_counts_unless_it_has_a_folder_of_its_own(tmp_path):
    config = config_of("experiment=table3", runs=tmp_path)
    other = find_run_dir(config_of("experiment=table1", runs=tmp_path))
    other.mkdir(parents=True)
    assert find_finished(config) is None
    record = {"status": "finished", "hash": other.name.rpartition("-")[2]}
    (other / "result.json").write_text(json.dumps(record))
    assert find_finished(config) == (other, record)
    assert find_finished(config_of("experiment=table3", f"run_dir={tmp_path / 'mine'}", runs=tmp_path)) is None
    assert find_finished(config_of("experiment=table3", "seed=1", runs=tmp_path)) is None
    (other / "result.json").write_text(json.dumps(record | {"status": "failed"}))
    assert find_finished(config) is None


CRASHING = """
import os
from pathlib import Path

marker, replace = Path(__file__).with_name("crash"), os.replace

def crash(source, target):
    if marker.exists() and str(Path(target).parent) == marker.read_text():
        raise ZeroDivisionError("on purpose")
    replace(source, target)

os.replace = crash
"""


@pytest.fixture(scope="module")
def trial(tmp_path_factory) -> Iterator[tuple[Path, list[str], Path, subprocess.CompletedProcess]]:
    """A sweep of which one job is refused at once, one when it is built, one crashes and one finishes."""
    folder = tmp_path_factory.mktemp("trial")
    (folder / "sitecustomize.py").write_text(CRASHING)  # Python imports it by itself
    runs = folder / "runs"
    rows = {
        "impossible": ["mode.lam=7", "ssl.decoder_heads=16"],
        "crashing": ["mode.lam=0.2", "ssl.decoder_heads=16"],
        "indivisible": ["mode.lam=0.1", "ssl.decoder_heads=7"],
        "good": ["mode.lam=0.1", "ssl.decoder_heads=16"],
    }
    experiment = {"experiment": "trial", "hydra": {"mode": "MULTIRUN", "sweeper": {"rows": rows}}}
    (folder / "experiments").mkdir()
    text = "# @package _global_\n" + yaml.safe_dump(experiment, sort_keys=False)
    (folder / "experiments" / "trial.yaml").write_text(text)
    words = ["+experiments=trial", f"hydra.searchpath=[file://{folder}]"]
    crashing = find_run_dir(config_of("experiment=trial", *rows["crashing"], runs=runs))
    crashing.mkdir(parents=True)
    (folder / "crash").write_text(str(crashing))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)
        yield runs, words, crashing, sweep(*words, runs=runs)


def finished_in(folder: Path) -> list[Path]:
    return [path for path in folder.glob("*/result.json") if record_of(path.parent)["status"] == "finished"]


def test_a_failed_job_does_not_stop_the_sweep(trial):
    runs, _, _, result = trial
    assert result.returncode == 1, result.stderr
    assert "sweep: 1 finished, 0 skipped (already finished), 3 failed" in result.stdout
    assert len(finished_in(runs / "trial")) == 1


def test_impossible_values_are_named_before_the_first_job_starts(trial):
    _, _, _, result = trial
    first = result.stderr.splitlines()[0]
    assert first.startswith("error: ")
    assert "(impossible): mode.lam=7 is not possible" in first


def test_a_crash_leaves_one_traceback_and_its_reason_in_the_summary(trial):
    _, _, _, result = trial
    assert result.stderr.count("Traceback (most recent call last)") == 1
    lines = result.stdout.splitlines()
    (index,) = [i for i, line in enumerate(lines) if line.startswith("  crashed: ")]
    assert "(crashing)" in lines[index]
    assert "ZeroDivisionError: on purpose" in lines[index + 1]


def test_the_repeat_command_finds_the_users_configuration_files(monkeypatch, tmp_path):
    monkeypatch.setattr("ssat.sweeps.jobs.FOLDERS", [CONF, tmp_path / "my conf"])
    line = shlex.split(repeat_command(["encoder=mine"]))
    assert line[-3:] == ["--config-dir", str(tmp_path / "my conf"), "encoder=mine"]


def test_the_repeat_command_composes_to_the_failed_job(trial):
    _, _, crashing, result = trial
    commands = [line.strip() for line in result.stdout.splitlines() if line.startswith("    python -m src.train")]
    assert len(commands) == 3
    (line,) = [command for command in commands if "mode.lam=0.2" in command]
    flag, folder, *overrides = shlex.split(line)[3:]
    assert flag == "--config-dir" and (Path(folder) / "experiments").is_dir()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = resolve(compose("train", overrides=overrides))
    assert find_run_dir(config) == crashing


@pytest.mark.slow
def test_repeating_the_sweep_runs_only_what_is_missing(trial):
    runs, words, crashing, _ = trial
    (good,) = finished_in(runs / "trial")
    before = good.stat().st_mtime_ns
    (runs.parent / "crash").unlink()
    again = sweep(*words, "experiment=renamed", runs=runs)
    assert "sweep: 1 finished, 1 skipped (already finished), 2 failed" in again.stdout, again.stderr
    assert f"skipped, already finished in {good.parent}" in again.stdout
    assert good.stat().st_mtime_ns == before
    assert len(finished_in(runs / "renamed")) == 1
    assert again.returncode == 2


@pytest.mark.slow
def test_a_wrong_group_on_the_command_line_is_one_sentence(tmp_path):
    assert "mode=scrtch does not exist" in fail_of(sweep("mode=ssat,scrtch", runs=tmp_path))
