"""The commands of docs/ssl_tasks.md are cells of the paper's tables."""

from __future__ import annotations

import re
import shlex

import pytest
from hydra import compose, initialize_config_dir

from ssat.config.identity import config_hash
from ssat.config.resolve import resolve
from ssat.config.schema import Run
from ssat.config.words import CONF, expand_tasks
from ssat.results.paper.paper import read_experiment
from ssat.results.paper.settings import cell_words
from tests.results.cell_commands import PAGE, block, written

SECTION = PAGE.read_text(encoding="utf-8").partition("## The rows of Tables 3 to 7")[2].partition("\n## ")[0]
COMMANDS = [line for line in SECTION.splitlines() if re.match(r"python -m src\.train .*experiment=", line)]


def run_of(*words: str) -> Run:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return resolve(compose("train", overrides=expand_tasks(list(words))))


def test_the_page_has_the_commands_of_the_experiment_files_and_no_other() -> None:
    assert written(PAGE.read_text(encoding="utf-8")) == PAGE.read_text(encoding="utf-8")
    assert block() in SECTION
    fenced = re.findall(r"```\w*\n(.*?)```", SECTION, re.DOTALL)
    assert len(COMMANDS) == 16 == sum(line.startswith("python") for code in fenced for line in code.splitlines())


@pytest.mark.sampled
@pytest.mark.sampled
@pytest.mark.parametrize("line", COMMANDS)
def test_each_command_computes_what_a_cell_of_its_table_computes(line: str) -> None:
    run = run_of(*shlex.split(line)[3:])
    experiment = read_experiment(str(run.experiment))
    words = {
        cell_words(experiment, row, column)
        for row in experiment.rows
        for column in experiment.columns
        if (row, column) not in experiment.skip and f"data={run.data.name}" in experiment.words(row, column)
    }
    assert config_hash(run) in {config_hash(run_of(*each)) for each in words}


def test_gani_et_al_train_as_many_epochs_as_the_rows_that_they_are_compared_with() -> None:
    experiment = read_experiment("table7")
    rows = ("ViT (scratch)", "SL-ViT", "ViT (SSL+FT)", "ViT + SSAT")
    runs = {row: run_of(*cell_words(experiment, row, "CIFAR-100")) for row in rows}
    assert {row: sum(phase.epochs for phase in run.mode.phases) for row, run in runs.items()} == dict.fromkeys(
        rows, 300
    )
    assert [phase.epochs for phase in runs["ViT (SSL+FT)"].mode.phases] == [200, 100]
