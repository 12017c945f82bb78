"""What a killed command has left in a run's folder, and a folder that was copied."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from ssat.runs.begun import remove_unfinished
from tests.helpers import only_run, record_of, start_and_kill, train, weights

SPENT = {"seconds", "train_seconds", "throughput/images_per_s", "throughput/data_wait"}


def test_what_was_being_written_is_removed_and_all_else_stays(tmp_path: Path) -> None:
    (tmp_path / "joint" / "reconstructions").mkdir(parents=True)
    left = [".config.yaml.17.partial", "joint/.phase.json.17.partial", "joint/.phase.json.9f3a01bc"]
    left += ["joint/reconstructions/.epoch_0003.png.17.partial"]
    kept = [".lock", "joint/phase.json", "joint/.phase.json", "joint/.mine", "notes.partial"]
    for name in left + kept:
        (tmp_path / name).touch()
    remove_unfinished(tmp_path)
    assert not any((tmp_path / name).exists() for name in left)
    assert all((tmp_path / name).exists() for name in kept)


@pytest.mark.slow
def test_a_copy_of_an_interrupted_run_continues_elsewhere_with_its_best(tmp_path: Path) -> None:
    words = ["mode=ssat", "epochs=4", "recipe.lr_rule=absolute", "recipe.base_lr=3e-3", "checkpoint_minutes=0.002"]
    start_and_kill(*words, runs=tmp_path / "killed")
    (folder,) = tmp_path.glob("killed/*/*")
    shutil.copytree(folder, tmp_path / "copy")
    shutil.rmtree(tmp_path / "killed")
    copy = train(*words, f"run_dir={tmp_path / 'copy'}", runs=tmp_path)
    train(*words, runs=tmp_path / "whole")
    whole = only_run(tmp_path / "whole")
    rows = [record_of(run)["phases"][0]["history"] for run in (copy, whole)]
    ours, theirs = ([{k: v for k, v in row.items() if k not in SPENT} for row in of] for of in rows)
    assert ours == theirs
    assert record_of(copy)["metrics"] == record_of(whole)["metrics"]
    assert all(value.equal(weights(whole)[name]) for name, value in weights(copy).items())
