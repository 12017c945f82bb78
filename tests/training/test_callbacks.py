"""`callbacks=[...]`: early stopping ends a phase where it says, and what a user adds is part of the training."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch

from ssat.config.identity import config_hash, identity
from ssat.core.errors import UserError
from tests.helpers import command, config, largest_difference, only_run, record_of, train, weights

# The first evaluation is the best; no later one is better by 200 points, so the second one after it ends the training.
STOPS = ["mode=scratch", "epochs=6", "callbacks=[{early_stopping: {patience: 2, min_delta: 200}}]"]


@pytest.fixture(scope="module")
def stopped(tmp_path_factory) -> Path:
    return train(*STOPS, runs=tmp_path_factory.mktemp("runs"))


def test_early_stopping_ends_the_training_and_the_record_says_where_and_why(stopped):
    record = record_of(stopped)
    (phase,) = record["phases"]
    assert record["status"] == "finished" and [row["epoch"] for row in phase["history"]] == [0, 1, 2]
    assert phase["stopped"]["epoch"] == 2 and phase["stopped"]["planned"] == 6
    assert phase["stopped"]["monitor"] == "test/acc1" and "in the last 2 records" in phase["stopped"]["reason"]
    assert phase["stopped"]["best"] == pytest.approx(phase["history"][0]["test/acc1"])
    assert any("stopped it after epoch 3 of 6" in reason for reason in record["unfaithful_reasons"])
    said = (stopped / "log.txt").read_text()
    assert "on the test images, which is optimistic" in said and "stopped after epoch 3 of 6" in said


def test_a_run_that_was_killed_after_its_last_epoch_stays_stopped(stopped, tmp_path):
    again = tmp_path / stopped.parent.name / stopped.name
    shutil.copytree(stopped, again)
    (again / "result.json").unlink()
    (again / "scratch" / "phase.json").unlink()
    assert train(*STOPS, runs=tmp_path) == again
    ours, theirs = record_of(again)["phases"][0], record_of(stopped)["phases"][0]
    assert ours["stopped"] == theirs["stopped"] and ours["history"] == theirs["history"]
    assert ours["metrics"] == theirs["metrics"]


def test_the_same_command_skips_what_was_stopped_early(stopped, capsys):
    assert train(*STOPS, runs=stopped.parents[1]) == stopped
    assert "skipped, already finished" in capsys.readouterr().out


def test_a_stopped_training_has_the_weights_of_the_whole_one_at_that_epoch(stopped, tmp_path):
    """The schedule is that of all epochs: a run of six that ends after three epochs of steps computes the same."""
    steps = record_of(stopped)["steps"]
    other = train("mode=scratch", "epochs=6", f"trainer.max_steps={steps}", runs=tmp_path)
    assert largest_difference(weights(stopped, "scratch"), weights(other, "scratch")) == 0


def test_only_callbacks_that_change_the_training_make_another_run():
    plain = config_hash(config())
    assert config_hash(config("callbacks=[lr_monitor,device_stats,model_summary]")) == plain
    stopping = config("callbacks=[early_stopping]")
    assert config_hash(stopping) != plain
    assert identity(stopping) == identity(config("callbacks=[{early_stopping: {patience: 10}}]"))
    assert config_hash(config("callbacks=[{early_stopping: {patience: 5}}]")) != config_hash(stopping)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["callbacks=[erly_stopping]"], "did you mean early_stopping?"),
        (["callbacks=[{early_stopping: {patience: 0}}]"], "callbacks.early_stopping.patience=0 is not possible"),
        (["callbacks=[{early_stopping: {patienc: 5}}]"], "did you mean patience?"),
        (["callbacks=[model_checkpoint]"], "checkpoints are written by themselves"),
        (["callbacks=[early_stopping,early_stopping]"], "names early_stopping twice"),
        (["callbacks=[early_stopping]", "mode=ssl"], "mode=ssl learns no labels"),
        (["callbacks=early_stopping"], "must be a list"),
    ],
)
def test_a_wrong_callback_is_one_sentence(words, said):
    with pytest.raises(UserError, match=said.replace("?", r"\?")):
        config(*words)


MINE = """\
import lightning.pytorch as pl


class Half(pl.Callback):
    def __init__(self, epochs: int = 3) -> None:
        self.epochs, self.seen = epochs, 0

    def on_train_epoch_end(self, trainer, pl_module):
        self.seen += 1
        trainer.should_stop = self.seen >= self.epochs

    def state_dict(self):
        return {"seen": self.seen}

    def load_state_dict(self, state):
        self.seen = state["seen"]
"""


def test_a_callback_of_the_users_own_takes_part_and_is_kept_in_the_checkpoint(tmp_path, monkeypatch):
    (tmp_path / "mine_callbacks.py").write_text(MINE)
    monkeypatch.syspath_prepend(str(tmp_path))
    run = train("mode=scratch", "epochs=3", "callbacks=[{_target_: mine_callbacks.Half, epochs: 1}]", runs=tmp_path)
    (phase,) = record_of(run)["phases"]
    assert phase["stopped"] == {
        **{"epoch": 0, "planned": 3, "monitor": None, "best": None},
        "reason": "a callback asked to stop",
    }
    kept = torch.load(run / "scratch" / "checkpoints" / "last.ckpt", weights_only=True)["callbacks"]
    assert {"seen": 1} in kept.values()
    with pytest.raises(UserError, match="there is no key callbacks.mine_callbacks:Half.epoch"):
        train("mode=scratch", "callbacks=[{kind: 'mine_callbacks:Half', epoch: 1}]", runs=tmp_path)
    with pytest.raises(UserError, match="a class of another kind: name a class that derives from"):
        train("mode=scratch", "callbacks=[{kind: 'collections:OrderedDict'}]", runs=tmp_path)
    with pytest.raises(UserError, match="callbacks: os:system is no class"):
        train("mode=scratch", f"callbacks=[{{_target_: os.system, command: 'touch {tmp_path}/called'}}]", runs=tmp_path)
    assert not (tmp_path / "called").exists()


@pytest.mark.slow
def test_a_callback_that_raises_is_named_with_its_hook_and_the_run_goes_on(tmp_path, monkeypatch):
    fault = "    def on_train_epoch_end(self, trainer, pl_module):\n"
    text = MINE.replace(fault, fault + "        if trainer.current_epoch == 1 and FAULTY:\n            self.look()\n")
    (tmp_path / "mine_fault.py").write_text(f"FAULTY = True\n{text}\n    def look(self):\n        return {{}}['a']\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}")
    words = ["mode=scratch", "epochs=2", "callbacks=[{_target_: mine_fault.Half}]"]
    result = command(*words, runs=tmp_path)
    assert result.returncode == 1 and "Error executing job" not in result.stderr and "lightning" not in result.stderr
    last = result.stderr.splitlines()[-1]
    assert last.startswith("error: the callback mine_fault:Half has raised KeyError: 'a' in on_train_epoch_end")
    assert last.endswith("the same command continues with what is left")
    (log,) = tmp_path.glob("*/*/log.txt")
    assert "Traceback (most recent call last)" in log.read_text() and "in look" in result.stderr
    monkeypatch.setattr("mine_fault.FAULTY", False)
    assert record_of(train(*words, runs=tmp_path))["status"] == "finished"
    assert "continuing at step" in log.read_text()


def test_what_only_watches_is_logged_beside_the_curves(tmp_path):
    run = train("mode=scratch", "epochs=1", "callbacks=[lr_monitor,model_summary]", runs=tmp_path)
    header = next(run.glob("scratch/csv/version_*/metrics.csv")).read_text().splitlines()[0]
    assert "lr-AdamW" in header


@pytest.mark.slow
def test_all_processes_stop_together(tmp_path):
    result = command(*STOPS, "trainer=ddp_cpu", "trainer.threads=1", runs=tmp_path)
    assert result.returncode == 0, result.stderr
    record = json.loads((only_run(tmp_path) / "result.json").read_text())
    assert record["phases"][0]["stopped"]["epoch"] == 2 and len(record["phases"][0]["history"]) == 3
