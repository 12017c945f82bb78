"""The one number of a run that a search for the best values compares, and that tables show first."""

from __future__ import annotations

from typing import Any

from ssat.runs.record import as_number, lookup


def decisive_name(record: dict[str, Any]) -> str:
    """The measure that chooses the best epoch: `acc1` for images, `map` where an image has several labels, unless
    `monitor.select` names another; a loss where no labels are learned."""
    metrics = lookup(record, "metrics.val") or lookup(record, "metrics.test")
    metrics = metrics if isinstance(metrics, dict) else {}
    if "map" in metrics:
        return str(lookup(record, "config.monitor.select") or "map")
    if "acc1" not in metrics:
        return "loss"
    if lookup(record, "config.data.frames") is not None:
        return "auc" if "auc" in metrics else "balanced_acc"
    return str(lookup(record, "config.monitor.select") or "acc1")


def decisive(record: dict[str, Any]) -> float | None:
    """The decisive number of a finished run.

    With a validation split it is the best of its epochs there, so that a search does not look at the test images. Else
    it is what tables show of the test images: the last epoch's, or the best one's under `recipe.report=max`.

    Args:
        record: of the run, the content of its result.json.
    """
    name = decisive_name(record)
    if name == "loss":
        split = "test" if lookup(record, "metrics.val") is None else "val"
        return as_number(lookup(record, f"metrics.{split}.loss.last"))
    if lookup(record, "metrics.val") is not None:
        return as_number(lookup(record, f"metrics.val.{name}.best"))
    chosen = "best" if record.get("selection") == "max" else "last"
    return as_number(lookup(record, f"metrics.test.{name}.{chosen}"))
