"""Runs that earlier versions have begun; version 1: flat code, class paths, another hash (tests/runs/version_1)."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ssat.config.upgrade import VERSION
from tests.helpers import train

ROOT = Path(__file__).resolve().parents[2]
OLD = Path(__file__).parent / "version_1"
WORDS = (
    *("encoder=vit", "encoder.embed_dim=16", "encoder.depth=2", "encoder.num_heads=2", "data=digits"),
    *("data.samples_per_class=8", "recipe.batch_size=16", "ssl.decoder_dim=16", "ssl.decoder_heads=2"),
    *("ssl.decoder_depth=1", "trainer=cpu", "trainer.threads=1", "footprint.energy=false", "reconstruct_every=0"),
    *("eval_every=1", "experiment=old"),
)
FINISHED = (*WORDS, "mode=ssat", "epochs=2", "name=finished")
# Version 1 trained the first stage on normalised pixels by default.
INTERRUPTED = (*WORDS, "mode=ssl_ft", "mode.ssl_recipe.norm_pix=true", "epochs=4", "name=interrupted")


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    shutil.copytree(OLD, tmp_path / "old")
    return tmp_path


def command(name: str, *words: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", f"src.{name}", *words]
    return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=300)


def weights(runs: Path, phase: str) -> dict[str, torch.Tensor]:
    (path,) = runs.glob(f"old/interrupted-*/{phase}/checkpoints/last.ckpt")
    return torch.load(path, weights_only=True)["state_dict"]


@pytest.mark.slow
def test_a_finished_old_run_is_skipped(runs: Path) -> None:
    done = command("train", *FINISHED, f"runs_dir={runs}")
    assert done.returncode == 0, done.stderr
    assert f"skipped, already finished in {runs / 'old' / 'finished-d339740e'}" in done.stdout
    assert sorted(path.name for path in (runs / "old").iterdir()) == sorted(path.name for path in OLD.iterdir())


@pytest.mark.slow
def test_an_old_run_with_another_value_is_another_run(runs: Path) -> None:
    done = command("train", *FINISHED, "seed=1", "trainer.max_steps=1", f"runs_dir={runs}")
    assert done.returncode == 0, done.stderr
    assert len(list(runs.glob("old/finished-*/result.json"))) == 2


@pytest.mark.slow
def test_an_interrupted_old_run_continues_to_the_weights_of_an_uninterrupted_one(runs: Path, tmp_path: Path) -> None:
    done = command("train", *INTERRUPTED, f"runs_dir={runs}")
    assert done.returncode == 0, done.stderr
    assert "pretrain: continuing at step 10" in done.stdout
    whole = tmp_path / "whole"
    assert command("train", *INTERRUPTED, f"runs_dir={whole}").returncode == 0
    ours, theirs = weights(runs, "finetune"), weights(whole, "finetune")
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():  # bit-equal on one machine; the first steps here were another machine's
        torch.testing.assert_close(ours[name], value, rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.slow
def test_an_old_run_is_evaluated_to_the_accuracy_that_it_has_recorded(runs: Path) -> None:
    run = runs / "old" / "finished-d339740e"
    done = command("evaluate", f"run={run}", "trainer.accelerator=cpu")
    assert done.returncode == 0, done.stderr
    measured = json.loads((run / "evaluations" / "last-test-clean.json").read_text())
    recorded = json.loads((run / "result.json").read_text())["metrics"]["test"]
    assert measured["clean"]["acc1"] == pytest.approx(recorded["acc1"]["last"], abs=0.3)  # one image of 360


def test_a_run_whose_hash_was_another_continues_after_its_finished_phase(tmp_path: Path, capsys) -> None:
    words = ("mode=ssl_ft", "epochs=2", "trainer.max_steps=2", "name=second", "experiment=old")
    new = train(*words, runs=tmp_path)
    run = new.rename(new.with_name("second-01234567"))
    (run / "result.json").unlink()
    shutil.rmtree(run / "finetune")
    for name, now, then in (
        ("config.yaml", f"version: {VERSION}", "version: 2"),
        ("pretrain/phase.json", new.name.removeprefix("second-"), "01234567"),
    ):
        text = (run / name).read_text()
        assert now in text
        (run / name).write_text(text.replace(now, then))
    capsys.readouterr()
    assert train(*words, runs=tmp_path) == run
    assert "pretrain: already finished" in capsys.readouterr().out
    assert list(tmp_path.glob("old/second-*")) == [run]
    train(*words, runs=tmp_path)
    assert "skipped, already finished" in capsys.readouterr().out


def test_a_newer_version_is_named_and_refused(runs: Path) -> None:
    config = runs / "old" / "finished-d339740e" / "config.yaml"
    config.write_text(config.read_text() + "version: 99\n")
    done = command("evaluate", f"run={config.parent}")
    assert done.returncode == 2
    assert "99" in done.stderr and "update" in done.stderr and str(config) in done.stderr


def test_a_class_path_in_a_strangers_configuration_is_not_imported(runs: Path) -> None:
    config = runs / "old" / "finished-d339740e" / "config.yaml"
    path = "_target_: src.encoders.vit.VisionTransformer"
    assert path in config.read_text()
    for planted in ("_target_: numpy.testing.measure", "kind: numpy.testing:measure"):
        config.write_text(config.read_text().replace(path, planted))
        done = command("evaluate", f"run={config.parent}")
        assert done.returncode == 2, done.stdout + done.stderr
        assert "numpy.testing" in done.stderr and "Traceback" not in done.stderr
        path = planted
