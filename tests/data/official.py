"""The official files of the paper's data sets, written small: the same formats, a few images."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

WNIDS = ("n01440764", "n01443537", "n01484850")


def pickled(content: dict) -> bytes:
    """As Python 2 wrote it: protocol 2, keys and names as bytes."""
    return pickle.dumps(content, protocol=2)


def photo(path: Path, size: int = 12) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(len(path.name)).integers(0, 256, (size, size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, "JPEG")


def write_cifar10(root: Path) -> Path:
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]:
        content = {
            b"batch_label": b"one of us",
            b"labels": [3, 1, 4, 1],
            b"data": rng.integers(0, 256, (4, 3072), dtype=np.uint8),
            b"filenames": [b"a.png"] * 4,
        }
        (folder / name).write_bytes(pickled(content))
    meta = {b"num_cases_per_batch": 4, b"label_names": [f"class {n}".encode() for n in range(10)], b"num_vis": 3072}
    (folder / "batches.meta").write_bytes(pickled(meta))
    return folder


def write_cifar100(root: Path) -> Path:
    folder = root / "cifar-100-python"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name, count in (("train", 6), ("test", 3)):
        content = {
            b"fine_labels": [99, 0, 7, 7, 0, 1][:count],
            b"coarse_labels": [1] * count,
            b"data": rng.integers(0, 256, (count, 3072), dtype=np.uint8),
        }
        (folder / name).write_bytes(pickled(content))
    names = {
        b"fine_label_names": [f"fine {n}".encode() for n in range(100)],
        b"coarse_label_names": [f"coarse {n}".encode() for n in range(20)],
    }
    (folder / "meta").write_bytes(pickled(names))
    return folder


def write_svhn(root: Path) -> Path:
    folder = root / "svhn"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for split, labels in (("train", [1, 9, 10, 2]), ("test", [10, 5])):
        pixels = rng.integers(0, 256, (32, 32, 3, len(labels)), dtype=np.uint8)
        labels_column = np.array(labels, dtype=np.uint8)[:, None]
        savemat(folder / f"{split}_32x32.mat", {"X": pixels, "y": labels_column}, do_compression=True)
    return folder


def write_flowers(root: Path) -> Path:
    folder = root / "flowers-102"
    for number in range(1, 8):
        photo(folder / "jpg" / f"image_{number:05d}.jpg")
    savemat(folder / "imagelabels.mat", {"labels": np.array([[77, 77, 1, 102, 2, 1, 5]], dtype=np.uint8)})
    splits = {"trnid": [[3, 1]], "valid": [[2]], "tstid": [[7, 5, 6, 4]]}
    savemat(folder / "setid.mat", {key: np.array(value, dtype=np.uint16) for key, value in splits.items()})
    return folder


def write_pmnist(root: Path) -> Path:
    folder = root / "pneumoniamnist"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    content = {}
    for split, count in (("train", 6), ("val", 2), ("test", 3)):
        content[f"{split}_images"] = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        content[f"{split}_labels"] = (np.arange(count) % 2).astype(np.uint8)[:, None]
    np.savez_compressed(folder / "pneumoniamnist.npz", **content)
    return folder


def write_imagenet(root: Path) -> Path:
    folder = root / "imagenet"
    for index, wnid in enumerate(WNIDS):
        for number in range(index + 1):
            photo(folder / "train" / wnid / f"{wnid}_{number}.JPEG")
        photo(folder / "val" / wnid / f"ILSVRC2012_val_{index:08d}.JPEG")
    return folder


def write_domainnet(root: Path, domain: str = "clipart") -> Path:
    folder = root / "domainnet"
    lists: dict[str, list[str]] = {"train": [], "test": []}
    for label, name in enumerate(("aircraft_carrier", "airplane", "alarm_clock")):
        for number in range(1, 4):
            image = f"{domain}/{name}/{domain}_{label + 1:03d}_{number:06d}.jpg"
            photo(folder / image)
            lists["train" if number < 3 else "test"].append(f"{image} {label}")
    for split, lines in lists.items():
        (folder / f"{domain}_{split}.txt").write_text("\n".join(lines) + "\n")
    return folder


def write_chaoyang(root: Path) -> Path:
    folder = root / "chaoyang"
    for split, labels in (("train", [0, 3, 1, 2, 0]), ("test", [2, 0])):
        entries = []
        for number, label in enumerate(labels):
            name = f"{split}/53594{number}-IMG009x026-{label}.JPG"
            photo(folder / name)
            entries.append({"name": name, "label": label, "label_A": label, "label_B": label, "label_C": label})
        (folder / f"{split}.json").write_text(json.dumps(entries))
    return folder


WRITERS: dict[str, Callable[[Path], Path]] = {
    "cifar10": write_cifar10,
    "cifar100": write_cifar100,
    "svhn": write_svhn,
    "flowers": write_flowers,
    "pmnist": write_pmnist,
    "imagenet": write_imagenet,
    "clipart": write_domainnet,
    "infograph": lambda root: write_domainnet(root, "infograph"),
    "sketch": lambda root: write_domainnet(root, "sketch"),
    "chaoyang": write_chaoyang,
}
