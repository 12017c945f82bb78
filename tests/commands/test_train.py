"""Tiny real runs on the embedded digits; what can be killed, spawned or mistyped runs as the command itself."""

import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ssat.core.errors import UserError
from ssat.encoders.vit import VisionTransformer
from ssat.runs.begun import locked
from ssat.training.module import JointModule
from ssat.training.record import all_macs
from tests.helpers import (
    ROOT,
    TINY,
    command,
    fail_of,
    killed_after,
    largest_difference,
    record_of,
    start,
    start_and_kill,
    train,
    wait_for,
    weights,
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """One SSAT run that several tests look at."""
    return train("mode=ssat", "logger=tensorboard", runs=tmp_path_factory.mktemp("runs"))


def test_a_run_leaves_record_checkpoints_curves_and_pictures(finished):
    record = record_of(finished)
    assert record["status"] == "finished"
    assert {"last", "best", "best_epoch"} <= record["metrics"]["test"]["acc1"].keys()
    (phase,) = record["phases"]
    assert len(phase["history"]) == 2
    assert {"train/loss", "train/loss_cls", "train/loss_ssl", "test/acc1"} <= phase["history"][0].keys()
    assert phase["reconstructions"]
    for path in phase["reconstructions"] + list(phase["checkpoints"].values()):
        assert (finished / path).is_file()
    assert (finished / "joint" / "csv" / "version_0" / "metrics.csv").is_file()
    assert list((finished / "joint" / "tensorboard").rglob("events.*"))


def test_loss_of_every_epoch_is_equation_1(finished):
    for row in record_of(finished)["phases"][0]["history"]:
        joint = 0.1 * row["train/loss_cls"] + 0.9 * row["train/loss_ssl"]
        assert row["train/loss"] == pytest.approx(joint, rel=1e-5)


def rows_with(run: Path, name: str) -> list[dict[str, str]]:
    (path,) = run.glob("joint/csv/version_*/metrics.csv")
    with open(path, newline="") as file:
        return [row for row in csv.DictReader(file) if row[name]]


def test_loggers_get_what_was_measured_once_and_at_its_step(finished):
    """20 steps in two epochs of 10, of which every fifth is logged; every epoch is evaluated once."""
    losses = {int(row["step"]): float(row["train/loss"]) for row in rows_with(finished, "train/loss")}
    assert [*losses] == [int(row["step"]) for row in rows_with(finished, "lr")] == [0, 5, 10, 15]
    assert len(set(losses.values())) == 4
    assert [row["epoch"] for row in rows_with(finished, "test/acc1")] == ["0", "1"]
    assert [row["epoch"] for row in rows_with(finished, "epoch/train/loss")] == ["0", "1"]
    (version,) = (finished / "joint" / "tensorboard").iterdir()
    board = EventAccumulator(str(version))
    board.Reload()
    assert {event.step: event.value for event in board.Scalars("train/loss")} == pytest.approx(losses)
    assert len(board.Scalars("test/acc1")) == len(board.Scalars("epoch/train/loss")) == 2
    assert board.Scalars("result/acc1")[0].value == pytest.approx(
        record_of(finished)["metrics"]["test"]["acc1"]["last"]
    )


def test_what_is_measured_at_some_steps_is_logged_at_those(tmp_path):
    words = ("mode=ssat", "epochs=1", "monitor.conflict_every=3", "trainer.accumulate=2", "trainer.log_every=4")
    run = train(*words, runs=tmp_path)
    assert [row["step"] for row in rows_with(run, "train/conflict/all")] == ["0", "1", "3", "4"]  # batches 0, 3, 6, 9
    assert [row["step"] for row in rows_with(run, "train/loss")] == ["0", "2", "4"]  # batches 0, 4, 8


def test_short_runs_are_marked_as_not_the_papers(finished):
    record = record_of(finished)
    assert record["faithful"] is False
    assert "2 of the paper's 100 epochs" in record["unfaithful_reasons"]


def test_a_checkpoint_loads_without_unpickling_anything_but_plain_values(finished):
    last = torch.load(finished / "joint" / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["config"]["mode"]["name"] == "ssat"


def test_a_finished_run_is_skipped_and_force_repeats_it_bit_for_bit(finished, capsys):
    runs = finished.parent.parent
    before, old = (finished / "result.json").stat().st_mtime_ns, weights(finished)
    assert train("mode=ssat", runs=runs) == finished
    assert "skipped, already finished" in capsys.readouterr().out
    assert (finished / "result.json").stat().st_mtime_ns == before
    train("mode=ssat", "force=true", runs=runs)
    assert len(list((runs / ".replaced").iterdir())) == 1
    assert (finished / "result.json").stat().st_mtime_ns > before
    assert largest_difference(weights(finished), old) == 0


def test_lam_1_is_scratch_bit_for_bit(tmp_path):
    scratch = weights(train("mode=scratch", runs=tmp_path), "scratch")
    joint = weights(train("mode=ssat", "mode.lam=1", runs=tmp_path))
    assert largest_difference(scratch, joint) == 0


def test_ssl_ft_runs_both_stages_and_finetune_starts_from_them(tmp_path):
    run = train("mode=ssl_ft", "mode.ssl_epochs=1", runs=tmp_path)
    record = record_of(run)
    assert [(phase["name"], phase["lam"], phase["epochs"]) for phase in record["phases"]] == [
        ("pretrain", 0.0, 1),
        ("finetune", 1.0, 2),
    ]
    assert record["phases"][0]["metrics"]["test"].keys() == {"loss_ssl"}
    assert record["seconds"] == pytest.approx(sum(phase["seconds"] for phase in record["phases"]))
    assert not any(name.startswith("ssl.") for name in weights(run, "finetune"))
    tuned = train("mode=finetune", f"mode.init_from={run}", runs=tmp_path)
    assert record_of(tuned)["status"] == "finished"
    with pytest.raises(UserError, match="is of another encoder"):
        train("mode=finetune", f"mode.init_from={run}", "encoder.embed_dim=64", runs=tmp_path)


def test_fine_tuning_starts_from_the_pre_trained_encoder(tmp_path):
    frozen = ["recipe.base_lr=1e-30", "recipe.min_lr=0", "recipe.weight_decay=0", "epochs=1"]
    run = train("mode=ssl_ft", "mode.ssl_epochs=1", *frozen, runs=tmp_path)
    before, after = weights(run, "pretrain"), weights(run, "finetune")
    encoder = [name for name in before if name.startswith("encoder.")]
    assert all(torch.equal(before[name], after[name]) for name in encoder)
    assert {name for name in after if not name.startswith(("encoder.", "meters"))} == {"head.weight", "head.bias"}


@pytest.mark.sampled
@pytest.mark.parametrize(
    "overrides",
    [
        ["recipe.ema_decay=0.9"],
        ["recipe.mixup=0.8", "recipe.cutmix=1.0", "recipe.drop_path=0.1"],
        ["trainer.precision=bf16", "recipe.clip_grad=1.0", "recipe.layer_decay=0.75"],
        ["data.val_fraction=0.25", "eval_every=2"],
        ["encoder.pos_embed=learnable", "recipe.norm_pix=true", "trainer.accumulate=2"],
        ["data.channels=1", "recipe=paper", "recipe.batch_size=16"],
    ],
)
def test_every_option_of_the_recipe_trains(tmp_path, overrides):
    record = record_of(train("mode=ssat", *overrides, runs=tmp_path))
    assert record["status"] == "finished"
    assert record["metrics"]["test"]["acc1"]["last"] >= 0


def test_a_validation_split_selects_and_test_is_read_at_the_end(tmp_path):
    record = record_of(train("mode=scratch", "data.val_fraction=0.25", runs=tmp_path))
    (phase,) = record["phases"]
    assert not any(name.startswith("test/") for row in phase["history"] for name in row)
    assert record["metrics"].keys() == {"val", "test"}
    assert record["metrics"]["test"]["acc1"].keys() == {"last", "best", "best_epoch"}
    assert record["data_fingerprint"]["splits"] == {"val": 40, "train": 120, "test": 360}


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])  # 2: really killed
def test_a_killed_run_ends_with_the_weights_of_an_uninterrupted_one(tmp_path, workers):
    settings = ["mode=ssat", "epochs=4", "recipe.drop_path=0.1", "recipe.mixup=0.8", f"data.num_workers={workers}"]
    settings += ["checkpoint_minutes=0.002", "recipe.patch_dropout=0.25"]
    if workers:
        start_and_kill(*settings, runs=tmp_path / "killed")
    else:
        with killed_after("last.ckpt", 3):
            train(*settings, runs=tmp_path / "killed")
    killed = train(*settings, runs=tmp_path / "killed")
    whole = train(*settings, runs=tmp_path / "whole")
    assert largest_difference(weights(whole), weights(killed)) == 0
    rows = [record_of(run)["phases"][0]["history"] for run in (whole, killed)]
    assert [row["step"] for row in rows[0]] == [row["step"] for row in rows[1]]
    assert [row["test/acc1"] for row in rows[0]] == [row["test/acc1"] for row in rows[1]]


def test_sigterm_saves_and_exits_143_and_the_same_command_continues(tmp_path):
    settings = [
        "mode=ssat",
        "epochs=6",
        "eval_every=6",
        "reconstruct_every=6",
        "checkpoint_minutes=0.001",
        "data.pipeline=batched",
    ]
    process = start(*settings, runs=tmp_path / "killed")
    wait_for(lambda: list(tmp_path.glob("killed/*/*/joint/checkpoints/last.ckpt")), process)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=100)
    assert process.returncode == 143
    (last,) = tmp_path.glob("killed/*/*/joint/checkpoints/last.ckpt")
    step = torch.load(last, weights_only=True)["global_step"]
    resumed = train(*settings, runs=tmp_path / "killed")
    record = record_of(resumed)
    assert 0 < step < record["steps"]
    rows = record["phases"][0]["history"]
    assert len(rows) == 6
    assert max(row["seconds"] for row in rows) < record["seconds"]  # also of the epoch that was interrupted
    whole = weights(train(*settings, runs=tmp_path / "whole"))
    assert largest_difference(weights(resumed), whole) == 0


@pytest.mark.slow
def test_ctrl_c_saves_exits_130_and_says_from_where_the_same_command_continues(tmp_path):
    settings = [
        "mode=scratch",
        "epochs=12",
        "eval_every=12",
        "reconstruct_every=12",
        "checkpoint_minutes=0.001",
        "data.pipeline=batched",
    ]
    process = start(*settings, runs=tmp_path / "killed")
    wait_for(lambda: list(tmp_path.glob("killed/*/*/*/checkpoints/last.ckpt")), process)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=100)
    assert process.returncode == 130
    assert "Traceback" not in stderr
    (last,) = tmp_path.glob("killed/*/*/*/checkpoints/last.ckpt")
    saved = torch.load(last, weights_only=True)
    place = f"step {saved['global_step']} (epoch {saved['epoch'] + 1} of 12) of phase scratch"
    assert f"interrupted: the same command continues from {place}\n" in stderr
    resumed = train(*settings, runs=tmp_path / "killed")
    whole = train(*settings, runs=tmp_path / "whole")
    assert largest_difference(weights(resumed, "scratch"), weights(whole, "scratch")) == 0


SPENT = {"seconds", "train_seconds", "throughput/images_per_s", "throughput/data_wait"}


def measured(run: Path, phase: str) -> dict:
    """What a run has measured, without what it has spent; of its checkpoints what another run must have, too."""
    record = record_of(run)["phases"]
    found = {"metrics": [each["metrics"] for each in record], "steps": [each["steps"] for each in record]}
    rows = [row for each in record for row in each["history"]]
    found["rows"] = [{name: value for name, value in row.items() if name not in SPENT} for row in rows]
    for path in sorted((run / phase / "checkpoints").iterdir()):  # nothing else lies there
        saved = torch.load(path, weights_only=True)
        state = saved["state_dict"] | {str(at): each for at, each in enumerate(optimizer_values(saved))}
        found[path.name] = {"epoch": saved["epoch"], "step": saved["global_step"]} | {
            name: value.tolist() for name, value in state.items()
        }
    return found


def optimizer_values(checkpoint: dict) -> list[torch.Tensor]:
    (optimizer,) = checkpoint.get("optimizer_states", [{"state": {}}])
    return [value for each in optimizer["state"].values() for value in each.values()]


@pytest.fixture(scope="module")
def better(tmp_path_factory) -> tuple[tuple[str, ...], dict]:
    """The words of a short run whose second epoch is better than its first, and what it measures."""
    words = ("mode=scratch", "epochs=2", "recipe.lr_rule=absolute", "recipe.base_lr=3e-3")
    whole = measured(train(*words, runs=tmp_path_factory.mktemp("whole")), "scratch")
    first, second = (row["test/acc1"] for row in whole["rows"])
    assert second > first
    return words, whole


@pytest.mark.sampled
@pytest.mark.parametrize(
    ("after", "on_disk"),
    [("last.ckpt", [".best.pending", "best.ckpt", "last.ckpt"]), (".best.pending", [".best.pending", "last.ckpt"])],
)
def test_best_and_last_belong_together_wherever_a_run_is_killed_between_them(tmp_path, better, after, on_disk):
    words, whole = better
    with killed_after(after, 2 if after == "last.ckpt" else 1):
        train(*words, runs=tmp_path / "killed")
    (folder,) = tmp_path.glob("killed/*/*/scratch/checkpoints")
    assert {path.name for path in folder.iterdir()} <= {*on_disk, "last-1.ckpt"}
    assert measured(train(*words, runs=tmp_path / "killed"), "scratch") == whole


EASY = ["data.samples_per_class=48", "recipe.lr_rule=absolute", "recipe.base_lr=3e-3", "recipe.augment.hflip=0"]
EASY += ["recipe.augment.crop_scale=[0.9,1]", "recipe.augment.auto_augment=null", "recipe.augment.re_prob=0"]


@pytest.mark.parametrize("ends", ["eval_every=2", "trainer.max_steps=80"])
def test_an_end_of_training_that_no_epoch_has_evaluated_can_be_the_best(tmp_path, ends):
    run = train("mode=scratch", *EASY, "epochs=3", ends, runs=tmp_path)
    record = record_of(run)
    saved = torch.load(run / "scratch" / "checkpoints" / "best.ckpt", weights_only=True)
    last = torch.load(run / "scratch" / "checkpoints" / "last.ckpt", weights_only=True)
    accuracy = record["metrics"]["test"]["acc1"]
    assert accuracy["last"] == accuracy["best"]
    assert (accuracy["best_epoch"], last["global_step"]) == (2, saved["global_step"])
    assert record["phases"][0]["checkpoints"].keys() == {"best", "last"}
    assert all(torch.equal(value, last["state_dict"][name]) for name, value in saved["state_dict"].items())


@pytest.mark.slow
@pytest.mark.parametrize(("mode", "phase"), [("scratch", "scratch"), ("ssl_ft", "finetune"), ("ssat", "joint")])
def test_runs_killed_at_random_moments_end_as_an_uninterrupted_one(tmp_path, mode, phase):
    words = (f"mode={mode}", "epochs=6", "recipe.drop_path=0.1", "checkpoint_minutes=0.0005")
    whole, draw = measured(train(*words, runs=tmp_path / "whole"), phase), random.Random(mode)
    for number in range(7):
        runs, how = tmp_path / str(number), draw.choice([signal.SIGTERM, signal.SIGKILL, signal.SIGINT])
        process = start(*words, runs=runs)
        wait_for(lambda runs=runs: list(runs.glob("*/*/*/csv/*")), process)
        time.sleep(draw.random() * 2.5)
        process.send_signal(how)
        _, stderr = process.communicate(timeout=100)
        assert process.returncode in (0, 130, 143, -signal.SIGTERM, -signal.SIGKILL), stderr
        assert measured(train(*words, runs=runs), phase) == whole


def test_a_run_killed_before_its_phase_was_recorded_measures_the_same_weights(tmp_path):
    words = ("mode=scratch", "epochs=2", "recipe.ema_decay=0.9", "data.val_fraction=0.25")
    run = train(*words, runs=tmp_path)
    before = measured(run, "scratch")
    (run / "result.json").unlink()
    (run / "scratch" / "phase.json").unlink()
    assert measured(train(*words, runs=tmp_path), "scratch") == before


def test_what_an_earlier_evaluation_has_measured_is_no_result_of_a_later_epoch(tmp_path):
    run = train("mode=ssat", "trainer.max_steps=15", "epochs=3", "monitor.knn_every=3", runs=tmp_path)
    first, last = record_of(run)["phases"][0]["history"]
    assert (first["step"], last["step"]) == (10, 15)
    assert last["test/loss"] != first["test/loss"]  # the end was measured, in the middle of an epoch
    assert "test/knn_acc1" not in last


WITHOUT_CODECARBON = """
import importlib.metadata as metadata, sys
known = metadata.Distribution.from_name
def from_name(cls, name):
    if name == "codecarbon":
        raise metadata.PackageNotFoundError(name)
    return known(name)
metadata.Distribution.from_name = classmethod(from_name)
sys.modules |= dict.fromkeys(("codecarbon", "pynvml"))
from ssat.commands.train import main
main()
"""


@pytest.mark.slow
def test_what_is_only_written_down_ends_no_run(tmp_path):
    words = [*TINY, "mode=scratch", "epochs=1", f"run_dir={tmp_path}"]
    environment = os.environ | {"PATH": "", "PYTHONPATH": str(ROOT / "src")}  # no git, either
    command = [sys.executable, "-c", WITHOUT_CODECARBON, *words]
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=200)
    assert result.returncode == 0, result.stderr
    record = record_of(tmp_path)
    assert record["status"] == "finished"
    assert record["versions"]["codecarbon"] is None
    assert record["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert record["git_commit"] is None
    assert record["energy"]["kwh"] is record["energy"]["tdp_watts"] is None


def test_an_encoder_whose_macs_cannot_be_counted_keeps_its_record(tmp_path, capsys, monkeypatch):
    class Uncountable(VisionTransformer):
        def forward_features_plain(self, images):
            raise RuntimeError("not written")

    module = JointModule(Uncountable(8, 4, embed_dim=16, depth=1, num_heads=2), num_classes=3)
    macs = all_macs(module, (3, 8, 8))
    assert set(macs.values()) == {None}
    assert "multiply-accumulates are not recorded, counting them failed: RuntimeError" in capsys.readouterr().out
    monkeypatch.setattr("ssat.training.record.all_macs", lambda *_: macs)
    run = train("mode=scratch", "epochs=1", runs=tmp_path)
    (run / "result.json").unlink()
    train("mode=scratch", "epochs=1", runs=tmp_path)  # reads the phase's record
    assert record_of(run)["macs"] == macs


@pytest.mark.parametrize("name", ["wandb", "tensorboard"])
def test_a_logger_that_is_not_installed_is_one_sentence(tmp_path, monkeypatch, name):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(
        UserError, match=f"^logger={name} needs the package {name}: pip install {name}; logger=csv needs none$"
    ):
        train(f"logger={name}", runs=tmp_path)


DDP = ["mode=ssat", "recipe.augment=null", "trainer.max_steps=3"]


@pytest.mark.parametrize(
    ("words", "seeds"), [(["seed=3"], {3}), pytest.param(["-m", "seed=3,4"], {3, 4}, marks=pytest.mark.slow)]
)
def test_two_ranks_equal_one_process_with_twice_the_batch_also_in_a_sweep(tmp_path, words, seeds):
    one = train(*DDP, "recipe.batch_size=16", "seed=3", runs=tmp_path / "one")
    two = command(*words, *DDP, "recipe.batch_size=8", "trainer=ddp_cpu", runs=tmp_path / "two")
    assert two.returncode == 0, two.stderr
    runs = {record_of(path.parent)["seed"]: path.parent for path in (tmp_path / "two").glob("[!.]*/*/result.json")}
    assert runs.keys() == seeds
    assert largest_difference(weights(one), weights(runs[3])) < 1e-5
    alone, two = (record_of(run)["metrics"]["test"] for run in (one, runs[3]))
    assert alone["acc1"]["last"] == pytest.approx(two["acc1"]["last"], abs=1e-4)
    assert alone["loss"]["last"] == pytest.approx(two["loss"]["last"], abs=1e-5)


@pytest.mark.slow
def test_gradients_in_bf16_are_those_of_one_process_but_for_their_rounding(tmp_path):
    """What is sent is rounded to 8 bits, once in each rank and once in the sum."""
    settings = [*DDP, "trainer.max_steps=1", "recipe.weight_decay=0", "seed=3"]
    one = train(*settings, "recipe.batch_size=16", runs=tmp_path / "one")
    two = command(*settings, "recipe.batch_size=8", "trainer=ddp_cpu", "trainer.grad_dtype=bf16", runs=tmp_path / "two")
    assert two.returncode == 0, two.stderr
    (path,) = (tmp_path / "two").glob("[!.]*/*/result.json")
    exact, rounded = (moments(run) for run in (one, path.parent))
    assert 1e-6 < (rounded - exact).norm() / exact.norm() < 2**-7
    assert record_of(path.parent)["config"]["trainer"]["grad_dtype"] == "bf16"
    assert path.parent.name.rpartition("-")[2] != one.name.rpartition("-")[2]  # another result, another run


def moments(run: Path) -> torch.Tensor:
    """AdamW's first moments: after one step a tenth of the gradients."""
    saved = torch.load(run / "joint" / "checkpoints" / "last.ckpt", weights_only=False)
    states = saved["optimizer_states"][0]["state"]
    return torch.cat([states[index]["exp_avg"].flatten() for index in sorted(states)])


def test_accumulating_two_batches_equals_one_batch_of_twice_the_size_for_scratch(tmp_path):
    settings = ["mode=scratch", "recipe.augment=null", "trainer.max_steps=3"]
    one = train(*settings, "recipe.batch_size=16", runs=tmp_path)
    two = train(*settings, "recipe.batch_size=8", "trainer.accumulate=2", runs=tmp_path)
    assert largest_difference(weights(one, "scratch"), weights(two, "scratch")) < 1e-5
    assert record_of(one)["steps"] == record_of(two)["steps"] == 3


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["data=image_folder", "data.root=/proc/nowhere"], "/proc/nowhere"),
        (["data.img_size=30"], "img_size=30 is not a multiple of patch_size=4"),
        (["ssl.mask_ratio=1.5"], "ssl.mask_ratio=1.5 is outside (0, 1)"),
        (["ssl.mask_ratio=0.99"], "ssl.mask_ratio=0.99 leaves no visible patch"),
        (["recipe.batch_size=4000"], "4000"),
        (["encoder.num_heads=5"], "num_heads=5"),
        (["trainer.grad_dtype=bf16"], "trainer.grad_dtype=bf16 is of several processes"),
        (["ssl.decoder_heads=7"], "decoder_heads=7"),
        (["footprint.energy=true", "footprint.country=ZZZ"], "footprint.country='ZZZ'"),
        (["mode=finetune", "mode.init_from=/proc/nowhere"], "/proc/nowhere"),
    ],
)
def test_a_users_mistake_gets_one_sentence_and_leaves_no_checkpoint(tmp_path, overrides, sentence):
    with pytest.raises(UserError) as caught:
        train(*overrides, runs=tmp_path)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob("**/*.ckpt"))


@pytest.mark.parametrize(
    ("runs", "words", "reason"),
    [
        ("/proc/nowhere/x", [], "written (No such file or directory)"),
        ("/proc/nowhere/x", ["estimate=true"], "written (No such file or directory)"),
        ("/dev/null/x", [], "read (Not a directory)"),
        ("/dev/null/x", ["force=true"], "written (Not a directory)"),
    ],
)
def test_a_folder_that_cannot_be_used_is_one_sentence(runs, words, reason):
    with pytest.raises(UserError) as caught:
        train(*words, runs=Path(runs))
    assert str(caught.value) == f"runs_dir={runs} cannot be {reason}: name another"


@pytest.mark.parametrize(("words", "file"), [([], "config.yaml is missing or"), (["estimate=true"], "phase.json is")])
def test_a_damaged_record_of_a_phase_is_one_sentence(tmp_path, words, file):
    (tmp_path / "run" / "joint").mkdir(parents=True)
    (tmp_path / "run" / "joint" / "phase.json").write_text("{")
    with pytest.raises(UserError, match=rf"{file} damaged: move the run folder away, or force=true"):
        train(f"run_dir={tmp_path / 'run'}", *words, runs=tmp_path)


@pytest.mark.parametrize("text", ["[1]", "a: [", "a: ${x"])
def test_a_config_file_that_is_not_ours_is_one_sentence(tmp_path, text):
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(UserError, match=r"config\.yaml is missing or damaged: move the run folder away"):
        train(f"run_dir={tmp_path}", runs=tmp_path)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_more_devices_than_there_are_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"trainer\.devices=9999, but this machine has \d+ processors"):
        train("trainer.devices=9999", runs=tmp_path)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_gpu_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(UserError, match="PyTorch sees no GPU"):
        train("trainer=gpu", runs=tmp_path)


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["encoder=vit_x"], "encoder=vit_x does not exist (did you mean vit_"),
        (["recipe.base_lrr=1"], "there is no key 'recipe.base_lrr' (did you mean recipe.base_lr?)"),
    ],
)
def test_the_command_names_the_nearest_group_or_key(tmp_path, overrides, sentence):
    assert sentence in fail_of(command(*overrides, runs=tmp_path))


def test_a_non_finite_loss_stops_and_keeps_the_last_checkpoint(tmp_path):
    exploding = ["recipe.base_lr=1e38", "recipe.max_warmup_share=0.5", "epochs=4", "recipe.warmup_epochs=2"]
    with pytest.raises(
        UserError, match=r"the loss became (nan|inf) at step \d+ \(epoch \d\): .*indices are in"
    ) as caught:
        train("mode=scratch", f"run_dir={tmp_path / 'run'}", *exploding, runs=tmp_path)
    (saved,) = (tmp_path / "run" / "scratch").glob("non_finite_step_*.json")
    assert len(json.loads(saved.read_text())["indices"]) == 16
    assert str(saved) in str(caught.value)
    assert record_of(tmp_path / "run")["status"] == "failed"
    for path in (tmp_path / "run").glob("**/last.ckpt"):
        state = torch.load(path, weights_only=True)["state_dict"]
        assert all(torch.isfinite(value).all() for value in state.values())


def test_a_checkpoint_of_another_configuration_is_refused(tmp_path):
    run = f"run_dir={tmp_path / 'run'}"
    train(run, runs=tmp_path)
    (tmp_path / "run" / "result.json").unlink()
    (tmp_path / "run" / "joint" / "phase.json").unlink()
    with pytest.raises(UserError, match=r"belongs to another configuration \(encoder.depth: 2 -> 3\)"):
        train(run, "encoder.depth=3", runs=tmp_path)
    train("encoder.depth=3", f"run_dir={tmp_path / 'other'}", runs=tmp_path)
    shutil.copy(tmp_path / "other" / "config.yaml", tmp_path / "run")
    with pytest.raises(UserError, match=r"last.ckpt belongs to another configuration \(encoder.depth: 2 -> 3\)"):
        train(run, "encoder.depth=3", runs=tmp_path)


@pytest.mark.slow
def test_ssl_ft_is_not_continued_with_another_encoder(tmp_path):
    run = f"run_dir={tmp_path / 'run'}"
    train("mode=ssl_ft", run, runs=tmp_path)
    (tmp_path / "run" / "result.json").unlink()
    (tmp_path / "run" / "finetune" / "phase.json").unlink()
    with pytest.raises(UserError, match=r"belongs to another configuration \(encoder.embed_dim: 32 -> 64\)"):
        train("mode=ssl_ft", run, "encoder.embed_dim=64", runs=tmp_path)
    assert record_of(train("mode=ssl_ft", run, runs=tmp_path))["status"] == "finished"


@pytest.mark.slow
@pytest.mark.parametrize("option", ["mode=ssat", "mode=scratch", "recipe.ema_decay=0.9"])
def test_compiled_training_equals_eager_training_and_shares_its_parameter_names(tmp_path, option):
    settings = [option, "trainer.max_steps=3", "recipe.augment=null"]
    eager, compiled = (train(*settings, f"trainer.compile={flag}", runs=tmp_path) for flag in ("false", "true"))
    (expected,), (got,) = (record_of(run)["phases"] for run in (eager, compiled))
    assert got["history"][0]["train/loss"] == pytest.approx(expected["history"][0]["train/loss"], rel=1e-5)
    a, b = (weights(run, expected["name"]) for run in (eager, compiled))
    assert a.keys() == b.keys()
    # AdamW may move a weight by a whole step to either side where its gradient is rounding noise; few are like that.
    differences = torch.cat([(a[name].double() - b[name].double()).flatten() for name in a])
    assert differences.square().mean().sqrt() < 0.01 * expected["history"][0]["lr"]


def test_an_image_that_cannot_be_read_stops_the_run_and_names_the_file(tmp_path):
    for split in ("train", "test"):
        for label in ("a", "b"):
            (tmp_path / "images" / split / label).mkdir(parents=True)
            for i in range(8):
                Image.new("RGB", (16, 16), (i * 30, 0, 0)).save(tmp_path / "images" / split / label / f"{i}.png")
    bad = tmp_path / "images" / "train" / "b" / "3.png"
    bad.write_bytes(bad.read_bytes()[:40])
    folder = ["data=image_folder", f"data.root={tmp_path / 'images'}", "data.img_size=16", "data.patch_size=4"]
    folder += ["data.samples_per_class=null", "recipe.batch_size=4"]
    with pytest.raises(UserError, match=r"train/b/3\.png"):
        train(*folder, runs=tmp_path / "runs")
    record = record_of(train(*folder, "data.on_bad_image=skip", runs=tmp_path / "runs"))
    assert record["skipped_images"] == [str(bad)]


def test_a_run_folder_is_never_shared_by_two_processes(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    with locked(run), pytest.raises(UserError, match="another process is training in"):
        train(f"run_dir={run}", runs=tmp_path)


def test_wandb_records_offline_without_a_key(tmp_path):
    run = train("logger=wandb", "epochs=1", runs=tmp_path)
    assert list(run.glob("wandb/offline-run-*/*.wandb"))
