from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ssat.core.errors import UserError
from ssat.data.video.faces import Box, batch_size, read_boxes, scaled
from ssat.data.video.tracks import Track, centre, crop, interpolated, iou, link, ranked, smoothed, square


def box(x: float, y: float = 0, side: float = 10) -> Box:
    return Box(x, y, x + side, y + side)


def test_overlap_of_two_boxes() -> None:
    assert iou(box(0), box(0)) == 1
    assert iou(box(0), box(5)) == pytest.approx(50 / 150)
    assert iou(box(0), box(10)) == iou(box(0), box(0, 20)) == 0


def test_two_faces_that_pass_stay_two_tracks_and_a_pause_does_not_cut() -> None:
    found = [(0, [box(0), box(40)]), (5, [box(42), box(3)]), (10, []), (15, [box(6)]), (20, [box(44), box(9)])]
    first, second = link(found)
    assert first.frames.tolist() == [0, 5, 15, 20] and first.boxes[:, 0].tolist() == [0, 3, 6, 9]
    assert second.frames.tolist() == [0, 5, 20] and second.boxes[:, 0].tolist() == [40, 42, 44]


def test_the_best_overlap_is_linked_first_and_below_the_bound_nothing() -> None:
    first, second = link([(0, [box(0)]), (5, [box(4), box(1)])])
    assert first.boxes[:, 0].tolist() == [0, 1] and second.boxes[:, 0].tolist() == [4]
    assert len(link([(0, [box(0)]), (5, [box(6)])])) == 2  # IoU 40 / 160


def test_one_large_false_box_does_not_win() -> None:
    face = Track.of([0, 5, 10, 15], [box(0)] * 4)
    wrong = Track.of([5], [box(50, side=19)])
    assert ranked([wrong, face])[0] is face
    assert ranked([face, Track.of([0, 5, 10], [box(50, side=19)] * 3)])[0] is not face


def test_the_median_drops_a_wrong_box_and_keeps_even_motion() -> None:
    frames = [*range(0, 45, 5)]
    even = Track.of(frames, [box(frame) for frame in frames])
    assert np.array_equal(smoothed(even).boxes, even.boxes)
    wrong = Track.of(frames, [box(500 if frame == 20 else frame) for frame in frames])
    assert np.abs(smoothed(wrong).boxes - even.boxes).max() <= 5
    assert smoothed(Track.of([3], [box(1)])).boxes.tolist() == [[1, 0, 11, 10]]


def test_interpolation_is_linear_and_holds_the_ends() -> None:
    track = Track.of([5, 15], [box(0), box(20)])
    assert interpolated(track, [0, 5, 10, 12, 15, 99])[:, 0].tolist() == [0, 0, 10, 14, 20, 20]


def test_the_square_has_a_margin_of_a_third_on_each_side() -> None:
    assert square((100, 100, 130, 160)) == (65, 80, 100)  # 60 * 5 / 3
    assert square((0, 0, 3, 3), margin=0) == (0, 0, 3) and square((5, 5, 5, 5))[2] == 1
    assert centre(64, 48) == (8, 0, 48) and centre(48, 64) == (0, 8, 48)


def test_a_crop_is_padded_with_black_and_keeps_its_pixels() -> None:
    frame = np.arange(12 * 10 * 3, dtype=np.uint8).reshape(12, 10, 3)
    assert np.array_equal(crop(frame, (2, 3, 6), 6), frame[3:9, 2:8])
    outside = crop(frame, (-2, -3, 16), 16)
    assert np.array_equal(outside[3:15, 2:12], frame)
    assert outside[:3].max() == outside[15:].max() == outside[:, :2].max() == outside[:, 12:].max() == 0
    assert crop(frame, (50, 50, 8), 4).max() == crop(frame, (-90, 0, 8), 4).max() == 0


def test_a_smaller_crop_is_antialiased() -> None:
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 200
    assert np.abs(crop(stripes, (0, 0, 64), 16)[:, 2:-2].astype(int) - 100).max() <= 2
    assert crop(np.full((8, 8, 3), 77, np.uint8), (0, 0, 8), 32).min() == 77


@pytest.mark.parametrize(
    ("shape", "factor"),
    [((200, 299), 2), ((300, 200), 1), ((1000, 700), 1), ((1280, 720), 1 / 2), ((1080, 1920), 1 / 3)],
)
def test_faces_are_searched_at_the_scale_of_the_rule(shape: tuple[int, int], factor: float) -> None:
    small, used = scaled(np.zeros((*shape, 3), np.uint8))
    assert used == factor and small.shape[:2] == tuple(round(side * factor) for side in shape)


def test_batches_are_bounded_in_pixels() -> None:
    assert [batch_size(w, h) for w, h in ((640, 480), (1920, 1080), (3840, 2160), (8192, 4320))] == [8, 8, 2, 1]


def test_boxes_of_the_user_are_read_or_refused_in_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "boxes.json"
    path.write_text(json.dumps({"real/a": [[10, 1, 2, 3, 4], [0, 1.5, 2, 3, 4]]}))
    assert read_boxes(path) == {"real/a": [(0, Box(1.5, 2, 3, 4)), (10, Box(1, 2, 3, 4))]}
    for wrong in (
        "[]", "{}", "{", '{"a": []}', '{"a": [[0, 1, 2, 3]]}', '{"a": [[0, 5, 2, 3, 4]]}', '{"a": [[-1, 1, 2, 3, 4]]}',
        '{"a": [[0, 1, 2, 1e9, 4]]}', '{"a": [[0, 1, 2, NaN, 4]]}', '{"a": [[0, 1, 2, 3, 4], [0, 1, 2, 3, 4]]}',
        '{"a": [[true, 1, 2, 3, 4]]}', '{"a": 3}',
    ):  # fmt: skip
        path.write_text(wrong)
        with pytest.raises(UserError, match="must be JSON of the form") as caught:
            read_boxes(path)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="No such file"):
        read_boxes(tmp_path / "absent.json")
