"""Where labelled images come from: each function here returns a `Source`."""

from __future__ import annotations

import difflib
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from src.data.decode import read_rgb, read_tensor, to_rgb, unreadable
from src.data.subsets import train_val_split
from src.errors import UserError

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm")
DIGITS_TEST = 360  # of 1,797: one fifth, stratified
LOOKALIKES = ("training", "testing", "tests", "valid", "validation", "eval", "evaluation")


@dataclass(frozen=True)
class ImageList:
    """Images and their classes.

    Attributes:
        images: file names below `root`, or (N, H, W, 3) or (N, H, W) uint8 pixels.
        labels: (N,) int64 class numbers.
        root: folder of the files; None for pixels.
    """

    images: Sequence[str] | NDArray[np.uint8]
    labels: NDArray[np.int64]
    root: Path | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, index: int) -> Image.Image:
        """Image `index` as 8-bit RGB; raises UserError for a file that cannot be read."""
        if self.root is None:
            return to_rgb(Image.fromarray(np.asarray(self.images[index])))
        return read_rgb(self.root / str(self.images[index]))

    def read_tensor(self, index: int) -> Tensor:
        """Image `index` as (3, H, W) uint8; raises UserError for a file that cannot be read."""
        if self.root is None:
            return torch.from_numpy(np.array(self.read(index))).permute(2, 0, 1)
        return read_tensor(self.root / str(self.images[index]))

    def readable(self) -> tuple[NDArray[np.int64], list[str]]:
        """Indices of the images that can be read, and the paths of the files that cannot."""
        if self.root is None:
            return np.arange(len(self)), []
        bad = set(unreadable(self.root, [str(name) for name in self.images]))
        good = [index for index, name in enumerate(self.images) if name not in bad]
        return np.asarray(good, dtype=np.int64), [str(self.root / name) for name in sorted(bad)]

    def digest(self, indices: NDArray[np.int64]) -> str:
        """SHA-256 of the chosen images' names, sizes in bytes and labels, or of their pixels and labels."""
        sha = hashlib.sha256(self.labels[indices].astype("<i8").tobytes())
        if self.root is None:
            sha.update(indices.astype("<i8").tobytes())
            sha.update(np.ascontiguousarray(np.asarray(self.images)[indices]).tobytes())
            return sha.hexdigest()
        for index in indices.tolist():
            name = str(self.images[index])
            sha.update(f"{name}\0{os.path.getsize(self.root / name)}\n".encode(errors="surrogateescape"))
        return sha.hexdigest()


@dataclass(frozen=True)
class Source:
    """A labelled data set. `test` is what the paper evaluates on; `val`, where there is one, selects models."""

    name: str
    classes: list[str]
    train: ImageList
    test: ImageList | None = None
    val: ImageList | None = None


def digits() -> Source:
    """scikit-learn's 1,797 handwritten digits (UCI, Alpaydin & Kaynak 1998): 8x8 grey, 1,437 + 360 images, no download.

    The split is ours (there is no official one in that copy), stratified and frozen.
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    grey = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
    images, labels = np.repeat(grey[..., None], 3, axis=3), bunch.target.astype(np.int64)
    train, test = train_val_split(labels, DIGITS_TEST / len(labels), seed=0)
    return Source(
        "digits",
        [str(digit) for digit in range(10)],
        ImageList(images[train], labels[train]),
        ImageList(images[test], labels[test]),
    )


def cifar10(root: str | Path, download: bool = True) -> Source:
    """CIFAR-10 (Krizhevsky 2009) in memory, 50,000 + 10,000 images of 32x32; torchvision downloads it into `root`.

    Raises:
        UserError: it is not there and cannot be downloaded, or its files are damaged.
    """
    from torchvision.datasets import CIFAR10

    try:
        parts = [CIFAR10(str(root), train=train, download=download) for train in (True, False)]
    # No network, a full disk, a damaged archive: torchvision raises URLError, OSError, RuntimeError, tarfile errors ...
    except Exception as error:
        raise UserError(
            f"CIFAR-10 is not in {root} and could not be downloaded ({_first_line(error)}): download {CIFAR10.url}"
            f" elsewhere, put {CIFAR10.filename} into {root} and start again"
        ) from None
    train, test = (ImageList(part.data, np.asarray(part.targets, dtype=np.int64)) for part in parts)
    return Source("cifar10", list(parts[0].classes), train, test)


def image_folder(root: str | Path, classes: Sequence[str] | None = None) -> Source:
    """Your own images, one folder per class, at any depth inside it.

    `<root>/train/<class>/*` with `<root>/test/<class>/*`: the test images evaluate. With `val` in place of `test` those
    do; with both, `val` is the validation split. Or one folder `<root>/<class>/*` (or `train` alone): then
    `data.val_fraction` says how many images are kept apart for the evaluation. Hidden files are ignored. The order is
    that of the sorted names and does not depend on the machine.

    Args:
        root: the folder.
        classes: use only these class folders; None = all.

    Raises:
        UserError: the folders are not as above, a class has no images, or is missing from a split.
    """
    root = Path(root).expanduser()
    _check_root(root)
    splits = {name: root / name for name in ("train", "test", "val") if (root / name).is_dir()}
    if not splits:
        splits = {"train": root}
    elif "train" not in splits:
        raise UserError(f"data.root={str(root)!r} has {'/ and '.join(splits)}/ but no train/: {_expected(root)}")
    chosen = _choose(_class_folders(splits["train"], root), classes, splits["train"])
    if len(chosen) < 2:
        raise UserError(
            f"{str(splits['train'])!r} has one class only ({chosen[0]!r}), and a classifier needs two:"
            f" {_one_level_too_high(splits['train'] / chosen[0]) or _expected(root)}"
        )
    for name in splits.keys() - {"train"}:
        _check_same_classes(splits[name], root, chosen, subset=classes is not None)
    lists = {name: _list_images(folder, root, chosen) for name, folder in splits.items()}
    test, val = lists.get("test"), lists.get("val")
    if test is None:
        test, val = val, None
    return Source("image_folder", chosen, lists["train"], test, val)


def _expected(root: Path) -> str:
    return (
        f"expected {root}/train/<class>/*.jpg and {root}/test/<class>/*.jpg, or {root}/<class>/*.jpg with"
        " data.val_fraction=0.2 (see docs/datasets.md)"
    )


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def _listed(names: Sequence[str], limit: int = 5) -> str:
    rest = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(repr(name) for name in names[:limit]) + rest


def _check_root(root: Path) -> None:
    if root.is_file():
        raise UserError(f"data.root={str(root)!r} is a file, not a folder (unpack an archive first): {_expected(root)}")
    if not root.is_dir():
        near = difflib.get_close_matches(root.name, _subfolders(root.parent) if root.parent.is_dir() else [], 1)
        hint = f"did you mean {str(root.parent / near[0])!r}?" if near else _expected(root)
        raise UserError(f"data.root={str(root)!r} does not exist: {hint}")
    wrong = [name for name in _subfolders(root) if name.lower() in (*LOOKALIKES, "train", "test", "val")]
    wrong = [name for name in wrong if name not in ("train", "test", "val") and _subfolders(root / name)]
    if wrong:
        raise UserError(
            f"data.root={str(root)!r} has a folder {wrong[0]!r} that looks like a split:"
            " call the splits train, test and val"
        )


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted((e for e in entries if not e.name.startswith(".")), key=lambda entry: entry.name)
    except OSError as error:
        raise UserError(f"cannot list the folder {str(folder)!r}: {error.strerror}") from None


def _subfolders(folder: Path) -> list[str]:
    return [entry.name for entry in _entries(folder) if entry.is_dir()]


def _class_folders(folder: Path, root: Path) -> list[str]:
    found = _subfolders(folder)
    if not found:
        there = [entry.name for entry in _entries(folder)]
        what = f"found only {_listed(there)}" if there else "it is empty"
        raise UserError(f"{str(folder)!r} has no class folders, {what}: {_expected(root)}")
    return found


def _choose(found: list[str], classes: Sequence[str] | None, folder: Path) -> list[str]:
    if classes is None:
        return found
    wanted = [classes] if isinstance(classes, str) else [str(name) for name in classes]
    for name in wanted:
        if name not in found:
            near = difflib.get_close_matches(name, found, 3, cutoff=0.4)
            hint = f"did you mean {' or '.join(near)}?" if near else f"there are {_listed(found)}"
            raise UserError(f"data.classes has {name!r}, which is not a class folder of {str(folder)!r}: {hint}")
    if not wanted:
        raise UserError(f"data.classes is empty: name at least two of {_listed(found)}, or leave it out to use all")
    return sorted(set(wanted))


def _one_level_too_high(folder: Path) -> str | None:
    return f"did you mean data.root={str(folder)!r}?" if _subfolders(folder) else None


def _check_same_classes(folder: Path, root: Path, chosen: list[str], *, subset: bool) -> None:
    found = _class_folders(folder, root)
    lacking = sorted(set(chosen) - set(found))
    surplus = [] if subset else sorted(set(found) - set(chosen))
    if lacking or surplus:
        which = [f"has no {_listed(lacking)}"] * bool(lacking) + [f"has {_listed(surplus)} besides"] * bool(surplus)
        raise UserError(
            f"the class folders of {str(folder)!r} are not those of train/, it {' and '.join(which)}:"
            " add or remove folders, or name the classes that both have in data.classes=[...]"
        )


def _image_names(folder: Path, prefix: str) -> list[str]:
    """The image files of `folder` at any depth, sorted, each with `prefix` before its name."""
    names = []
    for entry in _entries(folder):
        if entry.is_dir():
            names += _image_names(folder / entry.name, f"{prefix}{entry.name}/")
        elif entry.name.lower().endswith(EXTENSIONS):
            names.append(prefix + entry.name)
    return names


def _list_images(folder: Path, root: Path, classes: list[str]) -> ImageList:
    images: list[str] = []
    counts = []
    prefix = "" if folder == root else f"{folder.name}/"
    for name in classes:
        found = _image_names(folder / name, f"{prefix}{name}/")
        if not found:
            there = [entry.name for entry in _entries(folder / name)]
            what = f"found only {_listed(there)}" if there else "it is empty"
            raise UserError(
                f"the class folder {str(folder / name)!r} has no images, {what}:"
                f" add images ({' '.join(EXTENSIONS)}) or remove the folder"
            )
        images += found
        counts.append(len(found))
    return ImageList(images, np.repeat(np.arange(len(classes), dtype=np.int64), counts), root)
