"""A small file that states a huge picture is refused by its header, in every reader."""

from __future__ import annotations

import pickle
import struct
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssat.core.errors import UserError
from ssat.data.bands import read_bands
from ssat.data.decode import read_rgb, read_tensor
from ssat.data.image import ImageDataModule
from ssat.data.jpeg import size_of_jpeg
from ssat.data.pixels import MOST_PIXELS, Pixels, TooLarge
from ssat.data.sets.folder import image_folder
from ssat.data.stored import opened
from ssat.data.survey import extremes_of_encoded
from ssat.data.video.store import StoredClip, write_clip
from ssat.results.page.pictures import embeddable
from tests.data.bombs import BOMBS, jpeg, png
from tests.data.files import write_tiff

READERS: dict[str, Callable[[Path], object]] = {
    "rgb": read_rgb,
    "tensor": read_tensor,
    "bands": lambda path: read_bands(path, Pixels(4)),
    "bytes": lambda path: read_rgb(BytesIO(path.read_bytes()), "number 3"),
}


@pytest.mark.parametrize("ending", BOMBS)
@pytest.mark.parametrize("reader", READERS)
def test_a_huge_picture_is_refused_and_not_called_damaged(tmp_path: Path, ending: str, reader: str) -> None:
    path = tmp_path / f"a.{ending}"
    path.write_bytes(BOMBS[ending]())
    with pytest.raises(TooLarge, match=rf"states [\d,]+ pixels, and at most data\.max_pixels={MOST_PIXELS}") as caught:
        READERS[reader](path)
    said = str(caught.value)
    assert "raise the key" in said and "repair" not in said and "data.on_bad_image=skip" in said
    assert str(pickle.loads(pickle.dumps(caught.value))) == said  # it crosses from a loader's worker


@pytest.mark.parametrize("ending", ["png", "jpg"])
@pytest.mark.parametrize("reader", ["rgb", "tensor"])
def test_a_narrow_picture_that_resizing_would_make_huge_is_refused(tmp_path: Path, ending: str, reader: str) -> None:
    Image.new("L", (1, 20_000)).save(tmp_path / f"a.{ending}")
    with pytest.raises(TooLarge, match=r"it is 1 x 20000, and resized to a short side of 256 it has [\d,]+ pixels"):
        READERS[reader](tmp_path / f"a.{ending}")
    Image.new("L", (10, 20_000)).save(tmp_path / f"b.{ending}")
    READERS[reader](tmp_path / f"b.{ending}")


@pytest.mark.parametrize("name", ["eps.png", "eps.eps"])
def test_a_drawing_that_another_program_would_run_is_no_picture(tmp_path: Path, monkeypatch, name: str) -> None:
    program = tmp_path / "bin" / "gs"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/canary\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    (tmp_path / name).write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n%%EndComments\nshowpage\n%%EOF\n"
    )
    with pytest.raises(UserError, match="not an image"):
        read_rgb(tmp_path / name)
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize("reader", ["rgb", "tensor", "bands"])
def test_the_key_bounds_what_is_read(tmp_path: Path, reader: str) -> None:
    Image.new("RGB", (40, 30)).save(tmp_path / "a.jpg")
    write_tiff(tmp_path / "b.tif", np.zeros((30, 40, 4), np.uint16), tile=16, deflate=True)
    np.save(tmp_path / "c.npy", np.zeros((30, 40, 4), np.uint8))
    read = {
        "rgb": lambda path, most: read_rgb(path, max_pixels=most),
        "tensor": lambda path, most: read_tensor(path, max_pixels=most),
        "bands": lambda path, most: read_bands(path, Pixels(3 if path.suffix == ".jpg" else 4, max_pixels=most)),
    }[reader]
    for name in ("a.jpg", "b.tif", "c.npy"):
        read(tmp_path / name, 1200)
        with pytest.raises(TooLarge, match=r"states 1,200 pixels, and at most data\.max_pixels=1199 are"):
            read(tmp_path / name, 1199)


def test_the_tiles_of_a_tiff_file_are_bounded_too(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", np.zeros((4, 4, 5), np.uint16), tile=16, deflate=True)
    data = path.read_bytes()
    for tag in (322, 323):
        data = data.replace(struct.pack("<HHII", tag, 4, 1, 16), struct.pack("<HHII", tag, 4, 1, 65_520))
    path.write_bytes(data)
    with pytest.raises(TooLarge, match="states 4,292,870,400 pixels"):
        read_bands(path, Pixels(5))


def test_a_later_page_of_a_tiff_file_is_bounded_too(tmp_path: Path) -> None:
    pages = [Image.new("L", (8, 8)), Image.new("L", (90, 90))]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(TooLarge, match="states 8,100 pixels"):
        read_bands(tmp_path / "a.tif", Pixels(2, max_pixels=1000))


def test_a_raised_key_also_raises_pillows_own_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    Image.new("L", (20, 20)).save(tmp_path / "a.png")
    with pytest.raises(TooLarge, match="400 pixels"), opened(tmp_path / "a.png", 200):
        pass
    with opened(tmp_path / "a.png", 400) as image:
        assert image.size == (20, 20)


def folder_with(tmp_path: Path, bomb: bytes) -> Path:
    for split in ("train", "test"):
        for label in ("a", "b"):
            (tmp_path / split / label).mkdir(parents=True)
            for number in range(4):
                Image.new("RGB", (20, 20), (number, 0, 0)).save(tmp_path / split / label / f"{number}.jpg")
    (tmp_path / "train/a/bomb.jpg").write_bytes(bomb)
    return tmp_path


def module(root: Path, pipeline: str, **options: object) -> ImageDataModule:
    options = {"batch_size": 3, "channels": 3, **options}
    return ImageDataModule(image_folder(root), img_size=16, pipeline=pipeline, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(("pipeline", "channels", "workers"), [("timm", 3, 0), ("timm", 1, 1), ("batched", 3, 0)])
def test_both_pipelines_refuse_it_or_leave_it_out(tmp_path: Path, pipeline: str, channels: int, workers: int) -> None:
    root = folder_with(tmp_path, jpeg())
    data = module(root, pipeline, channels=channels, num_workers=workers)
    data.setup()
    with pytest.raises(UserError, match=r"^the image \S+bomb\.jpg is not read: it states 4,290,250,000 pixels"):
        list(data.train_dataloader())
    kept = module(root, pipeline, channels=channels, on_bad_image="skip")
    kept.setup()
    assert [Path(path).name for path in kept.skipped] == ["bomb.jpg"] and len(list(kept.train_dataloader())) >= 2


def test_what_is_left_out_follows_the_key(tmp_path: Path) -> None:
    root = folder_with(tmp_path, jpeg())
    for most, left in ((MOST_PIXELS, 1), (300, 17), (MOST_PIXELS, 1)):  # also where it is remembered
        images = image_folder(root).train.read_as(Pixels(max_pixels=most))
        assert len(images.readable()[1]) == min(left, len(images))


def test_the_survey_of_a_set_passes_over_it() -> None:
    assert extremes_of_encoded([png(), png()]) == []


def test_a_page_of_a_report_shows_no_such_picture(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png())
    assert embeddable(tmp_path, "a.png", 10**6) is None


def test_a_stored_clip_with_a_huge_frame_is_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ssat.data.video.store.MAX_PIXELS", 63)
    write_clip(tmp_path / "a.zip", [np.zeros((8, 8, 3), np.uint8)], {})
    with pytest.raises(UserError, match=r"cannot be read \(TooLarge: it states 64 pixels"):
        StoredClip(tmp_path / "a.zip").read([0])


# --- the size of a JPEG


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"exif": b"Exif\0\0" + b"\xff\xc0" * 40}], ids=str)
def test_the_size_of_a_jpeg_is_that_of_its_frame(options: dict[str, object]) -> None:
    data = BytesIO()
    Image.new("RGB", (31, 17)).save(data, "JPEG", **options)
    assert size_of_jpeg(data.getvalue()) == (31, 17)


@pytest.mark.parametrize("between", [b"", b"\xff\xff\xff", b"\0garbage", b"\xff\0", b"\xff\x01", b"\xff\xd0"])
def test_bytes_between_segments_do_not_hide_the_size(between: bytes) -> None:
    data = BytesIO()
    Image.new("RGB", (31, 17)).save(data, "JPEG")
    sound = data.getvalue()
    place = sound.find(b"\xff\xc0")
    assert size_of_jpeg(sound[:place] + between + sound[place:]) == (31, 17)


@pytest.mark.parametrize("data", [b"", b"\xff\xd8", b"\xff\xd8\xff", b"\xff\xd8\xff\xc0\0\x08", b"\xff\xd8\xff\xda\0"])
def test_no_size_is_found_where_there_is_none(data: bytes) -> None:
    assert size_of_jpeg(data) is None
