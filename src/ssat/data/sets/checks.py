"""Is an official data set there, whole and the right one? What every reader asks before it hands out images."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from ssat.core.errors import UserError
from ssat.data.sets.card import Card
from ssat.data.sets.manifest import FROZEN, digest, official_counts
from ssat.data.sets.sources import ImageList, Source


class Missing(UserError):
    """The data set is not there at all."""


def listed(names: Sequence[str], limit: int = 5) -> str:
    """The first names in quotes, and how many more there are."""
    rest = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(repr(name) for name in names[:limit]) + rest


def first_line(error: Exception) -> str:
    """What an exception says, in one line."""
    return (str(error) or type(error).__name__).splitlines()[0]


def how_to_get(card: Card, root: Path) -> str:
    """What the user does to get the set, as the end of a sentence."""
    place = "" if str(root) == "data" else " " + shlex.quote(f"data.root={root}")
    if card.request:
        return f"{card.request} (`python -m src.prepare data={card.name}{place} --check` checks the tree)"
    size = max(1, round(card.download_megabytes))
    return f"`python -m src.prepare data={card.name}{place}` downloads it ({size:,} MB)"


def locate(card: Card, root: str | Path) -> Path:
    """The folder of the set: `<root>/<its folder>`, or `root` itself.

    Raises:
        Missing: it is in neither.
        UserError: a part of it is.
    """
    root = Path(root).expanduser()
    own = [root / name for name in (card.folder, card.also) if name] or [root]
    for folder in (*own, root):
        if all((folder / mark).exists() for mark in card.marks):
            return folder
    folder = next((folder for folder in own if folder.is_dir()), own[0])
    # A domain's lists beside another domain's are no sign of this one, `train/` in any root is none of ImageNet.
    found = sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []
    begun = [mark for mark in card.marks if (folder / mark).exists()]
    if found and (begun or card.folder != "domainnet"):
        lacking = [mark for mark in card.marks if mark not in begun]
        raise UserError(
            f"{folder} is not the tree of {card.title}, it has no {listed(lacking)}: expected {card.tree}, found"
            f" {listed(found)}; move it away and {how_to_get(card, root)}"
        )
    raise Missing(f"{card.title} is not in data.root={str(root)!r}, expected {card.tree}: {how_to_get(card, root)}")


def checked(
    card: Card,
    folder: Path,
    splits: Mapping[str, ImageList],
    classes: Sequence[str],
    *,
    verify: bool,
) -> Source:
    """The `Source` of the official `splits` (train, test and perhaps val) found in `folder`.

    Raises:
        UserError: a label is outside the range or only one class occurs; with `verify` also where the number of classes
            or images, in all or of a class, is not the card's, an image file does not exist, or the content is known
            and another.
    """
    for name, images in splits.items():
        wrong = np.flatnonzero((images.labels < 0) | (images.labels >= len(classes)))
        if len(wrong):
            raise UserError(
                f"the {name} split of {card.title} in {folder} has the label {images.labels[wrong[0]]} at image"
                f" {wrong[0]}, outside 0 to {len(classes) - 1}: replace the files by the official ones"
            )
    if len(np.unique(splits["train"].labels)) < 2:
        raise UserError(
            f"the training images of {card.title} in {folder} are all of one class, and a classifier needs two:"
            " replace the files by the official ones"
        )
    if verify:
        _verify(card, folder, splits, classes)
    return Source(
        card.name,
        list(classes),
        splits["train"],
        splits["test"],
        splits.get("val"),
        trains_on_val=card.trains_on_val,
    )


def _verify(card: Card, folder: Path, splits: Mapping[str, ImageList], classes: Sequence[str]) -> None:
    found = {name: len(images) for name, images in splits.items()}
    cure = "replace them by the official files, or use them as they are with data.verify=false"
    if found != card.counts:
        shown = " + ".join(f"{found[name]:,} {name}" for name in found)
        expected = " + ".join(f"{count:,} {name}" for name, count in card.counts.items())
        raise UserError(f"{card.title} in {folder} has {shown} images, expected {expected}: {cure}")
    if len(classes) != card.classes:
        raise UserError(f"{card.title} in {folder} has {len(classes)} classes, expected {card.classes}: {cure}")
    _verify_labels(card, folder, splits, classes, cure)
    for images in splits.values():
        if images.root is None or card.name == "imagenet":  # whose names are those of the files found
            continue
        gone = absent(images.root, [str(name) for name in images.images])
        if gone:
            raise UserError(
                f"{card.title} lacks {len(gone):,} image files, the first is {images.root / gone[0]}: unpack the"
                " archive again, or go on without the check with data.verify=false"
            )


def _verify_labels(
    card: Card, folder: Path, splits: Mapping[str, ImageList], classes: Sequence[str], cure: str
) -> None:
    """Refuse as many images with other labels: by class, and by content where the official one is known."""
    official = official_counts(card)
    for split, images in splits.items():
        counts = np.bincount(images.labels, minlength=len(classes)).tolist()
        for name, found, expected in zip(classes, counts, official.get(split, counts), strict=True):
            if found != expected:
                raise UserError(
                    f"{card.title} in {folder} has {found:,} {split} images of class {name!r}, expected {expected:,}:"
                    f" {cure}"
                )
    for split, images in splits.items():
        frozen = FROZEN.get(card.name, {}).get(split)
        if frozen is not None and split in official and digest(images) != frozen["sha256"]:
            raise UserError(
                f"the {split} images or labels of {card.title} in {folder} are not the official ones: {cure}"
            )


def absent(root: Path, names: Iterable[str]) -> list[str]:
    """The names that are no files below `root`; every folder is listed once, which is faster than asking for each."""
    there: dict[str, set[str]] = {}
    gone = []
    for name in names:
        parent, _, leaf = name.rpartition("/")
        if parent not in there:
            try:
                there[parent] = set(os.listdir(root / parent))
            except OSError:
                there[parent] = set()
        if leaf not in there[parent]:
            gone.append(name)
    return gone
