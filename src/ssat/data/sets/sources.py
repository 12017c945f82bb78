"""Where labelled images come from: each function here returns a `Source`."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import distribution
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ssat.core.errors import UserError
from ssat.data.bands import Bands, bands_of, channels_last, read_bands
from ssat.data.content import content_sha256
from ssat.data.decode import is_readable, read_rgb, read_tensor, takes, to_rgb, unreadable
from ssat.data.moments import Moments, measure
from ssat.data.pixels import RGB, Pixels, Stored, largest_of, to_8_bit
from ssat.data.subsets import train_val_split
from ssat.data.survey import Extremes, extremes_of_encoded, extremes_of_files, refuse_unused_range

if TYPE_CHECKING:
    from torch import Tensor

DIGITS_TEST = 360  # of 1,797: one fifth, stratified


@dataclass(frozen=True)
class Groups:
    """Which images belong together, such as those of one patient or video.

    Attributes:
        numbers: (N,) int64 group numbers.
        names: of the groups, by number; those of the whole `Source`.
    """

    numbers: NDArray[np.int64]
    names: Sequence[str]


@dataclass(frozen=True)
class ImageList:
    """Images and their classes.

    Attributes:
        images: file names below `root`, or (N, H, W, C) or (N, H, W) uint8 pixels, or encoded image files.
        labels: (N,) int64 class numbers; all 0 where an image has several labels.
        root: folder of the files; None for pixels and encoded files.
        pixels: how their values are read.
        class_depth: the first parts of each name, up to the class folder; 0 = the files do not lie in class folders.
        groups: of the images; None = each image stands for itself.
        hot: (N, K) int8, 1 for each label that an image has, rows of NO_LABEL where its labels are not used; None =
            each image is of one class.
    """

    images: Sequence[str] | NDArray[np.uint8] | Sequence[bytes]
    labels: NDArray[np.int64]
    root: Path | None = None
    pixels: Pixels = RGB
    class_depth: int = 0
    groups: Groups | None = None
    hot: NDArray[np.int8] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def __add__(self, other: ImageList) -> ImageList:
        labels = np.concatenate([self.labels, other.labels])
        if isinstance(self.images, np.ndarray):
            return ImageList(np.concatenate([self.images, np.asarray(other.images)]), labels, pixels=self.pixels)
        assert self.root == other.root
        groups = self.groups
        if groups is not None and other.groups is not None:
            groups = Groups(np.concatenate([groups.numbers, other.groups.numbers]), groups.names)
        hot = None if self.hot is None or other.hot is None else np.concatenate([self.hot, other.hot])
        return replace(self, images=[*self.images, *other.images], labels=labels, groups=groups, hot=hot)

    def targets(self, indices: NDArray[np.int64] | Sequence[int]) -> NDArray[Any]:
        """What a batch of these images is to learn: classes (B,) int64, or several labels (B, K) float32."""
        chosen = np.asarray(indices, dtype=np.int64)
        return self.labels[chosen] if self.hot is None else self.hot[chosen].astype(np.float32)

    def read_as(self, pixels: Pixels) -> ImageList:
        """The same images, whose values are read as `pixels` says.

        Raises:
            WrongRange: pixels in memory whose values mean nothing without a range.
        """
        if not isinstance(self.images, np.ndarray):
            return replace(self, pixels=pixels)
        values: NDArray[Any] = self.images
        if pixels.value_range is None and values.dtype == np.uint8:
            return replace(self, pixels=pixels)
        high = largest_of(values.dtype)
        if pixels.value_range is None:
            found = Extremes(high, len(values), float(values.min()), float(values.max()), "the set")
            refuse_unused_range([found], "this set")
        read = replace(pixels, value_range=None)  # it is applied here
        return replace(self, images=to_8_bit(Stored(values, high), pixels.value_range), pixels=read)

    def read(self, index: int) -> Image.Image | Bands:
        """Image `index` as 8-bit RGB, or of as many channels as `pixels` says.

        Raises:
            UserError: a file cannot be read.
        """
        if self.pixels.channels != RGB.channels:
            return bands_of(self._read_bands(index))
        image, value_range, most = self.images[index], self.pixels.value_range, self.pixels.max_pixels
        if isinstance(image, bytes):
            return read_rgb(BytesIO(image), f"number {index}", value_range, most)
        if self.root is None:
            return to_rgb(Image.fromarray(np.asarray(image)), value_range)
        return read_rgb(self.root / str(image), value_range=value_range, max_pixels=most)

    def _read_bands(self, index: int) -> NDArray[np.uint8]:
        image, channels = self.images[index], self.pixels.channels
        if isinstance(image, bytes):
            return read_bands(BytesIO(image), self.pixels, f"number {index}")
        if self.root is None:
            try:
                return channels_last(np.asarray(image), channels)
            except ValueError as error:
                raise UserError(f"cannot use image number {index} ({error})", key="data.channels") from None
        return read_bands(self.root / str(image), self.pixels)

    def read_tensor(self, index: int) -> Tensor:
        """Image `index` as (C, H, W) uint8; C is 3, or what `pixels` says.

        Raises:
            UserError: a file cannot be read.
        """
        if self.pixels.channels != RGB.channels or self.root is None:
            import torch  # not above: preparing a data set needs none

            return torch.from_numpy(np.array(self.read(index))).permute(2, 0, 1)
        return read_tensor(self.root / str(self.images[index]), self.pixels.value_range, self.pixels.max_pixels)

    def readable(self) -> tuple[NDArray[np.int64], list[str]]:
        """Indices of the images that can be read, and the paths of the files that cannot."""
        if isinstance(self.images, np.ndarray):
            return np.arange(len(self)), []
        if self.root is None:
            files = (BytesIO(self.images[index]) for index in range(len(self)))  # type: ignore[arg-type]
            broken = [index for index, file in enumerate(files) if not self._takes(file)]
            return np.setdiff1d(np.arange(len(self)), broken), [f"image number {index}" for index in broken]
        bad = set(unreadable(self.root, [str(name) for name in self.images], self.pixels, self._takes))
        good = [index for index, name in enumerate(self.images) if name not in bad]
        return np.asarray(good, dtype=np.int64), [str(self.root / name) for name in sorted(bad)]

    def _takes(self, file: Path | BytesIO) -> bool:
        if self.pixels == RGB:
            return is_readable(file)
        if self.pixels.channels == RGB.channels:
            value_range, max_pixels = self.pixels.value_range, self.pixels.max_pixels
            return takes(partial(read_rgb, value_range=value_range, max_pixels=max_pixels), file)
        return takes(partial(read_bands, pixels=self.pixels), file)

    def moments(self, indices: NDArray[np.int64], channels: int) -> Moments:
        """Mean and deviation of the chosen images' pixels, see `moments.measure`."""
        return measure(self, indices, channels)

    def extremes(self) -> list[Extremes]:
        """Smallest and largest value of the images with more than 8 bits, by the type of their numbers."""
        if isinstance(self.images, np.ndarray):
            return []
        if self.root is None:
            return extremes_of_encoded(self.images)  # type: ignore[arg-type]
        return extremes_of_files(self.root, [str(name) for name in self.images])

    def digest(self, indices: NDArray[np.int64]) -> str:
        """SHA-256 of the chosen images' labels and pixels; of files of labels, names and sizes, see `content`."""
        sha = hashlib.sha256(self._label_bytes(indices))
        if isinstance(self.images, np.ndarray):
            sha.update(indices.astype("<i8").tobytes())
            sha.update(np.ascontiguousarray(self.images[indices]).tobytes())
            return sha.hexdigest()
        if self.root is None:
            for index in indices.tolist():
                sha.update(hashlib.sha256(self.images[index]).digest())
            return sha.hexdigest()
        for index in indices.tolist():
            name = str(self.images[index])
            sha.update(f"{name}\0{self._size(name)}\n".encode(errors="surrogateescape"))
        return sha.hexdigest()

    def content(self, indices: NDArray[np.int64]) -> str:
        """SHA-256 of the chosen images' labels and pixels; of files the labels, names and bytes, which reads them all.

        Raises:
            UserError: a file cannot be read.
        """
        if self.root is None:
            return self.digest(indices)
        files = content_sha256(self.root, [str(self.images[index]) for index in indices.tolist()])
        return hashlib.sha256(self._label_bytes(indices) + files.encode()).hexdigest()

    def _label_bytes(self, indices: NDArray[np.int64]) -> bytes:
        return self.labels[indices].astype("<i8").tobytes() if self.hot is None else self.hot[indices].tobytes()

    def _size(self, name: str) -> int:
        try:
            return os.path.getsize(self.root / name)  # type: ignore[operator]
        except OSError as error:
            raise UserError(f"cannot read the image {self.root}/{name} ({error.strerror})", key="data.root") from error


@dataclass(frozen=True)
class Source:
    """A labelled data set.

    Attributes:
        name: as in `data=<name>`.
        classes: their names, in the order of the labels.
        train: the training images.
        test: what the paper evaluates on.
        val: where there is an official validation split; selects models.
        trains_on_val: the paper trains on train + val and evaluates on test.
        remarks: sentences on what its reader has found, said before the training and kept in its record.
    """

    name: str
    classes: list[str]
    train: ImageList
    test: ImageList | None = None
    val: ImageList | None = None
    trains_on_val: bool = False
    remarks: Sequence[str] = ()

    @property
    def multi_label(self) -> bool:
        """Whether an image may have several of the `classes`, or none."""
        return self.train.hot is not None

    @property
    def lists(self) -> list[ImageList]:
        """Training, test and validation images, as far as there are any."""
        return [images for images in (self.train, self.test, self.val) if images is not None]

    def read_as(self, pixels: Pixels) -> Source:
        """The same set with images that are read as `pixels` says, see `ImageList.read_as`."""
        read = [None if images is None else images.read_as(pixels) for images in (self.train, self.test, self.val)]
        assert read[0] is not None
        return replace(self, train=read[0], test=read[1], val=read[2])


def digits() -> Source:
    """scikit-learn's 1,797 handwritten digits (UCI, Alpaydin & Kaynak 1998): 8x8 grey, 1,437 + 360 images, no download.

    The split is ours (there is no official one in that copy), stratified and frozen.
    """
    # Read where scikit-learn keeps it: importing sklearn.datasets would cost every start a second.
    path = distribution("scikit-learn").locate_file("sklearn/datasets/data/digits.csv.gz")
    table = np.loadtxt(str(path), delimiter=",", dtype=np.uint8)
    grey = np.rint(table[:, :-1].reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    images, labels = np.repeat(grey[..., None], 3, axis=3), table[:, -1].astype(np.int64)
    train, test = train_val_split(labels, DIGITS_TEST / len(labels), seed=0)
    return Source(
        "digits",
        [str(digit) for digit in range(10)],
        ImageList(images[train], labels[train]),
        ImageList(images[test], labels[test]),
    )
