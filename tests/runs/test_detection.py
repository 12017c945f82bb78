"""What is measured of detectors, against hand-computed cases and scikit-learn; and the file of predictions."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn import metrics

from ssat.core.errors import UserError
from ssat.runs.detection import (
    VideoScore,
    average_precision,
    binary_log_loss,
    detection_metrics,
    equal_error_rate,
    read_predictions_csv,
    roc_auc,
    wilson_interval,
    write_predictions_csv,
)


def scored(labels: list[int], probs: list[float | None], methods: list[str] | None = None) -> list[VideoScore]:
    methods = methods or ["Deepfakes" if label else "original" for label in labels]
    return [
        VideoScore(f"v{n}", label, method, prob, 0 if prob is None else 3, "no_face" if prob is None else "ok")
        for n, (label, prob, method) in enumerate(zip(labels, probs, methods, strict=True))
    ]


def test_a_small_case_by_hand() -> None:
    found = detection_metrics(scored([0, 0, 0, 1, 1, 1, 1], [0.1, 0.4, 0.6, 0.3, 0.7, 0.9, None]))
    assert (found["n_total"], found["n_scored"], found["n_failed"]) == (7, 6, 1)
    assert found["accuracy"] == pytest.approx(100 * 4 / 6)
    assert found["accuracy_all"] == pytest.approx(100 * 4 / 7)  # the failure is an error
    assert found["balanced_accuracy"] == pytest.approx(100 * 2 / 3)
    confusion = [found[name] for name in ("real_as_real", "real_as_fake", "fake_as_real", "fake_as_fake")]
    assert confusion == [2, 1, 1, 2]
    # Of nine pairs the fakes win: 0.3 one, 0.7 three, 0.9 three.
    assert found["auc"] == pytest.approx(7 / 9)
    assert found["ap"] == pytest.approx((1 + 1 + 3 / 5) / 3)
    assert found["eer"] == pytest.approx(1 / 3)
    expected = -np.log([0.9, 0.6, 0.4, 0.3, 0.7, 0.9]).mean()
    assert found["log_loss"] == pytest.approx(expected)
    assert found["notes"] == []


def test_a_probability_of_a_half_is_called_real() -> None:
    found = detection_metrics(scored([0, 1], [0.5, 0.5]))
    assert (found["real_as_real"], found["fake_as_real"]) == (1, 1)


@pytest.mark.parametrize("levels", [3, 10, 1000])
def test_ranking_metrics_are_those_of_scikit_learn(levels: int) -> None:
    rng = np.random.default_rng(levels)
    for _ in range(30):
        labels = rng.integers(0, 2, 40)
        labels[:2] = 0, 1
        probs = np.clip(rng.integers(0, levels + 1, 40) / levels + 0.2 * (labels - 0.5), 0, 1)
        assert roc_auc(labels, probs) == pytest.approx(metrics.roc_auc_score(labels, probs), abs=1e-12)
        assert average_precision(labels, probs) == pytest.approx(metrics.average_precision_score(labels, probs))
        assert binary_log_loss(labels, probs) == pytest.approx(metrics.log_loss(labels, np.clip(probs, 1e-6, 1 - 1e-6)))
        false, true, _ = metrics.roc_curve(labels, probs, drop_intermediate=False)
        x = np.linspace(0, 1, 200001)
        nearest = np.argmin(np.abs(np.interp(x, false, true) + x - 1))  # by search on the same polygon
        assert equal_error_rate(labels, probs) == pytest.approx(x[nearest], abs=2e-5)
        found = detection_metrics(scored(labels.tolist(), probs.tolist()))
        assert found["accuracy"] == pytest.approx(100 * metrics.accuracy_score(labels, probs > 0.5))
        assert found["balanced_accuracy"] == pytest.approx(100 * metrics.balanced_accuracy_score(labels, probs > 0.5))


@pytest.mark.parametrize(
    ("labels", "probs", "eer"),
    [
        ([0, 0, 1, 1], [0.1, 0.2, 0.8, 0.9], 0.0),
        ([1, 1, 0, 0], [0.1, 0.2, 0.8, 0.9], 1.0),
        ([0, 1, 0, 1], [0.3, 0.3, 0.3, 0.3], 0.5),
        ([0, 1, 0, 1], [0.2, 0.2, 0.8, 0.8], 0.5),
        ([0, 0, 1, 1, 1], [0.1, 0.6, 0.6, 0.7, 0.8], 0.2),  # between (0, 1/3) and (1/2, 0): t/2 = (1 - t)/3
    ],
)
def test_equal_error_rates_by_hand(labels: list[int], probs: list[float], eer: float) -> None:
    assert equal_error_rate(labels, probs) == pytest.approx(eer)


def test_equal_scores_rank_nothing() -> None:
    found = detection_metrics(scored([0, 1, 1, 1], [0.7] * 4))
    assert (found["auc"], found["ap"], found["eer"]) == (0.5, 0.75, 0.5)


def test_the_order_of_the_videos_changes_nothing() -> None:
    rng = np.random.default_rng(0)
    scores = scored(rng.integers(0, 2, 50).tolist(), rng.random(50).round(1).tolist())
    mixed = [scores[place] for place in rng.permutation(50)]
    assert detection_metrics(scores)["auc"] == detection_metrics(mixed)["auc"]


def test_sure_errors_have_a_bounded_log_loss() -> None:
    assert binary_log_loss([1, 0], [0.0, 1.0]) == pytest.approx(-math.log(1e-6))


@pytest.mark.parametrize(("labels", "missing"), [([1, 1, 1], "real"), ([0, 0], "fake")])
def test_one_class_alone_has_an_accuracy_and_no_ranking(labels: list[int], missing: str) -> None:
    found = detection_metrics(scored(labels, [0.2, 0.9, 0.6][: len(labels)]))
    assert found["accuracy"] == pytest.approx(100 * 2 / 3 if missing == "real" else 50)
    assert found["log_loss"] is not None
    assert [found[name] for name in ("auc", "ap", "eer", "balanced_accuracy")] == [None] * 4
    assert found["notes"] == [f"no {missing} video has a score: balanced accuracy, AUC, AP and EER are not defined"]


@pytest.mark.parametrize("labels", [[], [0, 1]])
def test_without_scores_nothing_is_claimed(labels: list[int]) -> None:
    found = detection_metrics(scored(labels, [None] * len(labels)))
    assert found["accuracy"] is found["log_loss"] is found["auc"] is found["accuracy_low"] is None
    assert found["accuracy_all"] == (0 if labels else None)
    assert found["notes"] == ["no video has a score" if labels else "there are no videos"]


def test_every_manipulation_is_measured_against_all_originals() -> None:
    labels, probs = [0, 0, 1, 1, 1], [0.2, 0.6, 0.9, 0.1, None]
    methods = ["original", "original", "Deepfakes", "FaceSwap", "FaceSwap"]
    found = detection_metrics(scored(labels, probs, methods))["methods"]
    assert list(found) == ["Deepfakes", "FaceSwap"]
    assert found["Deepfakes"]["auc"] == 1 and found["FaceSwap"]["auc"] == 0
    assert (found["FaceSwap"]["n_total"], found["FaceSwap"]["n_failed"]) == (4, 1)
    assert found["FaceSwap"]["accuracy_all"] == 25 and found["Deepfakes"]["accuracy"] == pytest.approx(200 / 3)


@pytest.mark.parametrize(("right", "of"), [(252, 280), (0, 10), (10, 10), (1, 3), (600, 4000)])
def test_wilson_interval_is_that_of_scipy(right: int, of: int) -> None:
    expected = binomtest(right, of).proportion_ci(method="wilson")
    assert wilson_interval(right, of) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_nothing_has_no_interval() -> None:
    assert wilson_interval(0, 0) is None


@pytest.mark.parametrize("prob", [float("nan"), float("inf"), -0.1, 1.1])
def test_no_probability_is_refused(prob: float) -> None:
    with pytest.raises(UserError, match="the score of a is .* no probability"):
        VideoScore("a", 1, "Deepfakes", prob, 2)


def test_other_labels_clips_without_score_and_a_second_score_are_refused() -> None:
    with pytest.raises(UserError, match="label of a is 2"):
        VideoScore("a", 2, "x", 0.5, 1)
    with pytest.raises(UserError, match="from 0 clips"):
        VideoScore("a", 1, "x", 0.5, 0)
    score = VideoScore("a", 1, "x", 0.5, 1)
    with pytest.raises(UserError, match="a has two scores"):
        detection_metrics([score, score])
    with pytest.raises(UserError, match="nan"):
        roc_auc([0, 1], [0.5, float("nan")])


def test_predictions_come_back_exactly(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    scores = scored([0, 1, 1, 0], [*rng.random(2).tolist(), None, 1e-9])
    scores.append(VideoScore('a,"b"/ü\nc', 1, "Face, swap", 1 / 3, 7, "partial"))
    path = write_predictions_csv(tmp_path / "predictions.csv", scores)
    read = read_predictions_csv(path)
    assert read == sorted(scores, key=lambda score: score.video_id)
    assert detection_metrics(read) == detection_metrics(scores)
    assert path.read_text().splitlines()[0] == "video,label,method,prob,n_clips,status"


HEADER = b"video,label,method,prob,n_clips,status\n"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "cannot be read"),
        (b"", "does not begin with video,label"),
        (b"video,prob\na,0.5\n", "does not begin with video,label"),
        (HEADER + b"a,1,x,0.5\n", "line 2 is damaged"),
        (HEADER + b"a,1,x,0.5,3,ok\nb,1,x,half,3,ok\n", "line 3 is damaged"),
        (HEADER + b"a,1,x,nan,3,ok\n", "line 2 is damaged"),
        (HEADER + b"a,5,x,0.5,3,ok\n", "line 2 is damaged"),
        (HEADER + b"\xff\xfe,1,x,0.5,3,ok\n", "cannot be read"),
        (HEADER + b'"a,1,x,0.5,3,ok\n', "cannot be read"),
    ],
)
def test_a_damaged_file_is_one_sentence(tmp_path: Path, content: bytes | None, says: str) -> None:
    path = tmp_path / "predictions.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=says) as caught:
        read_predictions_csv(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
