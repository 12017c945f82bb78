"""What is asked about the splits of a data module: sizes, classes, content."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ssat.core.batch import NO_LABEL
from ssat.data.overview import Overview, counts_by_class, fingerprint, overview
from ssat.data.range_use import mixed, use_of
from ssat.data.sets.sources import ImageList, Source
from ssat.data.subsets import Indices, spread
from ssat.data.survey import merged


class SplitImages:
    """The images of every split, as `ImageDataModule.setup` has chosen them."""

    source: Source
    value_range: tuple[float, float] | None
    _stored: Source  # as it was given: its values are those of the files
    _range_remarks: list[str] | None = None
    class_names: list[str]
    num_classes: int
    _splits: dict[str, tuple[ImageList, Indices]]
    _chosen: dict[str, tuple[ImageList, Indices]]
    _fingerprint: dict[str, Any]
    decides: str = "acc1"  # the metric that the best epoch has the highest value of

    @property
    def sizes(self) -> dict[str, int]:
        """Images of each split that exists."""
        return {name: len(indices) for name, (_, indices) in self._splits.items()}

    def samples(self, split: str) -> int:
        """Images that a pass over a split shows."""
        return self.sizes[split]

    def fingerprint(self) -> dict[str, Any]:
        """What `overview.fingerprint` says of the splits; reads all files, once.

        Raises:
            UserError: a file cannot be read.
        """
        if not self._fingerprint:
            self._fingerprint = fingerprint(self.source.name, self._chosen)
        return self._fingerprint

    def overview(self) -> Overview:
        """Counts of each split, what a look at the folders finds, the reader's remarks, and misfits of the range."""
        return replace(
            overview(self.source, self._chosen, self.split("train")),
            values=[*self.source.remarks, *self.range_remarks()],
        )

    def range_remarks(self) -> list[str]:
        """Sentences on values that do not fit their range; looks at images, once."""
        if self._range_remarks is None:
            if self.value_range is not None:
                self._range_remarks = use_of(self._stored.lists, self.value_range)
            else:
                found = merged(one for images in self.source.lists for one in images.extremes())
                self._range_remarks = mixed(found)
        return self._range_remarks

    def split(self, name: str) -> tuple[ImageList, Indices]:
        """The images that a split is taken from, and the indices of those that are in it."""
        return self._splits[name]

    @property
    def multi_label(self) -> bool:
        """Whether an image may have several of the classes, or none."""
        return self.source.multi_label

    def labelled_images(self, split: str) -> int:
        """Images of a split whose labels are used."""
        images, indices = self._splits[split]
        return int((images.labels[indices] != NO_LABEL).sum())

    def class_counts(self, split: str) -> dict[str, int]:
        """Labelled images of each class, or with each label, in a split."""
        return counts_by_class(*self._splits[split], self.class_names)

    def spread(self, split: str, n: int) -> list[int]:
        """Up to n indices of `split`, spread evenly over its classes."""
        images, indices = self._splits[split]
        return indices[spread(images.labels[indices], n)].tolist()
