from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest

from ssat.core.errors import UserError
from ssat.data.sampler import AGAIN, EpochSampler, Labelled, draws_of, eval_batches, images_per_rank

INDICES = np.arange(1000, 1103)


def batches(epoch: int = 0, *, batch_size: int = 6, **options) -> list[list[int]]:
    sampler = EpochSampler(INDICES, batch_size=batch_size, **options)
    sampler.set_epoch(epoch)
    keys = list(sampler)
    assert len({*keys}) == len(keys) and {draw % AGAIN for draw, _ in keys} == {epoch} and len(keys) == len(sampler)
    return [[index for _, index in keys[at : at + batch_size]] for at in range(0, len(keys), batch_size)]


@pytest.mark.parametrize("world", [2, 3, 4])
@pytest.mark.parametrize("drop_last", [True, False])
def test_the_ranks_together_see_the_batches_of_one_process(world: int, drop_last: bool) -> None:
    alone = batches(2, batch_size=6 * world, drop_last=drop_last)
    ranks = [batches(2, rank=rank, world=world, drop_last=drop_last) for rank in range(world)]
    shared = [set(itertools.chain(*parts)) for parts in zip(*ranks, strict=True)]
    whole = len(INDICES) // (6 * world)
    assert [set(batch) for batch in alone[:whole]] == shared[:whole]
    # Of the last, incomplete batch some images cannot be shared.
    assert whole <= len(shared) <= len(alone) and all(part <= {*batch} for part, batch in zip(shared, alone))  # noqa: B905


@pytest.mark.parametrize("world", [1, 2, 3])
def test_every_rank_has_the_same_number_of_full_batches(world: int) -> None:
    sizes = [[len(batch) for batch in batches(rank=rank, world=world)] for rank in range(world)]
    assert sizes == [[6] * (len(INDICES) // (6 * world))] * world


def test_no_image_comes_twice_in_an_epoch_and_at_most_one_is_left_out() -> None:
    seen = list(itertools.chain(*batches(drop_last=False)))
    assert len(seen) == len({*seen}) == len(INDICES) - 1 and {*seen} < {*INDICES.tolist()}


@pytest.mark.parametrize(
    ("images", "batch", "world", "kept", "full"),
    [
        (100, 64, 1, 100, 64),
        (97, 32, 1, 96, 96),  # a last batch of one image has no batch statistics
        (103, 32, 1, 102, 96),  # and one of seven no pairs
        (100, 64, 2, 50, 0),
        (3, 64, 1, 3, 0),  # the only batch is as it is
        (101, 25, 2, 50, 50),
    ],
)
def test_images_of_an_epoch_on_each_rank(images: int, batch: int, world: int, kept: int, full: int) -> None:
    assert images_per_rank(images, batch, world, drop_last=False) == kept
    assert images_per_rank(images, batch, world, drop_last=True) == full


def test_an_epoch_of_another_size_shows_each_image_once_before_any_comes_twice() -> None:
    for size in (309, 250, 102):
        order = list(itertools.chain(*batches(3, size=size)))
        assert len(order) == size // 6 * 6
        for start in range(0, len(order), len(INDICES)):
            part = order[start : start + len(INDICES)]
            assert len({*part}) == len(part)
    assert {*batches(3, size=12)[0]} != {*batches(4, size=12)[0]}  # other images of the set each time
    assert batches(3, size=len(INDICES)) == batches(3)


@pytest.mark.parametrize("world", [2, 3])
def test_ranks_share_an_epoch_that_shows_its_images_again(world: int) -> None:
    alone = list(EpochSampler(INDICES, batch_size=6 * world, size=400))
    ranks = [list(EpochSampler(INDICES, batch_size=6, size=400, rank=rank, world=world)) for rank in range(world)]
    assert sorted(itertools.chain(*ranks)) == sorted(alone) and len({*alone}) == len(alone)


def test_an_image_that_comes_again_has_another_draw() -> None:
    order = np.array([7, 3, 7, 5, 3, 7])
    assert draws_of(order, 2).tolist() == [2, 2, 2 + AGAIN, 2, 2 + AGAIN, 2 + 2 * AGAIN]
    assert draws_of(order[:2], 9).tolist() == [9, 9] and not len(draws_of(order[:0], 9))


def test_every_epoch_has_its_own_order() -> None:
    assert batches(0) != batches(1)


def test_the_order_depends_on_nothing_but_seed_and_epoch() -> None:
    np.random.seed(5)
    first = batches(4, seed=7)
    np.random.seed(6)
    assert batches(4, seed=7) == first and batches(4, seed=8) != first


def test_a_second_pass_without_a_new_epoch_is_whole() -> None:
    sampler = EpochSampler(INDICES, batch_size=6)
    sampler.start = 3
    assert len(list(sampler)) == len(sampler) - 18 and len(list(sampler)) == len(sampler)


@pytest.mark.parametrize("world", [1, 2, 3, 5])
@pytest.mark.parametrize("count", [5, 7, 64, 65, 66, 103])
@pytest.mark.parametrize("batch_size", [1, 4, 32])
def test_evaluation_counts_every_image_once_in_equally_many_batches(world: int, count: int, batch_size: int) -> None:
    indices = np.arange(count) * 3
    ranks = [eval_batches(indices, batch_size=batch_size, rank=rank, world=world) for rank in range(world)]
    assert sorted(index for rank in ranks for batch in rank for _, index in batch) == indices.tolist()
    assert len({len(rank) for rank in ranks}) == 1
    assert max(len(batch) for rank in ranks for batch in rank) <= max(batch_size, 2)


def test_more_processes_than_evaluation_images_are_refused() -> None:
    with pytest.raises(UserError, match="2 evaluation images cannot be shared by 3 processes: use fewer devices"):
        eval_batches(np.arange(2), batch_size=8, world=3)


KNOWN = np.arange(1000, 1007)


@pytest.mark.parametrize(("world", "per_batch"), [(1, 3), (1, 1), (1, 5), (2, 3), (3, 2)])
def test_every_batch_of_every_rank_has_so_many_labelled_images(world: int, per_batch: int) -> None:
    labelled = Labelled(KNOWN, per_batch)
    for rank in range(world):
        for batch in batches(4, rank=rank, world=world, labelled=labelled):
            assert len(batch) == 6 and sum(index in KNOWN for index in batch) == per_batch
            assert len({*batch} - {*KNOWN}) == 6 - per_batch  # no other image twice


def test_labelled_images_come_equally_often_and_the_others_at_most_once() -> None:
    (order,) = [list(itertools.chain(*batches(1, labelled=Labelled(KNOWN, 3))))]
    counts = Counter(order)
    known = [counts[index] for index in KNOWN.tolist()]
    assert sum(known) == len(order) // 2 and max(known) - min(known) <= 1
    assert max(counts[index] for index in counts if index not in KNOWN) == 1
    assert order == list(itertools.chain(*batches(1, labelled=Labelled(KNOWN, 3))))
    assert order != list(itertools.chain(*batches(2, labelled=Labelled(KNOWN, 3))))


def test_ranks_with_labelled_images_see_the_batches_of_one_process() -> None:
    alone = batches(2, batch_size=12, labelled=Labelled(KNOWN, 6))
    ranks = [batches(2, rank=rank, world=2, labelled=Labelled(KNOWN, 3)) for rank in range(2)]
    assert [sorted(batch) for batch in alone] == [sorted(itertools.chain(*parts)) for parts in zip(*ranks, strict=True)]


def test_more_labelled_images_than_others_bring_the_others_again() -> None:
    order = list(itertools.chain(*batches(labelled=Labelled(INDICES[:95], 2))))
    others = Counter(index for index in order if index >= 1095)
    assert len(others) == 8 and max(others.values()) - min(others.values()) <= 1
