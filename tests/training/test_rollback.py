"""A number that is not finite: never in a checkpoint; the run stops, or goes back and takes another order."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning.pytorch.plugins.precision import MixedPrecision

from ssat.config.identity import config_hash
from ssat.core.checkpoints import load_checkpoint
from ssat.core.errors import UserError
from ssat.core.tensors import non_finite, tensors_in
from ssat.data.sampler import EpochSampler
from ssat.training.loss_scale import scaled_precision, skipped_steps
from tests.helpers import command, config, largest_difference, only_run, record_of, train, weights

WORDS = ["mode=scratch", "epochs=3", "recipe.drop_path=0.1"]

POISON = """\
import lightning.pytorch as pl
import torch


class Poison(pl.Callback):
    '''Spoils a weight, or a number of the optimizer, at a step, in the orders before the one that is good.'''

    def __init__(self, step: int = 15, good: int = 1, what: str = 'weight') -> None:
        self.step, self.good, self.what = step, good, what

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_step != self.step or trainer.train_dataloader.sampler.reshuffled >= self.good:
            return
        if self.what == 'weight':
            next(pl_module.parameters()).data.view(-1)[0] = torch.nan
        else:  # the first moment of the last bias, which enters the loss a step later
            state = trainer.optimizers[0].state
            next(iter(state.values()))['exp_avg'].view(-1)[0] = torch.inf
"""


@pytest.fixture
def poison(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    (tmp_path / "poison_callback.py").write_text(POISON)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    return lambda **options: (
        "callbacks=[{_target_: poison_callback.Poison, "
        + ", ".join(f"{key}: {value}" for key, value in options.items())
        + "}]"
    )


def all_finite(run: Path) -> bool:
    files = list(run.glob("**/*.ckpt"))
    return bool(files) and all(non_finite(dict(tensors_in(load_checkpoint(path)))) is None for path in files)


@pytest.mark.parametrize("what", ["weight", "optimizer"])
def test_at_the_end_of_an_epoch_nothing_of_it_is_written(tmp_path: Path, poison: Any, what: str) -> None:
    """The poison comes after the last loss of the epoch, which was finite."""
    run = tmp_path / "run"
    with pytest.raises(
        UserError, match=r"(state_dict|optimizer_states)\S+ is not finite at step 20 \(epoch 2\): the last"
    ):
        train(*WORDS, poison(step=20, what=what), f"run_dir={run}", runs=tmp_path)
    assert all_finite(run) and load_checkpoint(run / "scratch/checkpoints/last.ckpt")["global_step"] == 10
    assert load_checkpoint(run / "scratch/checkpoints/best.ckpt")["global_step"] == 10


def test_rollback_goes_back_once_and_the_record_says_where(tmp_path: Path, poison: Any, capsys: Any) -> None:
    run = train(*WORDS, "on_nan=rollback", poison(step=15), runs=tmp_path)
    record = record_of(run)
    (phase,) = record["phases"]
    (event,) = phase["rollbacks"]
    assert event["step"] == 16 and event["epoch"] == 1 and event["back_to"] == 10 and "loss became nan" in event["what"]
    assert record["steps"] == 30 and len(phase["history"]) == 3 and all_finite(run)
    assert any("went back 1 time behind" in reason for reason in record["unfaithful_reasons"])
    last = run / phase["name"] / "checkpoints" / "last.ckpt"
    assert f": going back to {last}, with another order of the images" in capsys.readouterr().out


def test_rollback_before_the_first_checkpoint_begins_again(tmp_path: Path, poison: Any) -> None:
    run = train(*WORDS, "on_nan=rollback", poison(step=3), runs=tmp_path)
    assert [event["back_to"] for event in record_of(run)["phases"][0]["rollbacks"]] == [0]


def test_rollback_is_tried_three_times_and_then_the_run_stops(tmp_path: Path, poison: Any, capsys: Any) -> None:
    with pytest.raises(UserError, match=r"the loss became nan at step 4.*; on_nan=rollback has gone back 3 times"):
        train(*WORDS, "on_nan=rollback", poison(step=3, good=9), runs=tmp_path)
    assert capsys.readouterr().out.count("beginning anew, with another order") == 3


def test_a_run_that_stopped_goes_on_with_rollback_as_if_it_had_been_asked_at_once(tmp_path: Path, poison: Any) -> None:
    bad = poison(step=15)
    with pytest.raises(UserError, match="on_nan=rollback goes back"):
        train(*WORDS, bad, f"run_dir={tmp_path / 'a'}", runs=tmp_path)
    one = train(*WORDS, bad, "on_nan=rollback", f"run_dir={tmp_path / 'a'}", runs=tmp_path)
    other = train(*WORDS, bad, "on_nan=rollback", f"run_dir={tmp_path / 'b'}", runs=tmp_path)
    assert largest_difference(weights(one, "scratch"), weights(other, "scratch")) == 0


def test_an_interruption_after_a_rollback_keeps_its_order(tmp_path: Path, poison: Any) -> None:
    bad = [poison(step=15), "on_nan=rollback"]
    whole = train(*WORDS, *bad, f"run_dir={tmp_path / 'whole'}", runs=tmp_path)
    # Cut off by Lightning's own limit, whose schedule is that of all epochs.
    cut = tmp_path / "cut"
    train(*WORDS, *bad, "trainer.max_steps=20", f"run_dir={cut}", runs=tmp_path)
    order = load_checkpoint(cut / "scratch/checkpoints/last.ckpt")["callbacks"]["FiniteGuard"]
    assert len(order["rollbacks"]) == 1
    assert record_of(whole)["phases"][0]["rollbacks"] == order["rollbacks"]


@pytest.mark.slow
def test_both_processes_go_back_together(tmp_path: Path, poison: Any) -> None:
    words = [*WORDS, "on_nan=rollback", "trainer=ddp_cpu", "trainer.threads=1", "recipe.batch_size=8", poison(step=15)]
    result = command(*words, runs=tmp_path)
    assert result.returncode == 0, result.stderr
    (event,) = json.loads((only_run(tmp_path) / "result.json").read_text())["phases"][0]["rollbacks"]
    assert event["step"] == 16 and event["back_to"] == 10


def test_neither_key_makes_another_run() -> None:
    assert config_hash(config("on_nan=rollback", "checkpoint_keep=3")) == config_hash(config())


def test_another_order_has_the_same_images_and_differs() -> None:
    orders = [list(EpochSampler(np.arange(64), batch_size=8, seed=3, reshuffled=turn)) for turn in (0, 1, 2)]
    assert orders[0] == list(EpochSampler(np.arange(64), batch_size=8, seed=3))
    assert orders[0] != orders[1] != orders[2] and sorted(orders[0]) == sorted(orders[1]) == sorted(orders[2])


class Line(pl.LightningModule):
    """A line through points, in fp16."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(4, 1)

    def training_step(self, batch: torch.Tensor, index: int) -> torch.Tensor:
        return self.layer(batch).float().square().mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=1e-3)


def fitted(folder: Path, steps: int, plugin: MixedPrecision, start: Path | None = None) -> pl.Trainer:
    loader = torch.utils.data.DataLoader(torch.ones(32, 4), batch_size=4)
    options: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    options |= {"enable_checkpointing": False, "accelerator": "cpu", "plugins": [plugin], "default_root_dir": folder}
    trainer = pl.Trainer(max_steps=steps, max_epochs=-1, **options)
    torch.manual_seed(0)
    trainer.fit(Line(), loader, ckpt_path=start, weights_only=True)
    return trainer


def test_steps_that_overflow_in_fp16_are_counted_and_the_scale_is_saved_and_restored(tmp_path: Path) -> None:
    """fp16 ends at 65,504: with a scale of 2**20 the first gradients overflow, until it has been halved enough."""
    first = fitted(tmp_path, 12, scaled_precision("cpu", init_scale=2.0**20))
    scaler: Any = first.precision_plugin.scaler  # type: ignore[attr-defined]
    skipped = skipped_steps(first)
    assert skipped and scaler.get_scale() == 2.0 ** (20 - skipped) and first.global_step == 12
    first.save_checkpoint(tmp_path / "x.ckpt")
    again = fitted(tmp_path, 12, scaled_precision("cpu"), tmp_path / "x.ckpt")
    restored: Any = again.precision_plugin.scaler  # type: ignore[attr-defined]
    assert (skipped_steps(again), restored.get_scale()) == (skipped, scaler.get_scale())
    assert restored.state_dict() == scaler.state_dict()


def test_other_precisions_skip_nothing(tmp_path: Path) -> None:
    assert skipped_steps(fitted(tmp_path, 1, MixedPrecision("bf16-mixed", "cpu"))) is None
