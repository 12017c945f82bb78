"""What a network predicts of every image of a split: numbers, a file of predictions, and pictures of the mistakes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssat.core.visible import pixels
from ssat.data.dataset import ImageDataset, collate
from ssat.data.image import ImageDataModule
from ssat.runs.calibration import probabilities, reliability
from ssat.runs.image_classes import (
    Calibration,
    ImagePredictions,
    calibrated_on,
    confusion_matrix,
    image_metrics,
    write_image_predictions,
)
from ssat.runs.label_scores import LabelPredictions, label_metrics, labels_calibrated_on, write_label_predictions

WORST = 24  # mistakes on the sheet
PICTURES = ("confusion", "reliability", "mistakes")  # files of `keep_image_scores`, beside the predictions

Place = Callable[[str], Path]  # of a file, by what is in it: predictions, confusion, reliability, mistakes


def keep_image_scores(
    place: Place,
    kept: ImagePredictions,
    data: ImageDataModule,
    split: str,
    calibration: Calibration,
    *,
    pictures: bool = True,
) -> dict[str, Any]:
    """Write what is predicted of the images of `split`, and draw it; returns their `image_metrics`.

    Raises:
        UserError: a file of a mistaken image cannot be read any more.
    """
    found = image_metrics(kept, data.class_names, calibration)
    write_image_predictions(place("predictions"), kept, image_names(data, split, kept.indices), data.class_names)
    if pictures:
        _draw(place, kept, data, split, found)
    return found


def calibrated(kept: ImagePredictions | LabelPredictions, split: str, *, same_images: bool = False) -> Calibration:
    """The temperature fitted on what is predicted of the images of a split, of one class each or of several labels."""
    if isinstance(kept, LabelPredictions):
        return labels_calibrated_on(kept, split, same_images=same_images)
    return calibrated_on(kept, split, same_images=same_images)


def keep_label_scores(
    path: Path, kept: LabelPredictions, data: ImageDataModule, split: str, calibration: Calibration
) -> dict[str, Any]:
    """Write what is predicted of the labels of the images of `split` to `path`; returns their `label_metrics`."""
    write_label_predictions(path, kept, image_names(data, split, kept.indices), data.class_names)
    return label_metrics(kept, data.class_names, calibration)


def image_names(data: ImageDataModule, split: str, indices: NDArray[np.int64]) -> list[str]:
    """Paths below the folder of the data; of images that are no files, their places in their set."""
    images, _ = data.split(split)
    return [str(index) if images.root is None else str(images.images[index]) for index in indices.tolist()]


def worst_mistakes(kept: ImagePredictions, most: int = WORST) -> NDArray[np.int64]:
    """Rows of the wrong predictions, the surest first."""
    assert kept.logits is not None
    sure = probabilities(kept.logits).max(axis=1)
    wrong = np.flatnonzero(~kept.right)
    return wrong[np.argsort(-sure[wrong], kind="stable")][:most]


def _draw(place: Place, kept: ImagePredictions, data: ImageDataModule, split: str, found: dict[str, Any]) -> None:
    from ssat.results.class_pictures import caption, draw_confusion, draw_reliability, draw_sheet

    assert kept.logits is not None
    probs, names = probabilities(kept.logits), data.class_names
    what = f"{data.source.name}, {len(kept.targets):,} {split} images"
    draw_confusion(
        confusion_matrix(kept.targets, kept.predicted, len(names)),
        names,
        f"{what}: accuracy {found['accuracy']:.1f} %, balanced {found['balanced_accuracy']:.1f} %",
        place("confusion"),
    )
    after, labels = [], [f"as it is: ECE {found['ece']:.3f}"]
    if found["ece_calibrated"] is not None:
        after = reliability(probabilities(kept.logits, found["temperature"]), kept.targets)
        labels.append(f"temperature {found['temperature']:.2f}: ECE {found['ece_calibrated']:.3f}")
    draw_reliability(reliability(probs, kept.targets), after, labels, what, place("reliability"))
    rows = worst_mistakes(kept)
    wrong = int((~kept.right).sum())
    shown = f"the {len(rows)} surest of {wrong:,} mistakes" if wrong > len(rows) else f"all {wrong:,} mistakes"
    draw_sheet(
        _pixels(data, split, kept.indices[rows]),
        [caption(names[kept.targets[r]], names[kept.predicted[r]], probs[r, kept.predicted[r]]) for r in rows],
        f"{what}: {shown if wrong else 'no mistake'}",
        place("mistakes"),
    )


def _pixels(data: ImageDataModule, split: str, indices: NDArray[np.int64]) -> NDArray[np.float32]:
    """(N, H, W, 3) in [0, 1]: the images as the network sees them."""
    if not len(indices):
        return np.zeros((0, 1, 1, 3), np.float32)
    dataset = ImageDataset(data.split(split)[0], data.eval_transform)
    batch = collate(dataset.__getitems__([(0, index) for index in indices.tolist()]))
    return pixels(batch.images, data.mean, data.std)
