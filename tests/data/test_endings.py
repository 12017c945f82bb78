from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features

from ssat.core.errors import UserError
from ssat.data.image import ImageDataModule
from ssat.data.overview import NO_CLASS, not_read
from ssat.data.sets.folder import USUAL, extensions, image_folder
from ssat.data.stored import NO_PICTURES

PHOTO = Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8))
CLASSES = ("train/a", "train/b", "test/a", "test/b")


def folder(root: Path, name: str = "0.png") -> Path:
    for place in CLASSES:
        (root / place).mkdir(parents=True)
        PHOTO.save(root / place / name)
    return root


@pytest.mark.parametrize("ending", [".jfif", ".jpe", ".JPE", ".avif", ".jp2", ".tga", ".dib", ".pgm", ".mpo", ".PNG"])
def test_what_pillow_reads_is_an_image(tmp_path: Path, ending: str) -> None:
    if ending == ".avif" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    source = image_folder(folder(tmp_path, f"0{ending}"))
    assert [len(images) for images in source.lists] == [2, 2]
    assert source.train.read(0).size == (32, 24) and source.train.read_tensor(1).shape == (3, 24, 32)
    assert not_read(source) == {}


def test_the_endings_are_those_of_before_and_of_all_pictures_that_pillow_registers() -> None:
    assert extensions()[: len(USUAL)] == USUAL
    registered = {ending for ending, kind in Image.registered_extensions().items() if kind in Image.OPEN}
    others = {e for e, kind in Image.registered_extensions().items() if kind in NO_PICTURES}
    assert registered - others <= {*extensions()}
    assert not {".mpg", ".h5", ".pdf", ".eps", ".heic", ".txt"} & {*extensions()}


def test_other_files_are_counted_by_class_and_ending(tmp_path: Path) -> None:
    root = folder(tmp_path)
    for name in ("train/a/x.heic", "train/a/deep/y.HEIC", "train/a/notes.txt", "test/b/x.heic", "train/b/README"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(b"?")
    (root / "train/lost.jpg").write_bytes(b"?")
    (root / "train/a/.DS_Store").write_bytes(b"?")
    data = ImageDataModule(image_folder(root), img_size=8, batch_size=2, on_bad_image="skip")
    data.setup()
    found = data.overview()
    assert found.not_read == {
        NO_CLASS: {".jpg": 1},
        "a": {".heic": 2, ".txt": 1},
        "b": {".heic": 1, "without an extension": 1},
    }
    assert data.skipped == [] and data.sizes == {"train": 2, "test": 2}
    assert "6 files are not read: 3 .heic" in found.lines()[1]


def test_a_class_of_unknown_files_only_names_one(tmp_path: Path) -> None:
    root = folder(tmp_path)
    (root / "train/a/0.png").rename(root / "train/a/photo.heic")
    with pytest.raises(UserError, match=r"has no images, found only 'photo.heic'"):
        image_folder(root)


def test_one_folder_without_splits_counts_too(tmp_path: Path) -> None:
    root = folder(tmp_path) / "train"
    (root / "a/x.heif").write_bytes(b"?")
    assert not_read(image_folder(root)) == {"a": {".heif": 1}}
