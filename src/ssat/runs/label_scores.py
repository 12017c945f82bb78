"""How well several labels of an image (multi-label) are told, and the file of their predictions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics.functional.classification import binary_auroc, binary_average_precision

from ssat.core.errors import UserError
from ssat.runs.calibration import expected_calibration_error, fit_label_temperature, label_log_loss
from ssat.runs.image_classes import NAN, Calibration, calibration_by, calibration_notes
from ssat.runs.prediction_rows import write_rows

Ranks = Mapping[str, Sequence[float | None]]  # by measure, of each label
JOINED = ";"  # between the names of an image's labels
SHOWN = 3  # labels in one sentence


@dataclass(frozen=True)
class LabelPredictions:
    """What a network says of the labels of the images of a split, ordered by index.

    Attributes:
        indices: (N,) of the images in their data set.
        targets: (N, K), 1 for each label that an image has, else 0.
        logits: (N, K); a label is predicted where its logit is above 0, its probability above 0.5.

    Raises:
        UserError: a logit is nan.
    """

    indices: NDArray[np.int64]
    targets: NDArray[np.int64]
    logits: NDArray[np.float32]

    def __post_init__(self) -> None:
        if not np.isfinite(self.logits).all():
            raise UserError(NAN)

    @property
    def predicted(self) -> NDArray[np.bool_]:
        """(N, K) whether a label is predicted."""
        return self.logits > 0

    @property
    def probs(self) -> NDArray[np.float64]:
        """(N, K) sigmoid of the logits, in double precision."""
        return self.probs_at(1.0)

    def probs_at(self, temperature: float) -> NDArray[np.float64]:
        """(N, K) sigmoid of the logits divided by the temperature, in double precision."""
        return torch.from_numpy(self.logits).double().div(temperature).sigmoid().numpy()

    def ece_at(self, temperature: float = 1.0) -> float:
        """ECE in [0, 1] over all decisions (images x labels), of which the answer's probability is the confidence."""
        probs = self.probs_at(temperature)
        decisions = np.stack([1 - probs, probs], axis=2).reshape(-1, 2)
        return expected_calibration_error(decisions, self.targets.reshape(-1))


def labels_calibrated_on(kept: LabelPredictions, split: str, *, same_images: bool = False) -> Calibration:
    """One temperature for all labels, fitted on the images of a split; needs `calibration.FEWEST` of them."""
    return calibration_by(fit_label_temperature, kept.logits, kept.targets, split, same_images=same_images)


def label_ranking(kept: LabelPredictions) -> dict[str, list[float | None]]:
    """`ap` and `auroc` of each label in [0, 1].

    None where it is not defined: AP of a label that no image has; AUROC of one that all have, too.
    """
    probs, truth = torch.from_numpy(kept.probs), torch.from_numpy(kept.targets)
    positive = truth.sum(dim=0).tolist()

    def of_labels(measure: Callable[..., Tensor], most: int) -> list[float | None]:
        return [
            float(measure(probs[:, label], truth[:, label], validate_args=False)) if 0 < n <= most else None
            for label, n in enumerate(positive)
        ]

    images = len(truth)
    return {"ap": of_labels(binary_average_precision, images), "auroc": of_labels(binary_auroc, images - 1)}


def f1_scores(kept: LabelPredictions) -> tuple[NDArray[np.float64], float]:
    """F1 of each label (K,) and over all decisions (micro), in [0, 1]; 0 where nothing is there and nothing predicted.

    As scikit-learn's with zero_division=0.
    """
    truth, called = kept.targets == 1, kept.predicted
    right, both = (truth & called).sum(axis=0), truth.sum(axis=0) + called.sum(axis=0)
    each = np.where(both > 0, 2 * right / np.maximum(both, 1), 0.0)
    return each, float(2 * right.sum() / max(both.sum(), 1))


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def label_epoch_metrics(kept: LabelPredictions, ranks: Ranks | None = None) -> dict[str, float]:
    """What every epoch measures.

    Returns:
        loss: mean binary cross-entropy over images and labels, nats, not smoothed.
        map, auroc: means of AP and AUROC over the labels that define them, [0, 1]; left out where none does.
        macro_f1: percent, mean over the labels that an image has or that are predicted; micro_f1: over all decisions.
        exact_match: percent of the images whose labels are all right; hamming_acc: percent of all decisions.
    """
    ranks = ranks or label_ranking(kept)
    right = kept.predicted == (kept.targets == 1)
    of_label, micro = f1_scores(kept)
    used = (kept.targets == 1).any(axis=0) | kept.predicted.any(axis=0)
    logits, truth = torch.from_numpy(kept.logits).double(), torch.from_numpy(kept.targets).double()
    means = {"map": _mean(ranks["ap"]), "auroc": _mean(ranks["auroc"])}
    return {
        "loss": float(F.binary_cross_entropy_with_logits(logits, truth)),
        **{name: value for name, value in means.items() if value is not None},
        "macro_f1": 100 * float(of_label[used].mean()) if used.any() else 0.0,
        "micro_f1": 100 * micro,
        "exact_match": 100 * float(right.all(axis=1).mean()),
        "hamming_acc": 100 * float(right.mean()),
    }


def label_metrics(
    kept: LabelPredictions, labels: Sequence[str], calibration: Calibration | None = None
) -> dict[str, Any]:
    """Everything that is measured of the labels of the images of a split.

    Args:
        kept: of at least one image.
        labels: names, in the order of the logits.
        calibration: see the class; None = without a temperature.

    Returns:
        images: how many; without: those that have no label.
        map, auroc: see `label_epoch_metrics`; None where no label defines them.
        macro_f1, micro_f1, exact_match, hamming_accuracy: percent.
        prevalence: [0, 1], mean share of images with a label over the labels of `map`: the mAP of guessing.
        exact_match_of_most: percent of the images that have the most frequent set of labels, named `most_frequent`.
        log_loss, ece: nats, and [0, 1] over all decisions (images x labels); log_loss_calibrated and ece_calibrated
            with the `temperature`, None without one or where it was fitted on these images.
        temperature_source: words.
        labels: by name n (images that have it), prevalence, ap, auroc ([0, 1], or None), f1 (percent).
        notes: a sentence for each thing that is not defined.
    """
    ranks = label_ranking(kept)
    values, (of_label, _) = label_epoch_metrics(kept, ranks), f1_scores(kept)
    counts, images = kept.targets.sum(axis=0).tolist(), len(kept.targets)
    sets, sizes = np.unique(kept.targets, axis=0, return_counts=True)
    most = sets[sizes.argmax()]
    calibration = calibration or Calibration()
    t = calibration.temperature
    measured_at = None if calibration.same_images else t
    found = {
        "images": images,
        "without": int((kept.targets.sum(axis=1) == 0).sum()),
        "map": values.get("map"),
        "auroc": values.get("auroc"),
        **{name: values[name] for name in ("macro_f1", "micro_f1", "exact_match")},
        "hamming_accuracy": values["hamming_acc"],
        "prevalence": _mean([n / images if n else None for n in counts]),
        "exact_match_of_most": 100 * float(sizes.max() / images),
        "most_frequent": [name for name, there in zip(labels, most, strict=True) if there],
        "log_loss": values["loss"],
        "ece": kept.ece_at(),
        "temperature": t,
        "temperature_source": calibration.source,
        "log_loss_calibrated": label_log_loss(kept.logits, kept.targets, measured_at) if measured_at else None,
        "ece_calibrated": kept.ece_at(measured_at) if measured_at else None,
        "labels": {
            name: {
                "n": counts[label],
                "prevalence": counts[label] / images,
                "ap": ranks["ap"][label],
                "auroc": ranks["auroc"][label],
                "f1": 100 * float(of_label[label]),
            }
            for label, name in enumerate(labels)
        },
    }
    return found | {"notes": [*_notes(counts, images, labels), *calibration_notes(found, calibration)]}


def _notes(counts: Sequence[int], images: int, labels: Sequence[str]) -> list[str]:
    found = []
    for number, what, lost in (
        (0, "no image", "mAP and AUROC are means"),
        (images, "every image", "AUROC is the mean"),
    ):
        names = [name for name, count in zip(labels, counts, strict=True) if count == number]
        if names:
            more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
            shown = ", ".join(names[:SHOWN]) + more
            found.append(f"{what} has the label {shown}: {lost} over the others")
    return found


def write_label_predictions(path: Path, kept: LabelPredictions, names: Sequence[str], labels: Sequence[str]) -> Path:
    """Write a row for every image, ordered by its place in the data: its labels, the predicted ones, and K sigmoids.

    Args:
        path: of the CSV file.
        kept: of the images.
        names: (N,) of the images: their paths below the folder of the data, or their places in the set.
        labels: names, in the order of the logits.
    """

    def named(chosen: NDArray[Any]) -> str:
        return JOINED.join(label for label, there in zip(labels, chosen, strict=True) if there)

    columns = ("image", "labels", "predicted", "correct", *(f"prob_{label}" for label in labels))
    rows = [
        [
            name,
            named(target),
            named(called),
            str(bool((target.astype(bool) == called).all())).lower(),
            *(repr(float(prob)) for prob in probs),
        ]
        for name, target, called, probs in zip(names, kept.targets, kept.predicted, kept.probs, strict=True)
    ]
    return write_rows(path, columns, rows)
