"""Show the runs made so far: a table in the terminal and one HTML page. python -m src.report [runs=DIR] [out=FILE]"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from src.cli import fail
from src.config import nearest
from src.errors import UserError
from src.results.html import render
from src.results.label_curve import curve_table, label_curves
from src.results.record import Record, read_records, write_text
from src.results.summary import comparisons, verdict
from src.results.tables import runs_table, to_markdown

USAGE = """\
python -m src.report [runs=<folder>] [out=<file.html>] [--markdown]

Reads the result.json of every run, prints their table and what the comparison of the modes shows,
and writes one HTML page with the curves and the reconstructions; the page needs no network.

  runs=runs               folder that holds the runs, at any depth
  out=<runs>/report.html  the page
  --markdown              print the table as Markdown
  --help                  this text
"""
PIPE_WIDTH = 120  # of the table when the output is no terminal
MOST_WARNINGS = 5


def parse(words: list[str]) -> dict[str, str]:
    """The command line as {'runs': ..., 'out': ..., '--markdown': ''}.

    Raises:
        UserError: an unknown word, or a key without a value.
    """
    options: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if key in ("--markdown", "--help", "-h") and not equals:
            options[key] = ""
        elif key not in ("runs", "out"):
            raise UserError(f"there is no option {word!r}{nearest(key, ['runs', 'out', '--markdown', '--help'])}")
        elif not value:
            raise UserError(f"{key} needs a value: {key}=<{'folder' if key == 'runs' else 'file.html'}>")
        else:
            options[key] = value
    return options


def load(runs: Path) -> tuple[list[Record], list[str]]:
    """The records below `runs`.

    Raises:
        UserError: there is none.
    """
    if runs.exists() and not runs.is_dir():
        raise UserError(f"runs={runs} is not a folder")
    records, warnings = read_records(runs)
    if not records:
        found = f" ({len(warnings)} unreadable: {warnings[0]})" if warnings else ""
        raise UserError(
            f"there are no runs in {runs}{found}: `make run` or "
            "`python -m src.train -m encoder=vit_micro mode=scratch,ssl_ft,ssat epochs=15` makes some"
        )
    return records, warnings


def summary_lines(records: list[Record]) -> Iterator[str]:
    """What every comparison shows, and which runs did not finish."""
    found = [
        f"{comparison.title}: {verdict(comparison.records)}\n"
        for comparison in comparisons([record for record in records if record.finished])
    ]
    yield from found
    if any("±" in line for line in found):
        yield "± is the 95 % interval that follows from the number of test images; other seeds would vary on top.\n"
    for record in records:
        if not record.finished:
            why = f": {record.text('error')}" if record.get("error") else ""
            yield f"{record.status}: {record.group}/{record.folder.name}{why}"


def report(words: list[str]) -> None:
    """Table and verdicts on the terminal, the page on the disk."""
    options = parse(words)
    if "--help" in options or "-h" in options:
        print(USAGE, end="")
        return
    runs = Path(options.get("runs", "runs"))
    out = Path(options.get("out", runs / "report.html"))
    records, warnings = load(runs)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_text(out, render(records, warnings=warnings, page=out))
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror}; name another file with out=<file.html>") from error
    console = Console(highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = PIPE_WIDTH
    if "--markdown" in options:
        print(to_markdown(records))
    else:
        console.print(runs_table(records, width=console.width))
        console.print()
        for curve in label_curves(records):
            console.print(f"[bold]{escape(curve.title)}: accuracy in % against the share of labels[/bold]")
            console.print(curve_table(curve))
            console.print()
    for line in summary_lines(records):
        console.print(line, markup=False, soft_wrap=not console.is_terminal)
    for warning in warnings[:MOST_WARNINGS]:
        print(f"skipped {warning}", file=sys.stderr)
    if len(warnings) > MOST_WARNINGS:
        print(f"skipped {len(warnings)} files in all; the page lists them", file=sys.stderr)
    print(f"wrote {out}")


def main() -> None:
    try:
        report(sys.argv[1:])
    except UserError as error:
        fail(str(error))
    except BrokenPipeError:  # `... | head` closed the pipe: nobody reads on
        sys.stderr.close()


if __name__ == "__main__":
    main()
