"""What a look at the tree of a set has found, before a video is opened."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from ssat.core.errors import UserError
from ssat.core.words import printable
from ssat.data.video.manifest import Entry, Video

if TYPE_CHECKING:
    from rich.table import Table

REAL_FAKE = ("real", "fake")  # the classes of a deepfake set, in the order of the labels
SPLITS = ("train", "val", "test", "")

AnyVideo = TypeVar("AnyVideo", bound=Video)


@dataclass(frozen=True)
class Count:
    """How many videos of one method are in one split.

    Attributes:
        split: train, val or test; empty where the set does not say.
        method: as in `Video`.
        level: of the compression; empty where there is none.
        expected: by the official lists, or by the lists in the tree; None where nothing says.
        found: in the tree; of the splits of a training, those that are used.
    """

    split: str
    method: str
    level: str
    expected: int | None
    found: int

    @property
    def missing(self) -> int:
        """How many fewer were found than expected."""
        return 0 if self.expected is None else max(0, self.expected - self.found)


@dataclass(frozen=True)
class Index:
    """The videos of a set.

    Attributes:
        dataset: ffpp, dfdc, dfdcp or video_folder.
        root: the raw folder; `Video.path` is below it.
        videos: the files that are there, ordered by video_id.
        missing: rows of the manifest for files that are listed and not there, or are no regular files.
        counts: expected and found, by split, method and level.
        remarks: what the user should know, one sentence each.
        classes: names of the labels.
        others: video_id of files of the set that were not asked for (data.level, data.methods), readable or not.
    """

    dataset: str
    root: Path
    videos: list[Video]
    missing: list[Entry] = field(default_factory=list)
    counts: list[Count] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    classes: tuple[str, ...] = REAL_FAKE
    others: tuple[str, ...] = ()

    @property
    def known(self) -> set[str]:
        """The video_id of all that are there, listed or not asked for."""
        return {video.video_id for video in (*self.videos, *self.missing)} | {*self.others}

    def ensure_some(self) -> None:
        """Refuse a tree without one video.

        Raises:
            UserError: what the set lists is not there.
        """
        if not self.videos:
            first = f"{len(self.missing):,}, the first is {self.missing[0].path}: {self.missing[0].reason}"
            text = f"data.raw={str(self.root)!r} has none of the videos that the set lists"
            raise UserError(f"{text} ({first}): see docs/video.md", key="data.raw")

    @property
    def subset(self) -> str:
        """How many videos of the official set are not there, beside those in `missing`; '' where none lack."""
        counted = {(count.split, count.method, count.level) for count in self.counts if count.expected is not None}
        listed = sum((entry.split, entry.method, entry.level) in counted for entry in self.missing)
        lacking = sum(count.missing for count in self.counts) - listed
        total = sum(count.expected or 0 for count in self.counts)
        return f"{lacking:,} of the {total:,} official videos are not there: this is a part of the set" * (lacking > 0)


def indexed(
    dataset: str,
    root: Path,
    videos: Iterable[Video],
    missing: Iterable[Entry] = (),
    *,
    counts: Sequence[Count] | None = None,
    remarks: Sequence[str] = (),
    classes: Sequence[str] = REAL_FAKE,
    others: Sequence[str] = (),
) -> Index:
    """The index of these videos; without `counts` those that are there or missing are what the set's lists name.

    Raises:
        UserError: there is none, or two files have the same video_id.
    """
    videos, missing = by_id(videos), by_id(missing)
    if not videos and not missing:
        why = f" ({'; '.join(remarks)})" if remarks else ""
        raise UserError(
            f"data.raw={str(root)!r} has no video of data={dataset}{why}: see docs/video.md", key="data.raw"
        )
    seen: dict[str, Video] = {}
    for video in (*videos, *missing):
        other = seen.setdefault(video.video_id, video)
        if other is not video:
            raise UserError(
                f"data.raw={str(root)!r} has {other.path!r} and {video.path!r}, two files for one video:"
                " remove or rename one of them",
                key="data.raw",
            )
    if counts is None:
        counts = counted(videos, missing)
    return Index(dataset, root, videos, missing, list(counts), list(remarks), tuple(classes), tuple(others))


def by_id(videos: Iterable[AnyVideo]) -> list[AnyVideo]:
    """Sorted by video_id."""
    return sorted(videos, key=lambda video: video.video_id)


def counted(found: Sequence[Video], missing: Sequence[Video]) -> list[Count]:
    """Counts of a set whose own lists name `found` and `missing`."""
    there: dict[tuple[str, str, str], list[int]] = {}
    for is_there, videos in ((1, found), (0, missing)):
        for video in videos:
            count = there.setdefault((video.split, video.method, video.level), [0, 0])
            count[0] += 1
            count[1] += is_there
    counts = [Count(*place, expected, found) for place, (expected, found) in there.items()]
    return sorted(counts, key=_order)


def _order(count: Count) -> tuple[str, int, bool, str]:
    return count.level, SPLITS.index(count.split), count.method != "original", count.method


def describe(index: Index) -> Table:
    """Found, expected and missing videos of each split and method; for `python -m src.prepare ... --dry-run`."""
    return counts_table(index.counts, f"{index.dataset} in {index.root}")


def counts_table(counts: Sequence[Count], title: str) -> Table:
    """`counts`, a row for each, and their sums."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    with_level = any(count.level for count in counts)
    table = Table(title=escape(printable(title)), title_justify="left", box=box.SIMPLE_HEAD, show_footer=True)
    expected = [count.expected for count in counts if count.expected is not None]
    found = sum(count.found for count in counts)
    footers = {
        "found": f"{found:,}",
        "expected": f"{sum(expected):,}",
        "missing": f"{sum(count.missing for count in counts):,}",
    }
    if not expected:  # nothing says how many there should be
        footers = {"found": footers["found"]}
    for name in ("split", "method", *["level"] * with_level):
        table.add_column(name, footer="all" if name == "split" else "")
    for name, total in footers.items():
        table.add_column(name, justify="right", footer=total)
    for count in counts:
        row = [count.split or "-", escape(printable(count.method)), *[count.level or "-"] * with_level]
        row += [f"{count.found:,}"]
        if expected:
            missing = f"{count.missing:,}" if count.missing else ""
            row += ["-" if count.expected is None else f"{count.expected:,}", missing]
        table.add_row(*row)
    return table
