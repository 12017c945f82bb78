"""The splits of a training: which videos are in each, which cannot be used, and that no group is on two sides."""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ssat.core.errors import UserError
from ssat.core.words import many
from ssat.data.video.layouts.index import Count
from ssat.data.video.manifest import USABLE, Entry

TRAIN, VAL, TEST = "train", "val", "test"


@dataclass(frozen=True)
class Splits:
    """Videos by the name of the split: train, val, test and further tests.

    Attributes:
        parts: usable videos, ordered by video_id. Every split but train and val is a test.
        unscored: of every test the videos without frames. They count in its size: their `status` and `reason` say why
            they have no score.
        counts: expected and usable videos, by split, method and level; of FaceForensics++ against Table 13.
        remarks: what the user should know, one sentence each.
    """

    parts: dict[str, list[Entry]]
    unscored: dict[str, list[Entry]]
    counts: list[Count] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    def __getitem__(self, name: str) -> list[Entry]:
        return self.parts[name]

    @property
    def complete(self) -> bool:
        """Whether every video that is expected can be used."""
        return all(not count.missing for count in self.counts)


def separated(
    sides: Mapping[str, Sequence[Entry]], *, counts: Sequence[Count] | None = None, remarks: Sequence[str] = ()
) -> Splits:
    """The `Splits` of all the rows of each side; unusable ones are left out of train and val, and kept for the tests.

    Args:
        sides: rows of the manifest by split.
        counts: expected and found; by default all rows of a side are expected.
        remarks: what there is to say already.

    Raises:
        UserError: a group is on two sides.
    """
    refuse_leaks(sides)
    notes = list(remarks)
    parts: dict[str, list[Entry]] = {}
    unscored: dict[str, list[Entry]] = {}
    for name, rows in sides.items():
        rows = sorted(rows, key=lambda row: row.video_id)
        parts[name] = [row for row in rows if row.status in USABLE]
        lost = [row for row in rows if row.status not in USABLE]
        if name not in (TRAIN, VAL):
            unscored[name] = lost
        if lost:
            told = ", ".join(f"{count:,} {status}" for status, count in Counter(row.status for row in lost).items())
            what = "left out" if name in (TRAIN, VAL) else "without a score"
            is_are = "is" if len(lost) == 1 else "are"
            notes.append(f"{name}: {len(lost):,} of {many(len(rows), 'video')} {is_are} {what} ({told})")
        notes += _lacking(name, parts[name])
    if counts is None:
        counts = counted_sides(sides)
    return Splits(parts, unscored, list(counts), notes)


def _lacking(name: str, rows: Sequence[Entry]) -> list[str]:
    if not rows:
        return [f"{name}: there is no usable video"]
    labels = {row.label for row in rows}
    only = f"all {len(rows):,} usable videos are of one class ({rows[0].method})"
    if len(rows) == 1:
        only = f"the only usable video is of class {rows[0].method}"
    return [f"{name}: {only}"] if len(labels) == 1 else []


def counted_sides(sides: Mapping[str, Sequence[Entry]]) -> list[Count]:
    """All rows of each side as expected, the usable ones as found."""
    counts = []
    for name, rows in sides.items():
        places = Counter((row.method, row.level) for row in rows)
        usable = Counter((row.method, row.level) for row in rows if row.status in USABLE)
        counts += [Count(name, *place, places[place], usable[place]) for place in sorted(places)]
    return counts


def refuse_leaks(splits: Splits | Mapping[str, Sequence[Entry]]) -> None:
    """Refuse a group, an original or a donor on two sides: train, val and all tests together.

    Raises:
        UserError: names the first that is, and a video of it on each side.
    """
    if isinstance(splits, Splits):
        splits = {name: [*rows, *splits.unscored.get(name, [])] for name, rows in splits.parts.items()}
    seen: dict[str, tuple[str, Entry]] = {}
    for name, rows in splits.items():
        side = name if name in (TRAIN, VAL) else TEST
        for row in rows:
            for what in identities(row):
                where, other = seen.setdefault(what, (side, row))
                if where != side:
                    raise _leak(what, where, other, side, row)


def _leak(what: str, where: str, other: Entry, side: str, row: Entry) -> UserError:
    if row.dataset == "video_folder":
        cure = "move the videos of a group to one split, or correct data.group, and prepare again"
        return UserError(
            f"data.group: {what} is in {where} ({other.path!r}) and in {side} ({row.path!r}): {cure}", key="data.group"
        )
    cure = "correct the lists of the set and prepare again; a test with videos of the training tells nothing"
    return UserError(f"{what} is in {where} ({other.path!r}) and in {side} ({row.path!r}): {cure}", key="data.root")


def identities(row: Entry) -> Iterator[str]:
    """What must not be on another side: the group, and the video, its original and its donor at every level."""
    if row.group_id:
        yield f"group {row.group_id!r}"
    for video in (row.video_id, row.source_id, row.donor_id):
        if video:
            yield f"video {posixpath.basename(video) if row.dataset == 'ffpp' else video!r}"


def without_held(sides: dict[str, list[Entry]], remarks: list[str]) -> dict[str, list[Entry]]:
    """`sides` without the training and validation videos whose group is in a test, and the training videos in val.

    Adds how many they are to `remarks`.
    """
    held = {row.group_id for name, rows in sides.items() if name not in (TRAIN, VAL) for row in rows}
    kept = dict(sides)
    for name in (VAL, TRAIN):
        kept[name] = [row for row in sides[name] if row.group_id not in held]
        if lost := len(sides[name]) - len(kept[name]):
            of = f"{lost:,} of {many(len(sides[name]), 'video')} {'is' if lost == 1 else 'are'}"
            remarks.append(f"{name}: {of} of persons of another split, left out")
        held |= {row.group_id for row in kept[name]}
    return kept


def refuse_untrainable(splits: Splits, key: str = "data.root") -> None:
    """Refuse to train where the training videos are fewer than two classes.

    Raises:
        UserError: they are.
    """
    rows = splits.parts.get(TRAIN, [])
    classes = sorted({row.method for row in rows})
    if len({row.label for row in rows}) < 2:
        what = f"only {' and '.join(classes)}, one class" if rows else "no usable video"
        raise UserError(
            f"the training split has {what}: a classifier needs two, prepare videos of the other"
            + (f" ({'; '.join(splits.remarks[:3])})" if splits.remarks else ""),
            key=key,
        )


def class_names(entries: Sequence[Entry]) -> list[str]:
    """Names of the classes by label: real and fake, or of a video_folder those of its folders."""
    if any(entry.dataset != "video_folder" for entry in entries):
        return ["real", "fake"]
    return [name for _, name in sorted({(entry.label, entry.method) for entry in entries})]
