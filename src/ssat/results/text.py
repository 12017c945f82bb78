"""Numbers and text in the form that reports show."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from ssat.config.words import as_typed_here
from ssat.runs.record import Record

FEWER_RUNS = as_typed_here(
    "python -m src.report runs=<a folder with fewer runs>"
)  # the command that shows what a report leaves out
Item = TypeVar("Item")


def quantity(value: float, unit: str) -> str:
    """Three digits with the fitting prefix: 0.0404 Wh is 40.4 mWh."""
    prefixes = ((1e9, "G"), (1e6, "M"), (1e3, "k"), (0.1, ""))
    least, prefix = next(((least, p) for least, p in prefixes if abs(value) >= least * 0.9995), (1e-3, "m"))
    factor = least if prefix else 1.0
    return f"{value / factor:#.3g}".rstrip(".") + f" {prefix}{unit}"


def two_decimals(value: float) -> str:
    """A number with two decimals."""
    return f"{value:.2f}"


def compact(value: float) -> str:
    """A number without needless digits: 1,200 or 0.25 or 1.5e-07."""
    if value and not 1e-3 <= abs(value) < 1e6:
        return f"{value:.3g}"
    return f"{value:,.3f}".rstrip("0").rstrip(".")


def with_minus(text: str) -> str:
    """`text` with the minus sign of print, which is as wide as the plus sign."""
    return text.replace("-", "−")


def shorten(text: str, most: int = 36) -> str:
    """The first `most` characters of `text`; an ellipsis shows that something was cut off."""
    return text if len(text) <= most else text[: most - 1] + "…"


def distinct(words: Iterable[str]) -> list[str]:
    """The words without repetitions and empty ones, in their order."""
    return list(dict.fromkeys(word for word in words if word))


def largest(items: Sequence[Item], size: Callable[[Item], int], *, most: int) -> list[Item]:
    """The `most` items of the greatest size, in their own order."""
    kept = sorted(range(len(items)), key=lambda index: -size(items[index]))[:most]
    return [items[index] for index in sorted(kept)]


def shared_energy(records: Iterable[Record]) -> str:
    """A sentence on the runs whose measured energy is left out because it is not theirs alone; empty without any."""
    metered = [record for record in records if record.finished and record.get("energy.source")]
    sharing = sum(record.shares_energy for record in metered)
    if not sharing:
        return ""
    return (
        f"{sharing} of {len(metered)} runs with measured energy ran beside another training on their machine. What each"
        " of them measured is the energy of the whole machine, so it is left out of tables, charts and sums. The"
        " records have it, marked as energy.shared."
    )
