"""Which runs share a table by their images: two seeds of one folder do, also where the seed draws a part of it."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssat.results.comparisons import comparisons
from ssat.results.content import draws_by_seed
from ssat.results.paper.matching import match_runs
from ssat.results.paper.paper import Cell, Experiment, Item
from ssat.runs.record import Record
from tests.helpers import record_of, train
from tests.results.records import make_record

SHORT = ("epochs=1", "trainer.max_steps=1", "reconstruct_every=0", "experiment=modes")


def real_runs(runs: Path, *words: str, modes: tuple[str, ...] = ("scratch", "ssat")) -> list[Record]:
    found = []
    for mode in modes:
        for seed in (0, 1):
            folder = train(*SHORT, *words, f"mode={mode}", f"seed={seed}", runs=runs)
            found.append(Record(folder / "result.json", "modes", record_of(folder)))
    return found


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> list[Record]:
    """Two modes, two seeds, each seed with images of its own: TINY takes 16 of each class."""
    return real_runs(tmp_path_factory.mktemp("few"))


def test_seeds_that_draw_their_own_images_are_one_arm(few: list[Record]) -> None:
    assert len({each.get("data_fingerprint.sha256.train") for each in few}) == 2
    [found] = comparisons(few)
    assert [len(arm.accuracies) for arm in found.arms] == [2, 2]
    assert all(arm.deviation is not None for arm in found.arms)


def test_seeds_that_draw_their_own_images_share_a_block_of_a_table(few: list[Record]) -> None:
    rows = {"scratch": ["mode=scratch"], "SSAT": ["mode=ssat"]}
    experiment = Experiment("modes", rows, {"CIFAR-10": ["data=cifar10"]}, [])
    cells = {(row, "CIFAR-10"): Cell("modes", row, "CIFAR-10", "acc1", "%", 90.0, "90.0") for row in rows}
    [block] = match_runs(Item("modes", "Modes", "Table 0", cells, experiment), few).others
    assert {place: len(records) for place, records in block.records.items()} == {
        ("scratch", "digits"): 2,
        ("SSAT", "digits"): 2,
    }


def test_validation_images_of_an_own_folder_are_drawn_and_no_test_image_is_needed(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for index in range(20):
        path = tmp_path / "images" / f"class{index % 2}" / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)).save(path)
    data = ("data=image_folder", f"data.root={tmp_path / 'images'}", "data.img_size=16", "data.val_fraction=0.4")
    records = real_runs(
        tmp_path / "runs", *data, "data.samples_per_class=null", "recipe.batch_size=4", modes=("scratch",)
    )
    assert "test" not in records[0].get("data_fingerprint.sha256")
    [found] = comparisons(records)
    assert [len(arm.accuracies) for arm in found.arms] == [2]


def made(mode: str, seed: int, train: str, test: str = "t", **data) -> Record:
    fingerprint = {"splits": {"test": 360}, "sha256": {"train": train, "test": test}}
    values = make_record(mode, seed=seed, data_fingerprint=fingerprint)
    values["config"]["data"] |= data
    return Record(Path(f"runs/g/{mode}-{seed}-{train}-{test}/result.json"), "g", copy.deepcopy(values))


@pytest.mark.parametrize(
    "data",
    [
        {"fraction": 0.1},
        {"samples_per_class": 5},
        {"val_fraction": 0.2},
        {"label_fraction": 0.1},
        {"protocol": "strict"},
        {"fraction": 0.5, "label_fraction": 0.1},
    ],
    ids=str,
)
def test_a_drawn_part_differs_from_seed_to_seed_and_the_rest_does_not(data: dict) -> None:
    assert draws_by_seed(made("ssat", 0, "a", **data))
    seeds = [made(mode, seed, train, **data) for mode in ("scratch", "ssat") for seed, train in ((0, "a"), (1, "b"))]
    assert len(comparisons(seeds)) == 1
    assert len(comparisons([*seeds, made("ssat", 2, "c", "other", **data)])) == 2  # other test images
    assert len(comparisons([*seeds, made("ssat", 0, "c", **data)])) == 3  # which of seed 1's are of this folder?


@pytest.mark.parametrize("data", [{}, {"fraction": 0.1, "subset": "official"}], ids=str)
def test_where_nothing_is_drawn_other_images_are_other_data(data: dict) -> None:
    assert not draws_by_seed(made("ssat", 0, "a", **data))
    assert len(comparisons([made("ssat", 0, "a", **data), made("ssat", 1, "b", **data)])) == 2
