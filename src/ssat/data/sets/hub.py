"""Any image classification data set of the Hugging Face hub, or a local one in its formats."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssat.core.errors import UserError
from ssat.data.sets.checks import first_line, listed
from ssat.data.sets.sources import ImageList, Source

VALIDATION = ("validation", "val", "valid", "dev")


class EncodedImages(Sequence[bytes]):
    """The image column of a `datasets.Dataset` as encoded files, read when asked for."""

    def __init__(self, dataset: Any, column: str) -> None:
        self._dataset, self._column = dataset, column

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: Any) -> Any:
        item = self._dataset[int(index)][self._column]
        return item["bytes"] if item["bytes"] is not None else Path(item["path"]).read_bytes()


def hf(
    path: str,
    *,
    config: str | None = None,
    image: str | None = None,
    label: str | None = None,
    root: str | Path | None = None,
) -> Source:
    """A data set by its hub name (`cifar100`, `owner/name`) or a local folder that `datasets` can load.

    `train` trains; `test` evaluates, or the validation split where there is no test; with both, the validation split is
    `val`.

    Args:
        path: the name or the folder.
        config: which of its configurations, where it has several.
        image, label: the columns; None = the only image column, the only class column (or `label`).
        root: where downloads are kept; None = the library's own cache.

    Raises:
        UserError: the library is not installed, the set cannot be loaded, or it is not labelled images.
    """
    try:
        import datasets
    except ImportError:
        raise UserError("data=hf needs the package `datasets`, which is not installed: pip install datasets") from None
    cache = None if root is None else str(Path(root).expanduser() / "hf")
    try:
        if (Path(path) / "dataset_dict.json").is_file():
            loaded = datasets.load_from_disk(path)
        else:
            loaded = datasets.load_dataset(path, config, cache_dir=cache)
    # The hub, its cache and its scripts fail in many ways (ConnectionError, ValueError, FileNotFoundError ...).
    except Exception as error:
        raise UserError(
            f"data.path={path!r} cannot be loaded ({first_line(error)}): check the name and data.config"
        ) from None
    if "train" not in loaded:
        raise UserError(f"data.path={path!r} has no split 'train', only {listed(list(loaded))}: choose another set")
    features = loaded["train"].features
    image = image or _only(features, datasets.Image, path, "image")
    label = label or ("label" if "label" in features else _only(features, datasets.ClassLabel, path, "label"))
    for key, column in (("image", image), ("label", label)):
        if column not in features:
            raise UserError(f"data.{key}={column!r} is no column of {path!r}, which has {listed(list(features))}")
    classes = _classes(loaded["train"], label)
    splits = {
        name: _images(datasets, part, image, label, classes, f"{name} of {path}") for name, part in loaded.items()
    }
    val = next((splits[name] for name in VALIDATION if name in splits), None)
    test = splits.get("test")
    return Source(path.rstrip("/").rpartition("/")[2], classes, splits["train"], test or val, val if test else None)


def _only(features: Any, kind: type, path: str, key: str) -> str:
    found = [name for name, feature in features.items() if isinstance(feature, kind)]
    if len(found) != 1:
        raise UserError(
            f"data.path={path!r} has {len(found)} {key} columns among {listed(list(features))}:"
            f" name one with data.{key}=<column>"
        )
    return found[0]


def _classes(train: Any, label: str) -> list[str]:
    names = getattr(train.features[label], "names", None)
    if names:
        return list(names)
    values = {value for value in train[label] if isinstance(value, (str, int))}
    return [str(value) for value in sorted(values, key=lambda value: (isinstance(value, str), value))]


def _images(datasets: Any, part: Any, image: str, label: str, classes: list[str], where: str) -> ImageList:
    values = part[label]
    if not hasattr(part.features[label], "names"):
        numbers = {name: number for number, name in enumerate(classes)}
        values = [numbers.get(str(value), -1) for value in values]
    labels: NDArray[np.int64] = np.asarray(values, dtype=np.int64)
    wrong = np.flatnonzero((labels < 0) | (labels >= len(classes)))
    if len(wrong):
        raise UserError(
            f"image {wrong[0]} of the split {where} has no label among the {len(classes)} classes:"
            " the split is not labelled, choose another set"
        )
    if len(classes) < 2:
        raise UserError(f"{where} has one class only ({classes}), and a classifier needs two: choose another set")
    encoded = part.select_columns([image]).cast_column(image, datasets.Image(decode=False))
    return ImageList(EncodedImages(encoded, image), labels)
