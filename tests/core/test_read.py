"""Files of strangers are read within bounds: what has no end, or makes much of little, is refused."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from ssat.core import read
from ssat.core.errors import UserError
from ssat.core.read import json_lines, read_bytes, table_lines
from ssat.data.sets.table import read_table
from ssat.data.video.layouts import tree
from ssat.data.video.manifest import MANIFEST, read_manifest
from ssat.runs.prediction_rows import read_rows

TABLES: dict[str, Callable[[Path], object]] = {
    "table": read_table,
    "manifest": lambda path: read_manifest(path.parent),
    "list of videos": lambda path: tree.read_table(path, ["a"]),
    "predictions": read_rows,
}


def test_each_line_of_json_counts_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a": 1}\n' + b"[" * 100_000 + b'\n\xff\n{"a": 2}\n{"a"')
    assert [*json_lines(path)] == [{"a": 1}, {"a": 2}]
    monkeypatch.setattr(read, "LONGEST_LINE", 100)
    path.write_text(json.dumps("x" * 1000) + '\n{"a": 3}\n')
    assert [*json_lines(path)] == [{"a": 3}]


def test_the_lines_of_a_table_are_those_of_the_file() -> None:
    assert [*table_lines(["a,b\n", "c"])] == ["a,b\n", "c"]


@pytest.mark.parametrize("reader", TABLES)
@pytest.mark.parametrize("kind", ["many cells", "many rows", "large", "device", "pipe"])
def test_a_table_without_measure_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reader: str, kind: str
) -> None:
    path = tmp_path / MANIFEST
    if kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "pipe":  # whoever opened it would wait for ever
        os.mkfifo(path)
    else:
        path.write_text("a,b\n" + ("," * 1000 if kind == "many cells" else "1\n" * 300))
    monkeypatch.setattr(read, "MOST_CELLS", 10**9 if kind == "large" else 900)
    for module in (f"ssat.{name}" for name in ("data.sets.table", "data.video.manifest", "data.video.layouts.tree")):
        monkeypatch.setattr(f"{module}.MOST_TABLE", 100 if kind == "large" else 10**6)
    monkeypatch.setattr("ssat.runs.prediction_rows.MOST_TABLE", 100 if kind == "large" else 10**6)
    wanted = {"large": "more than 100 bytes", "device": "it is no file", "pipe": "it is no file"}
    with pytest.raises((ValueError, UserError), match=wanted.get(kind, "it has more than 900 cells")) as caught:
        TABLES[reader](path)
    assert "\n" not in str(caught.value)


def test_bytes_are_bounded(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"1234")
    assert read_bytes(tmp_path / "a", 4) == b"1234"
    with pytest.raises(ValueError, match="more than 3 bytes"):
        read_bytes(tmp_path / "a", 3)
