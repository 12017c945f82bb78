"""trainer.cuda_graph: what goes into the graph, when, and what does not; the recording itself needs a GPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import Callback
from torch.optim import SGD, Optimizer

from ssat.core.batch import Batch
from ssat.training.cuda_graph import WARM_UP, ReplayedStep, StaticBatch, form_of, move_to_device, refusal, whole_step
from ssat.training.module import JointModule
from ssat.training.optim import adamw, follow_schedule, parameter_groups, warmup_cosine
from ssat.training.steps import Progress, seed_step
from ssat.training.weighing import LamSchedule
from tests.training.test_compiled import batch_at, module_with

STEPS = 20


def optimizer_of(module: JointModule) -> Optimizer:
    groups = parameter_groups(module.named_parameters(), weight_decay=0.05, no_decay=set(), layer_ids={})
    return adamw(groups, lr=1e-3, betas=(0.9, 0.95), eps=1e-8)


def again(step: Callable[[], None]) -> Callable[[], None]:
    """Repeats a step on the fixed tensors by computing it: what a graph does, slowly."""
    return step


def trained(
    device: str, record: Callable[..., Any] | None, *, images: Callable[[int], int] = lambda step: 4
) -> tuple[list[float], ReplayedStep | None]:
    """Losses of a training with warm-up, cosine and a moving lam; `record` None = as Lightning takes the steps."""
    module = module_with(schedule=LamSchedule("cosine", 0.9)).to(device)
    optimizer = optimizer_of(module)
    schedule = warmup_cosine(optimizer, lr=1e-3, min_lr=0, warmup_lr=1e-6, warmup_steps=4, total_steps=STEPS)
    step = None
    if record is not None:
        move_to_device(optimizer, torch.device(device))
        step = ReplayedStep(module.losses, optimizer, clip=0.5, images=4, record=record)
    kept = []
    for number in range(STEPS):
        seed_step(0, number, 0)
        batch, progress = _to(batch_at(number, images(number)), device), Progress(number, number / STEPS)
        if step is None:
            loss, _ = whole_step(module.losses, optimizer, 0.5, batch, progress)
        else:
            loss, _ = step(batch, module.with_lam(progress))
        schedule.step()
        kept.append(loss)
    return [loss.item() for loss in kept], step  # read at the end: a later step must not have changed them


def _to(batch: Batch, device: str) -> Batch:
    assert batch.targets is not None
    assert batch.indices is not None
    return Batch(batch.images.to(device), batch.targets.to(device), indices=batch.indices.to(device))


def test_replayed_steps_follow_batches_rates_and_lam_and_short_batches_stay_outside() -> None:
    def sizes(step: int) -> int:
        return 2 if step % 5 == 4 else 4

    found, step = trained("cpu", again, images=sizes)
    assert found == pytest.approx(trained("cpu", None, images=sizes)[0], abs=1e-5)
    assert step is not None
    short = STEPS // 5
    assert (step.outcome.replayed, step.outcome.others) == (STEPS - short - WARM_UP, short + WARM_UP)


def test_what_cannot_be_recorded_goes_on_step_by_step_and_says_so_once(capsys: Any) -> None:
    def fails(step: Callable[[], None]) -> Callable[[], None]:
        raise RuntimeError("operation not permitted when stream is capturing")

    found, step = trained("cpu", fails)
    assert found == pytest.approx(trained("cpu", None)[0], abs=1e-5)
    assert step is not None
    assert (step.outcome.used, step.outcome.replayed, step.outcome.others) == (False, 0, STEPS)
    (line,) = capsys.readouterr().out.splitlines()
    assert "operation not permitted" in line


def test_a_batch_of_another_form_is_not_that_of_the_graph() -> None:
    first = batch_at(0)
    static, other = StaticBatch(first), batch_at(1)
    assert static.form == form_of(other)
    static.take(other)
    assert torch.equal(static.batch.images, other.images)
    assert static.batch.images is not other.images
    for changed in (
        other._replace(targets=torch.eye(4, 3)),
        other._replace(indices=None),
        other._replace(views=(other.images,)),
        batch_at(1, 2),
    ):
        assert form_of(changed) != static.form


def test_the_schedule_fills_the_learning_rates_where_they_are() -> None:
    optimizer = optimizer_of(module_with(depth=1))
    schedule = warmup_cosine(optimizer, lr=1e-3, min_lr=0, warmup_lr=1e-6, warmup_steps=4, total_steps=STEPS)
    move_to_device(optimizer, torch.device("cpu"))
    rates = [group["lr"] for group in optimizer.param_groups]
    optimizer.step()
    for move in (schedule.step, lambda: follow_schedule(schedule)):
        move()
        for rate, group in zip(rates, optimizer.param_groups, strict=True):
            assert group["lr"] is rate
            assert float(rate) == pytest.approx(1e-6 + (1e-3 - 1e-6) / 4)


class Watching(Callback):
    def on_after_backward(self, *args: Any) -> None:
        """Looks at gradients."""


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({}, None),
        ({"device": torch.device("cpu")}, "the device is cpu"),
        ({"processes": 2}, "2 processes"),
        ({"accumulate": 4}, "trainer.accumulate=4"),
        ({"precision": "16-mixed"}, "trainer.precision=16"),
        ({"optimizer": SGD([torch.zeros(1)], lr=1)}, "recipe.optimizer"),
        ({"reads_gradients": True}, "monitor.conflict_every"),
        ({"callbacks": [Callback(), Watching()]}, "the callback Watching"),
    ],
    ids=["usual", "cpu", "ddp", "accumulate", "fp16", "sgd", "gradients", "callback"],
)
def test_what_no_graph_can_hold_is_refused_with_its_key(change: dict[str, Any], reason: str | None) -> None:
    usual: dict[str, Any] = {
        "device": torch.device("cuda"),
        "processes": 1,
        "accumulate": 1,
        "precision": "bf16-mixed",
        "optimizer": optimizer_of(module_with(depth=1)),
        "reads_gradients": False,
        "callbacks": [Callback()],
    }
    found = refusal(**usual | change)
    assert found is None if reason is None else reason in str(found)


@pytest.mark.gpu
def test_a_recorded_training_has_the_losses_of_the_eager_one_on_a_gpu() -> None:
    from ssat.training.cuda_graph import record_cuda

    found, step = trained("cuda", record_cuda)
    assert found == pytest.approx(trained("cuda", None)[0], abs=1e-5)
    assert step is not None
    assert (step.outcome.reason, step.outcome.replayed) == (None, STEPS - WARM_UP)


@pytest.mark.gpu
def test_no_step_waits_for_the_gpu() -> None:
    module = module_with(schedule=LamSchedule("cosine", 0.9)).cuda()
    optimizer = optimizer_of(module)
    move_to_device(optimizer, torch.device("cuda"))
    step = ReplayedStep(module.losses, optimizer, clip=0.5, images=4)
    batches = [_to(batch_at(number), "cuda") for number in range(WARM_UP + 3)]
    for number, batch in enumerate(batches):
        if number > WARM_UP:
            torch.cuda.set_sync_debug_mode("error")
        try:
            _, values = step(batch, module.with_lam(Progress(number, number / STEPS)))
            module.means.add(values, 4)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert step.outcome.replayed == 3
