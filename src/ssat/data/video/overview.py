"""How many videos of which kind a set has, for people and for the record."""

from __future__ import annotations

from dataclasses import dataclass, field

from ssat.data.video.layouts.index import Count


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
    """

    counts: dict[str, dict[str, int]]
    methods: dict[str, dict[str, int]]
    unscored: dict[str, dict[str, int]]
    remarks: list[str]
    complete: bool = False
    official: list[Count] = field(default_factory=list)

    def lines(self) -> list[str]:
        """One line of counts, and one for each remark."""
        parts = []
        for split, counts in self.counts.items():
            lost = sum(self.unscored.get(split, {}).values())
            each = ", ".join(f"{count:,} {name}" for name, count in counts.items())
            parts.append(f"{split} {sum(counts.values()):,} videos ({each}{f'; {lost:,} without frames' * bool(lost)})")
        return [f"data: {'; '.join(parts)}", *(f"data: {remark}" for remark in self.remarks)]
