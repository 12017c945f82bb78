"""What a look at the folders tells of a data set, without reading an image: training says it before its first step."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ssat.core.batch import NO_LABEL
from ssat.data.groups import Indices, Splits, group_fingerprint, groups_in, has_subfolders
from ssat.data.sets.catalog import CATALOG
from ssat.data.sets.checks import listed
from ssat.data.sets.folder import extensions
from ssat.data.sets.sources import ImageList, Source
from ssat.data.sets.walk import REPEATED, entries, files_below

NO_CLASS = "(outside the class folders)"
SHOWN = 3  # classes or extensions in one line


@dataclass(frozen=True)
class Overview:
    """Counts of a set's splits.

    Attributes:
        counts: images of each class, by split and class.
        groups: of each split; {} without data.group.
        labelled: training images whose labels are used, and their groups; {} where all are.
        lacking: classes without an image, by split.
        not_read: files that are no images for the framework, by class and extension.
        subfolders: whether images lie in folders below their class folders, and no data.group says what those are.
        without: of images with several labels each those without any, by split; {} of classes.
        total: their number, by split; {} of classes, whose counts are of different images.
        values: the reader's remarks, and sentences on values that do not fit their range, see `range_use`.
    """

    counts: dict[str, dict[str, int]]
    groups: dict[str, int]
    labelled: dict[str, int]
    lacking: dict[str, list[str]]
    not_read: dict[str, dict[str, int]]
    subfolders: bool
    values: list[str] = field(default_factory=list)
    without: dict[str, int] = field(default_factory=dict)
    total: dict[str, int] = field(default_factory=dict)

    def lines(self) -> list[str]:
        """One line of counts, and one more if something may be wrong."""
        parts = [self._split(split) for split in ("train", "val", "test") if split in self.counts]
        if self.labelled:
            groups = f" in {self.labelled['groups']:,} groups" if "groups" in self.labelled else ""
            parts.append(f"labels of {self.labelled['images']:,} images{groups}")
        what = "with the label" if self.total else "of class"
        remarks = [f"{split} has no image {what} {listed(names, SHOWN)}" for split, names in self.lacking.items()]
        if self.not_read:
            remarks.append(said_not_read(self.not_read))
        if self.subfolders:
            remarks.append(
                "images lie in folders below the class folders and are split one by one: if a folder is one patient or"
                " one video, data.group=1 keeps it on one side"
            )
        remarks += self.values
        return [f"data: {'; '.join(parts)}"] + ([f"data: {'; '.join(remarks)}"] if remarks else [])

    def _split(self, split: str) -> str:
        counts = list(self.counts[split].values())
        groups = f" in {self.groups[split]:,} groups" if split in self.groups else ""
        least, most = min(counts, default=0), max(counts, default=0)
        each = f"{least:,}" if least == most else f"{least:,} to {most:,}"
        if split in self.total:
            without = f", {self.without[split]:,} without one" if self.without[split] else ""
            return f"{split} {self.total[split]:,} images{groups}, {each} with each label{without}"
        return f"{split} {sum(counts):,} images{groups}, {each} of each class"


def overview(source: Source, splits: Splits, labelled: tuple[ImageList, Indices] | None = None) -> Overview:
    """The overview of `splits`.

    Args:
        source: that they are taken from.
        splits: images and the indices that are in it, by split.
        labelled: the training images after those without labels have lost them; None = all have theirs.
    """
    counts = {split: counts_by_class(images, indices, source.classes) for split, (images, indices) in splits.items()}
    empty = {split: [name for name, count in found.items() if not count] for split, found in counts.items()}
    return Overview(
        counts=counts,
        groups={split: len(groups_in(*part)) for split, part in splits.items() if part[0].groups is not None},
        labelled=_labelled(labelled, splits) if labelled else {},
        lacking={split: names for split, names in empty.items() if names},
        not_read=not_read(source),
        without={split: _without_label(*part) for split, part in splits.items() if source.multi_label},
        total={split: len(indices) for split, (_, indices) in splits.items() if source.multi_label},
        subfolders=not source.multi_label
        and source.train.groups is None
        and source.name not in CATALOG
        and has_subfolders(source),
    )


def counts_by_class(images: ImageList, indices: Indices, classes: Sequence[str]) -> dict[str, int]:
    """Labelled images of each class, or with each label."""
    if images.hot is not None:
        return dict(zip(classes, (images.hot[indices] == 1).sum(axis=0).tolist(), strict=True))
    labels = images.labels[indices]
    counts = np.bincount(labels[labels != NO_LABEL], minlength=len(classes))
    return dict(zip(classes, counts.tolist(), strict=True))


def _without_label(images: ImageList, indices: Indices) -> int:
    assert images.hot is not None
    return int((images.hot[indices] == 0).all(axis=1).sum())


def fingerprint(name: str, splits: Splits) -> dict[str, Any]:
    """Name, images per split, two SHA-256 of each split's images (see `ImageList`), and its groups if there are any.

    `sha256` is also in the records of the time before `content`, which reads all files.

    Raises:
        UserError: a file cannot be read.
    """
    return {
        "name": name,
        "splits": {split: len(indices) for split, (_, indices) in splits.items()},
        "sha256": {split: images.digest(indices) for split, (images, indices) in splits.items()},
        "content": {split: images.content(indices) for split, (images, indices) in splits.items()},
        **group_fingerprint(splits),
    }


def _labelled(part: tuple[ImageList, Indices], splits: Splits) -> dict[str, int]:
    images, indices = part
    indices = indices[images.labels[indices] != NO_LABEL]
    if len(indices) == len(splits["train"][1]):
        return {}
    groups = {"groups": len(groups_in(images, indices))} if images.groups is not None else {}
    return {"images": len(indices)} | groups


def said_not_read(found: Mapping[str, Mapping[str, int]]) -> str:
    """'3 files are not read: 2 .heic and 1 .txt (2 in 'cat', 1 in 'dog')'."""
    kinds: Counter[str] = Counter()
    for of_class in found.values():
        kinds.update(of_class)
    total, places = sum(kinds.values()), {name: sum(of_class.values()) for name, of_class in found.items()}
    what = _enumerated([f"{count:,} {kind}" for kind, count in kinds.most_common()])
    where = _enumerated([f"{count:,} in {name!r}" for name, count in places.items()])
    return f"{total:,} file{'s are' if total > 1 else ' is'} not read: {what} ({where})"


def _enumerated(words: Sequence[str]) -> str:
    rest = f" and {len(words) - SHOWN} more" if len(words) > SHOWN else ""
    return ", ".join(words[:SHOWN]) + rest


def not_read(source: Source) -> dict[str, dict[str, int]]:
    """Files in the class folders that are in no list of images, by class and extension; hidden ones do not count.

    Image files beside the class folders count as `NO_CLASS`. A published set is counted against its official numbers
    elsewhere, and has none here.
    """
    lists = [images for images in (source.train, source.val, source.test) if images is not None]
    found: dict[str, Counter[str]] = {}
    for root in {images.root for images in lists if images.root is not None and images.class_depth}:
        if source.name in CATALOG:
            continue
        known = {str(name) for images in lists if images.root == root for name in images.images}
        depth = max(images.class_depth for images in lists if images.root == root)
        for split in sorted({name.split("/")[0] + "/" for name in known}) if depth > 1 else [""]:
            beside = [entry.name for entry in entries(root / split) if os.path.isfile(entry.path)]
            if loose := [name for name in beside if name.lower().endswith(extensions())]:
                found.setdefault(NO_CLASS, Counter()).update(map(_extension, loose))
            for name in source.classes:
                if not (root / split / name).is_dir():
                    continue  # a split need not have every class
                for file, is_link in files_below(root / split / name):
                    if f"{split}{name}/{file}" not in known:
                        found.setdefault(name, Counter())[REPEATED if is_link else _extension(file)] += 1
    return {name: dict(kinds.most_common()) for name, kinds in found.items()}


def _extension(name: str) -> str:
    return os.path.splitext(name)[1].lower() or "without an extension"
