"""Seconds and energy of a phase, over all its starts."""

from __future__ import annotations

import time
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback

from ssat.runs.energy import EnergyMeter
from ssat.runs.neighbours import Presence
from ssat.training.callbacks.spare import spare


def either(*shared: bool | None) -> bool | None:
    """Whether the energy of several parts is shared: that of one of them; None where it is not known of one."""
    return True if True in shared else None if None in shared else False


@spare
class Meter(Callback):
    """Seconds and energy of the phase, carried through checkpoints; a killed run loses what it spent after its last.

    The energy is the whole machine's: `shared` says whether another training has run there at the same time.
    """

    def __init__(self, country: str | None) -> None:
        self._country = country
        self._meter: EnergyMeter | None = None
        self._presence: Presence | None = None
        self._before: dict[str, Any] = {"seconds": 0.0, "kwh": 0.0, "co2_kg": 0.0, "source": None, "shared": False}
        self._started = 0.0
        self.totals: dict[str, Any] = {}

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock and codecarbon."""
        self._started = time.perf_counter()
        if trainer.local_rank == 0:
            self._presence = Presence()
        if self._country and trainer.local_rank == 0:
            self._meter = EnergyMeter(self._country)
            self._meter.start()

    def _add(self, energy: dict[str, Any]) -> dict[str, Any]:
        seconds = self._before["seconds"] + time.perf_counter() - self._started
        # Energy that was measured for a part of the seconds only is not that of the phase.
        whole = bool(energy) and (self._before["source"] is not None or not self._before["seconds"])
        shared = either(self._before.get("shared"), self._presence.shared if self._presence else False)
        if not whole:
            return self._before | {"seconds": seconds, "source": None, "shared": shared}
        return {
            "seconds": seconds,
            "shared": shared,
            "kwh": self._before["kwh"] + energy["kwh"],
            "co2_kg": self._before["co2_kg"] + energy["co2_kg"],
            "source": energy["source"],
        }

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop them, and keep the totals."""
        self.totals = self._add(self._meter.stop() if self._meter else {})
        self._end()

    def _end(self) -> None:
        self._meter = None
        if self._presence:
            self._presence.leave()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Stop them also when the fit fails."""
        if self._meter:
            self._meter.stop()
        self._end()

    def state_dict(self) -> dict[str, Any]:
        """The totals so far."""
        return self._add(self._meter.read() if self._meter else {})

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Add to the totals of a checkpoint."""
        self._before = dict(state_dict)
