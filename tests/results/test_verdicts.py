"""A run is judged by what was run, and a difference by how often chance would make it."""

from __future__ import annotations

import numpy as np
import pytest
import timm
from hydra import compose, initialize_config_dir

from ssat.config.resolve import resolve
from ssat.config.words import CONF
from ssat.results.comparisons import comparisons
from ssat.results.intervals import ABOVE, BELOW, mean_difference
from ssat.results.paper.matching import match_runs
from ssat.results.paper.paper import Cell, read_paper
from ssat.results.paper.paper_tables import judgement
from ssat.results.paper.settings import cell_words, differing
from ssat.results.paper.verdicts import DIFFERS, OTHER, PARTIAL, REPRODUCED, compared, judge, tolerance
from ssat.results.paper.whole import TIMM_SHA256
from ssat.runs.faithful import unfaithful_reasons
from ssat.runs.record import Record
from tests.results.records import run_of, sizes_of

CELL = ("table1", "ViT-T + SSAT", "CIFAR-10")


def is_cell(record: Record, item: str, row: str, column: str) -> bool:
    return record in match_runs(read_paper()[item], [record]).exact.records[row, column]


def cell_run(item: str, row: str, column: str, *more: str, **values) -> Record:
    words = {word.split("=")[0]: word for word in cell_words(read_paper()[item].experiment, row, column)}
    words |= {word.split("=")[0]: word for word in more}
    return run_of(*words.values(), experiment=item, **values)


@pytest.mark.parametrize(
    "word",
    [
        *("mode.phases.0.epochs=1", "mode.phases.0.lam=0.5"),
        *("recipe.drop_last=false", "data.source.kind=stand_in"),
    ],
)
def test_a_phase_or_a_source_of_its_own_makes_it_another_run(word: str):
    assert is_cell(cell_run(*CELL), *CELL)
    assert not is_cell(cell_run(*CELL, word), *CELL)


@pytest.mark.parametrize(
    ("item", "row", "column", "data"),
    [
        ("table1", "ViT-T", "Flowers102", "flowers"),
        ("table1", "ViT-T", "CIFAR-10", "cifar10"),
        ("table6", "ViT-T", "ClipArt", "clipart"),
        ("table6", "ViT-T", "Sketch", "sketch"),
        ("table5", "ViT-T Scratch", "Chaoyang", "chaoyang"),
        ("table2", "ViT-T", "IN-1K", "imagenet"),
    ],
)
def test_a_folder_that_is_called_like_a_set_is_not_the_set(item: str, row: str, column: str, data: str):
    official = cell_run(item, row, column)
    assert is_cell(official, item, row, column)
    folder = ["data=image_folder", "data.root=x", f"data.name={data}"]
    folder += [f"data.{key}={official.get(f'config.data.{key}')}" for key in ("img_size", "patch_size")]
    assert not is_cell(cell_run(item, row, column, *folder), item, row, column)


@pytest.mark.parametrize("splits", [{"train": 1_000, "test": 10_000}, {"train": 50_000, "test": 1_000}])
def test_a_part_of_the_official_images_is_not_the_set(splits):
    assert not is_cell(cell_run(*CELL, data_fingerprint={"splits": splits, "sha256": {"train": "a"}}), *CELL)


@pytest.mark.parametrize(
    ("item", "row", "column", "is_same"),
    [
        ("table4", "SimCLR", "CIFAR-10", False),  # the loss compares the images of a batch
        ("table4", "DINO", "CIFAR-10", False),
        ("table1", "CVT-13 + SSAT", "CIFAR-10", False),  # a batch norm
        ("table1", "ResNet-50", "CIFAR-10", False),
        (*CELL, True),
    ],
)
def test_accumulated_batches_are_one_batch_only_where_nothing_sees_it_whole(item, row, column, is_same):
    parts = cell_run(item, row, column, "recipe.batch_size=8", "trainer.accumulate=8")
    assert is_cell(cell_run(item, row, column), item, row, column)
    assert is_cell(parts, item, row, column) == is_same


def test_weights_in_a_file_are_those_of_the_hub():
    place = ("table5", "ViT-T IN-1K pretrained + FT", "PMNIST")
    assert is_cell(cell_run(*place, "encoder.pretrained=weights.safetensors"), *place)


@pytest.mark.parametrize(
    ("shown", "number", "ours", "is_near"),
    [
        ("20M", 20.0, 19.65, True),
        ("20M", 20.0, 19.45, False),
        ("2.8M", 2.8, 2.84, True),
        ("2.8M", 2.8, 2.86, False),
        ("6M", 6.0, 5.6, True),
        ("0.43+1.26", 1.69, 1.68, True),
    ],
)
def test_a_number_is_compared_as_it_is_rounded(shown: str, number: float, ours: float, is_near: bool):
    cell = Cell("t", "r", "c", "params_training", "M", number, shown)
    allowed = tolerance(cell, (run_of("encoder=vit_t", "data=cifar10"),), (ours,))
    assert (abs(ours - number) <= allowed) == is_near


def test_rows_that_an_interval_cannot_tell_apart_are_named():
    run = cell_run("table5", "ViT-T Scratch", "PMNIST", accuracy=91.5)
    found = judge(read_paper()["table5"], [run]).find("ViT-T Scratch", "PMNIST")
    assert found.verdict == REPRODUCED and "ViT-T Scratch + SSAT" in found.as_near
    assert "± 7.07, reproduced within error, one seed" in judgement(
        found
    ) and "but so is ViT-T IN-1K pretrained + FT" in judgement(found)


def test_a_full_run_of_other_settings_says_which():
    def verdict(*words: str) -> tuple[str, str]:
        _, *others = judge(read_paper()["table1"], [cell_run(*CELL, *words)]).parts
        [result] = [each for part in others for each in part.results if each.records]
        return result.verdict, judgement(result)

    assert verdict("recipe.base_lr=2e-3")[0] == OTHER
    for word, said in (
        ("data.protocol=strict", "data.protocol=strict"),
        ("data.source.kind=stand_in", "data.source.kind=stand_in"),
        ("recipe.ema_decay=0.9", "recipe.ema_decay=0.9"),
        ("recipe.batch_size=8", "an optimizer step sees 8 images at once, not 64 (recipe.batch_size)"),
        ("trainer.devices=2", "an optimizer step sees 128 images at once, not 64 (recipe.batch_size, trainer.devices)"),
    ):
        assert verdict(word)[0] == OTHER and said in verdict(word)[1]
    assert "recipe.base_lr=0.002" in verdict("recipe.base_lr=2e-3")[1]
    for word, said in (
        ("data.fraction=0.1", "data.fraction=0.1"),
        ("data.label_fraction=0.5", "data.label_fraction=0.5"),
        ("data.val_fraction=0.1", "data.val_fraction=0.1"),
        ("data.verify=false", "images not counted against the official set (data.verify=false)"),
        ("trainer.max_steps=5", "stopped after 5 steps (trainer.max_steps)"),
    ):
        assert verdict(word)[0] == PARTIAL and said in verdict(word)[1]


def partial(place: tuple[str, str, str], *words: str, **values) -> tuple[str, str]:
    _, *others = judge(read_paper()[place[0]], [cell_run(*place, *words, **values)]).parts
    [result] = [each for part in others for each in part.results if each.records]
    return result.verdict, judgement(result)


PMNIST = ("table5", "ViT-T Scratch", "PMNIST")
OFFICIAL = {"train": {"normal": 1349, "pneumonia": 3883}, "test": {"normal": 234, "pneumonia": 390}}


def checked(**splits: dict[str, int]) -> list[dict]:
    """The phases of a record whose images were counted by class."""
    return [{"lam": 1.0, "class_names": ["normal", "pneumonia"], "data_check": {"counts": OFFICIAL | splits}}]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"data_fingerprint": {"splits": {"train": 5_000, "test": 624}}}, "5,000 of 5,232 training images"),
        ({"data_fingerprint": {"splits": {"train": 5_232, "test": 600}}}, "600 of 624 test images"),
        ({"phases": [{"lam": 1.0, "class_names": ["a", "b", "c"]}]}, "3 classes, not 2"),
        ({"skipped_images": ["a.png", "b.png"]}, "2 unreadable images skipped"),
        (
            {"phases": checked(train={"normal": 1749, "pneumonia": 3483})},
            "other labels: 1,749 train images of class 'normal', not 1,349",
        ),
        (
            {"phases": checked(test={"normal": 390, "pneumonia": 234})},
            "other labels: 390 test images of class 'normal', not 234",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_partial_is_named(values: dict, said: str):
    assert is_cell(cell_run(*PMNIST, phases=checked()), *PMNIST)
    verdict, words = partial(PMNIST, **values)
    assert verdict == PARTIAL and said in words


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("ResNet-50", "batch norms see 8 images at once, not 64 (recipe.batch_size, trainer.accumulate)"),
        ("CVT-13 + SSAT", "batch norms see 8 images at once, not 64 (recipe.batch_size, trainer.accumulate)"),
    ],
)
def test_what_batch_norms_see_is_said_with_keys_that_exist(row: str, said: str):
    verdict, words = partial(("table1", row, "CIFAR-10"), "recipe.batch_size=8", "trainer.accumulate=8")
    assert verdict == OTHER and said in words and "norm_batch" not in words


def test_what_a_contrastive_loss_sees_is_said_with_keys_that_exist():
    verdict, words = partial(("table4", "SimCLR", "CIFAR-10"), "recipe.batch_size=8", "trainer.accumulate=8")
    assert verdict == OTHER and "the loss that compares images sees 8 images at once, not 64" in words


FINE_TUNED = ("table5", "ViT-T IN-1K pretrained + FT", "PMNIST")


@pytest.mark.parametrize(
    ("sha", "is_verified"),
    [("a1311bcf" + 56 * "0", True), ("cd65a155" + 56 * "0", False), (64 * "0", False), (None, False)],
)
def test_a_file_of_start_weights_is_the_hubs_only_by_its_content(sha: str | None, is_verified: bool):
    inputs = {"weights": {"encoder.pretrained": sha}} if sha else {}
    run = cell_run(*FINE_TUNED, "encoder.pretrained=weights.pth", accuracy=96.0, inputs=inputs)
    found = judge(read_paper()["table5"], [run]).find(*FINE_TUNED[1:])
    assert found.records and ("weights not verified" in judgement(found)) != is_verified


def test_weights_of_the_hub_are_verified_and_their_hashes_are_timms():
    run = cell_run(*FINE_TUNED, accuracy=96.0)
    assert "weights" not in judgement(judge(read_paper()["table5"], [run]).find(*FINE_TUNED[1:]))
    for name, begin in TIMM_SHA256.items():
        assert timm.get_pretrained_cfg(name).url.endswith(f"{name}-{begin}.pth")


def trained_cells(*names: str) -> dict[tuple[str, ...], str]:
    """The overrides of every cell that a training fills, each once; of the named tables and figures, or of all."""
    cells = {}
    for item in read_paper().values():
        rows, columns = item.experiment.rows, item.experiment.columns
        for (row, column), cell in item.cells.items() if not names or item.name in names else ():
            if row in rows and column in columns and cell.measure in ("acc1", "hours", "zero_shot"):
                cells[cell_words(item.experiment, row, column)] = f"{item.name}: {row}, {column}"
    return cells


@pytest.mark.parametrize(
    "names",
    [("table5",), ("figure5",), pytest.param((), marks=pytest.mark.slow)],
    ids=lambda names: " ".join(names) or "all",
)
def test_every_cell_of_the_paper_is_faithful_to_it(names: tuple[str, ...]):
    """The record's `faithful` and the verdict on a cell are one rule."""
    cells = trained_cells(*names)
    assert len(cells) > (5 if names else 150)
    for words, place in cells.items():
        with initialize_config_dir(str(CONF), version_base="1.3"):
            run = resolve(compose("train", overrides=list(words)))
        last = {"data_fingerprint": {"splits": sizes_of(run.data.name)}, "skipped_images": []}
        last["data_check"] = {"complete": True}
        assert unfaithful_reasons(run, last | {"epochs": run.mode.phases[-1].epochs}) == [], place


def accuracies(rng: np.random.Generator, mean: float, deviation: float, images: int, seeds: int) -> list[float]:
    rates = rng.normal(mean, deviation, seeds).clip(0, 100) / 100
    return (100 * rng.binomial(images, rates) / images).tolist()


@pytest.mark.sampled
@pytest.mark.parametrize("deviation", [0.3, 1.0, 2.0])
@pytest.mark.parametrize("seeds", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("images", [360, 10_000])
def test_pairs_of_one_distribution_are_hardly_ever_called_different(deviation: float, seeds: int, images: int):
    """A/A: 5 % of such pairs may be."""
    rng = np.random.default_rng(0)
    record = run_of("encoder=vit_t", "data=cifar10", data_fingerprint={"splits": {"test": images}, "sha256": {}})
    of_arms, of_cells = [], []
    for _ in range(1_000):
        a, b = (accuracies(rng, 80.0, deviation, images, seeds) for _ in range(2))
        of_arms.append(mean_difference((a, images), (b, images)).sign in (ABOVE, BELOW))
        cell, runs = Cell("t", "r", "c", "acc1", "%", b[0], f"{b[0]:.2f}"), (record,) * seeds
        of_cells.append(compared(cell, a, tolerance(cell, runs, tuple(a))) == DIFFERS)
    assert np.mean(of_arms) <= 0.05 and np.mean(of_cells) <= 0.05


def test_three_points_on_five_seeds_are_found():
    rng = np.random.default_rng(0)
    pairs = [[(accuracies(rng, mean, 0.8, 10_000, 5), 10_000) for mean in (83.0, 80.0)] for _ in range(200)]
    assert sum(mean_difference(a, b).sign == ABOVE for a, b in pairs) >= 160


TWO_STAGES = ("table3", "(4) SSL+FT", "CIFAR-10")
PHASE = "{{name: {name}, lam: {lam}, epochs: 100, recipe: '${{recipe}}'{more}}}"
FIRST, AGAIN, SSL = (
    PHASE.format(name=name, lam=lam, more=more)
    for name, lam, more in (("scratch", 1.0, ""), ("more", 1.0, ", init_from: previous"), ("ssl", 0.0, ""))
)


@pytest.mark.parametrize(
    ("place", "word", "said"),
    [
        (TWO_STAGES, "mode.phases.1.init_from=null", "mode.phases.1.init_from=null"),
        (TWO_STAGES, "mode.phases.0.lam=0.5", "mode.phases.0.lam=0.5"),
        (("table3", "Scratch", "CIFAR-10"), f"mode.phases=[{FIRST},{AGAIN}]", "mode.phases=2"),
        (("table3", "Scratch", "CIFAR-10"), f"mode.phases=[{FIRST},{SSL},{AGAIN}]", "mode.phases=3"),
        (("table3", "Ours", "CIFAR-10"), f"mode.phases=[{SSL},{FIRST}]", "mode.phases=2"),
        (TWO_STAGES, f"mode.phases=[{FIRST}]", "mode.phases=1"),
    ],
)
def test_what_a_phase_or_their_number_changes_is_no_cell_and_not_faithful(place, word: str, said: str):
    assert is_cell(cell_run(*place), *place)
    run = cell_run(*place, word)
    assert not is_cell(run, *place)
    words = cell_words(read_paper()[place[0]].experiment, *place[1:])
    assert said in [each.text for each in differing(run.settings_key, words)]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        built = resolve(compose("train", overrides=[*words, word]))
    last = {"data_fingerprint": {"splits": sizes_of("cifar10")}, "skipped_images": [], "epochs": 100}
    assert unfaithful_reasons(built, last)


def test_runs_that_differ_in_their_phases_are_two_arms():
    runs = [
        cell_run("table3", "Scratch", "CIFAR-10"),
        cell_run("table3", "Scratch", "CIFAR-10", f"mode.phases=[{FIRST},{AGAIN}]"),
    ]
    [found] = comparisons(runs)
    assert [arm.variant for arm in found.arms][0] == "" and "phases=2" in found.arms[1].variant
    assert comparisons(runs[1:])[0].arms[0].name == "scratch (phases=2)"
    stages = [cell_run(*TWO_STAGES), cell_run(*TWO_STAGES, "mode.phases.1.init_from=null")]
    assert [arm.variant for arm in comparisons(stages)[0].arms] == ["", "init_from=null"]


def test_the_ssl_settings_of_a_phase_that_scratch_does_not_have_count():
    place = ("table3", "Scratch", "CIFAR-10")
    runs = [cell_run(*place, f"mode.phases=[{SSL},{AGAIN}]", f"ssl.mask_ratio={ratio}") for ratio in (0.5, 0.75)]
    assert len({run.settings_key for run in runs}) == 2
    assert len({cell_run(*place, f"ssl.mask_ratio={ratio}").settings_key for ratio in (0.5, 0.75)}) == 1
