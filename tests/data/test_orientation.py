from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from sklearn.datasets import load_sample_images

from ssat.data.decode import read_rgb, read_tensor
from ssat.data.image import ImageDataModule
from ssat.data.orientation import METHODS, turned
from ssat.data.sets.folder import image_folder
from ssat.data.sets.sources import ImageList

PHOTO = Image.fromarray(load_sample_images().images[0][:60, :90])
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'


def exif(orientation: int) -> Image.Exif:
    stated = Image.Exif()
    stated[274] = orientation
    return stated


def expected(path: Path | BytesIO) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))


@pytest.mark.parametrize("stated", [*range(10)])
@pytest.mark.parametrize("name", ["a.jpg", "grey.jpg", "cmyk.jpg", "a.png", "a.tif", "a.webp", "a.avif"])
def test_files_are_read_upright_as_pillow_turns_them(tmp_path: Path, name: str, stated: int) -> None:
    path = tmp_path / name
    mode = {"grey": "L", "cmyk": "CMYK"}.get(path.stem, "RGB")
    PHOTO.convert(mode).save(path, exif=exif(stated))
    upright = expected(path)
    assert upright.shape[:2] == ((90, 60) if 5 <= stated <= 8 else (60, 90))
    assert np.array_equal(np.asarray(read_rgb(path)), upright)
    assert torch.equal(read_tensor(path), torch.from_numpy(upright.copy()).permute(2, 0, 1))


@pytest.mark.parametrize("stated", METHODS)
def test_16_bit_grey_is_turned_too(tmp_path: Path, stated: int) -> None:
    wide = np.linspace(0, 65535, 6 * 9).reshape(6, 9).astype(np.uint16)
    Image.fromarray(wide).save(tmp_path / "a.png", exif=exif(stated))
    with Image.open(tmp_path / "a.png") as image:
        upright = np.rint(np.asarray(ImageOps.exif_transpose(image)) / 257)
    assert np.array_equal(np.asarray(read_rgb(tmp_path / "a.png"))[..., 0], upright)


def test_an_orientation_in_xmp_counts_where_exif_has_none(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    PHOTO.save(path, xmp=XMP)
    upright = expected(path)
    assert upright.shape[:2] == (90, 60)
    assert np.array_equal(np.asarray(read_rgb(path)), upright)
    assert np.array_equal(read_tensor(path).permute(1, 2, 0).numpy(), upright)


def test_a_damaged_exif_block_leaves_a_sound_photograph_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    PHOTO.save(path, exif=b"Exif\0\0no TIFF header here")
    assert read_rgb(path).size == (90, 60)
    assert np.array_equal(read_tensor(path).permute(1, 2, 0).numpy(), np.asarray(read_rgb(path)))


def test_encoded_images_of_a_hub_set_are_turned() -> None:
    file = BytesIO()
    PHOTO.save(file, "JPEG", exif=exif(8))
    images = ImageList([file.getvalue()], np.zeros(1, dtype=np.int64))
    assert images.read(0).size == (60, 90)
    assert images.read_tensor(0).shape == (3, 90, 60)


@pytest.mark.parametrize("stated", METHODS)
def test_arrays_are_turned_as_images_are(stated: int) -> None:
    upright = PHOTO.transpose(METHODS[stated])
    assert np.array_equal(turned(np.asarray(PHOTO), stated), np.asarray(upright))


@pytest.mark.parametrize("pipeline", ["timm", "batched"])
@pytest.mark.parametrize("side", [24, 160], ids=["in memory", "decoded by the workers"])
def test_both_pipelines_see_a_rotated_file_as_its_upright_copy(tmp_path: Path, pipeline: str, side: int) -> None:
    photo = Image.fromarray(load_sample_images().images[0]).resize((side * 3 // 2, side))
    for split in ("train", "test"):
        for label in "ab":
            folder = tmp_path / split / label
            folder.mkdir(parents=True)
            photo.save(folder / "0.png")
            photo.transpose(Image.Transpose.ROTATE_90).save(folder / "1.png", exif=exif(6))
    data = ImageDataModule(image_folder(tmp_path), img_size=16, pipeline=pipeline, batch_size=4)
    (batch,) = data.test_dataloader()
    assert torch.equal(batch.images[0], batch.images[1])
    assert torch.equal(batch.images[2], batch.images[3])
