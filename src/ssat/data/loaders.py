"""What the data modules of images and of videos share: loaders in a known order, and the place to resume at."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import lightning.pytorch as pl
import torch

from ssat.core.batch import Batch
from ssat.data.options import check_batch
from ssat.data.sampler import (
    Batches,
    EpochLoader,
    EpochSampler,
    Labelled,
    eval_batches,
    images_per_rank,
    rank_and_world,
)
from ssat.data.shared import Shared
from ssat.data.subsets import Indices

EVALUATIONS = ("validate", "test", "predict")  # Lightning's stages that need no training samples


class LoaderModule(pl.LightningDataModule):
    """Loaders of training, validation and test samples: images, or clips, as the subclass says.

    The arguments are its own of the same names.
    """

    unit = "images"  # what a sample is, in sentences
    epoch_size: int | None = None  # samples of a training epoch, see `EpochSampler`; None = all of them once

    def __init__(self, *, batch_size: int, num_workers: int, seed: int, drop_last: bool, pin_memory: bool) -> None:
        super().__init__()
        self.batch_size, self.num_workers, self.seed = batch_size, num_workers, seed
        self.drop_last, self.pin_memory = drop_last, pin_memory
        self.skipped: list[str] = []  # files that were left out
        self.reshuffled = 0  # how often a training went back behind a loss that was not finite
        self._place = {"epoch": 0, "batches": 0}
        self._train_loader: EpochLoader | None = None

    def __str__(self) -> str:
        """The samples of each split; Lightning's own text would load batches of them."""
        sizes = ", ".join(f"{count:,} {split}" for split, count in self.sizes.items())
        return f"{type(self).__name__}({sizes or 'not set up'})"

    def setup(self, stage: str | None = None) -> None:
        """Choose the samples of every split; what only a training needs is not asked for in EVALUATIONS."""
        raise NotImplementedError

    @property
    def sizes(self) -> Mapping[str, int]:
        """Images, or videos, of each split that exists."""
        raise NotImplementedError

    def samples(self, split: str) -> int:
        """Images, or clips, that a pass over a split shows."""
        raise NotImplementedError

    def eval_loader(self, split: str, perturb: Any = None) -> EpochLoader:
        """Every sample of `split` once."""
        raise NotImplementedError

    def _of_epochs(self) -> Indices | Callable[[int], Indices]:
        """The training samples of every epoch, in any order; or a function of the epoch, which does not hold `self`.

        A module that its loader leads back to is freed by the garbage collector, and PyTorch then waits 5 s for each
        worker of the loader.
        """
        raise NotImplementedError

    def labelled_batches(self) -> Labelled | None:
        """How many samples of a training batch have labels; None = as they come."""
        return None

    def _train_samples(self, **options: Any) -> EpochLoader:
        """A loader of training samples; `options` say which when."""
        raise NotImplementedError

    def _are_few(self, samples: int, world: int) -> bool:
        """Whether they do not fill a batch, and are one of their own."""
        return False

    @property
    def eval_split(self) -> str:
        """The split that `val_dataloader` serves: `val` where there is one, else `test`."""
        return "val" if "val" in self.sizes else "test"

    @property
    def test_split(self) -> str:
        """The split that is predicted and drawn: `test` where there is one, else `val`."""
        return "test" if "test" in self.sizes else "val"

    @property
    def epoch_samples(self) -> int:
        """Samples of a training epoch, before those are dropped that do not fill a batch."""
        return self.epoch_size or self.samples("train")

    def images_per_epoch(self, world: int = 1) -> int:
        """Samples that an epoch trains on; the others do not fill a batch, other ones in each epoch."""
        samples = self.epoch_samples
        return world * images_per_rank(samples, self.batch_size, world, drop_last=self._drops_last(samples, world))

    def _drops_last(self, samples: int, world: int) -> bool:
        return self.drop_last and not self._are_few(samples, world)

    def _check_batch(self, samples: int, world: int) -> None:
        unit = f"{self.unit} of an epoch (data.epoch_size)" if self.epoch_size else self.unit
        check_batch(samples, self.batch_size, world, few=self._are_few(samples, world), unit=unit)

    def train_dataloader(self) -> EpochLoader:
        """The training samples, augmented and in a new order in every epoch; with `overfit_batches` always the same.

        Raises:
            UserError: they do not fill a batch of all processes.
        """
        self.setup()
        rank, world = rank_and_world(self.trainer)
        samples = self.epoch_samples
        self._check_batch(samples, world)
        sampler = EpochSampler(
            self._of_epochs(),
            batch_size=self.batch_size,
            size=samples,
            seed=self.seed,
            rank=rank,
            world=world,
            drop_last=self._drops_last(samples, world),
            reshuffled=self.reshuffled,
            labelled=self.labelled_batches(),
        )
        options: dict[str, Any] = {"batch_size": self.batch_size, "sampler": sampler}
        if getattr(self.trainer, "overfit_batches", 0):
            keys = list(sampler)
            options = {"batch_sampler": [keys[i : i + self.batch_size] for i in range(0, len(keys), self.batch_size)]}
        loader = self._train_samples(**options)
        loader.load_state_dict(self._place)
        self._place = {"epoch": 0, "batches": 0}
        self._train_loader = loader
        return loader

    def val_dataloader(self) -> EpochLoader:
        """The validation samples, or the test samples where there are none."""
        self.setup("validate")
        return self.eval_loader(self.eval_split)

    def test_dataloader(self) -> EpochLoader:
        """The test samples."""
        return self.eval_loader("test")

    def predict_dataloader(self) -> Batches:
        """The test samples, or the validation samples where there are none, in the order of the data set."""
        self.setup("predict")
        return Batches(self.eval_loader(self.test_split))

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """The batch on the device; where it is there already, Lightning's search for its tensors is saved."""
        if isinstance(batch, Batch) and batch.is_on(device):
            return batch
        return super().transfer_batch_to_device(batch, device, dataloader_idx)

    def _loader(self, dataset: Any, collate_fn: Any, *, num_workers: int | None = None, **kwargs: Any) -> EpochLoader:
        workers = self.num_workers if num_workers is None else num_workers
        return EpochLoader(
            dataset,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=self.pin_memory,
            collate_fn=Shared(collate_fn) if workers else collate_fn,
            **kwargs,
        )

    def _eval_batches(self, indices: Indices) -> list[list[tuple[int, int]]]:
        rank, world = rank_and_world(self.trainer)
        return eval_batches(indices, batch_size=self.batch_size, rank=rank, world=world, unit=self.unit)

    @property
    def _device(self) -> torch.device:
        return self.trainer.strategy.root_device if self.trainer else torch.device("cpu")

    def release(self) -> None:
        """Let go of the trainer, and of samples held in memory; what asks for them next reads them again."""
        self.trainer = self._train_loader = None

    def state_dict(self) -> dict[str, int]:
        """Epoch and batches handed out. The loader has the same state, but Lightning restores that one too late when
        `configure_optimizers` asks for the number of steps, which builds the loader."""
        return self._train_loader.state_dict() if self._train_loader else self._place

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Go on from there: in the next loader, or in the one that there is already."""
        self._place = state_dict
        if self._train_loader is not None:
            self._train_loader.load_state_dict(state_dict)
