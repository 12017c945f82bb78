"""What is in the splits of a set of videos."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from ssat.data.video.layouts.index import Count
from ssat.data.video.source import VideoSource


@dataclass(frozen=True)
class VideoOverview:
    """Counts of a set's splits.

    Attributes:
        counts: videos of each class, by split and class.
        methods: videos of each method, by split and method.
        unscored: videos without frames, by split and status.
        remarks: what else a reader of the numbers should know.
        complete: whether every video of the official set is there.
        official: expected and usable videos by split and method, where there are official counts (Table 13).
        fps: range of the frame rates of nine tenths of the training videos; None where no file says its own.
    """

    counts: dict[str, dict[str, int]]
    methods: dict[str, dict[str, int]]
    unscored: dict[str, dict[str, int]]
    remarks: list[str]
    complete: bool = False
    official: list[Count] = field(default_factory=list)
    fps: tuple[float, float] | None = None

    def lines(self) -> list[str]:
        """One line of counts, and one for each remark."""
        parts = []
        for split, counts in self.counts.items():
            lost = sum(self.unscored.get(split, {}).values())
            each = ", ".join(f"{count:,} {name}" for name, count in counts.items())
            parts.append(f"{split} {sum(counts.values()):,} videos ({each}{f'; {lost:,} without frames' * bool(lost)})")
        return [f"data: {'; '.join(parts)}", *(f"data: {remark}" for remark in self.remarks)]


def overview_of(source: VideoSource) -> VideoOverview:
    """Counts of each split that has some videos."""
    splits = {name: entries for name, entries in source.splits.items() if entries}
    classes = list(source.classes)
    counts: dict[str, dict[str, int]] = {}
    methods: dict[str, dict[str, int]] = {}
    for split, entries in splits.items():
        labels = Counter(entry.label for entry in entries)
        counts[split] = {name: labels[label] for label, name in enumerate(classes)}
        methods[split] = dict(Counter(entry.method for entry in entries))
    lost = {name: entries for name, entries in source.unscored.items() if entries}
    unscored = {split: dict(Counter(str(entry.status) for entry in entries)) for split, entries in lost.items()}
    rates = [entry.fps for entry in splits.get("train", ()) if entry.fps]
    low, high = np.quantile(rates, [0.05, 0.95]) if rates else (0.0, 0.0)
    fps = (round(float(low), 3), round(float(high), 3)) if rates else None
    return VideoOverview(counts, methods, unscored, list(source.remarks), source.complete, list(source.official), fps)
