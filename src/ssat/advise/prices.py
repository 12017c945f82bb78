"""Seconds of a training by its epochs, from the estimator: how many epochs fit into given time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ssat.config.schema import Run
from ssat.core.errors import UserError

if TYPE_CHECKING:  # torch takes seconds
    from ssat.estimate.cost import Cost
    from ssat.estimate.prediction import Amount

WINDOWS = (1.0, 10.0)  # seconds of timed batches of a calibration: a hundredth of the budget, within these
LEAST_SHARE = 0.05  # of a CPU; a smaller one was not measured well
FAR = 1000  # epochs at which a line through the prediction is taken: there rounding to whole epochs is nothing


@dataclass(frozen=True)
class Price:
    """Seconds of one phase: `fixed` + its epochs * `epoch`."""

    fixed: float
    epoch: float

    def seconds(self, epochs: int) -> float:
        """Of a phase of so many epochs."""
        return self.fixed + epochs * self.epoch

    def epochs(self, seconds: float) -> int:
        """The most epochs that fit, at least one."""
        return max(1, int((seconds - self.fixed) / self.epoch))


def seconds_of(prices: Sequence[Price], epochs: Sequence[int]) -> float:
    """Of a training with so many epochs of each phase."""
    return sum(price.seconds(count) for price, count in zip(prices, epochs, strict=True))


def epochs_in(prices: Sequence[Price], seconds: float) -> list[int]:
    """The epochs of each phase that fit; two phases have half of the time each."""
    return [price.epochs(seconds / len(prices)) for price in prices]


def window_of(budget: float) -> float:
    """Seconds of timed batches that a calibration is given."""
    return min(max(budget / 100, WINDOWS[0]), WINDOWS[1])


def evened(prices: Sequence[Price], shares: Sequence[float]) -> list[Price]:
    """Prices as if every calibration had had the processor for the same share of the time, the mean of all.

    Where a CPU has other work that comes and goes, a candidate that was timed in a busy moment would else seem dear.
    """
    mean = sum(shares) / len(shares)
    factors = [share / mean for share in shares]
    return [Price(price.fixed * f, price.epoch * f) for price, f in zip(prices, factors, strict=True)]


def prices_of(pilot: Run, final: Run, *, window: float) -> tuple[list[Price], list[Price], list[float]]:
    """What each phase of a pilot and of the final training costs on this machine.

    Their steps cost the same and are calibrated once; the pilots have fewer images and one evaluation, at the end.

    Args:
        pilot: the configuration of a pilot.
        final: that of the final training.
        window: seconds of timed batches of a calibration.

    Returns:
        the prices of the pilot and of the final training, and the share of the time that each phase had a CPU (GPU: 1).

    Raises:
        UserError: what the runs themselves would raise.
    """
    from ssat.estimate.command import key_and_amount, measured
    from ssat.runs.machine import runs_on_cpu

    of_pilot, of_final, shares = [], [], []
    for index in range(len(final.mode.phases)):
        cost, amount = measured(final, index, window)
        if cost is None:
            raise UserError("advise estimates in one process: start it without torchrun or srun")
        of_final.append(_line(final, index, cost, amount))
        _, fewer = key_and_amount(pilot, index)
        line = _line(replace(pilot, eval_every=2 * FAR + 1), index, cost, fewer)
        once = cost.evaluation + fewer.eval_batches * cost.eval_batch
        of_pilot.append(Price(line.fixed + once, line.epoch))
        shares.append(max(cost.cpu_share, LEAST_SHARE) if runs_on_cpu(final) else 1.0)
    return of_pilot, of_final, shares


def _line(config: Run, index: int, cost: Cost, amount: Amount) -> Price:
    """The straight line through two predictions."""
    from ssat.estimate.prediction import Done, predict

    phase = config.mode.phases[index]
    near, far = (
        predict(config, replace(phase, epochs=epochs), cost, amount, Done())["seconds"] for epochs in (FAR, 2 * FAR)
    )
    epoch = (far - near) / FAR
    return Price(max(0.0, near - FAR * epoch), epoch)
