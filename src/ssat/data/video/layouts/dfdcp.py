"""The preview of the Deepfake Detection Challenge set (Dolhansky et al. 2019)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ssat.core.words import many
from ssat.data.sets.checks import listed
from ssat.data.video.layouts.index import Index, indexed
from ssat.data.video.layouts.tree import (
    check_root,
    damaged,
    found_in,
    listing,
    near_root,
    read_mapping,
    video_id,
    wrong_root,
)
from ssat.data.video.manifest import FAKE, REAL, Entry, Video, entry_of

LIST = "dataset.json"
ORIGINALS = "original_videos"
FOLDERS = (ORIGINALS, "method_A", "method_B")
EXPECTED = f"a folder with {LIST}, original_videos/, method_A/ and method_B/"
LABELS = {"real": REAL, "fake": FAKE}
SPLITS = {"train": "train", "test": "test", "val": "val", "validation": "val"}


def scan_dfdcp(root: str | Path) -> Index:
    """The videos that `<root>/dataset.json` lists; the rest is counted in a remark.

    The group of a video is its subject: the folder below original_videos, method_A or method_B, or the beginning of the
    file's name up to the first `_`.

    Raises:
        UserError: the tree is another, or the list is damaged.
    """
    root = check_root(root, EXPECTED)
    if not _is_tree(root):
        raise wrong_root(root, f"{found_in(root)}, no {LIST}", EXPECTED, near_root(root, _is_tree))
    facts = read_mapping(root / LIST)
    files = {name: listing(root / name) for name in FOLDERS if os.path.isdir(root / name)}
    there = {f"{folder}/{name}" for folder, found in files.items() for name in found.videos}
    reasons = {f"{folder}/{name}": why for folder, found in files.items() for name, why in found.unusable.items()}
    videos: list[Video] = []
    missing: list[Entry] = []
    for path, fact in facts.items():
        video = _video(path, fact, root / LIST)
        if path in there:
            videos.append(video)
        else:
            reason = reasons.get(path, f"it is listed in {LIST} and not there")
            missing.append(entry_of(video, status="missing", reason=reason))
    remarks = [f"there is no folder {name}/" for name in FOLDERS if name not in files]
    if unlisted := sorted((there | set(reasons)) - set(facts)):
        verbs = ("is", "has") if len(unlisted) == 1 else ("are", "have")
        what = f"{many(len(unlisted), 'video')} {verbs[0]} not in {LIST} and {verbs[1]} no label, left out"
        remarks.append(f"{what}: {listed(unlisted, 3)}")
    return indexed("dfdcp", root, videos, missing, remarks=remarks)


def _is_tree(folder: Path) -> bool:
    return os.path.isfile(folder / LIST)


def _video(path: str, fact: dict[str, Any], source: Path) -> Video:
    folder, _, below = path.partition("/")
    label = LABELS.get(str(fact.get("label")).lower())
    split = SPLITS.get(str(fact.get("set")).lower())
    if folder not in FOLDERS or not below:
        raise damaged(source, f"{path!r} is in none of {', '.join(FOLDERS)}")
    if label is None:
        raise damaged(source, f"the label of {path!r} is {fact.get('label')!r}, neither real nor fake")
    if split is None:
        raise damaged(source, f"the set of {path!r} is {fact.get('set')!r}, neither train nor test")
    if (folder == ORIGINALS) != (label == REAL):
        raise damaged(source, f"{path!r} is labelled {fact['label']!r}")
    subject, _, rest = below.partition("/")
    method = "original" if label == REAL else folder
    group = subject if rest else video_id(subject).partition("_")[0]
    return Video("dfdcp", video_id(path), path, label, method, split=split, group_id=group)
