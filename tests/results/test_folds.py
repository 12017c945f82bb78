"""The folds of a cross-validation are one row of a report, with mean and deviation, as seeds are."""

from __future__ import annotations

import copy
import statistics
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from ssat.results.comparisons import comparisons, finding
from ssat.results.page.classes import class_counts
from ssat.results.page.html import render
from ssat.results.tables import table_rows
from ssat.runs.record import Record
from tests.helpers import record_of, train

IMAGES = 60
WORDS = ("data=csv", "data.img_size=8", "data.samples_per_class=null", "data.folds=2", "mode=scratch", "epochs=1")


@pytest.fixture(scope="module")
def folds(tmp_path_factory: pytest.TempPathFactory) -> list[Record]:
    """Both folds of 60 digits in files, listed in a table."""
    folder, digits = tmp_path_factory.mktemp("folds"), load_digits()
    rows = ["path;label"]
    for number in range(IMAGES):
        Image.fromarray(np.rint(digits.images[number] * 15.9).astype(np.uint8)).save(folder / f"{number}.png")
        rows.append(f"{number}.png;{['even', 'odd'][digits.target[number] % 2]}")
    (folder / "labels.csv").write_text("\n".join(rows))
    file = (f"data.file={folder / 'labels.csv'}", "experiment=folds")
    runs = [train(*WORDS, *file, f"data.fold={fold}", runs=folder / "runs") for fold in (0, 1)]
    return [Record(run / "result.json", "folds", record_of(run)) for run in runs]


def of_seed(records: list[Record], seed: int) -> list[Record]:
    """The same runs as another seed would have recorded them, on images of its own."""
    copies = []
    for record in records:
        values = copy.deepcopy(record.values) | {"seed": seed, "hash": f"{record.values['hash']}{seed}"}
        sha = values["data_fingerprint"]["sha256"]
        values["data_fingerprint"]["sha256"] = {split: f"{digest}{seed}" for split, digest in sha.items()}
        copies.append(Record(record.path, record.group, values))
    return copies


def test_each_fold_tests_its_own_half(folds: list[Record]) -> None:
    assert [record.get("data_fingerprint.splits") for record in folds] == [{"train": 30, "test": 30}] * 2
    assert len({record.get("data_fingerprint.sha256.test") for record in folds}) == 2
    assert [record.fold for record in folds] == [0, 1] and folds[0].settings == folds[1].settings


def test_folds_are_one_row_with_mean_and_deviation(folds: list[Record]) -> None:
    [found] = comparisons(folds)
    [arm] = found.arms
    accuracies = [record.accuracy for record in folds]
    assert arm.accuracies == accuracies and arm.accuracy == statistics.fmean(accuracies)
    assert arm.deviation == statistics.stdev(accuracies)
    assert arm.images == IMAGES and arm.said_runs == "2 folds"
    *runs, mean = table_rows(folds)
    assert [row.entries[5].text for row in runs] == ["0 fold 0", "0 fold 1"]
    assert mean.record is None and (mean.entries[0].text, mean.entries[5].text) == ("mean of 2 folds", "")
    assert mean.entries[6].text == f"{arm.accuracy:.2f} ± {arm.deviation:.2f}"


def test_a_report_counts_the_test_images_of_all_folds(folds: list[Record]) -> None:
    ssat = [Record(each.path, each.group, each.values | {"mode": "ssat"}) for each in folds]
    said = finding([*folds, *ssat])
    assert f" on {IMAGES} test images of 2 folds" in said and "on 30 images in each fold" in said
    assert "60 test images of 2 folds" in (page := render(folds)) and "30 training images in each" in page


def test_the_bars_of_the_classes_say_which_fold_they_count(folds: list[Record]) -> None:
    assert "Counted are the images of fold 1 of 2 folds; each fold tests other images." in render(folds)
    counts = class_counts(folds[0])
    assert counts and counts.of.startswith("Counted are the images of fold 0 of 2")


def test_folds_of_several_seeds_are_one_row_too(folds: list[Record]) -> None:
    [arm] = comparisons([*folds, *of_seed(folds, 1)])[0].arms
    assert len(arm.accuracies) == 4 and arm.said_runs == "2 folds, 2 seeds" and arm.images == IMAGES


def test_records_from_before_a_key_are_of_the_same_setting(folds: list[Record]) -> None:
    old = copy.deepcopy(folds[0].values)
    for key in ("max_test", "test_fraction"):
        del old["config"]["data"][key]
    for recipe in (old["config"]["recipe"], *(phase["recipe"] for phase in old["config"]["mode"]["phases"])):
        del recipe["focal_gamma"], recipe["class_weights"]
    assert Record(folds[0].path, "folds", old).settings_key == folds[0].settings_key


def test_a_part_of_the_test_is_no_result_of_the_paper(tmp_path: Path) -> None:
    words = ("data.max_test=20", "mode=scratch", "epochs=1", "trainer.max_steps=1")
    record = record_of(train(*words, runs=tmp_path))
    assert record["data_fingerprint"]["splits"]["test"] == 20 and record["faithful"] is False
    assert "data.max_test=20: tested on 20 images, a part of the test set" in record["unfaithful_reasons"]
