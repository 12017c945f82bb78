"""What the command prints of its results: a table and counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rich.console import Console

from ssat.core.words import many, printable
from ssat.runs.predicted import Judge, Predicted

SHOWN = 40  # rows of the table in the terminal
NO_PROOF = (
    "a probability is the score of this network and no proof; other kinds of fakes than it was trained on may pass"
)


def line(console: Console, text: str) -> None:
    """One line in which no name of a file is a command to the terminal or to rich."""
    console.print(printable(text), markup=False, soft_wrap=True)


def show(console: Console, rows: Sequence[Predicted], judge: Judge) -> None:
    """The table; of many files the first ones."""
    two = len(judge.classes) == 2
    header = [
        "file",
        judge.classes[1] if two else "probability of verdict",
        "verdict",
        "clips",
        "highest at",
        "status",
        "reason",
    ]
    faces = any(len(row.faces) > 1 for row in rows)
    cells = [header, *(_cells(row, judge, faces=faces) for row in rows[:SHOWN])]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    for row in cells:
        padded = [
            cell.rjust(width) if column in (1, 3) else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        line(console, "  ".join(padded).rstrip())
    if len(rows) > SHOWN:
        line(console, f"... and {many(len(rows) - SHOWN, 'more file')}")


def _cells(row: Predicted, judge: Judge, *, faces: bool) -> list[str]:
    reason = printable("; ".join(filter(None, (row.reason, row.note))))
    name = printable(row.name)
    if not row.faces:
        return [name, "-", "-", "0", "-", row.status, reason]
    face, probs = row.faces[row.face], row.probs
    label = judge.scored(probs)
    peak = face.peak(label)
    at = "-" if peak is None else f"{peak.begin:.1f}-{peak.end:.1f} s ({peak.probs[label]:.3f})"
    of_face = f", face {row.face + 1} of {len(row.faces)}" if faces else ""
    verdict = judge.classes[judge.label(probs)]
    return [name, f"{probs[label]:.4f}", verdict, str(len(face.clips)), at + of_face, row.status, reason]


def counts(rows: Sequence[Predicted], judge: Judge) -> str:
    """'12 files: 3 fake, 8 real, 1 no_face'."""
    said = Counter(judge.classes[judge.label(row.probs)] if row.faces else row.status for row in rows)
    return f"{many(len(rows), 'file')}: " + ", ".join(f"{n:,} {what}" for what, n in said.items())
