"""Numbers that follow from cells, as those of the paper's text do, and how sure they are."""

from __future__ import annotations

import math
from collections.abc import Sequence


def derived(kind: str, values: Sequence[float]) -> float:
    """A number that follows from others: `relative` gain or `reduction`, both in %, `difference` or mean."""
    if kind == "relative":
        return 100 * (values[0] / values[1] - 1) if values[1] else math.inf
    if kind == "reduction":
        return 100 * (1 - values[0] / values[1]) if values[1] else -math.inf
    if kind == "difference":
        return values[0] - values[1]
    return sum(values) / len(values)


def margin_of(kind: str, values: Sequence[float], tolerances: Sequence[float | None]) -> float | None:
    """How sure a derived number is: each cell moved by its tolerance, the changes added in squares; None = unknown."""
    if None in tolerances:
        return None
    base, changes = derived(kind, values), []
    for index, tolerance in enumerate(tolerances):
        moved = [*values]
        moved[index] += tolerance or 0.0
        changes.append(derived(kind, moved) - base)
    return math.hypot(*changes)
