"""Calibration against hand computations, torchmetrics and SciPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss as sklearn_log_loss
from torchmetrics.functional.classification import multiclass_calibration_error

from ssat.runs.calibration import (
    doubt,
    expected_calibration_error,
    fit_label_temperature,
    fit_temperature,
    label_log_loss,
    log_loss,
    probabilities,
    reliability,
    remark,
)
from ssat.runs.image_classes import Calibration, ImagePredictions, calibrated_on
from ssat.runs.label_scores import LabelPredictions, label_metrics, labels_calibrated_on


def overconfident(images: int, seed: int, classes: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Logits three times as large as those that the classes are drawn from: their temperature is 3."""
    generator = np.random.default_rng(seed)
    true = generator.normal(size=(images, classes)) * 1.5
    probs = np.exp(true) / np.exp(true).sum(1, keepdims=True)
    targets = np.array([generator.choice(classes, p=p) for p in probs])
    return (3 * true).astype(np.float32), targets


def test_the_calibration_error_is_that_by_hand() -> None:
    # Confidences 0.95 and 0.99 share the last bin (one of two right), 0.62 is alone and wrong, 0.55 alone and right.
    confidence = np.array([0.95, 0.99, 0.62, 0.55])
    probs = np.stack([confidence, 1 - confidence], axis=1)
    by_hand = 2 / 4 * abs(0.5 - 0.97) + 1 / 4 * abs(0 - 0.62) + 1 / 4 * abs(1 - 0.55)
    assert expected_calibration_error(probs, np.array([0, 1, 1, 0])) == pytest.approx(by_hand, abs=1e-12)
    assert [(b.images, b.accuracy) for b in reliability(probs, np.array([0, 1, 1, 0]))] == [(1, 1), (1, 0), (2, 0.5)]


def test_a_confidence_of_one_belongs_to_the_last_bin() -> None:
    probs = np.array([[1.0, 0.0], [0.95, 0.05]])
    assert expected_calibration_error(probs, np.array([0, 1])) == pytest.approx(abs(0.5 - 0.975))


def test_the_calibration_error_is_that_of_torchmetrics() -> None:
    logits, targets = overconfident(500, 1)
    probs = probabilities(logits)
    theirs = multiclass_calibration_error(torch.tensor(probs), torch.tensor(targets), 4, n_bins=15)
    assert expected_calibration_error(probs, targets) == pytest.approx(float(theirs), abs=1e-5)  # theirs is in single


def test_the_temperature_has_the_smallest_log_loss() -> None:
    logits, targets = overconfident(400, 2)
    found = minimize_scalar(
        lambda t: log_loss(logits, targets, t), bounds=(0.1, 20), method="bounded", options={"xatol": 1e-9}
    )
    assert fit_temperature(logits, targets) == pytest.approx(found.x, abs=1e-5)


def test_two_logits_have_the_temperature_of_the_formula() -> None:
    # Three of four images right at a margin of 2: the loss is smallest where sigmoid(2 / T) = 3/4, T = 2 / ln 3.
    logits = np.tile(np.array([[2.0, 0.0]], np.float32), (4, 1))
    assert fit_temperature(logits, np.array([0, 0, 0, 1])) == pytest.approx(2 / np.log(3), rel=1e-7)


def test_a_temperature_of_other_images_calibrates_an_overconfident_network() -> None:
    logits, targets = overconfident(2000, 3)
    held_out, truth = overconfident(2000, 4)
    temperature = fit_temperature(logits, targets)
    assert temperature == pytest.approx(3, rel=0.1)
    before, after = (expected_calibration_error(probabilities(held_out, t), truth) for t in (1, temperature))
    assert before > 0.15 and after < 0.03
    assert log_loss(held_out, truth, temperature) < log_loss(held_out, truth)
    assert (probabilities(held_out, temperature).argmax(1) == held_out.argmax(1)).all()


@pytest.mark.parametrize(("logits", "targets"), [([[2.0, 0.0]] * 3, [0, 0, 0]), ([[1.0, 1.0]] * 3, [0, 1, 1])])
def test_what_has_no_temperature_gets_none(logits: list[list[float]], targets: list[int]) -> None:
    assert fit_temperature(np.array(logits, np.float32), np.array(targets)) is None
    assert fit_temperature(np.zeros((0, 2), np.float32), np.zeros(0, np.int64)) is None


def test_a_temperature_of_few_images_is_not_fitted() -> None:
    logits, targets = overconfident(99, seed=0)
    few = ImagePredictions(np.arange(99), targets, logits.argmax(1), logits)
    assert calibrated_on(few, "val").temperature is None
    assert calibrated_on(few, "val").source == "99 validation images are too few to fit a temperature (100)"
    logits, targets = overconfident(100, seed=0)
    assert calibrated_on(ImagePredictions(np.arange(100), targets, logits.argmax(1), logits), "val").temperature


def test_a_temperature_that_is_worse_on_the_test_images_is_doubted() -> None:
    worse, better = ({"log_loss": 0.63, "log_loss_calibrated": after} for after in (0.78, 0.6))
    assert "does not help on the test images (log-loss 0.6300, with it 0.7800)" in doubt(worse)
    assert doubt(better) == "" == doubt({"log_loss": 0.63, "log_loss_calibrated": None})
    phase = {"metrics": {"val": {}}, "classification": {**worse, "temperature": 0.3, "temperature_source": "fitted"}}
    assert remark(phase) == doubt(worse)
    phase["classification"] |= {"temperature": None, "temperature_source": "32 validation images are too few"}
    assert remark(phase) == "the probabilities are not calibrated: 32 validation images are too few"
    assert remark({"metrics": {}, "classification": phase["classification"]}) == ""  # no split: nothing was expected


def test_a_temperature_is_fitted_inside_inference_mode_too() -> None:
    logits, targets = overconfident(50, 5)
    with torch.inference_mode():
        inside = fit_temperature(logits, targets)
    assert inside == fit_temperature(logits, targets)


def overconfident_labels(images: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Logits (N, 3) three times as large as those that the labels are drawn from: their temperature is 3."""
    generator = np.random.default_rng(seed)
    true = generator.normal(size=(images, 3)) * 1.5
    targets = (generator.random((images, 3)) < 1 / (1 + np.exp(-true))).astype(np.int64)
    return (3 * true).astype(np.float32), targets


def of_labels(logits: np.ndarray, targets: np.ndarray) -> LabelPredictions:
    return LabelPredictions(np.arange(len(logits)), targets, logits)


def test_the_temperature_of_labels_is_the_inverse_slope_of_a_logistic_regression() -> None:
    logits, targets = overconfident_labels(2000, 5)
    slope = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-10).fit(logits.reshape(-1, 1), targets.ravel())
    found = fit_label_temperature(logits, targets)
    assert found == pytest.approx(1 / slope.coef_.item(), rel=1e-4) and found == pytest.approx(3, rel=0.1)
    theirs = sklearn_log_loss(targets.ravel(), 1 / (1 + np.exp(-logits.astype(float).ravel() / found)))
    assert label_log_loss(logits, targets, found) == pytest.approx(theirs, rel=1e-9)


def test_labels_have_the_temperature_of_the_formula() -> None:
    # Three of four decisions right at a logit of 2 or -2: sigmoid(2 / T) = 3/4, T = 2 / ln 3.
    logits, targets = np.array([[2.0, -2.0], [2.0, -2.0]], np.float32), np.array([[1, 0], [1, 1]])
    assert fit_label_temperature(logits, targets) == pytest.approx(2 / np.log(3), rel=1e-7)


def test_a_temperature_of_other_images_calibrates_labels_and_changes_no_decision() -> None:
    calibration = labels_calibrated_on(of_labels(*overconfident_labels(500, 6)), "val")
    assert calibration.source == "fitted on 500 validation images"
    held_out = of_labels(*overconfident_labels(2000, 7))
    plain, found = (label_metrics(held_out, "abc", each) for each in (None, calibration))
    assert found["ece"] == plain["ece"] > 0.1 > 0.03 > found["ece_calibrated"]
    assert found["log_loss_calibrated"] < found["log_loss"] and not found["notes"]
    decided = ("map", "auroc", "macro_f1", "micro_f1", "exact_match", "hamming_accuracy", "labels", "log_loss")
    assert all(found[key] == plain[key] for key in decided)


def test_few_images_and_right_decisions_give_labels_no_temperature_and_a_reason() -> None:
    few = labels_calibrated_on(of_labels(*overconfident_labels(99, 8)), "val")
    assert few == Calibration(None, "99 validation images are too few to fit a temperature (100)")
    logits, targets = overconfident_labels(100, 8)
    right = labels_calibrated_on(of_labels(logits, (logits > 0).astype(np.int64)), "val")
    assert right.temperature is None and right.source.startswith("no temperature lowers the log-loss")
    assert fit_label_temperature(np.zeros((5, 2), np.float32), np.ones((5, 2), np.int64)) is None
    assert few.source in label_metrics(of_labels(logits, targets), "abc", few)["notes"]


def test_a_temperature_of_labels_that_does_not_help_is_said() -> None:
    found = label_metrics(of_labels(*overconfident_labels(300, 9)), "abc", Calibration(0.2, "fitted on 100 images"))
    assert found["log_loss_calibrated"] > found["log_loss"]
    assert found["notes"][-1].startswith("the temperature does not help on the measured images (log-loss ")
    same = label_metrics(of_labels(*overconfident_labels(300, 9)), "abc", Calibration(3.0, "x", same_images=True))
    assert same["ece_calibrated"] is None and "these very images" in same["notes"][-1]
