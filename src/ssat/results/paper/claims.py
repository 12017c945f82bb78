"""The claims ledger: the paper's sentences that are claims, with what its own numbers and our runs say about them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, NamedTuple

from ssat.config.words import as_typed_here
from ssat.results.comparisons import Comparison, arm_difference, finished_comparisons
from ssat.results.intervals import ABOVE, BELOW, NOISE, ONE_SEED, Difference, mean_difference
from ssat.results.paper.derived import derived, margin_of
from ssat.results.paper.paper import Item
from ssat.results.paper.verdicts import ACCURACIES, OTHER_MACHINE, CellResult, Judged, measured_on
from ssat.runs.predictions import paired_variance
from ssat.runs.record import Record, as_number, lookup

SUPPORTED, CONTRADICTED, UNDECIDED = "supported", "contradicted", "undecided"
SINGLE = ONE_SEED  # of one of the sides: seeds may differ by as much
NO_EVIDENCE, NEEDS = "no runs yet", "no measure yet"
BY_EYE = "look at the figure"  # an analysis was made, and no comparison of two numbers decides the claim


@dataclass(frozen=True)
class Claim:
    """One sentence of the paper, and what is known about it.

    Attributes:
        sentence: the claim.
        where: its place in the paper.
        status: supported, contradicted, ...
        paper: what the paper's own numbers say about it.
        evidence: what our runs of the paper's configuration say.
        other_runs: what other runs say, such as smaller ones.
        note: a remark on the paper's numbers.
    """

    sentence: str
    where: str
    status: str
    paper: str
    evidence: str
    other_runs: str
    note: str

    @property
    def paper_lines(self) -> list[str]:
        """What the paper's own numbers say, and the remark on them."""
        return [line for line in (self.paper, self.note) if line]

    @property
    def evidence_lines(self) -> list[str]:
        """What our runs of the paper's configuration say, and what other runs say."""
        return [line for line in (self.evidence, self.other_runs) if line]


class Weighed(NamedTuple):
    """What is known about a claim: its status and the texts of a `Claim` that explain it."""

    status: str
    evidence: str
    paper: str = ""
    other_runs: str = ""


class Place(NamedTuple):
    """A cell of the paper: name of its table or figure, row and column."""

    item: str
    row: str
    column: str


def ledger(
    claims: Sequence[Mapping[str, Any]],
    text: Sequence[Mapping[str, Any]],
    judged: Mapping[str, Judged],
    records: Sequence[Record],
    analyses: Mapping[str, Sequence[str]] | None = None,
) -> list[Claim]:
    """Every claim with its evidence.

    Args:
        claims: entries of experiments/claims.yaml.
        text: the numbers in the paper's running text.
        judged: the tables and figures by name.
        records: all runs; a claim about modes is compared on them, whatever their data.
        analyses: for each analysis that was made, the models that it was made of.
    """
    numbers = {each["id"]: each for each in text}
    found = finished_comparisons(records)
    return [_claim(claim, numbers, judged, found, analyses or {}) for claim in claims]


def _claim(
    claim: Mapping[str, Any],
    numbers: Mapping[str, Mapping[str, Any]],
    judged: Mapping[str, Judged],
    found: Sequence[Comparison],
    analyses: Mapping[str, Sequence[str]],
) -> Claim:
    sentence, where, note = (str(claim.get(key) or "") for key in ("claim", "where", "note"))
    found_of = {
        "above": lambda value: _weigh_above(value, judged),
        "most": lambda value: _weigh_above(value, judged, most=True),
        "gains": lambda value: _weigh_gains(value, judged),
        "same": lambda value: _weigh_same(value, judged),
        "number": lambda value: _weigh_number(numbers[value], judged),
    }
    if "number" in claim:
        entry = numbers[claim["number"]]
        sentence = sentence or str(entry.get("text") or "")
        where, note = where or str(entry.get("where") or ""), note or str(entry.get("note") or "")
    parts = [weigh(claim[kind]) for kind, weigh in found_of.items() if kind in claim]
    weighed = _together(parts) or _weigh_needs(str(claim.get("needs", "a measure of its own")), analyses)
    if "above" in claim or "most" in claim:
        other_runs = "; ".join(filter(None, (weighed.other_runs, _weigh_modes(claim.get("modes"), found))))
        weighed = weighed._replace(other_runs=other_runs)
    return Claim(sentence, where, weighed.status, weighed.paper, weighed.evidence, weighed.other_runs, note)


def _together(parts: Sequence[Weighed]) -> Weighed | None:
    """A claim that says several things: one against it contradicts it, all must support it; None without a part."""
    if len(parts) < 2:
        return parts[0] if parts else None
    found = {part.status for part in parts}
    status = CONTRADICTED if CONTRADICTED in found else UNDECIDED if len(found) > 1 else found.pop()
    texts = ["; ".join(filter(None, words)) for words in zip(*(part[1:] for part in parts), strict=True)]
    return Weighed(status, *texts)


def _weigh_needs(needs: str, analyses: Mapping[str, Sequence[str]]) -> Weighed:
    """A claim that the numbers of runs cannot decide."""
    kind, _, name = needs.partition(" ")
    if kind != "analysis":
        return Weighed(NEEDS, f"needs: {needs}")
    if name in analyses:
        return Weighed(BY_EYE, f"analysis={name} was made of {', '.join(analyses[name])}")
    return Weighed(NO_EVIDENCE, as_typed_here(f"python -m src.analyze analysis={name} has not been run"))


def place_pairs(above: Sequence[Sequence[str]], items: Mapping[str, Item]) -> Iterator[tuple[Place, Place]]:
    """The pairs of cells that a claim compares; it says that the first of each pair is the higher one."""
    for higher, lower in above:
        a, b = higher.split("/"), lower.split("/")
        columns = a[2:] or _accuracy_columns(items[a[0]], a[1])
        pairs = [(Place(a[0], a[1], column), Place(b[0], b[1], *(b[2:] or [column]))) for column in columns]
        yield from ((first, second) for first, second in pairs if second[1:] in items[second.item].cells)


def _accuracy_columns(item: Item, row: str) -> list[str]:
    return [column for (r, column), cell in item.cells.items() if r == row and cell.measure in ACCURACIES]


def _find(judged: Mapping[str, Judged], place: Place) -> CellResult | None:
    return judged[place.item].find(place.row, place.column)


def _weigh_above(above: Sequence[Sequence[str]], judged: Mapping[str, Judged], *, most: bool = False) -> Weighed:
    """A claim that some accuracies are above others, all of them or `most`."""
    items = {name: each.item for name, each in judged.items()}
    compared = list(place_pairs(above, items))
    printed = [[items[place.item].cells[place.row, place.column].number for place in pair] for pair in compared]
    known = [(a, b) for a, b in printed if a is not None and b is not None]
    paper = f"{sum(a > b for a, b in known)} of {len(known)} comparisons of its own numbers agree" if known else ""
    found = [(_find(judged, a), _find(judged, b)) for a, b in compared]
    signs = Counter(filter(None, (_sign_of_results(a, b, comparisons=len(compared)) for a, b in found)))
    measured = sum(signs.values())
    status = _status(measured, len(compared), agreeing=signs[ABOVE], against=signs[BELOW], single=signs[ONE_SEED])
    status = _status_of_most(len(compared), signs) if most and measured else status
    small = Counter(filter(None, _signs_of_other_runs(compared, judged)))
    other_runs = f"{_counted(sum(small.values()))} of smaller runs{_listed(small)}" if small else ""
    return Weighed(status, f"{measured} of {len(compared)} measured{_listed(signs)}", paper, other_runs)


def _status(measured: int, asked: int, *, agreeing: int, against: int, single: int = 0) -> str:
    """The status of a claim with `asked` comparisons: all must agree to support it, one against it contradicts it.

    Of `single` of them one side has a single seed, which can do neither.
    """
    if not measured:
        return NO_EVIDENCE
    if against:
        return CONTRADICTED
    return SUPPORTED if agreeing == asked else SINGLE if single else UNDECIDED


def _status_of_most(asked: int, signs: Counter[str]) -> str:
    """The status of a claim about most of `asked` comparisons: more than half of them decide it."""
    if 2 * signs[ABOVE] > asked:
        return SUPPORTED
    if 2 * signs[BELOW] >= asked:
        return CONTRADICTED
    return SINGLE if signs[ONE_SEED] else UNDECIDED


def _weigh_modes(modes: Sequence[str] | None, found: Sequence[Comparison]) -> str:
    """How often the first mode ends above the second in any comparison of runs, whatever its data and size."""
    if not modes:
        return ""
    pairs = [pair for each in found for pair in product(each.scored_arms(modes[0]), each.scored_arms(modes[1]))]
    signs = Counter(arm_difference(first, second, comparisons=len(pairs)).sign for first, second in pairs)
    return f"{_counted(len(pairs))} of any runs made so far{_listed(signs)}" if pairs else ""


def _counted(comparisons: int) -> str:
    return f"{comparisons} comparison{'s' * (comparisons != 1)}"


def _listed(signs: Counter[str]) -> str:
    words = [f"{count} {sign}" for sign in (ABOVE, NOISE, BELOW, ONE_SEED) if (count := signs[sign])]
    return f": {', '.join(words)}" if words else ""


def _signs_of_other_runs(compared: Sequence[tuple[Place, Place]], judged: Mapping[str, Judged]) -> Iterator[str | None]:
    """The comparisons inside each block of other runs of one table; its columns may be other data than the paper's."""
    rows = list(dict.fromkeys((a.item, a.row, b.row) for a, b in compared if a.item == b.item and a.column == b.column))
    for name, higher, lower in rows:
        for block, results in judged[name].parts[1:]:
            found = {(each.cell.row, each.cell.column): each for each in results}
            places = [((higher, column), (lower, column)) for column in block.columns]
            yield from (_sign_of_results(found.get(first), found.get(second)) for first, second in places)


def _sign_of_results(a: CellResult | None, b: CellResult | None, *, comparisons: int = 1) -> str | None:
    """Whether `a` is above, below or within the noise of `b`, or has one seed; None where one was not measured.

    One below is enough to contradict a claim of so many `comparisons`, so that it is held to its share of the 5 %.
    """
    if a is None or b is None or not a.records or not b.records or a.records == b.records:
        return None
    sides = (_side(a), _side(b))
    is_clean = a.cell.measure == b.cell.measure == "acc1"
    paired = paired_variance([*a.records], [*b.records]) if is_clean else None
    sign = mean_difference(*sides, paired=paired).sign
    return mean_difference(*sides, comparisons=comparisons, paired=paired).sign if sign == BELOW else sign


def _weigh_number(entry: Mapping[str, Any], judged: Mapping[str, Judged]) -> Weighed:
    """A number of the text, computed from our cells by the same formula.

    It is supported where the interval of ours holds it and leaves out 0, so that the sign is known, and contradicted
    where the interval does not hold it: also where every cell is reproduced, for the text can say something else than
    the table. Of anything that seeds can change, hours and kg too, every cell needs two seeds.
    """
    unit = str(entry.get("unit") or "")
    paper = f"printed: {entry.get('value')} {unit}".strip()
    if not entry.get("from"):
        return Weighed(NEEDS, "nothing of ours to compare it with yet", paper)
    kind, references = next(iter(entry["from"].items()))
    results = []
    for reference in references:
        place = Place(*reference.split("/"))
        found = _find(judged, place) if place.item in judged else None
        if found is None or found.ours is None:
            return Weighed(NO_EVIDENCE, f"{reference} has not been run", paper)
        results.append(found)
    values = [found.ours for found in results if found.ours is not None]
    ours, margin = derived(kind, values), margin_of(kind, values, [found.own_margin for found in results])
    shown = "" if margin is None else f" ± {margin:.1f}"
    said, status = as_number(entry.get("value")), UNDECIDED
    if any(found.is_one_seed for found in results):
        status = SINGLE
    elif said is not None and margin is not None and all(found.verdict != OTHER_MACHINE for found in results):
        if abs(ours - said) > margin + _rounding(entry.get("value")):
            status = CONTRADICTED
        elif abs(ours) > margin and ours * said > 0:  # else its interval leaves even the sign open
            status = SUPPORTED
    return Weighed(status, f"ours: {ours:.1f}{shown} {unit}".strip(), paper)


def _rounding(printed: object) -> float:
    """Half a unit of the last decimal that is printed: 0.5 of 4, 0.05 of 11.8."""
    return 0.5 * 10.0 ** -len(str(printed).partition(".")[2])


def _weigh_same(same: Sequence[Sequence[str]], judged: Mapping[str, Judged]) -> Weighed:
    """A claim that the networks of two cells are the same at inference: parameters and operations are compared."""
    compared = list(place_pairs(same, {name: each.item for name, each in judged.items()}))
    networks = [[_network(_find(judged, place)) for place in pair] for pair in compared]
    known = [pair for pair in networks if None not in pair]
    different = sum(a != b for a, b in known)
    status = _status(len(known), len(compared), agreeing=len(known) - different, against=different)
    listed = f": {different} different, {len(known) - different} identical" if known else ""
    return Weighed(status, f"{len(known)} of {len(compared)} measured{listed}")


def _weigh_gains(gains: Sequence[Sequence[str]], judged: Mapping[str, Judged]) -> Weighed:
    """A claim that one accuracy rises more above its base than another above its own: [a, base, b, base] each."""
    known, signs = [], Counter[str]()
    for references in gains:
        a, base_of_a, b, base_of_b = (_find(judged, Place(*reference.split("/"))) for reference in references)
        printed = [None if each is None else each.cell.number for each in (a, base_of_a, b, base_of_b)]
        numbers = [number for number in printed if number is not None]
        known += [numbers[0] - numbers[1] > numbers[2] - numbers[3]] if len(numbers) == len(printed) else []
        first, second = _gain(a, base_of_a), _gain(b, base_of_b)
        if first is not None and second is not None:
            margins = (first.uncertainty, second.uncertainty)
            margin = None if None in margins else math.hypot(*(each or 0.0 for each in margins))
            one_seed = first.one_seed or second.one_seed
            signs[Difference(first.points - second.points, margin, one_seed).sign] += 1
    measured = sum(signs.values())
    status = _status(measured, len(gains), agreeing=signs[ABOVE], against=signs[BELOW], single=signs[ONE_SEED])
    paper = f"{sum(known)} of {len(known)} comparisons of its own gains agree" if known else ""
    return Weighed(status, f"{measured} of {len(gains)} gains measured{_listed(signs)}", paper)


def _gain(result: CellResult | None, base: CellResult | None) -> Difference | None:
    """What a cell has more than its base; None where one of them was not measured."""
    if result is None or base is None or not result.records or not base.records:
        return None
    return mean_difference(_side(result), _side(base))


def _side(result: CellResult) -> tuple[Sequence[float], int | None]:
    """The accuracies of a measured cell, and on how many images or videos."""
    return result.values, measured_on(result.cell, result.records[0])


def _network(found: CellResult | None) -> tuple[float, float] | None:
    """Parameters, and multiply-accumulates for one image at inference."""
    if found is None or not found.records:
        return None
    record = found.records[0]
    parameters = record.number("params.inference")
    operations = as_number(lookup(record.phases[-1], "macs.full")) if record.phases else None
    return None if parameters is None or operations is None else (parameters, operations)


def status_counts(claims: Sequence[Claim]) -> str:
    """'50 no runs yet, 4 no measure yet', the most frequent first."""
    counts = Counter(claim.status for claim in claims)
    return ", ".join(f"{count} {status}" for status, count in counts.most_common())
