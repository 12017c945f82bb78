"""The test that a set without one gives away: a share, a fold, a part; and epochs with as many images of each class."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from sklearn.model_selection import StratifiedGroupKFold

from ssat.core.errors import UserError
from ssat.data.choose import Choice, Splits
from ssat.data.group_subsets import Stratified
from ssat.data.image import ImageDataModule
from ssat.data.sets.sources import Groups, ImageList, Source, digits
from ssat.data.subsets import balanced, fold_numbers

LABELS = np.repeat([0, 1, 2], [60, 30, 11])


def source(labels: np.ndarray = LABELS, groups: np.ndarray | None = None, *, test: int = 0) -> Source:
    def images(of: np.ndarray, numbers: np.ndarray | None) -> ImageList:
        pixels = np.zeros((len(of), 2, 2, 3), np.uint8)
        names = None if numbers is None else Groups(numbers, [f"g{n}" for n in range(numbers.max() + 1)])
        return ImageList(pixels, of.astype(np.int64), groups=names)

    tested = images(labels[np.linspace(0, len(labels) - 1, test).astype(int)], None) if test else None
    return Source("toy", ["a", "b", "c"], images(labels, groups), tested)


def splits(of: Source, **options: Any) -> Splits:
    return Choice(**options).splits(of)[0]


def counts(part: tuple[ImageList, np.ndarray]) -> list[int]:
    return np.bincount(part[0].labels[part[1]], minlength=3).tolist()


def test_a_share_is_the_test_before_anything_else_is_chosen() -> None:
    found = splits(source(), test_fraction=0.2, val_fraction=0.25, fraction=0.5, seed=3)
    assert counts(found["test"]) == [12, 6, 2]
    alone = splits(source(), test_fraction=0.2, seed=3)
    assert np.array_equal(alone["test"][1], found["test"][1])  # whatever is trained on
    together = np.concatenate([alone["train"][1], alone["test"][1]])
    assert sorted(together.tolist()) == list(range(len(LABELS)))
    assert not np.array_equal(alone["test"][1], splits(source(), test_fraction=0.2, seed=4)["test"][1])


def test_a_share_of_groups_keeps_every_group_on_one_side() -> None:
    groups = np.arange(len(LABELS)) % 25
    found = splits(source(groups=groups), test_fraction=0.3, val_fraction=0.2)
    sides = [{*groups[indices].tolist()} for _, indices in found.values()]
    assert len(sides) == 3 and sum(map(len, sides)) == 25 == len(set.union(*sides))
    assert all(min(counts(part)) > 0 for part in found.values())


@pytest.mark.parametrize("seed", [0, 1])
def test_every_image_is_in_one_fold_and_folds_differ_by_one_image_of_a_class(seed: int) -> None:
    parts = [splits(source(), folds=5, fold=fold, seed=seed) for fold in range(5)]
    assert sorted(np.concatenate([part["test"][1] for part in parts]).tolist()) == list(range(len(LABELS)))
    for part in parts:
        assert not {*part["train"][1].tolist()} & {*part["test"][1].tolist()}
        assert len(part["train"][1]) + len(part["test"][1]) == len(LABELS)
    of_class = np.array([counts(part["test"]) for part in parts])
    assert np.ptp(of_class, axis=0).max() <= 1 and np.ptp(of_class.sum(1)) <= 1


def test_folds_are_drawn_by_seed_and_are_the_same_for_the_same_one() -> None:
    first, again, other = (fold_numbers(LABELS, 5, seed) for seed in (0, 0, 1))
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    # Frozen: a release may not move an image to another fold.
    assert fold_numbers(np.array([0, 0, 0, 0, 1, 1, 1]), 3, 0).tolist() == [0, 1, 0, 2, 2, 0, 1]


def test_folds_of_groups_are_as_even_as_scikit_learns() -> None:
    random = np.random.default_rng(0)
    ours, theirs = [], []
    for seed in range(10):
        groups = np.sort(random.integers(0, 40, 400))
        labels = np.where(random.random(400) < 0.8, random.integers(0, 3, 40)[groups], random.integers(0, 3, 400))
        of = source(labels, groups)
        folds = Stratified(of.train, np.arange(400), of.classes).folds(5, seed)
        assert sorted(np.concatenate(folds).tolist()) == list(range(400))
        assert sum(len({*groups[fold].tolist()}) for fold in folds) == len({*groups.tolist()})
        splitter = StratifiedGroupKFold(5, shuffle=True, random_state=seed)
        reference = [test for _, test in splitter.split(labels, labels, groups)]
        for found, kept in ((folds, ours), (reference, theirs)):
            shares = np.array([np.bincount(labels[fold], minlength=3) for fold in found]) / np.bincount(labels)
            kept.append(np.abs(shares - 0.2).max())
    assert np.mean(ours) <= 1.1 * np.mean(theirs)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"folds": 12, "fold": 0}, "data.folds=12 needs as many images of every class, and 'c' has 11"),
        (
            {"test_fraction": 0.01},
            "data.test_fraction=0.01 of 101 images leaves class number 1 (30 images) without test",
        ),
        (
            {"test_fraction": 0.2, "use_test": False},
            "data.use_test=false leaves no images to evaluate on: keep a part of the training images apart",
        ),
        ({"max_test": 5}, "data.max_test=5 takes a part of the test images, and toy has none"),
    ],
)
def test_what_a_set_cannot_give_is_one_sentence(options: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=re.escape(says)):
        splits(source(), **options)


@pytest.mark.parametrize("options", [{"folds": 5, "fold": 0}, {"test_fraction": 0.2}])
def test_a_set_with_its_own_test_gives_none_of_its_training_images(options: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="toy has its own 20 test images: leave it out"):
        splits(source(test=20), **options)


def test_folds_of_too_few_groups_are_refused() -> None:
    with pytest.raises(UserError, match=re.escape("data.folds=4 needs as many groups (data.group) of every class")):
        splits(source(groups=np.arange(len(LABELS)) // 30), folds=4, fold=0)


def test_a_part_of_the_test_is_stratified_nested_and_the_same_for_every_seed() -> None:
    tests = [ImageDataModule(digits(), img_size=8, max_test=n, seed=seed) for n, seed in ((50, 0), (50, 1), (20, 0))]
    for data in tests:
        data.setup("validate")
    large, same, small = (data.split("test")[1] for data in tests)
    assert np.array_equal(large, same) and {*small.tolist()} < {*large.tolist()}
    assert [set(data.class_counts("test").values()) for data in tests] == [{5}, {5}, {2}]
    assert tests[0].sizes == {"train": 1437, "test": 50}
    whole = ImageDataModule(digits(), img_size=8, max_test=10_000)
    whole.setup("validate")
    assert whole.sizes["test"] == 360
    with pytest.raises(UserError, match=r"data.max_test=9 is less than one test image for each of the 10 classes"):
        ImageDataModule(digits(), img_size=8, max_test=9).setup()


def test_balanced_epochs_show_every_class_alike_and_all_images_in_the_end() -> None:
    of = source(test=9)
    data = ImageDataModule(of, img_size=4, batch_size=11, balance=True, augment=None, drop_last=False)
    data.setup()
    assert data.samples("train") == 33 == data.images_per_epoch() and data.sizes["train"] == 101
    loader = data.train_dataloader()
    seen: list[list[int]] = []
    for epoch in range(12):
        loader.sampler.set_epoch(epoch)
        batches = list(loader)
        seen.append([index for batch in batches for index in batch.indices.tolist()])
        assert np.bincount(of.train.labels[seen[-1]]).tolist() == [11, 11, 11]
        assert len({*seen[-1]}) == 33
    assert seen[0] != seen[1] and len({index for epoch in seen for index in epoch}) > 85
    assert sorted(seen[3]) == sorted(balanced(LABELS, 3, 0, 3).tolist())


def test_a_class_without_training_images_cannot_be_balanced() -> None:
    of = source(np.repeat([0, 2], [20, 20]), test=4)
    with pytest.raises(UserError, match="toy has no training image of class 'b'"):
        ImageDataModule(of, img_size=4, batch_size=4, balance=True).setup()


def test_test_images_that_are_left_alone_change_no_other_split() -> None:
    for options in ({}, {"test_fraction": 0.2}):
        whole, without = (
            ImageDataModule(
                source() if options else digits(), img_size=8, val_fraction=0.2, batch_size=8, use_test=use, **options
            )
            for use in (True, False)
        )
        whole.setup("validate")
        without.setup("validate")
        assert {*whole.sizes} == {"train", "val", "test"} and {*without.sizes} == {"train", "val"}
        assert all(np.array_equal(whole.split(name)[1], without.split(name)[1]) for name in ("train", "val"))
        assert without.test_split == "val" and "test" not in without.fingerprint()["splits"]
