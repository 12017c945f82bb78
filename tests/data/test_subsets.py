from __future__ import annotations

import hashlib

import numpy as np
import pytest

from ssat.core.errors import UserError
from ssat.data.subsets import official_subset, samples_per_class, stratified_fraction, train_val_split

FRACTIONS = (0.03, 0.1, 0.11, 0.25, 0.5, 0.77, 0.99, 1.0)


def labels_of(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    counts = rng.integers(5, 90, size=rng.integers(2, 9))
    return rng.permutation(np.repeat(np.arange(len(counts)), counts))


@pytest.mark.parametrize("seed", range(20))
def test_a_smaller_fraction_is_a_subset_of_a_larger_one(seed: int) -> None:
    labels = labels_of(seed)
    chosen = [set(stratified_fraction(labels, fraction, seed).tolist()) for fraction in FRACTIONS[1:]]
    assert all(small <= large for small, large in zip(chosen, chosen[1:], strict=False))


@pytest.mark.parametrize("fraction", FRACTIONS)
def test_a_fraction_has_its_exact_size_sorted_without_repeats(fraction: float) -> None:
    labels = np.repeat(np.arange(3), [50, 70, 31])
    indices = stratified_fraction(labels, fraction, 0)
    assert len(indices) == round(fraction * 151) and np.all(np.diff(indices) > 0)


@pytest.mark.parametrize("seed", range(20))
def test_every_class_has_its_share_within_one_image(seed: int) -> None:
    labels = labels_of(seed)
    chosen = np.bincount(labels[stratified_fraction(labels, 0.25, seed)])
    assert np.all(np.abs(chosen - 0.25 * np.bincount(labels)) <= 1)


def test_balanced_classes_stay_balanced() -> None:
    labels = np.repeat(np.arange(10), 500)
    assert np.bincount(labels[stratified_fraction(labels, 0.1, 5)]).tolist() == [50] * 10


def test_a_rare_class_keeps_one_image_in_a_small_fraction() -> None:
    labels = np.repeat([0, 1], [997, 3])
    assert 1 in labels[stratified_fraction(labels, 0.01, 0)]


def test_another_seed_chooses_other_images() -> None:
    labels = np.repeat(np.arange(10), 50)
    assert not np.array_equal(stratified_fraction(labels, 0.1, 0), stratified_fraction(labels, 0.1, 1))


def test_the_choice_of_a_seed_is_frozen() -> None:
    labels = np.repeat(np.arange(3), [50, 70, 31])
    assert stratified_fraction(labels, 0.05, 0).tolist() == [9, 27, 57, 73, 108, 115, 140, 148]


@pytest.mark.parametrize("fraction", [0, -0.1, 1.1])
def test_a_fraction_outside_zero_to_one_is_refused(fraction: float) -> None:
    with pytest.raises(UserError, match=r"outside \(0, 1\]"):
        stratified_fraction(np.array([0, 1]), fraction, 0)


def test_a_fraction_smaller_than_one_image_per_class_says_the_least_possible() -> None:
    with pytest.raises(UserError, match="data.fraction=0.05 of 100 images is 5, .* 10 classes: use at least 0.1"):
        stratified_fraction(np.repeat(np.arange(10), 10), 0.05, 0)


def test_samples_per_class_gives_exactly_k_of_each() -> None:
    labels = labels_of(1)
    assert set(np.bincount(labels[samples_per_class(labels, 4, 0)])) == {4}


def test_fewer_samples_per_class_are_a_subset_of_more() -> None:
    labels = labels_of(2)
    assert set(samples_per_class(labels, 2, 7)) < set(samples_per_class(labels, 5, 7))


def test_more_samples_than_a_class_has_names_the_class() -> None:
    with pytest.raises(UserError, match="more than the 3 training images of class number 1: use at most 3"):
        samples_per_class(np.repeat([0, 1], [9, 3]), 4, 0)


@pytest.mark.parametrize("fraction", [0.1, 0.2, 0.5])
def test_training_and_validation_images_partition_the_set(fraction: float) -> None:
    labels = labels_of(3)
    train, val = train_val_split(labels, fraction, 0)
    assert sorted([*train, *val]) == list(range(len(labels))) and len(val) == round(fraction * len(labels))


def test_the_validation_split_is_stratified() -> None:
    labels = np.repeat(np.arange(10), 50)
    _, val = train_val_split(labels, 0.1, 0)
    assert np.bincount(labels[val]).tolist() == [5] * 10


def test_a_class_of_one_image_cannot_be_split() -> None:
    with pytest.raises(UserError, match=r"leaves class number 1 \(1 images\) without training images"):
        train_val_split(np.repeat([0, 1], [20, 1]), 0.2, 0)


def test_the_official_subsets_are_the_authors() -> None:
    total, first = 1_281_167, [538347, 116697, 1039615, 1217844, 464059]
    sizes = {
        0.1: (128_116, "4535db34"),
        0.25: (320_291, "457d7c97"),
        0.5: (640_583, "4e41056a"),
        0.75: (960_875, "20bdc6f9"),
    }
    before: set[int] = set()
    for fraction, (size, digest) in sizes.items():
        chosen = official_subset(total, fraction)
        assert len(chosen) == size
        assert hashlib.md5(chosen.tobytes()).hexdigest()[:8] == digest
        assert {*first} <= {*chosen.tolist()}
        assert before <= {*chosen.tolist()}
        before = {*chosen.tolist()}
