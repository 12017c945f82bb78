"""The tests after the last epoch of a phase: with its last weights, and with those that validation has chosen."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning.pytorch as pl

from ssat.core.checkpoints import load_checkpoint, weights_of
from ssat.data.video.module import VideoDataModule
from ssat.runs.detection import PREDICTIONS
from ssat.training.data import AnyData
from ssat.training.module import JointModule
from ssat.training.video_scores import keep_scores

TEST = "test"


@dataclass(frozen=True)
class Tested:
    """What the tests have measured.

    Attributes:
        metrics: by split and name the `last` value and, where validation has chosen an epoch, the `best` one with it.
        detection: by split the `detection_metrics` of its videos with the last weights, where there are two classes.
        classification: their `class_metrics`, where there are more.
    """

    metrics: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    detection: dict[str, dict[str, Any]] = field(default_factory=dict)
    classification: dict[str, dict[str, Any]] = field(default_factory=dict)


def predictions_file(split: str) -> str:
    """Name of the file of a split's predictions: predictions.csv, or predictions-in_domain.csv and the like."""
    return PREDICTIONS if split == TEST else PREDICTIONS.replace(".", f"-{split}.")


def final_tests(
    trainer: pl.Trainer, module: JointModule, data: AnyData, folder: Path, chosen: dict[str, dict[str, float]]
) -> Tested:
    """Measure what the epochs have not: `test` where they had `val`, and the further tests of videos.

    A further test whose videos are all in `test` costs no pass: the scores of `test` tell of it, by method.

    Args:
        trainer: of the fit, which is over.
        module: with its last weights; holds those of `best.ckpt` afterwards, if there is one and a test needs it.
        data: of the phase.
        folder: of the phase; the predictions are written there.
        chosen: what `val` has measured by name, each with its `best_epoch`; {} without `val`.
    """
    tested, videos = Tested(), isinstance(data, VideoDataModule)
    if module.head is None:
        return tested
    splits = [TEST] if data.eval_split != TEST and TEST in data.sizes else []
    if isinstance(data, VideoDataModule):
        splits += data.further_tests
    if videos and data.eval_split == TEST:
        if not module.meters.scores:  # of the last epoch, which another process has evaluated
            _measure(trainer, module, data, TEST)
        _keep_scores(tested, module, data, folder, TEST)
    for split in splits:
        values = _measure(trainer, module, data, split)
        tested.metrics[split] = {name: {"last": value} for name, value in values.items()}
        _keep_scores(tested, module, data, folder, split)
    best = folder / "checkpoints" / "best.ckpt"
    if not splits or not chosen or not best.exists():
        return tested
    epoch = chosen[data.decides]["best_epoch"]
    module.load_state_dict(weights_of(load_checkpoint(best), best))
    for split in splits:
        for name, value in _measure(trainer, module, data, split).items():
            tested.metrics[split].setdefault(name, {}).update(best=value, best_epoch=epoch)
    return tested


def _measure(trainer: pl.Trainer, module: JointModule, data: AnyData, split: str) -> dict[str, float]:
    module.eval_split = split
    values = trainer.validate(module, dataloaders=data.eval_loader(split), verbose=False)[0]
    return {name.removeprefix(f"{split}/"): value for name, value in values.items() if name.startswith(f"{split}/")}


def _keep_scores(tested: Tested, module: JointModule, data: AnyData, folder: Path, split: str) -> None:
    """Of the videos that have just been evaluated."""
    detection, classification = keep_scores(folder / predictions_file(split), module, data, split)
    if detection is not None:
        tested.detection[split] = detection
    if classification is not None:
        tested.classification[split] = classification
