"""FaceForensics++ (Rössler et al. 2019) as its download script writes it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ssat.core.errors import UserError
from ssat.core.words import many, nearest
from ssat.data.sets.checks import listed
from ssat.data.video.ffpp_splits import (
    FURTHER_METHODS,
    LEVELS,
    METHODS,
    ORIGINAL,
    TABLE_13,
    OfficialSplits,
    check_method,
    choose_level,
    official_splits,
)
from ssat.data.video.layouts.index import Count, Index, indexed
from ssat.data.video.layouts.tree import (
    Listing,
    check_root,
    folders,
    found_in,
    listing,
    near_root,
    stem,
    video_id,
    wrong_root,
)
from ssat.data.video.manifest import FAKE, REAL, Entry, Video, entry_of

TOPS = ("original_sequences", "manipulated_sequences")
YOUTUBE = "original_sequences/youtube"
FOLDERS = {"raw": "raw", "c0": "raw", "c23": "c23", "c40": "c40"}  # two names for one level
EXPECTED = (
    "a folder with original_sequences/youtube/<level>/videos/000.mp4 and"
    " manipulated_sequences/<method>/<level>/videos/000_003.mp4"
)
NAMES = {ORIGINAL: re.compile(r"[0-9]{3}"), "DeepFakeDetection": re.compile(r"[0-9]{2}_[0-9]{2}__.+")}
FAKE_NAME = re.compile(r"[0-9]{3}_[0-9]{3}")
ACTORS = "actors"  # the group of all of DeepFakeDetection: its 28 actors are paired with one another


@dataclass(frozen=True)
class Place:
    """The videos of one method and level."""

    method: str
    level: str
    folder: str
    files: Listing


def scan_ffpp(root: str | Path, *, level: str | None = None, methods: Sequence[str] | None = None) -> Index:
    """The videos of FaceForensics++ below `root`, whichever methods and levels there are.

    Args:
        root: holds original_sequences/ and manipulated_sequences/, or one of them.
        level: raw (or c0), c23 or c40; None = c23 where there are several, else the one that there is; all = each.
        methods: only fakes of these; None = of all that are there. Originals are always listed.

    Raises:
        UserError: the tree is another, the level is not in it, a list of splits is damaged, or a video is there twice.
    """
    root = check_root(root, EXPECTED)
    if not _is_tree(root):
        found = f"{found_in(root)}, neither {TOPS[0]}/ nor {TOPS[1]}/"
        raise wrong_root(root, found, EXPECTED, near_root(root, _is_tree))
    for method in methods or ():
        check_method(method, "data.methods")
    there = [*_places(root)]
    places = [place for place in there if not methods or place.method in (ORIGINAL, *methods)]
    present = {place.level for place in places if place.files.videos}
    if not present:
        raise wrong_root(root, "has no video in any <level>/videos folder", EXPECTED)
    chosen = present if level == "all" else {choose_level(present, level, str(root))}
    _refuse_two_names(root, places)
    official = official_splits(root)
    used = [place for place in places if place.level in chosen]
    originals = {
        (place.level, stem(name)): f"{place.folder}/{stem(name)}"
        for place in used
        if place.method == ORIGINAL
        for name in place.files.videos
    }
    videos, missing, remarks = [], [], _unknown_methods(root)
    for place in used:
        named = [name for name in place.files.videos if _pattern(place.method).fullmatch(stem(name))]
        videos += [_video(place, name, official, originals) for name in named]
        missing += _unusable(place, official, originals)
        remarks += _misnamed(place, set(place.files.videos) - set(named))
    wanted = tuple(methods) if methods else METHODS
    remarks += _other_levels(places, chosen) + _absent(videos, wanted, chosen) + _outside(videos)
    counts = [count for name in sorted(chosen, key=LEVELS.index) for count in _counts(videos, name, wanted)]
    others = [
        video_id(f"{place.folder}/{name}")
        for place in there
        if place not in used
        for name in (*place.files.videos, *place.files.unusable)
    ]
    return indexed("ffpp", root, videos, missing, counts=counts, remarks=remarks, others=others)


def _is_tree(folder: Path) -> bool:
    return any(os.path.isdir(folder / top) for top in TOPS)


def _places(root: Path) -> Iterator[Place]:
    methods = [name for name in folders(root / TOPS[1]) if name in METHODS + FURTHER_METHODS]
    for method, folder in [(ORIGINAL, YOUTUBE), *((name, f"{TOPS[1]}/{name}") for name in methods)]:
        for name in folders(root / folder):
            place = f"{folder}/{name}/videos"
            if name in FOLDERS and os.path.isdir(root / place):
                yield Place(method, FOLDERS[name], place, listing(root / place, deep=False))


def _refuse_two_names(root: Path, places: Sequence[Place]) -> None:
    seen: dict[tuple[str, str], str] = {}
    for place in places:
        other = seen.setdefault((place.method, place.level), place.folder)
        if other != place.folder:
            text = f"has {other} and {place.folder}, two names for one level: remove one of them"
            raise UserError(f"data.raw={str(root)!r} {text}", key="data.raw", value=str(root))


def _pattern(method: str) -> re.Pattern[str]:
    return NAMES.get(method, FAKE_NAME)


def _video(place: Place, name: str, official: OfficialSplits, originals: dict[tuple[str, str], str]) -> Video:
    path, numbers = f"{place.folder}/{name}", stem(name)
    if place.method == "DeepFakeDetection":
        return Video("ffpp", video_id(path), path, FAKE, place.method, place.level, group_id=ACTORS)
    split, group = official.place_of(numbers)
    if place.method == ORIGINAL:
        return Video("ffpp", video_id(path), path, REAL, ORIGINAL, place.level, split, group_id=group)
    # Where an original is not there, its place if it were: the level's folder is named as that of the fake.
    source, donor = (
        originals.get((place.level, number), f"{YOUTUBE}/{place.folder.split('/')[2]}/videos/{number}")
        for number in numbers.split("_")
    )
    return Video("ffpp", video_id(path), path, FAKE, place.method, place.level, split, source, donor, group)


def _unusable(place: Place, official: OfficialSplits, originals: dict[tuple[str, str], str]) -> list[Entry]:
    return [
        entry_of(_video(place, name, official, originals), status="missing", reason=reason)
        for name, reason in place.files.unusable.items()
        if _pattern(place.method).fullmatch(stem(name))
    ]


def _counts(videos: Sequence[Video], level: str, wanted: Sequence[str]) -> list[Count]:
    found: dict[tuple[str, str], int] = {}
    for video in videos:
        if video.level == level:
            found[video.split, video.method] = found.get((video.split, video.method), 0) + 1
    named = [ORIGINAL, *wanted, *sorted({method for _, method in found} - {ORIGINAL, *wanted})]
    counts = [
        Count(split, method, level, expected, found.get((split, method), 0))
        for split, expected in TABLE_13.items()
        for method in named
        if method != "DeepFakeDetection"
    ]
    return counts + [Count("", method, level, None, count) for (split, method), count in found.items() if not split]


def _unknown_methods(root: Path) -> list[str]:
    unknown = [name for name in folders(root / TOPS[1]) if name not in METHODS + FURTHER_METHODS]
    hint = nearest(unknown[0], list(METHODS + FURTHER_METHODS)) if unknown else ""
    return [f"{TOPS[1]}/ has {listed(unknown)}{hint}, no method of FaceForensics++: left out"] if unknown else []


def _misnamed(place: Place, names: set[str]) -> list[str]:
    if not names:
        return []
    form = {ORIGINAL: "071.mp4", "DeepFakeDetection": "01_02__<scene>__<code>.mp4"}.get(place.method, "071_054.mp4")
    verb = "is" if len(names) == 1 else "are"
    what = f"{many(len(names), 'video')} that {verb} not named like {form}, left out"
    return [f"{place.folder} has {what}: {listed(sorted(names), 3)}"]


def _other_levels(places: Sequence[Place], chosen: set[str]) -> list[str]:
    others = sorted({place.level for place in places if place.files.videos} - chosen)
    return [f"level {name} is there as well: data.level={name} prepares it" for name in others]


def _absent(videos: Sequence[Video], wanted: Sequence[str], chosen: set[str]) -> list[str]:
    lacking = [name for name in (ORIGINAL, *wanted) if not any(video.method == name for video in videos)]
    levels = " and ".join(sorted(chosen))
    return [f"there is no video of {', '.join(lacking)} at {levels}"] if lacking else []


def _outside(videos: Sequence[Video]) -> list[str]:
    outside = [video.path for video in videos if not video.split and video.method != "DeepFakeDetection"]
    if not outside:
        return []
    what = f"{many(len(outside), 'fake')} {'is' if len(outside) == 1 else 'are'} of no official pair and in no split"
    return [f"{what}: {listed(outside, 3)}"]
