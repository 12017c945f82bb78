"""Whether a prepared set is the official one, and what Table 13 counts of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from ssat.data.video.ffpp_splits import METHODS
from ssat.data.video.manifest import Entry, Status, write_manifest
from ssat.data.video.sets import DFDC_VIDEOS, dfdc, ffpp
from ssat.data.video.source import VideoSource
from tests.data.video.trees import all_ffpp, ffpp_rows


def prepared(folder: Path, rows: Sequence[Entry], dataset: str = "ffpp") -> str:
    write_manifest(folder, rows)
    about = {"dataset": dataset, "options": {"stride": 1}, "classes": ["real", "fake"]}
    (folder / "prepare.json").write_text(json.dumps(about))
    return str(folder)


def with_status(rows: Sequence[Entry], status: Status, count: int) -> list[Entry]:
    """The rows, the first `count` fakes of the test of Deepfakes with this status."""
    chosen = [row.video_id for row in rows if (row.split, row.method) == ("test", "Deepfakes")][:count]
    return [replace(row, status=status, reason="so") if row.video_id in chosen else row for row in rows]


def counts(source: VideoSource) -> dict[tuple[str, str], tuple[int | None, int]]:
    return {(count.split, count.method): (count.expected, count.found) for count in source.official}


def test_the_whole_of_ffpp_is_complete_and_has_the_counts_of_table_13(tmp_path: Path) -> None:
    source = ffpp(prepared(tmp_path, ffpp_rows(all_ffpp())), held_out="Deepfakes")
    sizes = {"train": 720, "val": 140, "test": 140}
    expected = {(split, name): (size, size) for split, size in sizes.items() for name in ("original", *METHODS)}
    assert source.complete and counts(source) == expected


@pytest.mark.parametrize(
    ("status", "lost", "complete"),
    [("no_face", 2, True), ("no_face", 3, False), ("missing", 1, False), ("corrupt", 140, False)],
)
def test_a_set_with_few_videos_without_frames_is_complete_and_one_that_lacks_a_file_is_not(
    tmp_path: Path, status: Status, lost: int, complete: bool
) -> None:
    rows = with_status(ffpp_rows(all_ffpp()), status, lost)
    source = ffpp(prepared(tmp_path, rows))
    assert source.complete == complete and counts(source)["test", "Deepfakes"] == (140, 140 - lost)
    # The held-out method is tested alone, so that only its test is asked for.
    assert ffpp(str(tmp_path), held_out="Deepfakes").complete == complete


def test_a_part_of_dfdc_is_not_the_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def row(number: int) -> Entry:
        name = f"v{number:03d}"
        part = f"dfdc_train_part_{number % 50}"
        facts = {"label": number // 50 % 2, "method": "dfdc", "split": "train", "group_id": name, "part": part}
        return Entry(dataset="dfdc", video_id=name, path=f"{part}/{name}.mp4", **facts)  # type: ignore[arg-type]

    root = prepared(tmp_path, [row(number) for number in range(200)], "dfdc")
    assert DFDC_VIDEOS == 119_154 and not dfdc(root).complete
    monkeypatch.setattr("ssat.data.video.sets.DFDC_VIDEOS", 200)
    assert dfdc(root).complete
