"""8-bit images for the batched pipeline: in memory where they are small, else decoded by the loader's workers."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from os import cpu_count
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset

from ssat.core.batch import Batch
from ssat.core.noise import sample_noise
from ssat.data.content import CHUNK
from ssat.data.sampler import Key
from ssat.data.sets.sources import ImageList
from ssat.data.subsets import Indices
from ssat.data.transforms.augment import CROP_DRAWS, TrainTransform, resized_side
from ssat.data.transforms.batched.geometry import crop_boxes
from ssat.data.transforms.views import ViewTransform

LARGEST_SIDE = 128  # pixels; above, a batch of whole images costs more than cropping each by itself
FEW = 16  # images that a worker decodes before it crops them
CPU_PIXELS, GPU_PIXELS = 2**18, 2**22  # of one augmentation call: 256 or 4,096 images of 32x32


class RawBatch(NamedTuple):
    """What the loader hands to the augmentation.

    Attributes:
        crops: (B, C, h, w) uint8 of the image itself and then of each view; none when the images wait in memory.
        targets, indices: (B,) int64.
        draws: (B,) int64 of the images, see `sampler.draws_of`.
    """

    crops: tuple[Tensor, ...]
    targets: Tensor
    indices: Tensor
    draws: Tensor


class Memory:
    """The images of one split as uint8, on any device.

    Args:
        pixels: (N, H, W, C), or (N, H, W) of grey images.
        rows: row of `pixels` of each index of the data set, -1 where it is not held.
    """

    def __init__(self, pixels: Tensor, rows: Tensor) -> None:
        self.pixels, self.rows = pixels, rows

    def to(self, device: torch.device) -> Memory:
        """A copy with only the images of the split; the CPU uses the source's own array."""
        if device.type == "cpu":
            return self
        used = self.rows >= 0
        rows = torch.where(used, used.cumsum(0) - 1, -1)
        return Memory(self.pixels[self.rows[used]].to(device), rows.to(device))

    def __getitem__(self, indices: Tensor) -> Tensor:
        """(B, C, H, W) of these indices; C is 3 of grey images too."""
        chosen = self.pixels[self.rows[indices]]
        return chosen.permute(0, 3, 1, 2) if chosen.ndim == 4 else chosen.unsqueeze(1).expand(-1, 3, -1, -1)


def load(images: ImageList, indices: Indices, limit_bytes: float) -> Memory | None:
    """The chosen images in memory, or None if they differ in size, are large, or take more than `limit_bytes`."""
    first = images.read(int(indices[0]))
    width, height = first.size
    channels = images.pixels.channels
    if max(width, height) > LARGEST_SIDE or channels * width * height * len(indices) > limit_bytes:
        return None
    rows = torch.full((len(images),), -1, dtype=torch.int64)
    if isinstance(images.images, np.ndarray):
        rows[torch.from_numpy(indices)] = torch.from_numpy(indices)
        return Memory(torch.from_numpy(images.images), rows)
    rows[torch.from_numpy(indices)] = torch.arange(len(indices))
    pixels = np.empty((len(indices), height, width, channels), dtype=np.uint8)

    def read(start: int) -> bool:
        for row in range(start, min(start + CHUNK, len(indices))):
            image = images.read(int(indices[row]))
            if image.size != first.size:
                return False
            pixels[row] = np.asarray(image)
        return True

    with ThreadPoolExecutor(min(4, cpu_count() or 1)) as pool:
        for same_size in pool.map(read, range(0, len(indices), CHUNK)):
            if not same_size:
                pool.shutdown(cancel_futures=True)
                return None
    return Memory(torch.from_numpy(pixels), rows)


class IndexDataset(Dataset[Any]):
    """Labels and indices only: the images are in memory already."""

    def __init__(self, images: ImageList) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitems__(self, keys: list[Key]) -> RawBatch:
        draws, indices = np.asarray(keys).T
        return RawBatch((), torch.from_numpy(self.images.targets(indices)), *map(torch.tensor, (indices, draws)))


class DecodedDataset(IndexDataset):
    """Images decoded and cropped by the worker; everything after that is done on the batch.

    Args:
        size: side in pixels of the evaluation's resize and centre crop, and
        crop_pct: its share of the resized image.
        crops: the transforms whose random crops to make, of the image itself and then of each view; None = the
            evaluation's.
    """

    def __init__(
        self,
        images: ImageList,
        size: int,
        *,
        crop_pct: float,
        crops: Sequence[TrainTransform | ViewTransform | None] = (None,),
    ) -> None:
        super().__init__(images)
        self.size, self.resized = size, resized_side(size, crop_pct)
        self.crops = [
            None if t is None else (t.size, t.interpolation, t.scale, t.ratio, t.stream, t.draws) for t in crops
        ]

    def __getitems__(self, keys: list[Key]) -> RawBatch:
        raw = super().__getitems__(keys)
        channels = self.images.pixels.channels
        crops = tuple(_empty(len(keys), channels, how[0] if how else self.size) for how in self.crops)
        # Few at a time: more decoded photographs than the processor's cache holds cost a tenth of the speed.
        for start in range(0, len(keys), FEW):
            part = slice(start, start + FEW)
            self._fill([pixels[part] for pixels in crops], raw.indices[part], raw.draws[part])
        return raw._replace(crops=crops)

    def _fill(self, crops: list[Tensor], indices: Tensor, draws: Tensor) -> None:
        images = [self.images.read_tensor(index) for index in indices.tolist()]
        sides = [torch.tensor([image.shape[axis] for image in images]) for axis in (1, 2)]
        for pixels, how in zip(crops, self.crops, strict=True):
            if how is None:
                pieces = map(self._centre, images)
            else:
                size, interpolation, scale, ratio, stream, length = how
                uniforms = sample_noise(indices, length, seed=stream, draw=draws)[:, :CROP_DRAWS]
                boxes = crop_boxes(uniforms, *sides, scale=scale, ratio=ratio).tolist()
                pieces = map(crop, images, boxes, repeat(size), repeat(interpolation))
            for row, piece in enumerate(pieces):
                pixels[row] = piece

    def _centre(self, image: Tensor) -> Tensor:
        short = min(image.shape[1:])
        height, width = (self.resized * side // short for side in image.shape[1:])
        top, left = round((height - self.size) / 2), round((width - self.size) / 2)
        return _resize(image, height, width, "bicubic")[:, top : top + self.size, left : left + self.size]


def _joined(pieces: list[Tensor]) -> Tensor:
    return torch.cat(pieces) if len(pieces) > 1 else pieces[0]


def _empty(count: int, channels: int, size: int) -> Tensor:
    # Channels last is how the decoder and the resize have them: filling it is a plain copy.
    return torch.empty((count, channels, size, size), dtype=torch.uint8, memory_format=torch.channels_last)


def _resize(image: Tensor, height: int, width: int, interpolation: str) -> Tensor:
    image = image.unsqueeze(0).contiguous(memory_format=torch.channels_last)
    return F.interpolate(image, size=(height, width), mode=interpolation, antialias=True)[0]


def crop(image: Tensor, box: list[int], size: int, interpolation: str) -> Tensor:
    """(C, H, W) uint8 cut to box = top, left, height, width and resized to (C, size, size)."""
    top, left, height, width = box
    image = image[:, top : top + height, left : left + width]
    if height > size and height - size > 2 * (width - size):
        image = _resize(image, size, width, interpolation)  # Pillow's order, see geometry.resized_crop
    return _resize(image, size, size, interpolation)


def identity_collate(batch: RawBatch) -> RawBatch:
    """The collate function of data sets that give whole batches."""
    return batch


class Prepare:
    """Raw batches to augmented ones, several at a time, since many small calls cost more than the pixels.

    Args:
        transform: (B, C, H, W) uint8 -> (B, C, size, size) float.
        memory: where the images are when the raw batches have none.
        views: make the extra views, from the same images.
    """

    def __init__(
        self,
        transform: torch.nn.Module,
        memory: Memory | None,
        device: torch.device,
        views: Sequence[TrainTransform | ViewTransform] = (),
    ) -> None:
        self.transform = transform.to(device)
        self.views = [view.to(device) for view in views]
        self.memory = memory.to(device) if memory else None
        self.device = device

    def together(self, batch_size: int, size: int) -> int:
        """How many batches to prepare in one call."""
        pixels = CPU_PIXELS if self.device.type == "cpu" else GPU_PIXELS
        return max(1, pixels // (batch_size * size**2))

    @torch.no_grad()
    def __call__(self, raws: list[RawBatch]) -> list[Batch]:
        sizes = [len(raw.indices) for raw in raws]
        targets, indices, draws = (
            torch.cat(parts).to(self.device, non_blocking=True)
            for parts in zip(*((raw.targets, raw.indices, raw.draws) for raw in raws), strict=True)
        )
        transforms = [self.transform, *self.views]
        if self.memory is not None:
            crops = [self.memory[indices]] * len(transforms)
        else:
            # A single batch is used as it is: it may lie in pinned memory.
            columns = zip(*(raw.crops for raw in raws), strict=True)
            parts = [_joined(list(pieces)) for pieces in columns]
            crops = [part.to(self.device, non_blocking=True) for part in parts]
        made = []
        for transform, images in zip(transforms, crops, strict=True):
            if isinstance(transform, (TrainTransform, ViewTransform)):
                images = transform(images, transform.uniforms(indices, draws))
            else:
                images = transform(images)
            made.append(images.split(sizes))
        pieces = zip(targets.split(sizes), indices.split(sizes), *made, strict=True)
        return [Batch(images, target, tuple(views), index) for target, index, images, *views in pieces]
