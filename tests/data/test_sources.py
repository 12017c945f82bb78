from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ssat.core.errors import UserError
from ssat.data.sets.folder import image_folder
from ssat.data.sets.sources import digits

Make = Callable[[dict[str, int]], Path]
SPLIT = {"train/cat": 3, "train/dog": 2, "test/cat": 1, "test/dog": 1}


def refused(root: Path | str, **options) -> str:
    with pytest.raises(UserError) as caught:
        image_folder(root, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


# --- digits


def test_digits_are_the_real_1797_in_ten_classes() -> None:
    source = digits()
    assert (len(source.train), len(source.test), len(source.classes)) == (1437, 360, 10)
    assert source.train.images.shape == (1437, 8, 8, 3) and source.train.images.dtype == np.uint8


def test_digits_are_scikit_learns_with_the_whole_range_of_grey() -> None:
    from sklearn.datasets import load_digits

    def ordered(images: np.ndarray, labels: np.ndarray) -> list[bytes]:
        return sorted(image.tobytes() + bytes([label]) for image, label in zip(images, labels, strict=True))

    source, theirs = digits(), load_digits()
    pixels = np.concatenate([source.train.images, source.test.images])
    assert (pixels.min(), pixels.max()) == (0, 255)
    assert (pixels == pixels[..., :1]).all()
    ours = ordered(pixels[..., 0], np.concatenate([source.train.labels, source.test.labels]))
    assert ours == ordered(np.rint(theirs.images * 255 / 16).astype(np.uint8), theirs.target)


def test_the_split_of_the_digits_is_frozen() -> None:
    source = digits()
    assert source.train.digest(np.arange(1437)).startswith("0d507c3015308a83")
    assert source.test.digest(np.arange(360)).startswith("2fe9962c53f1c283")


def test_the_digits_test_set_has_every_class_in_its_share() -> None:
    counts = np.bincount(digits().test.labels)
    assert counts.sum() == 360 and set(counts) <= {34, 35, 36, 37}


# --- image_folder


def test_train_and_test_folders_become_the_two_splits(make_folder: Make) -> None:
    source = image_folder(make_folder(SPLIT))
    assert source.classes == ["cat", "dog"]
    assert [Path(name).parent.name for name in source.train.images] == ["cat"] * 3 + ["dog"] * 2
    assert source.train.labels.tolist() == [0, 0, 0, 1, 1] and source.train.labels.dtype == np.int64
    assert source.test is not None and source.test.labels.tolist() == [0, 1] and source.val is None


def test_a_val_folder_alone_is_the_evaluation(make_folder: Make) -> None:
    source = image_folder(make_folder({name.replace("test", "val"): count for name, count in SPLIT.items()}))
    assert source.test is not None and source.test.images[0] == "val/cat/000.png" and source.val is None


def test_beside_a_test_folder_val_is_the_validation_split(make_folder: Make) -> None:
    source = image_folder(make_folder(SPLIT | {"val/cat": 2, "val/dog": 2}))
    assert source.val is not None and len(source.val) == 4
    assert source.test is not None and len(source.test) == 2


def test_one_folder_of_classes_has_no_evaluation_images(make_folder: Make) -> None:
    source = image_folder(make_folder({"cat": 3, "dog": 2}))
    assert source.train.images[0] == "cat/000.png" and source.test is None and source.val is None


def test_images_are_found_at_any_depth_in_sorted_order(make_folder: Make) -> None:
    source = image_folder(make_folder({"a/z": 1, "a/b/c": 2, "b": 1}))
    assert list(source.train.images[:3]) == ["a/b/c/000.png", "a/b/c/001.png", "a/z/000.png"]


def test_hidden_files_and_other_files_are_ignored(make_folder: Make) -> None:
    root = make_folder({"a": 1, "b": 1, ".thumbnails": 1})
    (root / "a" / "._000.png").write_bytes(b"")
    (root / "a" / "notes.txt").write_text("no image")
    source = image_folder(root)
    assert source.classes == ["a", "b"] and len(source.train) == 2


@pytest.mark.parametrize("extension", ["jpg", "jpeg", "png", "webp", "bmp", "tif", "tiff", "gif", "ppm", "JPG"])
def test_every_listed_kind_of_file_is_an_image(make_folder: Make, extension: str) -> None:
    root = make_folder({"a": 1, "b": 1})
    image = image_folder(root).train.read(0)
    (root / "a" / "000.png").unlink()
    image.save(root / "a" / f"photo.{extension}")
    assert image_folder(root).train.read(0).size == image.size


def test_a_subset_of_the_classes_is_numbered_in_sorted_order(make_folder: Make) -> None:
    root = make_folder({f"{split}/{name}": 2 for split in ("train", "test") for name in ("ant", "bee", "cow", "12")})
    source = image_folder(root, classes=["cow", 12, "cow"])  # type: ignore[list-item]
    assert source.classes == ["12", "cow"] and source.train.labels.tolist() == [0, 0, 1, 1]


def test_a_file_that_is_no_regular_one_is_refused(make_folder: Make) -> None:
    root = make_folder({"a": 2, "b": 2})
    os.mkfifo(root / "a" / "pipe.png")
    with pytest.raises(UserError, match=r"pipe\.png is no regular file"):
        image_folder(root)


def test_the_digest_changes_with_a_file_and_not_with_the_place(make_folder: Make, tmp_path: Path) -> None:
    root = make_folder({"a": 2, "b": 2})
    indices = np.arange(4)
    before = image_folder(root).train.digest(indices)
    root.rename(tmp_path / "moved")
    assert image_folder(tmp_path / "moved").train.digest(indices) == before
    (tmp_path / "moved/b/000.png").write_bytes(b"longer or shorter")
    assert image_folder(tmp_path / "moved").train.digest(indices) != before


def test_the_real_cifar_images_are_read(cifar_jpeg: Path) -> None:
    source = image_folder(cifar_jpeg)
    assert (len(source.train), len(source.test or []), len(source.classes)) == (50_000, 10_000, 10)
    assert np.bincount(source.train.labels).tolist() == [5000] * 10
    assert source.train.read(49_999).size == (32, 32)


def test_the_partial_flowers_are_read_with_the_classes_that_both_splits_have(flowers_partial: Path) -> None:
    with pytest.raises(UserError, match="are not those of train/, it has '"):
        image_folder(flowers_partial)
    classes = sorted(path.name for path in (flowers_partial / "train").iterdir())
    source = image_folder(flowers_partial, classes=classes)
    assert len(source.train) == 1434 and len(source.classes) == 89 and source.test is not None
    assert min(source.train.read(0).size) == 256 and len(source.test) < 4110


# --- bad folders


def test_a_missing_root_offers_the_nearest_folder(make_folder: Make) -> None:
    root = make_folder({"a": 1, "b": 1})
    assert refused(root.parent / "imagse") == f"data.root='{root.parent}/imagse' does not exist: did you mean '{root}'?"


def test_a_missing_root_without_a_neighbour_shows_what_is_expected() -> None:
    assert "'/no/such/place' does not exist: expected /no/such/place/train/<class>/*.jpg" in refused("/no/such/place")


def test_a_file_as_root_is_refused(tmp_path: Path) -> None:
    (tmp_path / "images.zip").write_bytes(b"")
    assert "images.zip' is a file, not a folder (unpack an archive first)" in refused(tmp_path / "images.zip")


def test_an_empty_root_is_refused(tmp_path: Path) -> None:
    message = refused(tmp_path)
    assert "has no class folders, it is empty: expected" in message and "docs/datasets.md" in message


def test_a_root_without_class_folders_shows_what_was_found(make_folder: Make) -> None:
    message = refused(make_folder({"x": 7}) / "x")
    assert (
        "has no class folders, found only '000.png', '001.png', '002.png', '003.png', '004.png' and 2 more" in message
    )


def test_a_test_folder_without_train_is_refused(make_folder: Make) -> None:
    assert "has test/ but no train/" in refused(make_folder({"test/a": 1, "test/b": 1}))


@pytest.mark.parametrize("name", ["Train", "training", "validation"])
def test_a_misnamed_split_is_not_taken_for_a_class(make_folder: Make, name: str) -> None:
    root = make_folder({f"{name}/a": 1, f"{name}/b": 1, "other/a": 1})
    assert f"has a folder '{name}' that looks like a split: call the splits train, test and val" in refused(root)


def test_a_class_folder_without_images_is_named(make_folder: Make) -> None:
    root = make_folder({"train/cat": 1, "train/dog": 0, "test/cat": 1, "test/dog": 1})
    (root / "train/dog/list.csv").write_text("")
    assert f"the class folder '{root}/train/dog' has no images, found only 'list.csv'" in refused(root)


def test_a_class_missing_from_the_test_folder_is_named(make_folder: Make) -> None:
    message = refused(make_folder({"train/a": 1, "train/b": 1, "train/c": 1, "test/a": 1, "test/b": 1}))
    assert "test' are not those of train/, it has no 'c': add or remove folders" in message


def test_a_class_that_only_the_test_folder_has_is_named(make_folder: Make) -> None:
    root = make_folder({"train/a": 1, "train/b": 1, "test/a": 1, "test/b": 1, "test/x": 1})
    assert "it has 'x' besides" in refused(root)


def test_naming_the_common_classes_is_the_cure_for_uneven_folders(make_folder: Make) -> None:
    root = make_folder({"train/a": 1, "train/b": 1, "test/a": 1, "test/b": 1, "test/x": 1})
    assert image_folder(root, classes=["a", "b"]).classes == ["a", "b"]


def test_one_class_is_refused(make_folder: Make) -> None:
    assert "has one class only ('cat'), and a classifier needs two" in refused(make_folder({"train/cat": 3}))


def test_a_root_one_level_too_high_is_recognised(make_folder: Make) -> None:
    root = make_folder({"photos/train/a": 1, "photos/train/b": 1})
    assert refused(root).endswith(f"did you mean data.root='{root}/photos'?")


def test_an_unknown_class_offers_the_nearest(make_folder: Make) -> None:
    message = refused(make_folder({"airplane": 1, "ship": 1}), classes=["aeroplane", "ship"])
    assert message.startswith("data.classes has 'aeroplane'") and message.endswith("did you mean airplane?")


def test_an_empty_choice_of_classes_is_refused(make_folder: Make) -> None:
    assert "data.classes is empty" in refused(make_folder({"a": 1, "b": 1}), classes=[])


def test_an_unreadable_folder_is_named(make_folder: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def scandir(path):
        raise PermissionError(13, "Permission denied")

    root = make_folder({"a": 1, "b": 1})
    monkeypatch.setattr("ssat.data.sets.folder.os.scandir", scandir)
    assert refused(root) == f"cannot list the folder '{root}': Permission denied"


def test_common_classes_are_those_of_every_split(make_folder: Callable[[dict[str, int]], Path]) -> None:
    root = make_folder({"train/a": 2, "train/b": 2, "train/c": 2, "test/b": 1, "test/c": 1, "test/d": 1})
    with pytest.raises(UserError, match="data.classes=common"):
        image_folder(root)
    source = image_folder(root, classes="common")
    assert source.classes == ["b", "c"]
    assert len(source.train) == 4
