from __future__ import annotations

import json
import os
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ssat.core.errors import UserError
from ssat.data.video.faces import Box
from ssat.data.video.journal import Journal, Line, opened
from ssat.data.video.manifest import Entry, Video, by_id, entry_of, read_manifest
from ssat.data.video.places import clip_path
from ssat.data.video.preparation import NO_FACE, REPEATS, PrepareOptions, Tools, prepare_video
from ssat.data.video.prepare_set import How, prepare_all, selected
from ssat.data.video.report import hints, write_report
from ssat.data.video.store import StoredClip
from tests.data.video.synthetic import flip_bytes, scene, write_audio, write_video

PLAIN = PrepareOptions(detector="none", size=32, stride=1)
HERE = How(workers=0)


def video(path: str, **known) -> Video:
    return Video("video_folder", str(Path(path).with_suffix("")), path, 0, "real", **known)


def test_a_video_becomes_crops_with_what_is_known_of_them(tmp_path: Path) -> None:
    write_video(tmp_path / "real/a.mp4", scene(24, (64, 96)))
    entry = prepare_video(video("real/a.mp4"), tmp_path, tmp_path / "out", replace(PLAIN, stride=4, coding="png"))
    assert (entry.status, entry.n_frames, entry.n_stored, entry.width, entry.height) == ("ok", 24, 6, 96, 64)
    assert entry.clip == "clips/real/a.zip" and "6 frames stored, fewer than a clip of 16" in entry.reason
    clip = StoredClip(tmp_path / "out" / entry.clip)
    assert clip.meta["frames"] == [0, 4, 8, 12, 16, 20] and clip.meta["seconds"][1] == 0.16
    assert clip.meta["squares"] == [[16, 0, 64]] * 6 and clip.meta["passport"]["coding"] == "png"
    expected = scene(24, (64, 96))[4][:, 16:80].reshape(32, 2, 32, 2, 3).mean((1, 3))
    stored = clip.read([1])[0].permute(1, 2, 0).numpy()
    assert stored.shape == (32, 32, 3) and np.abs(stored - expected).mean() < 6


class Follows:
    """A detector that knows where the scene's square is, and sees two false boxes in one frame."""

    def __init__(self) -> None:
        self.searched = 0

    def detect(self, frames):
        found = []
        for _ in frames:
            x = 5 * self.searched
            found.append([Box(x, 8, x + 16, 24)] + [Box(40, 40, 60, 60)] * 2 * (self.searched == 1))
            self.searched += 1
        return found


def test_the_face_is_followed_and_its_fake_is_cropped_at_the_same_place(tmp_path: Path) -> None:
    for name in ("a", "fake", "other_size"):
        write_video(tmp_path / f"real/{name}.mp4", scene(24, (64, 96) if name == "other_size" else (64, 64)))
    options, out = replace(PLAIN, detector="mtcnn"), tmp_path / "out"
    original = prepare_video(video("real/a.mp4"), tmp_path, out, options, Tools(Follows()))
    assert (original.n_faces, original.det_rate, original.status) == (3, 1.0, "ok")
    squares = StoredClip(out / original.clip).meta["squares"]
    assert squares[0] == [-6, 2, 27] and squares[20][0] - squares[0][0] == 20
    detector = Follows()
    fake = video("real/fake.mp4", source_id="real/a")
    entry = prepare_video(fake, tmp_path, out, options, Tools(detector), original)
    meta = StoredClip(out / entry.clip).meta
    assert meta["squares"] == squares and meta["boxes_from"] == "real/a" and detector.searched == 0
    assert (entry.n_faces, entry.reason) == (3, "")
    for other, row, why in (
        (fake, None, "its original is not among the videos"),
        (fake, entry_of(video("real/a.mp4"), status="corrupt"), "its original is corrupt"),
        (video("real/other_size.mp4", source_id="real/a"), original, "its original has another frame size"),
    ):
        entry = prepare_video(other, tmp_path, out, options, Tools(Follows()), row)
        assert entry.status == "ok" and entry.reason == f"the boxes are its own, because {why}"


def test_no_face_leaves_no_clip(tmp_path: Path) -> None:
    class Blind:
        def detect(self, frames):
            return [[] for _ in frames]

    write_video(tmp_path / "real/a.mp4", scene(24))
    prepare_video(video("real/a.mp4"), tmp_path, tmp_path / "out", PLAIN)
    entry = prepare_video(
        video("real/a.mp4"), tmp_path, tmp_path / "out", replace(PLAIN, detector="mtcnn"), Tools(Blind())
    )
    assert (entry.status, entry.clip, entry.n_frames) == ("no_face", "", 24)
    assert not list((tmp_path / "out").rglob("*.zip"))
    options = replace(PLAIN, detector="mtcnn", no_face="center_crop")
    entry = prepare_video(video("real/a.mp4"), tmp_path, tmp_path / "out", options, Tools(Blind()))
    assert (entry.status, entry.n_faces, entry.reason) == ("ok", 0, "no face was found in it: the middle of its frames")
    # Its fake is cropped where it is, whatever a detector sees in it.
    write_video(tmp_path / "real/fake.mp4", scene(24))
    detector, fake = Follows(), video("real/fake.mp4", source_id="real/a")
    entry = prepare_video(fake, tmp_path, tmp_path / "out", options, Tools(detector), entry)
    assert entry.reason == "no face was found in its original: the middle of its frames" and detector.searched == 0
    assert StoredClip(tmp_path / "out" / entry.clip).meta["squares"][0] == [0, 0, 64]


def bad_inputs(raw: Path) -> dict[str, str]:
    """Files of every bad kind; returns the status of each."""
    whole = scene(24, squares=2)
    write_video(raw / "real/short.mp4", whole[:9])
    write_video(raw / "real/portrait.mp4", scene(24, (96, 64)))
    write_video(raw / "real/turned.mp4", whole, rotation=90)
    write_video(raw / "real/odd.mp4", scene(24, (63, 65)), pixel_format="yuv444p")
    write_video(raw / "real/variable.mkv", whole, pts=[n + 10 * (n > 4) for n in range(24)])
    write_video(raw / "real/flipped.mp4", scene(40, (96, 96), squares=2))
    flip_bytes(raw / "real/flipped.mp4", 8, seed=3)
    content = write_video(raw / "real/half.mp4", whole).read_bytes()
    (raw / "real/half.mp4").write_bytes(content[: len(content) // 2])
    # A file whose header comes first promises frames that are not there.
    content = write_video(raw / "real/cut.avi", scene(40, (96, 96)), codec="mpeg4").read_bytes()
    (raw / "real/cut.avi").write_bytes(content[: len(content) // 2])
    write_audio(raw / "real/sound.mp4")
    (raw / "real/empty.mp4").touch()
    (raw / "real/text.mp4").write_text("no video")
    codec = write_video(raw / "real/codec.avi", whole, codec="mpeg4")
    codec.write_bytes(codec.read_bytes().replace(b"FMP4", b"ZZZZ"))
    (raw / "real/folder.mp4").mkdir()
    ok = dict.fromkeys(("short.mp4", "portrait.mp4", "turned.mp4", "odd.mp4", "variable.mkv"), "ok")
    bad = dict.fromkeys(("half.mp4", "cut.avi", "sound.mp4", "empty.mp4", "text.mp4", "codec.avi"), "corrupt")
    return ok | bad | {"flipped.mp4": "partial", "folder.mp4": "missing", "absent.mp4": "missing"}


def test_every_bad_input_has_its_status_and_reason(tmp_path: Path) -> None:
    raw, out = tmp_path / "raw", tmp_path / "out"
    expected = bad_inputs(raw)
    videos = [video(f"real/{name}") for name in expected]
    state = prepare_all("video_folder", videos, raw, out, PLAIN, how=HERE)
    rows = by_id(read_manifest(out))
    assert {name: rows[str(Path("real", name).with_suffix(""))].status for name in expected} == expected
    assert state.failed == sum(status not in ("ok", "partial") for status in expected.values())
    for row in rows.values():
        assert bool(row.clip) == (row.status in ("ok", "partial")) == (row.n_stored > 0)
        assert row.reason or row.status == "ok"
    assert "9 frames stored" in rows["real/short"].reason
    assert rows["real/portrait"].height == rows["real/turned"].height + 32 == 96
    report = (out / "report.md").read_text()
    assert "6 of 14 videos can be used" in report and "`real/sound`: corrupt: it holds no video (audio only)" in report
    # What failed is tried again, what is finished is not.
    write_video(raw / "real/absent.mp4", scene(20))
    again = prepare_all("video_folder", videos, raw, out, PLAIN, how=HERE)
    assert (again.kept, again.statuses["missing"]) == (6, 1)
    assert by_id(read_manifest(out))["real/absent"].status == "ok"


def test_equal_reasons_are_one_line_and_those_of_many_videos_a_hint(tmp_path: Path) -> None:
    short = [
        entry_of(video(f"real/{number:02}.mp4"), reason=f"10 frames {REPEATS}", n_frames=40, n_stored=10)
        for number in range(48)
    ]
    found = hints(short, stride=4)
    # 40 frames are 20 of every second one: enough for a clip of 16.
    assert found == [
        "48 of 48 usable videos give fewer than 16 frames: prepare with a smaller stride, stride=2 force=true, and"
        " train with data.frame_step=2"
    ]
    write_report(tmp_path, "video_folder", short, notes=["", *found])
    report = (tmp_path / "report.md").read_text()
    assert f"{found[0]}.\n" in report and report.count(REPEATS) == 1
    assert "- 48 videos: ok: 10 frames stored" in report and "`real/02` and 45 more (manifest.csv has all)" in report
    assert "their clips repeat the last frame" in hints([replace(short[0], n_frames=12)], stride=4)[0]
    assert "prepare with max_frames=16 or more" in hints(short, stride=1, max_frames=10)[0]
    fine = [replace(entry, reason="", n_frames=90, n_stored=23) for entry in short]
    assert hints(fine[:44] + short[44:], stride=4) == []  # 4 of 48 are fewer than a tenth
    faceless = [replace(entry, status="no_face", reason=NO_FACE, n_stored=0) for entry in short[:30]]
    assert hints(fine[30:] + faceless, stride=4)[0].startswith("no face was found in 30 of 48 videos: detector=none")
    assert not hints(fine[24:] + faceless[:24], stride=4)


def test_own_boxes_that_lack_or_lie_outside_are_told_as_such(tmp_path: Path) -> None:
    for name in "ab":
        write_video(tmp_path / f"real/{name}.mp4", scene(24, (64, 96)))
    options, out = replace(PLAIN, detector="boxes"), tmp_path / "out"
    boxes = {"real/a": [(0, Box(0, 0, 20, 20)), (9, Box(96, 0, 120, 20))]}

    def row(name: str, **changed) -> Entry:
        return prepare_video(video(f"real/{name}.mp4"), tmp_path, out, replace(options, **changed), Tools(boxes=boxes))

    assert (row("a").status, row("a").reason) == ("corrupt", "the box of frame 9 lies outside of its 96 x 64 pixels")
    assert (row("b").status, row("b").reason) == ("no_face", "the file of boxes has none for it")
    assert row("b", no_face="center_crop").reason == "the file of boxes has none for it: the middle of its frames"
    boxes["real/a"][1] = (9, Box(95, 0, 120, 20))
    assert row("a").status == "ok"
    assert row("a", max_frames=1).reason.startswith("1 frame stored, fewer than a clip of 16")


def test_a_path_cannot_leave_the_folder(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    write_video(tmp_path / "secret.mp4", scene(16))
    for path in ("../secret.mp4", str(tmp_path / "secret.mp4")):
        assert prepare_video(video(path), raw, tmp_path / "out", PLAIN).status == "corrupt"
    assert not list(tmp_path.rglob("*.zip"))


def test_a_long_name_is_shortened_and_stays_unique() -> None:
    long = ["é" * 120 + end for end in "ab"]
    paths = {clip_path(video(f"real/{name}.mp4")) for name in long}
    assert len(paths) == 2 and all(len(Path(path).name.encode()) < 200 for path in paths)


def tree(out: Path) -> dict[str, bytes]:
    """The store and the manifest."""
    files = [out / "manifest.csv", *(path for path in (out / "clips").rglob("*") if path.is_file())]
    return {str(path.relative_to(out)): path.read_bytes() for path in files}


def test_shards_together_make_what_one_command_makes(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    videos = []
    for number in range(5):
        write_video(raw / f"real/{number}.mp4", scene(16, seed=number))
        write_video(raw / f"real/{number}f.mp4", scene(16, seed=number))
        videos += [video(f"real/{number}.mp4"), video(f"real/{number}f.mp4", source_id=f"real/{number}")]
    shards = [selected(videos, (number, 3)) for number in (1, 2, 3)]
    assert sorted(one.video_id for shard in shards for one in shard) == sorted(one.video_id for one in videos)
    for shard in shards:  # an original and its fakes are together, the original first
        assert all(shard[at - 1].video_id == one.source_id for at, one in enumerate(shard) if one.source_id)
    prepare_all("video_folder", videos, raw, tmp_path / "whole", PLAIN, how=HERE)
    for number in (1, 2, 3):
        prepare_all("video_folder", videos, raw, tmp_path / "parts", PLAIN, how=replace(HERE, shard=(number, 3)))
    assert tree(tmp_path / "whole") == tree(tmp_path / "parts")
    again = prepare_all("video_folder", videos, raw, tmp_path / "parts", PLAIN, how=HERE)
    assert (again.kept, again.done) == (10, 0)


def test_other_options_are_refused_and_force_prepares_again(tmp_path: Path) -> None:
    write_video(tmp_path / "real/a.mp4", scene(24))
    videos, out = [video("real/a.mp4")], tmp_path / "out"
    prepare_all("video_folder", videos, tmp_path, out, PLAIN, how=HERE)
    other = replace(PLAIN, stride=2)
    with pytest.raises(UserError, match=r"was prepared with stride=1, not stride=2: name another data.root"):
        prepare_all("video_folder", videos, tmp_path, out, other, how=HERE)
    with pytest.raises(UserError, match="was prepared with data=video_folder, not data=dfdc"):
        prepare_all("dfdc", videos, tmp_path, out, PLAIN, how=HERE)
    assert read_manifest(out)[0].n_stored == 24
    prepare_all("video_folder", videos, tmp_path, out, other, how=replace(HERE, force=True))
    assert read_manifest(out)[0].n_stored == 12


def test_new_splits_and_groups_are_taken_over_without_decoding(tmp_path: Path) -> None:
    write_video(tmp_path / "real/a.mp4", scene(16))
    out = tmp_path / "out"
    prepare_all("video_folder", [video("real/a.mp4")], tmp_path, out, PLAIN, how=HERE)
    state = prepare_all("video_folder", [video("real/a.mp4", group_id="g")], tmp_path, out, PLAIN, how=HERE)
    assert state.done == 0 and read_manifest(out)[0].group_id == "g"


def test_a_torn_line_of_the_journal_is_dropped_and_one_writer_is_alone(tmp_path: Path) -> None:
    rows = [Entry(**vars(video(f"real/{name}.mp4"))) for name in "ab"]
    journal = Journal(tmp_path, "video_folder", (1, 1), {})
    journal.add(Line(rows[0]))
    with pytest.raises(UserError, match="another command"):
        Journal(tmp_path, "video_folder", (1, 1), {})
    journal.close()
    path = tmp_path / "journal/1-of-1.jsonl"
    path.write_bytes(path.read_bytes() + path.read_bytes()[:40])
    journal = Journal(tmp_path, "video_folder", (1, 1), {})
    journal.add(Line(rows[1], (1, 2)))
    assert journal.lines() == {"real/a": Line(rows[0]), "real/b": Line(rows[1], (1, 2))}
    journal.close()
    with closing(Journal(tmp_path, "video_folder", (2, 2), {"other": 1})) as other:
        assert other.lines() == {}


def test_a_later_failure_stands_over_an_earlier_success_in_another_shard(tmp_path: Path) -> None:
    path, videos, out = tmp_path / "real/a.mp4", [video("real/a.mp4")], tmp_path / "out"
    write_video(path, scene(24))
    prepare_all("video_folder", videos, tmp_path, out, PLAIN, how=replace(HERE, shard=(1, 1)))
    path.write_text("no video")
    (shard,) = {number for number in (1, 2) if selected(videos, (number, 2))}
    for force in (True, False):
        how = replace(HERE, shard=(shard, 2) if force else (1, 1), force=force)
        prepare_all("video_folder", videos, tmp_path, out, PLAIN, how=how)
        (row,) = read_manifest(out)
        assert (row.status, row.clip, list(out.rglob("*.zip"))) == ("corrupt", "", [])


def test_a_video_that_left_the_raw_folder_has_no_row(tmp_path: Path) -> None:
    raw, out = tmp_path / "raw", tmp_path / "out"
    videos = [video(f"real/{name}.mp4") for name in "abcd"]
    for one in videos:
        write_video(raw / one.path, scene(16))
    prepare_all("video_folder", videos, raw, out, PLAIN, how=HERE)
    (raw / "fake").mkdir()
    (raw / "real/a.mp4").rename(raw / "fake/a.mp4")
    (raw / "real/b.mp4").unlink()
    moved = Video("video_folder", "fake/a", "fake/a.mp4", 1, "fake")
    listed = entry_of(replace(videos[2], group_id="g"), status="missing", reason="it is a link to nothing")
    for how in (replace(HERE, limit=1), replace(HERE, shard=(2, 3)), HERE):
        state = prepare_all("video_folder", [moved, videos[3]], raw, out, PLAIN, how=how, missing=[listed])
        assert state.gone == 2
        rows = by_id(read_manifest(out))
        assert rows.keys() - {"fake/a"} == {"real/c", "real/d"}  # a clip stays when its file is gone and still listed
        assert (rows["real/c"].status, rows["real/c"].group_id) == ("ok", "g")
    assert rows["fake/a"].label == 1
    # Videos that were not asked for this time (data.methods) keep their rows.
    state = prepare_all("video_folder", [moved], raw, out, PLAIN, how=HERE, others=["real/d"])
    assert state.gone == 3 and {row.video_id for row in read_manifest(out)} == {"fake/a", "real/d"}


def test_force_with_another_set_leaves_no_row_of_the_former(tmp_path: Path) -> None:
    write_video(tmp_path / "real/a.mp4", scene(24))
    write_video(tmp_path / "real/b.mp4", scene(24))
    out, first = tmp_path / "out", [video("real/a.mp4"), video("real/b.mp4")]
    second = [replace(one, dataset="dfdc") for one in first]
    prepare_all("video_folder", first, tmp_path, out, PLAIN, how=HERE)
    prepare_all("dfdc", second, tmp_path, out, PLAIN, how=replace(HERE, force=True, limit=1))
    assert [(row.dataset, row.video_id) for row in read_manifest(out)] == [("dfdc", "real/a")]
    # Back again: what the first command has made is no longer there, whatever its lines said.
    state = prepare_all("video_folder", first, tmp_path, out, PLAIN, how=replace(HERE, force=True, limit=1))
    assert state.done == 1 and [row.dataset for row in read_manifest(out)] == ["video_folder"]
    assert prepare_all("video_folder", first, tmp_path, out, PLAIN, how=HERE).done == 1


def test_a_changed_file_is_prepared_again_and_the_fakes_that_have_its_boxes(tmp_path: Path) -> None:
    raw, out = tmp_path / "raw", tmp_path / "out"
    videos = [video("real/a.mp4"), video("real/f.mp4", source_id="real/a"), video("real/b.mp4")]
    for one in videos:
        write_video(raw / one.path, scene(24))
    options = replace(PLAIN, detector="mtcnn", every=12, no_face="center_crop")
    assert prepare_all("video_folder", videos, raw, out, options, how=HERE).done == 3
    os.utime(raw / "real/a.mp4", ns=(1, 10**18))
    # A command that ends between the original and its fake: the next one knows which boxes the fake has.
    state = prepare_all("video_folder", videos, raw, out, options, how=replace(HERE, limit=1))
    assert (state.done, state.changed) == (1, 1)
    state = prepare_all("video_folder", videos, raw, out, options, how=HERE)
    assert (state.done, state.changed, state.kept) == (1, 1, 2)
    # Another folder with the same names.
    other = tmp_path / "other"
    for one in videos:
        write_video(other / one.path, scene(16, seed=1))
    state = prepare_all("video_folder", videos, other, out, options, how=replace(HERE, limit=1))
    assert state.done == 1
    prepare_all("video_folder", videos, other, tmp_path / "fresh", options, how=HERE)
    prepare_all("video_folder", videos, other, out, options, how=HERE)
    assert tree(out) == tree(tmp_path / "fresh")
    assert prepare_all("video_folder", videos, other, out, options, how=HERE).done == 0


def test_lines_without_a_stamp_stay_finished(tmp_path: Path) -> None:
    write_video(tmp_path / "real/a.mp4", scene(16))
    out = tmp_path / "out"
    prepare_all("video_folder", [video("real/a.mp4")], tmp_path, out, PLAIN, how=HERE)
    path = out / "journal/1-of-1.jsonl"
    line = json.loads(path.read_text())
    assert line["raw"] == [(tmp_path / "real/a.mp4").stat().st_size, (tmp_path / "real/a.mp4").stat().st_mtime_ns]
    path.write_text(json.dumps({"options": line["options"], "entry": line["entry"]}) + "\n")
    os.utime(tmp_path / "real/a.mp4")
    assert prepare_all("video_folder", [video("real/a.mp4")], tmp_path, out, PLAIN, how=HERE).done == 0


def test_commands_that_prepare_the_same_videos_exclude_one_another(tmp_path: Path) -> None:
    def refused(shard: tuple[int, int], *, dataset: str = "dfdc", force: bool = False) -> str:
        with pytest.raises(UserError) as caught:
            opened(tmp_path, dataset, shard, {"size": 1}, {}, force=force).close()
        return str(caught.value)

    with closing(opened(tmp_path, "dfdc", (1, 2), {"size": 1}, {})):
        opened(tmp_path, "dfdc", (2, 2), {"size": 1}, {}, force=True).close()
        assert "(shard 1 of 2): wait until it ends, or give each command one of 2 shards" in refused((1, 1))
        assert "(shard 1 of 2): wait until it ends" in refused((1, 2))
        assert "(shard 1 of 2)" in refused((2, 3))
        before = (tmp_path / "prepare.json").read_text()
        assert "(shard 1 of 2): force=true would mix two sets" in refused((2, 2), dataset="dfdcp", force=True)
        assert (tmp_path / "prepare.json").read_text() == before
    opened(tmp_path, "dfdc", (1, 1), {"size": 1}, {}).close()


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    write_video(tmp_path / "real/a.mp4", scene(16))
    (tmp_path / "out").mkdir(mode=0o500)
    with pytest.raises(UserError, match="cannot be written"):
        prepare_all("video_folder", [video("real/a.mp4")], tmp_path, tmp_path / "out", PLAIN, how=HERE)
