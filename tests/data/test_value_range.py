from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ssat.core.errors import UserError
from ssat.data.decode import read_rgb, read_tensor
from ssat.data.image import ImageDataModule
from ssat.data.sets.folder import image_folder
from ssat.data.sets.sources import ImageList, Source
from ssat.data.tiff import samples
from tests.data.files import write_png16, write_tiff

RAMP = np.arange(24, dtype=np.int64).reshape(4, 6)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def linear(values: np.ndarray, low: float, high: float) -> np.ndarray:
    return np.rint(np.clip((values.astype(float) - low) / (high - low), 0, 1) * 255).astype(np.uint8)


def save(path: Path, values: np.ndarray) -> Path:
    Image.fromarray(values).save(path)
    return path


CASES = {
    "12 bits of 16.png": ((RAMP * 178).astype(np.uint16), (0, 4095)),
    "12 bits of 16.tif": ((RAMP * 178).astype(np.uint16), (0, 4095)),
    "signed 16.tif": ((RAMP * 100 - 1024).astype(np.int16), (-1000, 400)),
    "signed 32.tif": ((RAMP * 100 - 1024).astype(np.int32), (-1000, 400)),
    "float.tif": ((RAMP / 10 - 0.3).astype(np.float32), (-0.2, 1.7)),
    "8 bits.png": ((RAMP * 10).astype(np.uint8), (20, 200)),
    "8 bits.tif": ((RAMP * 10).astype(np.uint8), (20, 200)),
    "reversed sign.tif": ((RAMP * 10 - 120).astype(np.int8), (-128, 127)),
}


def write(path: Path, values: np.ndarray) -> Path:
    if path.suffix == ".tif" and values.dtype.kind == "i" and values.itemsize < 4:
        return write_tiff(path, values[..., None])
    return save(path, values)


@pytest.mark.parametrize("name", CASES)
def test_a_range_maps_the_stored_values_linearly_and_clips(tmp_path: Path, name: str) -> None:
    values, (low, high) = CASES[name]
    path = write(tmp_path / name, values)
    found = np.asarray(read_rgb(path, value_range=(low, high)))
    assert np.array_equal(found, np.repeat(linear(values, low, high)[..., None], 3, 2))
    assert np.array_equal(read_tensor(path, (low, high)).permute(1, 2, 0).numpy(), found)


@pytest.mark.parametrize("name", ["a.jpg", "grey.jpg", "a.webp", "a.png"])
def test_a_range_of_8_bit_files_is_the_same_in_both_decoders(tmp_path: Path, name: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    path = tmp_path / name
    Image.fromarray(pixels).convert("L" if "grey" in name else "RGB").save(path)
    found = np.asarray(read_rgb(path, value_range=(30, 180)))
    assert np.array_equal(found, linear(np.asarray(read_rgb(path)), 30, 180))
    assert np.array_equal(read_tensor(path, (30, 180)).permute(1, 2, 0).numpy(), found)


@pytest.mark.parametrize(("name", "channels"), [("a.png", 1), ("a.png", 2), ("a.png", 3), ("a.png", 4), ("a.tif", 3)])
def test_colours_of_16_bits_keep_their_lower_bits_in_a_range(tmp_path: Path, name: str, channels: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 4096, (5, 7, channels), dtype=np.uint16)
    if channels in (2, 4):
        pixels[..., -1] = 65535  # opaque
    path = (write_png16 if name == "a.png" else write_tiff)(tmp_path / name, pixels)
    colours = pixels[..., : 3 if channels > 2 else 1]
    expected = np.broadcast_to(linear(colours, 0, 4095), (5, 7, 3))
    assert np.array_equal(np.asarray(read_rgb(path, value_range=(0, 4095))), expected)


def test_the_whole_16_bits_as_a_range_are_what_no_range_is(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", np.arange(0, 65536, 5, dtype=np.uint16).reshape(4, -1))
    assert np.array_equal(np.asarray(read_rgb(path, value_range=(0, 65535))), np.asarray(read_rgb(path)))


LAYOUTS = {
    "strips": {},
    "planar": {"planar": True},
    "deflate": {"deflate": True},
    "differences": {"deflate": True, "predictor": 2},
    "big endian": {"order": ">", "predictor": 2, "deflate": True},
    "planar big endian": {"order": ">", "planar": True},
    "tiles": {"tile": 16, "deflate": True, "predictor": 2},
    "planar tiles": {"tile": 16, "planar": True},
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", ["u1", "u2", "i2", "i4", "f4", "f8"])
def test_every_sample_of_a_tiff_is_read(tmp_path: Path, layout: str, dtype: str) -> None:
    rng = np.random.default_rng(0)
    values = (rng.normal(size=(20, 37, 5)) * 50 + 100).clip(0, 250).astype(dtype)
    if LAYOUTS[layout].get("predictor") and dtype[0] == "f":
        layout, how = "floating point", {"predictor": 3, "deflate": True}
    else:
        how = LAYOUTS[layout]
    path = write_tiff(tmp_path / "a.tif", values, **how)
    found = samples(path.read_bytes())
    assert found.dtype == values.dtype and np.array_equal(found, values)


def folder(root: Path, values: list[np.ndarray], suffix: str = ".png") -> Path:
    for split in ("train", "test"):
        for label, value in zip("ab", values, strict=True):
            (root / split / label).mkdir(parents=True)
            for number in range(2):
                write(root / split / label / f"{number}{suffix}", value)
    return root


def opened(root: Path, **options) -> ImageDataModule:
    data = ImageDataModule(image_folder(root), img_size=8, batch_size=4, **options)
    data.setup()
    return data


@pytest.mark.parametrize("on_bad_image", ["error", "skip"])
@pytest.mark.parametrize(
    ("values", "suffix", "said"),
    [
        ((RAMP * 178).astype(np.uint16), ".png", "in 8 images of image_folder is 4094, far below the 65535"),
        ((RAMP * 178).astype(np.uint16), ".tif", r"set data.value_range=\[0,4095\], or data.value_range=\[0,65535\]"),
        ((RAMP * 700).astype(np.uint16), ".png", r"is 16100, far below the 65535.*data.value_range=\[0,16383\]"),
        ((RAMP * 178).astype(np.int32), ".tif", "is 4094, far below the 2147483647"),
        ((RAMP * 178).astype(np.int16), ".tif", "is 4094, far below the 32767"),
        ((RAMP * 100 - 1024).astype(np.int16), ".tif", r"negative values.*data.value_range=.*from -1024 to 1276"),
        ((RAMP * 100 - 1024).astype(np.int32), ".tif", "negative values.*data.value_range"),
        ((RAMP - 9).astype(np.int8), ".tif", "negative values.*data.value_range"),
        ((RAMP / 9).astype(np.float32), ".tif", "floating-point values.*data.value_range"),
    ],
    ids=lambda value: str(value)[:12] if isinstance(value, str) else "",
)  # fmt: skip
def test_a_set_that_needs_a_range_is_refused_before_it_is_read(
    tmp_path: Path, values: np.ndarray, suffix: str, said: str, on_bad_image: str
) -> None:
    root = folder(tmp_path, [values, values], suffix)
    with pytest.raises(UserError, match=said) as caught:
        opened(root, on_bad_image=on_bad_image)
    assert caught.value.key == "data.value_range" and "\n" not in str(caught.value)
    low, high = float(values.min()), float(values.max())
    assert opened(root, value_range=(low, high), on_bad_image=on_bad_image).sizes == {"train": 4, "test": 4}


def test_one_bright_image_of_16_bits_is_enough(tmp_path: Path) -> None:
    dark = (RAMP * 178).astype(np.uint16)
    assert opened(folder(tmp_path, [dark, dark * 16])).sizes["train"] == 4


def test_a_dark_set_of_16_bit_colour_is_refused_too(tmp_path: Path) -> None:
    root = folder(tmp_path, [RAMP.astype(np.uint8)] * 2)
    for path in root.rglob("*.png"):
        write_png16(path, np.full((4, 4, 3), 4095, np.uint16))
    with pytest.raises(UserError, match="4095, far below the 65535"):
        opened(root)


def test_encoded_images_of_a_hub_set_are_looked_at_too() -> None:
    file = BytesIO()
    Image.fromarray((RAMP * 178).astype(np.uint16)).save(file, "PNG")
    images = ImageList([file.getvalue()] * 4, np.array([0, 1, 0, 1]))
    with pytest.raises(UserError, match="8 images of toy is 4094"):
        ImageDataModule(Source("toy", ["a", "b"], images, images), img_size=8, batch_size=4).setup()


@pytest.mark.parametrize("pipeline", ["timm", "batched"])
@pytest.mark.parametrize("in_memory", [True, False])
def test_both_pipelines_train_on_the_range(tmp_path: Path, pipeline: str, in_memory: bool) -> None:
    values = (RAMP * 100 - 1024).astype(np.int16)
    data = opened(
        folder(tmp_path, [values, values], ".tif"),
        value_range=(-1024, 1276),
        mean=(0, 0, 0),
        std=(1, 1, 1),
        pipeline=pipeline,
        memory_gb=4 if in_memory else 0,
    )
    (batch,) = data.test_dataloader()
    grey = Image.fromarray(linear(values, -1024, 1276)).convert("RGB")
    assert torch.allclose(batch.images[0], data.eval_transform(grey), atol=1.1 / 255)
    assert batch.images.max() > 0.5


@pytest.mark.parametrize("pipeline", ["timm", "batched"])
def test_pixels_in_memory_follow_the_range_too(pipeline: str) -> None:
    images = ImageList(np.full((4, 8, 8), 1000, np.uint16), np.array([0, 1, 0, 1]))  # type: ignore[arg-type]
    source = Source("toy", ["a", "b"], images, images)
    with pytest.raises(UserError, match=r"data.value_range=\[0,1023\]"):
        ImageDataModule(source, img_size=8, pipeline=pipeline)
    same: dict = {"img_size": 8, "pipeline": pipeline, "batch_size": 4, "mean": (0, 0, 0), "std": (1, 1, 1)}
    data = ImageDataModule(source, value_range=(0, 2000), **same)
    (batch,) = data.test_dataloader()
    assert torch.allclose(batch.images, torch.full_like(batch.images, 128 / 255))


@pytest.mark.parametrize("wrong", [(), (5, 5), (10, 1), (0, float("nan")), (0, float("inf")), (1, 2, 3)])
def test_a_range_that_is_none_is_refused(toy_source: Source, wrong: tuple) -> None:
    with pytest.raises(UserError, match="data.value_range=.* is not possible: it is .lo, hi.") as caught:
        ImageDataModule(toy_source, img_size=12, value_range=wrong)
    assert caught.value.key == "data.value_range"


def test_pixels_that_are_no_numbers_are_a_damaged_file(tmp_path: Path) -> None:
    values = RAMP.astype(np.float32)
    values[0, 0] = np.nan
    with pytest.raises(UserError, match="cannot read the image .*NaN"):
        read_rgb(save(tmp_path / "a.tif", values), value_range=(0, 9))
