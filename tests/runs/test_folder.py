"""Where a run lies, what its record may look like, and the sentences for a folder that cannot be used."""

from __future__ import annotations

import errno
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from ssat.config.identity import config_hash
from ssat.core.errors import UserError
from ssat.runs.folder import describe, find_finished, find_run_dir, read_phase, usable
from tests.helpers import config


@pytest.fixture
def run(tmp_path: Path) -> tuple[dict, Path]:
    """A configuration and its empty folder."""
    chosen = config(f"runs_dir={tmp_path}")
    folder = find_run_dir(chosen)
    folder.mkdir(parents=True)
    return chosen, folder


@pytest.mark.parametrize("key", ["runs_dir", "run_dir"])
def test_a_place_below_a_file_is_named_by_its_key(key: str) -> None:
    with pytest.raises(UserError, match=rf"^{key}=/dev/null/x cannot be read \(Not a directory\): name another$"):
        find_finished(config(f"{key}=/dev/null/x"))


def test_a_folder_that_may_not_be_entered_is_one_sentence() -> None:
    sentence = r"^runs_dir=/secret cannot be written \(Permission denied\): name another$"
    with pytest.raises(UserError, match=sentence), usable(config("runs_dir=/secret"), "written"):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


@pytest.mark.parametrize("text", ["[]", "null", "{", 20_000 * "[", b"\xff"])
def test_an_own_record_that_is_damaged_is_named(run: tuple[dict, Path], text: str | bytes) -> None:
    chosen, folder = run
    (folder / "result.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError, match=r"result\.json is damaged: move it away, or force=true"):
        find_finished(chosen)


def test_a_folder_in_place_of_the_record_is_named(run: tuple[dict, Path]) -> None:
    chosen, folder = run
    (folder / "result.json").mkdir()
    with pytest.raises(UserError, match=r"result\.json is damaged"):
        find_finished(chosen)


def test_a_damaged_record_of_another_experiment_is_passed_over(tmp_path: Path) -> None:
    chosen = config(f"runs_dir={tmp_path}", "experiment=mine")
    other = find_run_dir(replace(chosen, experiment="other"))
    other.mkdir(parents=True)
    (other / "result.json").write_text("[]")
    assert find_finished(chosen) is None


def test_a_finished_record_counts_whatever_it_lacks(run: tuple[dict, Path]) -> None:
    chosen, folder = run
    record = {"status": "finished", "hash": config_hash(chosen)}
    (folder / "result.json").write_text(json.dumps(record))
    assert find_finished(chosen) == (folder, record)


@pytest.mark.parametrize(
    ("metrics", "shown"),
    [
        ({"test": {"acc1": {"last": 81.5, "best": 82}}}, "run: test/acc1 last 81.50 %, best 82.00 % in 7 s"),
        ({"test": {"acc1": {"last": None, "best": 82.0}}}, "run: test/acc1 best 82.00 % in 7 s"),
        ({"test": {"acc1": {"last": 81.5}}, "val": {"acc1": {"last": 1.0}}}, "run: test/acc1 last 81.50 % in 7 s"),
        ({"val": {"loss_ssl": {"last": 0.25}, "loss": {"last": None}}}, "run: val/loss_ssl last 0.25 in 7 s"),
        ({"test": None}, "run: in 7 s"),
        (None, "run: in 7 s"),
    ],
)
def test_a_finished_run_is_described_by_what_its_record_has(metrics: dict | None, shown: str) -> None:
    assert describe({"name": "run", "seconds": 7.2, "metrics": metrics}) == shown


def of_videos(**values: tuple[float, float]) -> dict[str, dict[str, float]]:
    """The measures of a split by name."""
    return {name: {"last": last, "best": best} for name, (last, best) in values.items()}


@pytest.mark.parametrize(
    ("metrics", "shown"),
    [
        (
            {
                "val": of_videos(auc=(0.5, 0.9)),
                "test": of_videos(loss=(1, 2), acc1=(60, 50), balanced_acc=(70.123, 55), auc=(0.9, 0.75)),
            },
            "test/acc1 last 60.00 %, best (by val/auc) 50.00 %; test/balanced_acc last 70.12 %,"
            " best 55.00 %; test/auc last 0.9000, best 0.7500",
        ),
        (
            {"val": of_videos(balanced_acc=(1, 2)), "test": of_videos(acc1=(60, 50), balanced_acc=(70, 55))},
            "test/acc1 last 60.00 %, best (by val/balanced_acc) 50.00 %; test/balanced_acc last 70.00 %, best 55.00 %",
        ),
        (
            {"test": of_videos(balanced_acc=(70, 75), auc=(0.5, 0.6))},
            "test/balanced_acc last 70.00 %, best 75.00 %; test/auc last 0.5000, best 0.6000",
        ),
    ],
)
def test_a_run_of_videos_is_described_by_what_unequal_classes_do_not_fool(metrics: dict, shown: str) -> None:
    assert describe({"name": "run", "seconds": 7.2, "metrics": metrics}) == f"run: {shown} in 7 s"


def test_a_run_of_images_is_described_by_balanced_accuracy_where_its_classes_are_unequal() -> None:
    metrics = {"test": of_videos(acc1=(60, 70), balanced_acc=(50, 55), macro_f1=(40, 41), auroc=(0.9, 0.95))}
    record = {"name": "run", "seconds": 7.2, "metrics": metrics}
    for counts, shown in (
        ({"a": 15, "b": 10}, ""),
        ({"a": 16, "b": 10}, "; test/balanced_acc last 50.00 %, best 55.00 %"),
    ):
        record["phases"] = [{"data_check": {"counts": {"test": counts}}}]
        assert describe(record) == f"run: test/acc1 last 60.00 %, best 70.00 %{shown} in 7 s"
    record |= {"config": {"monitor": {"select": "auroc"}}, "phases": []}
    record["metrics"]["val"] = of_videos(auroc=(0.8, 0.85))
    chosen = "test/acc1 last 60.00 %, best (by val/auroc) 70.00 %; test/auroc last 0.9000, best 0.9500"
    assert describe(record) == f"run: {chosen} in 7 s"


def test_a_record_without_seconds_is_described_too() -> None:
    assert describe({"name": "run"}) == "run:"


@pytest.mark.parametrize("text", ["{", "[]", json.dumps({"name": "joint"})])
def test_a_damaged_record_of_a_phase_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "phase.json"
    path.write_text(text)
    with pytest.raises(UserError, match=r"phase\.json is damaged.*: move the run folder away, or force=true"):
        read_phase(path, config(f"run_dir={tmp_path}"))
