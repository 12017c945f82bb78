"""Which images of a set a run trains on, selects with and is tested on, and which labels it may use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ssat.core.batch import NO_LABEL
from ssat.core.errors import UserError
from ssat.data.decode import LEAVE_OUT
from ssat.data.group_subsets import Stratified
from ssat.data.sets.sources import ImageList, Source
from ssat.data.subsets import (
    LABELS,
    TEST_STREAM,
    Indices,
    fold_numbers,
    official_subset,
    stratified_fraction,
    stratified_part,
    train_val_split,
)
from ssat.data.subsets import samples_per_class as choose_per_class

STRICT_FRACTION = 0.1  # of the training images select under data.protocol=strict
Splits = dict[str, tuple[ImageList, Indices]]


def refuse_unevaluated(splits: Splits, name: str) -> None:
    """Raises: UserError: the set `name` has no images to evaluate on."""
    if not splits.keys() & {"val", "test"}:
        raise UserError(
            f"{name} has no evaluation images: add a test/ or val/ folder (data=csv: a column split),"
            " or keep a part of the training images apart with data.test_fraction=0.2 or data.val_fraction=0.2"
        )


@dataclass(frozen=True)
class Choice:
    """How the images of every split are chosen; the attributes are those of `ImageDataModule`.

    Of images with groups (`groups.grouped`) whole groups are chosen. Of images with several labels each the choice is
    random and not stratified: `ImageList.labels` are all of one class.
    """

    fraction: float = 1.0
    samples_per_class: int | None = None
    val_fraction: float = 0.0
    label_fraction: float = 1.0
    unlabelled: str = "drop"
    subset: str = "stratified"
    seed: int = 0
    on_bad_image: str = "error"
    test_fraction: float = 0.0
    max_test: int | None = None
    use_test: bool = True
    folds: int | None = None
    fold: int | None = None

    def splits(self, source: Source) -> tuple[Splits, list[str]]:
        """The images of each split with the indices that are in it, and the files that are left out as unreadable.

        Raises:
            UserError: `val_fraction` for a set with its own validation images, `test_fraction` or `folds` for one with
                its own test images, or a class that cannot be read.
        """
        skipped: list[str] = []
        train = self._readable(source, source.train, "training", skipped)
        splits: Splits = {}
        if self.test_fraction or self.folds is not None:
            train, test = self._test(source, train)
            splits["test"] = (source.train, test)
        train = self._part(source, train)
        if self.val_fraction and source.val is not None:
            raise UserError(
                f"data.val_fraction={self.val_fraction}, but {source.name} has its own validation images: set it to 0",
                key="data.val_fraction",
                value=self.val_fraction,
            )
        if self.val_fraction:
            train, val = self._split(source, train)
            splits["val"] = (source.train, val)
        splits["train"] = (source.train, train)
        for name, images in (("val", source.val), ("test", source.test)):
            if images is not None:
                splits[name] = (images, self._readable(source, images, name, skipped))
        if self.max_test is not None:
            splits["test"] = self._fewer(source, splits)
        if not self.use_test and splits.pop("test", None) is not None and "val" not in splits:
            raise UserError(
                "data.use_test=false leaves no images to evaluate on: keep a part of the training images apart with"
                " data.val_fraction=0.2",
                key="data.use_test",
                value=False,
            )
        return splits, skipped

    def labelled(self, images: ImageList, train: Indices, classes: Sequence[str]) -> tuple[ImageList, Indices]:
        """The training images `train` with the labels that may be used: the others are left out, or get NO_LABEL."""
        if self.label_fraction == 1:
            return images, train
        budget: dict[str, Any] = {"key": "label_fraction", "stream": LABELS}
        if images.groups is not None:
            chosen = Stratified(images, train, classes).fraction(self.label_fraction, self.seed, **budget)
        else:
            chosen = train[stratified_fraction(images.labels[train], self.label_fraction, self.seed, **budget)]
        if self.unlabelled == "drop":
            return images, chosen
        labels = np.full_like(images.labels, NO_LABEL)
        labels[chosen] = images.labels[chosen]
        hot = None
        if images.hot is not None:
            hot = np.full_like(images.hot, NO_LABEL)
            hot[chosen] = images.hot[chosen]
        return replace(images, labels=labels, hot=hot), train

    def _split(self, source: Source, train: Indices) -> tuple[Indices, Indices]:
        """The training and the validation images of `train`."""
        if source.train.groups is not None:
            return grouped_images(source, train).split(self.val_fraction, self.seed)
        kept, val = train_val_split(source.train.labels[train], self.val_fraction, self.seed)
        return train[kept], train[val]

    def _test(self, source: Source, train: Indices) -> tuple[Indices, Indices]:
        """The images to train on and those to test on, of a set that has none for this."""
        key = f"data.test_fraction={self.test_fraction:g}" if self.folds is None else f"data.folds={self.folds}"
        if source.test is not None:
            raise UserError(
                f"{key} takes the test from the training images, but {source.name} has its own"
                f" {len(source.test):,} test images: leave it out, or put all images in one list without a test",
                key=key.partition("=")[0],
                value=self.folds or self.test_fraction,
            )
        options: dict[str, Any] = {"key": "test_fraction", "stream": TEST_STREAM}
        grouped = source.train.groups is not None
        if self.folds is not None:
            return self._folded(source, train)
        if grouped:
            return grouped_images(source, train).split(self.test_fraction, self.seed, **options)
        kept, test = train_val_split(source.train.labels[train], self.test_fraction, self.seed, **options)
        return train[kept], train[test]

    def _folded(self, source: Source, train: Indices) -> tuple[Indices, Indices]:
        """The images of the other folds, and those of the fold."""
        assert self.folds is not None
        if source.train.groups is not None:
            folds = grouped_images(source, train).folds(self.folds, self.seed)
            test = folds[self.fold or 0]
            return np.setdiff1d(train, test), test
        labels = source.train.labels[train]
        counts = np.bincount(labels, minlength=len(source.classes))
        if source.multi_label:
            if len(train) < self.folds:
                raise UserError(
                    f"data.folds={self.folds} needs as many images, and {source.name} has {len(train)}: use fewer",
                    key="data.folds",
                    value=self.folds,
                )
        elif counts.min() < self.folds:
            raise UserError(
                f"data.folds={self.folds} needs as many images of every class, and {source.classes[counts.argmin()]!r}"
                f" has {counts.min()}: use fewer folds, or leave the class out with data.classes",
                key="data.folds",
                value=self.folds,
            )
        numbers = fold_numbers(labels, self.folds, self.seed)
        return train[numbers != self.fold], train[numbers == self.fold]

    def _fewer(self, source: Source, splits: Splits) -> tuple[ImageList, Indices]:
        """`max_test` of the test images."""
        if "test" not in splits:
            raise UserError(
                f"data.max_test={self.max_test} takes a part of the test images, and {source.name} has none: leave it"
                " out, or keep some with data.test_fraction=0.2",
                key="data.max_test",
                value=self.max_test,
            )
        images, test = splits["test"]
        return images, test[stratified_part(images.labels[test], self.max_test or 0)]

    def _part(self, source: Source, train: Indices) -> Indices:
        """The part of the training images that is used."""
        labels = source.train.labels
        if source.train.groups is not None and (self.samples_per_class is not None or self.fraction < 1):
            return self._part_of_groups(grouped_images(source, train))
        if self.samples_per_class is not None:
            return train[choose_per_class(labels[train], self.samples_per_class, self.seed)]
        if self.fraction == 1:
            return train
        if self.subset == "official":
            return np.intersect1d(train, official_subset(len(labels), self.fraction))
        return train[stratified_fraction(labels[train], self.fraction, self.seed)]

    def _part_of_groups(self, images: Stratified) -> Indices:
        if self.samples_per_class is not None:
            return images.samples_per_class(self.samples_per_class, self.seed)
        if self.subset == "official":
            raise UserError(
                "data.subset=official chooses single images, and data.group whole groups: leave out one of the two"
            )
        return images.fraction(self.fraction, self.seed)

    def _readable(self, source: Source, images: ImageList, split: str, skipped: list[str]) -> Indices:
        if self.on_bad_image == "error":
            return np.arange(len(images))
        good, bad = images.readable()
        skipped += bad
        lacking = np.setdiff1d(images.labels, images.labels[good])
        if len(lacking):
            none = f"none of the {split} images of class {source.classes[lacking[0]]!r} can be read"
            try:
                images.read(int(np.flatnonzero(images.labels == lacking[0])[0]))
            except UserError as error:
                reason = str(error).removesuffix(LEAVE_OUT)
                raise UserError(f"{none} (the first: {reason}), or leave out the class with data.classes") from None
        return good


def grouped_images(source: Source, indices: Indices) -> Stratified:
    """The training images `indices` of a source with groups; a table has the groups in a column of its own."""
    of_table = source.name == "csv" or source.multi_label
    key = "data.columns.group" if of_table else "data.group"
    return Stratified(source.train, indices, source.classes, key=key)
