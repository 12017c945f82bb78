"""Progressive resolution: training images grow to their own size over the epochs (Tan & Le 2021, sec. 4)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch.nn.functional as F
from torch import Tensor

from ssat.core.batch import Batch
from ssat.core.errors import UserError
from ssat.encoders.base import Encoder
from ssat.tasks.base import Task


def size_at(sizes: Sequence[int], epoch: int, epochs: int) -> int | None:
    """Pixels of the images in `epoch`, from 0, of `epochs`: each size has an equal part; None = the last, full size."""
    part = epoch * (len(sizes) + 1) // max(1, epochs)
    return sizes[part] if part < len(sizes) else None


def epochs_at(sizes: Sequence[int], epochs: int) -> str:
    """From which epoch on the images have which size: '16 px from epoch 1, 24 px from epoch 4, full from epoch 7'."""
    found: dict[int | None, int] = {}
    for epoch in range(epochs):
        found.setdefault(size_at(sizes, epoch, epochs), epoch + 1)
    return ", ".join(f"{f'{side} px' if side else 'full size'} from epoch {first}" for side, first in found.items())


@contextmanager
def at_size(encoder: Encoder, ssl: Task | None, batch: Batch, size: int | None) -> Iterator[Batch]:
    """The batch at `size` pixels, for which encoder and task are set meanwhile; None = everything as it is."""
    if size is None:
        yield batch
        return
    own = encoder.img_size
    try:
        _set(encoder, ssl, (size, size))
        views = tuple(_shrunk(view, size) for view in batch.views)
        yield batch._replace(images=_shrunk(batch.images, size), views=views)
    finally:
        _set(encoder, ssl, (own[0], own[1]))


def check_sizes(encoder: Encoder, ssl: Task | None, sizes: Sequence[int]) -> None:
    """Raises: UserError: encoder or task cannot take one of the sizes."""
    own = encoder.img_size
    for side in sizes:
        try:
            _set(encoder, ssl, (side, side))
        except UserError as error:
            if error.key == "recipe.sizes":
                raise
            raise UserError(
                f"recipe.sizes={[*sizes]}: {side} pixels are too small here ({error}): leave them out",
                key="recipe.sizes",
                value=[*sizes],
            ) from error
    if sizes:
        _set(encoder, ssl, (own[0], own[1]))


def _set(encoder: Encoder, ssl: Task | None, img_size: tuple[int, int]) -> None:
    encoder.resize(img_size)
    if ssl is not None:
        ssl.resize(encoder)


def _shrunk(images: Tensor, size: int) -> Tensor:
    return F.interpolate(images, size=(size, size), mode="bilinear", antialias=True, align_corners=False)
