"""Which runs stand in which cell: exact configurations, partial data apart, and what a verdict says."""

import pytest

from ssat.results.page.html import render
from ssat.results.paper.matching import match_runs
from ssat.results.paper.paper import Cell, Experiment, Item, read_experiment, read_paper
from ssat.results.paper.paper_tables import judgement, markdown
from ssat.results.paper.verdicts import (
    DIFFERS,
    NOT_OURS,
    NOT_RUN,
    ONE_SEED,
    OTHER_MACHINE,
    PARTIAL,
    REPRODUCED,
    TOO_NOISY,
    judge,
    tolerance,
)
from ssat.runs.record import Record
from tests.results.records import run_of

DEPTHS = Experiment(
    "depths",
    rows={"1": ["ssl.decoder_depth=1"], "2": ["ssl.decoder_depth=null"]},
    columns={"CIFAR-10": ["data=cifar10"], "CIFAR-100": ["data=cifar100"]},
    base=["encoder=vit_t"],
)


def item(experiment: Experiment = DEPTHS, number: float | None = 90.0, **cell) -> Item:
    cells = {
        (row, column): Cell("depths", row, column, cell.get("measure", "acc1"), "%", number, f"{number}")
        for row in experiment.rows
        for column in experiment.columns
    }
    return Item("depths", "Depth of the decoder", "Table 10", cells, experiment)


def places(records: list[Record]) -> dict:
    """The number of runs by block title, row and column."""
    matches = match_runs(item(), records)
    blocks = [matches.exact, *matches.others]
    return {(block.title, *place): len(runs) for block in blocks for place, runs in block.records.items()}


def test_a_run_of_the_cells_very_configuration_stands_in_it():
    assert places([run_of("encoder=vit_t", "data=cifar10", "ssl.decoder_depth=1")]) == {("", "1", "CIFAR-10"): 1}
    assert places([run_of("encoder=vit_t", "data=cifar100")]) == {("", "2", "CIFAR-100"): 1}


def test_a_run_of_another_experiment_serves_the_cell_too():
    assert places([run_of("encoder=vit_t", "data=cifar10", experiment="table1")]) == {("", "2", "CIFAR-10"): 1}


def test_devices_precision_and_pipeline_do_not_take_a_run_out_of_its_cell():
    words = ("encoder=vit_t", "data=cifar10", "trainer=gpu", "trainer.precision=bf16", "data.pipeline=batched")
    assert places([run_of(*words)]) == {("", "2", "CIFAR-10"): 1}


BATCH = [
    ((), 64),
    (("trainer.devices=8",), 512),
    (("trainer.accumulate=8",), 512),
    (("trainer.num_nodes=2",), 128),
    (("trainer.devices=8", "recipe.batch_size=8"), 64),
    (("trainer.devices=2", "trainer.accumulate=4"), 512),
]


@pytest.mark.parametrize(("words", "batch"), BATCH)
def test_a_cell_is_of_one_batch_however_it_is_put_together(words, batch):
    found = places([run_of("encoder=vit_t", "data=cifar10", *words)])
    assert any(not title for title, *_ in found) == (batch == 64)
    on_imagenet = match_runs(read_paper()["table2"], [run_of("encoder=vit_t", "data=imagenet", "mode=ssat", *words)])
    assert bool(on_imagenet.exact.records["ViT-T + SSAT", "IN-1K"]) == (batch == 512)


def test_another_learning_rate_stands_apart_under_a_title():
    found = places(
        [run_of("encoder=vit_t", "data=cifar10"), run_of("encoder=vit_t", "data=cifar10", "recipe.base_lr=5e-4")]
    )
    assert found[("", "2", "CIFAR-10")] == 1
    [title] = [title for title, *_ in found if title]
    assert "vit_t" in title and "100 epochs" in title


@pytest.mark.parametrize("less", ["data.fraction=0.1", "epochs=99", "trainer.max_steps=10", "data.verify=false"])
def test_a_run_on_less_than_the_cell_asks_for_is_never_in_the_papers_block(less):
    found = places([run_of("encoder=vit_t", "data=cifar10", less, faithful=False)])
    assert all(title for title, *_ in found) and len(found) == 1


def test_skipped_images_take_a_run_out_of_its_cell():
    found = places([run_of("encoder=vit_t", "data=cifar10", skipped_images=["a.png"])])
    assert all(title for title, *_ in found) and len(found) == 1


def test_runs_of_different_shares_of_the_data_are_kept_apart():
    runs = [
        run_of("encoder=vit_t", "data=cifar10", f"data.fraction={share}", faithful=False) for share in (0.1, 0.2, 0.2)
    ]
    for record, images in zip(runs, (5_000, 10_000, 10_000), strict=True):
        record.values["data_fingerprint"]["splits"]["train"] = images
    titles = {title for title, *_ in places(runs)}
    assert titles == {"vit_t, 5,000 training images, 100 epochs", "vit_t, 10,000 training images, 100 epochs"}


def test_small_runs_on_other_data_make_a_table_of_their_own_with_that_data_as_column():
    words = ("encoder=vit_micro", "data=digits", "epochs=3")
    found = places([run_of(*words, "ssl.decoder_depth=1", faithful=False), run_of(*words, faithful=False)])
    assert {place[1:] for place in found} == {("1", "digits"), ("2", "digits")}
    assert len({title for title, *_ in found}) == 1 and "digits" in next(iter(found))[0]


def test_a_small_run_of_another_experiment_joins_the_table_of_its_settings_only():
    words = ("encoder=vit_micro", "data=digits", "epochs=3")
    mine = run_of(*words, "ssl.decoder_depth=1", faithful=False)
    other = run_of(*words, experiment="elsewhere", faithful=False)
    stranger = run_of("encoder=vit_micro", "data=digits", "epochs=4", experiment="elsewhere", faithful=False)
    assert {place[1] for place in places([mine, other, stranger])} == {"1", "2"}
    assert places([other, stranger]) == {}


def test_a_run_of_no_row_is_a_stray_of_its_own_experiment():
    odd = run_of("encoder=vit_t", "data=cifar10", "ssl.decoder_depth=3")
    assert match_runs(item(), [odd]).strays == [odd]
    assert (
        match_runs(item(), [run_of("encoder=vit_t", "data=cifar10", "ssl.decoder_depth=3", experiment="x")]).strays
        == []
    )


def test_two_settings_in_one_cell_are_not_averaged():
    words = ("encoder=vit_micro", "data=digits", "epochs=3")
    varied = Experiment("depths", {"scratch": ["mode=scratch"], "SSAT": ["mode=ssat"]}, {"all": []}, [])
    records = [run_of(*words, f"ssl.mask_ratio={ratio}", faithful=False) for ratio in (0.75, 0.75, 0.5)]
    records[1].values["seed"] = 1
    matches = match_runs(item(varied), records)
    [block] = matches.others
    assert len(block.records["SSAT", "all"]) == 2 and matches.strays == [records[2]]


@pytest.mark.parametrize(
    ("accuracies", "verdict"),
    [
        ([90.5], REPRODUCED),
        ([92.0], ONE_SEED),  # two seeds may differ by as much
        ([97.0], DIFFERS),  # not by this much
        ([90.8], REPRODUCED),  # the test images explain 0.83
        ([90.9], ONE_SEED),
        ([96.3], ONE_SEED),  # with the assumed deviation of seeds 6.36
        ([96.4], DIFFERS),
        ([94.5, 94.6, 94.7], REPRODUCED),  # 4.69: 3 degrees of freedom of the assumed 2 points count as well
        ([94.7, 94.8, 94.9], DIFFERS),
        ([89.0, 90.0, 91.0], REPRODUCED),
        ([10.0, 78.0, 81.0], TOO_NOISY),
        ([89.2, 90.8], REPRODUCED),  # two runs that agree say more than one of them
        ([86.5, 93.5], TOO_NOISY),
    ],
)
def test_the_verdict_follows_images_and_seeds(accuracies, verdict):
    words = ("encoder=vit_t", "data=cifar10")
    judged = judge(item(), [run_of(*words, accuracy=each, seed=seed) for seed, each in enumerate(accuracies)])
    assert judged.find("2", "CIFAR-10").verdict == verdict
    assert judged.find("2", "CIFAR-10").difference == pytest.approx(sum(accuracies) / len(accuracies) - 90.0)
    assert judged.find("1", "CIFAR-10").verdict == NOT_RUN


def test_tolerance_of_one_run_on_10000_images_is_two_binomial_intervals_and_the_assumed_seeds():
    cell = Cell("t", "r", "c", "acc1", "%", 90.0, "90.0")
    record = run_of("encoder=vit_t", "data=cifar10")
    p = 9_001 / 10_002
    of_images = 1.959964 * 100 * (2 * p * (1 - p) / 10_002) ** 0.5
    of_seeds = 2.228139 * 2 * 2**0.5  # t of 10 degrees of freedom, two runs of deviation 2
    assert tolerance(cell, (record,), (90.0,)) == pytest.approx((of_images**2 + of_seeds**2) ** 0.5)


def test_seeds_widen_the_tolerance_and_count_once_each():
    words = ("encoder=vit_t", "data=cifar10")
    runs = [
        run_of(*words, accuracy=accuracy, seed=seed) for seed, accuracy in ((0, 88.0), (1, 90.0), (2, 92.0), (2, 92.0))
    ]
    result = judge(item(), runs).find("2", "CIFAR-10")
    assert result.values == (88.0, 90.0, 92.0) and result.deviation == pytest.approx(2.0)
    of_seeds = 2.5706 * 2 * (1 + 1 / 3) ** 0.5  # t of 3 + 2 degrees of freedom; measured and assumed are both 2
    p = 9_001 / 10_002
    of_images = 1.959964 * 100 * (p * (1 - p) / 10_002 * (1 + 1 / 3)) ** 0.5
    assert result.tolerance == pytest.approx((of_seeds**2 + of_images**2) ** 0.5, rel=1e-3)


def test_more_seeds_that_agree_never_weaken_a_verdict():
    """One seed at 79.5 is a reproduction, and so are two at 79.2 and 79.9, with a narrower interval each time."""
    words, widths = ("encoder=vit_t", "data=cifar10"), []
    for accuracies in ([79.5], [79.2, 79.9], [79.2, 79.5, 79.9], [79.2, 79.4, 79.5, 79.6, 79.9]):
        runs = [run_of(*words, accuracy=each, seed=seed) for seed, each in enumerate(accuracies)]
        result = judge(item(number=79.5), runs).find("2", "CIFAR-10")
        assert result.verdict == REPRODUCED
        assert ("one seed" in judgement(result)) == (len(accuracies) == 1)
        widths.append(result.tolerance)
    assert widths == sorted(widths, reverse=True) and widths[0] > widths[1] > widths[-1]


def test_two_runs_of_a_seed_count_by_their_mean_whichever_is_read_first(tmp_path):
    words, places = ("encoder=vit_t", "data=cifar10"), []
    runs = [
        Record(tmp_path / str(n) / "result.json", "g", run_of(*words, *more, accuracy=accuracy, seed=seed).values)
        for n, (accuracy, seed, more) in enumerate(
            [(79.5, 0, []), (30.0, 0, ["trainer.precision=bf16"]), (80.0, 1, []), (80.0, 1, [])]
        )
    ]
    for records in (runs, runs[::-1]):
        result = judge(item(), records).find("2", "CIFAR-10")
        assert result.values == (54.75, 80.0) and "2 runs of seed 0: 79.5, 30.0" in judgement(result)
        places.append([folder.name for each in result.repeats for folder in each.folders])
    assert places == [["0", "1"]] * 2
    assert "2 runs of seed 0" in markdown(judge(item(), runs))
    page = render(runs, {"depths": judge(item(), runs)}, page=tmp_path / "report.html")
    assert 'href="./0/result.json">0</a>' in page and 'href="./1/result.json">1</a>' in page


def test_small_runs_are_shown_and_never_judged():
    judged = judge(item(), [run_of("encoder=vit_micro", "data=digits", "epochs=3", accuracy=90.0, faithful=False)])
    assert {each.verdict for each in judged.exact} == {NOT_RUN}
    [(_, [small])] = judged.parts[1:]
    assert small.verdict == PARTIAL and small.ours == 90.0


def test_nothing_of_the_paper_stands_in_our_column():
    judged = judge(item(), [])
    assert all(each.ours is None and each.difference is None for each in judged.exact)


def test_a_row_that_the_experiment_lacks_is_another_network():
    ours = Experiment("depths", {"1": []}, {"CIFAR-10": []}, [])
    both = Item("depths", "", "", item().cells, ours)
    assert [each.verdict for each in judge(both, []).exact] == [NOT_RUN, NOT_OURS, NOT_OURS, NOT_OURS]


def test_cost_of_the_network_needs_no_full_schedule():
    words = ("encoder=vit_t", "data=cifar10", "epochs=1")
    result = judge(item(measure="gflops", number=1.4), [run_of(*words, faithful=False)]).find("2", "CIFAR-10")
    assert result.ours == pytest.approx(1.4) and result.verdict == REPRODUCED


def test_hours_on_another_machine_are_not_judged():
    elsewhere = run_of(
        "encoder=vit_t", "data=cifar10", seconds=7200.0, hardware={"device": "CPU", "accelerator": "cpu"}
    )
    result = judge(item(measure="hours", number=60.0), [elsewhere]).find("2", "CIFAR-10")
    assert result.ours == 2.0 and result.verdict == OTHER_MACHINE


def test_the_command_of_a_cell_names_every_override_once():
    command = DEPTHS.command("1", "CIFAR-10")
    assert command == "python -m src.train encoder=vit_t ssl.decoder_depth=1 data=cifar10 experiment=depths"


def test_what_an_experiment_file_sets_for_all_cells_is_in_their_commands(tmp_path, monkeypatch):
    text = "defaults:\n  - override /encoder: vit_t\nepochs: 1\nrecipe: {clip_grad: null, decay_all: true}\n"
    text += "hydra: {sweeper: {rows: {a: [mode=ssat]}, columns: {b: [data=cifar10]}}}\n"
    (tmp_path / "mine.yaml").write_text(text)
    monkeypatch.setattr("ssat.results.paper.paper.EXPERIMENTS", tmp_path)
    words = read_experiment("mine").words("a", "b")
    assert words[:4] == ["encoder=vit_t", "epochs=1", "recipe.clip_grad=null", "recipe.decay_all=true"]
