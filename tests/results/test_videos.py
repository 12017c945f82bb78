"""Tables 8 and 13: which runs fill a cell, what they must have started from, and how many videos a number is of."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ssat.config.resolve import build
from ssat.results.comparisons import comparisons
from ssat.results.intervals import next_run_margin
from ssat.results.paper.claims import CONTRADICTED, NO_EVIDENCE, SUPPORTED, ledger
from ssat.results.paper.paper import read_claims, read_paper, read_text_numbers
from ssat.results.paper.paper_tables import command, judgement, missing
from ssat.results.paper.settings import cell_words, start_words
from ssat.results.paper.verdicts import DIFFERS, NOT_OURS, NOT_RUN, OTHER, PARTIAL, REPRODUCED, Judged, judge
from ssat.runs.inputs import start_run
from ssat.runs.record import Record
from tests.results.records import run_of, write_json

ITEM = read_paper()["table8"]
METHODS = ("Deepfakes", "Face2Face", "FaceSwap", "NeuralTextures")
SSL, SSAT, OTHER_SSAT = "VideoMAE SSL (0.95)", "VideoMAE (0.95) + SSAT", "VideoMAE (0.75) + SSAT"
PASSPORT = {"detector": "mtcnn", "margin": 0.3, "size": 256, "coding": "jpeg", "quality": 95, "level": "c23"}


def of_videos(accuracy: float, *, scored: int = 280, total: int = 280) -> dict[str, Any]:
    return {"n_total": total, "n_scored": scored, "n_failed": total - scored, "accuracy": accuracy, "auc": 0.9512}


def video_run(
    row: str,
    column: str,
    *more: str,
    seed: int = 0,
    accuracy: float = 90.0,
    start: dict[str, Any] | None = None,
    complete: bool = True,
    level: str = "c23",
    found: dict[str, Any] | None = None,
) -> Record:
    """The record of the run of a cell of Table 8; by default it starts from the run that the cell names."""
    words = {word.split("=")[0]: word for word in cell_words(ITEM.experiment, row, column)}
    words |= {word.split("=")[0]: word for word in more}
    begun = start_words(ITEM.experiment, row, column)
    if start is None and begun:
        first = run_of(*begun, seed=seed)
        start = {"config": first.get("config"), "mode": first.mode, "seed": seed, "complete": True}
    check = {"complete": complete, "official": []}
    phase = {"lam": 1.0, "data_check": check, "detection": found or of_videos(accuracy)}
    run = run_of(
        *words.values(),
        experiment="table8",
        seed=seed,
        accuracy=accuracy,
        inputs={"start": start} if start else {},
        phases=[phase],
        data_fingerprint={"splits": {"train": 2880, "test": 280}, "passport": PASSPORT | {"level": level}},
    )
    run.values["config"] = json.loads(json.dumps(run.get("config")).replace("-s0", f"-s{seed}"))
    return run


def shown(*runs: Record) -> Judged:
    return judge(ITEM, list(runs))


@pytest.mark.sampled
@pytest.mark.parametrize("row", ITEM.experiment.rows)
@pytest.mark.parametrize("method", METHODS)
def test_the_run_of_a_cell_stands_in_this_cell_alone(row: str, method: str) -> None:
    judged = shown(video_run(row, f"cross-training {method}"))
    measured = [(each.cell.row, each.cell.column) for each in judged.exact if each.records]
    assert measured == [(row, f"cross-training {method}")] and not judged.parts[1:] and not judged.strays


def test_other_peoples_networks_are_named_as_such_and_never_as_not_run() -> None:
    judged = shown()
    others = {each.cell.row for each in judged.exact if each.verdict == NOT_OURS}
    assert others == {"Cross-efficient-vit", "DFDC winner"}
    assert {each.verdict for each in judged.exact} == {NOT_OURS, NOT_RUN}
    lines = [line for line in missing(judged) if line.startswith("DFDC winner")]
    assert len(lines) == 8 and all("not trained here: see the notes" in line for line in lines)


def test_a_number_within_its_interval_of_the_papers_is_a_reproduction_and_says_of_how_many_videos() -> None:
    judged = shown(video_run(SSAT, "cross-training Deepfakes", accuracy=92.06, found=of_videos(92.06, scored=277)))
    result = judged.find(SSAT, "cross-training Deepfakes")
    assert result is not None and result.verdict == REPRODUCED
    assert "277 of 280 videos scored, AUC 0.951" in judgement(result)
    p, q = (0.9206 * 277 + 1) / 279, (0.9242 * 277 + 1) / 279  # Agresti and Caffo, of the videos that were scored
    of_videos_alone = 1.959964 * 100 * ((p * (1 - p) + q * (1 - q)) / 279) ** 0.5
    assert result.tolerance == pytest.approx(math.hypot(of_videos_alone, next_run_margin([92.06])), rel=1e-4)


def test_a_number_far_away_differs() -> None:
    judged = shown(video_run("Scratch", "cross-training FaceSwap", accuracy=90.0))
    assert judged.find("Scratch", "cross-training FaceSwap").verdict == DIFFERS


def test_a_part_of_the_set_is_partial_data_with_its_counts() -> None:
    few = video_run(SSAT, "cross-training Deepfakes", complete=False, found=of_videos(90.0, scored=40, total=40))
    judged = shown(few)
    assert {each.verdict for each in judged.exact} == {NOT_RUN, NOT_OURS}
    [part] = judged.parts[1:]
    [result] = part.results
    assert result.verdict == PARTIAL and "40 of 40 videos scored" in judgement(result)


def test_small_runs_of_all_rows_stand_in_one_table() -> None:
    small = ("epochs=3", "data.max_clips=2")
    runs = [video_run(row, f"cross-training {METHODS[0]}", *small, complete=False) for row in ITEM.experiment.rows]
    [part] = shown(*runs).parts[1:]
    assert [result.cell.row for result in part.results] == [*ITEM.experiment.rows]


def test_many_videos_without_a_score_are_a_part_of_the_test() -> None:
    judged = shown(video_run(SSAT, "cross-training Deepfakes", found=of_videos(92.4, scored=200)))
    result = judged.find(SSAT, "cross-training Deepfakes")
    assert result.verdict == PARTIAL and "200 of 280 videos scored" in judgement(result)


@pytest.mark.parametrize("change", [{"level": "c40"}, {"start": {}}])
def test_another_level_or_an_unknown_start_is_not_the_cell(change: dict[str, Any]) -> None:
    judged = shown(video_run(SSAT, "cross-training Deepfakes", **change))
    assert judged.find(SSAT, "cross-training Deepfakes").verdict == NOT_RUN


def test_an_unknown_start_is_named_and_not_every_setting_of_it() -> None:
    judged = shown(video_run(SSAT, "cross-training Deepfakes", start={}))
    [result] = judged.parts[1].results
    assert result.verdict == OTHER and [word.split("=")[0] for word in result.differs_in] == ["mode.init_from"]


def test_a_start_of_a_part_of_dfdc_is_not_the_cells() -> None:
    run = video_run(SSAT, "cross-training Deepfakes")
    run.values["inputs"]["start"]["complete"] = False
    assert shown(run).find(SSAT, "cross-training Deepfakes").verdict == NOT_RUN


def test_the_start_decides_the_row_of_a_fine_tuning() -> None:
    """Of two fine-tunings that differ in nothing but the network that they start from."""
    other = video_run("VideoMAE SSL (0.75)", "cross-training FaceSwap").get("inputs.start")
    judged = shown(video_run(SSL, "cross-training FaceSwap", start=other))
    assert judged.find(SSL, "cross-training FaceSwap").verdict == NOT_RUN
    assert judged.find("VideoMAE SSL (0.75)", "cross-training FaceSwap").records


def test_ssat_from_a_network_of_the_other_ratio_is_no_cell() -> None:
    other = video_run(OTHER_SSAT, "cross-training FaceSwap").get("inputs.start")
    judged = shown(video_run(SSAT, "cross-training FaceSwap", start=other))
    assert not any(each.records for each in judged.exact)


def test_seeds_that_start_from_runs_of_their_own_seed_are_one_configuration() -> None:
    runs = [video_run(SSAT, "cross-training Face2Face", seed=seed, accuracy=79.0 + seed) for seed in range(3)]
    result = shown(*runs).find(SSAT, "cross-training Face2Face")
    assert result.values == (79.0, 80.0, 81.0)
    assert result.verdict == REPRODUCED


def test_comparisons_tell_runs_apart_by_ratio_and_by_what_they_were_tested_on() -> None:
    rows = (SSAT, OTHER_SSAT)
    found = comparisons([video_run(row, f"cross-training {method}") for row in rows for method in METHODS[:2]])
    assert sorted(each.title for each in found) == [f"videomae_b on ffpp, held_out={method}" for method in METHODS[:2]]
    assert {arm.name for each in found for arm in each.arms} == {"SSAT (mask_ratio=0.75)", "SSAT (mask_ratio=0.95)"}


# Zero-shot transfer


def evaluated(folder: Path, accuracy: float = 92.42, **changes: Any) -> Record:
    """A run on DFDC with the file that src.evaluate writes for Deepfakes."""
    run = replace(video_run(SSAT, "zero-shot Deepfakes"), path=folder / "result.json")
    run.values["hash"] = "12345678"
    settings = {"data": "ffpp", "checkpoint": "last", "split": "test_Deepfakes", "phase": "", "probe": ""}
    settings |= {"data.perturb": "", "overrides": ["data=ffpp", "data.root=x"]}
    values = {
        "hash": "12345678",
        "settings": settings,
        "detection": of_videos(accuracy),
        "data_fingerprint": {"passport": PASSPORT | {"held_out": None, "stride": 4}},
    }
    write_json(folder / "evaluations" / "last-ffpp-test_Deepfakes-clean.json", values | changes)
    return run


def test_a_zero_shot_cell_is_read_from_the_evaluation_of_its_run(tmp_path: Path) -> None:
    judged = shown(evaluated(tmp_path))
    measured = {each.cell.column: each.verdict for each in judged.exact if each.records}
    assert measured == {"zero-shot Deepfakes": REPRODUCED}
    assert judged.find(SSAT, "zero-shot Face2Face").verdict == NOT_RUN  # the run is there, its evaluation is not


@pytest.mark.parametrize(
    "changes",
    [
        {"hash": "another"},
        {"settings": {"data": "ffpp", "checkpoint": "best", "split": "test_Deepfakes"}},
        {"detection": None},
        {"data_fingerprint": {"passport": PASSPORT | {"detector": "none"}}},
        {"data_fingerprint": {"passport": PASSPORT | {"level": "c40"}}},
        {"data_fingerprint": None},
    ],
)
def test_an_evaluation_of_something_else_fills_no_cell(tmp_path: Path, changes: dict[str, Any]) -> None:
    assert shown(evaluated(tmp_path, **changes)).find(SSAT, "zero-shot Deepfakes").verdict == NOT_RUN


def test_changed_test_videos_fill_no_cell(tmp_path: Path) -> None:
    run = evaluated(tmp_path)
    path = tmp_path / "evaluations" / "last-ffpp-test_Deepfakes-clean.json"
    path.write_text(path.read_text().replace("data.root=x", "data.max_clips=1"))
    assert shown(run).find(SSAT, "zero-shot Deepfakes").verdict == NOT_RUN


def test_a_zero_shot_test_of_a_part_is_partial_data(tmp_path: Path) -> None:
    run = evaluated(tmp_path, detection=of_videos(92.0, scored=40, total=40))
    result = shown(run).find(SSAT, "zero-shot Deepfakes")
    assert result.verdict == PARTIAL and "40 of 40 videos scored" in judgement(result)


def test_the_command_of_a_zero_shot_cell_trains_on_dfdc_and_then_tests() -> None:
    judged = shown()
    line = command(judged, ITEM.cells[SSAT, "zero-shot FaceSwap"])
    assert "data=dfdc" in line and "run=runs/table8/dfdc-ssat-0.95-s0 " in line and "split=test_FaceSwap" in line
    line = command(judged, ITEM.cells[SSL, "cross-training FaceSwap"])
    assert "mode=finetune" in line and "mode.init_from=${runs_dir}/table8/dfdc-ssl_ft-0.95-s${seed}" in line


# What a run starts from


def test_the_start_is_what_the_finished_run_in_the_folder_is(tmp_path: Path) -> None:
    run = run_of("encoder=videomae_b", "data=dfdc", "mode=ssat")
    config = {**run.get("config"), "mode": {**run.get("config.mode"), "init_from": str(tmp_path)}}
    config["mode"]["phases"] = [{**config["mode"]["phases"][0], "init_from": str(tmp_path)}]
    built = build(config)
    assert start_run(built) is None  # an empty folder
    record = {"status": "failed", "config": {"seed": 3}, "hash": "h", "mode": "ssat", "seed": 3}
    write_json(tmp_path / "result.json", record)
    assert start_run(built) is None
    phases = [{"data_check": {"complete": True}}]
    write_json(tmp_path / "result.json", record | {"status": "finished", "phases": phases})
    begun = {"hash": "h", "mode": "ssat", "seed": 3, "config": {"seed": 3}, "complete": True}
    assert start_run(built) == {"run": str(tmp_path)} | begun
    assert start_run(build(run.get("config"))) is None


# Claims


def weighed(claim: str, *runs: Record) -> str:
    [entry] = [each for each in read_claims() if each["id"] == claim]
    return ledger([entry], read_text_numbers(), {"table8": shown(*runs)}, list(runs))[0].status


def test_the_claims_of_section_5_4_are_weighed_from_the_cells() -> None:
    column = "cross-training NeuralTextures"
    rows = dict.fromkeys(ITEM.experiment.rows, 60.0)

    def runs(scratch: float) -> list[Record]:
        return [
            video_run(row, column, seed=seed, accuracy=accuracy + 0.1 * seed)
            for row, accuracy in (rows | {"Scratch": scratch}).items()
            for seed in range(3)
        ]

    claim = "video-scratch-on-neural-textures"
    assert weighed(claim) == NO_EVIDENCE
    assert weighed(claim, *runs(82.0)) == SUPPORTED
    assert weighed(claim, *runs(40.0)) == CONTRADICTED


# Table 13


def counted(**found: int) -> Record:
    sizes = {"train": 720, "val": 140, "test": 140}
    official = [
        {"split": split, "method": method, "expected": size, "found": found.get(split, size)}
        for split, size in sizes.items()
        for method in ("original", *METHODS)
    ]
    run = video_run("Scratch", "cross-training Deepfakes")
    run.values["phases"][0]["data_check"]["official"] = official
    return run


def test_table_13_is_counted_by_a_run_on_the_whole_set() -> None:
    judged = judge(read_paper()["table13"], [counted(), counted(test=40)])
    assert {each.verdict for each in judged.exact} == {REPRODUCED}
    assert judged.find("Total", "Total").ours == 5000 and judged.find("Train", "Original").ours == 720


def test_a_part_of_the_set_is_partial_data_in_table_13() -> None:
    judged = judge(read_paper()["table13"], [counted(test=40)])
    verdicts = {(each.cell.row, each.cell.column): each.verdict for each in judged.exact}
    assert verdicts["Test", "DeepFake"] == verdicts["Total", "Total"] == PARTIAL
    assert verdicts["Train", "DeepFake"] == REPRODUCED
    assert judged.find("Test", "Total").ours == 200


def test_without_a_run_table_13_names_the_command_that_counts() -> None:
    judged = judge(read_paper()["table13"], [run_of("encoder=vit_t", "data=cifar10")])
    assert {each.verdict for each in judged.exact} == {NOT_RUN}
    assert all("src.prepare data=ffpp data.raw=" in line and "--dry-run" in line for line in missing(judged))
