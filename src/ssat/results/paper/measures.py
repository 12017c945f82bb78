"""What a run has measured, in the units of the paper's tables."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from ssat.results.paper.evaluations import does_not_count, read_evaluation, settings_faults
from ssat.results.paper.paper import Cell
from ssat.results.paper.videos import official_videos, why_not_zero_shot, zero_shot_accuracy
from ssat.runs.record import Record, as_number, as_percentage, lookup

# The settings of the command that measures Table 2's perspective cells.
PERSPECTIVE = {
    "checkpoint": "last",
    "split": "test",
    "phase": "",
    "probe": "",
    "data.perturb": "perspective",
    "seeds": "5",
}
PERSPECTIVE_FILE = "last-test-perspective.json"
CLEAN_TOLERANCE = 0.5  # points: the same weights on another device or in another precision
MEAN_TOLERANCE = 0.01


def measure(cell: Cell, record: Record) -> float | None:
    """A run's value of a cell's measure, in the unit of the paper's tables; None where the run does not have it."""
    if cell.measure == "zero_shot":
        return zero_shot_accuracy(record, cell.column)
    if cell.measure == "videos":
        return official_videos(record, cell.row, cell.column)
    return MEASURES[cell.measure](record) if cell.measure in MEASURES else None


def why_not(cell: Cell, record: Record) -> str:
    """Why something that was measured beside a run does not count; empty where it counts or there is nothing."""
    if cell.measure == "zero_shot":
        return why_not_zero_shot(record, cell.column)
    fault = _evaluation(record)[1] if cell.measure == "perspective" else ""
    return does_not_count(record, PERSPECTIVE_FILE, fault)


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
    """Mean accuracy on the perturbed test images, from the file that src.evaluate has written beside the run."""
    values, fault = _evaluation(record)
    return None if fault else as_percentage(lookup(values, "summary.acc1_mean"))


def _evaluation(record: Record) -> tuple[Any, str]:
    """The run's evaluation on perturbed images, and why it does not count: both empty where there is none.

    It counts if it is of this run, its last weights, all its test images and the command's own perturbation, and if
    neither the run's record nor its own parts contradict it.
    """
    return read_evaluation(record, PERSPECTIVE_FILE, partial(_faults, record))


def _faults(record: Record, values: Any) -> Iterator[str]:
    """What is wrong with an evaluation, in words."""
    yield from settings_faults(record, values, PERSPECTIVE, ("data.root=",))
    ours, whole = lookup(values, "data_fingerprint.splits.test"), record.number("data_fingerprint.splits.test")
    if ours != whole:
        yield f"it is of {ours} images, and the run's test set has {'an unknown number' if whole is None else whole}"
    if lookup(values, "data_fingerprint.sha256.test") != record.get("data_fingerprint.sha256.test"):
        yield "it is of other test images"
    clean, known = as_number(lookup(values, "clean.acc1")), record.number("metrics.test.acc1.last")
    if clean is not None and known is not None and abs(clean - known) > CLEAN_TOLERANCE:
        yield f"its accuracy on clean images is {clean:.2f} %, and the run's {known:.2f} %"
    mean, perturbed = as_percentage(lookup(values, "summary.acc1_mean")), lookup(values, "perturbed")
    if mean is None:
        yield "it has no mean accuracy from 0 to 100 %"
    elif isinstance(perturbed, dict):
        each = [number for key in perturbed if (number := as_percentage(lookup(perturbed[key], "acc1"))) is not None]
        if len(each) != int(PERSPECTIVE["seeds"]):
            yield f"it has {len(each)} accuracies, not {PERSPECTIVE['seeds']}"
        elif abs(statistics.fmean(each) - mean) > MEAN_TOLERANCE:
            yield f"its mean is {mean:.2f} %, and that of its accuracies {statistics.fmean(each):.2f} %"


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
