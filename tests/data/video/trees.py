"""Trees of empty files in the layouts of the published sets, and rows of manifests from them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from ssat.data.video.ffpp_splits import METHODS, official_splits
from ssat.data.video.layouts import Index
from ssat.data.video.manifest import Entry, entry_of


def touch(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def ffpp(root: Path, names: Iterable[str], *, level: str = "c23") -> Path:
    """`names` are of the form 071 or Deepfakes/071_054."""
    for name in names:
        method, _, number = name.rpartition("/")
        folder = f"manipulated_sequences/{method}" if method else "original_sequences/youtube"
        touch(root, f"{folder}/{level}/videos/{number}.mp4")
    return root


def all_ffpp() -> list[str]:
    """Names of all 5,000 videos of Table 13."""
    pairs = [pair for pairs in official_splits().pairs.values() for pair in pairs]
    fakes = [name for one, other in pairs for name in (f"{one}_{other}", f"{other}_{one}")]
    return [f"{number:03d}" for number in range(1000)] + [f"{method}/{fake}" for method in METHODS for fake in fakes]


def ffpp_rows(names: Iterable[str], *, level: str = "c23", **facts: object) -> list[Entry]:
    """Rows as `scan` would give them, without a tree."""
    official = official_splits()
    place = f"{level}/videos/"
    rows = []
    for name in names:
        method, _, numbers = name.rpartition("/")
        split, group = official.place_of(numbers)
        top = f"manipulated_sequences/{method}" if method else "original_sequences/youtube"
        source, donor = (
            (f"original_sequences/youtube/{place}{each}" for each in numbers.split("_")) if method else ("",) * 2
        )
        rows.append(
            Entry(
                dataset="ffpp",
                video_id=f"{top}/{place}{numbers}",
                path=f"{top}/{place}{numbers}.mp4",
                label=int(bool(method)),
                method=method or "original",
                level=level,
                split=split,
                source_id=source,
                donor_id=donor,
                group_id=group,
                **{"clip": f"clips/{top}/{place}{numbers}.zip", "n_stored": 16} | facts,  # type: ignore[arg-type]
            )
        )
    return rows


def dfdc_part(root: Path, part: str, originals: Iterable[str], *, fakes: int = 3, write: bool = True) -> Path:
    """A part: of each original that many fakes."""
    facts: dict[str, dict[str, str | None]] = {}
    for name in originals:
        facts[f"{name}.mp4"] = {"label": "REAL", "split": "train", "original": None}
        for number in range(fakes):
            facts[f"{name}{number}.mp4"] = {"label": "FAKE", "split": "train", "original": f"{name}.mp4"}
    if write:
        touch(root, *(f"{part}/{name}" for name in facts))
    return metadata(root, part, facts)


def metadata(root: Path, part: str, facts: object) -> Path:
    (root / part).mkdir(parents=True, exist_ok=True)
    (root / part / "metadata.json").write_text(facts if isinstance(facts, str) else json.dumps(facts))
    return root


def prepared(index: Index) -> list[Entry]:
    """Rows as if every video had been prepared."""
    found = {"n_frames": 40, "n_stored": 40}
    return [entry_of(video, clip=f"clips/{video.video_id}.zip", **found) for video in index.videos] + index.missing
