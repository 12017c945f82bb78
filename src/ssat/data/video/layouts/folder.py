"""Videos of the user's own, one folder per class."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ssat.core.errors import UserError
from ssat.core.words import many
from ssat.data.groups import grouped
from ssat.data.sets.checks import listed
from ssat.data.sets.sources import ImageList, Source
from ssat.data.video.layouts.index import REAL_FAKE, Index, counted, indexed
from ssat.data.video.layouts.tree import (
    ENDINGS,
    check_root,
    entries,
    folders,
    found_in,
    is_folder,
    listing,
    not_read,
    video_id,
    wrong_root,
)
from ssat.data.video.manifest import Entry, Video, entry_of

SPLITS = ("train", "val", "test")
LOOKALIKES = ("training", "testing", "tests", "valid", "validation", "eval", "evaluation")
EXPECTED = "a folder of videos for each class, such as real/ and fake/, in it or in its train/, val/ and test/"


def scan_folder(root: str | Path, *, group: int | str | None = None) -> Index:
    """Videos in `<root>/<class>/`, or in `<root>/{train,val,test}/<class>/`, at any depth in it.

    The classes are in alphabetical order, but real and fake, in any case, are 0 and 1 as in every deepfake set.

    Args:
        root: the folder.
        group: which videos belong together (a person, a camera): a level of folders below the class folder, a regular
            expression or `<file.csv>:<column>`, see `groups.grouped`; None = each video stands for itself.

    Raises:
        UserError: the folders are not as above, a class has no videos, or `group` leaves a video without a group.
    """
    root = check_root(root, EXPECTED)
    splits = _splits(root)
    classes = _classes(root, splits)
    names: dict[str, list[str]] = {}  # by split
    labels: dict[str, list[int]] = {}
    unusable: dict[str, str] = {}
    others: list[str] = []
    for split in splits:
        prefix = f"{split}/" if split else ""
        others += [entry.name for entry in entries(root / split) if not is_folder(entry)]
        for label, name in enumerate(classes):
            if not os.path.isdir(root / split / name):
                continue
            found = listing(root / split / name)
            others += found.others
            unusable |= {f"{prefix}{name}/{each}": why for each, why in found.unusable.items()}
            here = sorted([*found.videos, *found.unusable])
            names.setdefault(split, []).extend(f"{prefix}{name}/{each}" for each in here)
            labels.setdefault(split, []).extend([label] * len(here))
    _check_classes(root, classes, labels)
    groups = _groups(root, classes, names, labels, group)
    videos: list[Video] = []
    missing: list[Entry] = []
    for split in names:
        for path, label in zip(names[split], labels[split], strict=True):
            video = Video(
                "video_folder", video_id(path), path, label, classes[label], split=split, group_id=groups[path]
            )
            if path in unusable:
                missing.append(entry_of(video, status="missing", reason=unusable[path]))
            else:
                videos.append(video)
    remarks = not_read(others) + _lacking(classes, labels)
    if group is None:
        remarks.append("each video is its own group: data.group keeps those of one person on one side of a split")
    if missing:
        what = f"{many(len(missing), 'file')} cannot be opened"
        remarks.append(f"{what}, the first is {missing[0].path!r}: {missing[0].reason}")
    counts = [replace(count, expected=None) for count in counted(videos, [])]  # a folder expects nothing
    return indexed("video_folder", root, videos, missing, counts=counts, remarks=remarks, classes=classes)


def _splits(root: Path) -> tuple[str, ...]:
    found = folders(root)
    looks = [name for name in found if name.lower() in (*LOOKALIKES, *SPLITS) and name not in SPLITS]
    if looks and folders(root / looks[0]):
        raise UserError(
            f"data.raw={str(root)!r} has a folder {looks[0]!r} that looks like a split: call the splits train, val"
            " and test",
            key="data.raw",
        )
    splits = tuple(name for name in SPLITS if name in found)
    beside = [name for name in found if name not in SPLITS]
    if splits and beside:
        raise UserError(
            f"data.raw={str(root)!r} has {listed(beside)} beside {'/ and '.join(splits)}/: expected {EXPECTED};"
            " move it away or into a split",
            key="data.raw",
        )
    return splits or ("",)


def _classes(root: Path, splits: Sequence[str]) -> list[str]:
    found = sorted({name for split in splits for name in folders(root / split)})
    if len(found) > 1:
        named = {name.lower(): name for name in found}
        return [named[name] for name in REAL_FAKE] if sorted(named) == sorted(REAL_FAKE) else found
    if not found:
        above = root.absolute().parent
        parent = above.parent if above.name in SPLITS else above
        is_class = any(entry.name.lower().endswith(ENDINGS) for entry in entries(root)) and len(folders(above)) > 1
        what = f"{found_in(root)}, no class folders"
        raise wrong_root(root, what, EXPECTED, parent if is_class else None)
    inner = root / splits[0] / found[0]
    right = inner if len(folders(inner)) > 1 else None
    raise wrong_root(root, f"has one class only ({found[0]!r}), and a classifier needs two", EXPECTED, right)


def _check_classes(root: Path, classes: Sequence[str], labels: dict[str, list[int]]) -> None:
    counts = Counter(label for found in labels.values() for label in found)
    for label, name in enumerate(classes):
        if not counts[label]:
            raise UserError(
                f"the class folder {name!r} in data.raw={str(root)!r} has no videos ({' '.join(ENDINGS)}): add some or"
                " remove the folder",
                key="data.raw",
            )


def _lacking(classes: Sequence[str], labels: dict[str, list[int]]) -> list[str]:
    return [
        f"{split}/ has no video of class {listed(absent)}"
        for split, found in labels.items()
        if (absent := [name for label, name in enumerate(classes) if label not in found])
    ]


def _groups(
    root: Path,
    classes: list[str],
    names: dict[str, list[str]],
    labels: dict[str, list[int]],
    group: int | str | None,
) -> dict[str, str]:
    """The group of every path."""
    if group is None:
        return {name: video_id(name) for found in names.values() for name in found}
    lists = {
        split or "train": ImageList(found, np.array(labels[split], dtype=np.int64), root, class_depth=2 if split else 1)
        for split, found in names.items()
    }
    # A set may have a test split only.
    train = lists.pop("train" if "train" in lists else next(iter(lists)))
    source = grouped(Source("video_folder", classes, train, lists.get("test"), lists.get("val")), group)
    found_groups: dict[str, str] = {}
    for images in source.lists:
        assert images.groups is not None
        for name, number in zip(images.images, images.groups.numbers.tolist(), strict=True):
            found_groups[str(name)] = images.groups.names[number]
    return found_groups
