"""What runs have spent together: a run that extends another one holds that one's seconds and energy in its own."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from ssat.results.copies import without_copies
from ssat.runs.record import Record

INHERITED = {  # key of a record's total -> of the part that the run before has spent
    "seconds": "extended.inherited.seconds",
    "energy.kwh": "extended.inherited.kwh",
    "energy.co2_kg": "extended.inherited.co2_kg",
    "energy.co2_kg_lacoste": "extended.inherited.co2_kg_lacoste",
}


def total_spent(records: Sequence[Record], key: str) -> float | None:
    """Sum of a key of `INHERITED` over the finished runs, each second and each Wh once; None where no run has it.

    A copy of a run counts once. What a run has inherited is left out where the run before is among `records`; of
    several runs that extend one that is not, the largest inherited part counts.
    """
    measured = [
        (record, number)
        for record in without_copies([record for record in records if record.finished]).records
        if (number := record.number(key)) is not None
    ]
    if not measured:
        return None
    before: dict[str, list[tuple[Record, float]]] = defaultdict(list)
    for record, number in measured:
        before[record.text("hash")] += [] if extends(record) else [(record, number)]
    shared: dict[tuple[str, str], list[float]] = defaultdict(list)  # of runs before that are not there
    total = 0.0
    for record, number in measured:
        total += number
        if not extends(record):
            continue
        known = before[record.text("extended.hash")]
        parents = [spent for parent, spent in known if not trained_again(parent, record)]
        inherited = record.number(INHERITED[key])
        if inherited is None and parents and record.get("extended.finished") is True:
            inherited = parents[0]  # an earlier version did not write it down
        part = min(inherited or 0.0, number)
        if parents:
            total -= part
        else:
            shared[record.text("extended.hash"), record.text("extended.run")].append(part)
    return total - sum(sum(parts) - max(parts) for parts in shared.values())


def extends(record: Record) -> bool:
    """Whether the run has begun with what another one has computed."""
    return isinstance(record.get("extended"), dict)


def trained_again(parent: Record, record: Record) -> bool:
    """Whether the run before was replaced after `record` took over from it: then it spent other seconds."""
    was_finished = record.get("extended.finished") is True
    return was_finished and parent.text("finished") > record.text("extended.when") > ""


def said_extensions(records: Sequence[Record]) -> str:
    """A sentence on the runs that extend others; empty without any."""
    count = sum(record.finished and extends(record) for record in records)
    if not count:
        return ""
    runs = "1 run extends another one: its" if count == 1 else f"{count} runs extend another one: their"
    return f"{runs} time, energy and CO2 hold those of the run before, which sums count once (extended.inherited)."
