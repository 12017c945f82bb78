"""What a network predicts of every video of a split, those without frames included."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ssat.core.launch import is_main_process
from ssat.data.video.module import VideoDataModule
from ssat.runs.detection import VideoScore, detection_metrics, write_predictions_csv
from ssat.runs.video_classes import ClassScore, class_metrics, write_class_predictions
from ssat.training.data import AnyData
from ssat.training.module import JointModule
from ssat.training.video_meters import VideoMeters


def video_scores(module: JointModule, data: VideoDataModule, split: str) -> list[VideoScore]:
    """The scores of the last evaluation, which must have been of `split`; [] unless there are two classes."""
    meters = module.meters
    if not isinstance(meters, VideoMeters) or meters.num_classes != 2:
        return []
    entries = data.entries(split)
    scored = [
        VideoScore(entry.video_id, entry.label, entry.method, float(probs[1]), clips, entry.status)
        for entry, (probs, clips) in ((entries[number], score) for number, score in sorted(meters.scores.items()))
    ]
    lost = [
        VideoScore(entry.video_id, entry.label, entry.method, None, 0, entry.status)
        for entry in data.source.unscored.get(split, ())
    ]
    return scored + lost


def class_scores(module: JointModule, data: VideoDataModule, split: str) -> list[ClassScore]:
    """The scores of the last evaluation, which must have been of `split`; [] unless there are more than two classes."""
    meters = module.meters
    if not isinstance(meters, VideoMeters) or meters.num_classes <= 2:
        return []
    entries = data.entries(split)
    scored = [
        ClassScore(entry.video_id, entry.label, entry.method, tuple(map(float, probs)), clips, entry.status)
        for entry, (probs, clips) in ((entries[number], score) for number, score in sorted(meters.scores.items()))
    ]
    lost = [
        ClassScore(entry.video_id, entry.label, entry.method, (), 0, entry.status)
        for entry in data.source.unscored.get(split, ())
    ]
    return scored + lost


def keep_scores(
    path: Path, module: JointModule, data: AnyData, split: str
) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """Write what the last evaluation has predicted of the videos of `split` to the CSV file `path`.

    Returns:
        their `detection_metrics`, and their `class_metrics`: of two classes the one, of more the other; None of images.
    """
    if not isinstance(data, VideoDataModule):
        return None, None
    if scores := video_scores(module, data, split):
        if is_main_process():
            write_predictions_csv(path, scores)
        return detection_metrics(scores), None
    if of_classes := class_scores(module, data, split):
        if is_main_process():
            write_class_predictions(path, of_classes, data.class_names)
        return None, class_metrics(of_classes, data.class_names)
    return None, None
