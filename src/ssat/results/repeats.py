"""Several runs of one configuration, seed and fold: what they measured counts once, as their mean, and is said."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssat.results.copies import same_run
from ssat.runs.record import Record


@dataclass(frozen=True)
class SeedRuns:
    """The runs of one seed, and fold of a cross-validation, in an order that does not depend on that of the folders.

    Attributes:
        seed: of the runs; None where the seed changes nothing.
        records: the runs, the highest value first; a copy of a record counts once.
        values: what each has measured.
        fold: of the runs; None where they are no cross-validation.
    """

    seed: Any
    records: tuple[Record, ...]
    values: tuple[float, ...]
    fold: int | None = None

    @property
    def mean(self) -> float:
        """Over the runs."""
        return statistics.fmean(self.values)

    @property
    def said(self) -> str:
        """'2 runs of seed 0: 79.5, 30.0'; empty for a single run."""
        if len(self.values) < 2:
            return ""
        texts = [f"{value:.1f}" for value in self.values]
        if len({*texts}) < len({*self.values}):
            texts = [f"{value:.2f}" for value in self.values]
        of_seed = "" if self.seed is None else f" of seed {self.seed}"
        of_seed += "" if self.fold is None else f", fold {self.fold}"
        return f"{len(self.values)} runs{of_seed}: {', '.join(texts)}"

    @property
    def folders(self) -> tuple[Path, ...]:
        """Of the runs, in the order of their values."""
        return tuple(record.folder for record in self.records)


def by_seed(measured: Iterable[tuple[Record, float]], *, seeded: bool = True) -> list[SeedRuns]:
    """The runs of each seed and fold with what they have measured, by both; all together where it is not `seeded`."""
    found: dict[Any, list[tuple[Record, float]]] = defaultdict(list)
    for record, value in sorted(measured, key=lambda pair: (-pair[1], str(pair[0].path))):
        known = found[(record.get("seed"), record.fold) if seeded else (None, None)]
        if not any(same_run(record, other) for other, _ in known):
            known.append((record, value))
    return [_runs(place, found[place]) for place in sorted(found, key=_in_order)]


def _runs(place: tuple[Any, int | None], measured: list[tuple[Record, float]]) -> SeedRuns:
    records, values = zip(*measured, strict=True)
    return SeedRuns(place[0], records, values, place[1])


def _in_order(place: tuple[Any, int | None]) -> tuple[Any, ...]:
    seed, fold = place
    return seed is None, seed if isinstance(seed, int) else 0, str(seed), -1 if fold is None else fold


def said_repeats(seeds: Sequence[SeedRuns]) -> tuple[str, ...]:
    """What is said of the seeds that have several runs."""
    return tuple(each.said for each in seeds if each.said)
