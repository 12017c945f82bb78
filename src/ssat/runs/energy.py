"""Energy and CO2 of a phase, by codecarbon's offline tracker."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from typing import Any

from ssat.core.errors import UserError
from ssat.core.words import printable

# codecarbon's names of the ways in which it reads a processor's power from sensors.
SENSORS = ("intel_rapl", "intel_power_gadget", "apple_powermetrics", "windows_emi")


def check_country(code: str) -> None:
    """codecarbon returns a number for an unknown country too, so the code is checked here.

    Raises:
        UserError: `code` is no ISO 3166 alpha-3 code with a known grid, or codecarbon is not installed.
    """
    try:
        from codecarbon.input import DataSource
    except ImportError as error:
        raise UserError(
            f"footprint.energy=true needs the package codecarbon ({error}): pip install codecarbon, or set"
            " footprint.energy=false",
            key="footprint.energy",
            value=True,
        ) from error

    from ssat.core.words import nearest

    known = sorted(DataSource().get_global_energy_mix_data())
    if code not in known:
        raise UserError(
            f"footprint.country={code!r} is not a known ISO 3166 alpha-3 code{nearest(str(code), known)}: "
            "use e.g. USA, FRA, DEU or IND"
        )


class EnergyMeter:
    """Energy of the whole machine from `start` to `stop`; one per node (rank 0 of it), or N ranks would count N times.

    On a machine without power sensors codecarbon models the power from the processor's TDP and load: an estimate. Its
    failure is one line on stderr: the totals are empty from then on, and the run goes on.
    """

    def __init__(self, country: str) -> None:
        self._country = country
        self._tracker: Any = None

    def start(self) -> None:
        """Begin to measure."""
        self._guarded(self._start)

    def read(self) -> dict[str, Any]:
        """Totals since `start`: `kwh`, `co2_kg` and `source`, how they were obtained; empty after a failure."""
        return self._guarded(self._read)

    def stop(self) -> dict[str, Any]:
        """End, and return kWh, kg CO2 and how they were measured."""
        totals = self._guarded(self._stop)
        self._tracker = None
        return totals

    def _guarded(self, call: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        if self._tracker is None and call != self._start:
            return {}
        try:
            return call()
        except Exception as error:
            self._tracker = None
            reason = " ".join(str(error).split()) or type(error).__name__
            said = f"codecarbon failed ({printable(reason):.200}), so the energy is not recorded"
            print(f"footprint.energy: {said}", file=sys.stderr)
            return {}

    def _start(self) -> dict[str, Any]:
        from codecarbon import OfflineEmissionsTracker

        logging.getLogger("codecarbon").setLevel(logging.CRITICAL)
        self._tracker = OfflineEmissionsTracker(
            country_iso_code=self._country,
            output_methods=[],
            log_level="critical",
            tracking_mode="machine",
            measure_power_secs=15,
            allow_multiple_runs=True,
        )
        self._tracker.start()
        return {}

    def _read(self) -> dict[str, Any]:
        self._tracker.flush()
        return self._totals(self._tracker._prepare_emissions_data())

    def _stop(self) -> dict[str, Any]:
        self._tracker.stop()
        return self._totals(self._tracker.final_emissions_data)

    def _totals(self, data: Any) -> dict[str, Any]:
        has_sensors = any(getattr(part, "_mode", None) in SENSORS for part in self._tracker._hardware)
        measured = ["GPU"] * bool(data.gpu_count) + ["CPU"] * has_sensors
        modelled = ["CPU"] * (not has_sensors) + ["RAM"]
        return {
            "kwh": float(data.energy_consumed),
            "co2_kg": float(data.emissions),
            "source": f"codecarbon, {' and '.join(measured)} measured, {' and '.join(modelled)} modelled"
            if measured
            else "codecarbon, modelled from CPU load",
        }


_ANSWERS: dict[str, float | None] = {}  # codecarbon starts programs and reads tables for two seconds


def device_tdp(accelerator: str) -> float | None:
    """Rated power of one device in watts: the GPU's limit, or codecarbon's table for this CPU; None when unknown."""
    if accelerator not in _ANSWERS:
        _ANSWERS[accelerator] = _asked(accelerator)
    return _ANSWERS[accelerator]


def remember_tdp(accelerator: str, watts: float | None) -> None:
    """What another process has been told: forked processes need not ask again."""
    _ANSWERS[accelerator] = watts


def _asked(accelerator: str) -> float | None:
    try:
        return _gpu_watts() if accelerator == "cuda" else _cpu_watts()
    except Exception:  # it is only written down: a missing library, driver or file ends no run
        return None


def _gpu_watts() -> float:
    import pynvml

    pynvml.nvmlInit()
    return pynvml.nvmlDeviceGetPowerManagementDefaultLimit(pynvml.nvmlDeviceGetHandleByIndex(0)) / 1000


def _cpu_watts() -> float | None:
    from codecarbon.core.cpu import TDP

    logging.getLogger("codecarbon").setLevel(logging.CRITICAL)
    tdp = TDP().tdp
    return float(tdp) if tdp else None
