"""What a run has of each measure of the paper's cells."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ssat.results.paper.paper import Cell
from ssat.results.paper.videos import hash_now, official_videos, zero_shot_accuracy
from ssat.runs.record import Record, as_number, as_percentage, lookup, read_json

# The settings of the command that measures Table 2's perspective cells.
PERSPECTIVE = {
    "checkpoint": "last",
    "split": "test",
    "phase": "",
    "probe": "",
    "data.perturb": "perspective",
    "seeds": "5",
}


def measure(cell: Cell, record: Record) -> float | None:
    """A run's value of a cell's measure, in the unit of the paper's tables; None where the run does not have it."""
    if cell.measure == "zero_shot":
        return zero_shot_accuracy(record, cell.column)
    if cell.measure == "videos":
        return official_videos(record, cell.row, cell.column)
    return MEASURES[cell.measure](record) if cell.measure in MEASURES else None


def _gflops(record: Record) -> float | None:
    """GMAC of the passes of all phases (Table 3: 0.43+1.26).

    A phase that learns only labels has the full pass, one without labels the auxiliary pass, a joint one both.
    """
    total = 0.0
    for phase in record.phases:
        lam = as_number(phase.get("lam"))
        if lam is None:
            return None
        key = "full" if lam == 1 else "auxiliary" if lam == 0 else "both"
        macs = as_number(lookup(phase, f"macs.{key}"))
        if macs is None:
            return None
        total += macs / 1e9
    return total or None


def _hours(record: Record) -> float | None:
    """Hours times devices."""
    seconds = record.number("seconds")
    devices = record.number("hardware.processes") if record.get("hardware.accelerator") == "cuda" else 1
    return None if seconds is None else seconds / 3600 * (devices or 1)


def _perspective(record: Record) -> float | None:
    """Mean accuracy on the perturbed test images, from the file that src.evaluate has written beside the run.

    Only of this run, its last weights, all its test images and the command's own perturbation.
    """
    try:
        values = read_json(record.folder / "evaluations" / "last-test-perspective.json")
    except ValueError:
        return None
    settings = lookup(values, "settings")
    settings = settings if isinstance(settings, dict) else {}
    said, overrides = {key: settings.get(key) for key in PERSPECTIVE}, settings.get("overrides") or []
    is_own = lookup(values, "hash") in (record.get("hash"), hash_now(record))
    on_all = lookup(values, "data_fingerprint.splits.test") == record.get("data_fingerprint.splits.test")
    content = lookup(values, "data_fingerprint.sha256.test") == record.get("data_fingerprint.sha256.test")
    if not (is_own and on_all and content and said == PERSPECTIVE) or any(map(_changes_images, overrides)):
        return None
    return as_percentage(lookup(values, "summary.acc1_mean"))


def _changes_images(override: Any) -> bool:
    return not isinstance(override, str) or (override.startswith("data.") and not override.startswith("data.root="))


def _scaled(key: str, factor: float) -> Callable[[Record], float | None]:
    def read(record: Record) -> float | None:
        value = record.number(key)
        return None if value is None else value / factor

    return read


MEASURES: dict[str, Callable[[Record], float | None]] = {
    "acc1": lambda record: record.accuracy,
    "perspective": _perspective,
    "params_inference": _scaled("params.inference", 1e6),
    "params_training": _scaled("params.training", 1e6),
    "gflops": _gflops,
    "hours": _hours,
    "co2_kg_lacoste": lambda record: record.number("energy.co2_kg_lacoste"),
    "train_images": lambda record: record.number("data_fingerprint.splits.train"),
    "test_images": lambda record: record.number("data_fingerprint.splits.test"),
    "classes": lambda record: record.classes,
    "img_size": lambda record: record.number("config.data.img_size"),
}
