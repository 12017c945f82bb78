from __future__ import annotations

import gc
import multiprocessing
import subprocess
import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from torch import nn

from ssat.data.image import ImageDataModule

Make = Callable[..., ImageDataModule]
OPTIONS = {"batch_size": 8, "fraction": 0.4}  # six batches an epoch


def seen(batches: list) -> list[list[int]]:
    return [batch.indices.tolist() for batch in batches]


@pytest.mark.parametrize("workers_before", [0, 2])
@pytest.mark.parametrize("workers_after", [0, 2])
def test_a_loader_goes_on_with_the_next_batch(make_data: Make, workers_before: int, workers_after: int) -> None:
    before = make_data(num_workers=workers_before, **OPTIONS).train_dataloader()
    before.sampler.set_epoch(2)
    iterator = iter(before)
    first = [next(iterator) for _ in range(4)]
    after = make_data(num_workers=workers_after, **OPTIONS).train_dataloader()
    after.load_state_dict(before.state_dict())
    after.sampler.set_epoch(2)
    whole = make_data(**OPTIONS).train_dataloader()
    whole.sampler.set_epoch(2)
    expected = list(whole)
    resumed = [*first, *after]
    assert seen(resumed) == seen(expected)
    assert all(torch.equal(a.images, b.images) for a, b in zip(resumed, expected, strict=True))


def test_the_epoch_after_a_resume_is_whole(make_data: Make) -> None:
    loader = make_data(**OPTIONS).train_dataloader()
    loader.load_state_dict({"epoch": 2, "batches": 4})
    loader.sampler.set_epoch(2)
    assert len(list(loader)) == 2
    loader.sampler.set_epoch(3)
    assert len(list(loader)) == 6


@pytest.mark.slow
def test_a_finished_epoch_is_not_repeated(make_data: Make) -> None:
    loader = make_data(**OPTIONS).train_dataloader()
    loader.load_state_dict({"epoch": 2, "batches": 6})
    loader.sampler.set_epoch(2)
    assert list(loader) == []
    loader.sampler.set_epoch(3)
    assert len(list(loader)) == 6


def test_prefetched_batches_do_not_count_as_seen(make_data: Make) -> None:
    loader = make_data(num_workers=2, **OPTIONS).train_dataloader()
    next(iter(loader))
    assert loader.state_dict() == {"epoch": 0, "batches": 1}


def test_a_data_module_whose_workers_have_started_is_freed_without_the_garbage_collector(make_data: Make) -> None:
    """From a cycle PyTorch's iterator is freed after its queues, and waits 5 s for each worker that hears nothing."""
    gc.collect()
    gc.disable()
    try:
        data = make_data(num_workers=1, **OPTIONS)
        next(iter(data.train_dataloader()))
        (worker,) = multiprocessing.active_children()
        module = weakref.ref(data)
        del data
        assert module() is None
        assert not worker.is_alive()
    finally:
        gc.enable()


def test_no_worker_outlives_a_pass_over_the_predictions(make_data: Make) -> None:
    loader = make_data(num_workers=1, **OPTIONS).predict_dataloader()
    once, again = list(loader), list(loader)
    assert multiprocessing.active_children() == []
    assert seen(once) == seen(again) and len(once) == len(loader)


class Witness(pl.LightningModule):
    """Notes the images it is trained on; asks for the number of steps in configure_optimizers, as the real one does."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.batches: list[tuple[int, list[int]]] = []

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        self.batches.append((self.current_epoch, batch.indices.tolist()))
        return self.weight * batch.images.mean()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        pass

    def configure_optimizers(self) -> torch.optim.Optimizer:
        assert self.trainer.estimated_stepping_batches == 18
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Keep(pl.Callback):
    """Saves a checkpoint after every batch, epoch and evaluation."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        trainer.save_checkpoint(self.folder / f"step-{trainer.global_step}.ckpt")

    def on_train_epoch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        trainer.save_checkpoint(self.folder / f"epoch-{trainer.global_step}.ckpt")

    def on_validation_end(self, trainer: pl.Trainer, *args: Any) -> None:
        trainer.save_checkpoint(self.folder / f"validation-{trainer.global_step}.ckpt")


def fit(data: ImageDataModule, folder: Path, checkpoint: Path | None = None, keep: bool = False) -> list:
    module = Witness()
    trainer = pl.Trainer(
        max_epochs=3,
        accelerator="cpu",
        devices=1,
        logger=False,
        callbacks=[Keep(folder)] if keep else [],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        default_root_dir=str(folder),
    )
    trainer.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    return module.batches


@pytest.mark.slow
def test_lightning_resumes_at_the_next_batch_from_every_checkpoint(make_data: Make, tmp_path: Path) -> None:
    whole = fit(make_data(**OPTIONS), tmp_path, keep=True)
    assert len(whole) == 18
    checkpoints = sorted(tmp_path.glob("*.ckpt"))
    assert len(checkpoints) == 18 + 3 + 3
    for checkpoint in checkpoints:
        step = int(checkpoint.stem.partition("-")[2])
        assert fit(make_data(**OPTIONS), tmp_path, checkpoint) == whole[step:], checkpoint.name


def test_lightning_resumes_exactly_with_another_number_of_workers(make_data: Make, tmp_path: Path) -> None:
    whole = fit(make_data(num_workers=2, **OPTIONS), tmp_path, keep=True)
    for name in ("step-4", "step-6", "epoch-6", "validation-6", "step-13"):
        resumed = fit(make_data(num_workers=1, **OPTIONS), tmp_path, tmp_path / f"{name}.ckpt")
        assert resumed == whole[int(name.partition("-")[2]) :], name


PROGRAM = """
import hashlib
from ssat.data.dataset import ImageDataset, collate
from ssat.data.sampler import EpochLoader, EpochSampler
from ssat.data.sets.sources import digits
from ssat.data.transforms.timm_transforms import train_transform

def last_batches():
    images = digits().train
    transform = train_transform(16, mean=[.3] * 3, std=[.4] * 3, augment={augment})
    sampler = EpochSampler(range(len(images)), batch_size=32, seed=1)
    dataset = ImageDataset(images, transform, seed=1)
    loader = EpochLoader(dataset, batch_size=32, sampler=sampler, collate_fn=collate)
    loader.load_state_dict({{"epoch": 5, "batches": 42}})
    return [(batch.indices.tolist(), hashlib.sha256(batch.images.numpy().tobytes()).hexdigest()) for batch in loader]
"""


@pytest.mark.slow
def test_a_new_process_sees_the_same_batches(augment: dict[str, Any]) -> None:
    program = PROGRAM.format(augment=augment)
    here: dict[str, Any] = {}
    exec(program, here)
    there = subprocess.run(
        [sys.executable, "-c", program + "\nprint(last_batches())"], capture_output=True, text=True, check=True
    )
    expected = here["last_batches"]()
    assert len(expected) == 2 and there.stdout.strip() == repr(expected)
