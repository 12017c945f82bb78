"""Whether a prepared set is the official one, and what Table 13 counts of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from ssat.core.errors import UserError
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
        facts |= {"clip": f"clips/{name}.zip", "n_stored": 16}
        return Entry(dataset="dfdc", video_id=name, path=f"{part}/{name}.mp4", **facts)  # type: ignore[arg-type]

    root = prepared(tmp_path, [row(number) for number in range(200)], "dfdc")
    assert DFDC_VIDEOS == 119_154 and not dfdc(root).complete
    monkeypatch.setattr("ssat.data.video.sets.DFDC_VIDEOS", 200)
    assert dfdc(root).complete


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"label": 2}, "v1 has label=2, and prepare.json says dfdc with 2 classes"),
        ({"label": -1}, "v1 has label=-1"),
        ({"dataset": "ffpp"}, "v1 has dataset=ffpp"),
        ({"video_id": "v0"}, "line 3 is damaged (v0 has two rows)"),
        ({"status": "weird"}, "status=weird"),
        ({"split": "Train"}, "split=Train"),
        ({"clip": "clips/../../v1.zip"}, "clip=clips/../../v1.zip"),
        ({"clip": "/clips/v1.zip"}, "clip=/clips/v1.zip"),
        ({"n_stored": 10**12}, "status=ok with n_stored=1000000000000"),
        ({"clip": ""}, "status=ok with n_stored=16 and clip=''"),
    ],
)
def test_a_manifest_that_was_edited_is_refused(tmp_path: Path, change: dict[str, object], sentence: str) -> None:
    row = Entry("dfdc", "v0", "v0.mp4", 0, "real", group_id="v0", n_stored=16, clip="clips/v0.zip")
    other = replace(row, video_id="v1", path="v1.mp4", label=1, group_id="v1", clip="clips/v1.zip")
    root = prepared(tmp_path, [row, replace(other, **change)], "dfdc")  # type: ignore[arg-type]
    with pytest.raises(UserError) as refused:
        dfdc(root)
    assert sentence in str(refused.value) and str(tmp_path) in str(refused.value)


@pytest.mark.parametrize(
    "change", [{"classes": ["real"]}, {"classes": "real"}, {"options": {"stride": "4"}}, {"options": {}}]
)
def test_an_account_that_was_edited_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    root = Path(prepared(tmp_path, [], "dfdc"))
    about = json.loads((root / "prepare.json").read_text())
    (root / "prepare.json").write_text(json.dumps(about | change))
    with pytest.raises(UserError, match="prepare.json is damaged: prepare the videos again"):
        dfdc(str(root))
