"""Whether a run's classes are of unequal sizes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ssat.runs.record import lookup

UNEQUAL = 1.5  # times as many images in the largest class as in the smallest: accuracy alone misleads


def unequal_classes(record: Mapping[str, Any], split: str) -> bool:
    """Whether accuracy on a split misleads; False where the record (its values) does not say how many images it has."""
    phases = record.get("phases")
    last = phases[-1] if isinstance(phases, list) and phases else {}
    counts = lookup(last, f"data_check.counts.{split}")
    if lookup(last, "data_check.total"):
        return False  # several labels of an image are no classes of different images
    sizes = list(counts.values()) if isinstance(counts, dict) else []
    known = [size for size in sizes if isinstance(size, int) and not isinstance(size, bool)]
    return len(known) > 1 and max(known) > UNEQUAL * min(known)
