"""Batches that loader processes hand over in shared memory, and what is said where it is full."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_leaves
from torch.utils.data import get_worker_info

from ssat.core.errors import UserError

PLACE = Path("/dev/shm")
LEAST = 1 << 16  # bytes, without which not even the semaphores of the queues can be made
# What PyTorch says of it: where it cannot be reserved, and where a process has died of writing to it.
SIGNS = ("shared memory", "Bus error", "unable to write to file </torch")


def full() -> UserError:
    """The sentence for shared memory in which a batch finds no room."""
    size = ""
    with suppress(OSError):
        size = f" ({shutil.disk_usage(PLACE).total / 1e6:,.1f} MB)"
    return UserError(
        f"data.num_workers: loader processes hand batches over in {PLACE}{size}, which is full: set data.num_workers=0,"
        " or enlarge it (docker run --shm-size=8g; elsewhere as root: mount -o remount,size=8g /dev/shm)",
        key="data.num_workers",
    )


@contextmanager
def telling() -> Iterator[None]:
    """Turns PyTorch's error about full shared memory into a sentence.

    Raises:
        UserError: it is full.
    """
    with suppress(OSError):  # a system without such a folder
        if shutil.disk_usage(PLACE).free < LEAST:
            raise full()
    try:
        yield
    except RuntimeError as error:
        if any(sign in str(error) for sign in SIGNS):
            raise full() from None
        raise
    except OSError as error:
        if error.errno == errno.ENOSPC:  # of the semaphores of a queue, which lie there too
            raise full() from None
        raise


class Shared:
    """A collate function whose batches lie in shared memory where a loader process makes them.

    PyTorch moves them there itself, but in a thread: what fails in it is lost, and the training would wait for ever.

    Args:
        collate: makes the batch.
    """

    def __init__(self, collate: Callable[[Any], Any]) -> None:
        self.collate = collate

    def __call__(self, samples: Any) -> Any:
        """The batch of `samples`.

        Raises:
            UserError: shared memory is full.
        """
        batch = self.collate(samples)
        if get_worker_info() is not None:
            with telling():
                for part in tree_leaves(batch):
                    if isinstance(part, Tensor):
                        part.share_memory_()
        return batch
