"""Videos of more than two classes: a case by hand, scikit-learn, and the file of predictions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn import metrics

from ssat.core.errors import UserError
from ssat.runs.detection import wilson_interval
from ssat.runs.video_classes import ClassScore, class_metrics, write_class_predictions
from tests.runs.class_scores import class_scores

CLASSES = ["faceswap", "lip, sync", "real"]


def scored(labels: list[int], probs: list[tuple[float, ...]]) -> list[ClassScore]:
    return [
        ClassScore(f"v{n}", label, CLASSES[label], each, 3 if each else 0, "ok" if each else "no_face")
        for n, (label, each) in enumerate(zip(labels, probs, strict=True))
    ]


def by_hand() -> list[ClassScore]:
    return scored([0, 0, 1, 1], [(0.6, 0.3, 0.1), (0.2, 0.5, 0.3), (0.1, 0.8, 0.1), ()])


def test_a_small_case_by_hand() -> None:
    found = class_metrics(by_hand(), CLASSES)
    assert (found["n_total"], found["n_scored"], found["n_failed"]) == (4, 3, 1)
    assert found["accuracy"] == pytest.approx(200 / 3) and found["accuracy_all"] == 50
    low, high = wilson_interval(2, 3) or (0, 0)
    assert (found["accuracy_low"], found["accuracy_high"]) == (100 * low, 100 * high)
    assert found["balanced_accuracy"] == 75  # 50 % and 100 %; the third class has no video
    assert found["log_loss"] == pytest.approx(-np.log([0.6, 0.2, 0.8]).mean())
    assert found["confusion"] == [[1, 1, 0], [0, 1, 0], [0, 0, 0]]
    assert [each["accuracy"] for each in found["classes"].values()] == [50, 100, None]
    assert found["classes"]["lip, sync"]["n_failed"] == 1
    assert found["notes"] == [
        "no video of class real has a score: balanced accuracy is the mean over the other classes"
    ]


def test_they_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 60)
    probs = rng.dirichlet(np.ones(3), 60)
    found = class_metrics(scored(labels.tolist(), [tuple(map(float, each)) for each in probs]), CLASSES)
    said = probs.argmax(1)
    assert found["accuracy"] == pytest.approx(100 * metrics.accuracy_score(labels, said))
    assert found["balanced_accuracy"] == pytest.approx(100 * metrics.balanced_accuracy_score(labels, said))
    assert found["log_loss"] == pytest.approx(metrics.log_loss(labels, probs))
    assert found["confusion"] == metrics.confusion_matrix(labels, said).tolist()


def test_the_file_gives_the_same_scores_again(tmp_path: Path) -> None:
    scores = by_hand()
    path = write_class_predictions(tmp_path / "predictions.csv", scores[::-1], CLASSES)
    assert path.read_text().splitlines()[0] == (
        'video,label,method,prob_faceswap,"prob_lip, sync",prob_real,n_clips,status'
    )
    assert class_scores(path) == (scores, CLASSES)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"label": 3}, "the label of v is 3"),
        ({"probs": (float("nan"), 0.5, 0.5)}, "no probabilities"),
        ({"n_clips": 0}, "scores and clips, or neither"),
    ],
)
def test_a_score_that_is_not_possible_is_one_sentence(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        replace(ClassScore("v", 0, "a", (0.2, 0.3, 0.5), 1), **wrong)


def test_a_video_counts_once() -> None:
    with pytest.raises(UserError, match="v0 has two scores"):
        class_metrics([*by_hand(), by_hand()[0]], CLASSES)
