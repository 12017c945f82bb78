from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from ssat.commands.prepare import prepare
from ssat.commands.progress import Pace
from ssat.core.errors import UserError
from ssat.core.files import file_sha256
from ssat.data.video.manifest import Video, read_manifest
from ssat.data.video.preparation import PrepareOptions, Tools, prepare_video
from tests.data.video.synthetic import write_ffpp_tree, write_video_folder

SHARED = Path(os.environ.get("SSAT_SHARED", Path(__file__).resolve().parents[3] / "shared"))
SAMPLES = SHARED / "data" / "deepfake_samples"


def refused(*words: str) -> str:
    with pytest.raises(UserError) as caught:
        prepare(list(words))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_command_prepares_a_folder_and_continues(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw, out = write_video_folder(tmp_path / "raw"), tmp_path / "out"
    words = ["data=video_folder", f"data.raw={raw}", f"data.root={out}", "detector=none", "workers=0", "size=32"]
    assert prepare([*words, "--dry-run"]) == 0 and not out.exists()
    assert prepare(words) == 0
    rows = read_manifest(out)
    assert [row.status for row in rows] == ["ok"] * 4 and {row.n_stored for row in rows} == {6}
    (raw / "fake" / "001.mp4").write_bytes(b"")
    (out / rows[1].clip).unlink()
    assert prepare(words) == 3
    assert "3 ok" in capsys.readouterr().out
    assert "was prepared with size=32, not size=64" in refused(*words[:-1], "size=64")
    for path in raw.rglob("*.mp4"):
        path.write_bytes(b"")
    assert "none of the 4 videos can be used (4 corrupt)" in refused(*words, "force=true")


def test_a_folder_expects_no_number_of_videos(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert prepare(["data=video_folder", f"data.raw={write_video_folder(tmp_path)}", "--dry-run"]) == 0
    told = capsys.readouterr().out
    assert "found" in told and "expected" not in told and "missing" not in told
    (tmp_path / "real" / "gone.mp4").symlink_to("nowhere.mp4")
    assert prepare(["data=video_folder", f"data.raw={tmp_path}", "--dry-run"]) == 0
    assert "1 file cannot be opened, the first is 'real/gone.mp4': it is a link" in capsys.readouterr().out


def test_a_part_of_an_official_set_is_said_to_be_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw, out = write_ffpp_tree(tmp_path / "raw", pairs=[("000", "003")], methods=["FaceSwap"]), tmp_path / "out"
    words = ["data=ffpp", f"data.raw={raw}", f"data.root={out}", "detector=none", "workers=0", "size=32", "stride=1"]
    assert prepare(words) == 0
    said = "4,996 of the 5,000 official videos are not there: this is a part of the set"
    assert said in capsys.readouterr().out and said in (out / "report.md").read_text()


def test_what_is_missing_of_a_method_stays_while_another_is_prepared(tmp_path: Path) -> None:
    raw, out = tmp_path / "raw", tmp_path / "out"
    write_ffpp_tree(raw, pairs=[("000", "003")], methods=["FaceSwap", "Deepfakes"], count=16)
    fake = raw / "manipulated_sequences/FaceSwap/c23/videos/003_000.mp4"
    fake.unlink()
    fake.symlink_to("nowhere.mp4")
    words = ["data=ffpp", f"data.raw={raw}", f"data.root={out}", "detector=none", "workers=0", "size=32", "stride=1"]

    def of_method(method: str) -> list[str]:
        return sorted(row.status for row in read_manifest(out) if row.method == method)

    assert prepare([*words, "data.methods=Deepfakes"]) == 0 and of_method("FaceSwap") == []  # was not asked for
    assert prepare([*words, "data.methods=FaceSwap"]) == 3 and of_method("FaceSwap") == ["missing", "ok"]
    for _ in range(2):
        assert prepare([*words, "data.methods=Deepfakes"]) == 0
        assert of_method("FaceSwap") == ["missing", "ok"] and of_method("Deepfakes") == ["ok", "ok"]
    fake.unlink()
    fake.write_bytes((fake.parent / "000_003.mp4").read_bytes())
    assert prepare([*words, "data.methods=FaceSwap"]) == 0 and of_method("FaceSwap") == ["ok", "ok"]


def test_the_time_left_counts_from_the_first_result_on() -> None:
    now = 0.0
    pace = Pace(at_once=2, clock=lambda: now)
    assert pace.said(0, 24, "videos") == ""
    now = 60.0  # processes have started and loaded their networks
    assert pace.said(1, 23, "videos") == pace.said(2, 22, "videos") == ""
    now = 62.0
    assert pace.said(3, 20, "videos") == "1 videos/s, 20 s left"


def test_a_shard_without_videos_is_no_mistake_and_a_set_without_is_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = write_video_folder(tmp_path / "raw", videos=1)
    words = ["data=video_folder", f"data.raw={raw}", f"data.root={tmp_path / 'out'}", "detector=none", "workers=0"]
    codes = [prepare([*words, f"shard={number}/9"]) for number in range(1, 10)]
    told = capsys.readouterr().out
    assert codes == [0] * 9 and told.count("no video is in this part of the set") >= 7
    os.mkfifo(raw / "real/pipe.mp4")
    (raw / "fake/gone.mp4").symlink_to("nowhere")
    assert prepare(words) == 3 and "2 more are missing" in capsys.readouterr().out
    part = tmp_path / "dfdc/dfdc_train_part_0"
    part.mkdir(parents=True)
    (part / "metadata.json").write_text("{}")
    words = ["data=dfdc", f"data.raw={part.parent}", f"data.root={tmp_path / 'none'}", "detector=none", "workers=0"]
    assert "has no video of data=dfdc (1 of 50 training parts are there: 0): see docs/video.md" in refused(*words)
    (part / "metadata.json").write_text('{"a.mp4": {"label": "REAL"}}')
    text = refused(*words)
    assert "none of the videos that the set lists (1, the first is dfdc_train_part_0/a.mp4: it is listed in" in text
    (part.parent / "test").mkdir()
    (part.parent / "test/labels.csv").touch()
    assert "test/labels.csv cannot be used (it is empty, line 1 must be filename,label)" in refused(*words)
    (part.parent / "test/labels.csv").write_text("filename,label\n")
    (part / "metadata.json").unlink()
    assert "has no video of data=dfdc: see docs/video.md" in refused(*words)
    assert not (tmp_path / "none").exists()


def test_boxes_are_found_at_home_and_strangers_among_them_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    raw, out = write_video_folder(tmp_path / "raw", videos=1), tmp_path / "out"
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "b.json").write_text(json.dumps({"real/000": [[0, 0, 0, 30, 30]], "real/0": [[0, 0, 0, 30, 30]]}))
    words = [
        "data=video_folder",
        f"data.raw={raw}",
        f"data.root={out}",
        "detector=boxes",
        "workers=0",
        "boxes=~/b.json",
    ]
    assert prepare(words) == 3
    assert "b.json has 1 video that is not in the set: 'real/0'" in capsys.readouterr().out
    assert [row.reason for row in read_manifest(out) if row.label] == ["the file of boxes has none for it"]
    sha256 = json.loads((out / "prepare.json").read_text())["options"]["boxes_sha256"]
    assert sha256 == file_sha256(tmp_path / "b.json")
    (tmp_path / "b.json").write_text('{"real/000": [[0, 0, 0, 30, 30]], "real/000": [[0, 9, 9, 30, 30]]}')
    assert "cannot be read (it holds 'real/000' twice)" in refused(*words)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["data=ffp"], "data=ffp does not exist (did you mean ffpp?)"),
        (["data=ffpp"], "needs the folder of its original videos: data.raw=<folder>"),
        (["data=ffpp", "data.raw=/nowhere"], "data.raw=/nowhere is no folder"),
        (["data=ffpp", "data.raw=~no_such_user/x"], "data.raw=~no_such_user/x is no folder"),
        (["data=ffpp", "data.raw=RAW", "detector=boxes", "boxes=~no_such_user/x"], "x cannot be read (No such file"),
        (["data=ffpp", "data.raw=RAW", "evry=2"], "there is no option 'evry=2' (did you mean every?)"),
        (["data=dfdc", "data.raw=RAW", "data.level=c23"], "data.level is no option of data=dfdc"),
        (["data=ffpp", "data.raw=RAW", "detector=face"], "detector=face is not one of mtcnn, none"),
        (["data=ffpp", "data.raw=RAW", "detector=boxes"], "detector=boxes needs boxes=<file.json>"),
        (["data=ffpp", "data.raw=RAW", "shard=0/4"], "the parts are 1/16"),
        (["data=ffpp", "data.raw=RAW", "stride=0"], "stride=0 is not possible"),
        (["data=ffpp", "data.raw=RAW", "quality=101"], "it may be 100 at most"),
        (["data=ffpp", "data.raw=RAW", "data.root=RAW/x"], "lies in data.raw"),
        (["data=ffpp", "data.raw=RAW", "device=gpu"], "device=gpu is not one of cpu, cuda"),
    ],
)
def test_a_wrong_word_is_one_sentence(tmp_path: Path, words: list[str], message: str) -> None:
    assert message in refused(*(word.replace("RAW", str(tmp_path)) for word in words))


def test_the_help_names_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    from ssat.commands.prepare_videos import KEYS

    assert prepare(["data=dfdc", "--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"  {key}=" in text for key in KEYS if key != "data")


@pytest.mark.skipif(not SAMPLES.is_dir(), reason=f"{SAMPLES} is not there (SSAT_SHARED)")
def test_a_face_is_found_in_every_real_video(tmp_path: Path) -> None:
    """MTCNN on the first frame of each, with the whole way to the store."""
    options = PrepareOptions(max_frames=1, size=64)
    tools = Tools.of(options)
    files = sorted(SAMPLES.rglob("*.mp4"))
    assert len(files) == 10
    for file in files:
        name = str(file.relative_to(SAMPLES))
        entry = prepare_video(Video("dfdc", name[:-4], name, 0, "real"), SAMPLES, tmp_path, options, tools)
        assert (entry.status, entry.det_rate, entry.n_stored) == ("ok", 1.0, 1), entry
