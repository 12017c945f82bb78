"""CIFAR-10, CIFAR-100, SVHN and PneumoniaMNIST from their official files, as pixels in memory."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssat.core.errors import UserError
from ssat.core.read import read_arrays
from ssat.data.sets.catalog import CATALOG
from ssat.data.sets.checks import checked, first_line, locate
from ssat.data.sets.sources import ImageList, Source

PNEUMONIA_BYTES = 16_000_000  # the official file unpacks to 4.6 MB
# What a pickled NumPy array needs, by the names of NumPy 1 and 2; anything else could run code.
_PICKLED = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("_codecs", "encode"),
}


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _PICKLED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return super().find_class(module, name)


def cifar10(root: str | Path, verify: bool = True) -> Source:
    """CIFAR-10 (Krizhevsky 2009): 50,000 + 10,000 images of 32x32 in 10 classes.

    Args:
        root: holds cifar-10-batches-py/, or is that folder.
        verify: compare the numbers of images and classes with the official ones.

    Raises:
        UserError: it is not there, damaged or not the official one.
    """
    return _cifar(
        "cifar10", root, [f"data_batch_{number}" for number in range(1, 6)], "test_batch", "batches.meta", verify
    )


def cifar100(root: str | Path, verify: bool = True) -> Source:
    """CIFAR-100 (Krizhevsky 2009): 50,000 + 10,000 images of 32x32 in 100 classes.

    Args:
        root: holds cifar-100-python/, or is that folder.
        verify: compare the numbers of images and classes with the official ones.

    Raises:
        UserError: it is not there, damaged or not the official one.
    """
    return _cifar("cifar100", root, ["train"], "test", "meta", verify)


def svhn(root: str | Path, verify: bool = True) -> Source:
    """SVHN, cropped digits (Netzer et al. 2011): 73,257 + 26,032 images of 32x32; the label 10 of the files is the 0.

    Args:
        root: holds svhn/, or the two files train_32x32.mat and test_32x32.mat themselves.
        verify: compare the numbers of images with the official ones.

    Raises:
        UserError: it is not there, damaged or not the official one.
    """
    card = CATALOG["svhn"]
    folder = locate(card, root)
    splits = {}
    for split in ("train", "test"):
        path = folder / f"{split}_32x32.mat"
        content = read_mat(path, ("X", "y"))
        pixels, labels = content["X"], np.asarray(content["y"]).ravel().astype(np.int64)
        if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[:3] != (32, 32, 3):
            raise _unexpected(path, f"X is {pixels.dtype} {pixels.shape}, expected uint8 (32, 32, 3, N)")
        if len(labels) != pixels.shape[3]:
            raise _unexpected(path, f"{pixels.shape[3]} images and {len(labels)} labels")
        images = np.ascontiguousarray(pixels.transpose(3, 0, 1, 2))
        splits[split] = ImageList(images, np.where(labels == 10, 0, np.where(labels == 0, -1, labels)))
    return checked(card, folder, splits, card.class_names or (), verify=verify)


def pmnist(root: str | Path, verify: bool = True) -> Source:
    """PneumoniaMNIST (MedMNIST v2, Yang et al. 2023): 4,708 + 524 + 624 grey images of 28x28, normal or pneumonia.

    Args:
        root: holds pneumoniamnist.npz, or pneumoniamnist/pneumoniamnist.npz.
        verify: compare the numbers of images with the official ones.

    Raises:
        UserError: it is not there, damaged or not the official one.
    """
    card = CATALOG["pmnist"]
    folder = locate(card, root)
    path = folder / "pneumoniamnist.npz"
    try:
        content = read_arrays(path, most=PNEUMONIA_BYTES)
    except (OSError, ValueError) as error:
        raise _unexpected(path, first_line(error)) from None
    splits = {}
    for split in ("train", "val", "test"):
        try:
            pixels, labels = content[f"{split}_images"], content[f"{split}_labels"]
        except KeyError as error:
            raise _unexpected(path, f"it has no {error}, only {', '.join(sorted(content)) or 'nothing'}") from None
        if pixels.dtype != np.uint8 or pixels.shape[1:] != (28, 28):
            raise _unexpected(path, f"{split}_images is {pixels.dtype} {pixels.shape}, expected uint8 (N, 28, 28)")
        if labels.size != len(pixels) or labels.dtype.kind not in "iu":
            raise _unexpected(path, f"{len(pixels)} {split} images and {labels.size} {labels.dtype} labels")
        splits[split] = ImageList(pixels, labels.ravel().astype(np.int64))
    return checked(card, folder, splits, card.class_names or (), verify=verify)


def read_mat(path: Path, names: tuple[str, ...]) -> dict[str, NDArray[Any]]:
    """The arrays `names` of a MATLAB file.

    Raises:
        UserError: it is damaged or has no such array.
    """
    from scipy.io import loadmat

    try:
        content = loadmat(str(path), variable_names=list(names))
    # SciPy answers damaged bytes with many kinds of exceptions (ValueError, TypeError, OSError, zlib.error ...).
    except Exception as error:
        raise _unexpected(path, first_line(error)) from None
    lacking = [name for name in names if name not in content]
    if lacking:
        raise _unexpected(path, f"it has no {' and no '.join(lacking)}")
    return {name: np.asarray(content[name]) for name in names}


def _unexpected(path: Path, why: str) -> UserError:
    return UserError(f"cannot read {path} ({why}): it is damaged or not the official file, remove it and get it again")


def _cifar(name: str, root: str | Path, train: list[str], test: str, meta: str, verify: bool) -> Source:
    card = CATALOG[name]
    folder = locate(card, root)
    fine = "fine_" if name == "cifar100" else ""
    classes = _unpickle(folder / meta).get(f"{fine}label_names")
    if not isinstance(classes, list) or not classes:
        raise _unexpected(folder / meta, f"it has no list {fine}label_names")
    names = [word.decode("latin1") if isinstance(word, bytes) else str(word) for word in classes]
    parts = {
        "train": [_batch(folder / file, f"{fine}labels") for file in train],
        "test": [_batch(folder / test, f"{fine}labels")],
    }
    splits = {
        split: ImageList(np.concatenate([a for a, _ in part]), np.concatenate([b for _, b in part]))
        for split, part in parts.items()
    }
    return checked(card, folder, splits, names, verify=verify)


def _unpickle(path: Path) -> dict[str, Any]:
    try:
        content = _ArrayUnpickler(io.BytesIO(path.read_bytes()), encoding="bytes").load()
    # Damaged pickles raise nearly anything: UnpicklingError, EOFError, ValueError, AttributeError, IndexError ...
    except Exception as error:
        raise _unexpected(path, first_line(error)) from None
    if not isinstance(content, dict):
        raise _unexpected(path, f"it holds a {type(content).__name__}")
    return {key.decode("latin1") if isinstance(key, bytes) else str(key): value for key, value in content.items()}


def _batch(path: Path, key: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    content = _unpickle(path)
    pixels, labels = content.get("data"), content.get(key)
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.shape[1:] != (3072,):
        raise _unexpected(path, "data is not an array of uint8 (N, 3072)")
    if not isinstance(labels, list) or len(labels) != len(pixels) or not all(type(label) is int for label in labels):
        raise _unexpected(path, f"{key} is not a list of {len(pixels)} numbers")
    # Channel, row, column in the file.
    return np.ascontiguousarray(pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)), np.asarray(labels, dtype=np.int64)
