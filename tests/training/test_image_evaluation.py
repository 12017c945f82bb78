"""A real run on pictures in folders of unequal classes: its record, its files, and `src.evaluate` after it."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from ssat.commands.evaluate import evaluate
from ssat.config.identity import config_hash, flat_settings
from ssat.core.errors import UserError
from ssat.model import load
from ssat.results.tables import COLUMNS
from ssat.runs.calibration import probabilities
from ssat.runs.folder import describe
from ssat.runs.image_classes import ImagePredictions
from ssat.runs.record import Record
from ssat.training.image_scores import worst_mistakes
from tests.helpers import config, record_of, train

SIZES = {"cat": 40, "dog": 12}
TRAINED = {"cat": 260, "dog": 80}  # 30 % of them are enough for a temperature
FILES = ("confusion", "reliability", "mistakes")
BALANCED = next(column for column in COLUMNS if column.title == "balanced %")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, generator = tmp_path_factory.mktemp("pets"), np.random.default_rng(0)
    for split in ("train", "test"):
        for name, images in (SIZES if split == "test" else TRAINED).items():
            (folder / split / name).mkdir(parents=True)
            for number in range(images):
                grey = generator.integers(0, 160, (8, 8, 1)) + (7 if name == "dog" else 0)
                pixels = np.repeat(grey, 3, axis=2).astype(np.uint8)
                Image.fromarray(pixels).save(folder / split / name / f"{number}.png")
    words = ["data=image_folder", f"data.root={folder}", "data.img_size=16", "data.samples_per_class=null", "epochs=6"]
    words += ["mode=scratch", "data.val_fraction=0.3", "monitor.select=balanced_acc", "monitor.pictures=true"]
    words += ["recipe.base_lr=0.003", "recipe.lr_rule=absolute", "recipe.statistics=imagenet", "recipe.w=auto"]
    return train(*words, runs=tmp_path_factory.mktemp("runs"))


def rows_of(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_the_record_has_the_numbers_of_the_file(run: Path) -> None:
    rows, phase = rows_of(run / "scratch" / "predictions.csv"), record_of(run)["phases"][-1]
    found, labels = phase["classification"], np.array([row["label"] for row in rows])
    assert [row["image"] for row in rows[:2]] == ["test/cat/0.png", "test/cat/1.png"] and len(rows) == 52
    called = np.array([row["predicted"] for row in rows])
    assert found["accuracy"] == pytest.approx(100 * np.mean(labels == called))
    assert found["accuracy"] == pytest.approx(phase["metrics"]["test"]["acc1"]["last"], abs=1e-4)
    assert found["balanced_accuracy"] == pytest.approx(100 * balanced_accuracy_score(labels, called))
    dog = [float(row["probability"]) if row["predicted"] == "dog" else 1 - float(row["probability"]) for row in rows]
    assert found["auroc"] == pytest.approx(roc_auc_score(labels == "dog", dog))
    assert (found["majority"], found["majority_class"]) == (pytest.approx(100 * 40 / 52), "cat")
    assert {name: each["n"] for name, each in found["classes"].items()} == SIZES
    assert found["temperature_source"] == "fitted on 102 validation images"


def test_the_pictures_are_there(run: Path) -> None:
    for name in FILES:
        with Image.open(run / "scratch" / f"{name}.png") as picture:
            assert min(picture.size) > 200


def test_the_best_epoch_is_the_one_that_was_asked_for(run: Path) -> None:
    record = record_of(run)
    history = record["phases"][-1]["history"]
    chosen = int(np.argmax([row["val/balanced_acc"] for row in history]))
    assert chosen != int(np.argmax([row["val/acc1"] for row in history])), "the data no longer tell the two apart"
    best = torch.load(run / "scratch" / "checkpoints" / "best.ckpt", weights_only=True)
    assert best["epoch"] == chosen
    assert record["metrics"]["test"]["acc1"]["best_epoch"] == chosen
    line = describe(record)
    assert "best (by val/balanced_acc) " in line and "; test/balanced_acc last " in line


def test_evaluating_again_measures_the_same(run: Path) -> None:
    recorded, console = record_of(run)["phases"][-1]["classification"], Console(width=100, record=True)
    found = evaluate([f"run={run}"], console)["classification"]
    assert found.pop("temperature_source") == f"of the training, {recorded.pop('temperature_source')}"
    assert found == recorded
    folder = run / "evaluations"
    assert rows_of(folder / "last-test-clean.csv") == rows_of(run / "scratch" / "predictions.csv")
    assert all((folder / f"last-test-clean-{name}.png").is_file() for name in FILES)
    text = console.export_text()
    assert "majority rate 76.92 % (always answering cat)" in text and "Wilson's 95 % interval" in text
    assert f"balanced accuracy {recorded['balanced_accuracy']:.2f} %" in text
    assert f"with temperature {recorded['temperature']:.3f}" in text
    assert any(line.split()[:2] == ["dog", "12"] for line in text.splitlines())


def test_other_weights_get_a_temperature_of_their_own(run: Path) -> None:
    console = Console(width=100, record=True)
    best = evaluate([f"run={run}", "checkpoint=best"], console)["classification"]
    assert best["temperature_source"] == "fitted on 102 validation images"
    assert best["temperature"] != record_of(run)["phases"][-1]["classification"]["temperature"]
    val = evaluate([f"run={run}", "checkpoint=best", "split=val"], console)["classification"]
    assert val["temperature"] == pytest.approx(best["temperature"]) and val["ece_calibrated"] is None
    assert "fitted on these very images" in console.export_text()


def test_of_perturbed_images_no_file_of_predictions_is_written(run: Path) -> None:
    record = evaluate([f"run={run}", "data.perturb=perspective", "seeds=1"], Console(width=100, record=True))
    assert record["classification"] is None
    assert not (run / "evaluations" / "last-test-perspective.csv").exists()


def test_the_table_shows_balanced_accuracy_of_unequal_classes_and_where_it_decides(run: Path) -> None:
    record = record_of(run)
    shown = BALANCED.entry_of(Record(run / "result.json", "group", record))
    assert shown.order == record["metrics"]["test"]["balanced_acc"]["last"]
    record["phases"][-1]["data_check"]["counts"]["test"] = {"cat": 15, "dog": 10}
    assert BALANCED.entry_of(Record(run / "result.json", "group", record)).text == shown.text
    record["config"]["monitor"]["select"] = None
    assert BALANCED.entry_of(Record(run / "result.json", "group", record)).text == ""


def test_the_worst_mistakes_are_the_surest() -> None:
    logits = np.array([[3, 0], [0, 2], [1, 0], [0, 5]], np.float32)
    kept = ImagePredictions(np.arange(4), np.array([1, 0, 0, 0]), logits.argmax(1), logits)
    assert worst_mistakes(kept).tolist() == [3, 0, 1] and worst_mistakes(kept, 1).tolist() == [3]
    assert probabilities(logits)[3, 1] > 0.99


def test_only_another_choice_makes_another_run() -> None:
    usual = config("data=digits", "encoder=vit_micro")
    for word in ("monitor.select=acc1", "monitor.pictures=false"):
        same = config("data=digits", "encoder=vit_micro", word)
        assert config_hash(same) == config_hash(usual)
        assert flat_settings(same.values) == flat_settings(usual.values)
    other = config("data=digits", "encoder=vit_micro", "monitor.select=auroc")
    assert config_hash(other) != config_hash(usual) and flat_settings(other.values)["monitor.select"] == "auroc"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ["data=digits", "monitor.select=f1"],
            "monitor.select='f1' is not possible: it must be one of acc1, balanced_acc,",
        ),
        (["data=digits", "mode=ssl", "monitor.select=auroc"], "monitor.select=auroc chooses by labels, and mode=ssl"),
        (["data=ffpp", "encoder=videomae_s", "monitor.select=macro_f1"], "is of images, and data=ffpp are videos"),
    ],
)
def test_a_choice_that_cannot_be_made_is_one_sentence(words: list[str], sentence: str) -> None:
    with pytest.raises(UserError) as caught:
        config(*words)
    assert sentence in str(caught.value) and "\n" not in str(caught.value)


def test_predicting_divides_by_the_temperature_of_these_weights(run: Path) -> None:
    found = record_of(run)["phases"][-1]["classification"]
    last, best = load(run, checkpoint="last"), load(run)
    assert last.saved.temperature == found["temperature"] and best.saved.temperature is None  # best is an earlier epoch
    image = Image.new("RGB", (8, 8), (90, 90, 90))
    logits = last.logits(last.transform(image)[None]).double()
    calibrated = (logits / found["temperature"]).softmax(dim=1)[0]
    assert last.probabilities([image])[0] == pytest.approx(calibrated.tolist())
