"""How well deepfakes are told from originals, per video, and the file of predictions that it can be computed from."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ssat.core.errors import UserError
from ssat.data.video.manifest import FAKE, REAL
from ssat.runs.prediction_rows import read_rows, write_rows

PREDICTIONS = "predictions.csv"
CLIP = 1e-6  # of probabilities in the log-loss, so that a sure error costs 13.8 and not infinity
COLUMNS = ("video", "label", "method", "prob", "n_clips", "status")


@dataclass(frozen=True)
class VideoScore:
    """What is predicted of one video.

    Attributes:
        video_id: unique among the scores.
        label: 0 = real, 1 = fake.
        method: original, or how it was manipulated.
        prob: of being fake; None where the video has no score, because it has no clip.
        n_clips: clips that `prob` is the mean of.
        status: of the video in the manifest.

    Raises:
        UserError: another label, a probability that is none, or a score without clips.
    """

    video_id: str
    label: int
    method: str
    prob: float | None
    n_clips: int
    status: str = "ok"

    def __post_init__(self) -> None:
        if self.label not in (REAL, FAKE):
            raise UserError(f"the label of {self.video_id} is {self.label}: it must be 0 (real) or 1 (fake)")
        if self.prob is not None and not 0 <= self.prob <= 1:
            raise UserError(
                f"the score of {self.video_id} is {self.prob}, which is no probability: a training that diverged"
                " predicts nan, so look at its loss"
            )
        if self.n_clips < 0 or (self.prob is None) != (self.n_clips == 0):
            raise UserError(
                f"the score of {self.video_id} is {self.prob} from {self.n_clips} clips: it has a score and clips, or"
                " neither"
            )


def detection_metrics(scores: Sequence[VideoScore]) -> dict[str, Any]:
    """What is measured of all videos, and of each manipulation against all the originals.

    A video is called fake where its probability is above 0.5. A number that the scores do not define is None, and a
    note says why: of one class alone there is no ranking.

    Returns:
        n_total, n_scored, n_failed: videos, those with a score, those without.
        accuracy: percent of the scored ones; `accuracy_low` and `accuracy_high` are its Wilson 95 % interval.
        accuracy_all: percent of all, a video without a score counted as an error; with its interval likewise.
        balanced_accuracy: mean of the accuracies of both classes, percent.
        auc, ap, eer, log_loss: of `roc_auc`, `average_precision`, `equal_error_rate` and `binary_log_loss`.
        real_as_real, real_as_fake, fake_as_real, fake_as_fake: the confusion matrix, scored videos.
        methods: the same by manipulation, its videos and all originals.
        notes: one sentence for each number that is not defined.

    Raises:
        UserError: a video occurs twice.
    """
    twice = [video for video, count in Counter(score.video_id for score in scores).items() if count > 1]
    if twice:
        raise UserError(f"the video {twice[0]} has two scores: every video counts once")
    originals = [score for score in scores if score.label == REAL]
    methods = sorted({score.method for score in scores if score.label == FAKE})
    return _measured(scores) | {
        "methods": {
            method: _measured([*originals, *(s for s in scores if s.label == FAKE and s.method == method)])
            for method in methods
        }
    }


def _measured(scores: Sequence[VideoScore]) -> dict[str, Any]:
    kept = [(score.label, score.prob) for score in scores if score.prob is not None]
    labels = np.array([label for label, _ in kept], dtype=np.int64)
    probs = np.array([prob for _, prob in kept], dtype=np.float64)
    table = confusion(labels, probs)
    right, n_total, n_scored = table["real_as_real"] + table["fake_as_fake"], len(scores), len(kept)
    return {
        "n_total": n_total,
        "n_scored": n_scored,
        "n_failed": n_total - n_scored,
        **accuracy_of("accuracy", right, n_scored),
        **accuracy_of("accuracy_all", right, n_total),
        "balanced_accuracy": balanced_accuracy(labels, probs),
        "auc": roc_auc(labels, probs),
        "ap": average_precision(labels, probs),
        "eer": equal_error_rate(labels, probs),
        "log_loss": binary_log_loss(labels, probs),
        **table,
        "notes": _notes(labels, n_total),
    }


def accuracy_of(name: str, right: int, of: int) -> dict[str, float | None]:
    """The share `right` / `of` in percent as `name`, with its Wilson 95 % interval; None of nothing."""
    interval = wilson_interval(right, of)
    low, high = (None, None) if interval is None else (100 * interval[0], 100 * interval[1])
    return {name: 100 * right / of if of else None, f"{name}_low": low, f"{name}_high": high}


def _notes(labels: NDArray[np.int64], n_total: int) -> list[str]:
    if len(labels) == 0:
        return ["no video has a score" if n_total else "there are no videos"]
    missing = [name for label, name in ((REAL, "real"), (FAKE, "fake")) if label not in labels]
    return [f"no {name} video has a score: balanced accuracy, AUC, AP and EER are not defined" for name in missing]


def confusion(labels: ArrayLike, probs: ArrayLike) -> dict[str, int]:
    """Videos by their class and the one they are called: fake where the probability is above 0.5."""
    fake, called = np.asarray(labels) == FAKE, np.asarray(probs) > 0.5
    return {
        "real_as_real": int((~fake & ~called).sum()),
        "real_as_fake": int((~fake & called).sum()),
        "fake_as_real": int((fake & ~called).sum()),
        "fake_as_fake": int((fake & called).sum()),
    }


def balanced_accuracy(labels: ArrayLike, probs: ArrayLike) -> float | None:
    """Mean of the accuracies of both classes in percent; None where one is missing."""
    table = confusion(labels, probs)
    real, fake = table["real_as_real"] + table["real_as_fake"], table["fake_as_real"] + table["fake_as_fake"]
    return 50 * (table["real_as_real"] / real + table["fake_as_fake"] / fake) if real and fake else None


def _ranked(labels: ArrayLike, probs: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
    """Originals and fakes at or above each threshold: (K + 1,) from none to all, equal scores in one step.

    None where a class is missing.

    Raises:
        UserError: a score is nan.
    """
    truth, values = np.asarray(labels) == FAKE, np.asarray(probs, dtype=np.float64)
    if np.isnan(values).any():
        raise UserError("a score is nan, which has no rank: a training that diverged predicts it, so look at its loss")
    if truth.all() or not truth.any():
        return None
    order = np.argsort(-values, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(values[order])), len(values) - 1)
    fakes = np.append(0, np.cumsum(truth[order])[ends])
    return np.append(0, ends + 1) - fakes, fakes


def roc_auc(labels: ArrayLike, probs: ArrayLike) -> float | None:
    """Area under the ROC curve: how often a fake has the higher score of a random pair, equal ones counting half.

    Of videos or of clips. None where a class is missing.
    """
    ranked = _ranked(labels, probs)
    if ranked is None:
        return None
    false, true = ranked
    # Whole numbers until the end: exact, and the same for any order of the scores.
    return float(np.sum(np.diff(false) * (true[1:] + true[:-1])) / (2 * int(false[-1]) * int(true[-1])))


def roc_curve(labels: ArrayLike, probs: ArrayLike) -> list[tuple[float, float]]:
    """The corners of the ROC curve from (0, 0) to (1, 1): shares of originals and of fakes that are called fake.

    Empty where a class is missing.
    """
    ranked = _ranked(labels, probs)
    if ranked is None:
        return []
    false, true = ranked
    steps = np.stack([np.diff(false), np.diff(true)])
    turns = steps[0, 1:] * steps[1, :-1] != steps[1, 1:] * steps[0, :-1]
    kept = np.concatenate([[True], turns, [True]])
    return [(int(x) / int(false[-1]), int(y) / int(true[-1])) for x, y in zip(false[kept], true[kept], strict=True)]


def average_precision(labels: ArrayLike, probs: ArrayLike) -> float | None:
    """AP of the fakes: the sum of (R_n - R_{n-1}) P_n over the thresholds, as scikit-learn defines it.

    None where a class is missing.
    """
    ranked = _ranked(labels, probs)
    if ranked is None:
        return None
    false, true = ranked
    precision = true[1:] / (true[1:] + false[1:])
    return float(np.sum(np.diff(true) / true[-1] * precision))


def equal_error_rate(labels: ArrayLike, probs: ArrayLike) -> float | None:
    """EER in [0, 1]: the error at which as large a share of the originals as of the fakes is mistaken.

    The ROC curve is a polygon through the points (share of originals called fake, share of fakes called real) of all
    thresholds; the EER is where the polygon crosses the line on which both are equal, between two thresholds by linear
    interpolation. Scores that are all equal have an EER of 0.5. None where a class is missing.
    """
    ranked = _ranked(labels, probs)
    if ranked is None:
        return None
    false, missed = ranked[0] / ranked[0][-1], 1 - ranked[1] / ranked[1][-1]
    gap = missed - false  # falls from 1 to -1
    after = int(np.argmax(gap <= 0))
    share = gap[after - 1] / (gap[after - 1] - gap[after])
    return float(false[after - 1] + share * (false[after] - false[after - 1]))


def binary_log_loss(labels: ArrayLike, probs: ArrayLike) -> float | None:
    """Mean of -log of the probability of the true class, clipped to [1e-6, 1 - 1e-6] (the measure of DFDC).

    None without scores.
    """
    truth, values = np.asarray(labels) == FAKE, np.clip(np.asarray(probs, dtype=np.float64), CLIP, 1 - CLIP)
    return float(-np.mean(np.log(np.where(truth, values, 1 - values)))) if len(values) else None


def wilson_interval(right: int, of: int, level: float = 0.95) -> tuple[float, float] | None:
    """Wilson's interval of the share `right` / `of`, in [0, 1]; None of nothing (Wilson 1927)."""
    if not of:
        return None
    z = statistics.NormalDist().inv_cdf((1 + level) / 2)
    share, extra = right / of, z**2 / of
    middle = (share + extra / 2) / (1 + extra)
    half = z / (1 + extra) * math.sqrt(share * (1 - share) / of + extra / (4 * of))
    return max(0.0, middle - half), min(1.0, middle + half)


def write_predictions_csv(path: Path, scores: Sequence[VideoScore]) -> Path:
    """Write a row for every video, ordered by video, from which every metric can be computed again exactly."""
    rows = [
        [
            one.video_id,
            one.label,
            one.method,
            "" if one.prob is None else repr(float(one.prob)),
            one.n_clips,
            one.status,
        ]
        for one in sorted(scores, key=lambda each: each.video_id)
    ]
    return write_rows(path, COLUMNS, rows)


def read_predictions_csv(path: Path) -> list[VideoScore]:
    """The rows of a file of `write_predictions_csv`.

    Raises:
        UserError: there is no such file, or it is damaged; names the line.
    """
    rows = read_rows(path)
    if not rows or tuple(rows[0]) != COLUMNS:
        raise UserError(f"{path} does not begin with {','.join(COLUMNS)}: it holds no predictions of videos")
    return [_score(row, path, line) for line, row in enumerate(rows[1:], 2)]


def _score(row: list[str], path: Path, line: int) -> VideoScore:
    try:
        video, label, method, prob, n_clips, status = row
        return VideoScore(video, int(label), method, float(prob) if prob else None, int(n_clips), status)
    except ValueError as error:
        raise UserError(f"{path} line {line} is damaged ({error}): evaluate the run again") from error
