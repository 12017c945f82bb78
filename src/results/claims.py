"""The claims ledger: the paper's sentences that are claims, each with what its own numbers and our runs say."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from src.results.paper import Item
from src.results.record import Record, as_number, lookup
from src.results.summary import Comparison, Difference, comparisons, difference, gap
from src.results.verdicts import REPRODUCED, Judged, Result

SUPPORTED, CONTRADICTED, UNDECIDED = "supported", "contradicted", "undecided"
NO_EVIDENCE, NEEDS = "no runs yet", "not built yet"
BY_EYE = "look at the figure"  # an analysis was made, and what it shows is no comparison of two numbers
COMPARED = ("acc1", "perspective")


@dataclass(frozen=True)
class Claim:
    """One sentence, and how it stands."""

    sentence: str
    where: str
    status: str
    paper: str  # what the paper's own numbers say of it
    evidence: str  # what our runs of the paper's configuration say
    small: str  # what smaller runs say
    note: str


def ledger(
    claims: Sequence[Mapping[str, Any]],
    text: Sequence[Mapping[str, Any]],
    judged: Mapping[str, Judged],
    records: Sequence[Record],
    analyses: Mapping[str, Sequence[str]] | None = None,
) -> list[Claim]:
    """Every claim with its evidence; `records` serve the claims on modes, which any data can speak to.

    `analyses` names the models that each analysis was made of.
    """
    numbers = {each["id"]: each for each in text}
    found = comparisons([record for record in records if record.finished])
    return [_claim(claim, numbers, judged, found, analyses or {}) for claim in claims]


def _claim(
    claim: Mapping[str, Any],
    numbers: Mapping[str, Mapping[str, Any]],
    judged: Mapping[str, Judged],
    found: Sequence[Comparison],
    analyses: Mapping[str, Sequence[str]],
) -> Claim:
    sentence, where, note = (str(claim.get(key) or "") for key in ("claim", "where", "note"))
    if "above" in claim:
        status, paper, evidence, small = _comparisons(claim["above"], judged)
        small = "; ".join(filter(None, (small, _modes(claim.get("modes"), found))))
    elif "same" in claim:
        paper, small = "", ""
        status, evidence = _same(claim["same"], judged)
    elif "number" in claim:
        entry = numbers[claim["number"]]
        sentence = sentence or str(entry.get("text") or "")
        where, note = where or str(entry.get("where") or ""), note or str(entry.get("note") or "")
        status, paper, evidence, small = *_number(entry, judged), ""
    else:
        paper, small = "", ""
        status, evidence = _needed(str(claim.get("needs", "a measure of its own")), analyses)
    return Claim(sentence, where, status, paper, evidence, small, note)


def _needed(needs: str, analyses: Mapping[str, Sequence[str]]) -> tuple[str, str]:
    """Status and evidence of a claim that no run's numbers decide."""
    kind, _, name = needs.partition(" ")
    if kind != "analysis":
        return NEEDS, f"needs: {needs}"
    if name in analyses:
        return BY_EYE, f"analysis={name} was made of {', '.join(analyses[name])}"
    return NO_EVIDENCE, f"python -m src.analyze analysis={name} has not been run"


Place = tuple[str, str, str]  # table, row, column


def pairs(above: Sequence[Sequence[str]], items: Mapping[str, Item]) -> Iterator[tuple[Place, Place]]:
    """The comparisons that a claim makes: the first cell of each is to be the higher."""
    for higher, lower in above:
        a, b = higher.split("/"), lower.split("/")
        columns = [a[2]] if len(a) > 2 else _columns(items[a[0]], a[1])
        for column in columns:
            other = b[2] if len(b) > 2 else column
            if (b[1], other) in items[b[0]].cells:
                yield (a[0], a[1], column), (b[0], b[1], other)


def _columns(item: Item, row: str) -> list[str]:
    return [column for (r, column), cell in item.cells.items() if r == row and cell.measure in COMPARED]


def _comparisons(above: Sequence[Sequence[str]], judged: Mapping[str, Judged]) -> tuple[str, str, str, str]:
    items = {name: each.item for name, each in judged.items()}
    compared = list(pairs(above, items))
    printed = [(items[a[0]].cells[a[1:]].number, items[b[0]].cells[b[1:]].number) for a, b in compared]
    known = [(a, b) for a, b in printed if a is not None and b is not None]
    paper = f"{sum(a > b for a, b in known)} of {len(known)} comparisons of its own numbers agree" if known else ""
    outcomes = Counter(
        filter(None, (_outcome(judged[a[0]].find(*a[1:]), judged[b[0]].find(*b[1:])) for a, b in compared))
    )
    measured = sum(outcomes.values())
    status = _status(measured, len(compared), agreeing=outcomes["above"], against=outcomes["below"])
    evidence = f"{measured} of {len(compared)} measured{_listed(outcomes)}"
    small = Counter(filter(None, _small(compared, judged)))
    return (
        status,
        paper,
        evidence,
        f"{sum(small.values())} comparisons of smaller runs{_listed(small)}" if small else "",
    )


def _status(measured: int, asked: int, *, agreeing: int, against: int) -> str:
    """How a claim stands that makes `asked` comparisons: one against it is enough, all must agree."""
    if not measured:
        return NO_EVIDENCE
    if against:
        return CONTRADICTED
    return SUPPORTED if agreeing == asked else UNDECIDED


def _modes(modes: Sequence[str] | None, found: Sequence[Comparison]) -> str:
    """How often the first mode ends above the second in any comparison of runs, whatever its data and size."""
    if not modes:
        return ""
    outcomes: Counter[str] = Counter()
    for comparison in found:
        for higher in comparison.scored(modes[0]):
            for lower in comparison.scored(modes[1]):
                outcomes[_reading(difference(higher, lower))] += 1
    return f"{sum(outcomes.values())} comparisons of any runs made so far{_listed(outcomes)}" if outcomes else ""


def _listed(outcomes: Counter[str]) -> str:
    words = [f"{count} {outcome}" for outcome in ("above", "within the noise", "below") if (count := outcomes[outcome])]
    return f": {', '.join(words)}" if words else ""


def _small(compared: Sequence[tuple[Place, Place]], judged: Mapping[str, Judged]) -> Iterator[str | None]:
    """Outcomes inside each block of smaller runs of one table; its columns may be other data than the paper's."""
    rows = list(dict.fromkeys((a[0], a[1], b[1]) for a, b in compared if a[0] == b[0] and a[2] == b[2]))
    for name, higher, lower in rows:
        for block, cells in judged[name].parts[1:]:
            found = {(each.cell.row, each.cell.column): each for each in cells}
            for column in block.columns:
                yield _outcome(found.get((higher, column)), found.get((lower, column)))


def _outcome(a: Result | None, b: Result | None) -> str | None:
    """'above', 'below' or 'within the noise' of the first; None where one of them was not measured."""
    if a is None or b is None or not a.records or not b.records or a.records == b.records:
        return None
    return _reading(gap((a.values, a.records[0].split_size), (b.values, b.records[0].split_size)))


def _reading(found: Difference) -> str:
    return "within the noise" if found.is_noise else "above" if found.points > 0 else "below"


def _number(entry: Mapping[str, Any], judged: Mapping[str, Judged]) -> tuple[str, str, str]:
    """A number of the text from our cells, by the same formula; supported where all of them are reproduced."""
    unit = str(entry.get("unit") or "")
    paper = f"printed: {entry.get('value')} {unit}".strip()
    if not entry.get("from"):
        return NEEDS, paper, "nothing of ours to compare it with yet"
    results = []
    for reference in next(iter(entry["from"].values())):
        name, row, column = reference.split("/")
        found = judged[name].find(row, column) if name in judged else None
        if found is None or found.ours is None:
            return NO_EVIDENCE, paper, f"{reference} has not been run"
        results.append(found)
    ours = derived(next(iter(entry["from"])), [found.ours for found in results if found.ours is not None])
    status = SUPPORTED if all(found.verdict == REPRODUCED for found in results) else UNDECIDED
    return status, paper, f"ours: {ours:.1f} {unit}".strip()


def _same(same: Sequence[Sequence[str]], judged: Mapping[str, Judged]) -> tuple[str, str]:
    """Whether the networks of two cells are the same at inference, by their records: parameters and operations."""
    compared = list(pairs(same, {name: each.item for name, each in judged.items()}))
    networks = [[_network(judged[name].find(row, column)) for name, row, column in places] for places in compared]
    known = [pair for pair in networks if None not in pair]
    different = sum(a != b for a, b in known)
    status = _status(len(known), len(compared), agreeing=len(known) - different, against=different)
    told = f": {different} different, {len(known) - different} identical" if known else ""
    return status, f"{len(known)} of {len(compared)} measured{told}"


def _network(found: Result | None) -> tuple[float, float] | None:
    """Parameters and multiply-accumulates of an image at inference."""
    if found is None or not found.records:
        return None
    record = found.records[0]
    parameters = record.number("params.inference")
    operations = as_number(lookup(record.phases[-1], "macs.full")) if record.phases else None
    return None if parameters is None or operations is None else (parameters, operations)


def derived(kind: str, values: Sequence[float]) -> float:
    """A number that follows from others: relative gain, reduction (both in %), difference or mean."""
    if kind == "relative":
        return 100 * (values[0] / values[1] - 1) if values[1] else math.inf
    if kind == "reduction":
        return 100 * (1 - values[0] / values[1]) if values[1] else -math.inf
    if kind == "difference":
        return values[0] - values[1]
    return sum(values) / len(values)
