"""What is measured of images, against scikit-learn, on random labels with empty classes and classes of one image."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    balanced_accuracy_score,
    confusion_matrix,
    f1_score,
    log_loss,
    roc_auc_score,
)

from ssat.core.errors import UserError
from ssat.runs.calibration import probabilities
from ssat.runs.image_classes import Calibration, ImagePredictions, image_metrics, write_image_predictions

CLOSE = {"abs": 1e-6}


def predictions(targets: np.ndarray, classes: int, seed: int = 0) -> ImagePredictions:
    logits = np.random.default_rng(seed).normal(size=(len(targets), classes)).astype(np.float32)
    logits[::5] = logits[0]  # ties
    return ImagePredictions(np.arange(len(targets)), targets, logits.argmax(1), logits)


def random_labels(classes: int, images: int = 300, seed: int = 1) -> np.ndarray:
    """The last class has no image, and the one before it a single one."""
    labels = np.random.default_rng(seed).integers(0, classes - 2, images)
    labels[7] = classes - 2
    return labels


@pytest.mark.parametrize("classes", [5, 30, 120])
@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
def test_the_numbers_are_those_of_scikit_learn(classes: int) -> None:
    kept = predictions(random_labels(classes), classes)
    names = [f"c{label}" for label in range(classes)]
    found, probs = image_metrics(kept, names, Calibration()), probabilities(kept.logits)
    truth, called = kept.targets, kept.predicted
    assert found["accuracy"] == pytest.approx(100 * accuracy_score(truth, called), **CLOSE)
    assert found["balanced_accuracy"] == pytest.approx(100 * balanced_accuracy_score(truth, called), **CLOSE)
    assert found["macro_f1"] == pytest.approx(100 * f1_score(truth, called, average="macro"), **CLOSE)
    there = [label for label in range(classes) if (truth == label).any()]
    for key, score in (("auroc", roc_auc_score), ("ap", average_precision_score)):
        theirs = np.mean([score(truth == label, probs[:, label]) for label in there])
        assert found[key] == pytest.approx(theirs, **CLOSE)
    assert found["log_loss"] == pytest.approx(log_loss(truth, probs, labels=range(classes)), **CLOSE)
    table = confusion_matrix(truth, called, labels=range(classes))
    assert found["confusion"] == (table.tolist() if classes <= 50 else None)
    for label, (name, row) in enumerate(found["classes"].items()):
        assert (name, row["n"]) == (names[label], table[label].sum())
        assert row["accuracy"] == (pytest.approx(100 * table[label, label] / row["n"]) if row["n"] else None)
        wrong = np.where(np.arange(classes) == label, 0, table[label])
        assert row["confused"] == wrong.max()
        assert row["confused_with"] == (names[wrong.argmax()] if wrong.max() else None)
    assert found["majority"] == pytest.approx(100 * np.bincount(truth).max() / len(truth))
    assert found["notes"][0].startswith("no image of class c") and found["notes"][0].endswith("those over the others")


def test_of_two_classes_the_second_is_ranked() -> None:
    kept = predictions(np.random.default_rng(3).integers(0, 2, 100), 2)
    found, prob = image_metrics(kept, ["a", "b"], Calibration()), probabilities(kept.logits)[:, 1]
    assert found["auroc"] == pytest.approx(roc_auc_score(kept.targets, prob), **CLOSE)
    assert found["ap"] == pytest.approx(average_precision_score(kept.targets, prob), **CLOSE)


def test_many_images_do_not_add_up_rounding() -> None:
    kept = predictions(np.random.default_rng(3).integers(0, 2, 60_000), 2)
    found, prob = image_metrics(kept, ["a", "b"], Calibration()), probabilities(kept.logits)[:, 1]
    assert found["auroc"] == pytest.approx(roc_auc_score(kept.targets, prob), **CLOSE)
    assert found["ap"] == pytest.approx(average_precision_score(kept.targets, prob), **CLOSE)


def test_images_of_one_class_have_no_ranking_and_say_so() -> None:
    found = image_metrics(predictions(np.ones(9, np.int64), 3), ["a", "b", "c"], Calibration())
    assert (found["auroc"], found["ap"], found["majority"], found["majority_class"]) == (None, None, 100, "b")
    assert "all images are of one class: AUROC and AP are not defined" in found["notes"]


def test_the_interval_is_wilsons() -> None:
    logits = np.tile(np.array([[1.0, 0.0]], np.float32), (10, 1))
    kept = ImagePredictions(np.arange(10), np.array([0] * 8 + [1] * 2), np.zeros(10, np.int64), logits)
    found = image_metrics(kept, ["a", "b"], Calibration())
    # Newcombe 1998, method 3: 8 of 10.
    assert (found["accuracy_low"], found["accuracy_high"]) == pytest.approx((49.02, 94.33), abs=0.01)


def test_a_temperature_of_the_same_images_shows_no_better_error() -> None:
    kept = predictions(random_labels(5), 5)
    own = image_metrics(kept, list("abcde"), Calibration(2.0, "fitted on 300 val images", same_images=True))
    other = image_metrics(kept, list("abcde"), Calibration(2.0, "fitted on 300 val images"))
    assert own["temperature"] == 2 and own["ece_calibrated"] is None and "these very images" in own["notes"][-1]
    assert 0 < other["ece_calibrated"] < other["ece"]


def test_nan_is_refused() -> None:
    with pytest.raises(UserError, match="predicts nan"):
        ImagePredictions(
            np.arange(1), np.zeros(1, np.int64), np.zeros(1, np.int64), np.array([[np.nan, 0]], np.float32)
        )


def test_every_number_can_be_counted_again_from_the_file(tmp_path: Path) -> None:
    kept = predictions(random_labels(5), 5)
    names, classes = [f'folder/"a", {index}.png' for index in range(300)], ["x,y", "b", "ü", "d", "e"]
    path = write_image_predictions(tmp_path / "predictions.csv", kept, names, classes)
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["image", "label", "predicted", "probability", "correct"]
    assert [row["image"] for row in rows] == names
    assert [classes.index(row["label"]) for row in rows] == kept.targets.tolist()
    assert [classes.index(row["predicted"]) for row in rows] == kept.predicted.tolist()
    assert [float(row["probability"]) for row in rows] == probabilities(kept.logits).max(1).tolist()
    assert [row["correct"] for row in rows] == [str(right).lower() for right in kept.right.tolist()]
