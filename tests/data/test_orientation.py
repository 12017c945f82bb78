from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from sklearn.datasets import load_sample_images

from ssat.data.bands import read_bands
from ssat.data.decode import read_rgb, read_tensor
from ssat.data.image import ImageDataModule
from ssat.data.orientation import METHODS, turned
from ssat.data.pixels import Pixels
from ssat.data.sets.folder import image_folder
from ssat.data.sets.sources import ImageList
from tests.data.files import write_tiff

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


GREY = np.arange(54).reshape(6, 9)
MODES = {
    "1": GREY % 3 == 0,
    **dict.fromkeys(("L", "P", "LA", "RGB", "RGBA", "CMYK", "YCbCr", "LAB"), (GREY * 4).astype(np.uint8)),
    "I;16": (GREY * 1200).astype(np.uint16),
    "I;16B": (GREY * 1200).astype(">u2"),
    "I": (GREY * 12_000_000).astype(np.int32),
    "F": GREY.astype(np.float32),
}
COMPRESSIONS = (None, "tiff_lzw", "tiff_adobe_deflate", "packbits")


def in_mode(mode: str, shift: int = 0) -> Image.Image:
    image = Image.fromarray(np.roll(MODES[mode], shift))
    return image if image.mode == mode else image.convert(mode)


def ranged(mode: str) -> tuple[float, float] | None:
    return {"I": (0.0, 12e6 * 53), "F": (0.0, 53.0)}.get(mode)


@pytest.mark.sampled
@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("mode", MODES)
def test_a_tiff_of_every_mode_is_upright_in_every_reader(tmp_path: Path, mode: str, compression: str | None) -> None:
    image, path, values = in_mode(mode), tmp_path / "a.tif", ranged(mode)
    image.save(path, compression=compression)
    plain = np.asarray(read_rgb(path, value_range=values))
    bands = 1 if MODES[mode].dtype != np.uint8 and mode != "1" else {"L": 1, "LA": 2, "RGBA": 4, "CMYK": 4}.get(mode, 3)
    of_bands = read_bands(path, Pixels(bands, values))
    assert len(np.unique(plain)) > 1 and of_bands.shape == (6, 9, bands)
    # libtiff writes no other numbers than 1 to 8
    for stated in (*range(1, 9), *((0, 9, 300, 65535) if compression is None else ())):
        image.save(path, compression=compression, tiffinfo={274: stated})
        expected = turned(plain, stated)
        for file in (path, BytesIO(path.read_bytes())):
            assert np.array_equal(np.asarray(read_rgb(file, value_range=values)), expected), stated
            assert np.array_equal(read_bands(file, Pixels(bands, values)), turned(of_bands, stated)), stated
        assert np.array_equal(read_tensor(path, values).permute(1, 2, 0).numpy(), expected), stated


@pytest.mark.parametrize("stated", [*METHODS, 9])
@pytest.mark.parametrize("mode", ["L", "I;16", "I;16B", "I", "F"])
def test_every_page_of_a_tiff_is_turned(tmp_path: Path, mode: str, stated: int) -> None:
    path, values = tmp_path / "a.tif", ranged(mode)
    pages = [in_mode(mode, shift) for shift in range(2)]
    pages[0].save(path, save_all=True, append_images=pages[1:])
    plain, plain_first = read_bands(path, Pixels(2, values)), np.asarray(read_rgb(path, value_range=values))
    assert plain.shape == (6, 9, 2) and not np.array_equal(plain[..., 0], plain[..., 1])
    pages[0].save(path, save_all=True, append_images=pages[1:], tiffinfo={274: stated})
    assert np.array_equal(read_bands(path, Pixels(2, values)), turned(plain, stated))
    assert np.array_equal(np.asarray(read_rgb(path, value_range=values)), turned(plain_first, stated))


@pytest.mark.parametrize("how", [{}, {"planar": True}, {"deflate": True, "predictor": 2}, {"tile": 16}, {"order": ">"}])
@pytest.mark.parametrize("channels", [2, 3, 5])
def test_a_tiff_that_pillow_has_no_mode_for_is_turned(tmp_path: Path, channels: int, how: dict) -> None:
    pixels = np.random.default_rng(0).integers(0, 65536, (6, 9, channels), dtype=np.uint16)
    for stated in (*METHODS, 0, 9, 70000):
        path = write_tiff(tmp_path / "a.tif", pixels, orientation=stated, **how)
        expected = turned(np.rint(pixels / 257).astype(np.uint8), stated)
        assert np.array_equal(read_bands(path, Pixels(channels)), expected)


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
