from __future__ import annotations

import os
from pathlib import Path

import av
import numpy as np
import pytest

from ssat.data.video.decode import BadVideo, Counts, frames, judged, probe
from tests.data.video.synthetic import flip_bytes, scene, write_audio, write_video


def corners(height: int = 64, width: int = 96, count: int = 3) -> list[np.ndarray]:
    """Red at the top left, green at the top right, blue at the bottom left, black at the bottom right."""
    frame = np.zeros((height, width, 3), np.uint8)
    frame[: height // 2, : width // 2, 0] = 255
    frame[: height // 2, width // 2 :, 1] = 255
    frame[height // 2 :, : width // 2, 2] = 255
    return [frame] * count


def letters(image: np.ndarray) -> str:
    """The corners of an image in reading order."""
    found = ""
    for y in (5, -6):
        for x in (5, -6):
            pixel = image[y, x]
            found += "rgb"[int(pixel.argmax())] if pixel.max() > 128 else "k"
    return found


def reason(path: Path) -> str:
    with pytest.raises(BadVideo) as caught:
        list(frames(path))
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)
    return caught.value.reason


@pytest.mark.parametrize(
    ("rotation", "hflip", "expected"),
    [
        (0, False, "rgbk"),
        (90, False, "gkrb"),
        (-90, False, "brkg"),
        (180, False, "kbgr"),
        (0, True, "grkb"),  # of which av's own `rotation` says 180
        (90, True, "kgbr"),
    ],
)
def test_frames_are_upright(tmp_path: Path, rotation: int, hflip: bool, expected: str) -> None:
    path = write_video(tmp_path / "a.mp4", corners(), rotation=rotation, hflip=hflip)
    counts = Counts()
    first = next(iter(frames(path, counts=counts)))
    assert letters(first.image) == expected
    shape = probe(path)
    assert first.image.shape[:2] == (shape.height, shape.width) == (counts.height, counts.width)
    assert (shape.height > shape.width) == (abs(rotation) == 90)


@pytest.mark.parametrize(
    ("height", "width", "pixels", "codec"),
    [(63, 65, "yuv444p", "libx264"), (64, 64, "yuv420p", "mpeg4"), (33, 47, "yuv420p", "mpeg4")],
)
def test_odd_sizes_and_other_formats_keep_their_pixels(
    tmp_path: Path, height: int, width: int, pixels: str, codec: str
) -> None:
    images = scene(4, (height, width))
    path = write_video(tmp_path / "a.mp4", images, pixel_format=pixels, codec=codec)
    decoded = [frame.image for frame in frames(path)]
    assert len(decoded) == 4 and decoded[0].shape == (height, width, 3)
    assert np.abs(decoded[0].astype(int) - images[0]).mean() < 8


def test_stride_and_bounds(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", scene(24))
    assert [frame.index for frame in frames(path, stride=5)] == [0, 5, 10, 15, 20]
    counts = Counts()
    assert [frame.index for frame in frames(path, stride=4, max_frames=2, counts=counts)] == [0, 4]
    assert (counts.n_frames, counts.cut) == (5, "max_frames") and judged(path, counts) == ("ok", "")
    counts = Counts()
    assert len([*frames(path, max_seconds=0.4, counts=counts)]) == 11
    assert counts.cut == "max_seconds" and judged(path, counts)[0] == "partial"


def test_a_variable_frame_rate_keeps_its_times(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mkv", scene(4), pts=[0, 1, 10, 11])
    assert [round(frame.seconds, 2) for frame in frames(path)] == [0, 0.04, 0.4, 0.44]


def test_flipped_bytes_cost_some_frames_only(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", scene(40, (96, 96), squares=2), codec="mpeg4")
    flip_bytes(path, 20)
    counts = Counts()
    assert len([*frames(path, counts=counts)]) == counts.n_frames >= 32
    assert counts.n_errors or counts.n_frames == 40  # mpeg4 conceals some damage


def verdict(path: Path) -> tuple[str, str]:
    counts = Counts()
    try:
        list(frames(path, counts=counts))
        return judged(path, counts)
    except BadVideo as error:
        return "corrupt", error.reason


def test_frames_that_a_trimmed_mp4_hides_are_not_missing(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", scene(40), pts=range(-30, 10))
    assert len([*frames(path)]) == probe(path).n_frames == 10 and verdict(path) == ("ok", "")
    # A cut behind the header is seen all the same.
    images = scene(40, (96, 96), squares=2)
    path = write_video(tmp_path / "b.mp4", images, codec="mpeg4", pts=range(-10, 30), faststart=True)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * 0.7)])
    assert probe(path).n_frames == 30 and verdict(path)[0] == "corrupt"


@pytest.mark.parametrize(("ending", "codec"), [("mkv", "mpeg4"), ("webm", "libvpx"), ("flv", "flv")])
def test_a_cut_file_whose_header_promises_seconds_is_seen(tmp_path: Path, ending: str, codec: str) -> None:
    def cut(share: float, sound: float) -> tuple[str, str]:
        path = write_video(tmp_path / f"a.{ending}", scene(100, squares=2), codec=codec, sound=sound)
        path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
        return verdict(path)

    assert cut(1.0, 0.0) == ("ok", "")
    status, why = cut(0.5, 0.0)
    assert status == "corrupt" and why.startswith("it ends after ") and why.endswith(" of its 4.00 seconds")
    assert cut(0.85, 0.0)[0] == "partial"


@pytest.mark.parametrize(
    ("ending", "codec"), [("mkv", "mpeg4"), ("webm", "libvpx"), ("ts", "mpeg2video"), ("flv", "flv")]
)
def test_a_longer_sound_or_an_unknown_duration_is_no_damage(tmp_path: Path, ending: str, codec: str) -> None:
    assert verdict(write_video(tmp_path / f"a.{ending}", scene(25), codec=codec, sound=4.0)) == ("ok", "")
    path = write_video(tmp_path / f"b.{ending}", scene(25), codec=codec, live=True)
    assert verdict(path) == ("ok", "")
    path.write_bytes(path.read_bytes()[:-1])
    assert verdict(path)[0] in ("ok", "partial")


def test_rare_frames_of_a_variable_rate_are_no_damage(tmp_path: Path) -> None:
    pts = [*range(20), *range(100, 1100, 50)]  # the header says 25 frames per second
    assert verdict(write_video(tmp_path / "a.mkv", scene(40), codec="mpeg4", pts=pts)) == ("ok", "")


def test_frames_that_the_decoder_conceals_are_counted(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", scene(40, (96, 96), squares=2))
    with av.open(str(path)) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    content = bytearray(path.read_bytes())
    place, size = max(packets[1:], key=lambda packet: packet[1])
    content[place + size // 2 : place + size] = bytes(size - size // 2)
    path.write_bytes(content)
    counts = Counts()
    assert len([*frames(path, counts=counts)]) == 40 and counts.n_lost == 0
    assert judged(path, counts) == ("partial", "40 of 40 frames, 1 error in decoding")


def test_what_is_no_video_is_refused_with_its_reason(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "whole.mp4", scene(24)).read_bytes()
    for name, content in {
        "empty.mp4": b"",
        "text.mp4": b"no video\n" * 400,
        "half.mp4": whole[: len(whole) // 2],
        "zeros.mp4": bytes(5000),
        "list.mp4": b"ffconcat version 1.0\nfile whole.mp4\n",  # which FFmpeg would open and follow
        "hls.m3u8": b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nwhole.mp4\n#EXT-X-ENDLIST\n",
    }.items():
        (tmp_path / name).write_bytes(content)
        expected = "the file is empty (0 bytes)" if not content else "FFmpeg finds no video in it"
        assert reason(tmp_path / name).startswith(expected), name
    assert reason(write_audio(tmp_path / "sound.mp4")) == "it holds no video (audio only)"
    assert reason(tmp_path / "absent.mp4") == "the file is not there"


def test_the_size_of_a_frame_is_bounded(tmp_path: Path) -> None:
    path = write_video(tmp_path / "wide.mkv", [np.zeros((16, 8208, 3), np.uint8)])
    assert "8208 x 16 pixels are over the bound" in reason(path)


def test_a_codec_that_is_not_known_is_a_reason(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.avi", scene(4), codec="mpeg4")
    content = path.read_bytes()
    assert b"FMP4" in content
    path.write_bytes(content.replace(b"FMP4", b"ZZZZ"))
    assert "decoder" in reason(path)


def test_decoding_holds_few_frames(tmp_path: Path) -> None:
    """A frame that is kept somewhere shows as growth: 60 frames of 1080p are 373 MB."""
    path = write_video(tmp_path / "a.mp4", [np.full((1080, 1920, 3), 90, np.uint8)] * 60, codec="mpeg4")

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    before = peak = resident()
    for _ in frames(path):
        peak = max(peak, resident())
    assert peak - before < 150e6
