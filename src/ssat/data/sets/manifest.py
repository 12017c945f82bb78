"""What a data set consists of, in a few numbers that do not depend on the order of the images."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from ssat.core.files import write_text
from ssat.core.read import read_json
from ssat.data.sets.card import Card
from ssat.data.sets.sources import ImageList, Source

FROZEN: dict[str, dict[str, Any]] = json.loads(Path(__file__).with_name("manifests.json").read_text())


def digest(images: ImageList) -> str:
    """SHA-256 over the sorted images: pixels and label, or file name and label."""
    sha = hashlib.sha256()
    if images.root is None:
        rows = [
            hashlib.sha256(f"{label}\0".encode() + np.ascontiguousarray(pixels).tobytes()).digest()
            for pixels, label in zip(images.images, images.labels.tolist(), strict=True)
        ]
    else:
        rows = [
            f"{name}\0{label}\n".encode(errors="surrogateescape")
            for name, label in zip(images.images, images.labels.tolist(), strict=True)
        ]
    for row in sorted(rows):
        sha.update(row)
    return sha.hexdigest()


def describe(source: Source) -> dict[str, Any]:
    """Per split the number of images, in all and of each class, and the digest."""
    splits = {"train": source.train, "val": source.val, "test": source.test}
    return {
        name: {
            "images": len(images),
            "per_class": np.bincount(images.labels, minlength=len(source.classes)).tolist(),
            "sha256": digest(images),
        }
        for name, images in splits.items()
        if images is not None
    }


def official_counts(card: Card) -> dict[str, list[int]]:
    """Images of each class in the official splits, in the order of the labels; {} for splits of which it is not known.

    Of a card with other numbers of images nothing is known.
    """
    frozen = {split: content["per_class"] for split, content in FROZEN.get(card.name, {}).items()}
    known = frozen or {split: [*counts] for split, counts in card.per_class.items()}
    return {split: counts for split, counts in known.items() if sum(counts) == card.counts.get(split)}


def path_of(root: Path, name: str) -> Path:
    """Where the manifest of a prepared set is kept."""
    return root / ".ssat" / f"{name}.json"


def write(root: Path, name: str, manifest: dict[str, Any]) -> None:
    """Write it, whole or not at all."""
    write_text(path_of(root, name), json.dumps(manifest, indent=1) + "\n")


def read(root: Path, name: str) -> dict[str, Any] | None:
    """The manifest of a prepared set; None where there is none that can be read."""
    try:
        manifest = read_json(path_of(root, name))
    except (OSError, ValueError):
        return None
    return manifest if isinstance(manifest, dict) else None


def changed(found: dict[str, Any], expected: dict[str, Any]) -> list[str]:
    """The splits whose images or labels are not the expected ones."""
    return sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))
