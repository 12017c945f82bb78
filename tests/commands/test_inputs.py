"""Which files predict and embed take: folders, lists, and what is neither."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ssat.commands.predict.inputs import read_inputs
from ssat.core.errors import UserError
from ssat.core.files import alone_in
from ssat.core.words import printable, utf_8
from ssat.data.sets.folder import extensions
from ssat.data.single import why_no_file


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_videos_are_found_once_below_a_folder_and_the_rest_is_named(tmp_path: Path) -> None:
    touch(tmp_path, "b/two.MOV", "one.mp4", ".hidden/x.mp4", "b/.y.mp4", "b/notes.txt")
    (tmp_path / "b" / "loop").symlink_to(tmp_path)
    found = read_inputs(str(tmp_path), of_videos=True)
    assert (found.folder, found.names) == (tmp_path, ["b/two.MOV", "one.mp4"])
    assert found.remark() == "left out by their endings: 2 files (b/loop, b/notes.txt)"
    assert read_inputs(str(tmp_path / "b" / "notes.txt")).names == ["notes.txt"]  # named by itself: tried
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"holds no \.mp4"):
        read_inputs(str(tmp_path / "empty"), of_videos=True)


def test_every_file_that_training_reads_is_tried_and_unknown_ones_too(tmp_path: Path) -> None:
    images = [f"{number}{ending}" for number, ending in enumerate(extensions())]
    touch(tmp_path, *images, "noext", "x.heic", "notes.txt", "labels.CSV", "clip.mp4", ".DS_Store")
    found = read_inputs(str(tmp_path))
    assert found.names == sorted([*images, "noext", "x.heic"])
    assert found.left_out == ["clip.mp4", "labels.CSV", "notes.txt"]
    for name in [*images, "noext", "x.heic"]:
        (tmp_path / name).unlink()
    with pytest.raises(UserError, match=r"holds no image \(.jpg.*only 3 other files such as clip.mp4"):
        read_inputs(str(tmp_path))


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_a_list_is_read_as_a_training_reads_it(tmp_path: Path, separator: str) -> None:
    rows = [["note", "path", "label"], ["x", " a.png", "dark"], [], ["y", "sub\\b.png"]]
    text = "\r\n".join(separator.join(row) for row in rows)
    (tmp_path / "list.csv").write_bytes(b"\xef\xbb\xbf" + text.encode())
    found = read_inputs(str(tmp_path / "list.csv"))
    assert found.names == ["a.png", "sub/b.png"]
    assert found.columns == [{"note": "x", "label": "dark"}, {"note": "y", "label": ""}]


def test_one_file_under_two_names_is_named_twice(tmp_path: Path) -> None:
    touch(tmp_path, "imgs/ok.png", "imgs/other.png")
    (tmp_path / "imgs" / "link.png").symlink_to("ok.png")  # a file of its own
    (tmp_path / "list.csv").write_text("path\nimgs/ok.png\nimgs/link.png\nimgs/../imgs//ok.png\n")
    with pytest.raises(UserError, match=r"ok.png in the lines 2 and 4, there as imgs/ok.png: leave out one"):
        read_inputs(str(tmp_path / "list.csv"))


def test_what_is_no_file_is_called_what_it_is(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "loop.png").symlink_to("loop.png")
    said = {name: why_no_file(tmp_path / name) for name in ("", "pipe.png", "loop.png", "gone.png", "a\0b")}
    assert [*said.values()] == [
        "it is a folder, give the files in it",
        "it is a pipe, a socket or a device, and no file",
        "it is a link that leads nowhere, or to itself",
        "there is no such file",
        "there is no such file",
    ]


def test_a_name_that_is_no_utf_8_is_written_alike_everywhere() -> None:
    name = os.fsdecode(b"a\xff.png")
    assert utf_8(name) == printable(name) == r"a\udcff.png" and utf_8("ä.png") == "ä.png"


def test_a_folder_is_written_by_one_command_at_a_time(tmp_path: Path) -> None:
    with alone_in(tmp_path), pytest.raises(UserError, match="is being written by another command"), alone_in(tmp_path):
        pass
    with alone_in(tmp_path):
        assert not [*tmp_path.iterdir()]
