"""Which images of a labelled set are used: stratified, seeded, nested. From (N,) labels to sorted indices.

The orders come from NumPy's RandomState, whose stream is frozen for good: a subset never changes with a release.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ssat.core.errors import UserError

Labels = NDArray[np.integer]
Indices = NDArray[np.int64]

# Separate random streams, so that a validation split is independent of the subset it is taken from.
SUBSET, SPLIT, TEST_STREAM = 0, 1, 2
LABELS = 2**31  # apart from the sampler's streams, which are the epochs: the order would tell who is labelled


def spread(labels: Labels, n: int) -> Indices:
    """Up to n indices, spread evenly over the classes."""
    order = np.argsort(labels, kind="stable")
    return order[np.linspace(0, len(order) - 1, min(n, len(order))).round().astype(int)]


def _shuffled(labels: Labels, seed: int, stream: int) -> tuple[Indices, Indices]:
    """A random order of the indices, and for each place of it how many of its class came before."""
    order = np.random.RandomState([seed, stream]).permutation(len(labels)).astype(np.int64)
    seen = np.empty(len(labels), dtype=np.int64)
    shuffled = labels[order]
    for label in np.unique(labels):
        places = np.flatnonzero(shuffled == label)
        seen[places] = np.arange(len(places))
    return order, seen


def _stratified_order(labels: Labels, seed: int, stream: int) -> Indices:
    """A random order of which every beginning is stratified, and begins with one image of each class.

    The k-th image of a class with n stands at (k + 1/2) / n (Webster's apportionment). Largest remainders would come
    closer to the exact shares of uneven classes by one image, but a larger share can then give a class fewer images, so
    that subsets would not be nested.
    """
    order, seen = _shuffled(labels, seed, stream)
    _, inverse, counts = np.unique(labels[order], return_inverse=True, return_counts=True)
    place = np.where(seen == 0, 0.0, (seen + 0.5) / counts[inverse])
    return order[np.argsort(place, kind="stable")]


def stratified_fraction(
    labels: Labels, fraction: float, seed: int, *, key: str = "fraction", stream: int = SUBSET
) -> Indices:
    """round(fraction * N) indices with every class in its share; a smaller fraction is a subset of a larger one.

    Raises:
        UserError: fraction outside (0, 1], or too few images to have one of each class.
    """
    if not 0 < fraction <= 1:
        raise UserError(f"data.{key}={fraction} is outside (0, 1]: set the share of the training images to use")
    total, classes = round(fraction * len(labels)), len(np.unique(labels))
    if total < classes:
        raise UserError(
            f"data.{key}={fraction} of {len(labels)} images is {total}, fewer than one for each of the {classes}"
            f" classes: use at least {classes / len(labels):.2g}"
        )
    return np.sort(_stratified_order(labels, seed, stream)[:total])


def balanced(labels: Labels, classes: int, seed: int, epoch: int) -> Indices:
    """As many places of each of `classes` classes as the smallest has, drawn anew in each epoch.

    Places with a label below 0 belong to none of them.
    """
    random = np.random.RandomState([seed, epoch, 1])
    least = balanced_size(labels, classes) // classes
    return np.concatenate([random.permutation(np.flatnonzero(labels == label))[:least] for label in range(classes)])


def balanced_size(labels: Labels, classes: int) -> int:
    """How many places `balanced` gives."""
    return classes * int(np.bincount(labels[labels >= 0], minlength=classes).min())


def official_subset(total: int, fraction: float) -> Indices:
    """The authors' choice for Figure 5: int(total * fraction) indices of `total`, neither stratified nor seeded anew.

    A smaller fraction is a subset of a larger one.

    Raises:
        UserError: fraction outside (0, 1], or so small that nothing is left.
    """
    count = int(total * fraction)
    if not 0 < fraction <= 1 or count < 1:
        raise UserError(f"data.fraction={fraction} of {total} images is not possible: choose one in (0, 1]")
    return np.sort(np.random.RandomState(127).choice(total, count, replace=False).astype(np.int64))


def samples_per_class(labels: Labels, k: int, seed: int) -> Indices:
    """k indices of every class; a smaller k is a subset of a larger one.

    Raises:
        UserError: k below 1, or a class with fewer than k images.
    """
    if k < 1:
        raise UserError(f"data.samples_per_class={k} must be at least 1")
    names, counts = np.unique(labels, return_counts=True)
    if counts.min() < k:
        raise UserError(
            f"data.samples_per_class={k} is more than the {counts.min()} training images of class number"
            f" {names[counts.argmin()]}: use at most {counts.min()}"
        )
    order, seen = _shuffled(labels, seed, SUBSET)
    return np.sort(order[seen < k])


def stratified_part(labels: Labels, size: int) -> Indices:
    """`size` indices of a test, with every class in its share, the same for every seed; all where there are fewer.

    Raises:
        UserError: too few to have one of each class.
    """
    classes = len(np.unique(labels))
    if size < min(classes, len(labels)):
        raise UserError(
            f"data.max_test={size} is less than one test image for each of the {classes} classes: use at least"
            f" {classes}",
            key="data.max_test",
            value=size,
        )
    return np.sort(_stratified_order(labels, 0, TEST_STREAM)[:size])


def fold_numbers(labels: Labels, folds: int, seed: int) -> Indices:
    """(N,) the part of each index: as large as each other, and so are those of every class, up to one image."""
    order, seen = _shuffled(labels, seed, TEST_STREAM)
    in_turn = np.lexsort((seen, labels[order]))  # class after class
    numbers = np.empty(len(labels), dtype=np.int64)
    numbers[order[in_turn]] = np.arange(len(labels)) % folds
    return numbers


def train_val_split(
    labels: Labels, fraction: float, seed: int, *, key: str = "val_fraction", stream: int = SPLIT
) -> tuple[Indices, Indices]:
    """The indices to train on and those to keep apart, both with every class; round(fraction * N) are kept apart.

    Raises:
        UserError: fraction outside (0, 1), or a class that does not reach into both parts.
    """
    if not 0 < fraction < 1:
        raise UserError(f"data.{key}={fraction} is outside (0, 1): set the share of the images to keep apart")
    total = round(fraction * len(labels))
    order = _stratified_order(labels, seed, stream)
    val, train = np.sort(order[:total]), np.sort(order[total:])
    classes = np.unique(labels)
    for part in (train, val):
        lacking = np.setdiff1d(classes, labels[part])
        if len(lacking):
            raise UserError(
                f"data.{key}={fraction} of {len(labels)} images leaves class number {lacking[0]}"
                f" ({int((labels == lacking[0]).sum())} images) without"
                f" {'training' if part is train else 'test' if stream == TEST_STREAM else 'validation'}"
                " images: choose another fraction, or add images of that class"
            )
    return train, val
