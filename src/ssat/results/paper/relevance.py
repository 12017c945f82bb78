"""Whether the paper's numbers say anything about these runs: with data of one's own they do not."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ssat.results.paper.verdicts import Judged
from ssat.runs.faithful import is_of_the_paper
from ssat.runs.record import Record

NOT_OF_THE_PAPER = "None of these runs is of a data set of the paper, so its tables and claims are left out"


def concerns_the_paper(records: Sequence[Record], judged: Iterable[Judged]) -> bool:
    """Whether a run is of a data set of the paper, or stands in one of its tables; also where there are no runs yet."""
    if not records or any(is_of_the_paper(record.values) for record in records):
        return True
    return any(each.has_runs and not each.is_settings for each in judged)
