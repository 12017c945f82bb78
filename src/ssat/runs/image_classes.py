"""How well images are told apart, and the file of their predictions. Of videos it is `ssat.runs.detection`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torchmetrics.functional.classification import binary_auroc, binary_average_precision

from ssat.core.errors import UserError
from ssat.runs.calibration import FEWEST, doubt, expected_calibration_error, fit_temperature, log_loss, probabilities
from ssat.runs.detection import accuracy_of
from ssat.runs.prediction_rows import write_rows

COLUMNS = ("image", "label", "predicted", "probability", "correct")
LARGEST_TABLE = 50  # classes of a confusion matrix in a record; that of more is counted from the predictions
NAN = "the network predicts nan: the training has diverged, try a lower recipe.base_lr"


@dataclass(frozen=True)
class ImagePredictions:
    """What a network says of the images of a split, ordered by index.

    Attributes:
        indices: (N,) of the images in their data set.
        targets: (N,) classes.
        predicted: (N,) classes.
        logits: (N, K); None where only the predicted class was kept.

    Raises:
        UserError: a logit is nan.
    """

    indices: NDArray[np.int64]
    targets: NDArray[np.int64]
    predicted: NDArray[np.int64]
    logits: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        if self.logits is not None and not np.isfinite(self.logits).all():
            raise UserError(NAN)

    @property
    def right(self) -> NDArray[np.bool_]:
        """(N,) whether the class is the predicted one."""
        return self.targets == self.predicted


def confusion_matrix(targets: NDArray[np.int64], predicted: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    """(K, K) images by true and by predicted class."""
    # Not torchmetrics': under deterministic algorithms it needs N x K x K numbers.
    return np.bincount(targets * classes + predicted, minlength=classes**2).reshape(classes, classes)


def of_confusion(confusion: NDArray[np.int64]) -> dict[str, float]:
    """`balanced_acc` and `macro_f1` in percent of a confusion matrix (K, K) with at least one image.

    As scikit-learn defines them: the mean of the accuracies of the classes that have images, and the mean of the F1 of
    the classes that have images or are predicted.
    """
    right, of, called = np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    there, named = of > 0, of + called > 0
    return {
        "balanced_acc": 100 * float(np.mean(right[there] / of[there])),
        "macro_f1": 100 * float(np.mean(2 * right[named] / (of + called)[named])),
    }


def ranking(targets: NDArray[np.int64], probs: NDArray[np.float64], *, ap: bool = True) -> dict[str, float]:
    """`auroc` and `ap` in [0, 1] of (N,) classes and (N, K) probabilities.

    Of two classes those of the second against the first; of more each class against the others, and the mean over the
    classes that have images beside which there are others. A number that is not defined is left out.
    """
    values, truth = torch.from_numpy(probs), torch.from_numpy(targets)
    chosen = [1] if probs.shape[1] == 2 else range(probs.shape[1])
    defined = [c for c in chosen if 0 < int((truth == c).sum()) < len(truth)]
    if not defined:
        return {}
    measures = {"auroc": binary_auroc} | ({"ap": binary_average_precision} if ap else {})
    return {
        name: float(np.mean([float(f(values[:, c], (truth == c).long(), validate_args=False)) for c in defined]))
        for name, f in measures.items()
    }


def epoch_metrics(kept: ImagePredictions, classes: int, *, ranked: bool) -> dict[str, float]:
    """What every epoch measures beside accuracy and loss: `balanced_acc`, `macro_f1` and, where `ranked`, `auroc`."""
    found = of_confusion(confusion_matrix(kept.targets, kept.predicted, classes))
    if ranked and kept.logits is not None:
        found |= ranking(kept.targets, probabilities(kept.logits), ap=False)
    return found


@dataclass(frozen=True)
class Calibration:
    """The temperature of a network, and the words on where it comes from.

    Attributes:
        temperature: None where there is none.
        source: what it was fitted on, or why there is none.
        same_images: it was fitted on the images that are measured: their ECE with it says nothing.
    """

    temperature: float | None = None
    source: str = "there is no validation split to fit a temperature on: keep one with data.val_fraction=0.1"
    same_images: bool = False


def calibrated_on(kept: ImagePredictions, split: str, *, same_images: bool = False) -> Calibration:
    """The temperature fitted on the images of a split; needs their logits, and `FEWEST` images."""
    assert kept.logits is not None
    return calibration_by(fit_temperature, kept.logits, kept.targets, split, same_images=same_images)


def calibration_by(
    fit: Callable[[NDArray[np.float32], NDArray[np.int64]], float | None],
    logits: NDArray[np.float32],
    targets: NDArray[np.int64],
    split: str,
    *,
    same_images: bool = False,
) -> Calibration:
    """The temperature that `fit` finds for logits and targets (N, ...) of a split, or why there is none."""
    if reason := too_few(len(targets), split):
        return Calibration(None, reason)
    temperature = fit(logits, targets)
    if temperature is None:
        return Calibration(
            None,
            f"no temperature lowers the log-loss of the {_named(split)} images: all are right, or their probabilities"
            " are as they should be",
        )
    return Calibration(temperature, f"fitted on {len(targets):,} {_named(split)} images", same_images)


def too_few(images: int, split: str) -> str:
    """Why no temperature is fitted on so few images of a split; empty where there are enough."""
    return f"{images:,} {_named(split)} images are too few to fit a temperature ({FEWEST})" if images < FEWEST else ""


def _named(split: str) -> str:
    return "validation" if split == "val" else split


def image_metrics(kept: ImagePredictions, classes: Sequence[str], calibration: Calibration) -> dict[str, Any]:
    """Everything that is measured of the images of a split, and of each class.

    Args:
        kept: with logits, of at least one image.
        classes: names, in the order of the labels.
        calibration: see the class.

    Returns:
        images: how many.
        accuracy: percent; `accuracy_low` and `accuracy_high` are its Wilson 95 % interval.
        majority: percent of the images that are of the most frequent class, whose name is `majority_class`.
        balanced_accuracy, macro_f1: percent; auroc, ap: [0, 1], see `ranking`; None where they are not defined.
        log_loss, ece: nats, and [0, 1]; log_loss_calibrated and ece_calibrated with the `temperature`.
        temperature_source: words.
        confusion: for each true class the images by predicted class; None of more than 50 classes.
        classes: by name n, accuracy, and the class that most of its mistakes are taken for, with their number.
        notes: a sentence for each thing that is not defined.
    """
    logits = kept.logits
    assert logits is not None, "metrics of images need their logits"
    confusion = confusion_matrix(kept.targets, kept.predicted, len(classes))
    counts, probs = confusion.sum(axis=1), probabilities(logits)
    shares, ranks = of_confusion(confusion), ranking(kept.targets, probs)
    t = calibration.temperature
    again = t is not None and not calibration.same_images
    found: dict[str, Any] = {
        "images": len(kept.targets),
        **accuracy_of("accuracy", int(kept.right.sum()), len(kept.targets)),
        "majority": 100 * float(counts.max() / counts.sum()),
        "majority_class": classes[int(counts.argmax())],
        "balanced_accuracy": shares["balanced_acc"],
        "macro_f1": shares["macro_f1"],
        "auroc": ranks.get("auroc"),
        "ap": ranks.get("ap"),
        "log_loss": log_loss(logits, kept.targets),
        "ece": expected_calibration_error(probs, kept.targets),
        "temperature": t,
        "temperature_source": calibration.source,
        "log_loss_calibrated": log_loss(logits, kept.targets, t) if again and t else None,
        "ece_calibrated": expected_calibration_error(probabilities(logits, t), kept.targets) if again and t else None,
        "confusion": confusion.tolist() if len(classes) <= LARGEST_TABLE else None,
        "classes": {name: _of_class(confusion[label], label, classes) for label, name in enumerate(classes)},
        "notes": _notes(counts, classes, ranks),
    }
    return found | {"notes": [*found["notes"], *calibration_notes(found, calibration)]}


def calibration_notes(found: Mapping[str, Any], calibration: Calibration) -> list[str]:
    """Why there is no temperature, or none to trust, or that it does not help, from the metrics `found`."""
    if calibration.temperature is None:
        return [calibration.source]
    if calibration.same_images:
        return ["the temperature was fitted on these very images: there is no ECE with it to trust"]
    doubtful = doubt(found, "measured images")
    return [doubtful] if doubtful else []


def _of_class(row: NDArray[np.int64], label: int, classes: Sequence[str]) -> dict[str, Any]:
    n, wrong = int(row.sum()), row.copy()
    wrong[label] = 0
    most = int(wrong.argmax())
    return {
        "n": n,
        "accuracy": 100 * int(row[label]) / n if n else None,
        "confused_with": classes[most] if wrong[most] else None,
        "confused": int(wrong[most]),
    }


def _notes(counts: NDArray[np.int64], classes: Sequence[str], ranks: Mapping[str, float]) -> list[str]:
    lacking = [name for name, count in zip(classes, counts, strict=True) if not count]
    notes = []
    if lacking:
        named = ", ".join(lacking[:3]) + (f" and {len(lacking) - 3} more" if len(lacking) > 3 else "")
        notes.append(f"no image of class {named}: the means over classes are those over the others")
    if not ranks:
        notes.append("all images are of one class: AUROC and AP are not defined")
    return notes


def write_image_predictions(path: Path, kept: ImagePredictions, names: Sequence[str], classes: Sequence[str]) -> Path:
    """Write a row for every image, ordered by its place in the data.

    Args:
        path: of the CSV file.
        kept: with logits.
        names: (N,) of the images: their paths below the folder of the data, or their places in the set.
        classes: names, in the order of the labels.
    """
    assert kept.logits is not None
    probs = probabilities(kept.logits)
    rows = [
        [name, classes[target], classes[called], repr(float(prob[called])), str(bool(target == called)).lower()]
        for name, target, called, prob in zip(names, kept.targets, kept.predicted, probs, strict=True)
    ]
    return write_rows(path, COLUMNS, rows)
