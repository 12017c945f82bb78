"""Where the videos of a set are: the exact trees, parts of them, wrong levels and damaged lists."""

from __future__ import annotations

import json
import os
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from ssat.core.errors import UserError
from ssat.data.video.layouts import Index, describe, scan
from ssat.data.video.manifest import FAKE, REAL, read_manifest, write_manifest
from ssat.data.video.protocol import ffpp_splits
from tests.data.video.trees import all_ffpp, dfdc_part, ffpp, metadata, prepared, touch

SHARED = Path(os.environ.get("SSAT_SHARED", Path(__file__).resolve().parents[4] / "shared"))


@pytest.fixture
def samples() -> Path:
    path = SHARED / "data" / "deepfake_samples"
    if not path.is_dir():
        pytest.skip(f"needs {path} (set SSAT_SHARED to the folder that holds data/)")
    return path


def shown(index: Index) -> list[list[str]]:
    console = Console(width=120, record=True, file=StringIO())
    console.print(describe(index))
    return [line.split() for line in console.export_text().splitlines() if line.strip()]


def refused(dataset: str, root: Path, **options: object) -> str:
    with pytest.raises(UserError) as caught:
        scan(dataset, root, **options)
    text = str(caught.value)
    assert "\n" not in text
    return text


# FaceForensics++


def test_every_video_of_ffpp_is_found_as_table_13_counts_them(tmp_path: Path) -> None:
    index = scan("ffpp", ffpp(tmp_path, all_ffpp()))
    assert len(index.videos) == 5000 and not index.missing and not index.remarks
    assert [(c.split, c.found) for c in index.counts if c.method == "FaceSwap"] == [
        ("train", 720),
        ("val", 140),
        ("test", 140),
    ]
    assert all(count.expected == count.found for count in index.counts)
    assert shown(index)[-1] == ["all", "5,000", "5,000", "0"]


def test_a_fake_names_its_original_and_its_donor(tmp_path: Path) -> None:
    index = scan("ffpp", ffpp(tmp_path, ["519", "Deepfakes/519_515"]))
    fake, real = index.videos
    assert (fake.label, fake.method, fake.level, fake.split) == (FAKE, "Deepfakes", "c23", "train")
    assert fake.source_id == real.video_id == "original_sequences/youtube/c23/videos/519"
    assert fake.donor_id == "original_sequences/youtube/c23/videos/515"
    assert fake.group_id == real.group_id == "515_519"
    assert (real.label, real.source_id, real.donor_id) == (REAL, "", "")


def test_part_of_ffpp_is_indexed_and_the_rest_counted(tmp_path: Path) -> None:
    index = scan("ffpp", ffpp(tmp_path, ["634", "FaceSwap/634_660"]))
    counts = {(count.split, count.method): (count.found, count.missing) for count in index.counts}
    assert counts["test", "original"] == counts["test", "FaceSwap"] == (1, 139)
    assert counts["train", "NeuralTextures"] == (0, 720)
    assert index.remarks == ["there is no video of Deepfakes, Face2Face, NeuralTextures at c23"]
    only = scan("ffpp", tmp_path, methods=["FaceSwap"])
    assert {count.method for count in only.counts} == {"original", "FaceSwap"} and not only.remarks


def test_actors_masks_and_other_files_are_no_videos_of_ffpp(tmp_path: Path) -> None:
    ffpp(tmp_path, ["071", "Face2Face/071_054"])
    touch(
        tmp_path,
        "original_sequences/actors/c23/videos/01__walking.mp4",
        "manipulated_sequences/Face2Face/c23/masks/videos/071_054.mp4",
        "manipulated_sequences/Face2Face/c23/videos/._071_054.mp4",
        "manipulated_sequences/Face2Face/c23/videos/copy of 071_054.mp4",
        "manipulated_sequences/face2face/c23/videos/071_054.mp4",
    )
    index = scan("ffpp", tmp_path)
    assert [video.method for video in index.videos] == ["Face2Face", "original"]
    assert any("copy of 071_054.mp4" in remark and "left out" in remark for remark in index.remarks)
    assert any("'face2face' (did you mean Face2Face?)" in remark for remark in index.remarks)


def test_later_methods_of_ffpp_are_indexed_but_are_none_of_the_four(tmp_path: Path) -> None:
    fakes = ["FaceShifter/071_054", "DeepFakeDetection/01_02__walking__YVGY8LOK"]
    index = scan("ffpp", ffpp(tmp_path, ["071", *fakes]))
    places = {video.method: (video.split, video.group_id) for video in index.videos}
    assert places["FaceShifter"] == ("train", "054_071")
    assert places["DeepFakeDetection"] == ("", "actors")
    assert ["-", "DeepFakeDetection", "c23", "1", "-"] in shown(index)


def test_fakes_of_no_official_pair_are_in_no_split(tmp_path: Path) -> None:
    index = scan("ffpp", ffpp(tmp_path, ["071", "Deepfakes/071_000"]))
    assert index.videos[0].split == ""
    assert any("of no official pair" in remark for remark in index.remarks)


@pytest.mark.parametrize(
    ("levels", "asked", "chosen"),
    [
        (["c40"], None, {"c40"}),
        (["c23", "c40", "raw"], None, {"c23"}),
        (["c0"], None, {"raw"}),
        (["c0", "c23"], "raw", {"raw"}),
        (["raw", "c23"], "c0", {"raw"}),
        (["c23", "c40"], "all", {"c23", "c40"}),
    ],
)
def test_level_is_c23_or_the_one_that_there_is(
    tmp_path: Path, levels: list[str], asked: str | None, chosen: set[str]
) -> None:
    for level in levels:
        ffpp(tmp_path, ["071", "Deepfakes/071_054"], level=level)
    index = scan("ffpp", tmp_path, level=asked)
    assert {video.level for video in index.videos} == chosen
    assert {video.source_id for video in index.videos} - {""} <= {video.video_id for video in index.videos}


def test_an_absent_or_unknown_level_is_refused(tmp_path: Path) -> None:
    ffpp(tmp_path, ["071"], level="c23")
    assert "data.level=c40 is not in" in refused("ffpp", tmp_path, level="c40")
    assert "data.level=c32 is no level" in refused("ffpp", tmp_path, level="c32")


@pytest.mark.parametrize(
    "level",
    ["original_sequences", "original_sequences/youtube/c23", "original_sequences/youtube/c23/videos", "..", "../.."],
)
def test_a_wrong_level_of_ffpp_is_told_the_right_folder(tmp_path: Path, level: str) -> None:
    root = ffpp(tmp_path / "sets" / "ff", ["071", "Deepfakes/071_054"])
    given = Path(os.path.normpath(root / level))
    text = refused("ffpp", given)
    assert text.startswith(f"data.raw={str(given)!r} has only")
    assert "expected a folder with original_sequences/youtube/<level>/videos/000.mp4" in text
    assert text.endswith(f"give data.raw={str(root)!r}")


def test_two_endings_of_one_ffpp_video_are_refused(tmp_path: Path) -> None:
    ffpp(tmp_path, ["071"])
    touch(tmp_path, "original_sequences/youtube/c23/videos/071.AVI")
    text = refused("ffpp", tmp_path)
    assert "071.AVI" in text and "071.mp4" in text and "two files for one video" in text


def test_two_names_of_one_level_are_refused(tmp_path: Path) -> None:
    ffpp(tmp_path, ["071"], level="raw")
    assert "youtube/c0/videos and original" in refused("ffpp", ffpp(tmp_path, ["054"], level="c0"))


def test_links_spaces_and_unicode_work(tmp_path: Path) -> None:
    real = ffpp(tmp_path / "disk", ["071", "Deepfakes/071_054"])
    root = tmp_path / "Gesichter é 北京" / "with space"
    (root / "manipulated_sequences").mkdir(parents=True)
    (root / "original_sequences").symlink_to(real / "original_sequences")
    (root / "manipulated_sequences" / "Deepfakes").symlink_to(real / "manipulated_sequences" / "Deepfakes")
    (real / "manipulated_sequences/Deepfakes/c23/videos/054_071.mp4").symlink_to(tmp_path / "nowhere.mp4")
    index = scan("ffpp", root)
    assert len(index.videos) == 2
    assert [(row.status, row.reason) for row in index.missing] == [
        ("missing", "it is a link to a file that is not there")
    ]
    write_manifest(root, prepared(index))
    assert read_manifest(root) == sorted(prepared(index), key=lambda row: row.video_id)


# DFDC


@pytest.mark.parametrize("above", ["", "train/", "disk1/"])
def test_parts_of_dfdc_are_found_where_users_have_them(tmp_path: Path, above: str) -> None:
    dfdc_part(tmp_path, f"{above}dfdc_train_part_0", ["aaa"])
    dfdc_part(tmp_path, f"{above or 'disk2/'}dfdc_train_part_11", ["bbb"])
    if above == "disk1/":
        dfdc_part(tmp_path, "dfdc_train_part_2", ["ccc"])
    index = scan("dfdc", tmp_path)
    fake = next(video for video in index.videos if video.path.endswith("aaa1.mp4"))
    assert (fake.label, fake.method, fake.split, fake.part) == (FAKE, "dfdc", "train", "dfdc_train_part_0")
    assert fake.source_id == f"{above}dfdc_train_part_0/aaa" and fake.group_id == "aaa"
    assert {video.group_id for video in index.videos if video.part == "dfdc_train_part_11"} == {"bbb"}
    assert any(remark.startswith(("2 of 50", "3 of 50")) for remark in index.remarks)


def test_listed_files_that_are_not_there_are_rows(tmp_path: Path) -> None:
    dfdc_part(tmp_path, "dfdc_train_part_0", ["aaa"])
    (tmp_path / "dfdc_train_part_0" / "aaa.mp4").unlink()
    touch(tmp_path, "dfdc_train_part_0/stranger.mp4")
    index = scan("dfdc", tmp_path)
    assert [(row.path, row.status) for row in index.missing] == [("dfdc_train_part_0/aaa.mp4", "missing")]
    assert "listed in dfdc_train_part_0/metadata.json" in index.missing[0].reason
    assert any(remark.startswith("3 fakes are there without the originals") for remark in index.remarks)
    assert any("1 video is in no list and has no label" in remark and "stranger" in remark for remark in index.remarks)
    assert shown(index)[-1] == ["all", "3", "4", "1"]


@pytest.mark.parametrize("inner", ["", "videos/"])
def test_official_test_and_validation_of_dfdc(tmp_path: Path, inner: str) -> None:
    dfdc_part(tmp_path, "dfdc_train_part_0", ["aaa"])
    touch(tmp_path, f"test/{inner}t1.mp4", f"test/{inner}t2.mp4", "validation/v1.mp4")
    metadata(tmp_path, "test", {"t1.mp4": {"augmentations": []}})  # beside labels.csv it is not read
    (tmp_path / "test/labels.csv").write_text(
        "\ufefffilename,label,original,extra\nt1.mp4,1,x.mp4,\nt2.mp4,0,,\nt3.mp4,1,,\n"
    )
    (tmp_path / "validation/labels.csv").write_text("label,filename\r\n0,v1.mp4\r\n")
    index = scan("dfdc", tmp_path)
    found = {video.path: (video.split, video.label, video.method) for video in index.videos if not video.part}
    assert found == {
        f"test/{inner}t1.mp4": ("test", FAKE, "dfdc"),
        f"test/{inner}t2.mp4": ("test", REAL, "original"),
        "validation/v1.mp4": ("val", REAL, "original"),
    }
    assert [row.path for row in index.missing] == ["test/t3.mp4"]


def test_a_test_folder_without_labels_is_told(tmp_path: Path) -> None:
    dfdc_part(tmp_path, "dfdc_train_part_0", ["aaa"])
    touch(tmp_path, "test/t1.mp4")
    metadata(tmp_path, "test", {"t1.mp4": {"label": "FAKE"}})
    index = scan("dfdc", tmp_path)
    assert any("test/ has no labels.csv" in remark for remark in index.remarks)
    assert {video.part for video in index.videos} == {"dfdc_train_part_0"}


def test_a_wrong_level_of_dfdc_is_told_the_right_folder(tmp_path: Path) -> None:
    root = dfdc_part(tmp_path / "dfdc", "train/dfdc_train_part_3", ["aaa"])
    touch(root, "test/t.mp4")
    (root / "test/labels.csv").write_text("filename,label\nt.mp4,0\n")
    for wrong in (root / "train/dfdc_train_part_3", root / "train", root / "test"):
        assert refused("dfdc", wrong).endswith(f"give data.raw={str(root)!r}")
    assert refused("dfdc", tmp_path).endswith(f"give data.raw={str(root)!r}")
    touch(tmp_path / "zips", "dfdc_train_part_00.zip")
    assert "has only 'dfdc_train_part_00.zip'" in refused("dfdc", tmp_path / "zips")


def test_a_copied_part_is_refused(tmp_path: Path) -> None:
    dfdc_part(tmp_path, "dfdc_train_part_0", ["aaa"])
    dfdc_part(tmp_path, "train/dfdc_train_part_0", ["aaa"])
    assert "has the video 'aaa.mp4' in two places" in refused("dfdc", tmp_path)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"a.mp4": {"label": "REAL"', "line 1 column"),
        ("[]", "it holds a list"),
        ('{"a.mp4": "REAL"}', "the value of 'a.mp4' is no object"),
        ('{"a.mp4": {"label": "MAYBE"}}', "the label of 'a.mp4' is 'MAYBE'"),
        ('{"a.mp4": {}}', "the label of 'a.mp4' is None"),
        ('{"../a.mp4": {"label": "REAL"}}', "names '../a.mp4', which is no file below its folder"),
        ('{"a.mp4": {"label": "FAKE", "original": "/etc/x.mp4"}}', "the original of 'a.mp4' is '/etc/x.mp4'"),
        ("[" * 100000, "nested too deep"),
    ],
)
def test_a_damaged_metadata_is_refused_with_its_place(tmp_path: Path, text: str, told: str) -> None:
    metadata(tmp_path, "dfdc_train_part_0", text)
    message = refused("dfdc", tmp_path)
    assert message.startswith(str(tmp_path / "dfdc_train_part_0" / "metadata.json")) and told in message


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("filename;label\na.mp4;1\n", "line 1 has no column 'filename', 'label'"),
        ("filename,label\na.mp4\n", "line 2 has fewer cells"),
        ("filename,label\na.mp4,1\nb.mp4,7\n", "the label of line 3 is '7'"),
        ("filename,label\na.mp4,1\na.mp4,1\n", "line 3: 'a.mp4' is there twice"),
        ("filename,label\n../a.mp4,1\n", "line 2: '../a.mp4' is no file name"),
        ("", "it is empty, line 1 must be filename,label"),
    ],
)
def test_a_damaged_labels_csv_is_refused_with_its_line(tmp_path: Path, text: str, told: str) -> None:
    dfdc_part(tmp_path, "dfdc_train_part_0", ["aaa"])
    touch(tmp_path, "test/a.mp4")
    (tmp_path / "test/labels.csv").write_text(text)
    assert told in refused("dfdc", tmp_path)


# DFDC preview


def dfdcp(root: Path, facts: dict[str, dict[str, str]]) -> Path:
    touch(root, *facts)
    (root / "dataset.json").write_text(json.dumps(facts))
    return root


def test_the_preview_is_read_by_its_list(tmp_path: Path) -> None:
    facts = {
        "original_videos/11/11_A_001.mp4": {"label": "real", "set": "train"},
        "method_A/11/22/11_22_A_001.mp4": {"label": "fake", "set": "train"},
        "method_A/33/33_A_001.mp4": {"label": "fake", "set": "test"},
    }
    dfdcp(tmp_path, facts)
    (tmp_path / "method_A/33/33_A_001.mp4").unlink()
    touch(tmp_path, "method_A/44/44.mp4")
    index = scan("dfdcp", tmp_path)
    assert [(video.label, video.method, video.split, video.group_id) for video in index.videos] == [
        (FAKE, "method_A", "train", "11"),
        (REAL, "original", "train", "11"),
    ]
    assert [(row.path, row.split) for row in index.missing] == [("method_A/33/33_A_001.mp4", "test")]
    assert index.remarks[0] == "there is no folder method_B/" and "1 video is not in dataset.json" in index.remarks[1]


def test_a_wrong_level_or_a_damaged_list_of_the_preview_is_refused(tmp_path: Path) -> None:
    root = dfdcp(tmp_path / "p", {"original_videos/1/a.mp4": {"label": "real", "set": "train"}})
    assert refused("dfdcp", root / "original_videos" / "1").endswith(f"give data.raw={str(root)!r}")
    assert refused("dfdcp", tmp_path).endswith(f"give data.raw={str(root)!r}")
    for facts, told in (
        ({"other/a.mp4": {"label": "real", "set": "train"}}, "is in none of"),
        ({"method_A/a.mp4": {"label": "real", "set": "train"}}, "is labelled 'real'"),
        ({"method_A/a.mp4": {"label": "fake", "set": "all"}}, "neither train nor test"),
        ({"method_A/../../a.mp4": {"label": "fake", "set": "test"}}, "no file below its folder"),
    ):
        (root / "dataset.json").write_text(json.dumps(facts))
        assert told in refused("dfdcp", root)


# The user's own videos


def test_own_videos_in_class_folders(tmp_path: Path) -> None:
    touch(tmp_path, "real/a.mp4", "real/deep/er/B.MOV", "fake/a.webm", "fake/note.txt", "readme.md", "real/.hidden.mp4")
    index = scan("video_folder", tmp_path)
    assert [(video.path, video.label, video.method) for video in index.videos] == [
        ("fake/a.webm", FAKE, "fake"),
        ("real/a.mp4", REAL, "real"),
        ("real/deep/er/B.MOV", REAL, "real"),
    ]
    assert index.classes == ("real", "fake")
    assert index.remarks[0] == "2 other files are no video and not read: 1 .md, 1 .txt"


def test_own_classes_are_numbered_by_name_and_splits_are_kept(tmp_path: Path) -> None:
    touch(tmp_path, "train/walk/1.mp4", "train/run/1.mp4", "train/jump/1.mp4", "test/walk/1.mp4", "test/run/2.mp4")
    index = scan("video_folder", tmp_path)
    assert index.classes == ("jump", "run", "walk")
    assert {video.path: (video.split, video.label) for video in index.videos}["test/walk/1.mp4"] == ("test", 2)
    assert "test/ has no video of class 'jump'" in index.remarks


@pytest.mark.parametrize("group", [1, r"(p\d)_", "{root}/who.csv:person"])
def test_own_videos_are_grouped_as_images_are(tmp_path: Path, group: int | str) -> None:
    touch(tmp_path, *(f"{name}/p{person}/p{person}_{name}.mp4" for person in range(3) for name in ("real", "fake")))
    rows = "".join(f"p{person}_{name}.mp4,p{person}\n" for person in range(3) for name in ("real", "fake"))
    (tmp_path / "who.csv").write_text("file,person\n" + rows)
    index = scan("video_folder", tmp_path, group=group.format(root=tmp_path) if isinstance(group, str) else group)
    assert {video.path.rpartition("/")[2]: video.group_id for video in index.videos}["p1_fake.mp4"] == "p1"
    assert {video.group_id for video in index.videos} == {"p0", "p1", "p2"}


def test_a_group_that_leaves_videos_out_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "real/a/1.mp4", "fake/2.mp4")
    assert "1 file does not lie that deep, the first is 'fake/2.mp4'" in refused("video_folder", tmp_path, group=1)


def test_a_wrong_level_of_own_videos_is_refused(tmp_path: Path) -> None:
    root = touch(tmp_path / "set" / "mine", "real/a.mp4", "fake/b.mp4")
    assert refused("video_folder", root / "real").endswith(f"give data.raw={str(root)!r}")
    assert refused("video_folder", root.parent).endswith(f"give data.raw={str(root)!r}")
    (root / "empty").mkdir()
    assert "class folder 'empty'" in refused("video_folder", root)
    assert "looks like a split" in refused(
        "video_folder", touch(tmp_path / "b", "Training/a/1.mp4", "Training/b/1.mp4")
    )
    assert "beside train/" in refused("video_folder", touch(tmp_path / "c", "train/a/1.mp4", "b/1.mp4"))
    assert "does not exist: did you mean" in refused("video_folder", root.parent / "mein")
    assert "is a file, not a folder" in refused("video_folder", root / "real/a.mp4")


def test_two_files_with_one_id_a_pipe_and_a_loop(tmp_path: Path) -> None:
    root = touch(tmp_path / "a", "real/a.mp4", "real/a.mkv", "fake/b.mp4")
    assert "two files for one video" in refused("video_folder", root)
    root = touch(tmp_path / "b", "real/a.mp4", "fake/b.mp4")
    os.mkfifo(root / "fake" / "pipe.mp4")
    assert [row.reason for row in scan("video_folder", root).missing] == ["it is no regular file"]
    (root / "fake" / "again").symlink_to(root)
    assert "is a link to a folder that holds it" in refused("video_folder", root)


def test_one_bad_link_blocks_no_set(tmp_path: Path) -> None:
    root = touch(tmp_path / "a", "real/a.mp4", "fake/b.mp4")
    for place in ("fake/loop.mp4", "fake/loop", "loop", "fake/deep/loop.mp4"):
        (root / place).parent.mkdir(exist_ok=True)
        (root / place).symlink_to((root / place).name)
    index = scan("video_folder", root)
    reason = "it cannot be read (Too many levels of symbolic links)"
    assert [(row.path, row.reason) for row in index.missing] == [
        ("fake/deep/loop.mp4", reason),
        ("fake/loop.mp4", reason),
    ]
    assert [video.path for video in index.videos] == ["fake/b.mp4", "real/a.mp4"]
    assert "2 other files are no video" in index.remarks[0]
    root = ffpp(tmp_path / "b", ["071"])
    (root / "original_sequences/youtube/c40").symlink_to("c40")
    (root / "manipulated_sequences").symlink_to("manipulated_sequences")
    assert len(scan("ffpp", root).videos) == 1
    root = dfdc_part(tmp_path / "c", "dfdc_train_part_0", ["aaa"])
    (root / "test").symlink_to("test")
    assert len(scan("dfdc", root).videos) == 4


def test_digits_of_other_scripts_are_no_numbers_of_videos(tmp_path: Path) -> None:
    index = scan("ffpp", ffpp(tmp_path, ["071", "٠٧١", "Deepfakes/०७१_०५४", "DeepFakeDetection/٠١_٠٢__a"]))
    assert [video.video_id[-3:] for video in index.videos] == ["071"]
    assert sum("not named like" in remark for remark in index.remarks) == 3


def test_videos_that_were_not_asked_for_are_known(tmp_path: Path) -> None:
    root = ffpp(tmp_path, ["071", "Deepfakes/071_054", "FaceSwap/071_054"])
    ffpp(root, ["054"], level="c40")
    assert scan("ffpp", root, level="all").others == ()
    assert {name.split("/")[1:3][0] for name in scan("ffpp", root, methods=["FaceSwap"]).others} == {
        "Deepfakes",
        "youtube",
    }


@pytest.mark.parametrize(
    "text",
    ['{"a.mp4": {"label": "REAL"}, "a.mp4": {"label": "FAKE"}}', '{"a.mp4": {"label": "REAL", "label": "FAKE"}}'],
)
def test_a_list_that_says_two_things_of_one_video_is_refused(tmp_path: Path, text: str) -> None:
    twice = "'label' twice" if text.count("a.mp4") == 1 else "'a.mp4' twice"
    message = refused("dfdc", metadata(touch(tmp_path, "dfdc_train_part_0/a.mp4"), "dfdc_train_part_0", text))
    assert f"dfdc_train_part_0/metadata.json cannot be used (it holds {twice})" in message
    (tmp_path / "dataset.json").write_text(text)
    assert f"dataset.json cannot be used (it holds {twice})" in refused("dfdcp", tmp_path)


def test_a_name_that_no_manifest_can_hold_is_refused(tmp_path: Path) -> None:
    root = touch(tmp_path, "real/a.mp4", "fake/b.mp4")
    try:
        Path(os.fsdecode(os.fsencode(root) + b"/fake/\xff.mp4")).touch()
    except OSError:
        pytest.skip("this file system has UTF-8 names only")
    assert "is no UTF-8 name: rename it" in refused("video_folder", root)


def test_a_test_split_alone_is_enough_to_evaluate(tmp_path: Path) -> None:
    index = scan("video_folder", touch(tmp_path, "test/real/p1/a.mp4", "test/fake/p1/b.mp4"), group=1)
    assert {(video.split, video.group_id) for video in index.videos} == {("test", "p1")}


# The real samples


def test_the_real_samples_are_recognised(samples: Path) -> None:
    found = scan("ffpp", samples / "ffpp")
    assert {(Path(video.path).stem, video.split) for video in found.videos} == {
        ("519", "train"),
        ("519_515", "train"),
        ("750_743", "train"),
        ("004", "val"),
        ("004_982", "val"),
        ("634", "test"),
        ("634_660", "test"),
    }
    assert sum(count.found for count in found.counts) == 7 and sum(count.missing for count in found.counts) == 4993
    assert "give data.raw" in refused("ffpp", samples)
    splits = ffpp_splits(prepared(found), held_out="FaceSwap")
    assert {name: sorted(row.method for row in rows) for name, rows in splits.parts.items()} == {
        "train": ["Deepfakes", "Face2Face", "original"],
        "val": ["NeuralTextures", "original"],
        "test": ["FaceSwap", "original"],
        "in_domain": ["original"],
    }
    dfdc = scan("dfdc", samples / "dfdc")
    assert [video.label for video in dfdc.videos] == [FAKE] * 3
    assert [row.path for row in dfdc.missing] == ["dfdc_train_part_0/awnfpubqmo.mp4"]
    assert any(remark.startswith("3 fakes are there without the originals") for remark in dfdc.remarks)
