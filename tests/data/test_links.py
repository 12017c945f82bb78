"""Links in folders of the user's own: what lies elsewhere is read, and no folder twice or for ever."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from ssat.core.errors import UserError
from ssat.data.overview import not_read
from ssat.data.sets.folder import any_folder, image_folder
from ssat.data.sets.walk import REPEATED

MakeFolder = Callable[[dict[str, int]], Path]


def names(root: Path) -> list[str]:
    return [str(name) for name in image_folder(root).train.images]


@pytest.fixture
def root(make_folder: MakeFolder) -> Path:
    return make_folder({"a": 2, "b": 2, "a/deep": 1})


PLAIN = ["a/000.png", "a/001.png", "a/deep/000.png", "b/000.png", "b/001.png"]


@pytest.mark.parametrize("target", ["a", "a/deep", ".", "..", "/"])
@pytest.mark.parametrize("place", ["a/self", "a/deep/self"])
def test_a_link_back_ends_there_and_is_counted(root: Path, place: str, target: str) -> None:
    link = root / place
    link.symlink_to(root / target if target != "/" else "/")
    assert names(root) == PLAIN or (target, place) == ("a/deep", "a/self")
    source = image_folder(root)
    assert len(source.train) == 5, "no image twice"
    assert not_read(source) == {"a": {REPEATED: 1}}
    assert len(any_folder(root).train) == 5


def test_classes_that_link_to_each_other_end(root: Path) -> None:
    (root / "a/other").symlink_to(root / "b")
    (root / "b/other").symlink_to("../a")
    assert [name for name in names(root) if name.startswith("a/other/")] == ["a/other/000.png", "a/other/001.png"]


def test_images_and_folders_that_lie_elsewhere_are_read(root: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    os.rename(root / "a/000.png", elsewhere / "x.png")
    (root / "a/000.png").symlink_to(elsewhere / "x.png")
    (root / "a/copy.png").symlink_to("000.png")
    (root / "b/more").symlink_to(elsewhere)
    os.rename(root / "b/001.png", tmp_path / "y.png")
    assert names(root) == ["a/000.png", "a/001.png", "a/copy.png", "a/deep/000.png", "b/000.png", "b/more/x.png"]
    assert image_folder(root).train.read(2).size == (10, 8)
    assert not_read(image_folder(root)) == {}
    os.rename(root / "b", tmp_path / "b")
    (root / "b").symlink_to(tmp_path / "b")
    assert names(root)[-2:] == ["b/000.png", "b/more/x.png"]


def test_a_link_to_itself_is_a_bad_image_and_no_folder(root: Path) -> None:
    (root / "a/loop.png").symlink_to("loop.png")
    (root / "a/loop").symlink_to("loop")
    (root / "loop").symlink_to("loop")
    (root / "b/lost.png").symlink_to("nowhere")
    source = image_folder(root)
    assert len(source.train) == 7 and not_read(source) == {"a": {"without an extension": 1}}
    assert len(source.train.readable()[1]) == 2


def test_a_class_that_is_a_link_back_is_refused(root: Path) -> None:
    (root / "c").symlink_to(root)
    with pytest.raises(UserError, match="'c'|/c' has no images, it is a link to a folder in which it lies"):
        image_folder(root)
