"""The step without what does nothing: Lightning's numbers, and its own loop where something stands in between."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loops.optimization.automatic import _AutomaticOptimization
from torch.utils.data import DataLoader

from ssat.training.module import JointModule
from ssat.training.optim import Optimization
from ssat.training.plain_step import PlainOptimization, is_plain
from tests.training.test_compiled import batch_at, module_with

STEPS = 6


class Norms(Callback):
    """Notes the length of the gradients where Lightning shows them."""

    def __init__(self) -> None:
        self.found: list[float] = []

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        gradients = [each.grad.norm() for each in pl_module.parameters() if each.grad is not None]
        self.found.append(float(torch.stack(gradients).norm()))


class Looking(JointModule):
    """A module of somebody else, with a hook between two parts of a step."""

    backwards = 0

    def on_after_backward(self) -> None:
        self.backwards += 1


def network(base_lr: float = 1e-3, kind: type[JointModule] = JointModule) -> JointModule:
    given = module_with()
    optimization = Optimization(base_lr=base_lr, lr_rule="absolute", batch_size=4, warmup_epochs=0)
    return kind(given.encoder, num_classes=3, ssl=given.ssl, lam=0.3, optimization=optimization)


def fitted(module: JointModule, loop: type[_AutomaticOptimization], folder: Path, **options: Any) -> pl.Trainer:
    """After six steps in two epochs."""
    quiet: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=2, enable_checkpointing=False, default_root_dir=folder, **quiet, **options
    )
    trainer.fit_loop.epoch_loop.automatic_optimization = loop(trainer)
    batches = [batch_at(step) for step in range(STEPS // 2)]
    trainer.fit(module, DataLoader(batches, batch_size=None))  # type: ignore[arg-type]
    return trainer


def state_of(trainer: pl.Trainer, module: JointModule) -> dict[str, Any]:
    loop = trainer.fit_loop.epoch_loop
    return {
        "weights": module.state_dict(),
        "optimizer": trainer.optimizers[0].state_dict()["state"],
        "counts": loop.automatic_optimization.optim_progress.state_dict(),
        "step": trainer.global_step,
        "loss": trainer.callback_metrics["epoch/train/loss"],
    }


def assert_same(first: dict[str, Any], second: dict[str, Any]) -> None:
    assert (first["counts"], first["step"]) == (second["counts"], second["step"])
    for name in ("weights", "optimizer", "loss"):
        torch.testing.assert_close(first[name], second[name], rtol=0, atol=0)


@pytest.mark.parametrize(
    "options", [{}, {"gradient_clip_val": 0.05}, {"precision": "bf16-mixed"}], ids=["fp32", "clipped", "bf16"]
)
def test_the_step_is_lightnings_to_the_last_bit(tmp_path: Path, options: dict[str, Any]) -> None:
    states = []
    for loop in (_AutomaticOptimization, PlainOptimization):
        module = network(1e-3)
        trainer = fitted(module, loop, tmp_path, **options)
        assert trainer.global_step == STEPS
        states.append(state_of(trainer, module))
    assert is_plain(trainer)
    assert_same(*states)


def test_clipping_is_not_left_out(tmp_path: Path) -> None:
    weights = []
    for clip in (None, 1e-4):
        module = network(1e-2)
        fitted(module, PlainOptimization, tmp_path, gradient_clip_val=clip)
        weights.append(module.state_dict()["encoder.patch_embed.proj.weight"])
    assert not torch.equal(*weights)


def test_a_callback_that_looks_into_a_step_is_shown_its_gradients(tmp_path: Path) -> None:
    norms = Norms()
    trainer = fitted(network(), PlainOptimization, tmp_path, callbacks=[norms])
    assert len(norms.found) == trainer.global_step == STEPS
    assert min(norms.found) > 0


def test_a_module_that_looks_into_a_step_is_asked(tmp_path: Path) -> None:
    module = network(kind=Looking)
    fitted(module, PlainOptimization, tmp_path)
    assert module.backwards == STEPS


class Later(Callback):
    """Changes the training when its second epoch begins."""

    def __init__(self) -> None:
        self.norms = Norms()

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        if trainer.current_epoch == 1:
            trainer.accumulate_grad_batches = 3
            trainer.callbacks.append(self.norms)


def test_what_changes_in_the_midst_of_a_training_counts(tmp_path: Path) -> None:
    later = Later()
    trainer = fitted(network(), PlainOptimization, tmp_path, callbacks=[later])
    assert trainer.global_step == STEPS // 2 + 1
    assert len(later.norms.found) == 1


def test_a_batch_that_is_not_learned_from_has_no_gradients(tmp_path: Path) -> None:
    class Passing(Callback):  # as SWA, to measure statistics of batches
        def on_train_start(self, trainer: Any, pl_module: Any) -> None:
            trainer.fit_loop.epoch_loop.automatic_optimization._skip_backward = True

    module = network()
    before = [each.detach().clone() for each in module.parameters()]
    fitted(module, PlainOptimization, tmp_path, callbacks=[Passing()])
    assert all(map(torch.equal, before, module.parameters()))


def test_accumulated_batches_make_one_step(tmp_path: Path) -> None:
    trainer = fitted(network(), PlainOptimization, tmp_path, accumulate_grad_batches=3)
    assert trainer.global_step == 2


def test_what_a_training_step_logs_arrives(tmp_path: Path) -> None:
    class Logging(JointModule):
        def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
            self.log("shown", 1.0)  # only where Lightning knows which hook this is
            return super().training_step(batch, batch_idx)

    module = network(kind=Logging)
    trainer = fitted(module, PlainOptimization, tmp_path)
    assert trainer.callback_metrics["shown"] == 1


def test_a_recorded_step_is_lightnings(tmp_path: Path) -> None:
    module = network()
    trainer = fitted(module, PlainOptimization, tmp_path)
    assert is_plain(trainer)
    module.replay = lambda *_: None  # type: ignore[assignment]  # it takes the optimizer's step, too
    assert not is_plain(trainer)
