"""Show the runs made so far beside the paper: terminal, one HTML page, Markdown, LaTeX, CSV. python -m src.report"""

from __future__ import annotations

import io
import os
import stat
import sys
from pathlib import Path

from ssat.config.command_line import run_words
from ssat.core.errors import UserError
from ssat.core.files import write_text
from ssat.core.options import read_options
from ssat.core.terminal import tell
from ssat.core.words import nearest
from ssat.results.analyses import read_analyses
from ssat.results.copies import without_copies
from ssat.results.page.embeddings import damaged_maps
from ssat.results.page.html import render
from ssat.results.paper.claims import Claim, ledger
from ssat.results.paper.paper import choose, read_claims, read_paper, read_text_numbers
from ssat.results.paper.paper_tables import latex, markdown, to_csv
from ssat.results.paper.verdicts import Judged, judge
from ssat.results.terminal import claims_markdown, print_as, show, unfinished_lines
from ssat.runs.record import folders, read_records, read_unfinished

USAGE = """\
python -m src.report [table1 figure3 claims ...] [runs=<folder>] [out=<file.html>] [format=markdown] [save=<folder>]

Reads the result.json of every run and shows them beside the paper's tables and figures: what is reproduced, what
differs, what is partial data and what has not been run, with the command that runs it. Writes one HTML page that needs
no network.

  table1 figure3 ...      only these tables and figures, every cell listed; claims: the ledger of the paper's claims
  runs=runs               folder that holds the runs, at any depth
  out=<runs>/report.html  the page
  format=terminal         or markdown, latex, csv: printed in place of the terminal's tables
  save=<folder>           also write <table>.md, <table>.tex, <figure>.pdf, <figure>.png, cells.csv and claims.md there
  --help                  this text
"""
KEYS = {"runs": "<folder>", "out": "<file.html>", "format": "markdown", "save": "<folder>"}
FORMATS = ("terminal", "markdown", "latex", "csv")
MOST_WARNINGS = 5


def parse(words: list[str]) -> tuple[dict[str, str], list[str]]:
    """The command line as {'runs': ..., 'out': ...} and the named tables and figures.

    Raises:
        UserError: an unknown word, or a key without a value.
    """
    options, names, _ = read_options(words, KEYS, names=[*read_paper(), "claims"])
    if options.get("format", "terminal") not in FORMATS:
        raise UserError(
            f"format={options['format']} is not one of {', '.join(FORMATS)}{nearest(options['format'], list(FORMATS))}"
        )
    return options, names


def runs_of(options: dict[str, str]) -> Path:
    """The folder of the runs, which does not exist before the first one.

    Raises:
        UserError: the folder named does not exist, cannot be read, or is a file.
    """
    runs = Path(options.get("runs", "runs"))
    try:
        if not stat.S_ISDIR(runs.stat().st_mode):
            raise UserError(f"runs={runs} is not a folder")
    except FileNotFoundError as error:
        if "runs" in options:
            raise UserError(f"runs={runs} does not exist: name the folder that holds the runs") from error
    except OSError as error:
        raise UserError(
            f"runs={runs} cannot be read ({error.strerror}): name the folder that holds the runs"
        ) from error
    return runs


def page_of(options: dict[str, str], runs: Path) -> Path:
    """The file that the page is written to.

    Raises:
        UserError: it is a folder.
    """
    out = Path(options.get("out", runs / "report.html"))
    if os.path.isdir(out):
        raise UserError(f"out={out} is a directory: name a file in it, such as out={out / 'report.html'}")
    return out


def _holds_others(runs: Path) -> bool:
    """Whether a folder without runs has files that no report has written, and is not the one of runs to come."""
    own = {*read_paper(), "cells", "claims"}
    below = (path for path in runs.rglob("*") if path.is_file())
    visible = (path for path in below if not any(part.startswith(".") for part in path.relative_to(runs).parts))
    return any(path.suffix != ".html" and path.stem not in own for path in visible)


def report(words: list[str]) -> None:
    """Tables and verdicts on the terminal, the page on the disk."""
    options, names = parse(words)
    runs = runs_of(options)
    out, tree = page_of(options, runs), folders(runs)
    records, warnings = read_records(runs, tree)
    unfinished = read_unfinished(runs, tree)
    judged = {name: judge(item, records) for name, item in read_paper().items()}
    chosen = {name: judged[name] for name in choose([name for name in names if name != "claims"])}
    analyses, damaged = read_analyses(runs, tree)
    if "runs" in options and not (records or warnings or unfinished or analyses or damaged) and _holds_others(runs):
        raise UserError(f"runs={runs} holds files but no run: name the folder that holds the runs")
    warnings += damaged + damaged_maps([record for record in records if record.finished])
    of_images = [each for each in analyses if not each.of_clips]
    made = {name: [each.title for each in of_images if each.name == name] for name in {a.name for a in of_images}}
    claims = ledger(read_claims(), read_text_numbers(), judged, records, made)
    distinct, copies = without_copies(records)
    page = render(distinct, judged, claims, analyses, warnings=warnings, unfinished=unfinished, copies=copies, page=out)
    # Before the tables, which `| head` may cut off; what cannot be written is told after them.
    written, failure = write_all(out, page, options, judged, claims)
    form = options.get("format", "terminal")
    if form == "terminal":
        show(distinct, chosen if names != ["claims"] else {}, claims, names)
        tell(*unfinished_lines(unfinished), *copies)
    else:
        print_as(form, distinct, chosen, claims, names)
        tell(*copies, file=sys.stderr)  # what is printed is the table alone
    for warning in warnings[:MOST_WARNINGS]:
        tell(f"skipped {warning}", file=sys.stderr)
    if warnings:
        files = "file" if len(warnings) == 1 else "files"
        print(f"skipped {len(warnings)} {files} in all; the page lists them", file=sys.stderr)
    if failure:
        raise failure
    # Into a pipe goes the table alone, so that format=csv > cells.csv is a CSV file.
    print(f"wrote {', '.join(map(str, written))}", file=sys.stdout if form == "terminal" else sys.stderr)


def write_all(
    out: Path, page: str, options: dict[str, str], judged: dict[str, Judged], claims: list[Claim]
) -> tuple[list[Path], UserError | None]:
    """The files and folders written, and why one could not be."""
    written = []
    try:
        written.append(write_page(out, page))
        written += save(Path(options["save"]), judged, claims) if "save" in options else []
    except UserError as error:
        return written, error
    return written, None


def write_page(path: Path, text: str) -> Path:
    """Raises: UserError when it cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return write_text(path, text)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}; name another file with out=<file.html>") from error


def save(folder: Path, judged: dict[str, Judged], claims: list[Claim]) -> list[Path]:
    """Every table as Markdown and LaTeX, the figures as PDF and PNG, all cells as CSV, the claims as Markdown.

    Raises:
        UserError: the folder cannot be written.
    """
    from ssat.results.plots import save_figures  # matplotlib is loaded only where it draws

    texts = {f"{name}.md": markdown(each) for name, each in judged.items()}
    texts |= {f"{name}.tex": latex(each) for name, each in judged.items()}
    texts |= {"cells.csv": to_csv([*judged.values()]), "claims.md": claims_markdown(claims)}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            write_text(folder / name, text)
        list(save_figures([*judged.values()], folder))
    except OSError as error:
        raise UserError(f"cannot write to save={folder}: {error.strerror}; name another folder") from error
    return [folder]


def main() -> None:
    """The command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without ± shows ? in its place
    run_words(report, USAGE, interrupted="the page may be the one from before")
