"""The videos of a prepared set, on the sides of a training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ssat.data.video.layouts.index import Count
from ssat.data.video.manifest import Entry


@dataclass(frozen=True)
class VideoSource:
    """Prepared videos by split.

    Attributes:
        name: of the set.
        classes: names, in the order of the labels.
        root: the prepared folder.
        splits: the usable videos of `train`, `val`, `test` and of further test sets by name.
        unscored: videos of the same splits that have no frames; they count as failures.
        passport: how the clips were made and split; another passport is other data.
        remarks: what a training is to say before its first step.
        complete: whether every video of the official set is there; a few of them may have no frames.
        official: of a set with official counts (Table 13) the expected and the usable videos, by split and method.
    """

    name: str
    classes: Sequence[str]
    root: Path
    splits: Mapping[str, Sequence[Entry]]
    unscored: Mapping[str, Sequence[Entry]] = field(default_factory=dict)
    passport: Mapping[str, Any] = field(default_factory=dict)
    remarks: Sequence[str] = ()
    complete: bool = False
    official: Sequence[Count] = ()
