"""What is asked about the splits of a data module: sizes, classes, content."""

from __future__ import annotations

from typing import Any

import numpy as np

from ssat.core.batch import NO_LABEL
from ssat.data.choose import Indices
from ssat.data.sets.sources import ImageList, Source


class SplitImages:
    """The images of every split, as `ImageDataModule.setup` has chosen them."""

    source: Source
    class_names: list[str]
    num_classes: int
    _splits: dict[str, tuple[ImageList, Indices]]
    _chosen: dict[str, tuple[ImageList, Indices]]
    _fingerprint: dict[str, Any]

    @property
    def ignored(self) -> dict[str, dict[str, int]]:
        """Files in the folders of the images that are none, see `ImageList`."""
        return {place: dict(n) for images in self.source.lists for place, n in images.ignored.items()}

    @property
    def eval_split(self) -> str:
        """The split that `val_dataloader` serves: `val` where there is one, else `test`."""
        return "val" if "val" in self._splits else "test"

    @property
    def sizes(self) -> dict[str, int]:
        """Images of each split that exists."""
        return {name: len(indices) for name, (_, indices) in self._splits.items()}

    def fingerprint(self) -> dict[str, Any]:
        """Name, images per split, and two SHA-256 of each split's images (see `ImageList`); reads all files, once.

        `sha256` is also in the records of the time before `content`.

        Raises:
            UserError: a file cannot be read.
        """
        if not self._fingerprint:
            chosen = self._chosen.items()
            self._fingerprint = {
                "name": self.source.name,
                "splits": {name: len(indices) for name, (_, indices) in chosen},
                "sha256": {name: images.digest(indices) for name, (images, indices) in chosen},
                "content": {name: images.content(indices) for name, (images, indices) in chosen},
            }
        return self._fingerprint

    def split(self, name: str) -> tuple[ImageList, Indices]:
        """The images that a split is taken from, and the indices of those that are in it."""
        return self._splits[name]

    def class_counts(self, split: str) -> dict[str, int]:
        """Labelled images of each class in a split."""
        images, indices = self._splits[split]
        labels = images.labels[indices]
        counts = np.bincount(labels[labels != NO_LABEL], minlength=self.num_classes)
        return dict(zip(self.class_names, counts.tolist(), strict=True))

    def spread(self, split: str, n: int) -> list[int]:
        """Up to n indices of `split`, spread evenly over its classes."""
        images, indices = self._splits[split]
        by_class = indices[np.argsort(images.labels[indices], kind="stable")]
        places = np.linspace(0, len(by_class) - 1, min(n, len(by_class))).round().astype(int)
        return by_class[places].tolist()
