from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ssat.data.video.faces import Box
from ssat.data.video.manifest import Video
from ssat.data.video.preparation import PrepareOptions, Tools, prepare_video
from ssat.data.video.store import StoredClip
from ssat.data.video.unseen import prepare_unseen, write_stills
from tests.data.video.synthetic import scene, write_video

OPTIONS = PrepareOptions(detector="mtcnn", every=2, size=32, stride=1, coding="png")


class Two:
    """A large face in all frames, a small one in the first half, and a false box once."""

    def __init__(self) -> None:
        self.frame = 0

    def detect(self, frames: Sequence[np.ndarray]) -> list[list[Box]]:
        found = []
        for _ in frames:
            boxes = [Box(10, 10, 40, 40)]
            if self.frame < 40:
                boxes.append(Box(70, 60, 84, 74))
            if self.frame == 6:
                boxes.append(Box(0, 0, 96, 96))
            found.append(boxes)
            self.frame += OPTIONS.every
        return found


@pytest.fixture
def video(tmp_path: Path) -> Video:
    write_video(tmp_path / "a.mp4", scene(80, (96, 96)))
    return Video("input", "000000", "a.mp4", 0, "")


def test_every_face_is_followed_and_a_false_box_is_not(video: Video, tmp_path: Path) -> None:
    result = prepare_unseen(video, tmp_path, tmp_path / "out", OPTIONS, Tools(Two()), every_face=True)
    assert (result.entry.status, len(result.faces), result.more) == ("ok", 2, 1)
    assert [face.det_rate for face in result.faces] == [1.0, 0.5]
    assert {face.n_faces for face in result.faces} == {3}
    large, small = (StoredClip(tmp_path / "out" / face.clip).meta for face in result.faces)
    assert large["squares"][0] == [0, 0, 50] and small["squares"][0] == [66, 56, 23]
    assert result.tracks[1] is not None and result.tracks[1].frames[[0, -1]].tolist() == [0, 38]
    stills = StoredClip(tmp_path / "out" / result.stills)
    assert stills.meta["places"] == [5, 15, 25, 35, 45, 55, 65, 75]
    assert (stills.meta["width"], stills.meta["height"]) == (96, 96)


def test_the_largest_face_is_the_one_of_a_prepared_set(video: Video, tmp_path: Path) -> None:
    entry = prepare_video(video, tmp_path, tmp_path / "set", OPTIONS, Tools(Two()))
    stored = StoredClip(tmp_path / "set" / entry.clip).read(range(80))
    for every_face in (False, True):
        out = tmp_path / f"out{every_face}"
        result = prepare_unseen(video, tmp_path, out, OPTIONS, Tools(Two()), every_face=every_face)
        assert StoredClip(out / result.faces[0].clip).read(range(80)).equal(stored)


def test_a_short_video_has_as_many_stills_as_frames(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", scene(5, (400, 800)))
    assert write_stills(path, tmp_path / "s.zip", replace(OPTIONS, stride=2), 3) == 3
    stills = StoredClip(tmp_path / "s.zip")
    assert stills.meta["places"] == [0, 1, 2]
    assert stills.read([0]).shape == (1, 3, 240, 480)
