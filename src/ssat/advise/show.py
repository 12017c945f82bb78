"""The advice as a table and one sentence."""

from __future__ import annotations

import statistics

from rich.table import Table

from ssat.advise.advice import FILE, Advice, Row
from ssat.advise.expect import Expected
from ssat.core.terminal import Console, tell
from ssat.core.words import duration
from ssat.results.intervals import wilson_interval

TITLES = ("candidate", "pilots' epochs", "validation %", "epochs in budget", "expected %", "gain over scratch")


def sentence(advice: Advice) -> str:
    """What is advised, and how sure that is; the command follows it."""
    best, scratch = advice.rows[advice.likely], advice.rows[0]
    likely = best.expected
    if advice.is_decided and advice.advised and likely:
        gain = f"{likely.gain:.1f} points over scratch ({span(likely.gain_low, likely.gain_high)})"
        return f"{best.candidate.name} is expected to gain {gain}: train with"
    if advice.is_decided:
        others = [row.expected.gain for row in advice.rows[1:] if row.expected]
        return f"scratch is expected to be ahead of the others by at least {-max(others):.1f} points: train with"
    undecided = "undecided: the pilots differ by less than what is not known of them"
    if advice.likely == 0 or likely is None:
        return f"{undecided}; {scratch.candidate.name} is also expected to be highest: train with"
    return (
        f"{undecided}; {best.candidate.name} is the best guess with {likely.gain:+.1f} points"
        f" ({span(likely.gain_low, likely.gain_high)}), and {scratch.candidate.name} has the fewest parts: train with"
    )


def span(low: float, high: float) -> str:
    """An interval: `-0.3 to 4.0`."""
    return f"{low:.1f} to {high:.1f}"


def show(advice: Advice) -> None:
    """Print the table, the sentence, the command, and the notes."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 140
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in TITLES:
        table.add_column(title, justify="left" if title == TITLES[0] else "right")
    for number, row in enumerate(advice.rows):
        table.add_row(*cells(row), style="bold" if number == advice.advised else None)
    tell("")
    console.print(table)
    tell("", sentence(advice), f"  {advice.rows[advice.advised].command}")
    if not advice.is_decided and advice.likely:
        tell("or, the best guess", f"  {advice.rows[advice.likely].command}")
    tell(*(f"note: {note}" for note in advice.notes), f"written to {advice.folder / FILE}")


def cells(row: Row) -> list[str]:
    """Under `TITLES`."""
    tried = dict.fromkeys(" + ".join(map(str, pilot.epochs)) for pilot, _ in row.pilots)
    fit = f"{' + '.join(map(str, row.epochs))} ({duration(row.seconds)})"
    return [row.candidate.name, ", ".join(tried), _validation(row), fit, *_expected(row.expected)]


def _validation(row: Row) -> str:
    """Mean over the seeds of the longest pilots, with Wilson's interval."""
    if not row.longest:
        return "-"
    accuracy = statistics.fmean(outcome.accuracy for outcome in row.longest)
    return f"{accuracy:.1f} ({span(*wilson_interval(accuracy, row.longest[0].images))})"


def _expected(expected: Expected | None) -> tuple[str, str]:
    if expected is None:
        return "-", "-"
    accuracy = f"{expected.accuracy:.1f} ({span(expected.low, expected.high)})"
    is_scratch = expected.gain == expected.gain_low == expected.gain_high == 0
    return accuracy, "" if is_scratch else f"{expected.gain:+.1f} ({span(expected.gain_low, expected.gain_high)})"
