"""The tests after the last epoch of a phase: with its last weights, and with those that validation has chosen."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl

from ssat.core.checkpoints import load_checkpoint, weights_of
from ssat.core.launch import is_main_process
from ssat.core.tensors import fill
from ssat.data.image import ImageDataModule
from ssat.data.video.module import VideoDataModule
from ssat.runs.detection import PREDICTIONS
from ssat.runs.folder import AFRESH
from ssat.runs.image_classes import Calibration, ImagePredictions
from ssat.runs.label_scores import LabelPredictions
from ssat.training.data import AnyData
from ssat.training.image_scores import calibrated, keep_image_scores, keep_label_scores
from ssat.training.module import JointModule
from ssat.training.video_scores import keep_scores

TEST = "test"


@dataclass(frozen=True)
class Tested:
    """What the tests have measured.

    Attributes:
        metrics: by split and name the `last` value and, where validation has chosen an epoch, the `best` one with it.
        detection: by split the `detection_metrics` of its videos with the last weights, where there are two classes.
        classification: their `class_metrics`, where there are more; or the `image_metrics` (`label_metrics`) of images.
    """

    metrics: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    detection: dict[str, dict[str, Any]] = field(default_factory=dict)
    classification: dict[str, dict[str, Any]] = field(default_factory=dict)


def predictions_file(split: str) -> str:
    """Name of the file of a split's predictions: predictions.csv, or predictions-in_domain.csv and the like."""
    return PREDICTIONS if split == TEST else PREDICTIONS.replace(".", f"-{split}.")


def final_tests(
    trainer: pl.Trainer,
    module: JointModule,
    data: AnyData,
    folder: Path,
    chosen: dict[str, dict[str, float]],
    *,
    pictures: bool = True,
) -> Tested:
    """Measure what the epochs have not: `test` where they had `val`, and the further tests of videos.

    Of images everything that tells of the last weights is measured (`image_metrics`), with the temperature that the
    validation images give. A further test whose videos are all in `test` costs no pass: the scores of `test` tell of
    it, by method.

    Args:
        trainer: of the fit, which is over.
        module: with its last weights; holds those of `best.ckpt` afterwards, if there is one and a test needs it.
        data: of the phase.
        folder: of the phase; the predictions are written there.
        chosen: what `val` has measured by name, each with its `best_epoch`; {} without `val`.
        pictures: draw the mistakes of the images.
    """
    tested = Tested()
    if module.head is None:
        return tested
    splits = [TEST] if data.eval_split != TEST and TEST in data.sizes else []
    if isinstance(data, VideoDataModule):
        splits += data.further_tests
        if data.eval_split == TEST:
            if not module.meters.scores:  # of the last epoch, which another process has evaluated
                _measure(trainer, module, data, TEST)
            _keep_scores(tested, module, data, folder, TEST)
    else:
        kept = _predicted(trainer, module, data, data.eval_split)
        calibration = Calibration()
        if data.eval_split != TEST:
            calibration = calibrated(kept, data.eval_split, same_images=not splits)
        module.meters.keep_logits()
    for split in splits:
        values = _measure(trainer, module, data, split)
        tested.metrics[split] = {name: {"last": value} for name, value in values.items()}
        _keep_scores(tested, module, data, folder, split)
    if isinstance(data, ImageDataModule) and data.multi_label:
        if is_main_process():
            path = _place(folder, "predictions")
            tested.classification[data.test_split] = keep_label_scores(
                path, module.meters.kept, data, data.test_split, calibration
            )
    elif isinstance(data, ImageDataModule) and is_main_process():
        tested.classification[data.test_split] = keep_image_scores(
            partial(_place, folder), module.meters.kept, data, data.test_split, calibration, pictures=pictures
        )
    best = folder / "checkpoints" / "best.ckpt"
    if not splits or not chosen or not best.exists():
        return tested
    epoch = chosen[data.decides]["best_epoch"]
    fill(module, weights_of(load_checkpoint(best), best), f"{best} does not hold the network of this run", AFRESH)
    for split in splits:
        for name, value in _measure(trainer, module, data, split).items():
            tested.metrics[split].setdefault(name, {}).update(best=value, best_epoch=epoch)
    return tested


def _measure(trainer: pl.Trainer, module: JointModule, data: AnyData, split: str) -> dict[str, float]:
    module.eval_split = split
    values = trainer.validate(module, dataloaders=data.eval_loader(split), verbose=False)[0]
    return {name.removeprefix(f"{split}/"): value for name, value in values.items() if name.startswith(f"{split}/")}


def _predicted(
    trainer: pl.Trainer, module: JointModule, data: AnyData, split: str
) -> ImagePredictions | LabelPredictions:
    """Of every image with the last weights: those of the last epoch, where their logits were kept."""
    if module.meters.kept is None or module.meters.kept.logits is None:
        module.meters.keep_logits()
        _measure(trainer, module, data, split)
    kept: ImagePredictions | LabelPredictions = module.meters.kept
    return kept


def _place(folder: Path, what: str) -> Path:
    return folder / (PREDICTIONS if what == "predictions" else f"{what}.png")


def _keep_scores(tested: Tested, module: JointModule, data: AnyData, folder: Path, split: str) -> None:
    """Of the videos that have just been evaluated."""
    detection, classification = keep_scores(folder / predictions_file(split), module, data, split)
    if detection is not None:
        tested.detection[split] = detection
    if classification is not None:
        tested.classification[split] = classification
