"""Flowers102, ImageNet-1K, DomainNet and Chaoyang from their official files, as lists of image files."""

from __future__ import annotations

import operator
from pathlib import Path

import numpy as np

from ssat.core.errors import UserError
from ssat.core.read import parse_json, read_bytes
from ssat.data.sets.catalog import CATALOG
from ssat.data.sets.checks import checked, listed, locate
from ssat.data.sets.folder import class_folders, list_images
from ssat.data.sets.readers import read_mat
from ssat.data.sets.sources import ImageList, Source


def flowers(root: str | Path, verify: bool = True) -> Source:
    """Oxford Flowers102 (Nilsback & Zisserman 2008): official 1,020 + 1,020 + 6,149 photographs in 102 classes.

    Args:
        root: holds flowers-102/, or is that folder.
        verify: compare the numbers of images with the official ones, and look for every file.

    Raises:
        UserError: it is not there, damaged or not the official one.
    """
    card = CATALOG["flowers"]
    folder = locate(card, root)
    labels = read_mat(folder / "imagelabels.mat", ("labels",))["labels"].ravel().astype(np.int64) - 1
    keys = {"train": "trnid", "val": "valid", "test": "tstid"}
    numbers = read_mat(folder / "setid.mat", tuple(keys.values()))
    splits = {}
    for split, key in keys.items():
        chosen = numbers[key].ravel().astype(np.int64)
        if len(chosen) and not 1 <= chosen.min() <= chosen.max() <= len(labels):
            raise UserError(
                f"{folder / 'setid.mat'} has the image {chosen.max()} in {key}, but imagelabels.mat has {len(labels)}"
                " labels: the two are not of one set, get both again"
            )
        names = [f"jpg/image_{number:05d}.jpg" for number in chosen.tolist()]
        splits[split] = ImageList(names, labels[chosen - 1], folder)
    return checked(card, folder, splits, card.class_names or (), verify=verify)


def imagenet(root: str | Path, verify: bool = True) -> Source:
    """ImageNet-1K (ILSVRC 2012): 1,281,167 training images; the 50,000 validation images are the test set.

    The classes are the folders' names (WordNet numbers such as n01440764), in sorted order, as the authors' reader.

    Args:
        root: holds imagenet/, or is that folder: train/<wnid>/*.JPEG and val/<wnid>/*.JPEG.
        verify: compare the numbers of images and classes with the official ones.

    Raises:
        UserError: it is not there, or its folders are others.
    """
    card = CATALOG["imagenet"]
    folder = locate(card, root)
    classes = class_folders(folder / "train", folder)
    if not any(path.is_dir() for path in (folder / "val").iterdir()):
        raise UserError(
            f"{folder / 'val'} has no class folders: expected {card.tree}; remove it, put ILSVRC2012_img_val.tar and"
            " ILSVRC2012_devkit_t12.tar.gz beside it and run `python -m src.prepare data=imagenet`, which sorts them"
        )
    others = sorted(set(classes) ^ set(class_folders(folder / "val", folder)))
    if others:
        raise UserError(f"the class folders of {folder}/train and val differ in {listed(others)}: expected {card.tree}")
    splits = {
        "train": list_images(folder / "train", folder, classes),
        "test": list_images(folder / "val", folder, classes),
    }
    return checked(card, folder, splits, classes, verify=verify)


def domainnet(domain: str, root: str | Path, verify: bool = True) -> Source:
    """One domain of DomainNet (Peng et al. 2019, cleaned version), 345 classes, by its official lists.

    Args:
        domain: clipart, infograph or sketch.
        root: holds domainnet/, or is that folder.
        verify: compare the numbers of images with the official ones, and look for every file.

    Raises:
        UserError: it is not there, damaged or not the official one.
    """
    card = CATALOG[domain]
    folder = locate(card, root)
    names: dict[int, str] = {}
    splits = {}
    for split in ("train", "test"):
        path = folder / f"{domain}_{split}.txt"
        images, labels = _domainnet_list(path, domain)
        splits[split] = ImageList(images, np.asarray(labels, dtype=np.int64), folder)
        for image, label in zip(images, labels, strict=True):
            found = image.split("/")[1]
            if names.setdefault(label, found) != found:
                raise UserError(
                    f"{path} gives the label {label} to {names[label]!r} and to {found!r}: it is damaged, get it again"
                )
    classes = [names.get(label, f"class {label}") for label in range(max(names, default=-1) + 1)]
    return checked(card, folder, splits, classes, verify=verify)


def chaoyang(root: str | Path, verify: bool = True) -> Source:
    """Chaoyang (Zhu et al. 2021): 4,021 + 2,139 colon patches of 512x512 in four classes.

    Args:
        root: holds chaoyang/, or is that folder: train.json and test.json, lists of {"name": file, "label": 0 to 3}.
        verify: compare the numbers of images with the official ones, and look for every file.

    Raises:
        UserError: it is not there, damaged or not the official one.
    """
    card = CATALOG["chaoyang"]
    folder = locate(card, root)
    splits = {}
    for split in ("train", "test"):
        path = folder / f"{split}.json"
        try:
            entries = parse_json(_text(path))
            images = [str(entry["name"]) for entry in entries]
            labels = [operator.index(entry["label"]) for entry in entries]
        except (ValueError, TypeError, KeyError) as error:
            raise UserError(
                f'cannot read {path} ({type(error).__name__}: {error}): expected a list of {{"name": "{split}/....JPG",'
                ' "label": 0 to 3}, get the official file again'
            ) from None
        _refuse_outside(path, images)
        splits[split] = ImageList(images, np.asarray(labels, dtype=np.int64), folder)
    return checked(card, folder, splits, card.class_names or (), verify=verify)


def _domainnet_list(path: Path, domain: str) -> tuple[list[str], list[int]]:
    images, labels = [], []
    for number, line in enumerate(_text(path).splitlines(), 1):
        image, _, label = line.rpartition(" ")
        if image.count("/") != 2 or not image.startswith(f"{domain}/") or not label.isdecimal():
            raise UserError(
                f"line {number} of {path} is {line[:80]!r}, expected '{domain}/<class>/<file> <label>':"
                " it is damaged or not the official list, get it again"
            )
        images.append(image)
        labels.append(int(label))
    if not images:
        raise UserError(f"{path} is empty: get it again")
    _refuse_outside(path, images)
    return images, labels


def _text(path: Path) -> str:
    try:
        return read_bytes(path).decode("utf-8", errors="replace").replace("\r\n", "\n").replace("\r", "\n")
    except ValueError as error:
        raise UserError(f"cannot read {path} ({error}): get it again") from None
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror}): get it again or change its permissions") from None


def _refuse_outside(path: Path, names: list[str]) -> None:
    for name in names:
        if name.startswith("/") or ".." in name.split("/"):
            raise UserError(f"{path} names the file {name!r}, outside its folder: get the official list again")
