"""Settings that were made for large data, on little of it: moving averages, accumulation, incomplete batches."""

from __future__ import annotations

from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from ssat.config.identity import is_official
from ssat.config.overrides import composed
from ssat.config.resolve import resolve
from ssat.config.schema import Run
from ssat.core.errors import UserError
from ssat.core.schedules import evaluation_period, warmed_up
from ssat.encoders.vit import VisionTransformer
from ssat.tasks.reconstruction import Reconstruction
from ssat.training.callbacks.averaging import MovingAverage
from ssat.training.data import build_data
from ssat.training.module import JointModule
from ssat.training.optim import Optimization
from ssat.training.remarks import remarks
from tests.helpers import TINY, record_of, train, weights
from tests.training.test_alone import QUIET, SMALL_VIT


def trainer(folder: Path, **options) -> pl.Trainer:
    return pl.Trainer(default_root_dir=str(folder), enable_model_summary=False, **QUIET | {"max_epochs": 1} | options)


def loader(batches: int) -> DataLoader:
    torch.manual_seed(0)
    images, targets = torch.randn(4 * batches, 3, 16, 16), torch.arange(4 * batches) % 10
    return DataLoader(TensorDataset(images, targets), batch_size=4)


SGD = {"optimizer": "sgd", "momentum": 0.0}
STILL = {"base_lr": 1e-30, "min_lr": 0.0}  # all batches meet the same weights


def module(**options) -> JointModule:
    torch.manual_seed(1)
    return JointModule(SMALL_VIT, num_classes=10, lam=1.0, optimization=Optimization(**SGD | options))


class Gradients(pl.Callback):
    """Keeps the gradient of the head before each step of the optimizer."""

    def __init__(self) -> None:
        self.seen: list[Tensor] = []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer) -> None:
        self.seen.append(pl_module.head.weight.grad.clone())


def gradients(folder: Path, **options) -> list[Tensor]:
    watch = Gradients()
    trainer(folder, callbacks=[watch], **options).fit(module(**STILL), loader(5))
    return watch.seen


def test_the_gradient_of_an_incomplete_step_is_the_mean_over_its_batches(tmp_path: Path) -> None:
    each, together = gradients(tmp_path), gradients(tmp_path, accumulate_grad_batches=3)
    assert len(each) == 5 and len(together) == 2
    torch.testing.assert_close(together[0], torch.stack(each[:3]).mean(0))
    torch.testing.assert_close(together[1], torch.stack(each[3:]).mean(0))


def test_more_accumulated_batches_than_an_epoch_has_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="trainer.accumulate=6 is more than the 5 batches") as refused:
        gradients(tmp_path, accumulate_grad_batches=6)
    assert (refused.value.key, refused.value.value) == ("trainer.accumulate", 6)


@pytest.mark.parametrize(("updates", "decay"), [(0, 0.1), (8, 0.5), (90, 0.91), (10**6, 0.9998)])
def test_the_decay_warms_up(updates: int, decay: float) -> None:
    assert warmed_up(0.9998, updates) == pytest.approx(decay)


def test_the_average_follows_its_formula(tmp_path: Path) -> None:
    class Weights(pl.Callback):
        def __init__(self) -> None:
            self.seen: list[Tensor] = []

        def on_train_batch_end(self, trainer, pl_module, *rest) -> None:
            self.seen.append(pl_module.head.weight.detach().clone())

    watch, average = Weights(), MovingAverage(0.6)
    whole = module()
    trainer(tmp_path, callbacks=[watch, average]).fit(whole, loader(12))
    expected = watch.seen[0]
    for update, weight in enumerate(watch.seen[1:], 1):
        keep = min(0.6, (1 + update) / (10 + update))
        expected = keep * expected + (1 - keep) * weight
    torch.testing.assert_close(whole.head.weight.detach(), expected)


def test_the_average_of_a_short_training_is_near_its_weights(tmp_path: Path) -> None:
    words = ("mode=scratch", "epochs=4", "recipe.lr_rule=absolute", "recipe.base_lr=3e-3", "eval_every=4")
    raw = record_of(train(*words, "name=raw", runs=tmp_path))["metrics"]["test"]["acc1"]["last"]
    averaged = train(*words, "recipe.ema_decay=0.9998", "name=average", runs=tmp_path)
    assert record_of(averaged)["metrics"]["test"]["acc1"]["last"] > raw - 10
    assert weights(averaged, "scratch")


def configured(*words: str) -> Run:
    return resolve(composed([*TINY, *words]))


def said(*words: str) -> str:
    run = configured(*words)
    data = build_data(run, run.mode.phases[0])
    data.setup()
    return " ".join(remarks(run, run.mode.phases[0], data))


def test_a_share_of_labels_says_what_an_epoch_shows() -> None:
    words = ["mode=ssat", "data.samples_per_class=40", "data.label_fraction=0.1", "data.labelled_share=0.5"]
    found = said(*words, "recipe.batch_size=32")
    assert "an epoch shows each of the 40 images with labels about 5 times and 200 of the 360 others" in found
    assert "leaves out" not in found


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["mode=ssat", "data.label_fraction=0.1"], True),
        (["mode=ssat", "data.label_fraction=0.1", "data.labelled_share=0.5"], False),
        (["mode=ssat", "data.label_fraction=0.5"], False),
        (["mode=scratch", "data.label_fraction=0.1"], False),
        (["mode=ssl_ft", "data.label_fraction=0.1"], False),
    ],
)
def test_few_labels_in_a_batch_are_told_with_the_cure(words: list[str], told: bool) -> None:
    sentence = "a batch of 32 has 3.2 images with labels on average: data.labelled_share=0.5 gives it more"
    assert (sentence in said("data.samples_per_class=40", "recipe.batch_size=32", *words)) == told


def test_an_epoch_of_another_size_says_what_it_shows() -> None:
    words = ("mode=scratch", "data.samples_per_class=40", "recipe.batch_size=32")
    assert said(*words, "data.epoch_size=640") == "an epoch shows each of the 400 images 1.6 times (data.epoch_size)"
    fewer = "an epoch shows 64 of the 400 images, other ones each time (data.epoch_size)"
    assert said(*words, "data.epoch_size=64") == fewer
    assert "data.epoch_size" not in said(*words, "data.epoch_size=400")


@pytest.mark.parametrize(("own", "told"), [("0.1", True), ("0.2", False), ("null", False)])
def test_a_drop_path_that_the_encoder_decides_is_said(own: str, told: bool) -> None:
    sentence = "recipe.drop_path=0.2 is not used: encoder=cct_2 has its own, encoder.drop_path=0.1"
    words = ("encoder=cct_2", f"encoder.drop_path={own}", "recipe.drop_path=0.2", "data.samples_per_class=10")
    assert (sentence in said(*words, "recipe.batch_size=50")) == told


def test_what_little_data_makes_of_a_setting_is_said() -> None:
    words = ("data.samples_per_class=10", "recipe.batch_size=64", "epochs=2")
    assert "trains on 64 of 100 images and leaves out 36, other ones each time" in said(*words, "recipe.drop_last=true")
    assert said(*words) == ""
    assert "trains on 128 of 130 images and leaves out 2" in said(
        "data.samples_per_class=13", "recipe.batch_size=64", "recipe.drop_last=true", "epochs=2"
    )
    assert "the last step of an epoch has 1 of trainer.accumulate=3" in said(
        *words, "recipe.batch_size=25", "trainer.accumulate=3"
    )
    assert "averages over 5,000 steps, and there are 4" in said(*words, "recipe.ema_decay=0.9998")


@pytest.mark.parametrize(
    ("asked", "batches", "eval_batches", "epochs"),
    [
        ("auto", 10, 1, 1),
        ("auto", 10, 3, 1),
        ("auto", 10, 4, 2),
        ("auto", 32, 157, 17),  # 2,000 training images, 10,000 test images
        ("auto", 1, 1000, 100),
        (7, 1, 1000, 7),
        (700, 1, 1, 100),
    ],
)
def test_auto_evaluates_so_often_that_it_takes_a_tenth_of_the_training(
    asked: int | str, batches: int, eval_batches: int, epochs: int
) -> None:
    assert evaluation_period(asked, 100, batches=batches, eval_batches=eval_batches) == epochs


def test_auto_is_said_and_evaluates_every_few_epochs_and_after_the_last(tmp_path: Path) -> None:
    words = ("mode=scratch", "eval_every=auto", "data.max_test=80", "epochs=3")
    assert "evaluates every 2 epochs and after the last one" in said(*words)
    assert "evaluates every" not in said(*words, "data.max_test=40")
    record = record_of(train(*words, runs=tmp_path))
    rows = record["phases"][0]["history"]
    assert ["test/acc1" in row for row in rows] == [False, True, True]
    assert record["metrics"]["test"]["acc1"]["last"] == rows[-1]["test/acc1"]


def test_published_sets_drop_the_last_batch_as_the_authors_and_others_keep_it(tmp_path: Path) -> None:
    run = configured("data.samples_per_class=10", "recipe.batch_size=64")
    assert not build_data(run, run.mode.phases[0]).drop_last
    official = configured("data=svhn", f"data.root={tmp_path}", "data.verify=false")
    assert is_official(official) and not is_official(run)


def test_the_record_says_how_many_images_an_epoch_trains_on(tmp_path: Path) -> None:
    words = ("mode=scratch", "data.samples_per_class=10", "recipe.batch_size=64", "epochs=1")
    assert record_of(train(*words, runs=tmp_path))["phases"][0]["images_per_epoch"] == 100
    dropped = train(*words, "recipe.drop_last=true", "name=dropped", runs=tmp_path)
    assert record_of(dropped)["phases"][0]["images_per_epoch"] == 64


def test_pixels_of_a_patch_of_one_are_not_normalised() -> None:
    encoder = VisionTransformer(img_size=4, patch_size=1, embed_dim=16, depth=1, num_heads=2)
    with pytest.raises(UserError, match=r"encoder\.patch_size=1 has only one") as refused:
        Reconstruction(encoder, norm_pix=True, decoder_dim=16, decoder_heads=2)
    assert refused.value.key == "recipe.norm_pix"


def test_a_step_that_no_epoch_fills_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="trainer.accumulate=8 is more than the 2 batches"):
        train(
            "mode=scratch", "data.samples_per_class=10", "recipe.batch_size=64", "trainer.accumulate=8", runs=tmp_path
        )
    assert not list(tmp_path.rglob("*"))


def test_an_average_that_never_moves_is_refused() -> None:
    with pytest.raises(UserError, match="recipe.ema_decay=1 would evaluate an average that never moves"):
        configured("recipe.ema_decay=1.0")
