"""Small image folders of our own making, and the real CIFAR-10 images where they have been unpacked."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ssat.data.image import ImageDataModule
from ssat.data.sets.sources import ImageList, Source

OFFICIAL = {
    "crop_scale": [0.08, 1.0],
    "crop_ratio": [0.75, 1.3333],
    "interpolation": "bicubic",
    "hflip": 0.5,
    "auto_augment": "rand-m9-mstd0.5-inc1",
    "color_jitter": None,
    "re_prob": 0.25,
    "re_mode": "pixel",
    "re_count": 1,
}


@pytest.fixture
def augment() -> dict[str, Any]:
    return dict(OFFICIAL)


@pytest.fixture
def make_folder(tmp_path: Path) -> Callable[[dict[str, int]], Path]:
    """Write {'train/cat': 3} as three random 10x8 PNG files below tmp_path/images/train/cat."""

    def make(counts: dict[str, int]) -> Path:
        root = tmp_path / "images"
        rng = np.random.default_rng(0)
        for folder, count in counts.items():
            (root / folder).mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 256, (8, 10, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / folder / f"{number:03}.png")
        return root

    return make


@pytest.fixture
def toy_source() -> Source:
    """120 + 37 random 12x12 images in four uneven classes."""
    rng = np.random.default_rng(0)

    def make(count: int) -> ImageList:
        labels = np.sort(rng.choice(4, count, p=[0.4, 0.3, 0.2, 0.1]))
        return ImageList(rng.integers(0, 256, (count, 12, 12, 3), dtype=np.uint8), labels)

    return Source("toy", ["a", "b", "c", "d"], make(120), make(37))


@pytest.fixture
def make_data(toy_source: Source) -> Callable[..., ImageDataModule]:
    """An ImageDataModule of the toy source, set up, with the official augmentation at 12 pixels."""

    def make(source: Source = toy_source, **changes: Any) -> ImageDataModule:
        options: dict[str, Any] = {
            "img_size": 12,
            "mean": (0.5, 0.4, 0.3),
            "std": (0.2, 0.25, 0.3),
            "augment": OFFICIAL,
            "batch_size": 8,
            "seed": 3,
        }
        data = ImageDataModule(source, **options | changes)
        data.setup()
        return data

    return make


def unpacked(name: str) -> Path:
    root = Path(os.environ.get("SSAT_DATA", "data")) / name
    if not root.is_dir():
        pytest.skip(f"no {root}: put the images there, or set SSAT_DATA to the folder that holds them")
    return root


@pytest.fixture(scope="session")
def cifar_jpeg() -> Path:
    """The real CIFAR-10 images as JPEG files, see shared/data/README.md."""
    return unpacked("cifar10_jpeg")


@pytest.fixture(scope="session")
def flowers_partial() -> Path:
    """5,544 of the real Flowers102 photographs as WebP files, see shared/data/README.md."""
    return unpacked("flowers102_partial")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six grey images, one of them in a folder of its own, for tables that list them."""
    (tmp_path / "sub").mkdir()
    for number, name in enumerate(("a", "b", "sub/c", "d", "e", "f")):
        Image.fromarray(np.full((4, 4), 40 * number, np.uint8)).save(tmp_path / f"{name}.png")
    return tmp_path
