"""The values of a training step: which are logged, and their means over an epoch's images.

A value is a scalar without a gradient. What is not measured at every step, or not of every image, brings a count of its
own: `acc1` may have `acc1_count`, and everything under `conflict/` has `conflict_count`.
"""

from __future__ import annotations

from collections.abc import Mapping

import lightning.pytorch as pl
import torch
from lightning.pytorch.strategies import Strategy
from torch import Tensor

IMAGES = "images"

Values = Mapping[str, Tensor]


def _is_count(name: str) -> bool:
    return name.endswith("_count")


def _count_of(name: str) -> str:
    return f"{name.partition('/')[0]}_count"


def watched(values: Values) -> dict[str, Tensor]:
    """What is measured at some steps only, and logged whenever it is, under its logged name."""
    return {f"train/{name}": value for name, value in values.items() if name.startswith("conflict/")}


def to_log(values: Values, trainer: pl.Trainer) -> dict[str, Tensor | float]:
    """Everything to log of a step, under its logged name; not what is a sum until it is divided by its count."""
    named = {name: value for name, value in values.items() if _count_of(name) not in values and not _is_count(name)}
    lr = trainer.optimizers[0].param_groups[-1]["lr"]
    return watched(values) | {f"train/{name}": value for name, value in named.items()} | {"lr": lr}


def show(named: Mapping[str, Tensor | float], trainer: pl.Trainer) -> None:
    """Show callbacks and progress bars what was measured in a step, as `self.log(..., logger=False)` would.

    That one takes 0.4 ms for each value, and keeps Lightning looking at them after every step.
    """
    if named:
        trainer.callback_metrics.update({name: torch.as_tensor(value) for name, value in named.items()})


def write(named: Mapping[str, Tensor | float], trainer: pl.Trainer) -> None:
    """Write what was measured in a step to the loggers, at that step.

    Lightning's own way would write it again at every step, until something else is measured.
    """
    if not named or not trainer.loggers:
        return
    row = {name: float(value) for name, value in named.items()} | {"epoch": trainer.current_epoch}
    for logger in trainer.loggers:
        logger.log_metrics(row, step=trainer.global_step)
        logger.save()


class EpochMeans:
    """Running sums of the values; they stay on the device, where reading one would wait for it.

    Attributes:
        sums: of the values that came together, in one vector (their number,), by their names with spaces between.
    """

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self._weights: dict[tuple[str, int, torch.device], tuple[Tensor, Tensor]] = {}

    def add(self, values: Values, images: int) -> None:
        """Add the values of one step, which are means over so many images, or sums where they bring their count."""
        names, first = " ".join((IMAGES, *values)), next(iter(values.values()))
        one, weights = self._weights_of(names, images, first.device)
        row = torch.stack((one, *values.values())) * weights
        self.sums[names] = self.sums[names].to(row.device) + row if names in self.sums else row

    def _weights_of(self, names: str, images: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """A one, which counts the images, and (names,): what a step's values are multiplied by before the sum."""
        key = (names, images, device)
        if key not in self._weights:
            given = names.split()
            own = {name for name in given if _is_count(name) or _count_of(name) in given}
            # Filled there: numbers copied from the host would wait for the device.
            filled = [torch.full((), 1.0 if name in own else float(images), device=device) for name in given]
            self._weights[key] = torch.ones((), device=device), torch.stack(filled)
        return self._weights[key]

    def take(self, strategy: Strategy) -> dict[str, float]:
        """The means since the last call, over all processes, under their logged names; starts the next sums."""
        if not self.sums:
            return {}
        names, summed = [name for together in self.sums for name in together.split()], self._summed(strategy)
        self.sums, totals = {}, dict.fromkeys(names, 0.0)
        for name, value in zip(names, summed.tolist(), strict=True):
            totals[name] += value
        counts = {name: totals.pop(name) for name in list(totals) if _is_count(name)}
        images = totals.pop(IMAGES)
        divisors = {name: counts.get(_count_of(name), images) for name in totals}
        return {f"train/{name}": total / max(divisors[name], 1.0) for name, total in totals.items()}

    def _summed(self, strategy: Strategy) -> Tensor:
        """All sums over all processes, one after the other."""
        rows = [row.reshape(-1).to(strategy.root_device) for row in self.sums.values()]  # a checkpoint's are on the CPU
        return strategy.reduce(torch.cat(rows), reduce_op="sum")

    def state(self, strategy: Strategy) -> dict[str, Tensor]:
        """The sums over all processes as a checkpoint holds them: to the last bit, so in their own precision."""
        if not self.sums:
            return {}
        rows = self._summed(strategy).cpu().split([row.numel() for row in self.sums.values()])
        return {names: row.clone() for names, row in zip(self.sums, rows, strict=True)}

    def load(self, state: Mapping[str, Tensor | float], *, first: bool) -> None:
        """Go on from a checkpoint's sums, which the `first` process has: the others add nothing to them."""
        # Before 0.2 every step counted alike: that epoch's means begin anew.
        weighed = any(IMAGES in names.split() for names in state)
        rows = {names: torch.as_tensor(value) for names, value in state.items()} if weighed else {}
        self.sums = rows if first else {names: torch.zeros_like(row) for names, row in rows.items()}
