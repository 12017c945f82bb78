from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ssat.core.errors import UserError
from ssat.core.views import simclr_views, weak_view
from ssat.data.bands import read_bands
from ssat.data.decode import read_rgb, read_tensor
from ssat.data.image import ImageDataModule
from ssat.data.orientation import turned
from ssat.data.pixels import Pixels
from ssat.data.sets.folder import image_folder
from ssat.data.sets.sources import ImageList, Source
from tests.data.conftest import OFFICIAL
from tests.data.files import write_png16, write_tiff

GEOMETRIC = OFFICIAL | {"auto_augment": None}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def pixels(channels: int, side: int = 20, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (side, side + 6, channels), dtype=np.uint8)


def folder(root: Path, channels: int, side: int = 20, kind: str = ".tif") -> Path:
    for number, split in enumerate(("train", "test")):
        for label in "ab":
            (root / split / label).mkdir(parents=True)
            for k in range(4):
                values = pixels(channels, side, seed=10 * number + k + 5 * (label == "b"))
                path = root / split / label / f"{k}{kind}"
                write_tiff(path, values) if kind == ".tif" else np.save(path, values)
    return root


def opened(root: Path, channels: int, **options: Any) -> ImageDataModule:
    usual: dict[str, Any] = {"img_size": 16, "batch_size": 8, "augment": GEOMETRIC, "own_statistics": True}
    data = ImageDataModule(image_folder(root), channels=channels, **usual | options)
    data.setup()
    return data


def save_pages(path: Path, values: np.ndarray) -> None:
    pages = [Image.fromarray(values[..., c]) for c in range(values.shape[2])]
    pages[0].save(path, save_all=True, append_images=pages[1:])


WRITERS = {
    "a.tif": write_tiff,
    "planar.tif": lambda path, values: write_tiff(path, values, planar=True),
    "pages.tif": save_pages,
    "last.npy": np.save,
    "first.npy": lambda path, values: np.save(path, values.transpose(2, 0, 1)),
}


@pytest.mark.parametrize("channels", [2, 4, 5, 16])
@pytest.mark.parametrize("name", WRITERS)
def test_files_of_many_channels_keep_them_all(tmp_path: Path, name: str, channels: int) -> None:
    values = pixels(channels)
    WRITERS[name](tmp_path / name, values)
    assert np.array_equal(read_bands(tmp_path / name, Pixels(channels)), values)


def test_pages_are_turned_once(tmp_path: Path) -> None:
    values = pixels(5)
    rotated = Image.Exif()
    rotated[274] = 6
    pages = [Image.fromarray(values[..., c]) for c in range(5)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:], exif=rotated)
    assert np.array_equal(read_bands(tmp_path / "a.tif", Pixels(5)), turned(values, 6))


def test_a_cut_tiff_is_a_damaged_file(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", pixels(5))
    data = bytearray(path.read_bytes())
    for kept in (300, len(data) - 400):
        path.write_bytes(data[:kept])
        with pytest.raises(UserError, match="cannot read the image"):
            read_bands(path, Pixels(5))


def test_four_channels_of_a_png_are_not_laid_over_white(tmp_path: Path) -> None:
    values = pixels(4)
    Image.fromarray(values, "RGBA").save(tmp_path / "a.png")
    assert np.array_equal(read_bands(tmp_path / "a.png", Pixels(4)), values)
    deep = (values.astype(np.uint16) << 8) + 3
    write_png16(tmp_path / "b.png", deep)
    assert np.array_equal(read_bands(tmp_path / "b.png", Pixels(4)), np.rint(deep / 257).astype(np.uint8))


@pytest.mark.parametrize("channels", [0, 1, 3])
@pytest.mark.parametrize("first", [False, True])
def test_arrays_of_grey_or_colour_are_pictures(tmp_path: Path, channels: int, first: bool) -> None:
    values = pixels(channels or 1)
    stored = values[..., 0] if not channels else np.moveaxis(values, 2, 0) if first else values
    np.save(tmp_path / "a.npy", stored)
    rgb = np.broadcast_to(values, (20, 26, 3))
    assert np.array_equal(np.asarray(read_rgb(tmp_path / "a.npy")), rgb)
    assert np.array_equal(read_tensor(tmp_path / "a.npy").permute(1, 2, 0).numpy(), rgb)


@pytest.mark.parametrize("kind", ["tif", "npy"])
def test_a_range_holds_for_every_channel(tmp_path: Path, kind: str) -> None:
    values = np.random.default_rng(0).normal(0, 3000, (9, 8, 6)).astype(np.float32)
    path = tmp_path / f"a.{kind}"
    write_tiff(path, values) if kind == "tif" else np.save(path, values)
    expected = np.rint(np.clip((values.astype(float) + 1000) / 5000, 0, 1) * 255)
    assert np.array_equal(read_bands(path, Pixels(6, (-1000, 4000))), expected.astype(np.uint8))
    with pytest.raises(UserError, match="data.value_range"):
        read_bands(path, Pixels(6))


@pytest.mark.parametrize("channels", [2, 5])
@pytest.mark.parametrize("side", [20, 150], ids=["in memory", "decoded by the workers"])
def test_both_pipelines_evaluate_the_same_pixels(tmp_path: Path, channels: int, side: int) -> None:
    root = folder(tmp_path, channels, side)
    (reference,) = opened(root, channels, pipeline="timm").test_dataloader()
    (batched,) = opened(root, channels, pipeline="batched").test_dataloader()
    assert reference.images.shape == (8, channels, 16, 16)
    apart = (reference.images - batched.images).abs() * torch.tensor(opened(root, channels).std).view(-1, 1, 1) * 255
    assert apart.max() < 1.1 and apart.mean() < 0.02  # of a grey level, as for colours


@pytest.mark.parametrize("pipeline", ["timm", "batched"])
@pytest.mark.parametrize("kind", [".tif", ".npy"])
def test_training_images_are_augmented_alike_in_all_channels(tmp_path: Path, pipeline: str, kind: str) -> None:
    root = folder(tmp_path, 4, kind=kind)
    for path in root.rglob(f"*{kind}"):
        one = pixels(1, seed=int(path.stem))
        write_tiff(path, np.repeat(one, 4, 2)) if kind == ".tif" else np.save(path, np.repeat(one, 4, 2))
    data = opened(root, 4, pipeline=pipeline, augment=GEOMETRIC | {"re_prob": 0.0, "crop_scale": [0.3, 1.0]})
    (batch,) = data.train_dataloader()
    assert batch.images.shape == (8, 4, 16, 16)
    assert torch.allclose(batch.images, batch.images[:, :1].expand_as(batch.images), atol=1e-5)
    again = data.training_images(batch.indices.tolist(), epoch=0).images
    other = data.training_images(batch.indices.tolist(), epoch=1).images
    assert torch.equal(again, batch.images) and not torch.equal(other, batch.images)


@pytest.mark.parametrize("pipeline", ["timm", "batched"])
def test_erased_rectangles_reach_every_channel(tmp_path: Path, pipeline: str) -> None:
    data = opened(folder(tmp_path, 7), 7, pipeline=pipeline, augment=GEOMETRIC | {"re_prob": 1.0})
    (batch,) = data.train_dataloader()
    assert batch.images.shape == (8, 7, 16, 16) and batch.images.isfinite().all()


@pytest.mark.parametrize(
    ("pipeline", "key", "value"),
    [
        ("timm", "auto_augment", "rand-m9-mstd0.5-inc1"),
        ("batched", "auto_augment", "rand-m9-mstd0.5-inc1"),
        ("timm", "color_jitter", 0.4),
    ],
)
def test_operations_on_colours_are_refused_by_key(tmp_path: Path, pipeline: str, key: str, value: Any) -> None:
    with pytest.raises(UserError, match=f"set recipe.augment.{key}=null") as caught:
        opened(folder(tmp_path, 5), 5, pipeline=pipeline, augment=GEOMETRIC | {key: value})
    assert caught.value.key == f"recipe.augment.{key}"


def test_views_that_change_colours_are_refused_and_others_are_made(tmp_path: Path) -> None:
    root = folder(tmp_path, 5)
    with pytest.raises(UserError, match="ssl.view_augment=same"):
        opened(root, 5, pipeline="batched", views=simclr_views(16))
    (batch,) = opened(root, 5, pipeline="batched", views=[weak_view(16), "again"]).train_dataloader()
    assert [view.shape for view in batch.views] == [(8, 5, 16, 16)] * 2


def test_perturbed_images_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="data.perturb"):
        opened(folder(tmp_path, 5), 5).eval_loader("test", perturb=lambda image, index: image)


@pytest.mark.parametrize("channels", [0, 17, -1])
def test_a_number_of_channels_that_is_not_possible_is_refused(toy_source: Source, channels: int) -> None:
    with pytest.raises(UserError, match=f"data.channels={channels} is not possible"):
        ImageDataModule(toy_source, img_size=12, channels=channels)


def test_files_of_other_channels_are_refused_at_the_start(tmp_path: Path) -> None:
    root = folder(tmp_path, 5)
    with pytest.raises(UserError, match=r"shape \(20, 26, 5\), without 4 channels .*: set data.channels"):
        opened(root, 4)
    with pytest.raises(UserError, match="it has 5 channels: set data.channels=5"):
        next(iter(opened(root, 3, own_statistics=False).test_dataloader()))
    with pytest.raises(UserError, match=r"5 needs as many as channels: recipe.statistics=own"):
        opened(root, 5, own_statistics=False)


def test_two_channels_do_not_take_the_statistics_of_red_and_green(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has 3 values, but data.channels=2 needs as many"):
        opened(folder(tmp_path, 2), 2, own_statistics=False)


@pytest.mark.parametrize("pipeline", ["timm", "batched"])
def test_arrays_of_many_channels_train_too(pipeline: str) -> None:
    images = ImageList(np.stack([pixels(6, 20, seed)[:, :20] for seed in range(8)]), np.arange(8) % 2)
    data = ImageDataModule(
        Source("toy", ["a", "b"], images, images),
        channels=6,
        img_size=20,
        eval_crop_pct=1.0,
        batch_size=8,
        pipeline=pipeline,
        own_statistics=True,
    )
    (batch,) = data.test_dataloader()
    pixel = (batch.images * torch.tensor(data.std).view(-1, 1, 1) + torch.tensor(data.mean).view(-1, 1, 1)) * 255
    assert np.array_equal(pixel.round().permute(0, 2, 3, 1).numpy(), images.images)


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_own_statistics_are_those_of_the_training_pixels(tmp_path: Path, channels: int) -> None:
    root = folder(tmp_path, channels)
    data = opened(root, channels, augment=None, val_fraction=0.25, batch_size=6)
    images, indices = data.split("train")
    assert len(indices) == 6
    values = np.stack([np.asarray(images.read(i).convert("L") if channels == 1 else images.read(i)) for i in indices])
    values = values.reshape(-1, channels) / 255
    assert np.allclose(data.mean, values.mean(0), atol=1e-12) and np.allclose(data.std, values.std(0), atol=1e-9)


def test_own_statistics_are_kept_beside_the_images_until_one_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = folder(tmp_path / "images", 5)
    first = opened(root, 5)
    assert len(list((root / ".ssat").rglob("*.json"))) == 1
    with monkeypatch.context() as patch:
        patch.setattr("ssat.data.moments._measured", lambda *_: pytest.fail("measured again"))
        assert opened(root, 5).mean == first.mean
    write_tiff(root / "train/a/0.tif", np.full((20, 26, 5), 255, np.uint8))
    assert opened(root, 5).mean > first.mean
    assert image_folder(root).classes == ["a", "b"]


def test_a_channel_without_any_contrast_is_named(tmp_path: Path) -> None:
    root = folder(tmp_path, 4)
    for path in root.rglob("*.tif"):
        values = pixels(4)
        values[..., 2] = 9
        write_tiff(path, values)
    with pytest.raises(UserError, match="channel 2 .from 0. has the same value"):
        opened(root, 4)
