"""A tiny real run on synthetic videos, and what the command says of videos of no set."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from PIL import Image
from rich.console import Console

import ssat
from ssat.commands.evaluate import evaluate
from ssat.commands.predict.command import USAGE, parse, predict
from ssat.commands.prepare import prepare
from ssat.commands.train import find_run_dir
from ssat.commands.train import train as train_config
from ssat.config.resolve import resolve
from ssat.config.words import CONF
from ssat.core.errors import UserError
from ssat.core.words import utf_8
from ssat.runs.detection import read_predictions_csv
from ssat.runs.predicted import per_second
from tests.data.video.synthetic import scene, write_audio, write_video, write_video_folder
from tests.helpers import ROOT, wait_for

SHARED = Path(os.environ.get("SSAT_SHARED", Path(__file__).resolve().parents[3] / "shared"))
SAMPLES = SHARED / "data" / "deepfake_samples"
LEARN = [
    *("encoder=videomae_micro", "data=video_folder", "data.img_size=32", "data.frame_step=1", "data.test_fraction=0.4"),
    *("data.val_fraction=0.2", "mode=scratch", "epochs=2", "recipe.batch_size=4", "recipe.base_lr=0.01"),
    *("recipe.lr_rule=absolute", "trainer=cpu", "trainer.threads=1", "footprint.energy=false"),
]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """raw/: the videos; out/: prepared; runs/: the run."""
    home = tmp_path_factory.mktemp("home")
    raw, out = write_video_folder(home / "raw", videos=6, count=40), home / "out"
    words = ["data=video_folder", f"data.raw={raw}", f"data.root={out}", "detector=none", "workers=0"]
    assert prepare([*words, "size=40", "stride=1"]) == 0
    return home


@pytest.fixture(scope="module")
def run(home: Path) -> Path:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        words = [*LEARN, f"data.root={home / 'out'}", f"runs_dir={home / 'runs'}"]
        config = resolve(compose("train", overrides=words))
    train_config(config)
    return find_run_dir(config)


@pytest.fixture
def console() -> Console:
    return Console(width=200, record=True, force_terminal=False, soft_wrap=True)


def table(out: Path) -> dict[str, dict[str, str]]:
    with open(out / "predictions.csv", newline="", encoding="utf-8") as file:
        return {row["file"]: row for row in csv.DictReader(file)}


def start(*words: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "src.predict", *words]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize(("batch_size", "tolerance"), [(1, 0), (4, 1e-6)])
def test_probabilities_are_those_of_evaluate(
    home: Path, run: Path, tmp_path: Path, console: Console, batch_size: int, tolerance: float
) -> None:
    evaluate([f"run={run}", "checkpoint=last", f"batch_size={batch_size}", "force=true"], console)
    scores = {s.video_id: s for s in read_predictions_csv(run / "evaluations" / "last-test-clean.csv")}
    assert len(scores) >= 2
    shutil.move(home / "out", home / "away")  # the data of the training need not be there
    try:
        for name, score in list(scores.items())[:2]:
            words = [f"run={run}", f"input={home / 'raw' / name}.mp4", "checkpoint=last", f"out={tmp_path / name}"]
            assert predict([*words, f"batch_size={batch_size}", "workers=0"], console) == 0
            (row,) = table(tmp_path / name).values()
            assert float(row["prob_fake"]) == pytest.approx(score.prob, abs=tolerance, rel=0)
            assert int(row["clips"]) == score.n_clips
    finally:
        shutil.move(home / "away", home / "out")


@pytest.mark.slow
def test_a_picture_whose_name_is_taken_gets_another(home: Path, run: Path, tmp_path: Path, console: Console) -> None:
    files, out = tmp_path / "files", tmp_path / "out"
    names = ["a.mp4", "a.mp4.png/b.mp4", "c/x.mp4", "c/x.mp4.png/y.mp4", "predictions.csv/z.mp4", "z.mp4"]
    for number, name in enumerate(names):
        write_video(files / name, scene(16, seed=number))
    (out / "z.mp4.png").mkdir(parents=True)
    words = [f"run={run}", f"input={files}", f"out={out}", "workers=0"]
    for _ in range(2):
        assert predict(words, console) == 0
        pictures = [row["picture"] for row in json.loads((out / "predictions.json").read_text())["files"]]
        assert len({*pictures}) == 6 and all((out / name).is_file() for name in pictures)
        assert pictures[0] == "a.mp4.png" and (out / "predictions.csv").is_file()


def test_a_name_that_is_no_utf_8_stands_in_the_table_so_that_it_can_be_found(
    home: Path, run: Path, tmp_path: Path, console: Console
) -> None:
    """Skipped when it is asked for again."""
    files, out = tmp_path / "files", tmp_path / "out"
    files.mkdir()
    video = Path(shutil.copy(next((home / "raw").rglob("*.mp4")), files / os.fsdecode(b"a\xff.mp4")))
    words = [f"run={run}", f"input={files}", f"out={out}", "workers=0"]
    assert predict(words, console) == 0
    ((name, row),) = table(out).items()
    assert name == utf_8(video.name) == r"a\udcff.mp4" and row["picture"] == r"a\udcff.mp4.png"
    (kept,) = json.loads((out / "predictions.json").read_text())["files"]
    assert (files / kept["file"]).is_file() and (out / kept["picture"]).is_file()
    first = (out / "predictions.csv").read_bytes()
    assert predict(words, console) == 0 and (out / "predictions.csv").read_bytes() == first


@pytest.mark.slow
def test_a_folder_with_bad_files_is_predicted_and_goes_on(
    home: Path, run: Path, tmp_path: Path, console: Console, capfd: pytest.CaptureFixture[str]
) -> None:
    files, out = tmp_path / "files", tmp_path / "out"
    good = write_video(files / "a" / "good $1 [red].mp4", scene(40))
    write_video(files / "=odd.mov", scene(40, (45, 63)), pixel_format="yuv444p")
    write_video(files / "tall.mkv", scene(40, (96, 48)))
    write_video(files / "turned.mp4", scene(40, (48, 96)), rotation=90)
    write_video(files / "short.mp4", scene(5))
    write_video(files / "slow.avi", scene(40), 5, codec="mpeg4")
    write_video(files / os.fsdecode(b"\xff.mp4"), scene(20))
    write_audio(files / "sound.mp4")
    (files / "empty.mp4").write_bytes(b"")
    (files / "text.mp4").write_text("#!/bin/sh\ntouch /tmp/run\n")
    (files / "list.mp4").write_text(f"#EXTM3U\n#EXTINF:1,\n{good}\n")
    (files / "half.mp4").write_bytes(good.read_bytes()[: good.stat().st_size // 2])
    (files / "gone.mp4").symlink_to(files / "nowhere")
    (files / "notes.txt").write_text("no video")
    words = [f"run={run}", f"input={files}", f"out={out}", "batch_size=3"]
    assert predict(words, console) == 3
    said = console.export_text(clear=True)
    assert "Traceback" not in said and capfd.readouterr().err == ""
    rows = table(out)
    bad = {name: row for name, row in rows.items() if row["status"] not in ("ok", "partial")}
    assert {*bad} == {f"{name}.mp4" for name in ("sound", "empty", "text", "list", "half", "gone")}
    assert len(rows) == len(bad) + 7 and rows[r"\udcff.mp4"]["status"] == "ok" and r"\udcff.mp4" in said
    assert all(row["reason"] and row["reason"] in said and not row["prob_fake"] for row in bad.values())
    assert rows["gone.mp4"]["status"] == "missing"
    assert rows["short.mp4"]["clips"] == "1" and "fewer than a clip of 16" in rows["short.mp4"]["reason"]
    assert "./=odd.mov" in rows  # no formula for a spreadsheet
    assert rows["slow.avi"]["note"] == "5 frames per second, trained on 25"
    assert (rows["tall.mkv"]["width"], rows["turned.mp4"]["width"]) == ("48", "48")
    best = json.loads((run / "result.json").read_text())["metrics"]["val"]["auc"]["best_epoch"] + 1
    assert f"checkpoint: best.ckpt, epoch {best} of " in said
    for part in (
        "trained on video_folder: ",
        "measured: AUC ",
        "no proof",
        "13 files: ",
        "5 corrupt",
        "1 missing",
    ):
        assert part in said
    for name, row in rows.items():
        if name not in bad:
            assert 0 <= float(row["prob_fake"]) <= 1
            with Image.open(out / row["picture"].replace(r"\udcff", "\udcff")) as picture:
                assert picture.width == 1560 and np.asarray(picture).std() > 10
    lines = (out / ".predicted.jsonl").read_text().count("\n")
    assert predict([*words, "workers=0"], console) == 3
    assert "7 of them finished before" in console.export_text()
    assert table(out) == rows
    assert (out / ".predicted.jsonl").read_text().count("\n") == lines + len(bad)  # only these were tried again
    content = json.loads((out / "predictions.json").read_text())
    assert content["about"]["classes"] == ["real", "fake"] and len(content["files"]) == 13
    (face,) = next(file for file in content["files"] if file["file"] == "tall.mkv")["faces"]
    assert len(face["clips"]) == 3 and len(face["per_second"]) == 2
    mean = np.mean([clip["probs"] for clip in face["clips"]], axis=0)
    assert face["probs"] == pytest.approx(mean.tolist(), abs=1e-9)
    first = [clip["probs"][1] for clip in face["clips"] if clip["begin"] < 1]
    assert face["per_second"][0][1] == pytest.approx(np.mean(first))


@pytest.mark.slow
def test_a_changed_file_another_checkpoint_and_a_lost_picture_are_predicted_again(
    run: Path, tmp_path: Path, console: Console
) -> None:
    video, out = write_video(tmp_path / "files" / "a.mp4", scene(20)), tmp_path / "out"
    words = [f"run={run}", f"input={video}", f"out={out}", "max_seconds=0.5", "workers=0"]

    def repeated(*more: str) -> bool:
        lines = (out / ".predicted.jsonl").read_text().count("\n")
        assert predict([*words, *more], console) == 0
        return (out / ".predicted.jsonl").read_text().count("\n") > lines

    assert predict(words, console) == 0
    (row,) = table(out).values()
    assert row["status"] == "partial" and "only its beginning" in row["reason"] and row["n_frames"] == "13"
    assert not repeated()
    assert not repeated("threshold=0.1")
    assert repeated("checkpoint=last")
    (out / "a.mp4.png").unlink()
    assert repeated()
    write_video(video, scene(20, seed=1))
    assert repeated()
    assert repeated("force=true")


def test_a_loaded_network_predicts_the_same_of_a_video(run: Path, home: Path, tmp_path: Path, console: Console) -> None:
    videos = [home / "raw" / "real" / "000.mp4", write_video(tmp_path / "a.mp4", scene(20))]
    alone = tmp_path / "best.ckpt"
    shutil.copy(run / "scratch" / "checkpoints" / "best.ckpt", alone)
    model = ssat.load(alone)
    assert predict([f"run={run}", f"input={videos[1]}", f"out={tmp_path / 'out'}", "workers=0"], console) == 0
    (row,) = table(tmp_path / "out").values()
    found = model.predict(videos)
    assert dict(zip(found[1].classes, found[1].probs, strict=True))["fake"] == float(row["prob_fake"])
    assert model.classes == ["real", "fake"] and found[0].prob + found[0].probs[1] == pytest.approx(1)
    (tmp_path / "b.mp4").write_text("no video")
    for images, sentence in (([tmp_path / "b.mp4"], "b.mp4 cannot be predicted"), ([np.zeros((8, 8))], "give paths")):
        with pytest.raises(UserError, match=sentence):
            model.predict(images)
    with pytest.raises(UserError, match="is of images"):
        model.embed(videos)


def test_a_threshold_decides_the_verdict(run: Path, tmp_path: Path, console: Console) -> None:
    video = write_video(tmp_path / "a.mp4", scene(20))
    for threshold, verdict in (("0", "fake"), ("1", "real")):
        words = [f"run={run}", f"input={video}", f"out={tmp_path}", "workers=0"]
        assert predict([*words, f"threshold={threshold}"], console) == 0
        (row,) = table(tmp_path).values()
        assert row["verdict"] == verdict
    assert f" {verdict} " in console.export_text()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "say run=<run folder>"),
        (["run={run}"], "say input=<image, video or folder>"),
        (["run=/proc/nowhere", "input={run}"], "is no run folder"),
        (["run={run}", "input=/proc/nowhere"], "input=/proc/nowhere does not exist"),
        (["run={run}", "input={run}"], "holds no .mp4"),
        (["run={run}", "input={image}"], "is an image, and this run is of videos"),
        (["run={run}", "input={video}", "treshold=1"], "did you mean threshold"),
        (["run={run}", "input={video}", "threshold=2"], "threshold=2 is not a number from 0 to 1"),
        (["run={run}", "input={video}", "max_seconds=nan"], "max_seconds=nan is not a number"),
        (["run={run}", "input={video}", "face=both"], "face=both is not one of largest, all"),
        (["run={run}", "input={video}", "detector=boxes"], "detector=boxes is not one of"),
        (["run={run}", "input={video}", "device=cuda"], "PyTorch finds no GPU"),
        (["run={run}", "input={video}", "workers=-1"], "workers=-1 is not possible"),
        (["run={run}", "input={video}", "batch_size=0"], "batch_size=0 is not possible"),
        (["run={run}", "input={video}", "checkpoint=first"], "name another by checkpoint=best or last"),
        (["run={run}", "input={video}", "out=/proc/x"], "out=/proc/x cannot be written"),
        (["run={run}", "input={video}", "top_k=3"], "top_k= is of images, and this run is of videos"),
        (["run={run}", "input={video}", "explain"], "explain= is of images, and this run is of videos"),
        (["run={run}", "input=-"], "lists are of images"),
    ],
)
def test_a_mistake_is_one_sentence(
    run: Path, home: Path, tmp_path: Path, console: Console, words: list[str], sentence: str
) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    places = {"run": run, "video": home / "raw" / "real" / "000.mp4", "image": tmp_path / "a.png"}
    with pytest.raises(UserError) as caught:
        predict([word.format(**places) for word in words], console)
    assert sentence in str(caught.value) and "\n" not in str(caught.value)


def test_a_run_that_does_not_say_how_its_clips_were_made_is_refused(
    run: Path, home: Path, tmp_path: Path, console: Console
) -> None:
    copied = shutil.copytree(run, tmp_path / "run")
    inputs = json.loads((copied / "inputs.json").read_text())
    words = [f"run={copied}", f"input={home / 'raw'}", f"out={tmp_path / 'out'}"]
    passport = inputs["data"].pop("passport")
    for changed, sentence in (
        ({}, "does not say how its clips were made"),
        ({"passport": passport | {"stride": "x"}}, "passport of"),
        ({"passport": passport | {"detector": "boxes"}}, "cropped by a file of boxes"),
    ):
        (copied / "inputs.json").write_text(json.dumps(inputs | {"data": inputs["data"] | changed}))
        with pytest.raises(UserError, match=sentence):
            predict(words, console)
    assert not (tmp_path / "out").exists()


def test_the_help_names_every_option() -> None:
    options = parse(["run=x", "input=y", "force"])
    assert options["force"] == "true"
    assert all(f"  {key}=" in USAGE for key in options)


def test_seconds_without_a_clip_have_no_score() -> None:
    assert per_second([]) == []


@pytest.mark.slow
def test_an_interrupted_command_keeps_what_is_finished(run: Path, tmp_path: Path) -> None:
    for number in range(20):
        write_video(tmp_path / "in" / f"{number:02d}.mp4", scene(80, (128, 128), seed=number))
    words = [f"run={run}", f"input={tmp_path / 'in'}", f"out={tmp_path / 'out'}"]
    process, journal = start(*words), tmp_path / "out" / ".predicted.jsonl"
    wait_for(lambda: journal.exists() and journal.read_text().count("\n") >= 2, process)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert (
        errors.strip()
        == "interrupted: finished files are written; the same command goes on with videos, and repeats images"
    )
    kept = len(table(tmp_path / "out"))
    assert 2 <= kept < 20
    process = start(*words)
    said, _ = process.communicate(timeout=200)
    assert process.returncode == 0 and f"{kept} of them finished before" in said
    assert len(table(tmp_path / "out")) == 20


@pytest.mark.slow
@pytest.mark.skipif(not SAMPLES.is_dir(), reason=f"needs {SAMPLES} (set SSAT_SHARED to the folder that holds data/)")
def test_faces_of_real_videos_are_found_and_scored(run: Path, tmp_path: Path, console: Console) -> None:
    words = [f"run={run}", f"input={SAMPLES}", f"out={tmp_path}", "detector=mtcnn", "max_seconds=2", "face=all"]
    assert predict(words, console) == 0
    rows = table(tmp_path)
    assert len(rows) == 10
    assert all(row["status"] == "partial" and int(row["faces_scored"]) >= 1 for row in rows.values())
    assert all((tmp_path / row["picture"]).is_file() for row in rows.values())
    said = console.export_text()
    assert "faces are found by detector=mtcnn, and were by none" in said and "(up to 8): several times slower" in said
