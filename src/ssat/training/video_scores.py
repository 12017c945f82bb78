"""What a network predicts of every video of a split, those without frames included."""

from __future__ import annotations

from ssat.data.video.module import VideoDataModule
from ssat.runs.detection import VideoScore
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
