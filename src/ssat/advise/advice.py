"""The advice: rounds of pilots, what they let one expect, and the command that is advised."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ssat.advise.candidates import Candidate, split_words
from ssat.advise.expect import Expected, expect, points_of
from ssat.advise.pilots import QUIET, Outcome, Pilot, Train, as_plain, job_of, run_pilots, said
from ssat.advise.plan import Asked, Plan, plan_of
from ssat.advise.prices import seconds_of
from ssat.core.errors import UserError
from ssat.core.terminal import tell
from ssat.core.words import duration, many
from ssat.runs.record import write_record
from ssat.sweeps.jobs import key_of, repeat_command

FILE = "advice.json"
OVERDRAFT = 1.25  # of the pilots' time; a round that would take more is left out
Shown = list[tuple[Pilot, Outcome | str]]


@dataclass(frozen=True)
class Row:
    """One candidate: its pilots, the epochs that fit into the budget by phase, what is expected of it, its command."""

    candidate: Candidate
    pilots: Shown
    epochs: list[int]
    seconds: float
    expected: Expected | None
    command: str

    @property
    def longest(self) -> list[Outcome]:
        """What its longest pilots have shown, one for each seed."""
        done = [(pilot.share, outcome) for pilot, outcome in self.pilots if isinstance(outcome, Outcome)]
        last = max((share for share, _ in done), default=0.0)
        return [outcome for share, outcome in done if share == last]


@dataclass(frozen=True)
class Advice:
    """All candidates, and which of them is advised.

    Attributes:
        folder: of the advice.
        rows: scratch first.
        advised: number of the row.
        likely: number of the row that is expected to be highest.
        is_decided: whether the interval of the gain says so; else scratch is advised.
        notes: what one must know of it.
    """

    folder: Path
    rows: list[Row]
    advised: int
    likely: int
    is_decided: bool
    notes: list[str] = field(default_factory=list)


def advise(asked: Asked, train: Train) -> Advice:
    """Run the pilots that are not finished and say what they show; writes `advice.json`.

    Args:
        asked: the command.
        train: one run in this process.

    Raises:
        UserError: what is asked is not possible, or scratch could not be trained.
    """
    plan = plan_of(asked)
    shown, notes = run_rounds(plan, asked, train)
    advice = conclude(plan, asked, shown, notes)
    write_record(plan.folder, as_record(advice, plan, asked), name=FILE)
    return advice


def run_rounds(plan: Plan, asked: Asked, train: Train) -> tuple[Shown, list[str]]:
    """The pilots of all rounds with what they have shown, and a note where there was no time for the last ones."""
    shown: Shown = []
    entrants = list(range(len(plan.candidates)))
    for number, each in enumerate(plan.rounds, 1):
        pilots = [
            pilot_of(plan, asked, entrant, each.share, seed) for entrant in entrants for seed in range(each.seeds)
        ]
        if number > 1 and spent(shown) + slowness(shown, plan) * predicted(pilots, plan) > OVERDRAFT * asked.pilots:
            return shown, [f"after round {number - 1} of {len(plan.rounds)} the time of the pilots was used up"]
        tell(
            f"round {number} of {len(plan.rounds)}: {many(len(pilots), 'pilot')} of"
            f" {duration(each.share * asked.budget)}, {each.share:.1%} of the budget each"
        )
        for pilot, outcome in run_pilots(pilots, plan.folder, train):
            tell(f"  {pilot.said}: {said(outcome)}")
            shown.append((pilot, outcome))
        if number < len(plan.rounds):
            entrants = survivors(shown, expected_of(shown), plan.rounds[number].entrants)
    return shown, []


def pilot_of(plan: Plan, asked: Asked, number: int, share: float, seed: int) -> Pilot:
    """A pilot of candidate `number` that takes `share` of the budget; `seed` counts from the user's own."""
    candidate, shared = plan.candidates[number], split_words(asked.words)[0]
    first = [word.partition("=")[2] for word in shared if key_of(word) == "seed"]
    epochs = plan.pilot_epochs(number, share * asked.budget)
    own = [f"experiment={plan.folder.name}", f"seed={int(first[-1] if first else 0) + seed}"]
    words = [
        *(word for word in shared if key_of(word) != "seed"),
        *candidate.words,
        *candidate.epoch_words(epochs),
        *QUIET,
        *([plan.validation] * bool(plan.validation)),
        *own,
    ]
    return Pilot(number, candidate.name, share, epochs, job_of(words))


def measured(shown: Shown) -> tuple[dict[tuple[int, float], list[float]], int]:
    """Accuracies by candidate and share, without candidates that failed, and the number of validation images."""
    failed = {pilot.candidate for pilot, outcome in shown if isinstance(outcome, str)}
    found: dict[tuple[int, float], list[float]] = {}
    images = [outcome.images for _, outcome in shown if isinstance(outcome, Outcome)]
    for pilot, outcome in shown:
        if isinstance(outcome, Outcome) and pilot.candidate not in failed:
            found.setdefault((pilot.candidate, pilot.share), []).append(outcome.accuracy)
    return found, min(images, default=0)


def expected_of(shown: Shown) -> dict[int, Expected]:
    """What is expected of each candidate by its number.

    Raises:
        UserError: scratch could not be trained.
    """
    for pilot, outcome in shown:
        if pilot.candidate == 0 and isinstance(outcome, str):
            raise UserError(f"the pilot of scratch could not be trained: {outcome}")
    points, freedom = points_of(*measured(shown))
    return expect(points, freedom=freedom)


def survivors(shown: Shown, expected: dict[int, Expected], count: int) -> list[int]:
    """Scratch and the others of whom most is expected, in the order of the grid."""
    latest = max(pilot.share for pilot, _ in shown)
    still = {pilot.candidate for pilot, _ in shown if pilot.share == latest}
    others = sorted(
        (number for number in expected if number and number in still), key=lambda number: -expected[number].accuracy
    )
    return [0, *sorted(others[: count - 1])]


def spent(shown: Iterable[tuple[Pilot, Outcome | str]]) -> float:
    """Seconds of training of the pilots so far, by their records."""
    return sum(outcome.seconds for _, outcome in shown if isinstance(outcome, Outcome))


def predicted(pilots: Iterable[Pilot], plan: Plan) -> float:
    """Seconds of pilots by their prices."""
    return sum(seconds_of(plan.pilot_prices[pilot.candidate], pilot.epochs) for pilot in pilots)


def slowness(shown: Shown, plan: Plan) -> float:
    """Seconds that the pilots took over the predicted ones."""
    done = [pilot for pilot, outcome in shown if isinstance(outcome, Outcome)]
    return spent(shown) / predicted(done, plan) if done else 1.0


def conclude(plan: Plan, asked: Asked, shown: Shown, notes: list[str]) -> Advice:
    """Which candidate is advised, by what is expected."""
    expected, rows = expected_of(shown), []
    for number, candidate in enumerate(plan.candidates):
        epochs = plan.final_epochs(number, asked.budget)
        command = repeat_command([*split_words(asked.words)[0], *candidate.words, *candidate.epoch_words(epochs)])
        own = [each for each in shown if each[0].candidate == number]
        rows.append(
            Row(candidate, own, epochs, seconds_of(plan.final_prices[number], epochs), expected.get(number), command)
        )
    likely, advised, is_decided = decide(expected, survivors(shown, expected, len(rows)))
    return Advice(plan.folder, rows, advised, likely, is_decided, [*notes, *remarks(plan, asked, shown)])


def decide(expected: dict[int, Expected], entrants: Iterable[int]) -> tuple[int, int, bool]:
    """The candidate that is likely the best, the advised one, and whether that is decided.

    It is decided for a candidate whose gain over scratch has an interval above 0, and for scratch where the intervals
    of all others lie below. Otherwise scratch is advised: it has the fewest parts.
    """
    others = [number for number in entrants if number]
    likely = max([0, *others], key=lambda number: (expected[number].accuracy, -number))
    if likely and expected[likely].gain_low > 0:
        return likely, likely, True
    return likely, 0, bool(others) and all(expected[number].gain_high < 0 for number in others)


def remarks(plan: Plan, asked: Asked, shown: Shown) -> list[str]:
    """What one must know of the numbers."""
    found = []
    last = max(pilot.share for pilot, _ in shown)
    if last < 1:
        found.append(
            f"the longest pilots took {last:.1%} of the budget: what is expected lies {math.log2(1 / last):.1f}"
            " doublings beyond; a larger pilots=... narrows it"
        )
    slow = slowness(shown, plan)
    if not 0.8 <= slow <= 1.25:
        found.append(
            f"the pilots took {slow:.2g} times the predicted time: so may the training, whose epochs follow from the"
            " prediction"
        )
    for pilot, outcome in shown:
        if isinstance(outcome, str):
            found.append(f"{pilot.name} was left out: {outcome}")
    if any(key_of(word) == "data.label_fraction" for word in asked.words):
        found.append("the validation images have labels that data.label_fraction takes from the training images")
    return found


def as_record(advice: Advice, plan: Plan, asked: Asked) -> dict[str, Any]:
    """What `advice.json` holds."""
    from ssat.advise.show import sentence
    from ssat.runs.machine import versions

    return {
        "kind": "advice",
        "sentence": sentence(advice),
        "advised": advice.rows[advice.advised].candidate.name,
        "likely": advice.rows[advice.likely].candidate.name,
        "decided": advice.is_decided,
        "command": advice.rows[advice.advised].command,
        "budget_seconds": asked.budget,
        "pilots_seconds": asked.pilots,
        "spent_seconds": spent(each for row in advice.rows for each in row.pilots),
        "words": list(asked.words),
        "validation": plan.validation,
        "rounds": [asdict(each) for each in plan.rounds],
        "candidates": [
            {
                "name": row.candidate.name,
                "words": [*row.candidate.words, *row.candidate.epoch_words(row.epochs)],
                "epochs": row.epochs,
                "seconds": row.seconds,
                "command": row.command,
                "expected": None if row.expected is None else asdict(row.expected),
                "pilots": [as_plain(*each) for each in row.pilots],
            }
            for row in advice.rows
        ],
        "notes": advice.notes,
        "versions": versions(),
    }
