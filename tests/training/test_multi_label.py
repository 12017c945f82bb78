"""Real runs on digits with three labels each: what they learn, write, say and export."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from sklearn.datasets import load_digits
from sklearn.metrics import average_precision_score, f1_score, log_loss

from ssat.commands.embed.command import embed
from ssat.commands.embed.features import several_labels_of
from ssat.commands.evaluate import evaluate
from ssat.commands.predict.command import predict
from ssat.commands.predict.inputs import Inputs
from ssat.config.identity import config_hash
from ssat.core.errors import UserError
from ssat.model import load
from ssat.results.comparisons import finding
from ssat.results.tables import legend, to_markdown
from ssat.runs.folder import describe
from ssat.runs.record import Record, read_records
from ssat.tracking.names import figures
from tests.helpers import config, record_of, train

LABELS = {"even": (0, 2, 4, 6, 8), "loop": (0, 6, 8, 9), "above4": (5, 6, 7, 8, 9)}
IMAGES = 440
WORDS = [
    "data=csv",
    "data.img_size=8",
    "data.patch_size=2",
    "data.samples_per_class=null",
    "recipe.augment=null",
    "recipe.eval_crop_pct=1",
    "recipe.base_lr=0.004",
    "recipe.lr_rule=absolute",
    "recipe.warmup_epochs=1",
    "recipe.statistics=imagenet",
    "recipe.batch_size=32",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Digits as files, and a table: every fourth is of the test."""
    folder, digits = tmp_path_factory.mktemp("digits"), load_digits()
    with open(folder / "labels.csv", "w") as file:
        file.write(f"path,{','.join(LABELS)},split\n")
        for number in range(IMAGES):
            pixels = np.rint(digits.images[number] * (255 / 16)).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{number:03d}.png")
            flags = ",".join(str(int(digits.target[number] in of)) for of in LABELS.values())
            file.write(f"{number:03d}.png,{flags},{'train' if number % 4 else 'test'}\n")
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def run(folder: Path, runs: Path) -> Path:
    more = ["mode=scratch", "epochs=8", "recipe.class_weights=balanced", "reconstruct_every=0"]
    return train(*WORDS, *more, f"data.labels={folder}/labels.csv", runs=runs)


def rows_of(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def truth_and_probs(run: Path) -> tuple[np.ndarray, np.ndarray]:
    rows = rows_of(run / "scratch" / "predictions.csv")
    truth = np.array([[label in row["labels"].split(";") for label in LABELS] for row in rows])
    return truth, np.array([[float(row[f"prob_{label}"]) for label in LABELS] for row in rows])


def test_it_learns_the_labels_and_the_record_has_the_numbers_of_the_file(run: Path) -> None:
    found = record_of(run)["phases"][-1]["classification"]
    truth, probs = truth_and_probs(run)
    assert len(truth) == IMAGES // 4 == found["images"]
    assert found["map"] == pytest.approx(average_precision_score(truth, probs, average="macro"), abs=1e-6)
    assert found["macro_f1"] == pytest.approx(100 * f1_score(truth, probs > 0.5, average="macro"))
    assert found["prevalence"] == pytest.approx(truth.mean())
    assert found["map"] > found["prevalence"] + 0.25
    assert found["labels"].keys() == LABELS.keys()


def test_what_is_said_shows_map_and_no_accuracy(run: Path) -> None:
    record, log = record_of(run), (run / "log.txt").read_text()
    assert "acc1" not in record["metrics"]["test"] and "acc1" not in log and "train/acc1" not in log
    assert "test/map" in log and "without one" in log
    best = record["metrics"]["test"]["map"]
    assert describe(record).startswith(f"{record['name']}: test/map last {best['last']:.4f}, best {best['best']:.4f};")
    chosen = torch.load(run / "scratch" / "checkpoints" / "best.ckpt", weights_only=True)
    assert chosen["epoch"] == best["best_epoch"]


def test_reports_and_trackers_leave_the_accuracy_out(run: Path, runs: Path) -> None:
    (record,), warnings = read_records(runs)
    assert not warnings and record.accuracy is None and record.split == "test" and record.multi_label
    assert finding([record]) == f"mAP of the last epoch, which no interval is known of: scratch {_last(record):.4f}."
    header, _, row = (line.split("|") for line in to_markdown([record]).splitlines())
    cells = {name.strip(): cell.strip() for name, cell in zip(header, row, strict=True)}
    best = record.get("metrics.test.map")
    assert cells["acc1 %"] == "" and cells["mAP"] == f"{_last(record):.4f}"
    assert cells["best (epoch)"] == f"{best['best']:.4f} (ep {best['best_epoch'] + 1})"
    assert "mAP: mean average precision" in legend([record])
    assert figures(record.values)["result/map_last"] == _last(record) and "result/acc1" not in figures(record.values)


def _last(record: Record) -> float:
    value = record.number("metrics.test.map.last")
    assert value is not None
    return value


def test_evaluate_measures_the_same_and_refuses_what_is_of_one_class(run: Path) -> None:
    console = Console(record=True, width=200)
    found = evaluate([f"run={run}"], console)
    said = console.export_text()
    assert found["clean"]["map"] == pytest.approx(record_of(run)["metrics"]["test"]["map"]["last"], abs=1e-6)
    assert "mAP" in said and "mean prevalence" in said and "above4" in said and "acc1" not in said
    for word in ("probe=knn", "data.perturb=perspective"):
        with pytest.raises(UserError, match="measures the accuracy of one class each"):
            evaluate([f"run={run}", word], console)


def test_a_loaded_network_gives_each_label_a_probability_of_its_own(run: Path, folder: Path) -> None:
    model = load(run, "last", device="cpu")
    assert model.multi_label and model.classes == list(LABELS) and "3 labels" in repr(model)
    rows = rows_of(run / "scratch" / "predictions.csv")[:5]
    paths = [folder / row["image"] for row in rows]
    _, probs = truth_and_probs(run)
    assert model.probabilities(paths) == pytest.approx(probs[:5], abs=1e-5)
    for row, found in zip(rows, model.predict(paths), strict=True):
        assert set(found.above()) == set(filter(None, row["predicted"].split(";")))
        assert list(found.probs) == sorted(found.probs, reverse=True)
    assert model.explain(paths[0]).shape == (8, 8)


def test_predict_writes_the_labels_above_the_threshold(run: Path, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for number in range(4):
        (tmp_path / "in" / f"{number}.png").write_bytes((folder / f"{number:03d}.png").read_bytes())
    console = Console(record=True, width=200)
    words = [f"run={run}", f"input={tmp_path / 'in'}", f"out={tmp_path / 'out'}", "threshold=0.4", "explain=true"]
    assert predict(words, console) == 0
    said = console.export_text()
    assert "labels above 0.4" in said and "sheet.png" not in said
    for row in rows_of(tmp_path / "out" / "predictions.csv"):
        above = [label for label in LABELS if float(row[f"prob_{label}"]) > 0.4]
        assert row["verdict"] == ";".join(above) and (tmp_path / "out" / row["picture"]).is_file()


def test_embed_keeps_all_labels_of_an_image(run: Path, folder: Path, tmp_path: Path) -> None:
    console = Console(record=True, width=200)
    assert embed([f"run={run}", "split=test", "map=pca", f"out={tmp_path / 'test.npz'}"], console) == 0
    assert "no k-NN accuracy, and no colours in the map: an image has several labels" in console.export_text()
    kept = np.load(tmp_path / "test.npz")
    truth = {row["path"]: [int(row[label]) for label in LABELS] for row in rows_of(folder / "labels.csv")}
    assert kept["labels"].tolist() == [truth[Path(name).name] for name in kept["files"].tolist()]
    rows = rows_of(tmp_path / "test.csv")
    assert {row["label"] for row in rows} >= {"even;loop", "above4"} and (tmp_path / "test.png").is_file()
    # The same from the table that the run was trained on, and from a list of names.
    assert (
        embed([f"run={run}", f"input={folder / 'labels.csv'}", f"out={tmp_path / 'all.npz'}", "map=none"], console) == 0
    )
    kept = np.load(tmp_path / "all.npz")
    assert kept["labels"].tolist() == [truth[name] for name in kept["files"].tolist()]
    names = Inputs(Path(), ["a", "b", "c"], [{"label": "loop| even"}, {"label": ""}, {"label": "odd"}])
    found, remark = several_labels_of(names, [*LABELS])
    assert found.tolist() == [[1, 1, 0], [0, 0, 0], [-1, -1, -1]] and "2 images of 3" in remark


def test_an_export_says_that_an_image_has_several_labels(run: Path, folder: Path, tmp_path: Path) -> None:
    model = load(run, device="cpu")
    facts = json.loads((model.export(tmp_path / "out") / "model.json").read_text())
    assert facts["multi_label"] is True and facts["parity"]["test"]["images"] == IMAGES // 4
    assert "sigmoid of each logit" in (tmp_path / "out" / "README.md").read_text()
    again = load(tmp_path / "out", device="cpu")
    assert again.multi_label
    assert again.probabilities(folder / "000.png") == pytest.approx(model.probabilities(folder / "000.png"), abs=1e-6)


def test_a_temperature_is_fitted_on_the_validation_split_and_used(folder: Path, tmp_path: Path) -> None:
    more = ["mode=scratch", "epochs=6", "data.val_fraction=0.4", "reconstruct_every=0"]
    run = train(*WORDS, *more, f"data.labels={folder}/labels.csv", runs=tmp_path)
    found = record_of(run)["phases"][-1]["classification"]
    rows = rows_of(run / "scratch" / "predictions.csv")
    probs = np.array([[float(row[f"prob_{label}"]) for label in LABELS] for row in rows])  # without the temperature
    truth = np.array([[label in row["labels"].split(";") for label in LABELS] for row in rows])
    assert found["temperature_source"] == "fitted on 132 validation images" and found["temperature"] > 0
    odds = np.log(probs / (1 - probs)) / found["temperature"]
    calibrated = 1 / (1 + np.exp(-odds))
    assert found["log_loss"] == pytest.approx(log_loss(truth.ravel(), probs.ravel()), rel=1e-6)
    assert found["log_loss_calibrated"] == pytest.approx(log_loss(truth.ravel(), calibrated.ravel()), rel=1e-6)
    paths = [folder / row["image"] for row in rows[:5]]
    assert load(run, "last", device="cpu").probabilities(paths) == pytest.approx(calibrated[:5], abs=1e-5)
    console = Console(record=True, width=300)
    again = evaluate([f"run={run}"], console)["classification"]
    assert again["temperature"] == found["temperature"] and "with temperature" in console.export_text()
    best = evaluate([f"run={run}", "checkpoint=best"], console)["classification"]
    assert best["temperature_source"] == "fitted on 132 validation images"  # of these weights it is fitted anew


def test_the_other_modes_and_mixed_or_hidden_labels_train(folder: Path, tmp_path: Path) -> None:
    labels = f"data.labels={folder}/labels.csv"
    tiny = [*WORDS, labels, "epochs=1", "data.fraction=0.3", "data.val_fraction=0.3", "reconstruct_every=0"]
    words = ["mode=scratch", "recipe.focal_gamma=2", "recipe.label_smoothing=0", "monitor.select=macro_f1"]
    focal = record_of(train(*tiny, *words, runs=tmp_path))
    assert {"last", "best", "best_epoch"} == focal["metrics"]["test"]["map"].keys() and "macro_f1" in describe(focal)
    mixed = record_of(train(*tiny, "mode=ssl_ft", "mode.ssl_epochs=1", "recipe.cutmix=1", runs=tmp_path))
    assert [phase["name"] for phase in mixed["phases"]] == ["pretrain", "finetune"]
    hidden = record_of(train(*tiny, "mode=ssat", "data.label_fraction=0.5", "monitor.rank_every=1", runs=tmp_path))
    assert hidden["metrics"]["val"]["rankme"]["last"] > 1  # asks for no labels
    assert np.isfinite(hidden["phases"][-1]["history"][-1]["train/loss_cls"])


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["recipe.balance=true"], r"recipe\.balance is of images with one class each"),
        (["recipe.w=auto"], r"recipe\.w is of images with one class each"),
        (["data.samples_per_class=4"], r"data\.samples_per_class is of images with one class each.*use data\.fraction"),
        (["monitor.knn_every=1"], r"monitor\.knn_every is of images with one class each"),
        (["monitor.select=acc1"], r"monitor\.select=acc1 is of images with one class each: choose one of map, auroc"),
        (["recipe.focal_gamma=2"], r"recipe\.focal_gamma=2 .* add recipe\.label_smoothing=0"),
    ],
)
def test_what_is_of_one_class_each_is_refused_in_one_sentence(words: list[str], says: str) -> None:
    with pytest.raises(UserError, match=says) as caught:
        config("encoder=vit_micro", "mode=ssat", "data=csv", "data.labels=labels.csv", *words)
    assert "\n" not in str(caught.value)


def test_labels_are_part_of_what_a_run_is_and_their_absence_is_none() -> None:
    one = config_hash(config("encoder=vit_micro", "mode=ssat", "data=csv", "data.file=labels.csv"))
    assert one == "1905db4d"  # of the time before there were labels
    several = [
        config_hash(config("encoder=vit_micro", "mode=ssat", "data=csv", f"data.labels={path}", *more))
        for path, more in (("labels.csv", []), ("./labels.csv", []), ("labels.csv", ["data.label_columns=[a,b]"]))
    ]
    assert several[0] == several[1] and len({one, *several}) == 3
    with pytest.raises(UserError, match=r"monitor\.select=map is of images with several labels each"):
        config("encoder=vit_micro", "mode=ssat", "data=digits", "monitor.select=map")
