"""The joint step against its formula, its parts, and checkpoints of earlier versions."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ssat.core.batch import Batch
from ssat.core.errors import UserError
from ssat.data.image import ImageDataModule
from ssat.data.sets.sources import digits
from ssat.encoders.base import Encoder
from ssat.tasks.base import Task, TaskOutput
from ssat.training.classification import ClassLoss, linear_head
from ssat.training.means import EpochMeans, to_log
from ssat.training.mixing import Mix, Mixing
from ssat.training.module import JointModule
from ssat.training.steps import Progress, seed_step
from ssat.training.weighing import LamSchedule, Weighing
from tests.encoders.cases import build, images_for
from tests.helpers import record_of, train

START = Progress(0, 0.0)


class Counting(Task):
    """Its loss is the mean square of the features; counts how often it is called."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, encoder: Encoder, batch: Batch, with_features: bool) -> TaskOutput:
        self.calls += 1
        features = encoder.forward_features(batch.images)
        return TaskOutput(features.square().mean(), features if with_features else None, {})


def batch_for(encoder: Encoder) -> Batch:
    images = images_for(encoder)
    return Batch(images, torch.arange(len(images)) % 3, indices=torch.arange(len(images)))


def gradients(module: JointModule) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("lam", [0.1, 0.5])
def test_the_loss_is_equation_1(lam: float) -> None:
    encoder = build("vit")
    module, batch = JointModule(encoder, num_classes=3, ssl=Counting(), lam=lam), batch_for(encoder)
    loss, values = module.joint_step(batch, START)
    features = encoder.forward_features(batch.images)
    cls = F.cross_entropy(module.head(features), batch.targets, label_smoothing=0.1)
    ssl = features.square().mean()
    assert loss.item() == pytest.approx((lam * cls + (1 - lam) * ssl).item(), rel=1e-6)
    assert values.keys() == {"loss", "loss_cls", "loss_ssl", "acc1"}
    assert not any(value.requires_grad for value in values.values())


def test_lam_1_is_the_class_loss_bit_for_bit_and_computes_no_task() -> None:
    encoder, task = build("vit"), Counting()
    module, batch = JointModule(encoder, num_classes=3, ssl=task, lam=1), batch_for(encoder)
    loss, values = module.joint_step(batch, START)
    loss.backward()
    found = gradients(module)
    module.zero_grad()
    alone = F.cross_entropy(module(batch.images), batch.targets, label_smoothing=0.1)
    alone.backward()
    assert torch.equal(loss, alone) and task.calls == 0
    assert all(torch.equal(found[name], value) for name, value in gradients(module).items())
    assert values.keys() == {"loss", "loss_cls", "acc1"}


def test_lam_0_is_the_tasks_loss_bit_for_bit_and_has_no_head() -> None:
    encoder = build("vit")
    module, batch = JointModule(encoder, ssl=Counting(), lam=0), batch_for(encoder)
    loss, values = module.joint_step(batch, START)
    loss.backward()
    found = gradients(module)
    module.zero_grad()
    alone = encoder.forward_features(batch.images).square().mean()
    alone.backward()
    assert torch.equal(loss, alone) and module.head is None
    assert all(torch.equal(found[name], value) for name, value in gradients(module).items())
    assert values.keys() == {"loss", "loss_ssl"}


# --- weights


def test_a_ramp_weighs_with_the_share_of_the_steps() -> None:
    encoder = build("vit")
    module = JointModule(encoder, num_classes=3, ssl=Counting(), lam=0.2, schedule=LamSchedule("linear", 0.6))
    _, values = module.joint_step(batch_for(encoder), Progress(7, 0.5))
    assert values["lam"].item() == pytest.approx(0.4)
    assert values["loss"].item() == pytest.approx((0.4 * values["loss_cls"] + 0.6 * values["loss_ssl"]).item())


def test_balanced_losses_have_gradients_of_equal_length() -> None:
    encoder = build("vit")
    state = torch.nn.Module()
    weighing = Weighing(encoder, 0.1, LamSchedule("balanced", every=2), watch_every=0, state=state)
    features = encoder.forward_features(images_for(encoder))
    first, second = features.sum() * 30, features.sum()
    assert float(weighing.at(START, first, second).scale) == pytest.approx(30)
    assert float(weighing.at(Progress(1, 0.0), first * 9, second).scale) == pytest.approx(30)  # not measured
    assert float(weighing.at(Progress(2, 0.0), first * 2, second).scale) == pytest.approx(0.9 * 30 + 0.1 * 60)
    assert state.state_dict().keys() == {"balance"}


def test_angles_are_measured_when_they_are_due_only() -> None:
    encoder = build("vit")
    module = JointModule(encoder, num_classes=3, ssl=Counting(), conflict_every=3)
    seen = ["conflict/all" in module.joint_step(batch_for(encoder), Progress(n, 0.0))[1] for n in range(4)]
    assert seen == [True, False, False, True]


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: LamSchedule("cosin"), "one of constant, linear, cosine, balanced"),
        (lambda: LamSchedule("linear"), "has no end"),
    ],
)
def test_an_impossible_schedule_is_refused(make: Any, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        make()


# --- mixing and the class loss


def test_nothing_is_mixed_by_default() -> None:
    batch = Batch(torch.randn(4, 3, 2, 2), torch.arange(4))
    assert Mix(None, 4, 0.0)(batch) is batch
    assert Mix(Mixing(), 4, 0.0)(batch) is batch


def test_mixup_mixes_pairs_and_leaves_the_loaders_images_as_they_were() -> None:
    images = torch.randn(4, 3, 2, 2)
    before = images.clone()
    np.random.seed(0)
    mixed = Mix(Mixing(mixup=1.0), 4, 0.0)(Batch(images, torch.arange(4)))
    share = mixed.targets[0, 0]
    assert 0 < share < 1
    torch.testing.assert_close(mixed.images, share * before + (1 - share) * before.flip(0))
    assert torch.equal(images, before) and mixed.unmixed is None


def test_mixing_keeps_the_unmixed_images_for_a_task_that_reads_them() -> None:
    task = Counting()
    task.reads_unmixed = True
    images = torch.randn(4, 3, 2, 2)
    assert torch.equal(Mix(Mixing(mixup=1.0), 4, 0.0, task)(Batch(images, torch.arange(4))).unmixed, images)


def test_mixing_what_a_task_compares_is_refused() -> None:
    task = Counting()
    task.compares_images = True
    with pytest.raises(UserError, match="ssl.share=third"):
        Mix(Mixing(cutmix=1.0), 4, 0.0, task)


def test_several_views_have_the_labels_of_their_images() -> None:
    logits, targets = torch.randn(6, 4), torch.tensor([0, 1, 3])
    batch = Batch(torch.zeros(3, 1), targets)
    expected = F.cross_entropy(logits, targets.repeat(2))
    assert ClassLoss(0.0)(logits, batch).item() == pytest.approx(expected.item())
    right = (logits[:3].argmax(1) == targets).float().mean() * 100
    assert ClassLoss(0.0).values(expected, logits, batch)["acc1"] == right


def test_soft_targets_have_the_soft_cross_entropy_and_no_accuracy() -> None:
    logits, targets = torch.randn(5, 4), torch.randn(5, 4).softmax(1)
    batch = Batch(torch.zeros(5, 1), targets)
    loss = ClassLoss(0.1)(logits, batch)
    assert loss.item() == pytest.approx(-(targets * logits.log_softmax(1)).sum(1).mean().item(), rel=1e-6)
    assert ClassLoss(0.1).values(loss, logits, batch).keys() == {"loss_cls"}


@pytest.mark.parametrize(("init", "deviation"), [("xavier", (2 / (64 + 64)) ** 0.5), ("small", 2e-5)])
def test_a_heads_weights_have_the_deviation_of_their_source(init: str, deviation: float) -> None:
    head: Any = linear_head(64, 64, init)
    assert head.weight.std().item() == pytest.approx(deviation, rel=0.05)
    assert head.bias.abs().sum() == 0


# --- epoch means


ONE_PROCESS: Any = SimpleNamespace(root_device=torch.device("cpu"), reduce=lambda values, reduce_op: values)


def test_epoch_means_are_over_images_or_divide_by_a_count_of_their_own() -> None:
    means = EpochMeans()
    means.add({"loss": torch.tensor(1.0), "acc1": torch.tensor(300.0), "acc1_count": torch.tensor(4.0)}, 64)
    angles = {"conflict/all": torch.tensor(0.5), "conflict_count": torch.tensor(1.0)}
    means.add({"loss": torch.tensor(2.0), "acc1": torch.tensor(0.0), "acc1_count": torch.tensor(0.0), **angles}, 32)
    assert means.take(ONE_PROCESS) == {
        "train/loss": pytest.approx((64 * 1.0 + 32 * 2.0) / 96),
        "train/acc1": 75.0,
        "train/conflict/all": 0.5,
    }
    assert means.take(ONE_PROCESS) == {}


def test_epoch_means_go_on_from_a_checkpoint() -> None:
    before, after = EpochMeans(), EpochMeans()
    before.add({"loss": torch.tensor(1.0)}, 64)
    after.load(before.state(ONE_PROCESS), first=True)
    after.add({"loss": torch.tensor(4.0)}, 32)
    assert after.take(ONE_PROCESS) == {"train/loss": 2.0}


def test_epoch_means_that_go_on_from_a_checkpoint_are_those_of_an_epoch_in_one_go() -> None:
    torch.manual_seed(0)
    losses, angles = torch.rand(9, 2), torch.rand(9)
    one = {"conflict_count": torch.ones(())}
    steps = [
        dict(zip(("loss", "loss_cls"), row, strict=True)) | ({"conflict/all": angles[i], **one} if i % 3 == 0 else {})
        for i, row in enumerate(losses)
    ]
    whole, parts = EpochMeans(), EpochMeans()
    for values in steps:
        whole.add(values, 7)
        parts.add(values, 7)
        again = EpochMeans()
        again.load(parts.state(ONE_PROCESS), first=True)
        parts = again
    assert parts.take(ONE_PROCESS) == whole.take(ONE_PROCESS)  # to the last bit


def test_epoch_means_go_on_from_a_checkpoint_of_single_sums() -> None:
    """As earlier versions wrote them: a number for each name."""
    means = EpochMeans()
    means.load({"images": torch.tensor(64.0), "loss": torch.tensor(64.0)}, first=True)
    means.add({"loss": torch.tensor(4.0)}, 32)
    assert means.take(ONE_PROCESS) == {"train/loss": 2.0}
    means.load({"loss": torch.tensor(64.0)}, first=True)  # of before 0.2: nobody knows of how many images
    assert means.take(ONE_PROCESS) == {}


def test_a_sum_with_a_count_is_not_logged_at_a_step() -> None:
    trainer: Any = SimpleNamespace(optimizers=[SimpleNamespace(param_groups=[{"lr": 0.3}])])
    values = {"loss": torch.ones(()), "acc1": torch.ones(()), "acc1_count": torch.ones(())}
    values |= {"conflict/all": torch.zeros(()), "conflict_count": torch.ones(())}
    assert to_log(values, trainer).keys() == {"train/loss", "train/conflict/all", "lr"}


# --- checkpoints


def test_the_checkpoint_of_a_run_opens_in_a_notebook(tmp_path: Path) -> None:
    run = train("mode=ssat", "epochs=1", runs=tmp_path)
    metric = record_of(run)["metrics"]["test"]["acc1"]
    own = pl.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, default_root_dir=str(tmp_path))
    for name in ("last", "best"):
        module = JointModule.load_from_checkpoint(run / "joint" / "checkpoints" / f"{name}.ckpt")
        (found,) = own.test(module, datamodule=ImageDataModule(digits(), img_size=16), verbose=False)
        assert found["test/acc1"] == pytest.approx(metric[name])


def test_a_step_is_seeded_as_torch_manual_seed_would_seed_it() -> None:
    with torch.random.fork_rng():
        seed_step(3, 7, 0)
        drawn, seed = torch.rand(4), torch.initial_seed()
        torch.manual_seed(seed)
        assert torch.equal(drawn, torch.rand(4))
        seed_step(3, 8, 0)
        assert torch.initial_seed() != seed
