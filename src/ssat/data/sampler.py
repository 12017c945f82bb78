"""Which image when: a pure function of (seed, epoch), the same for any number of workers and processes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from itertools import chain, islice
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Sampler

from ssat.core.batch import Batch
from ssat.core.errors import UserError
from ssat.data.ahead import on_side_stream
from ssat.data.shared import telling

Key = tuple[int, int]  # draw, index of the image; the draw is part of the key because workers live across epochs
AGAIN = 2**20  # more than there are epochs; an image that comes twice in an epoch is not augmented alike twice


def images_per_rank(images: int, batch_size: int, world: int = 1, *, drop_last: bool) -> int:
    """Images of an epoch that each of `world` ranks trains on, of `images` in all.

    Without `drop_last` the last batch is smaller; it has an even number of images, for mixup pairs them and batch norm
    needs two, unless it is the only batch.
    """
    each = images // world
    rest = each % batch_size
    return each - (rest if drop_last else rest % 2 if each > batch_size else 0)


class Labelled(NamedTuple):
    """How many images of each batch have labels.

    Attributes:
        indices: (L,) the training images with labels.
        per_batch: of them in each batch of one rank, at least 1 and less than the batch.
    """

    indices: NDArray[np.int64]
    per_batch: int


def labelled_in_batches(indices: NDArray[np.int64], samples: int, share: float, batch_size: int) -> Labelled | None:
    """`Labelled` of the images `indices` (L,) of `samples` that have labels; None where all have.

    Raises:
        UserError: a batch cannot have both kinds, or the labelled ones are a larger part of the images anyway.
    """
    if len(indices) == samples:
        return None
    if batch_size < 2:
        raise UserError(
            f"data.labelled_share={share:g} puts images with and without labels into each batch, and"
            f" recipe.batch_size={batch_size} has room for one: set at least 2",
            key="recipe.batch_size",
            value=batch_size,
        )
    if share < len(indices) / samples:
        raise UserError(
            f"data.labelled_share={share:g} is less than the {len(indices):,} of {samples:,} images that have labels:"
            " give more, or leave it out",
            key="data.labelled_share",
            value=share,
        )
    return Labelled(indices, min(max(1, round(share * batch_size)), batch_size - 1))


def with_labelled(
    order: NDArray[np.int64], labelled: Labelled, *, batch_size: int, world: int, random: np.random.RandomState
) -> NDArray[np.int64]:
    """As many images as `order` (N,), so many labelled ones in every full batch of a rank, evenly between the others.

    The others keep their order. Images of a kind that has too few come again, each once before any comes twice.
    """
    place = np.arange(len(order)) // world % batch_size
    chosen = (place + 1) * labelled.per_batch // batch_size > place * labelled.per_batch // batch_size
    known, mixed = np.isin(order, labelled.indices), np.empty_like(order)
    mixed[chosen] = in_rounds(labelled.indices, int(chosen.sum()), random)
    mixed[~chosen] = np.resize(order[~known], (~chosen).sum())
    return mixed


def in_rounds(indices: NDArray[np.int64], size: int, random: np.random.RandomState) -> NDArray[np.int64]:
    """`size` of the `indices` (N,) in random order, each once before any comes twice."""
    rounds = -(-size // len(indices))
    return np.concatenate([random.permutation(indices) for _ in range(rounds)] or [indices])[:size]


def draws_of(order: NDArray[np.int64], epoch: int) -> NDArray[np.int64]:
    """Draw (N,) of each image of an epoch: the epoch, and `AGAIN` for each time that it has come before in `order`."""
    by_image = np.argsort(order, kind="stable")
    first = np.searchsorted(order[by_image], order[by_image])  # place of an image's first coming in `by_image`
    draws = np.empty_like(order)
    draws[by_image] = epoch + AGAIN * (np.arange(len(order)) - first)
    return draws


class EpochSampler(Sampler[Key]):
    """Shuffled keys of one rank's share of an epoch.

    Batch s of all `world` ranks together is batch s of a single process with `world` times the batch size. Every rank
    gets the same number of images.

    Args:
        indices: (N,) the images of every epoch; or a function of the epoch that gives as many in each.
        size: images of an epoch, which come again where there are fewer, or are a part, other ones each time; None = N.
        batch_size: of one rank.
        seed: of the order.
        rank, world: this process and their number.
        drop_last: drop the images that do not fill a batch of all ranks; else see `images_per_rank`.
        reshuffled: how often the training went back and took another order of what was left.
        labelled: how many images of each batch have labels; None = as they come.
    """

    def __init__(
        self,
        indices: NDArray[np.int64] | Callable[[int], NDArray[np.int64]],
        *,
        batch_size: int,
        size: int | None = None,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
        drop_last: bool = True,
        reshuffled: int = 0,
        labelled: Labelled | None = None,
    ) -> None:
        self.indices = indices if callable(indices) else lambda epoch: indices
        self.batch_size, self.size = batch_size, size or len(self.indices(0))
        self.seed, self.reshuffled, self.labelled = seed, reshuffled, labelled
        self.rank, self.world = rank, world
        self.total = world * images_per_rank(self.size, batch_size, world, drop_last=drop_last)
        self.epoch = 0
        self.start = 0  # batches of the next pass that an interrupted run has already seen

    def set_epoch(self, epoch: int) -> None:
        """Choose the order; Lightning calls this before every epoch."""
        if epoch != self.epoch:
            self.epoch, self.start = epoch, 0

    def __len__(self) -> int:
        return self.total // self.world

    def __iter__(self) -> Iterator[Key]:
        of = [self.seed, self.epoch, *([self.reshuffled] if self.reshuffled else [])]
        random = np.random.RandomState(of)
        order = in_rounds(self.indices(self.epoch), self.size, random)
        if self.labelled is not None:
            order = with_labelled(order, self.labelled, batch_size=self.batch_size, world=self.world, random=random)
        keys = np.stack([draws_of(order, self.epoch), order], axis=1)[: self.total]
        first, self.start = self.start * self.batch_size, 0
        return iter([(draw, index) for draw, index in keys[self.rank :: self.world][first:].tolist()])


def eval_batches(
    indices: NDArray[np.int64], *, batch_size: int, rank: int = 0, world: int = 1, unit: str = "images"
) -> list[list[Key]]:
    """Every index exactly once over the ranks, in even batches of up to `batch_size`, as many of them on each rank.

    DDP exchanges the model's buffers in every forward pass and would wait for ever for a rank with one batch less.

    Raises:
        UserError: fewer samples than ranks.
    """
    if len(indices) < world:
        raise UserError(f"{len(indices)} evaluation {unit} cannot be shared by {world} processes: use fewer devices")
    count = min(math.ceil(math.ceil(len(indices) / world) / batch_size), len(indices) // world)
    return [[(0, index) for index in part.tolist()] for part in np.array_split(indices[rank::world], count)]


class EpochLoader(DataLoader[Any]):
    """A DataLoader that knows its place in the epoch and can go on from there with any number of workers.

    The state is the epoch and the number of batches handed out, not those that workers have prefetched. A worker's
    UserError arrives as the same one sentence.

    Args:
        prepare: finishes `together` batches at a time, on the device of the training; None = they are finished.
        device: of `prepare`; on a GPU it is one group ahead of the training, on a stream of its own.

    Attributes:
        seconds_waited: that the last or running pass spent in here, while whoever trains was waiting.
    """

    def __init__(
        self,
        dataset: Any,
        *,
        prepare: Callable[[list[Any]], list[Batch]] | None = None,
        together: int = 1,
        device: torch.device | None = None,
        **kwargs: Any,
    ) -> None:
        # Every pass draws a seed for its workers; from the global generator it would shift the model's randomness.
        super().__init__(dataset, generator=torch.Generator(), **kwargs)
        self._place = (0, 0)
        self._prepare, self._together, self._device = prepare, together, device
        self.seconds_waited = 0.0

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        # A generator, so that nothing is prefetched before Lightning has set the epoch.
        sampler = self.sampler
        epoch, start = (sampler.epoch, sampler.start) if isinstance(sampler, EpochSampler) else (0, 0)
        self._place, self.seconds_waited = (epoch, start), 0.0
        try:
            asked = time.perf_counter()
            for served, batch in enumerate(self._finished(self._loaded()), start + 1):
                self._place = (epoch, served)
                self.seconds_waited += time.perf_counter() - asked
                yield batch
                asked = time.perf_counter()
        except UserError as error:
            self.close()
            # PyTorch wraps a worker's exception into its traceback; the sentence is the end of it.
            raise UserError(str(error).rpartition(f"{type(error).__name__}: ")[2].strip()) from None

    def _loaded(self) -> Iterator[Any]:
        with telling() if self.num_workers else nullcontext():
            yield from super().__iter__()

    def _finished(self, batches: Iterator[Any]) -> Iterator[Batch]:
        if self._prepare is None:
            yield from batches
            return
        groups = iter(lambda: list(islice(batches, self._together)), [])
        if self._device is not None and self._device.type == "cuda":
            prepared = on_side_stream(self._prepare, groups, self._device)
        else:
            prepared = map(self._prepare, groups)
        yield from chain.from_iterable(prepared)

    def close(self) -> None:
        """End the workers; the next pass starts others. Lightning does this to the loaders that it knows."""
        workers: Any = self._iterator  # set where they outlive a pass
        if workers is not None:
            workers._shutdown_workers()
            self._iterator = None

    def state_dict(self) -> dict[str, int]:
        """Epoch and batches handed out."""
        return {"epoch": self._place[0], "batches": self._place[1]}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on from there with the next batch."""
        if isinstance(self.sampler, EpochSampler):
            self.sampler.epoch, self.sampler.start = state["epoch"], state["batches"]
            self._place = (state["epoch"], state["batches"])


class Batches:
    """The batches of a loader, which Lightning leaves alone; a DataLoader for predictions it would build anew."""

    def __init__(self, loader: EpochLoader) -> None:
        self.loader = loader

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Batch]:
        yield from self.loader
        self.loader.close()


def rank_and_world(trainer: Any) -> tuple[int, int]:
    """The rank of this process and how many there are; None = no trainer, and one process.

    Raises:
        UserError: Lightning would share the samples among the processes as well.
    """
    if not trainer:
        return 0, 1
    launched: Any = getattr(trainer, "_accelerator_connector", None)
    if getattr(launched, "is_distributed", False) and launched.use_distributed_sampler:
        raise UserError(
            "the data module shares its samples among the processes itself, and Lightning would do it once more: set"
            " Trainer(use_distributed_sampler=False)"
        )
    return trainer.global_rank, trainer.world_size
