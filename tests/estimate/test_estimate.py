"""estimate=true: arithmetic against known answers, and calibrations against the runs that they foretell."""

import json
import signal
import subprocess
import sys
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from PIL import Image

from ssat.commands.train import train as train_config
from ssat.config.identity import config_hash
from ssat.config.resolve import resolve
from ssat.config.words import CONF
from ssat.core.errors import UserError
from ssat.data.sets.catalog import CATALOG
from ssat.data.sets.stand_in import PHOTOGRAPHS, PIXELS, stand_in
from ssat.estimate import calibration
from ssat.estimate import command as estimate
from ssat.estimate.calibration import Calibration, Lap
from ssat.estimate.cost import Cost
from ssat.estimate.prediction import Amount, Done, cost_key, left_of, predict
from ssat.runs.folder import find_run_dir
from ssat.training.data import build_data

ROOT = Path(__file__).resolve().parents[2]
TINY = [
    "encoder=vit_micro",
    "encoder.depth=1",
    "encoder.embed_dim=32",
    "encoder.num_heads=2",
    "data=digits",
    "data.patch_size=4",
    "recipe.batch_size=16",
    "footprint.energy=false",
    "trainer=cpu",
    "trainer.threads=1",
    "trainer.progress=off",
]
COST = Cost(
    once=3.0,
    batch=0.5,
    epoch=2.0,
    evaluation=1.0,
    eval_batch=0.25,
    checkpoint=4.0,
    picture=7.0,
    end=5.0,
    watts=200.0,
    kg_per_kwh=0.5,
    source="codecarbon",
    data_wait=0.1,
    cpu_share=1.0,
    peak_memory=10**9,
    last_bytes=1000,
    best_bytes=100,
    picture_bytes=10,
    csv_bytes=0,
    timed=20,
    seconds=30.0,
)


def config_of(*overrides: str) -> dict:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return resolve(compose("train", overrides=[*TINY, *overrides]))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short calibrations, and no memory of other tests' ones."""
    monkeypatch.setattr(calibration, "WINDOW_SECONDS", 0.3)
    monkeypatch.setattr(estimate, "COSTS", {})
    monkeypatch.setattr(estimate, "ESTIMATES", [])


def foretell(runs: Path, *overrides: str) -> dict:
    """Estimate in this process; returns the JSON file's content."""
    config = config_of(f"runs_dir={runs}", "estimate=true", *overrides)
    train_config(config)
    return json.loads((runs / ".estimates" / f"{config.name}-{config_hash(config)}.json").read_text())


# ---- arithmetic


def test_what_is_left_counts_every_part_of_a_phase():
    monitors = ("monitor.knn_every=4", "monitor.rank_every=6")
    config = config_of("epochs=12", "eval_every=5", "reconstruct_every=5", *monitors)
    left = left_of(config, config.mode.phases[0], Amount(batches=20, eval_batches=3, images=16), Done())
    assert (left.steps, left.batches, left.epochs) == (240, 240, 12)
    assert (left.evaluations, left.probes, left.ranks) == (2, 3, 2)
    assert left.pictures == 3  # epochs 5, 10 and the last


def test_an_interrupted_phase_has_left_what_its_checkpoint_has_not():
    config = config_of("epochs=12", "eval_every=1", "reconstruct_every=0")
    amount = Amount(batches=20, eval_batches=3, images=16)
    left = left_of(config, config.mode.phases[0], amount, Done(steps=170))
    assert (left.steps, left.batches, left.epochs, left.evaluations) == (70, 70, 4, 4)


def test_accumulated_batches_make_fewer_steps_and_the_same_work():
    config = config_of("epochs=2", "trainer.accumulate=4", "reconstruct_every=0")
    left = left_of(config, config.mode.phases[0], Amount(batches=20, eval_batches=3, images=16), Done())
    assert (left.steps, left.batches) == (10, 40)


def test_max_steps_cuts_the_last_epoch_and_its_evaluation():
    config = config_of("epochs=12", "trainer.max_steps=30", "reconstruct_every=0")
    left = left_of(config, config.mode.phases[0], Amount(batches=20, eval_batches=3, images=16), Done())
    assert (left.steps, left.epochs, left.evaluations) == (30, 2, 1)


def test_the_prediction_is_the_sum_of_its_parts():
    config = config_of("epochs=10", "eval_every=2", "reconstruct_every=5", "footprint.tdp_watts=100")
    row = predict(config, config.mode.phases[0], COST, Amount(batches=20, eval_batches=4, images=16), Done())
    train, evaluation = 200 * 0.5, 5 * (1 + 4 * 0.25)
    other = 3 + 5 + 10 * 2 + 2 * 7  # start, end, epochs, pictures
    assert row["seconds"] == pytest.approx(train + evaluation + other)
    assert row["images_per_s"] == pytest.approx(32)
    assert row["disk_bytes"] == 1000 + 100 + 2 * 10
    hours = row["seconds"] / 3600
    assert row["kwh"] == pytest.approx(0.2 * hours)
    assert row["co2_kg"] == pytest.approx(0.1 * hours)
    assert row["co2_kg_lacoste"] == pytest.approx(0.1 * hours * 0.432)
    assert row["gpu_hours"] is None


def test_long_epochs_pay_for_the_checkpoints_inside_them():
    config = config_of("epochs=1", "reconstruct_every=0", "checkpoint_minutes=1")
    phase, amount = config.mode.phases[0], Amount(batches=600, eval_batches=0, images=16)
    without = predict(replace(config, checkpoint_minutes=1000), phase, COST, amount, Done())
    assert predict(config, phase, COST, amount, Done())["seconds"] == without["seconds"] + 5 * 4.0


def test_seldom_measured_gradients_are_added_to_the_steps():
    config = config_of("epochs=1", "monitor.conflict_every=40", "reconstruct_every=0")
    phase, amount = config.mode.phases[0], Amount(batches=120, eval_batches=0, images=16)
    assert predict(config, phase, COST, amount, Done())["parts"]["train"] == pytest.approx(60 * (1 + 4 / 3 / 40))


def test_without_codecarbon_the_rated_power_gives_the_energy():
    config = config_of("epochs=1", "footprint.tdp_watts=100")
    amount = Amount(batches=20, eval_batches=1, images=16)
    row = predict(config, config.mode.phases[0], replace(COST, watts=None, source=None), amount, Done())
    assert row["kwh"] == pytest.approx(0.1 * row["seconds"] / 3600)
    assert row["co2_kg"] is None


def test_the_clock_is_taken_apart_exactly():
    """A fit with known seconds: start 4, batch 2, the first ones 5 more, around an epoch 3, evaluation 1 + 0.5 each."""
    watch = Calibration(meter=FakeTotals(), folder=Path(), together=2, period=1, epochs=1)  # type: ignore[arg-type]
    watch.started, clock = 100.0, 104.0
    for size, extra in ((3, 5.0), (10, 0.0), (10, 0.0)):
        lap = Lap(start=clock, skipped=2, size=size)
        begun = clock + 1 + extra
        lap.window, lap.trained = begun + 2 * 2, begun + size * 2
        lap.eval_start = lap.trained
        lap.eval_first, lap.eval_last, lap.eval_count = lap.trained + 1 + 2 * 0.5, lap.trained + 1 + 6 * 0.5, 6
        lap.eval_end = lap.eval_last
        clock = lap.end = lap.eval_end + 2
        watch.laps.append(lap)
    watch.checkpoint, watch.picture = 0.5, 0.25
    watch.fit_end = clock + 0.75 + 6
    parts = watch.parts()
    expected = {"once": 9, "batch": 2, "epoch": 3, "evaluation": 1, "eval_batch": 0.5, "end": 7}
    assert {name: parts[name] for name in expected} == pytest.approx(expected)


class FakeTotals:
    """A meter that stopped one second after the calibration's own last look at the clock."""

    totals = {"seconds": 1 + 4 + (1 + 5 + 6 + 4 + 2) + 2 * (1 + 20 + 4 + 2) + 6.75}


# ---- what shares a calibration


def key_of(*overrides: str) -> str:
    config = config_of(*overrides)
    phase = config.mode.phases[0]
    data = build_data(config, phase)
    data.setup()
    return cost_key(config, phase, data)


@pytest.fixture(scope="module")
def usual_key() -> str:
    return key_of()


@pytest.mark.parametrize("same", ["seed=3", "epochs=7", "data.fraction=0.5", "recipe.base_lr=1", "mode.lam=0.5"])
def test_what_changes_no_cost_shares_a_calibration(same: str, usual_key: str):
    assert key_of(same) == usual_key


@pytest.mark.parametrize(
    "other",
    ["ssl.mask_ratio=0.5", "recipe.batch_size=32", "encoder.depth=2", "mode=scratch", "data.pipeline=batched"],
)
def test_what_changes_the_cost_is_calibrated_anew(other: str, usual_key: str):
    assert key_of(other) != usual_key


# ---- made-up images


@pytest.mark.parametrize("name", [*PIXELS, "flowers", "chaoyang"])
def test_made_up_sets_have_the_official_counts_and_classes(name: str):
    source, card = stand_in(name), CATALOG[name]
    assert (len(source.train), len(source.test or ()), len(source.classes)) == (card.train, card.test, card.classes)
    assert len(np.unique(source.train.labels)) == card.classes
    assert source.train.read(0).mode == "RGB"


def test_a_made_up_photograph_compresses_like_one():
    source = stand_in("chaoyang")
    file = source.train.images[0]
    assert Image.open(BytesIO(file)).size == PHOTOGRAPHS["chaoyang"]
    bits_per_pixel = 8 * len(file) / (512 * 512)
    assert 1 < bits_per_pixel < 5  # photographs at quality 90 have 2 to 4, noise has over 6


def test_missing_data_is_not_downloaded_and_the_official_counts_are_used(tmp_path: Path):
    root = tmp_path / "data"
    result = foretell(tmp_path / "runs", "data=pmnist", "encoder.patch_size=7", "mode=scratch", f"data.root={root}")
    assert not root.exists()
    assert result["phases"][0]["steps"] == 100 * ((4708 + 524) // 16)
    assert any("data not present" in note for note in result["notes"])


# ---- calibrations and runs


def test_an_estimate_leaves_only_its_file_and_foretells_steps_memory_and_disk(tmp_path: Path, capsys):
    words = ["epochs=2", "data.samples_per_class=40"]
    result = foretell(tmp_path, *words)
    assert [path.name for path in tmp_path.iterdir()] == [".estimates"]
    assert [path.suffix for path in (tmp_path / ".estimates").iterdir()] == [".json"]
    assert "estimate of vit_micro-digits-ssat-s0" in capsys.readouterr().out

    config = config_of(f"runs_dir={tmp_path}", *words)
    train_config(config)
    run = find_run_dir(config)
    record = json.loads((run / "result.json").read_text())
    files = [path for path in run.rglob("*") if path.suffix in (".ckpt", ".png", ".csv")]
    assert result["phases"][0]["steps"] == record["steps"] == 50
    assert result["peak_memory_bytes"] == pytest.approx(record["peak_memory_bytes"], rel=0.2)
    assert result["total"]["disk_bytes"] == pytest.approx(sum(path.stat().st_size for path in files), rel=0.2)

    again = foretell(tmp_path, *words)
    assert again["status"] == "finished" and again["total"]["seconds"] == record["seconds"]
    assert again["left"]["seconds"] == 0
    assert "already finished" in capsys.readouterr().out


@pytest.mark.slow
def test_what_is_interrupted_is_estimated_from_its_checkpoint(tmp_path: Path):
    words = ["mode=ssl_ft", "epochs=2", "data.samples_per_class=40", "trainer.max_steps=30"]
    whole = foretell(tmp_path, *words)
    config = config_of(f"runs_dir={tmp_path}", *words)
    train_config(config)
    run = find_run_dir(config)
    # As if it had been killed in the second phase: there is no record yet, and the checkpoint is of step 30.
    (run / "result.json").unlink()
    (run / "finetune" / "phase.json").unlink()
    rest = foretell(tmp_path, *words)
    assert [row["steps"] for row in whole["phases"]] == [30, 30]
    assert [(row["status"], row["steps"]) for row in rest["phases"]] == [("finished", 30), ("interrupted", 0)]
    assert any("finetune was interrupted at step 30" in note for note in rest["notes"])


def test_force_estimates_the_whole_run_and_moves_nothing(tmp_path: Path):
    words = ["mode=scratch", "epochs=1", "data.samples_per_class=20"]
    config = config_of(f"runs_dir={tmp_path}", *words)
    train_config(config)
    result = foretell(tmp_path, *words, "force=true")
    assert result["status"] == "estimated" and result["phases"][0]["steps"] == 13
    assert (find_run_dir(config) / "result.json").exists() and not (tmp_path / ".replaced").exists()


def test_equal_costs_are_calibrated_once_and_the_runs_are_summed(tmp_path: Path, capsys):
    words = ["mode=scratch", "data.samples_per_class=20"]
    with estimate.sum_at_end():
        one, two = foretell(tmp_path, *words, "epochs=4"), foretell(tmp_path, *words, "epochs=8", "seed=1")
    out = capsys.readouterr().out
    assert out.count("calibrating") == 1
    last = out.strip().splitlines()[-1]
    assert last.startswith("SUM of 2 runs") and "1 calibration" in last and "calibrations" not in last
    parts = [row["phases"][0]["parts"]["train"] for row in (one, two)]
    assert parts[1] == pytest.approx(2 * parts[0])


def test_a_sum_that_does_not_fit_on_the_disk_is_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=150))
    left = dict.fromkeys(estimate.SUMMED, 1) | {"disk_bytes": 100}
    result = {"left": left, "peak_memory_bytes": 1, "status": "estimated", "phases": [], "runs_dir": str(tmp_path)}
    with estimate.sum_at_end():
        estimate.ESTIMATES.extend([result, result])
    assert f"; the disk of {tmp_path} has 150 B left, and the runs write 200 B" in capsys.readouterr().out
    with estimate.sum_at_end():
        estimate.ESTIMATES[1] = result | {"runs_dir": "/proc/nowhere"}
    assert "the disk of" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({}, r"runs_dir=/proc/nowhere/x cannot be written \(No such file or directory\): name another"),
        ({"phases": None}, r"result\.json is damaged, its phases is None"),
        ({"phases": []}, r"result\.json is damaged"),
        ({"phases": [{"name": "joint"}]}, r"result\.json is damaged"),
    ],
)
def test_a_finished_run_that_cannot_be_estimated_is_one_sentence(tmp_path: Path, change: dict, sentence: str):
    config = config_of("runs_dir=/proc/nowhere/x", f"run_dir={tmp_path}", "estimate=true")
    phase = dict.fromkeys(("steps", "images_per_s", "seconds", "peak_memory_bytes"), 1) | {"name": "joint"}
    phase["energy"] = dict.fromkeys(("kwh", "co2_kg", "co2_kg_lacoste"))
    record = {"status": "finished", "hash": config_hash(config), "phases": [phase], "hardware": {"accelerator": "cpu"}}
    (tmp_path / "result.json").write_text(json.dumps(record | change))
    with pytest.raises(UserError, match=sentence):
        train_config(config)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code", "how"),
    [
        (signal.SIGINT, 130, "interrupted: "),
        pytest.param(signal.SIGTERM, 143, "stopped by SIGTERM: ", marks=pytest.mark.slow),
    ],
)
def test_an_interrupted_sweep_of_estimates_says_how_far_it_is(tmp_path: Path, number: int, code: int, how: str):
    words = ["mode=scratch", "epochs=1", "estimate=true", "seed=0,1", "recipe.batch_size=16,32", f"runs_dir={tmp_path}"]
    command = [sys.executable, "-m", "src.train", "-m", *TINY, *words]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout
    seen = []
    while "calibrating" not in (line := process.stdout.readline()):
        assert line, process.communicate()
        seen.append(line)
    assert "4 runs to estimate, 2 calibrations to come\n" in seen
    assert "phase scratch (1 of 2) ..." in line
    process.send_signal(number)
    out, err = process.communicate(timeout=100)
    assert process.returncode == code
    sentence = "0 of 4 runs are estimated, 2 calibrations were still to come; the same command begins again"
    assert err.strip().splitlines()[-1] == how + sentence
    assert "Traceback" not in err and "SUM" not in out
    assert not list(tmp_path.glob(".estimates/.*"))


@pytest.mark.slow
def test_a_sweep_prints_a_line_per_job_and_the_sum(tmp_path: Path):
    done = subprocess.run(
        [sys.executable, "-m", "src.train", "-m", *TINY, "mode=scratch", "epochs=1", "estimate=true"]
        + ["seed=0,1", "data.samples_per_class=20", f"runs_dir={tmp_path}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("calibrating") == 1
    last = done.stdout.strip().splitlines()[-1]
    assert last.startswith("SUM of 2 runs") and "; 1 calibration" in last
    assert len(list(tmp_path.glob(".estimates/*.json"))) == 2
    assert not list(tmp_path.glob("[!.]*"))


@pytest.mark.slow
def test_two_processes_calibrate_together(tmp_path: Path):
    result = foretell(tmp_path, "trainer=ddp_cpu", "mode=scratch", "epochs=3", "data.samples_per_class=40")
    assert result["phases"][0]["steps"] == 3 * (400 // 32)
    assert result["phases"][0]["seconds"] > 0
