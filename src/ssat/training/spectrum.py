"""How many dimensions an encoder's features use: RankMe and the spectrum, and an alarm where they have collapsed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from ssat.core.launch import say
from ssat.runs.record import as_number
from ssat.runs.spectrum import PICTURE, read_spectra, write_spectra
from ssat.training.data import AnyData
from ssat.training.probe import evaluated_features, is_due

EPSILON = 1e-7  # Garrido et al. 2023, Eq. 1, for features in fp32
COLLAPSED = 1.75  # RankMe; see `collapse`
NAME = "rankme"


def spectrum(features: Tensor) -> Tensor:
    """Singular values (min(N, D),) of `features` (N, D), in descending order, divided by their sum; on the CPU.

    The features are not centred, as in Garrido et al. 2023: equal features of all images have one value that is not 0.
    Features of zeros alone have zeros alone, and NaN those that are not finite.
    """
    if not features.isfinite().all():
        return torch.full((min(features.shape),), torch.nan, dtype=torch.float64)
    values = torch.linalg.svdvals(features.double().cpu())
    return values / values.sum().clamp_min(torch.finfo(torch.float64).tiny)


def rankme(values: Tensor) -> float:
    """RankMe of a `spectrum`: exp(-sum p log p) with p = value + 1e-7 (Garrido et al. 2023, Eq. 1).

    It is 1 where all features lie on one line through 0, and D where the D singular values are equal.
    """
    p = values + EPSILON
    return float((-(p * p.log()).sum()).exp())


def collapse(rows: Iterable[Mapping[str, Any]], split: str) -> dict[str, Any] | None:
    """The epochs (from 0) of a phase at which its features had collapsed, and their lowest RankMe.

    The bound COLLAPSED lies between what was measured on the digits with 96 features: 1.2 to 1.5 in trainings that a
    too high rate had destroyed (k-NN 17 to 42 %), 2.0 and more in all others (docs/ssl_tasks.md). It is no share of the
    number of features: their mean is most of the spectrum, also of sound ones, whose RankMe was 2.8 to 12.

    Args:
        rows: of the phase's epochs.
        split: on which its features were measured.

    Returns:
        what the record says; None where RankMe was never below COLLAPSED, or not measured.
    """
    measured = [(as_number(row.get(f"{split}/{NAME}")), int(row["epoch"])) for row in rows]
    low = {epoch: value for value, epoch in measured if value is not None and value < COLLAPSED}
    if not low:
        return None
    last = max(epoch for value, epoch in measured if value is not None)
    return {"epochs": sorted(low), "at_the_end": last in low, "rankme": min(low.values()), "bound": COLLAPSED}


class RankMonitor(Callback):
    """RankMe of the evaluated images' features at every `every`-th epoch's evaluation, and their spectrum as a file.

    The file and its picture are in `folder`; epochs that an interrupted run repeats are replaced there.
    """

    def __init__(self, every: int, folder: Path, data: AnyData) -> None:
        self._every, self._folder, self._data = every, folder, data
        self._said = False

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Measure the features at the epochs at which it is due."""
        if not is_due(trainer, self._every):
            return
        split = pl_module.eval_split
        features, _ = evaluated_features(pl_module.encoder, self._data.eval_loader(split), pl_module.device)
        values = spectrum(features)
        rank = rankme(values)
        # Equal on all ranks already.
        pl_module.log(f"{split}/{NAME}", rank, sync_dist=True)
        self._warn(rank, trainer.current_epoch, features)
        if trainer.is_global_zero:
            self._keep(trainer, trainer.current_epoch, values)

    def _warn(self, rank: float, epoch: int, features: Tensor) -> None:
        if rank < COLLAPSED and not self._said:
            self._said = True
            say(
                f"{self._folder.name}: the features have collapsed, they are almost the same for all {len(features):,}"
                f" images: RankMe is {rank:.2f} of at most {min(features.shape)} after epoch {epoch + 1}, and below"
                f" {COLLAPSED:g} little is left to learn from (docs/ssl_tasks.md says what to change)"
            )

    def _keep(self, trainer: pl.Trainer, epoch: int, values: Tensor) -> None:
        """Add the epoch to the file, draw it again and hand the picture to the loggers."""
        from ssat.results.spectra import draw_spectra  # matplotlib takes a second

        before = {old: row for old, row in read_spectra(self._folder).items() if old < epoch}
        spectra = before | {epoch: values.tolist()}
        write_spectra(self._folder, spectra)
        picture = draw_spectra(spectra, f"Spectrum of the features, {self._folder.name}", self._folder / PICTURE)
        for logger in trainer.loggers:
            if hasattr(logger, "log_image"):
                logger.log_image("spectrum", [picture], step=trainer.global_step)
            elif isinstance(logger, pl.loggers.TensorBoardLogger):
                logger.experiment.add_image("spectrum", picture, trainer.global_step, dataformats="HWC")
