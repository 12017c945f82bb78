"""The figures of a run's record for its trackers, each of which gets the same ones once the record is written."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from ssat.core.read import read_json
from ssat.tracking.names import figures

CONFIG = "config.yaml"  # in a run's folder


def final_figures(run_dir: Path, folder: Path) -> dict[str, Any]:
    """`result/...` of a phase that has finished: figures of the record, `result/hash` and the file `result/config`.

    Args:
        run_dir: of the run, whose record counts once there is one.
        folder: of the phase, whose record counts before.

    Returns:
        numbers, texts and whether the run is faithful; empty where the phase did not finish.
    """
    record = _read(run_dir, folder)
    if not record:
        return {}
    return figures(record) | {"result/hash": record.get("hash"), "result/config": str(run_dir / CONFIG)}


def numbers(values: dict[str, Any]) -> dict[str, float]:
    """Those that a curve can hold."""
    return {name: each for name, each in values.items() if isinstance(each, (int, float)) and type(each) is not bool}


def texts(values: dict[str, Any]) -> dict[str, str]:
    """The others, as text."""
    return {name: str(each) for name, each in values.items() if name not in numbers(values)}


def log_final(logger: Any, values: dict[str, Any]) -> None:
    """Hand `final_figures` to the `log_final` of a logger; one without it gets the numbers as its last row.

    Args:
        logger: of Lightning's kind.
        values: empty where the phase did not finish.
    """
    if hasattr(logger, "log_final"):
        logger.log_final(values)
    elif values:
        logger.log_metrics(numbers(values), values.get("result/steps"))
        logger.finalize("success")


def _read(run_dir: Path, folder: Path) -> dict[str, Any]:
    for path in (run_dir / "result.json", folder / "phase.json"):
        with suppress(OSError, ValueError):
            record = read_json(path)
            if record.get("status", "finished") == "finished":
                return record
    return {}
