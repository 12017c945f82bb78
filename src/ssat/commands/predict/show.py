"""What the command prints of its results: a table and counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from ssat.core.terminal import Console
from ssat.core.words import many, one_line, printable
from ssat.runs.predicted import Judge, Predicted

SHOWN = 40  # rows of the table in the terminal
NO_PROOF = (
    "a probability is the score of this network and no proof; other kinds of fakes than it was trained on may pass"
)
NO_PROOF_OF_IMAGES = "a probability is the score of this network and no proof, least of all for images of another kind"


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
    columns(console, cells, right=(1, 3))
    if len(rows) > SHOWN:
        line(console, f"... and {many(len(rows) - SHOWN, 'more file')}")


def columns(console: Console, cells: Sequence[Sequence[str]], *, right: Sequence[int]) -> None:
    """Rows of cells as lines, in columns of one width; those of `right` are aligned there."""
    printed = [[one_line(cell) for cell in row] for row in cells]
    widths = [max(map(len, column)) for column in zip(*printed, strict=True)]
    for row in printed:
        padded = [
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        line(console, "  ".join(padded).rstrip())


def _cells(row: Predicted, judge: Judge, *, faces: bool) -> list[str]:
    reason = printable("; ".join(filter(None, (row.reason, row.note))))
    name = one_line(row.name)
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
