"""`prepare --check` on images of one's own, and what training says of them before its first step."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssat.commands.prepare import main, prepare
from ssat.config.identity import config_hash
from ssat.config.overrides import composed
from ssat.config.resolve import resolve
from ssat.core.errors import UserError
from tests.data.bombs import BOMBS
from tests.helpers import record_of, train

TRAINING = (
    *("data=image_folder", "data.img_size=16", "data.samples_per_class=null", "recipe.batch_size=8"),
    *("epochs=1", "mode=scratch", "reconstruct_every=0"),
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """real/ and fake/ with five videos of three frames each; every frame is noise."""
    rng = np.random.default_rng(0)
    for number in range(10):
        folder = tmp_path / "images" / ("real", "fake")[number // 5] / f"video{number}"
        folder.mkdir(parents=True)
        for frame in range(3):
            pixels = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"frame{frame}.png")
    return tmp_path / "images"


def test_a_sound_folder_is_clean(root: Path, capsys) -> None:
    words = ["--check", "data=image_folder", f"data.root={root}", "data.val_fraction=0.2", "data.group=1"]
    assert prepare(words) == 0
    out = capsys.readouterr().out
    assert "train: 24 images in 8 groups" in out and "val: 6 images in 2 groups" in out and "clean" in out


def test_findings_are_told_all_and_exit_with_one(root: Path, capsys) -> None:
    for number in range(30):
        (root / "real" / "video0" / f"broken{number}.png").write_bytes(b"no image")
    words = ["--check", "--json", "data=image_folder", f"data.root={root}", "data.on_bad_image=skip"]
    assert prepare(words) == 1
    found = json.loads(capsys.readouterr().out)
    assert len(found["unreadable"]) == 30 and found["findings"] == ["30 files cannot be read"]
    assert prepare([word for word in words if word != "--json"]) == 1
    assert capsys.readouterr().out.count(".png: not an image") == 30


def test_a_huge_picture_is_a_finding_and_is_not_decoded(root: Path, capsys) -> None:
    for ending, bomb in BOMBS.items():
        (root / "real" / "video0" / f"bomb.{ending}").write_bytes(bomb())
    assert prepare(["--check", "data=image_folder", f"data.root={root}", "data.on_bad_image=skip"]) == 1
    said = capsys.readouterr().out
    assert f"{len(BOMBS)} files cannot be read" in said
    assert all(f"bomb.{ending}: it states" in said for ending in BOMBS)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["data.root=/nowhere/at/all"], "data.root='/nowhere/at/all' does not exist"),
        (["data.root={root}", "data.grup=1"], "there is no key 'data.grup'"),
        (["data.root={root}", "data.group=3"], "names the folder at level 3"),
        ([], "data.root"),
    ],
)
def test_a_mistake_is_one_sentence_and_exits_with_two(root: Path, words: list[str], message: str, monkeypatch, capsys):
    words = [word.format(root=root) for word in words]
    monkeypatch.setattr("sys.argv", ["prepare", "--check", "data=image_folder", *words])
    with pytest.raises(SystemExit) as caught:
        main()
    error = capsys.readouterr().err
    assert caught.value.code == 2 and message in error and error.startswith("error: ") and error.count("\n") == 1


def test_a_class_that_the_test_folder_lacks_is_a_finding(root: Path, monkeypatch, capsys) -> None:
    for name in ("real", "fake"):
        (root / "train").mkdir(exist_ok=True)
        (root / name).rename(root / "train" / name)
    (root / "test" / "real").mkdir(parents=True)
    Image.effect_noise((16, 16), 90).save(root / "test" / "real" / "one.png")
    monkeypatch.setattr("sys.argv", ["prepare", "--check", "data=image_folder", f"data.root={root}"])
    with pytest.raises(SystemExit) as caught:
        main()
    told = capsys.readouterr()
    assert caught.value.code == 1 and "finding: test has no image of class 'fake'" in told.out and told.err == ""


def test_training_says_and_records_the_groups_of_its_splits(root: Path, tmp_path: Path, capsys) -> None:
    (root / "real" / "list.txt").touch()
    words = (*TRAINING, f"data.root={root}", "data.val_fraction=0.4", "data.group=1", "data.label_fraction=0.5")
    run = train(*words, runs=tmp_path / "runs")
    out = capsys.readouterr().out
    assert "data: train 18 images in 6 groups, 9 of each class; val 12 images in 4 groups" in out
    assert "data: 1 file is not read: 1 .txt (1 in 'real')" in out and "lie in folders" not in out
    (phase,) = record_of(run)["phases"]
    assert phase["data_fingerprint"]["groups"] == {"train": 6, "val": 4}
    assert phase["data_check"]["labelled"] == {"images": 9, "groups": 3}
    assert phase["data_check"]["not_read"] == {"real": {".txt": 1}}
    train(*words, runs=tmp_path / "runs")
    assert "skipped, already finished" in capsys.readouterr().out


def test_other_groups_of_the_same_images_are_another_input(root: Path, tmp_path: Path) -> None:
    names = sorted(f"{path.relative_to(root).as_posix()}" for path in root.rglob("*.png"))
    table = tmp_path / "videos.csv"
    table.write_text("file,video\n" + "".join(f"{name},{name.split('/')[1]}\n" for name in names))
    words = (*TRAINING, f"data.root={root}", f"data.group={table}:video", "data.val_fraction=0.2")
    train(*words, runs=tmp_path / "runs")
    table.write_text("file,video\n" + "".join(f"{name},{name.split('/')[1][-1]}x\n" for name in names))
    with pytest.raises(UserError, match="other groups of the train images"):
        train(*words, runs=tmp_path / "runs")


def test_a_table_has_one_spelling_in_the_name_of_a_run(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    hashes = {
        config_hash(resolve(composed(["data=image_folder", "data.root=x", f"data.group={group}"])))
        for group in ("a.csv:p", "./a.csv:p", f"{tmp_path}/a.csv:p")
    }
    assert len(hashes) == 1
    levels = [resolve(composed(["data=image_folder", "data.root=x", f"data.group={one}"])) for one in ("1", "'1'")]
    assert config_hash(levels[0]) == config_hash(levels[1]) not in hashes


def test_sub_folders_without_a_group_are_said_in_one_line(root: Path, tmp_path: Path, capsys) -> None:
    train(*TRAINING, f"data.root={root}", "data.val_fraction=0.2", runs=tmp_path / "runs")
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("data: ")]
    assert len(lines) == 2 and "data.group=1 keeps it on one side" in lines[1]
