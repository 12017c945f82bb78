"""Videos through the real pipeline: written with PyAV, prepared, trained on, evaluated."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from rich.console import Console

from ssat.commands.evaluate import evaluate
from ssat.commands.train import train as train_config
from ssat.config.check_typed import check_typed
from ssat.config.identity import config_hash
from ssat.config.resolve import resolve
from ssat.config.words import CONF
from ssat.core.errors import UserError
from ssat.data.video.ffpp_splits import official_splits
from ssat.data.video.journal import ABOUT
from ssat.data.video.layouts import scan
from ssat.data.video.manifest import read_manifest, write_manifest
from ssat.data.video.module import VideoDataModule
from ssat.data.video.preparation import PrepareOptions
from ssat.data.video.prepare_set import prepare_all
from ssat.data.video.sets import dfdc, ffpp
from ssat.runs.detection import detection_metrics, read_predictions_csv
from ssat.runs.folder import find_run_dir
from ssat.runs.video_classes import class_metrics
from ssat.training.data import build_data
from ssat.training.remarks import remarks
from tests.data.video.synthetic import scene, write_dfdc_tree, write_ffpp_tree, write_video, write_video_folder
from tests.helpers import command, largest_difference, record_of, start_and_kill, weights
from tests.runs.class_scores import class_scores

MICRO = ["encoder=videomae_micro", "encoder.embed_dim=32", "data.frames=4", "data.frame_step=1", "data.img_size=32"]
MICRO += ["footprint.energy=false", "trainer=cpu", "trainer.threads=1", "recipe.batch_size=4", "reconstruct_every=1"]
METHODS = ("Deepfakes", "FaceSwap")


def prepared(dataset: str, raw: Path, out: Path) -> Path:
    index = scan(dataset, raw)
    options = PrepareOptions(detector="none", size=32, stride=1)
    prepare_all(dataset, index.videos, raw, out, options, missing=index.missing, classes=index.classes)
    return out


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared FF++ of one pair in each split: 2 originals and 4 fakes each."""
    folder = tmp_path_factory.mktemp("ffpp")
    return prepared("ffpp", write_ffpp_tree(folder / "raw", methods=METHODS, count=12, size=(48, 48)), folder / "clips")


def composed(*words: str) -> Any:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return resolve(compose("train", overrides=[*words]))


def configured(*words: str) -> Any:
    return composed(*MICRO, *words)


def train(clips: Path, runs: Path, *words: str) -> Path:
    config = configured("data=ffpp", f"data.root={clips}", f"runs_dir={runs}", *words)
    train_config(config)
    return find_run_dir(config)


def module(clips: Path, **options: Any) -> VideoDataModule:
    data = VideoDataModule(ffpp(str(clips)), img_size=32, frames=4, frame_step=1, batch_size=2, **options)
    data.setup()
    return data


def test_an_epoch_shows_each_training_video_once_and_an_evaluation_every_frame(clips: Path) -> None:
    data = module(clips, repeats=2)
    loader = data.train_dataloader()
    batches = [list(loader)]
    loader.sampler.set_epoch(1)
    batches.append(list(loader))
    for epoch in batches:
        seen = torch.cat([batch.videos for batch in epoch]).tolist()
        assert Counter(seen) == dict.fromkeys(range(6), 2)
        assert all(batch.images.shape == (2, 3, 4, 32, 32) for batch in epoch)
    first, second = (torch.cat([batch.indices for batch in epoch]).tolist() for epoch in batches)
    assert first != second and sorted(first) == sorted(second) == list(range(12))
    test = list(data.test_dataloader())
    assert Counter(torch.cat([batch.videos for batch in test]).tolist()) == dict.fromkeys(range(6), 3)  # 12 frames
    labels = {(v, t) for batch in test for v, t in zip(batch.videos.tolist(), batch.targets.tolist(), strict=True)}
    assert [label for _, label in sorted(labels)] == data.labels("test").tolist()


def test_the_share_of_mirrored_clips_can_be_that_of_the_data(clips: Path) -> None:
    config = configured("data=ffpp", f"data.root={clips}", "data.hflip=0", "mode=scratch")
    assert build_data(config, config.mode.phases[0]).train_transform.hflip_prob == 0


def test_a_balanced_epoch_has_as_many_of_each_class_and_draws_the_others_anew(clips: Path) -> None:
    data = module(clips, balance=True)
    loader = data.train_dataloader()
    fakes = set()
    for epoch in range(8):
        loader.sampler.set_epoch(epoch)
        videos, targets = zip(*((b.videos.tolist(), b.targets.tolist()) for b in loader), strict=True)
        assert Counter(np.concatenate(targets).tolist()) == {0: 2, 1: 2}
        fakes |= {int(v) for v, t in zip(np.concatenate(videos), np.concatenate(targets), strict=True) if t}
    assert len(fakes) == 4
    assert data.images_per_epoch() == 4


def test_a_remark_counts_clips_and_those_of_a_balanced_epoch(clips: Path) -> None:
    words = ["recipe.w=null", "recipe.balance=true", "recipe.drop_last=true", "recipe.batch_size=3"]
    config = configured("data=ffpp", f"data.root={clips}", "mode=scratch", *words)
    phase = config.mode.phases[0]
    data = build_data(config, phase)
    data.setup()
    (remark,) = remarks(config, phase, data)
    assert remark.startswith("each epoch trains on 3 of 4 clips and leaves out 1, other ones each time")


def test_other_frames_or_another_passport_are_other_data(clips: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(clips, tmp_path / "copy")
    before = module(clips).fingerprint()
    assert module(copy).fingerprint() == before
    rows = read_manifest(copy)
    changed = [row if row.split != "val" else type(row)(**{**vars(row), "clip_sha256": "0"}) for row in rows]
    write_manifest(copy, changed)
    after = module(copy).fingerprint()
    assert after["content"]["train"] == before["content"]["train"]
    assert after["content"]["val"] != before["content"]["val"]
    write_manifest(copy, rows)
    about = json.loads((copy / ABOUT).read_text())
    about["options"]["detector"] = "mtcnn"
    (copy / ABOUT).write_text(json.dumps(about))
    assert module(copy).fingerprint()["content"]["train"] != before["content"]["train"]


@pytest.mark.parametrize("mode", ["scratch", "ssat", "ssl_ft"])
def test_a_run_leaves_scores_of_all_test_videos_and_a_film_strip(
    clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], mode: str
) -> None:
    run = train(clips, tmp_path, f"mode={mode}", "epochs=1", "data.held_out=Deepfakes")
    record = record_of(run)
    printed = capsys.readouterr().out
    assert " clips/s " in printed and "image" not in printed and "img" not in printed
    phase = record["phases"][-1]
    folder = run / phase["name"]
    epoch = next(line for line in printed.splitlines() if f"/{phase['name']} 1/1" in line)
    assert re.findall(r"val/\w+", epoch) == ["val/loss", "val/acc1", "val/balanced_acc", "val/auc"]
    assert len([name for name in phase["history"][0] if name.startswith("val/")]) == 8
    assert re.search(
        r": test/acc1 last [\d.]+ %, best \(by val/auc\) [\d.]+ %; test/balanced_acc .*; test/auc ", printed
    )
    scores = read_predictions_csv(folder / "predictions.csv")
    assert {(score.method, score.label) for score in scores} == {("original", 0), ("Deepfakes", 1)}
    assert all(score.n_clips == 3 for score in scores)
    assert phase["detection"]["n_total"] == phase["detection"]["n_scored"] == 4
    assert json.loads(json.dumps(detection_metrics(scores))) == phase["detection"]
    assert record["metrics"]["test"]["acc1"]["last"] == pytest.approx(phase["detection"]["accuracy"])
    assert phase["data_fingerprint"]["passport"]["held_out"] == "Deepfakes"
    # The further test has videos of its own: the other method.
    within = read_predictions_csv(folder / "predictions-in_domain.csv")
    assert {(score.method, score.label) for score in within} == {("original", 0), ("FaceSwap", 1)}
    assert json.loads(json.dumps({"in_domain": detection_metrics(within)})) == phase["further_detection"]
    measured = record["metrics"]["in_domain"]["auc"]
    assert measured["last"] == pytest.approx(phase["further_detection"]["in_domain"]["auc"])
    assert measured["best_epoch"] == record["metrics"]["test"]["auc"]["best_epoch"] == 0
    first = run / record["phases"][0]["name"]
    assert bool(list(first.glob("reconstructions/*.png"))) == (mode != "scratch")
    with Console(record=True, width=200) as console:
        evaluated = evaluate([f"run={run}"], console)
    assert evaluated["detection"] == phase["detection"]
    assert read_predictions_csv(run / "evaluations" / "last-test-clean.csv") == scores


@pytest.mark.slow
def test_a_killed_run_goes_on_as_if_it_had_not_been(clips: Path, tmp_path: Path) -> None:
    words = [*MICRO, "data=ffpp", f"data.root={clips}", "mode=ssat", "epochs=8", "checkpoint_minutes=0.0005"]
    words += ["data.samples_per_class=null", "data.patch_size=16"]  # not those of the digits
    start_and_kill(*words, runs=tmp_path / "killed")
    assert command(*words, runs=tmp_path / "killed").returncode == 0
    assert command(*words, runs=tmp_path / "whole").returncode == 0
    runs = [next((tmp_path / name).glob("*/*/result.json")).parent for name in ("killed", "whole")]
    assert largest_difference(*(weights(run) for run in runs)) == 0
    assert len({(run / "joint" / "predictions.csv").read_text() for run in runs}) == 1


def test_a_video_without_frames_counts_as_a_failure_and_is_named(clips: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(clips, tmp_path / "copy")
    rows = read_manifest(copy)
    lost = next(row for row in rows if row.split == "test" and row.label == 1)
    gone = {"status": "no_face", "reason": "no face was found in it", "clip": "", "n_stored": 0, "clip_sha256": ""}
    write_manifest(copy, [type(row)(**{**vars(row), **gone}) if row == lost else row for row in rows])
    run = train(copy, tmp_path / "runs", "mode=scratch", "epochs=1")
    found = record_of(run)["phases"][0]["detection"]
    assert (found["n_total"], found["n_scored"], found["n_failed"]) == (6, 5, 1)
    right = found["accuracy"] / 100 * 5
    assert found["accuracy_all"] == pytest.approx(100 * right / 6)
    rows = {score.video_id: score for score in read_predictions_csv(run / "scratch" / "predictions.csv")}
    assert (rows[lost.video_id].prob, rows[lost.video_id].status) == (None, "no_face")
    # The tests of single methods lie within test: its scores tell of them, without another pass.
    assert {*found["methods"]} == {*METHODS}
    assert (found["methods"][lost.method]["n_total"], found["methods"][lost.method]["n_failed"]) == (4, 1)
    assert record_of(run)["phases"][0]["further_detection"] == {}
    assert {*record_of(run)["metrics"]} == {"val", "test"}


def test_three_classes_leave_a_probability_of_each(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ["faceswap", "lipsync", "real"]
    for label, name in enumerate(names):
        for number in range(4):
            frames = scene(6, (48, 48), seed=10 * label + number)
            write_video(tmp_path / "raw" / name / f"{name}{number}.mp4", frames, codec="mpeg4")
    out = prepared("video_folder", tmp_path / "raw", tmp_path / "clips")
    words = ["data=video_folder", f"data.root={out}", "data.test_fraction=0.25", "data.val_fraction=0.34"]
    config = configured(*words, f"runs_dir={tmp_path / 'runs'}", "mode=scratch", "epochs=1")
    train_config(config)
    assert re.search(
        r": test/acc1 last .*best \(by val/balanced_acc\) .*; test/balanced_acc last", capsys.readouterr().out
    )
    run = find_run_dir(config)
    phase = record_of(run)["phases"][0]
    scores, classes = class_scores(run / "scratch" / "predictions.csv")
    assert classes == names and {score.label for score in scores} == {0, 1, 2}
    assert phase["detection"] is None
    assert phase["classification"] == json.loads(json.dumps(class_metrics(scores, classes)))
    assert record_of(run)["metrics"]["test"]["balanced_acc"]["last"] == pytest.approx(
        phase["classification"]["balanced_accuracy"]
    )
    console = Console(record=True, width=200)
    assert evaluate([f"run={run}"], console)["classification"] == phase["classification"]
    assert class_scores(run / "evaluations" / "last-test-clean.csv") == (scores, names)
    lines = [line.split() for line in console.export_text().splitlines()]
    shown = [line for line in lines if line[:1] == ["class"]][0]
    assert {"balanced", "acc", "log-loss"} <= {*shown} and "AUC" not in shown
    assert [line[0] for line in lines if line[0] in ("all", *names)] == ["all", *names]


def test_a_run_is_measured_on_another_set_with_a_note_on_its_passport(
    clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = train(clips, tmp_path / "runs", "mode=scratch", "epochs=1")
    raw = write_dfdc_tree(tmp_path / "raw", parts=(0, 1, 2, 3, 40, 45), count=8, size=(48, 48))
    other = prepared("dfdc", raw, tmp_path / "dfdc")
    about = json.loads((other / ABOUT).read_text())
    about["options"]["quality"] = 60
    (other / ABOUT).write_text(json.dumps(about))
    console = Console(record=True, width=200)
    found = evaluate([f"run={run}", "data=dfdc", f"data.root={other}"], console)
    assert found["detection"]["n_total"] == len(dfdc(str(other)).splits["test"]) == 3
    # Where all videos are tests there is none to train on, and none is asked for.
    parts = "data.test_parts=[0,1,2,3,40,45]"
    losses = []
    for average in ("probabilities", "logits"):
        words = [f"run={run}", "data=dfdc", f"data.root={other}", parts, f"data.average={average}"]
        found = evaluate(words, console)
        assert found["detection"]["n_total"] == len(read_manifest(other))
        losses.append(found["detection"]["log_loss"])
    assert losses[0] != losses[1]
    assert "note: the clips are made otherwise than those it was trained on: quality=60, were with 95" in (
        capsys.readouterr().out
    )
    assert (run / "evaluations" / "last-dfdc-test-clean.csv").is_file()
    assert not (run / "evaluations" / "last-test-clean.json").exists()
    # A part of the user's own videos is said to be one.
    own = prepared("video_folder", write_video_folder(tmp_path / "own_raw", videos=5, count=8), tmp_path / "own")
    words = [f"run={run}", "data=video_folder", f"data.root={own}"]
    console = Console(record=True, width=200)
    assert evaluate(words, console)["detection"]["n_total"] == 2
    said = "note: split=test scores 2 of 10 videos (data.test_fraction): data.test_fraction=1 takes all"
    assert said in console.export_text(clear=False)
    assert evaluate([*words, "data.test_fraction=1"], console)["detection"]["n_total"] == 10
    assert console.export_text().count("note: split=test scores") == 1


def test_a_refused_evaluation_writes_nothing(clips: Path, tmp_path: Path) -> None:
    run = train(clips, tmp_path, "mode=scratch", "epochs=1")
    before = sorted(run.rglob("*"))
    with pytest.raises(UserError, match="data.perturb changes single images, and this run is of videos"):
        evaluate([f"run={run}", "data.perturb=fog"], Console())
    shutil.copytree(clips, tmp_path / "tests")
    rows = read_manifest(clips)
    write_manifest(tmp_path / "tests", [row for row in rows if row.split == "test"])
    with pytest.raises(UserError, match="ffpp has no train videos, only test"):
        evaluate([f"run={run}", f"data.root={tmp_path / 'tests'}", "probe=knn"], Console())
    assert sorted(run.rglob("*")) == before


@pytest.mark.parametrize(
    ("words", "says"),
    [
        # Before any data are read.
        (
            ["encoder=vit_micro", "data.root=nowhere"],
            "encoder=vit_micro reads single images, and data=ffpp gives clips",
        ),
        (["recipe.balance=true"], "recipe.balance=true and recipe.w=auto both make up"),
        (["recipe.mixup=0.8"], "recipe.mixup"),
        (["data.fraction=0.5"], "data.fraction=0.5 is of images"),
        (["data.protocol=strict"], "data.protocol=strict is of images"),
        (["data.val_fraction=0.2"], "data.val_fraction=0.2 is not used by data=ffpp"),
        (["data.held_out=Deepfake"], "data.held_out=Deepfake"),
        (["data.level=c40"], "c40"),
        (
            ["data.root=nowhere"],
            "make them with python -m src.prepare data=ffpp data.raw=<folder of the original videos> data.root=nowhere",
        ),
        (["recipe.batch_size=7"], "batch_size=7 is more than the 6 training clips: set recipe.batch_size to at most 6"),
        (["recipe.w=1.5"], "recipe.w=1.5 is not possible"),
        (["data.frames=null"], "data.frames"),
        (["ssl=mae", "mode=ssat"], "ssl=mae"),
        (["ssl=simclr", "mode=ssat"], "ssl=simclr"),
    ],
)
def test_what_does_not_fit_videos_is_one_sentence(clips: Path, tmp_path: Path, words: list[str], says: str) -> None:
    given = [*MICRO, "data=ffpp", f"data.root={clips}", f"runs_dir={tmp_path}", "mode=scratch", "epochs=1", *words]
    with pytest.raises(UserError, match=says.replace("[", r"\[")):
        train_config(configured(*given[len(MICRO) :]))
    assert not list(tmp_path.rglob("*.ckpt"))


def test_an_encoder_of_clips_is_refused_for_images_before_they_are_read(tmp_path: Path) -> None:
    words = ["encoder=videomae_micro", "data=cifar10", f"data.root={tmp_path}", f"runs_dir={tmp_path}"]
    with pytest.raises(UserError, match="encoder=videomae_micro reads clips, and data=cifar10 gives single images"):
        train_config(composed(*words))
    with pytest.raises(UserError, match="data.frames=4 is of videos, and data=cifar10 are images: leave it out"):
        train_config(composed(*words, "data.frames=4"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("data", "word", "says"),
    [
        ("ffpp", "recipe.augment.hflip=0", "data=ffpp are videos: set recipe.clip_augment.hflip_prob"),
        (
            "ffpp",
            "++recipe.augment.re_prob=0",
            "videos: theirs is recipe.clip_augment (--help recipe",
        ),
        ("ffpp", "recipe.eval_crop_pct=1", "recipe.eval_crop_pct is of images, and data=ffpp are videos: leave it out"),
        (
            "digits",
            "recipe.clip_augment.hflip_prob=0",
            "recipe.clip_augment.hflip_prob is of videos, and data=digits",
        ),
        ("digits", "recipe.clip_augment.hflip_prob=0", "images: set recipe.augment.hflip"),
        ("digits", "mode.ssl_recipe.clip_augment.jpeg_prob=0", "images: theirs is mode.ssl_recipe.augment (--help"),
        ("digits", "data.frame_step=2", "data.frame_step is of videos, and data=digits are images: leave it out"),
        ("digits", "data.max_clips=2", "data.max_clips is of videos"),
        ("digits", "recipe.normalise_w=false", "recipe.normalise_w=false is read only where classes are weighed"),
    ],
)
def test_what_is_typed_and_read_by_nothing_is_refused(data: str, word: str, says: str) -> None:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        run = resolve(compose("train", overrides=[f"data={data}"]))
    with pytest.raises(UserError, match=re.escape(says)):
        check_typed(run, ["epochs=1", word])


def test_what_a_recipe_sets_and_what_is_read_is_no_mistake() -> None:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        for words in (
            [
                "data=ffpp",
                "encoder=videomae_s",
                "recipe=official",
                "recipe.clip_augment.hflip_prob=0",
                "data.max_clips=2",
            ],
            ["data=ffpp", "encoder=videomae_s", "recipe.normalise_w=false", "recipe.augment=null"],
            ["data=digits", "recipe=mae_pretrain", "recipe.augment.hflip=0", "recipe.clip_augment=null"],
            ["data=digits", "recipe.w=auto", "recipe.normalise_w=false"],
            ["data=digits", "recipe.lam=0.4"],
            ["data=digits", "recipe=small_data", "mode=scratch"],
        ):
            check_typed(resolve(compose("train", overrides=words)), words)


@pytest.mark.parametrize("sweep", [[], ["-m"]])
def test_the_command_refuses_what_nothing_reads(tmp_path: Path, sweep: list[str]) -> None:
    words = ["encoder=vit_micro", "data=digits", "recipe.clip_augment.hflip_prob=0", f"runs_dir={tmp_path}"]
    refused = command(*sweep, *words, runs=tmp_path)
    assert refused.returncode != 0 and "Traceback" not in refused.stderr
    assert "images: set recipe.augment.hflip" in refused.stdout + refused.stderr
    assert not list(tmp_path.rglob("*.ckpt"))


def test_a_clip_whose_frames_are_too_far_apart_for_the_store_is_refused(clips: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(clips, tmp_path / "copy")
    about = json.loads((copy / ABOUT).read_text())
    about["options"]["stride"] = 4
    (copy / ABOUT).write_text(json.dumps(about))
    with pytest.raises(UserError, match="data.frame_step=6 is not a multiple of 4"):
        VideoDataModule(ffpp(str(copy)), img_size=32, frame_step=6)


def test_keys_of_videos_change_no_run_on_images() -> None:
    plain = configured(
        "data=digits", "encoder=vit_micro", "encoder.embed_dim=32", "data.frames=null", "recipe=official"
    )
    other = configured(
        "data=digits",
        "encoder=vit_micro",
        "encoder.embed_dim=32",
        "data.frames=null",
        "recipe=official",
        "recipe.clip_augment.hflip_prob=0",
    )
    assert config_hash(plain) == config_hash(other)
    videos = [configured("data=ffpp", f"recipe.clip_augment.hflip_prob={p}") for p in (0.5, 0)]
    assert config_hash(videos[0]) != config_hash(videos[1])


LEARN = ["encoder.patch_size=8", "encoder.embed_dim=64", "recipe.lr_rule=absolute", "recipe.base_lr=1e-3"]
LEARN += ["recipe.drop_path=0", "recipe.clips_per_video=4", "recipe.clip_augment=null", "recipe.batch_size=12"]
LEARN += ["eval_every=100", "epochs=30", "reconstruct_every=0"]


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Prepared sets large enough to learn from: FF++ with two methods, and DFDC."""
    folder = tmp_path_factory.mktemp("many")
    official = official_splits(folder).pairs
    pairs = [
        tuple(pair) for split, count in (("train", 8), ("val", 3), ("test", 8)) for pair in official[split][:count]
    ]
    write_ffpp_tree(folder / "raw", pairs, methods=METHODS, count=16, size=(48, 48), codec="mpeg4")
    write_dfdc_tree(folder / "dfdc_raw", parts=[*range(12), 40, 41, 45, 46], count=16, size=(48, 48), codec="mpeg4")
    return {
        "ffpp": prepared("ffpp", folder / "raw", folder / "ffpp"),
        "dfdc": prepared("dfdc", folder / "dfdc_raw", folder / "dfdc"),
    }


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["scratch", "ssat"])
def test_a_known_artefact_is_learnt_also_where_its_method_is_held_out(
    many: dict[str, Path], tmp_path: Path, mode: str
) -> None:
    run = train(many["ffpp"], tmp_path, f"mode={mode}", "data.held_out=Deepfakes", *LEARN)
    assert record_of(run)["phases"][0]["detection"]["auc"] > 0.95


@pytest.mark.slow
def test_what_is_learnt_on_one_set_is_found_in_another_and_goes_on_there(many: dict[str, Path], tmp_path: Path) -> None:
    config = configured("data=dfdc", f"data.root={many['dfdc']}", f"runs_dir={tmp_path}", "mode=ssat", *LEARN)
    train_config(config)
    first = find_run_dir(config)
    words = [f"run={first}", "data=ffpp", f"data.root={many['ffpp']}", "split=test_FaceSwap"]
    assert evaluate(words, Console())["detection"]["auc"] > 0.95
    words = ["mode=finetune", f"mode.init_from={first}", "data.held_out=FaceSwap", *LEARN, "epochs=3"]
    assert record_of(train(many["ffpp"], tmp_path, *words))["phases"][0]["detection"]["auc"] > 0.95


@pytest.mark.slow
def test_shuffled_labels_teach_nothing(many: dict[str, Path], tmp_path: Path) -> None:
    copy = shutil.copytree(many["ffpp"], tmp_path / "copy")
    rows = read_manifest(copy)
    train_rows = [row for row in rows if row.split == "train"]
    labels = np.random.default_rng(0).permutation([row.label for row in train_rows])
    mixed = {row.video_id: int(label) for row, label in zip(train_rows, labels, strict=True)}
    write_manifest(copy, [type(row)(**{**vars(row), "label": mixed.get(row.video_id, row.label)}) for row in rows])
    found = [
        record_of(train(copy, tmp_path / "runs", "mode=scratch", f"seed={seed}", *LEARN))["phases"][0]["detection"][
            "auc"
        ]
        for seed in range(3)
    ]
    assert abs(np.mean(found) - 0.5) < 0.1 or max(found) < 0.6
