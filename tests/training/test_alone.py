"""The framework in a notebook: its module and data under a `Trainer` of your own.

The first test is the example; the others are what else a notebook does.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from ssat.core.errors import UserError
from ssat.data.image import ImageDataModule
from ssat.data.sets.sources import digits
from ssat.encoders.vit import VisionTransformer
from ssat.tasks.reconstruction import Reconstruction
from ssat.training.module import JointModule
from ssat.training.optim import Optimization
from ssat.training.weighing import LamSchedule
from tests.helpers import largest_difference

SMALL_VIT = {"kind": "vit", "img_size": 16, "patch_size": 4, "embed_dim": 32, "depth": 2, "num_heads": 2}
MAE = {"kind": "reconstruction", "decoder_dim": 16, "decoder_depth": 1, "decoder_heads": 2}
QUIET: dict[str, Any] = {"accelerator": "cpu", "devices": 1, "logger": False, "enable_progress_bar": False}


def trainer(folder: Path, **options: Any) -> pl.Trainer:
    """A trainer of one's own; none of its options is set as the commands set it."""
    return pl.Trainer(default_root_dir=str(folder), enable_model_summary=False, **QUIET | {"max_epochs": 1} | options)


def test_a_notebook_trains_tests_predicts_and_loads(tmp_path: Path) -> None:
    """The example: digits of 16 x 16 pixels, a small ViT, masked reconstruction beside the labels (lam = 0.1)."""
    data = ImageDataModule(digits(), img_size=16, batch_size=32, pipeline="batched")
    module = JointModule(
        {"kind": "vit", "img_size": 16, "patch_size": 4, "embed_dim": 48, "depth": 2, "num_heads": 4},
        num_classes=data.num_classes,
        ssl={"kind": "reconstruction", "decoder_dim": 32, "decoder_depth": 1, "decoder_heads": 4},
        optimization=Optimization(base_lr=1.6e-2, warmup_epochs=1),
    )
    own = pl.Trainer(max_epochs=4, default_root_dir=str(tmp_path), **QUIET)
    own.fit(module, datamodule=data)
    (result,) = own.test(module, datamodule=data, verbose=False)
    assert result["test/acc1"] > 50
    probabilities = torch.cat(own.predict(module, datamodule=data))
    assert probabilities.shape == (360, 10)
    assert torch.allclose(probabilities.sum(1), torch.ones(360))
    right = probabilities.argmax(1).numpy() == digits().test.labels
    assert right.mean() * 100 == pytest.approx(result["test/acc1"], abs=1e-3)

    (path,) = tmp_path.rglob("*.ckpt")
    loaded = JointModule.load_from_checkpoint(path).eval()
    again = torch.cat(own.predict(loaded, datamodule=data))
    assert torch.equal(again, probabilities)


def plain_loader(images: int = 32, batch: int = 8) -> DataLoader:
    return DataLoader(TensorDataset(torch.randn(images, 3, 16, 16), torch.arange(images) % 10), batch_size=batch)


class Watcher(pl.Callback):
    """Notes the images' numbers and masks that the task was given."""

    def __init__(self, task: Reconstruction) -> None:
        self.seen: list[list[int]] = []
        self.masks: list[torch.Tensor] = []
        draw = task.draw_mask

        def watched(batch: Any) -> torch.Tensor:
            mask = draw(batch)
            if task.training:
                self.seen.append(batch.indices.tolist())
                self.masks.append(mask)
            return mask

        task.draw_mask = watched  # type: ignore[method-assign]


def test_plain_loaders_train_and_every_step_has_masks_of_its_own(tmp_path: Path) -> None:
    module = JointModule(SMALL_VIT, num_classes=10, ssl=MAE)
    assert module.lam == 0.1
    watcher = Watcher(module.ssl)
    own = trainer(tmp_path, max_epochs=2, callbacks=[watcher])
    own.fit(module, plain_loader(), plain_loader())
    assert sum(watcher.seen, []) == list(range(64))
    assert len({mask.numpy().tobytes() for mask in watcher.masks}) == 8
    assert {"val/acc1", "val/acc5", "val/loss", "train/loss", "epoch/train/loss_ssl", "lr"} <= set(own.callback_metrics)
    assert not any(name.startswith("test/") for name in own.callback_metrics)
    measured = {f"val/{name}" for name in ("acc1", "acc5", "loss", "balanced_acc", "macro_f1", "auroc")}
    assert own.validate(module, plain_loader(), verbose=False)[0].keys() == measured
    assert own.test(module, plain_loader(), verbose=False)[0].keys() == {
        name.replace("val", "test") for name in measured
    }
    assert len(own.predict(module, DataLoader(torch.randn(4, 3, 16, 16), batch_size=2))) == 2


def test_a_batch_of_another_kind_is_one_sentence(tmp_path: Path) -> None:
    module = JointModule(SMALL_VIT, num_classes=10)
    with pytest.raises(UserError, match=r"a batch is a dict, and the module takes \(images, targets\)"):
        trainer(tmp_path).fit(module, DataLoader([{"image": torch.randn(3, 16, 16)}] * 4, 2))


def test_the_schedule_ends_with_the_trainers_epochs_and_starts_from_the_loaders_batch(tmp_path: Path) -> None:
    module = JointModule(SMALL_VIT, num_classes=10)
    own = trainer(tmp_path, max_epochs=8)
    own.fit(module, plain_loader())
    assert own.optimizers[0].param_groups[0]["lr"] == pytest.approx(1e-6)
    (schedule,) = own.lr_scheduler_configs
    assert schedule.scheduler.base_lrs[0] == pytest.approx(1e-3 * 8 / 256)


@pytest.mark.parametrize("data", [None, "digits"])
def test_overfitting_sees_the_same_batches_in_every_epoch(tmp_path: Path, data: str | None) -> None:
    module = JointModule(SMALL_VIT, num_classes=10, ssl=MAE)
    watcher = Watcher(module.ssl)
    own = trainer(tmp_path, max_epochs=3, overfit_batches=2, callbacks=[watcher])
    if data is None:
        own.fit(module, plain_loader())
    else:
        own.fit(module, datamodule=ImageDataModule(digits(), img_size=16, batch_size=16))
        assert watcher.seen[:2] == watcher.seen[2:4] == watcher.seen[4:]
    assert own.global_step == 6


@pytest.mark.parametrize(
    ("steps", "optimization"), [(6, None), (8, Optimization(epochs=2)), (9, Optimization(epochs=2))]
)
def test_a_training_without_a_last_epoch_ends_its_schedule_with_the_last_step(
    tmp_path: Path, steps: int, optimization: Optimization | None
) -> None:
    module = JointModule(SMALL_VIT, num_classes=10, optimization=optimization)
    own = trainer(tmp_path, max_epochs=-1, max_steps=steps, enable_checkpointing=False)
    own.fit(module, plain_loader())
    assert own.global_step == steps
    assert own.optimizers[0].param_groups[0]["lr"] == pytest.approx(1e-6)


def test_a_training_without_any_end_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"max_epochs=-1.* set max_epochs or max_steps, or optimization="):
        trainer(tmp_path, max_epochs=-1).fit(JointModule(SMALL_VIT, num_classes=10), plain_loader())


class Endless(IterableDataset):
    def __iter__(self) -> Any:
        while True:
            yield torch.randn(3, 16, 16), 0


def test_a_loader_without_a_length_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the training loader has no length"):
        trainer(tmp_path).fit(JointModule(SMALL_VIT, num_classes=10), DataLoader(Endless(), 4))


def test_lightnings_distributed_sampler_is_refused_for_our_data(tmp_path: Path) -> None:
    own = trainer(tmp_path, strategy="ddp")
    data = ImageDataModule(digits(), img_size=16)
    try:
        with pytest.raises(UserError, match="use_distributed_sampler=False"):
            own.fit(JointModule(SMALL_VIT, num_classes=10), datamodule=data)
    finally:
        torch.distributed.destroy_process_group()


# --- loading


def saved(module: JointModule, folder: Path) -> Path:
    own = trainer(folder, enable_checkpointing=False)
    own.fit(module, plain_loader())
    own.save_checkpoint(folder / "own.ckpt")
    return folder / "own.ckpt"


def test_what_was_an_object_is_given_again(tmp_path: Path) -> None:
    def parts() -> dict[str, Any]:
        encoder = VisionTransformer(16, 4, embed_dim=32, depth=2, num_heads=2)
        return {"encoder": encoder, "ssl": Reconstruction(encoder, decoder_dim=16, decoder_depth=1, decoder_heads=2)}

    schedule = LamSchedule("balanced", every=2)
    path = saved(module := JointModule(**parts(), num_classes=10, lam=0.3, schedule=schedule), tmp_path)
    with pytest.raises(UserError, match=r"does not hold encoder and ssl: call load_from_checkpoint\(path, encoder="):
        JointModule.load_from_checkpoint(path)
    loaded = JointModule.load_from_checkpoint(path, **parts())
    assert largest_difference(loaded.state_dict(), module.state_dict()) == 0
    assert loaded.state_dict()["balance"] > 0
    assert (loaded.lam, loaded.weighing.schedule) == (0.3, schedule)


def test_a_checkpoint_holds_plain_values_only(tmp_path: Path) -> None:
    path = saved(JointModule(SMALL_VIT, num_classes=10, ssl=MAE, optimization=Optimization(eps=1e-7)), tmp_path)
    held = torch.load(path, weights_only=True)["hyper_parameters"]
    assert held["encoder"] == SMALL_VIT and held["optimization"]["eps"] == 1e-7
    assert JointModule.load_from_checkpoint(path).optimization == Optimization(eps=1e-7)
    assert JointModule.load_from_checkpoint(path, lam=0.5).lam == 0.5


@pytest.mark.parametrize("part", ["encoder", "ssl"])
def test_code_that_only_the_file_names_is_not_imported(tmp_path: Path, part: str) -> None:
    path = saved(JointModule(SMALL_VIT, num_classes=10, ssl=MAE), tmp_path)
    content = torch.load(path, weights_only=True)
    content["hyper_parameters"][part] = {"kind": "antigravity:geohash"}
    content["hyper_parameters"]["_instantiator"] = "antigravity.geohash"
    torch.save(content, path)
    with pytest.raises(UserError, match=f"does not hold {part}: call load_from_checkpoint"):
        JointModule.load_from_checkpoint(path)


def test_a_checkpoint_without_a_description_says_what_to_do(tmp_path: Path) -> None:
    torch.save({"state_dict": {}}, tmp_path / "bare.ckpt")
    with pytest.raises(UserError, match="does not say how its module was built"):
        JointModule.load_from_checkpoint(tmp_path / "bare.ckpt")


# --- values that do not fit


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"lam": 0.1}, "lam=0.1 weighs a self-supervised task with 0.9, and there is none: give ssl="),
        ({"num_classes": None}, "lam=1 needs labels: give num_classes="),
        ({"ssl": MAE, "lam": 1.5}, "lam=1.5 is outside"),
        ({"schedule": LamSchedule("balanced")}, "needs both losses"),
        ({"encoder": {"kind": "vitt"}}, "encoder.kind=vitt is not one of vit"),
        ({"encoder": SMALL_VIT | {"depht": 2}}, "no key encoder.depht: vit does not take it"),
        ({"encoder": "vit"}, "encoder='vit' is not possible"),
        ({"encoder": {"kind": "resnet_cifar", "img_size": 16}, "ssl": MAE}, "has no masked pass"),
    ],
)
def test_values_that_do_not_fit_are_one_sentence(arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError) as caught:
        JointModule(**{"encoder": SMALL_VIT, "num_classes": 10} | arguments)
    assert sentence in str(caught.value) and "\n" not in str(caught.value)


def test_a_module_without_labels_measures_its_task_and_predicts_nothing(tmp_path: Path) -> None:
    module = JointModule(SMALL_VIT, ssl=MAE, lam=0)
    own = trainer(tmp_path)
    own.fit(module, plain_loader())
    assert own.test(module, plain_loader(), verbose=False)[0].keys() == {"test/loss_ssl"}
    with pytest.raises(UserError, match="lam=0 has learned no labels"):
        own.predict(module, plain_loader())


def test_lam_1_computes_no_task() -> None:
    module = JointModule(SMALL_VIT, num_classes=10, ssl=MAE, lam=1)
    assert module.ssl is None
    assert not any(name.startswith("ssl.") for name in module.state_dict())
