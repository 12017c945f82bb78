"""The Deepfake Detection Challenge set (Dolhansky et al. 2020): training parts, test and validation folders."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ssat.core.errors import UserError
from ssat.core.words import many
from ssat.data.sets.checks import listed
from ssat.data.video.layouts.index import Index, indexed
from ssat.data.video.layouts.tree import (
    check_root,
    damaged,
    entries,
    found_in,
    listing,
    read_mapping,
    read_table,
    readable_folders,
    video_id,
    wrong_root,
)
from ssat.data.video.manifest import FAKE, REAL, Entry, Video, entry_of

METADATA, LABELS = "metadata.json", "labels.csv"
OFFICIAL = {"test": "test", "validation": "val"}  # folder -> split
PARTS = 50
DEEPEST = 4  # levels below the root where a part may be
EXPECTED = f"a folder with dfdc_train_part_<0 to {PARTS - 1}>/{METADATA}, in it or in train/, and test/{LABELS}"


@dataclass
class Found:
    """What is read, part by part."""

    videos: list[Video] = field(default_factory=list)
    missing: list[Entry] = field(default_factory=list)
    unlisted: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    def add(self, video: Video, names: dict[str, str], name: str, source: str) -> None:
        """Keep `video`, as missing where `names` (file -> why it cannot be used) says so or has no `name`."""
        if names.get(name) == "":
            self.videos.append(video)
        else:
            reason = names.get(name) or f"it is listed in {source} and not there"
            self.missing.append(entry_of(video, status="missing", reason=reason))


def scan_dfdc(root: str | Path) -> Index:
    """The videos of DFDC below `root`: those that the metadata.json of a part or a labels.csv lists.

    Parts may be in `root`, in `root/train` or in folders of their own (several disks); test and validation videos in
    `test/` or `test/videos/`.

    Raises:
        UserError: the tree is another, a list is damaged, or a video is in two parts.
    """
    root = check_root(root, EXPECTED)
    official = [name for name in OFFICIAL if os.path.isfile(root / name / LABELS)]
    # Never a part, whatever lies in it: its videos would be trained on.
    parts = [part for part in _parts(root, "", DEEPEST) if part.partition("/")[0] not in OFFICIAL]
    _check_level(root, parts, official)
    found = Found()
    for part in parts:
        _read_part(root, part, found)
    for folder in official:
        _read_official(root, folder, found)
    _refuse_twice(root, found)
    return indexed("dfdc", root, found.videos, found.missing, remarks=found.remarks + _remarks(root, parts, found))


def _parts(folder: Path, prefix: str, levels: int) -> Iterator[str]:
    """Folders that hold a metadata.json, by number; '' is `folder` itself."""
    if os.path.isfile(folder / METADATA):  # False, where pathlib raises, in a folder of another user
        yield prefix.rstrip("/")
    elif levels:
        for name in sorted(readable_folders(folder), key=lambda name: (part_number(name) or 0, name)):
            yield from _parts(folder / name, f"{prefix}{name}/", levels - 1)


def part_number(part: str) -> int | None:
    """7 of dfdc_train_part_7 or dfdc_train_part_07; None where the name ends otherwise."""
    number = re.search(r"([0-9]{1,9})$", part)
    return int(number[1]) if number else None


def _check_level(root: Path, parts: list[str], official: list[str]) -> None:
    here = root.absolute()
    if "" in parts or os.path.isfile(root / LABELS):
        what = "is a single part" if "" in parts else f"holds {LABELS}, it is the test or validation folder"
        raise wrong_root(root, what, EXPECTED, here.parent.parent if here.parent.name == "train" else here.parent)
    if not parts and not official:
        raise wrong_root(root, f"{found_in(root)}, and no {METADATA} {DEEPEST} levels down", EXPECTED)
    if here.name == "train" and any(os.path.isfile(here.parent / name / LABELS) for name in OFFICIAL):
        raise wrong_root(root, "holds the training parts, and test videos are beside it", EXPECTED, here.parent)
    tops = {part.partition("/")[0] for part in parts if "/" in part} | ({""} if official else set())
    tops |= {"" for part in parts if "/" not in part}
    only = next(iter(tops)) if len(tops) == 1 else ""
    if only and only != "train" and not re.search(r"part_?[0-9]+$", only):
        right = root / only
        raise wrong_root(root, f"has its parts in {only!r}", EXPECTED, right)


def _read_part(root: Path, part: str, found: Found) -> None:
    path = root / part / METADATA
    facts = read_mapping(path)
    names = _names(root / part)
    for name, fact in facts.items():
        if "/" in name or "\\" in name:
            raise damaged(path, f"{name!r} is no file name")
        label = _label(fact.get("label"), path, repr(name))
        original = _root_of(name, facts, path)
        video = Video(
            dataset="dfdc",
            video_id=video_id(f"{part}/{name}"),
            path=f"{part}/{name}",
            label=label,
            method="original" if label == REAL else "dfdc",
            split={"train": "train", "test": "test", "validation": "val", "val": "val"}.get(str(fact.get("split")), ""),
            source_id="" if original == name else video_id(f"{part}/{original}"),
            group_id=video_id(original),
            part=part.rpartition("/")[2],
        )
        found.add(video, names, name, f"{part}/{METADATA}")
    found.unlisted += [f"{part}/{name}" for name in names if name not in facts]


def _root_of(name: str, facts: dict[str, dict[str, Any]], path: Path) -> str:
    """The original that a video was made of, at the end of a chain of originals; of an original itself."""
    chain = [name]
    while original := facts.get(chain[-1], {}).get("original"):
        if not isinstance(original, str) or "/" in original or "\\" in original:
            raise damaged(path, f"the original of {chain[-1]!r} is {original!r}, no file name")
        if original in chain:
            return min(chain)  # they name one another
        chain.append(original)
    return chain[-1]


def _read_official(root: Path, folder: str, found: Found) -> None:
    path = root / folder / LABELS
    places: dict[str, str] = {}  # below the root, by file name
    reasons: dict[str, str] = {}
    for place in (folder, f"{folder}/videos"):
        for name, reason in _names(root / place).items() if os.path.isdir(root / place) else ():
            if name in places:
                raise _twice(root, name, places[name], f"{place}/{name}")
            places[name], reasons[name] = f"{place}/{name}", reason
    listed_names = set()
    for line, row in read_table(path, ["filename", "label"]):
        name = row["filename"]
        if not name or "/" in name or "\\" in name or name in listed_names:
            again = "is there twice" if name in listed_names else "is no file name"
            raise damaged(path, f"line {line}: {name!r} {again}")
        listed_names.add(name)
        label = _label(row["label"], path, f"line {line}")
        place = places.get(name, f"{folder}/{name}")
        video = Video(
            dataset="dfdc",
            video_id=video_id(place),
            path=place,
            label=label,
            method="original" if label == REAL else "dfdc",
            split=OFFICIAL[folder],
            group_id=video_id(name),  # the labels do not say whose fake it is
        )
        found.add(video, reasons, name, f"{folder}/{LABELS}")
    found.unlisted += [place for name, place in places.items() if name not in listed_names]


def _names(folder: Path) -> dict[str, str]:
    """The video files of a folder, each with why it cannot be used, '' where it can."""
    files = listing(folder, deep=False)
    return dict.fromkeys(files.videos, "") | files.unusable


def _label(text: Any, path: Path, place: str) -> int:
    known = {"REAL": REAL, "0": REAL, "FAKE": FAKE, "1": FAKE}
    label = known.get(str(text).strip().upper())
    if label is None or isinstance(text, bool):
        raise damaged(path, f"the label of {place} is {text!r}, neither REAL (0) nor FAKE (1)")
    return label


def _refuse_twice(root: Path, found: Found) -> None:
    places: dict[str, str] = {}
    for video in (*found.videos, *found.missing):
        name = video.path.rpartition("/")[2]
        other = places.setdefault(name, video.path)
        if video.part and other != video.path:
            raise _twice(root, name, other, video.path)


def _twice(root: Path, name: str, one: str, other: str) -> UserError:
    text = f"has the video {name!r} in two places, {one!r} and {other!r}: remove the copy"
    return UserError(f"data.raw={str(root)!r} {text}", key="data.raw")


def _remarks(root: Path, parts: list[str], found: Found) -> list[str]:
    remarks = []
    numbers = sorted({number for part in parts if (number := part_number(part)) is not None})
    if numbers and len(numbers) < PARTS:
        told = ", ".join(map(str, numbers[:10])) + (" ..." if len(numbers) > 10 else "")
        remarks.append(f"{len(numbers)} of {PARTS} training parts are there: {told}")
    there = {video.video_id for video in found.videos}
    orphans = [video for video in found.videos if video.source_id and video.source_id not in there]
    if orphans:
        verb, what = ("is", "original it was") if len(orphans) == 1 else ("are", "originals they were")
        remarks.append(f"{many(len(orphans), 'fake')} {verb} there without the {what} made of")
    if found.unlisted:
        verbs = ("is", "has") if len(found.unlisted) == 1 else ("are", "have")
        what = f"{many(len(found.unlisted), 'video')} {verbs[0]} in no list and {verbs[1]} no label, left out"
        remarks.append(f"{what}: {listed(found.unlisted, 3)}")
    for name in OFFICIAL:
        if os.path.isdir(root / name) and not os.path.isfile(root / name / LABELS) and entries(root / name):
            remarks.append(f"{name}/ has no {LABELS}, so its videos have no label and are left out")
    return remarks
