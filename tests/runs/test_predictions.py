"""Predictions that two runs have kept make their comparison a paired one."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from ssat.results.comparisons import arm_difference, comparisons
from ssat.runs.predictions import paired_variance, right_images, write_predictions
from ssat.runs.record import Record
from tests.helpers import record_of, train
from tests.results.records import make_record


def kept(folder: Path, right: np.ndarray, mode: str = "ssat", seed: int = 0) -> Record:
    """A run whose kept predictions are right of these images."""
    values = make_record(mode, seed=seed, accuracy=100 * right.mean())
    values["data_fingerprint"] = {"splits": {"train": 100, "test": len(right)}, "sha256": {"test": "x"}}
    path = folder / f"{mode}-{seed}" / "evaluations" / "last-test-clean.npz"
    path.parent.mkdir(parents=True)
    rows = np.stack([np.arange(len(right)), np.ones(len(right), dtype=int), right.astype(int)], axis=1)
    write_predictions(path, values["hash"], rows[::-1])
    return Record(path.parents[1] / "result.json", "g", values)


def test_the_variance_is_that_of_the_images_on_which_two_runs_disagree(tmp_path: Path) -> None:
    first, second = np.zeros(400, dtype=bool), np.zeros(400, dtype=bool)
    first[:300], second[:280], second[300:310] = True, True, True
    runs = kept(tmp_path, first), kept(tmp_path, second, "scratch")
    b, c, n = 20, 10, 400  # only the first right, only the second right
    by_hand = 1e4 * ((b + c) / n - ((b - c) / n) ** 2) / (n - 1)
    assert paired_variance([runs[0]], [runs[1]]) == pytest.approx(by_hand)
    arms = {arm.mode: arm for arm in comparisons(list(runs))[0].arms}
    gap = arm_difference(arms["ssat"], arms["scratch"])
    of_seeds = 2.2281 * 2 * 2**0.5  # assumed of two single seeds
    assert gap.points == 2.5 and gap.uncertainty == pytest.approx(math.hypot(1.96 * by_hand**0.5, of_seeds), rel=1e-3)


@pytest.mark.parametrize("damage", ["other run", "fewer images", "bytes", "pickle", "missing", "other accuracy"])
def test_predictions_of_something_else_are_not_read(tmp_path: Path, damage: str) -> None:
    right = np.arange(100) < 80
    record = kept(tmp_path, right)
    assert right_images(record)[1].sum() == 80
    path = record.folder / "evaluations" / "last-test-clean.npz"
    rows = np.stack([np.arange(100), np.ones(100, dtype=int), right.astype(int)], axis=1)
    if damage == "other run":
        write_predictions(path, "0badf00d", rows)
    elif damage == "fewer images":
        write_predictions(path, record.values["hash"], rows[:50])
    elif damage == "bytes":
        path.write_bytes(b"PK\3\4 cut")
    elif damage == "pickle":
        np.savez(path, **dict.fromkeys(("hash", "index", "target", "predicted"), np.array([{}], dtype=object)))
    elif damage == "other accuracy":
        write_predictions(path, record.values["hash"], np.stack([rows[:, 0], rows[:, 1], rows[:, 1]], axis=1))
    else:
        path.unlink()
    assert right_images(record) is None and paired_variance([record], [record]) is None


def test_an_evaluation_keeps_what_the_run_predicts(tmp_path: Path) -> None:
    from rich.console import Console

    from ssat.commands.evaluate import evaluate

    folder = train("mode=scratch", "epochs=1", "eval_every=1", runs=tmp_path)
    evaluate([f"run={folder}", "trainer.accelerator=cpu"], Console(quiet=True))
    record = Record(folder / "result.json", "g", record_of(folder))
    index, right = right_images(record)
    assert np.array_equal(index, np.arange(len(index))) and len(index) == record.split_size
    assert 100 * right.mean() == pytest.approx(record.accuracy, abs=1e-4)
