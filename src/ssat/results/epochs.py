"""How long runs have trained: said from the records of their phases, never from what was asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from ssat.results.text import distinct
from ssat.runs.record import Record, as_number


class Trained(NamedTuple):
    """The epochs of one phase: begun, of its schedule, and the optimizer steps; None where the record lacks them."""

    begun: float
    planned: float
    steps: float | None


def trained(phase: dict[str, Any]) -> Trained | None:
    """What a phase has trained; its history has a row for each epoch that it began."""
    planned = as_number(phase.get("epochs"))
    if planned is None:
        return None
    rows = phase.get("history")
    numbers = [as_number(row.get("epoch")) for row in (rows if isinstance(rows, list) else ()) if isinstance(row, dict)]
    begun = max((number + 1 for number in numbers if number is not None), default=planned)
    return Trained(min(begun, planned), planned, as_number(phase.get("steps")))


def last_phase_epochs(record: Record) -> float | None:
    """Epochs that the run's last phase has trained, which is the one that its accuracy is of."""
    found = trained(record.phases[-1]) if record.phases else None
    return None if found is None else found.begun


def epochs_text(record: Record, *, last: bool = False) -> str:
    """'100 epochs', '50 + 100 epochs', '6 of 30 epochs (60 steps)'.

    A record without phases has only the number that was asked for; it is empty where the record has neither.

    Args:
        record: of the run.
        last: of its last phase alone.
    """
    phases = record.phases[-1:] if last else record.phases
    found = [each for phase in phases if (each := trained(phase)) is not None]
    if not found or len(found) < len(phases):
        asked = record.number("config.epochs")
        return "" if asked is None else f"{asked:.0f} epoch{'s' * (asked != 1)}"
    if all(each.begun == each.planned for each in found):
        return (
            f"{' + '.join(f'{each.begun:.0f}' for each in found)} epoch{'s' * (found[-1].begun != 1 or len(found) > 1)}"
        )
    return " + ".join(map(_cut_short, found))


def _cut_short(each: Trained) -> str:
    if each.begun == each.planned:
        return f"{each.begun:.0f} epochs"
    steps = "" if each.steps is None else f" ({each.steps:,.0f} step{'s' * (each.steps != 1)})"
    return f"{each.begun:.0f} of {each.planned:.0f} epochs{steps}"


def epochs_of_all(records: Sequence[tuple[str, Record]]) -> str:
    """The epochs of several runs, each a name and a record: '100 epochs (scratch, SSAT), 100 + 100 epochs (SSL+FT)'."""
    names: dict[str, list[str]] = {}
    for name, record in records:
        if text := epochs_text(record):
            names.setdefault(text, []).append(name)
    if len(names) < 2:
        return "".join(names)
    return ", ".join(f"{text} ({', '.join(distinct(found))})" for text, found in names.items())
