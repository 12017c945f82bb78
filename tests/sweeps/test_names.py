"""Names of a sweep's runs, the folders that are found under them, and the table at its end."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from ssat.commands.train import find_run_dir
from ssat.config.resolve import resolve
from ssat.config.schema import Run
from ssat.config.words import CONF
from ssat.runs.folder import find_finished
from ssat.runs.names import ends_of, is_automatic, with_swept
from ssat.sweeps.jobs import JobOutcome, Request
from ssat.sweeps.names import swept_keys, swept_values
from ssat.sweeps.table import results_table
from tests.helpers import TINY, train
from tests.results.records import make_record
from tests.sweeps.test_sweep import sweep


def config_of(*words: str, runs: str | Path = "runs") -> Run:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return resolve(compose("train", overrides=[*TINY, "epochs=1", f"runs_dir={runs}", *words]))


def names(*jobs: list[str]) -> list[str]:
    swept = swept_keys(jobs)
    found = []
    for words in jobs:
        config = config_of(*words)
        found.append(with_swept(config.name, ends_of(config), swept_values(words, swept, config)))
    return [name.removeprefix("vit_micro-digits-") for name in found]


@pytest.mark.parametrize(
    ("jobs", "expected"),
    [
        ([["mode.lam=0.1"], ["mode.lam=0.30"]], ["ssat-lam=0.1-s0", "ssat-lam=0.3-s0"]),
        ([["ssl.decoder_depth=1", "seed=0"], ["ssl.decoder_depth=2", "seed=1"]],
         ["ssat-decoder_depth=1-s0", "ssat-decoder_depth=2-s1"]),
        ([["mode=scratch"], ["mode=ssat"]], ["scratch-s0", "ssat-s0"]),
        ([["mode=ssl_ft_50_50"], ["mode=ssl_ft_100_50"]],
         ["ssl_ft-mode=ssl_ft_50_50-s0", "ssl_ft-mode=ssl_ft_100_50-s0"]),
        ([["mode.lam=0.5"], []], ["ssat-lam=0.5-s0", "ssat-s0"]),
        ([["mode.lam=0.5", "trainer.threads=1", "reconstruct_every=1"], ["mode.lam=0.5", "trainer.threads=2"]],
         ["ssat-s0", "ssat-s0"]),
        ([["encoder.mlp_ratio=2", "ssl.decoder_mlp_ratio=1"], ["encoder.mlp_ratio=3", "ssl.decoder_mlp_ratio=2"]],
         ["ssat-mlp_ratio=2-decoder_mlp_ratio=1-s0", "ssat-mlp_ratio=3-decoder_mlp_ratio=2-s0"]),
        ([["recipe.betas=[0.9,0.95]"], ["recipe.betas=[0.9,0.99]"]],
         ["ssat-betas=0.9,0.95-s0", "ssat-betas=0.9,0.99-s0"]),
        ([["name=mine", "mode.lam=0.1"], ["name=mine", "mode.lam=0.3"]], ["mine", "mine"]),
    ],
)  # fmt: skip
def test_the_swept_keys_belong_to_the_name(jobs: list[list[str]], expected: list[str]) -> None:
    assert names(*jobs) == expected


def test_a_name_of_the_users_own_is_not_taken_for_an_automatic_one() -> None:
    of = ends_of(config_of())
    assert is_automatic("vit_micro-digits-ssat-s0", of) and is_automatic("vit_micro-digits-ssat-lam=0.3-s0", of)
    for name in ("mine", "vit_micro-digits-ssat-try2-s0", "vit_micro-digits-ssat-s1", "vit_micro-digits-ssat-lam=0.3"):
        assert not is_automatic(name, of)


@pytest.mark.slow
def test_a_sweep_names_its_runs_ends_with_their_accuracies_and_each_is_found_again(tmp_path: Path) -> None:
    # As it was named before: a sweep's run with the name of any run, which must be skipped, not trained again.
    old = train("mode.lam=0.5", "epochs=1", "data.samples_per_class=5", "reconstruct_every=0", runs=tmp_path)
    result = sweep("mode.lam=0.3,0.5", runs=tmp_path)
    assert result.returncode == 0, result.stderr
    (new,) = (path.parent for path in tmp_path.glob("*/vit_micro-digits-ssat-lam=0.3-s0-*/result.json"))
    assert len(list(tmp_path.glob("*/*/result.json"))) == 2
    table = result.stdout.partition("run  ")[2].partition("sweep:")[0]
    rows = re.findall(r"^(\S*-lam=\S+)  (\w+) +(\d+\.\d\d) +(\d+\.\d\d)  ", table, re.MULTILINE)
    assert [(row[0].rpartition("-")[0].removeprefix("vit_micro-digits-"), row[1]) for row in rows] == [
        ("ssat-lam=0.5-s0", "skipped"), ("ssat-lam=0.3-s0", "finished"),
    ]  # fmt: skip
    # The same computation as a single command, and under a name of the user's own.
    words = ("data.samples_per_class=5", "reconstruct_every=0")
    for lam, folder in ((0.3, new), (0.5, old)):
        again = config_of(f"mode.lam={lam}", *words, runs=tmp_path)
        assert find_run_dir(again) == folder
        assert find_finished(config_of(f"mode.lam={lam}", *words, "experiment=other", runs=tmp_path))[0] == folder
        assert find_finished(config_of(f"mode.lam={lam}", *words, "name=mine", runs=tmp_path)) is None


def test_the_table_shows_a_failed_run_without_numbers() -> None:
    done = {"metrics": {"test": {"acc1": {"last": 80.0, "best": 81.5}}}, "seconds": 75.0}
    job = Request("a-0", "row / column", ())
    lines = results_table([(job, JobOutcome("finished"), done), (job, JobOutcome("crashed"), None)])
    assert [line.split() for line in lines] == [
        ["run", "status", "acc1", "%", "best", "%", "time"],
        ["a-0", "(row", "/", "column)", "finished", "80.00", "81.50", "1m15s"],
        ["a-0", "(row", "/", "column)", "crashed"],
    ]


def test_the_table_ends_with_the_means_of_what_decides() -> None:
    rows = []
    for seed, share in ((0, 40.0), (1, 50.0)):
        record = make_record("scratch", seed=seed, accuracy=80.0)
        record["config"]["monitor"] = {"select": "balanced_acc"}
        record["metrics"]["test"]["balanced_acc"] = {"last": share, "best": share}
        rows.append((Request(f"a-{seed}", "", ()), JobOutcome("finished"), record))
    heading, *runs, mean = results_table(rows)
    assert re.split("  +", heading) == ["run", "status", "acc1 %", "balanced %", "best %", "time"]
    assert [line.split()[:4] for line in runs] == [
        ["a-0", "finished", "80.00", "40.00"],
        ["a-1", "finished", "80.00", "50.00"],
    ]
    assert mean.startswith("mean of 2 seeds: vit_micro on digits, scratch") and "45.00 ± 7.07" in mean
