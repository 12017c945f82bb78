"""Which groups of images are used: whole groups, stratified by class as well as they allow, seeded.

The greedy of `Stratified._chosen`: again and again, the class that is covered least gets the next of its groups in a
random order; a group that would take its classes further past their share than they are below it is passed over. Then
single groups are taken in or left out while that brings the classes closer to their shares. With groups of one image
this chooses the images that `subsets` chooses.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ssat.core.errors import UserError
from ssat.data.sets.sources import ImageList
from ssat.data.subsets import SPLIT, SUBSET, TEST_STREAM, Indices

Chosen = set[int]
PASSES = 20  # over all groups, to improve a choice
TOO_MUCH = 2.0  # times what was asked for: then whole groups cannot give it


class Stratified:
    """Some images of a list, by group and class.

    Args:
        images: with groups.
        indices: of those to choose from.
        classes: names by label.
        noun: what they are, for messages.
        key: that says which images belong together, for messages.
    """

    def __init__(
        self,
        images: ImageList,
        indices: Indices,
        classes: Sequence[str],
        *,
        noun: str = "images",
        key: str = "data.group",
    ) -> None:
        assert images.groups is not None
        self.noun, self.key = noun, key
        self.one_label = images.hot is None  # of several labels each, all images are drawn as one class
        self.indices = indices
        present, first, inverse = np.unique(images.groups.numbers[indices], return_index=True, return_inverse=True)
        rank = np.argsort(np.argsort(first))  # in the order of the images, as single images have it
        self.group = rank[inverse]
        self.group_names = [str(images.groups.names[number]) for number in present[np.argsort(first)].tolist()]
        labels, self.label = np.unique(images.labels[indices], return_inverse=True)
        self.class_names = [str(classes[label]) for label in labels.tolist()]
        self.class_sizes = np.bincount(self.label).tolist()
        pairs, counts = np.unique(self.group * len(labels) + self.label, return_counts=True)
        self.groups_of_class = np.bincount(pairs % len(labels)).tolist()
        self.content: list[list[tuple[int, int]]] = [[] for _ in self.group_names]  # (class, images) of each group
        for pair, count in zip(pairs.tolist(), counts.tolist(), strict=True):
            self.content[pair // len(labels)].append((pair % len(labels), count))

    def fraction(self, fraction: float, seed: int, *, key: str = "fraction", stream: int = SUBSET) -> Indices:
        """The indices of whole groups with about that share of the images, and with some of every class.

        Raises:
            UserError: even one group for each class has more than twice as many images.
        """
        return self._where(self._share(fraction, seed, key, stream, both=False))

    def samples_per_class(self, k: int, seed: int) -> Indices:
        """The indices of whole groups with about k images of every class.

        Raises:
            UserError: k below 1, a class with fewer than k images, or with groups of more than twice as many.
        """
        if k < 1:
            raise UserError(f"data.samples_per_class={k} must be at least 1")
        fewest = min(self.class_sizes)
        if fewest < k:
            name = self.class_names[self.class_sizes.index(fewest)]
            raise UserError(
                f"data.samples_per_class={k} is more than the {fewest} training images of class {name!r}:"
                f" use at most {fewest}"
            )
        found = self._chosen([float(k)] * len(self.class_sizes), None, seed, SUBSET, both=False)
        most = max(self._sizes(found))
        if most > TOO_MUCH * k:
            name = self.class_names[self._sizes(found).index(most)]
            raise UserError(
                f"data.samples_per_class={k}: whole groups ({self.key}) give class {name!r} {most} images, more than"
                f" twice as many: use about {most}",
                key="data.samples_per_class",
                value=k,
            )
        return self._where(found)

    def split(
        self, fraction: float, seed: int, *, key: str = "val_fraction", stream: int = SPLIT
    ) -> tuple[Indices, Indices]:
        """The indices for training and for validation, of whole groups, both with every class.

        Raises:
            UserError: a class has all its images in one group, or the groups are too few or too large.
        """
        if not 0 < fraction < 1:
            raise UserError(f"data.{key}={fraction} is outside (0, 1): set the share of the {self.noun} to keep apart")
        if 1 in self.groups_of_class:
            label = self.groups_of_class.index(1)
            only = next(name for name, held in zip(self.group_names, self.content, strict=True) if label in dict(held))
            of_class = f" of class {self.class_names[label]!r}" if self.one_label else ""
            raise UserError(
                f"{self.key}: all {self.class_sizes[label]} {self.noun}{of_class} are in one group, {only!r}, which"
                f" cannot be on both sides of data.{key}={fraction}: add {self.noun} of another group"
                + (", or leave the class out with data.classes" if self.one_label else ""),
                key=self.key,
            )
        val = self._share(fraction, seed, key, stream, both=True)
        return self._where(set(range(len(self.group_names))) - val), self._where(val)

    def folds(self, folds: int, seed: int) -> list[Indices]:
        """The indices of each of so many parts of whole groups, about equally large and all with every class.

        The groups go one by one, those of about one size in a random order and the largest first, to the part that has
        the least of their classes.

        Raises:
            UserError: a class has fewer groups than there are parts, or is not in every part.
        """
        fewest = min(self.groups_of_class)
        if fewest < folds:
            name = self.class_names[self.groups_of_class.index(fewest)]
            of_class, has = (" of every class", f"{name!r} has") if self.one_label else ("", "there are")
            raise UserError(
                f"data.folds={folds} needs as many groups ({self.key}){of_class}, and {has} {fewest}: use fewer folds"
                + (", or leave the class out with data.classes" if self.one_label else ""),
                key="data.folds",
                value=folds,
            )
        parts: list[Chosen] = [set() for _ in range(folds)]
        have = np.zeros((folds, len(self.class_sizes)))
        sizes = [sum(count for _, count in held) for held in self.content]
        order = np.random.RandomState([seed, TEST_STREAM]).permutation(len(self.content)).tolist()
        for group in sorted(order, key=lambda group: -sizes[group].bit_length()):
            labels, counts = np.array(self.content[group]).T
            share = (have[:, labels] * counts / np.square(self.class_sizes)[labels]).sum(1)
            part = int(np.lexsort((have.sum(1), share))[0])
            parts[part].add(group)
            have[part, labels] += counts
        if not have.all():
            name = self.class_names[int(np.argwhere(have == 0)[0][1])]
            raise UserError(
                f"data.folds={folds}: no choice of whole groups ({self.key}) was found that has class {name!r} in"
                " every part: use fewer folds, or add groups of that class",
                key="data.folds",
                value=folds,
            )
        return [self._where(part) for part in parts]

    def _share(self, fraction: float, seed: int, key: str, stream: int, *, both: bool) -> Chosen:
        images = len(self.indices)
        total = round(fraction * images)
        found = self._chosen([fraction * size for size in self.class_sizes], total, seed, stream, both=both)
        sizes = self._sizes(found)
        if not all(sizes):
            raise UserError(
                f"data.{key}={fraction}: no choice of whole groups ({self.key}) was found that has every class on"
                f" both sides, class {self.class_names[sizes.index(0)]!r} is on one only: add groups of that class",
                key=f"data.{key}",
                value=fraction,
            )
        if sum(sizes) > TOO_MUCH * total:
            of_class = " with every class" if self.one_label else ""
            raise UserError(
                f"data.{key}={fraction} of {images} {self.noun} is {total}, and whole groups ({self.key}){of_class}"
                f" have {sum(sizes)}: use about {sum(sizes) / images:.2g}, or smaller groups",
                key=f"data.{key}",
                value=fraction,
            )
        return found

    def _sizes(self, chosen: Chosen) -> list[int]:
        sizes = [0] * len(self.class_sizes)
        for group in chosen:
            for label, count in self.content[group]:
                sizes[label] += count
        return sizes

    def _where(self, chosen: Chosen) -> Indices:
        return self.indices[np.isin(self.group, np.fromiter(chosen, dtype=np.int64, count=len(chosen)))]

    def _chosen(self, wanted: list[float], total: int | None, seed: int, stream: int, *, both: bool) -> Chosen:
        """Groups with about `wanted` images of each class and `total` in all, and with at least one of each class.

        Args:
            both: leave at least one group of each class.
        """
        order: NDArray[np.int64] = np.random.RandomState([seed, stream]).permutation(len(self.content))
        waiting: list[list[int]] = [[] for _ in wanted]  # of each class, the places of its groups in the order
        for place, group in enumerate(order.tolist()):
            for label, _ in self.content[group]:
                waiting[label].append(place)
        remaining = [len(places) for places in waiting]
        # An exact share of single images is at most one image away from a class's own.
        scale, slack = (wanted, 0) if total is None else (self.class_sizes, 1)
        have, held = [0] * len(wanted), 0  # images, of each class and in all
        taken: Chosen = set()
        settled: Chosen = set()  # taken or passed over
        heads, turn = [0] * len(wanted), [0] * len(wanted)
        heap: list[tuple[float, int, int, int]] = []

        def off(group: int, share: int) -> float:
            """How far the group's classes are from what is wanted, with `share` of it: 0 or 1."""
            return sum(abs(have[label] + share * count - wanted[label]) for label, count in self.content[group])

        def is_last(group: int) -> bool:
            return both and any(remaining[label] == 1 for label, _ in self.content[group])

        def queue(label: int) -> None:
            places = waiting[label]
            while heads[label] < len(places) and int(order[places[heads[label]]]) in settled:
                heads[label] += 1
            turn[label] += 1
            if heads[label] < len(places):
                place = places[heads[label]]
                count = dict(self.content[int(order[place])])[label]
                covered = (have[label] + count / 2) / scale[label] if have[label] else 0.0
                heapq.heappush(heap, (covered, place, label, turn[label]))

        def take(group: int) -> None:
            nonlocal held
            taken.add(group)
            held += sum(count for _, count in self.content[group])
            settled.add(group)
            for label, count in self.content[group]:
                have[label] += count
                remaining[label] -= 1

        for label in range(len(wanted)):
            queue(label)
        while heap:
            _, place, label, asked = heapq.heappop(heap)
            if asked != turn[label]:
                continue
            group = int(order[place])
            size = sum(count for _, count in self.content[group])
            allowed = max(off(group, 0), slack * len(self.content[group]))
            fits = off(group, 1) <= allowed if slack else off(group, 1) < allowed
            if total is not None:
                fits = fits and abs(held + size - total) < abs(held - total)
            if group in settled or is_last(group) or not fits:
                settled.add(group)
                queue(label)
                continue
            take(group)
            for other, _ in self.content[group]:
                queue(other)
        for label, places in enumerate(waiting):
            left = [int(order[place]) for place in places if int(order[place]) not in taken]
            left = [group for group in left if not is_last(group)]
            if not have[label] and left:
                take(min(left, key=lambda group: off(group, 1)))
        self._improve(taken, order.tolist(), wanted, have, remaining if both else None)
        return taken

    def _improve(
        self, taken: Chosen, order: list[int], wanted: list[float], have: list[int], remaining: list[int] | None
    ) -> None:
        """Take in or leave out one group after another while that brings the classes closer to what is wanted.

        A class that is less than one image away is close enough.
        """

        def excess(label: int, images: int) -> float:
            return (max(0.0, abs(images - wanted[label]) - 1) / self.class_sizes[label]) ** 2

        for _ in range(PASSES):
            changed = False
            for group in order:
                sign = -1 if group in taken else 1
                content = self.content[group]
                if sum(excess(label, have[label] + sign * n) - excess(label, have[label]) for label, n in content) >= 0:
                    continue
                if sign < 0 and any(have[label] == n for label, n in content):
                    continue
                if sign > 0 and remaining and any(remaining[label] == 1 for label, _ in content):
                    continue
                changed = True
                taken ^= {group}
                for label, n in content:
                    have[label] += sign * n
                    if remaining:
                        remaining[label] -= sign
            if not changed:
                return
