"""How well videos of more than two classes are told apart, and the file of predictions that says it of each video.

Of two classes, real and fake, it is `ssat.runs.detection`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ssat.core.errors import UserError
from ssat.runs.detection import CLIP, accuracy_of
from ssat.runs.prediction_rows import write_rows

BEFORE, AFTER = ("video", "label", "method"), ("n_clips", "status")  # columns around those of the probabilities
PROB = "prob_"  # and the name of the class


@dataclass(frozen=True)
class ClassScore:
    """What is predicted of one video.

    Attributes:
        video_id: unique among the scores.
        label: number of its class.
        method: of the video in the manifest; of a folder of videos the name of the class.
        probs: of the classes; () where the video has no score, because it has no clip.
        n_clips: clips that `probs` are the mean of.
        status: of the video in the manifest.

    Raises:
        UserError: a label or a probability that is not possible, or a score without clips.
    """

    video_id: str
    label: int
    method: str
    probs: tuple[float, ...]
    n_clips: int
    status: str = "ok"

    def __post_init__(self) -> None:
        if self.label < 0 or (self.probs and self.label >= len(self.probs)):
            raise UserError(f"the label of {self.video_id} is {self.label}, and there are {len(self.probs)} classes")
        if not all(0 <= prob <= 1 for prob in self.probs):
            raise UserError(
                f"the scores of {self.video_id} are {self.probs}, which are no probabilities: a training that diverged"
                " predicts nan, so look at its loss"
            )
        if self.n_clips < 0 or bool(self.probs) != bool(self.n_clips):
            raise UserError(f"the video {self.video_id} has {self.n_clips} clips: it has scores and clips, or neither")


def class_metrics(scores: Sequence[ClassScore], classes: Sequence[str]) -> dict[str, Any]:
    """What is measured of all videos, and of those of each class. The class of the highest probability is predicted.

    Args:
        scores: of the videos.
        classes: names, in the order of the labels.

    Returns:
        n_total, n_scored, n_failed: videos, those with a score, those without.
        accuracy, accuracy_all: percent of the scored ones, and of all; with their Wilson intervals.
        balanced_accuracy: mean of the accuracies of the classes with scored videos, percent.
        log_loss: mean of -log of the probability of the true class, clipped to [1e-6, 1 - 1e-6], nats.
        confusion: for each true class the scored videos by predicted class.
        classes: by name n_total, n_scored, n_failed and the accuracies.
        notes: a sentence for each class that has no scored video.

    Raises:
        UserError: a video occurs twice.
    """
    twice = [video for video, count in Counter(score.video_id for score in scores).items() if count > 1]
    if twice:
        raise UserError(f"the video {twice[0]} has two scores: every video counts once")
    confusion = np.zeros((len(classes), len(classes)), dtype=np.int64)
    losses = []
    for score in scores:
        if score.probs:
            confusion[score.label, int(np.argmax(score.probs))] += 1
            losses.append(-np.log(np.clip(score.probs[score.label], CLIP, 1 - CLIP)))
    totals = [sum(score.label == label for score in scores) for label in range(len(classes))]
    of_classes = {
        name: _counted(int(confusion[label, label]), int(confusion[label].sum()), totals[label])
        for label, name in enumerate(classes)
    }
    recalls = [each["accuracy"] for each in of_classes.values() if each["accuracy"] is not None]
    return {
        **_counted(int(np.trace(confusion)), int(confusion.sum()), len(scores)),
        "balanced_accuracy": float(np.mean(recalls)) if recalls else None,
        "log_loss": float(np.mean(losses)) if losses else None,
        "confusion": confusion.tolist(),
        "classes": of_classes,
        "notes": [
            f"no video of class {name} has a score: balanced accuracy is the mean over the other classes"
            for name, each in of_classes.items()
            if not each["n_scored"]
        ],
    }


def _counted(right: int, scored: int, total: int) -> dict[str, Any]:
    counts = {"n_total": total, "n_scored": scored, "n_failed": total - scored}
    return counts | accuracy_of("accuracy", right, scored) | accuracy_of("accuracy_all", right, total)


def write_class_predictions(path: Path, scores: Sequence[ClassScore], classes: Sequence[str]) -> Path:
    """Write a row for every video, ordered by video, from which every metric can be computed again exactly."""
    rows = []
    for score in sorted(scores, key=lambda each: each.video_id):
        probs = [repr(float(prob)) for prob in score.probs] or [""] * len(classes)
        rows.append([score.video_id, score.label, score.method, *probs, score.n_clips, score.status])
    return write_rows(path, [*BEFORE, *(PROB + name for name in classes), *AFTER], rows)
