"""Files that are there whole or not at all."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ssat.core import files
from ssat.core.errors import UserError
from tests.helpers import ROOT

WRITER = """
import sys
from pathlib import Path
from ssat.core.files import replacing
with replacing(Path(sys.argv[1])) as partial:
    partial.write_text("a part")
    print("go", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def writing(tmp_path: Path) -> subprocess.Popen:
    """A process in the midst of writing `record.json`."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path / "record.json")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
    )
    assert process.stdout and process.stdout.readline() == "go\n"
    return process


@pytest.fixture(autouse=True)
def afresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process has looked nowhere yet."""
    monkeypatch.setattr(files, "_tidied", set())


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_what_a_killed_process_was_writing_is_removed_by_the_next_that_writes_there(
    writing: subprocess.Popen, tmp_path: Path
) -> None:
    writing.send_signal(signal.SIGKILL)
    writing.communicate()
    assert names(tmp_path) == {f".record.json.{writing.pid}.partial"}
    (tmp_path / ".mine.partial").touch()
    files.write_text(tmp_path / "other.json", "{}")
    assert names(tmp_path) == {"other.json", ".mine.partial"}


def test_what_another_process_is_writing_is_left_alone(writing: subprocess.Popen, tmp_path: Path) -> None:
    files.write_text(tmp_path / "record.json", "mine")
    assert f".record.json.{writing.pid}.partial" in names(tmp_path)
    writing.communicate("\n")
    assert writing.returncode == 0
    assert names(tmp_path) == {"record.json"} and (tmp_path / "record.json").read_text() == "a part"


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    files.write_text(tmp_path / "a", "old")

    def fail(partial: Path) -> None:
        partial.write_text("new")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), files.replacing(tmp_path / "a") as partial:
        fail(partial)
    assert names(tmp_path) == {"a"} and (tmp_path / "a").read_text() == "old"


def test_a_folder_of_the_files_name_is_refused_and_kept(tmp_path: Path) -> None:
    folder = tmp_path / "advice.json"
    folder.mkdir()
    with pytest.raises(UserError, match=r"advice.json is a folder, .* move the folder away"):
        files.write_text(folder, "new")
    assert folder.is_dir() and list(tmp_path.iterdir()) == [folder]
