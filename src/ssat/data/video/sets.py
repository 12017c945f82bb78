"""Prepared sets of videos by name: each function here returns a `VideoSource`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ssat.core.errors import UserError
from ssat.core.read import read_json
from ssat.data.video.journal import ABOUT
from ssat.data.video.layouts.index import Count
from ssat.data.video.manifest import AGAIN, MANIFEST, USABLE, Entry, read_manifest
from ssat.data.video.protocol import dfdc_splits, dfdcp_splits, ffpp_splits, folder_splits, table13
from ssat.data.video.sides import Splits
from ssat.data.video.source import VideoSource

DEEPFAKE = ("real", "fake")  # classes of the published sets, by label
DFDC_VIDEOS = 119_154  # of the 50 training parts (Dolhansky et al. 2020)
LOST = 0.02  # share of a set without frames that still is the set; the paper lost up to 3 of 280


def ffpp(
    root: str, held_out: str | None = None, methods: Sequence[str] | None = None, level: str | None = None
) -> VideoSource:
    """FaceForensics++, see `protocol.ffpp_splits`.

    Raises:
        UserError: `root` holds no prepared videos of it, or not those that are asked for.
    """
    entries, about = _prepared("ffpp", root)
    splits = ffpp_splits(entries, held_out=held_out, methods=methods, level=level)
    chosen = next((entry.level for part in splits.parts.values() for entry in part), "")
    rows = [entry for entry in entries if entry.level == chosen]
    return _source(
        root,
        about,
        splits,
        DEEPFAKE,
        complete=_all_there(rows, splits.counts),
        official=table13(rows),
        level=chosen,
        held_out=held_out,
    )


def dfdc(
    root: str,
    val_parts: Sequence[int] | None = None,
    test_parts: Sequence[int] | None = None,
    identity_csv: str | None = None,
) -> VideoSource:
    """DFDC, see `protocol.dfdc_splits`.

    Raises:
        UserError: `root` holds no prepared videos of it, or not those that are asked for.
    """
    entries, about = _prepared("dfdc", root)
    splits = dfdc_splits(entries, val_parts=val_parts, test_parts=test_parts, identity_csv=identity_csv)
    parts = [entry for entry in entries if entry.split not in ("val", "test")]
    asked = [Count("", "", "", DFDC_VIDEOS, sum(entry.status in USABLE for entry in parts))]
    there = sum(entry.status != "missing" for entry in parts) >= DFDC_VIDEOS
    return _source(root, about, splits, DEEPFAKE, complete=there and _few_lost(asked))


def dfdcp(root: str, val_fraction: float = 0.1, seed: int = 0) -> VideoSource:
    """The preview of DFDC, see `protocol.dfdcp_splits`.

    Raises:
        UserError: `root` holds no prepared videos of it.
    """
    entries, about = _prepared("dfdcp", root)
    return _source(root, about, dfdcp_splits(entries, val_fraction=val_fraction, seed=seed), DEEPFAKE)


def video_folder(root: str, val_fraction: float = 0.1, test_fraction: float = 0.2, seed: int = 0) -> VideoSource:
    """The user's own videos, see `protocol.folder_splits`.

    Raises:
        UserError: `root` holds no prepared videos of a folder, or they cannot be split.
    """
    entries, about = _prepared("video_folder", root)
    splits = folder_splits(entries, val_fraction=val_fraction, test_fraction=test_fraction, seed=seed)
    return _source(root, about, splits, about["classes"])


def _prepared(dataset: str, root: str) -> tuple[list[Entry], dict[str, Any]]:
    """The rows of a prepared folder, and how it was made."""
    folder = Path(root)
    entries = read_manifest(folder)
    path = folder / ABOUT
    try:
        about = read_json(path)
        there, classes, stride = about["dataset"], about["classes"], about["options"]["stride"]
        if not isinstance(classes, list) or len({*map(str, classes)}) < 2 or type(stride) is not int or stride < 1:
            raise ValueError
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged: {AGAIN}", key="data.root") from error
    if there != dataset:
        raise UserError(
            f"data.root={root} was prepared as data={there}, not as data={dataset}: name its own folder, or choose"
            f" data={there}",
            key="data.root",
            value=root,
        )
    for entry in entries:
        if entry.dataset != dataset or not 0 <= entry.label < len(classes):
            what = f"dataset={entry.dataset}" if entry.dataset != dataset else f"label={entry.label}"
            raise UserError(
                f"{folder / MANIFEST}: {entry.video_id} has {what}, and {path.name} says {dataset} with"
                f" {len(classes)} classes: {AGAIN}",
                key="data.root",
                value=root,
            )
    return entries, about


def _all_there(rows: Sequence[Entry], counts: Sequence[Count]) -> bool:
    """Whether all videos of the official lists are there, and hardly any of them is without frames."""
    there = Counter((row.split, row.method) for row in rows if row.status != "missing")
    return all(there[count.split, count.method] >= (count.expected or 0) for count in counts) and _few_lost(counts)


def _few_lost(counts: Sequence[Count]) -> bool:
    return all(count.missing <= LOST * (count.expected or 0) for count in counts)


def _source(
    root: str,
    about: dict[str, Any],
    splits: Splits,
    classes: Sequence[str],
    *,
    complete: bool | None = None,
    official: Sequence[Count] = (),
    **protocol: Any,
) -> VideoSource:
    return VideoSource(
        name=about["dataset"],
        classes=tuple(classes),
        root=Path(root),
        splits=splits.parts,
        unscored=splits.unscored,
        passport=about["options"] | protocol,
        remarks=splits.remarks,
        complete=splits.complete if complete is None else complete,
        official=official,
    )
