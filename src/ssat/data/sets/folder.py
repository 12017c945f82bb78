"""Your own images, one folder per class."""

from __future__ import annotations

import difflib
import os
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np

from ssat.core.errors import UserError
from ssat.data.sets.checks import listed
from ssat.data.sets.label_table import label_table, refuse_label_columns, unlisted
from ssat.data.sets.sources import ImageList, Source
from ssat.data.sets.walk import entries, files_below, leads_back, subfolders

USUAL = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm")
BESIDES = (".mpo", ".npy")  # opened as JPEG; arrays, see `decode.other_values`
SHOWN = 8  # folders with files that are no images, in one line
LOOKALIKES = ("training", "testing", "tests", "valid", "validation", "eval", "evaluation")


@cache
def extensions() -> tuple[str, ...]:
    """The endings, in lower case, of the files that are taken for images: the pictures that this Pillow opens."""
    from PIL import Image  # not above: with all of its plugins it takes a while

    from ssat.data.stored import formats

    opened = [ext for ext, kind in Image.registered_extensions().items() if kind in formats()]
    return tuple(dict.fromkeys([*USUAL, *sorted(opened), *BESIDES]))


def image_folder(
    root: str | Path,
    classes: Sequence[str] | str | None = None,
    labels: str | None = None,
    label_columns: Sequence[str] | None = None,
) -> Source:
    """Your own images, one folder per class, at any depth inside it.

    `<root>/train/<class>/*` with `<root>/test/<class>/*`: the test images evaluate. With `val` in place of `test` those
    do; with both, `val` is the validation split. Or one folder `<root>/<class>/*` (or `train` alone): then
    `data.val_fraction` says how many images are kept apart for the evaluation. Hidden files,
    files that are no images and links that lead back (`walk.files_below`) are left out; `overview.not_read` counts the
    latter two. The order is that of the sorted names
    and does not depend on the machine.

    Args:
        root: the folder.
        classes: use only these class folders; `common` = those that every split has; None = all.
        labels: a table of several labels for each image, see `label_table`: paths count from `root`, and folders name
            no classes; without a column of splits train/, val/ and test/ are the splits, if there is a train/.
        label_columns: which of its columns are labels.

    Raises:
        UserError: the folders are not as above, a class has no images, or is missing from a split; or the table is not.
    """
    if labels is not None:
        return _labelled(Path(root).expanduser(), classes, labels, label_columns)
    refuse_label_columns(label_columns)
    return _read(Path(root).expanduser(), classes, lenient=False)


def _labelled(
    root: Path, classes: Sequence[str] | str | None, labels: str, label_columns: Sequence[str] | None
) -> Source:
    if classes is not None:
        raise UserError(
            "data.classes names class folders, and data.labels gives each image several labels: choose them with"
            " data.label_columns=[...]",
            key="data.classes",
        )
    _check_root(root)
    source = label_table(labels, str(root), label_columns=label_columns, name="image_folder", split_folders=True)
    remark = unlisted(source, _image_names(root, ""), Path(labels).name)
    return replace(source, remarks=(*source.remarks, remark)) if remark else source


def any_folder(root: str | Path, classes: Sequence[str] | str | None = None) -> Source:
    """As `image_folder`, but every split may lack classes: for the check that says which.

    Raises:
        UserError: the folders are not as `image_folder` reads them.
    """
    return _read(Path(root).expanduser(), classes, lenient=True)


def _read(root: Path, classes: Sequence[str] | str | None, *, lenient: bool) -> Source:
    _check_root(root)
    splits = {name: root / name for name in ("train", "test", "val") if (root / name).is_dir()}
    if not splits:
        splits = {"train": root}
    elif "train" not in splits:
        raise UserError(f"data.root={str(root)!r} has {'/ and '.join(splits)}/ but no train/: {_expected(root)}")
    if classes == "common":
        classes = sorted(set.intersection(*(set(class_folders(folder, root)) for folder in splits.values())))
    found = class_folders(splits["train"], root)
    if lenient:
        found = sorted({name for folder in splits.values() for name in class_folders(folder, root)})
    chosen = _choose(found, classes, splits["train"])
    if len(chosen) < 2:
        raise UserError(
            f"{str(splits['train'])!r} has one class only ({chosen[0]!r}), and a classifier needs two:"
            f" {_one_level_too_high(splits['train'] / chosen[0]) or _expected(root)}"
        )
    for name in splits.keys() - {"train"} if not lenient else ():
        _check_same_classes(splits[name], root, chosen, subset=classes is not None)
    lists = {name: list_images(folder, root, chosen, lenient=lenient) for name, folder in splits.items()}
    test, val = lists.get("test"), lists.get("val")
    if test is None:
        test, val = val, None
    return Source("image_folder", chosen, lists["train"], test, val)


def _expected(root: Path) -> str:
    return (
        f"expected {root}/train/<class>/*.jpg and {root}/test/<class>/*.jpg, or {root}/<class>/*.jpg with"
        " data.val_fraction=0.2 (see docs/datasets.md)"
    )


def _check_root(root: Path) -> None:
    if root.is_file():
        raise UserError(f"data.root={str(root)!r} is a file, not a folder (unpack an archive first): {_expected(root)}")
    if not root.is_dir():
        near = difflib.get_close_matches(root.name, subfolders(root.parent) if root.parent.is_dir() else [], 1)
        hint = f"did you mean {str(root.parent / near[0])!r}?" if near else _expected(root)
        raise UserError(f"data.root={str(root)!r} does not exist: {hint}")
    wrong = [name for name in subfolders(root) if name.lower() in (*LOOKALIKES, "train", "test", "val")]
    wrong = [name for name in wrong if name not in ("train", "test", "val") and subfolders(root / name)]
    if wrong:
        raise UserError(
            f"data.root={str(root)!r} has a folder {wrong[0]!r} that looks like a split:"
            " call the splits train, test and val"
        )


def class_folders(folder: Path, root: Path) -> list[str]:
    """The sorted names of the folders in `folder`.

    Raises:
        UserError: there are none.
    """
    found = subfolders(folder)
    if not found:
        there = [entry.name for entry in entries(folder)]
        what = f"found only {listed(there)}" if there else "it is empty"
        raise UserError(f"{str(folder)!r} has no class folders, {what}: {_expected(root)}")
    return found


def _choose(found: list[str], classes: Sequence[str] | str | None, folder: Path) -> list[str]:
    if classes is None:
        return found
    wanted = [classes] if isinstance(classes, str) else [str(name) for name in classes]
    for name in wanted:
        if name not in found:
            near = difflib.get_close_matches(name, found, 3, cutoff=0.4)
            hint = f"did you mean {' or '.join(near)}?" if near else f"there are {listed(found)}"
            raise UserError(f"data.classes has {name!r}, which is not a class folder of {str(folder)!r}: {hint}")
    if not wanted:
        raise UserError(f"data.classes is empty: name at least two of {listed(found)}, or leave it out to use all")
    return sorted(set(wanted))


def _one_level_too_high(folder: Path) -> str | None:
    return f"did you mean data.root={str(folder)!r}?" if subfolders(folder) else None


def _check_same_classes(folder: Path, root: Path, chosen: list[str], *, subset: bool) -> None:
    found = class_folders(folder, root)
    lacking = sorted(set(chosen) - set(found))
    surplus = [] if subset else sorted(set(found) - set(chosen))
    if lacking or surplus:
        which = [f"has no {listed(lacking)}"] * bool(lacking) + [f"has {listed(surplus)} besides"] * bool(surplus)
        raise UserError(
            f"the class folders of {str(folder)!r} are not those of train/, it {' and '.join(which)}:"
            " add or remove folders, or set data.classes=common to use those that both have"
        )


def _image_names(folder: Path, prefix: str) -> list[str]:
    """The image files of `folder` at any depth, sorted, each with `prefix` before its name."""
    names = []
    for name, is_link in files_below(folder):
        if is_link or not name.lower().endswith(extensions()):
            continue  # `overview.not_read` counts them
        if os.path.exists(path := folder / name) and not path.is_file():
            raise UserError(f"{path} is no regular file, and cannot be an image: remove it", key="data.root")
        names.append(prefix + name)  # a broken link is a bad image
    return names


def list_images(folder: Path, root: Path, classes: list[str], *, lenient: bool = False) -> ImageList:
    """The images of the class folders in `folder`, with names below `root`.

    Raises:
        UserError: a class has none, and that is not let pass.
    """
    images: list[str] = []
    counts = []
    prefix = "" if folder == root else f"{folder.name}/"
    for name in classes:
        there_is = not lenient or (folder / name).is_dir()
        found = _image_names(folder / name, f"{prefix}{name}/") if there_is else []
        if not found and not lenient:
            there = [entry.name for entry in entries(folder / name)]
            what = f"found only {listed(there)}" if there else "it is empty"
            if leads_back(folder / name):
                what = "it is a link to a folder in which it lies"
            raise UserError(
                f"the class folder {str(folder / name)!r} has no images, {what}:"
                f" add images ({' '.join(USUAL)} and others that Pillow reads) or remove the folder"
            )
        images += found
        counts.append(len(found))
    labels = np.repeat(np.arange(len(classes), dtype=np.int64), counts)
    return ImageList(images, labels, root, class_depth=prefix.count("/") + 1)
