"""The finished runs as a table and one HTML page: python -m src.report [runs=runs] [out=runs/report.html] [markdown=true]"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from rich.console import Console

from src.cli import fail
from src.errors import UserError

DEFAULTS = {"runs": "runs", "out": "", "markdown": "false"}
EXAMPLE = "python -m src.train +experiments=quickstart"


def parse(words: list[str]) -> dict[str, str]:
    """key=value words over the defaults.

    Raises:
        UserError: an unknown key, with the nearest right one.
    """
    from src.config import nearest

    options = dict(DEFAULTS)
    for word in words:
        key, equals, given = word.partition("=")
        if not equals or key not in DEFAULTS:
            raise UserError(f"there is no option {word!r}{nearest(key, list(DEFAULTS))}; usage: {__doc__}")
        options[key] = given
    return options


def report(runs: Path, out: Path, *, markdown: bool = False, console: Console | None = None) -> None:
    """Print the table and the verdicts of the runs below `runs` and write the page `out`.

    Raises:
        UserError: no runs, or `out` cannot be written.
    """
    from src.results.html import render
    from src.results.record import read_records
    from src.results.summary import groups, verdict
    from src.results.tables import runs_table, seed_means, to_markdown

    console = console or Console()
    records, warnings = read_records(runs)
    for warning in warnings:
        console.print(f"warning: {warning}", style="yellow", markup=False)
    if not records:
        raise UserError(f"there are no runs in {runs}: train some first, e.g. {EXAMPLE}")
    if markdown:
        print(to_markdown(records))
    else:
        console.print(runs_table(records, console.width))
    if any(record["status"] == "finished" and not record.get("faithful") for record in records):
        console.print("† not comparable with a cell of the paper; the page says why", style="dim")
    for line in seed_means(records):
        console.print(line, markup=False)
    for (experiment, data, encoder), members in groups(records).items():
        console.print(f"{encoder} on {data} ({experiment}): {verdict(members)}", markup=False, highlight=False)
    partial = out.with_name(f".{out.name}.partial")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(render(records, warnings), encoding="utf-8")
        os.replace(partial, out)
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror}; set out=<a file of yours>") from error
    console.print(f"wrote {out}", markup=False, highlight=False)


def main() -> None:
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(__doc__)
        return
    try:
        options = parse(sys.argv[1:])
        runs = Path(options["runs"])
        report(runs, Path(options["out"] or runs / "report.html"), markdown=options["markdown"] == "true")
    except UserError as error:
        fail(str(error))


if __name__ == "__main__":
    main()
