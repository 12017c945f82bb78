from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_images

from ssat.core.errors import UserError
from ssat.data.decode import read_rgb, read_tensor, unreadable


def pixel(path: Path) -> tuple[int, ...]:
    image = read_rgb(path)
    assert image.mode == "RGB"
    return image.getpixel((0, 0))


def save(image: Image.Image, path: Path, **options) -> Path:
    image.save(path, **options)
    return path


@pytest.mark.parametrize(
    ("image", "name", "expected"),
    [
        (Image.new("L", (4, 4), 77), "grey.png", (77, 77, 77)),
        (Image.new("1", (4, 4), 1), "bits.png", (255, 255, 255)),
        (Image.fromarray(np.full((4, 4), 257 * 100, np.uint16)), "16bit.png", (100, 100, 100)),
        (Image.fromarray(np.full((4, 4), 65535, np.uint16)), "16bit.tif", (255, 255, 255)),
        (Image.new("RGBA", (4, 4), (200, 0, 0, 0)), "transparent.png", (255, 255, 255)),
        (Image.new("RGBA", (4, 4), (0, 0, 0, 128)), "half.png", (127, 127, 127)),
        (Image.new("LA", (4, 4), (10, 255)), "grey_alpha.png", (10, 10, 10)),
        (Image.new("CMYK", (4, 4), (0, 255, 255, 0)), "cmyk.tif", (255, 0, 0)),
        (Image.new("RGB", (4, 4), (1, 2, 3)), "pixmap.ppm", (1, 2, 3)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_kind_of_pixel_becomes_8_bit_rgb(tmp_path: Path, image: Image.Image, name: str, expected: tuple) -> None:
    assert pixel(save(image, tmp_path / name)) == expected


def test_a_palette_keeps_its_colours_and_its_transparency_is_white(tmp_path: Path) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 0, 0])
    image.putpixel((1, 0), 1)
    rgb = read_rgb(save(image, tmp_path / "palette.png", transparency=1))
    assert [rgb.getpixel((x, 0)) for x in (0, 1)] == [(10, 20, 30), (255, 255, 255)]


def test_of_an_animation_the_first_frame_is_read(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    assert pixel(save(frames[0], tmp_path / "film.gif", save_all=True, append_images=frames[1:])) == (255, 0, 0)


def damaged(tmp_path: Path, kind: str) -> Path:
    path = tmp_path / "photo.jpg"
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    if kind == "truncated":
        path.write_bytes(path.read_bytes()[:900])
    if kind == "not an image":
        path.write_text("<html>404</html>")
    if kind == "empty":
        path.write_bytes(b"")
    if kind == "gone":
        path.unlink()
    return path


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("truncated", "truncated"),
        ("not an image", "not an image"),
        ("empty", "the file is empty"),
        ("gone", "No such file or directory"),
    ],
)
def test_an_unreadable_file_is_named_with_reason_and_cure(tmp_path: Path, kind: str, reason: str) -> None:
    path = damaged(tmp_path, kind)
    with pytest.raises(UserError) as caught:
        read_rgb(path)
    message = str(caught.value)
    assert message.startswith(f"cannot read the image {path} (") and reason in message
    assert message.endswith("data.on_bad_image=skip") and "\n" not in message


def test_floating_point_pixels_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="floating-point numbers of unknown range, save it with 8 or 16 bits"):
        read_rgb(save(Image.new("F", (4, 4), 0.5), tmp_path / "float.tif"))


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_the_scan_finds_exactly_the_unreadable_files(make_folder, tmp_path: Path) -> None:
    root = make_folder({"a": 300})
    names = [f"a/{number:03}.png" for number in range(300)]
    for number in (0, 255, 256, 299):
        (root / names[number]).write_bytes(b"no image")
    assert unreadable(root, names) == [names[0], names[255], names[256], names[299]]


def test_the_scan_is_repeated_only_when_a_file_has_changed(make_folder, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_folder({"a": 3})
    names = ["a/000.png", "a/001.png", "a/002.png"]
    read: list[Path] = []
    monkeypatch.setattr("ssat.data.decode.read_rgb", lambda path: read.append(path))
    assert unreadable(root, names) == unreadable(root, names) == []
    assert len(read) == 3
    (root / "a/001.png").write_bytes(b"other")
    unreadable(root, names)
    assert len(read) == 6


def test_a_cache_that_cannot_be_written_does_not_matter(make_folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nowhere")
    assert unreadable(make_folder({"a": 2}), ["a/000.png", "a/001.png"]) == []


PHOTO = Image.fromarray(load_sample_images().images[0][:200, :300])
ROTATED = Image.Exif()
ROTATED[274] = 6


@pytest.mark.parametrize(
    ("image", "name", "options"),
    [
        (PHOTO, "colour.jpg", {"quality": 90}),
        (PHOTO, "progressive.jpg", {"progressive": True}),
        (PHOTO, "full_chroma.jpg", {"subsampling": 0}),
        (PHOTO, "orientation.jpg", {"exif": ROTATED}),
        (PHOTO.convert("L"), "grey.jpg", {}),
        (PHOTO.convert("CMYK"), "cmyk.jpg", {}),
        (PHOTO.convert("RGBA"), "alpha.png", {}),
        (PHOTO.convert("P"), "palette.gif", {"save_all": True, "append_images": [PHOTO.rotate(90)]}),
        (PHOTO, "lossy.webp", {}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_tensors_hold_the_very_pixels_that_pillow_reads(
    tmp_path: Path, image: Image.Image, name: str, options: dict
) -> None:
    path = save(image, tmp_path / name, **options)
    expected = torch.from_numpy(np.array(read_rgb(path))).permute(2, 0, 1)
    assert torch.equal(read_tensor(path), expected)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.98])
def test_a_cut_jpeg_is_no_tensor(tmp_path: Path, share: float) -> None:
    path = save(PHOTO, tmp_path / "cut.jpg")
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(UserError, match=r"cannot read the image .*cut\.jpg"):
        read_tensor(path)
