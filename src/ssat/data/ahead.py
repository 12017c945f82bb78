"""Work that is begun before it is asked for: the next batches are made on a GPU while it trains on these ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import torch

from ssat.core.batch import Batch

T = TypeVar("T")
Raw = TypeVar("Raw")


def one_ahead(items: Iterable[T]) -> Iterator[T]:
    """The same items in the same order; each is asked for before the one in front of it is handed out."""
    waiting: list[T] = []
    for item in items:
        yield from waiting
        waiting = [item]
    yield from waiting


def on_side_stream(
    prepare: Callable[[Raw], list[Batch]], groups: Iterable[Raw], device: torch.device
) -> Iterator[list[Batch]]:
    """`prepare(group)` of each group, on a stream of its own of the GPU `device`, one group ahead.

    The stream of whoever trains waits for the batches that it is handed, and for no others.
    """
    side = torch.cuda.Stream(device)
    # What the passes share, such as tables of weights, was made by work that is before this one.
    side.wait_stream(torch.cuda.current_stream(device))

    def begun() -> Iterator[tuple[list[Batch], torch.cuda.Event]]:
        for group in groups:
            with torch.cuda.stream(side):
                batches = prepare(group)
                made = side.record_event()
            yield batches, made

    try:
        for batches, made in one_ahead(begun()):
            main = torch.cuda.current_stream(device)
            main.wait_event(made)
            for batch in batches:
                for tensor in (batch.images, batch.targets, batch.indices, *batch.views):
                    if tensor is not None:
                        tensor.record_stream(main)  # its memory is used again only after `main` is done with it
            yield batches
    finally:
        torch.cuda.current_stream(device).wait_stream(side)
