"""The evaluation of tiny real runs on the embedded digits."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from ssat.commands.evaluate import evaluate
from ssat.core.errors import UserError
from tests.helpers import ROOT, train


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    settings = ["mode=ssat", "recipe.ema_decay=0.5", "epochs=4", "recipe.base_lr=0.005", "recipe.lr_rule=absolute"]
    return train(*settings, runs=tmp_path_factory.mktemp("runs"))


@pytest.fixture
def console() -> Console:
    return Console(width=200, record=True, force_terminal=False)


@pytest.mark.parametrize("checkpoint", ["last", "best"])
def test_a_checkpoint_has_the_recorded_accuracy_and_loss_also_of_averaged_weights(
    run: Path, console: Console, checkpoint: str
) -> None:
    saved = json.loads((run / "result.json").read_text())
    accuracy = saved["metrics"]["test"]["acc1"]
    clean = evaluate([f"run={run}", f"checkpoint={checkpoint}"], console)["clean"]
    assert clean["acc1"] == accuracy[checkpoint]
    history = saved["phases"][0]["history"]
    row = history[-1] if checkpoint == "last" else history[accuracy["best_epoch"]]
    assert clean["loss"] == pytest.approx(row["test/loss"], abs=1e-6)


def test_half_precision_is_that_of_the_training_also_in_the_batched_pipeline(tmp_path: Path, console: Console) -> None:
    run = train("mode=scratch", "trainer.precision=bf16", "data.pipeline=batched", "data.img_size=32", runs=tmp_path)
    recorded = json.loads((run / "result.json").read_text())["metrics"]["test"]
    clean = evaluate([f"run={run}"], console)["clean"]
    assert (clean["acc1"], clean["loss"]) == (recorded["acc1"]["last"], recorded["loss"]["last"])


def test_perspective_gives_mean_and_deviation_over_seeds(run: Path, console: Console) -> None:
    record = evaluate([f"run={run}", "data.perturb=perspective", "seeds=3"], console)
    values = [record["perturbed"][f"perspective/{seed}"]["acc1"] for seed in range(3)]
    assert record["summary"]["acc1_mean"] == pytest.approx(np.mean(values))
    assert record["summary"]["acc1_std"] == pytest.approx(np.std(values, ddof=1))
    assert len({values["loss"] for values in record["perturbed"].values()}) == 3
    assert "over 3 seeds" in console.export_text()


def test_a_batch_size_does_not_change_what_is_measured(run: Path, console: Console) -> None:
    words = [f"run={run}", "data.perturb=gaussian_noise", "severities=3"]
    small, large = (evaluate([*words, f"batch_size={size}"], console) for size in (7, 500))
    assert small["perturbed"]["gaussian_noise/3"]["acc1"] == large["perturbed"]["gaussian_noise/3"]["acc1"]


@pytest.mark.slow
def test_corruptions_are_a_table_and_a_mean(run: Path, console: Console) -> None:
    record = evaluate([f"run={run}", "data.perturb=corruptions", "severities=1,5"], console)
    assert len(record["perturbed"]) == 30
    mean = np.mean([values["acc1"] for values in record["perturbed"].values()])
    assert record["summary"]["acc1_mean"] == pytest.approx(mean)
    assert f"mean corruption accuracy {mean:.2f} %" in console.export_text()
    saved = json.loads((run / "evaluations" / "last-test-corruptions.json").read_text())
    assert saved["summary"] == record["summary"]


def test_what_has_been_evaluated_is_not_evaluated_again(run: Path, console: Console) -> None:
    words = [f"run={run}", "data.perturb=contrast", "severities=2"]
    first = evaluate(words, console)
    (run / "evaluations" / "last-test-contrast.json").touch()
    assert evaluate(words, console) == first
    assert "already evaluated" in console.export_text()
    evaluate([*words, "force=true"], console)
    assert "already evaluated" not in console.export_text()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "say which run"),
        (["run=/proc/nowhere"], "/proc/nowhere is no run folder"),
        (["run={run}", "checkpont=last"], "did you mean checkpoint"),
        (["run={run}", "checkpoint=first.ckpt"], "first.ckpt does not exist, name another by checkpoint=best or last"),
        (["run={run}", "split=val"], "the data have train, test"),
        (["run={run}", "data.perturb=fogg"], "did you mean fog"),
        (["run={run}", "severities=6"], "choose from 1,2,3,4,5"),
        (["run={run}", "seeds=0"], "seeds=0 is not possible"),
        (["run={run}", "data.rooot=x"], "the run has no key 'data.rooot'"),
        (["run={run}", "force"], "force needs a value"),
    ],
)
def test_mistakes_are_one_sentence(run: Path, console: Console, words: list[str], sentence: str) -> None:
    with pytest.raises(UserError) as caught:
        evaluate([word.format(run=run) for word in words], console)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_run_without_labels_has_no_accuracy(tmp_path: Path, console: Console) -> None:
    run = train("mode=ssat", "mode.lam=0", "epochs=1", runs=tmp_path)
    with pytest.raises(UserError, match="learned no labels"):
        evaluate([f"run={run}"], console)


def test_other_classes_and_another_network_are_refused(tmp_path: Path, console: Console) -> None:
    for split in ("train", "test"):
        for name in ("a", "b", "c"):
            folder = tmp_path / "images" / split / name
            folder.mkdir(parents=True)
            for number in range(8):
                Image.fromarray(np.full((8, 8, 3), number, np.uint8)).save(folder / f"{number}.png")
    data = ["data=image_folder", f"data.root={tmp_path / 'images'}", "data.img_size=16", "data.patch_size=4"]
    data += ["recipe.batch_size=4", "epochs=1", "mode=scratch", "data.samples_per_class=null", "reconstruct_every=0"]
    run = train(*data, runs=tmp_path / "runs")
    (tmp_path / "images" / "train" / "c").rename(tmp_path / "images" / "train" / "d")
    (tmp_path / "images" / "test" / "c").rename(tmp_path / "images" / "test" / "d")
    with pytest.raises(UserError, match=r"class 2 was c, is d"):
        evaluate([f"run={run}"], console)
    other = tmp_path / "other.ckpt"
    torch.save({"state_dict": {"x": torch.zeros(1)}}, other)
    (tmp_path / "images" / "train" / "d").rename(tmp_path / "images" / "train" / "c")
    (tmp_path / "images" / "test" / "d").rename(tmp_path / "images" / "test" / "c")
    with pytest.raises(UserError) as caught:
        evaluate([f"run={run}", f"checkpoint={other}"], console)
    sentence = r"other\.ckpt does not hold the network of .*: \d+ tensors are missing \(\S+, \S+, \S+ and \d+ more\), "
    sentence += r"1 is unexpected \(x\); name a checkpoint of this run, or copy the run again$"
    assert re.search(sentence, str(caught.value))


@pytest.mark.parametrize("text", ["{", "[]", ""])
def test_a_damaged_configuration_is_one_sentence(run: Path, tmp_path: Path, console: Console, text: str) -> None:
    copied = shutil.copytree(run, tmp_path / "run")
    (copied / "config.yaml").write_text(text)
    with pytest.raises(UserError, match=r"config\.yaml is missing or damaged: copy the run again"):
        evaluate([f"run={copied}"], console)


@pytest.mark.parametrize("text", ["{", "[]"])
def test_a_damaged_record_is_one_sentence(run: Path, tmp_path: Path, console: Console, text: str) -> None:
    copied = shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns("evaluations"))
    (copied / "inputs.json").unlink()  # as in a run of an earlier version
    (record,) = copied.glob("*/phase.json")
    record.write_text(text)
    with pytest.raises(UserError, match=r"phase.json is damaged: copy the run again"):
        evaluate([f"run={copied}"], console)
    measured = copied / "evaluations" / "last-test-clean.json"
    measured.parent.mkdir()
    measured.write_text(text)
    with pytest.raises(UserError, match="clean.json is damaged: move it away, or force=true"):
        evaluate([f"run={copied}"], console)


@pytest.mark.slow
def test_the_command_prints_a_sentence_and_exits_with_2(run: Path) -> None:
    process = [sys.executable, "-m", "src.evaluate", f"run={run}", "data.perturb=x"]
    wrong = subprocess.run(process, cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("error: data.perturb=x does not exist")
    assert wrong.stderr.count("\n") == 1
