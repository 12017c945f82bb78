"""Measuring several labels of an image: against scikit-learn, and two real processes against one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from sklearn.metrics import accuracy_score, average_precision_score, f1_score, hamming_loss, log_loss, roc_auc_score

from ssat.core.errors import UserError
from ssat.data.sampler import eval_batches
from ssat.runs.label_scores import LabelPredictions, label_metrics, write_label_predictions
from ssat.runs.prediction_rows import read_rows
from ssat.training.label_meters import LabelMeters
from tests.helpers import on_two_ranks

IMAGES, NAMES = 143, ["usual", "half", "single", "none", "all"]
K = len(NAMES)


def images() -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and labels: one label of a single image, one of none, one of all."""
    generator = torch.Generator().manual_seed(7)
    targets = (torch.rand(IMAGES, K, generator=generator) < torch.tensor([0.8, 0.5, 0.0, 0.0, 1.0])).long()
    targets[5, 2] = 1
    logits = torch.randn(IMAGES, K, generator=generator) + targets
    logits[:, 3] -= 9  # is never predicted
    return logits, targets


def measured(meters: LabelMeters, rank: int = 0, world: int = 1) -> dict[str, float]:
    logits, targets = images()
    for batch in eval_batches(np.arange(IMAGES), batch_size=10, rank=rank, world=world):
        chosen = torch.tensor([index for _, index in batch])
        meters.add(logits[chosen], targets[chosen].float(), chosen)
    return {name: value.item() for name, value in meters.take().items()}


def of_all() -> LabelPredictions:
    logits, targets = images()
    return LabelPredictions(np.arange(IMAGES), targets.numpy(), logits.numpy())


def test_the_numbers_are_those_of_scikit_learn() -> None:
    logits, targets = (each.numpy() for each in images())
    found, called, probs = (
        measured(LabelMeters()),
        (logits > 0).astype(int),
        torch.from_numpy(logits).double().sigmoid(),
    )
    there, mixed = [0, 1, 2, 4], [0, 1, 2]
    expected = {
        "map": np.mean([average_precision_score(targets[:, label], probs[:, label]) for label in there]),
        "auroc": np.mean([roc_auc_score(targets[:, label], probs[:, label]) for label in mixed]),
        "macro_f1": 100 * f1_score(targets, called, average="macro", zero_division=np.nan),
        "micro_f1": 100 * f1_score(targets, called, average="micro"),
        "exact_match": 100 * accuracy_score(targets, called),
        "hamming_acc": 100 * (1 - hamming_loss(targets, called)),
        "loss": log_loss(targets.ravel(), probs.numpy().ravel()),
    }
    assert found == {name: pytest.approx(value, rel=1e-6) for name, value in expected.items()}


def test_the_record_has_each_label_and_what_guessing_reaches() -> None:
    logits, targets = (each.numpy() for each in images())
    found = label_metrics(of_all(), NAMES)
    for label, name in enumerate(NAMES):
        own = found["labels"][name]
        assert own["n"] == targets[:, label].sum() and own["prevalence"] == own["n"] / IMAGES
        assert own["f1"] == pytest.approx(100 * f1_score(targets[:, label], logits[:, label] > 0, zero_division=0))
    assert [found["labels"][name]["ap"] is None for name in NAMES] == [False, False, False, True, False]
    assert [found["labels"][name]["auroc"] is None for name in NAMES] == [False, False, False, True, True]
    assert found["prevalence"] == pytest.approx(np.mean([targets[:, label].mean() for label in (0, 1, 2, 4)]))
    most = max(map(tuple, targets.tolist()), key=list(map(tuple, targets.tolist())).count)
    assert found["most_frequent"] == [name for name, there in zip(NAMES, most, strict=True) if there]
    assert found["notes"] == [
        "no image has the label none: mAP and AUROC are means over the others",
        "every image has the label all: AUROC is the mean over the others",
        "there is no validation split to fit a temperature on: keep one with data.val_fraction=0.1",
    ]


def test_the_calibration_error_is_that_over_decisions_by_hand() -> None:
    """Ten decisions of confidence 0.8, six of them right: |0.6 - 0.8|."""
    logit = np.log(4.0)
    targets = np.array([[1, 0]] * 3 + [[0, 1]] * 2)
    logits = np.tile(np.array([[logit, -logit]], np.float32), (5, 1))
    found = label_metrics(LabelPredictions(np.arange(5), targets, logits), ["a", "b"])
    assert found["ece"] == pytest.approx(0.2, abs=1e-6)


def test_what_no_image_defines_is_left_out_and_a_nan_is_refused() -> None:
    kept = LabelPredictions(np.arange(2), np.zeros((2, 2), np.int64), -np.ones((2, 2), np.float32))
    found = label_metrics(kept, ["a", "b"])
    assert found["map"] is None and found["auroc"] is None and found["exact_match"] == 100 and found["macro_f1"] == 0
    meters = LabelMeters()
    assert meters.take() == {}
    meters.add(torch.full((1, 2), float("nan")), torch.zeros(1, 2))
    with pytest.raises(UserError, match="predicts nan"):
        meters.take()


def test_the_file_has_a_column_for_each_label(tmp_path: Path) -> None:
    kept = of_all()
    path = write_label_predictions(tmp_path / "p.csv", kept, [f"{n}.png" for n in range(IMAGES)], NAMES)
    header, *rows = read_rows(path)
    assert header == ["image", "labels", "predicted", "correct", *(f"prob_{name}" for name in NAMES)]
    assert len(rows) == IMAGES
    assert np.array([row[4:] for row in rows], dtype=float) == pytest.approx(kept.probs)
    right = [set(row[1].split(";")) == set(row[2].split(";")) for row in rows]
    assert [row[3] == "true" for row in rows] == right


def measure_a_rank(folder: Path, rank: int, world: int) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=world)
    torch.save(measured(LabelMeters(), rank, world), folder / f"{rank}.pt")
    dist.barrier()


def test_two_processes_measure_the_same_as_one(tmp_path: Path) -> None:
    alone = measured(LabelMeters())
    for there in on_two_ranks(measure_a_rank, tmp_path):
        assert there == alone
