"""Time as it is typed, and how the time of the pilots is shared out among rounds."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from ssat.core.errors import UserError
from ssat.core.words import duration

SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0}
MOST_ROUNDS = 3
SEEDS, LONG = 2, 0.125  # in the last round, where its pilots take this share of the budget: before, length tells more
ROOM = 2.0  # several rounds only where the first has pilots of twice the shortest length


@dataclass(frozen=True)
class Round:
    """Pilots of one length.

    Attributes:
        share: of the budget that each pilot takes, (0, 1].
        entrants: candidates, scratch among them.
        seeds: pilots of each.
    """

    share: float
    entrants: int
    seeds: int


def read_time(key: str, text: str) -> float:
    """Seconds of `2h`, `90s` or `1h30m`.

    Raises:
        UserError: it is no time above zero.
    """
    found = re.fullmatch(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?", text.strip())
    seconds = (
        sum(float(count or 0) * SECONDS[unit] for count, unit in zip(found.groups(), "hms", strict=True))
        if found
        else 0.0
    )
    if not 0 < seconds < math.inf:
        raise UserError(
            f"{key}={text} is not a time: write hours, minutes or seconds, such as {key}=2h, 1h30m or 90s",
            key=key,
            value=text,
        )
    return seconds


def read_pilots(text: str, budget: float) -> float:
    """Seconds of all pilots together: a share of the budget, `0.5` or `50%`, or a time.

    Raises:
        UserError: it is neither.
    """
    share = re.fullmatch(r"(\d*\.?\d+)(%?)", text.strip())
    if not share:
        return read_time("pilots", text)
    found = float(share[1]) / (100 if share[2] else 1)
    if not 0 < found <= 10:
        raise UserError(
            f"pilots={text} is not a share of the budget: write pilots=0.5, 50% or a time such as 20m",
            key="pilots",
            value=text,
        )
    return found * budget


def entrants(candidates: int, number: int) -> int:
    """How many candidates are in round `number`, from 0: scratch, and half as many others as in the round before."""
    return 1 + math.ceil((candidates - 1) / 2**number)


def plan_rounds(candidates: int, *, budget: float, pilots: float, shortest: float) -> list[Round]:
    """Successive halving (Jamieson & Talwalkar 2016): each round has half the candidates, and pilots twice as long.

    There are as many rounds as the time allows. Scratch is in all of them, because gains are measured against it.

    Args:
        candidates: scratch and the others.
        budget: seconds of the final training.
        pilots: seconds of all pilots together.
        shortest: seconds of the shortest possible pilot, of the candidate for which this is most.

    Raises:
        UserError: not even one short pilot of each candidate fits.
    """
    for count in range(MOST_ROUNDS, 0, -1):
        for seeds in (SEEDS, 1):
            rounds = _rounds(candidates, count, seeds, pilots / budget)
            is_long = seeds == 1 or rounds[-1].share >= LONG
            if is_long and rounds[0].share * budget >= shortest * (ROOM if count > 1 else 1):
                return rounds
    raise UserError(_too_small(candidates, budget, pilots, shortest), key="budget")


def _rounds(candidates: int, count: int, seeds: int, time: float) -> list[Round]:
    """`count` rounds that take `time` budgets in all; `seeds` in the last."""
    sizes = [entrants(candidates, number) for number in range(count)]
    repeats = [1] * (count - 1) + [seeds]
    weight = sum(size * many * 2**number for number, (size, many) in enumerate(zip(sizes, repeats, strict=True)))
    share = min(time / weight, 0.5 ** (count - 1))
    return [
        Round(share * 2**number, size, many) for number, (size, many) in enumerate(zip(sizes, repeats, strict=True))
    ]


def _too_small(candidates: int, budget: float, pilots: float, shortest: float) -> str:
    least = math.ceil(shortest)
    if budget < least:
        return (
            f"budget={duration(budget)} is too small for a single pilot, an epoch of each phase: it needs at least"
            f" {least}s, and pilots={candidates * least}s for {candidates} candidates"
        )
    return (
        f"pilots={duration(pilots)} is too small for {candidates} candidates with an epoch of each phase: give at least"
        f" pilots={candidates * least}s"
    )
