"""The command itself, in real processes: tiny runs on the embedded digits."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
TINY = [
    "encoder=vit_micro",
    "encoder.depth=2",
    "encoder.embed_dim=32",
    "encoder.num_heads=2",
    "data=digits",
    "data.patch_size=4",
    "data.samples_per_class=16",
    "recipe.batch_size=16",
    "epochs=2",
    "footprint.energy=false",
    "reconstruct_every=1",
    "trainer=cpu",
    "trainer.threads=1",
]


def start(*overrides: str, runs: Path) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "src.train", *TINY, f"runs_dir={runs}", *overrides],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"WANDB_MODE": "offline"},
    )


def train(*overrides: str, runs: Path) -> subprocess.CompletedProcess:
    process = start(*overrides, runs=runs)
    out, err = process.communicate(timeout=300)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def only_run(runs: Path) -> Path:
    (record,) = runs.glob("*/*/result.json")
    return record.parent


def weights(run: Path, phase: str = "joint") -> dict[str, torch.Tensor]:
    return torch.load(run / phase / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


def largest_difference(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    assert a.keys() == b.keys()
    return max((a[name].double() - b[name].double()).abs().max().item() for name in a)


def fail_of(result: subprocess.CompletedProcess) -> str:
    """The one sentence of a refused command."""
    assert result.returncode == 2, result.stderr
    assert "Traceback" not in result.stderr + result.stdout
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    return line


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> tuple[Path, subprocess.CompletedProcess]:
    """One SSAT run that several tests look at."""
    runs = tmp_path_factory.mktemp("runs")
    result = train("mode=ssat", "logger=tensorboard", runs=runs)
    assert result.returncode == 0, result.stderr
    return runs, result


def test_a_run_leaves_record_checkpoints_curves_and_pictures(finished):
    run = only_run(finished[0])
    record = json.loads((run / "result.json").read_text())
    assert record["status"] == "finished"
    assert {"last", "best", "best_epoch"} <= record["metrics"]["test"]["acc1"].keys()
    assert len(record["phases"][0]["history"]) == 2
    assert {"train/loss", "train/loss_cls", "train/loss_ssl", "test/acc1"} <= record["phases"][0]["history"][0].keys()
    assert record["phases"][0]["reconstructions"]
    for path in record["phases"][0]["reconstructions"] + list(record["phases"][0]["checkpoints"].values()):
        assert (run / path).is_file()
    assert (run / "joint" / "csv" / "version_0" / "metrics.csv").is_file()
    assert list((run / "joint" / "tensorboard").rglob("events.*"))


def test_loss_of_every_epoch_is_equation_1(finished):
    record = json.loads((only_run(finished[0]) / "result.json").read_text())
    for row in record["phases"][0]["history"]:
        joint = 0.1 * row["train/loss_cls"] + 0.9 * row["train/loss_ssl"]
        assert row["train/loss"] == pytest.approx(joint, rel=1e-5)


def test_short_runs_are_marked_as_not_the_papers(finished):
    record = json.loads((only_run(finished[0]) / "result.json").read_text())
    assert record["faithful"] is False
    assert "2 of the paper's 100 epochs" in record["unfaithful_reasons"]


def test_a_finished_run_is_skipped_and_force_trains_it_again(finished):
    runs = finished[0]
    before = (only_run(runs) / "result.json").stat().st_mtime_ns
    again = train("mode=ssat", runs=runs)
    assert again.returncode == 0 and "skipped, already finished" in again.stdout
    assert (only_run(runs) / "result.json").stat().st_mtime_ns == before
    old = weights(only_run(runs))
    forced = train("mode=ssat", "force=true", runs=runs)
    assert forced.returncode == 0, forced.stderr
    assert len(list((runs / ".replaced").iterdir())) == 1
    assert largest_difference(weights(only_run(runs)), old) == 0, "the same seed repeats bit for bit"


def test_lam_1_is_scratch_bit_for_bit(tmp_path):
    assert train("mode=scratch", runs=tmp_path / "a").returncode == 0
    assert train("mode=ssat", "mode.lam=1", runs=tmp_path / "b").returncode == 0
    scratch, joint = weights(only_run(tmp_path / "a"), "scratch"), weights(only_run(tmp_path / "b"))
    assert largest_difference(scratch, joint) == 0


def test_ssl_ft_runs_both_stages_and_hands_over_the_encoder(tmp_path):
    result = train("mode=ssl_ft", "mode.ssl_epochs=1", runs=tmp_path)
    assert result.returncode == 0, result.stderr
    record = json.loads((only_run(tmp_path) / "result.json").read_text())
    assert [phase["name"] for phase in record["phases"]] == ["pretrain", "finetune"]
    assert record["phases"][0]["metrics"]["test"].keys() == {"loss_ssl"}
    assert record["seconds"] == pytest.approx(sum(phase["seconds"] for phase in record["phases"]))
    names = weights(only_run(tmp_path), "finetune").keys()
    assert not any(name.startswith("ssl.") for name in names)
    source = only_run(tmp_path)
    tuned = train("mode=finetune", f"mode.init_from={source}", runs=tmp_path / "ft")
    assert tuned.returncode == 0, tuned.stderr
    other = train("mode=finetune", f"mode.init_from={source}", "encoder.embed_dim=64", runs=tmp_path / "ft")
    assert "is of another encoder" in fail_of(other)


def wait_for(condition, process: subprocess.Popen, seconds: float = 200) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_killed_run_ends_with_the_weights_of_an_uninterrupted_one(tmp_path, workers):
    settings = ["mode=ssat", "epochs=4", "recipe.drop_path=0.1", "recipe.mixup=0.8", f"data.num_workers={workers}"]
    settings += ["checkpoint_minutes=0.002"]
    assert train(*settings, runs=tmp_path / "whole").returncode == 0
    process = start(*settings, runs=tmp_path / "killed")
    wait_for(lambda: list((tmp_path / "killed").glob("*/*/joint/checkpoints/last.ckpt")), process)
    time.sleep(0.3)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    resumed = train(*settings, runs=tmp_path / "killed")
    assert resumed.returncode == 0, resumed.stderr
    whole, killed = only_run(tmp_path / "whole"), only_run(tmp_path / "killed")
    assert largest_difference(weights(whole), weights(killed)) == 0
    rows = [json.loads((run / "result.json").read_text())["phases"][0]["history"] for run in (whole, killed)]
    assert [row["step"] for row in rows[0]] == [row["step"] for row in rows[1]]
    assert [row["test/acc1"] for row in rows[0]] == [row["test/acc1"] for row in rows[1]]


def test_sigterm_saves_and_exits_143_and_the_same_command_continues(tmp_path):
    settings = ["mode=ssat", "epochs=30"]
    process = start(*settings, runs=tmp_path)
    wait_for(lambda: list(tmp_path.glob("*/*/joint/csv")), process)
    time.sleep(2)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=100)
    assert process.returncode == 143
    (last,) = tmp_path.glob("*/*/joint/checkpoints/last.ckpt")
    step = torch.load(last, weights_only=True)["global_step"]
    resumed = train(*settings, runs=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    record = json.loads((only_run(tmp_path) / "result.json").read_text())
    assert 0 < step < record["steps"]
    assert len(record["phases"][0]["history"]) == 30


DDP = ["mode=ssat", "recipe.augment=null", "trainer.max_steps=3", "seed=3"]


def test_two_ranks_equal_one_process_with_twice_the_batch_also_in_a_sweep(tmp_path):
    one = train(*DDP, "recipe.batch_size=16", runs=tmp_path / "one")
    assert one.returncode == 0, one.stderr
    two = train("-m", *DDP, "recipe.batch_size=8", "trainer=ddp_cpu", "seed=3,4", runs=tmp_path / "two")
    assert two.returncode == 0, two.stderr
    records = {json.loads(path.read_text())["seed"]: path.parent for path in (tmp_path / "two").glob("*/*/result.json")}
    assert records.keys() == {3, 4}
    assert largest_difference(weights(only_run(tmp_path / "one")), weights(records[3])) < 1e-5
    accuracies = [
        json.loads((run / "result.json").read_text())["metrics"]["test"]
        for run in (only_run(tmp_path / "one"), records[3])
    ]
    assert accuracies[0]["acc1"]["last"] == pytest.approx(accuracies[1]["acc1"]["last"], abs=1e-4)
    assert accuracies[0]["loss"]["last"] == pytest.approx(accuracies[1]["loss"]["last"], abs=1e-4)


def test_accumulating_two_batches_equals_one_batch_of_twice_the_size(tmp_path):
    settings = [*DDP, "trainer.max_steps=2"]
    assert train(*settings, "recipe.batch_size=16", runs=tmp_path / "one").returncode == 0
    halves = train(
        *settings, "recipe.batch_size=8", "trainer.accumulate=2", "ssl.mask_ratio=0.75", runs=tmp_path / "two"
    )
    assert halves.returncode == 0, halves.stderr
    one, two = (json.loads((only_run(tmp_path / name) / "result.json").read_text()) for name in ("one", "two"))
    assert one["phases"][0]["history"][-1]["lr"] == pytest.approx(two["phases"][0]["history"][-1]["lr"])


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["encoder=vit_x"], "encoder=vit_x does not exist (did you mean vit_"),
        (["recipe.base_lrr=1"], "there is no key 'recipe.base_lrr' (did you mean recipe.base_lr?)"),
        (["data=image_folder", "data.root=/nowhere"], "/nowhere"),
        (["data.img_size=30"], "30"),
        (["ssl.mask_ratio=1.5"], "1.5"),
        (["ssl.mask_ratio=0.99"], "0.99"),
        (["recipe.batch_size=4000"], "4000"),
        (["trainer=gpu"], "no GPU") if not torch.cuda.is_available() else (["trainer.devices=0"], "trainer.devices"),
        (["footprint.energy=true", "footprint.country=ZZZ"], "footprint.country='ZZZ'"),
        (["mode=finetune", "mode.init_from=/nowhere"], "/nowhere"),
    ],
)
def test_a_users_mistake_gets_one_sentence_and_leaves_no_run(tmp_path, overrides, sentence):
    result = train(*overrides, runs=tmp_path)
    assert sentence in fail_of(result)
    assert not list(tmp_path.glob("*/*/*/checkpoints/*"))


def test_a_non_finite_loss_stops_and_keeps_the_last_checkpoint(tmp_path):
    good = ["mode=scratch", "run_dir=" + str(tmp_path / "run"), "epochs=6"]
    exploding = ["recipe.base_lr=1e38", "recipe.warmup_lr=0", "recipe.max_warmup_share=0"]
    message = fail_of(train(*good, *exploding, runs=tmp_path))
    assert "the loss became" in message and "step" in message
    (saved,) = (tmp_path / "run" / "scratch").glob("non_finite_step_*.json")
    assert len(json.loads(saved.read_text())["indices"]) == 16
    assert json.loads((tmp_path / "run" / "result.json").read_text())["status"] == "failed"


def test_a_checkpoint_of_another_configuration_is_refused(tmp_path):
    run = f"run_dir={tmp_path / 'run'}"
    process = start(run, "epochs=50", runs=tmp_path)
    wait_for(lambda: (tmp_path / "run" / "joint" / "checkpoints" / "last.ckpt").exists(), process)
    process.kill()
    process.communicate()
    message = fail_of(train(run, "epochs=50", "encoder.depth=3", runs=tmp_path))
    assert "belongs to another configuration" in message and "encoder.depth: 2 -> 3" in message


def test_wandb_records_offline_without_a_key(tmp_path):
    result = train("logger=wandb", "epochs=1", runs=tmp_path)
    assert result.returncode == 0, result.stderr
    assert list(only_run(tmp_path).glob("wandb/offline-run-*/*.wandb"))
