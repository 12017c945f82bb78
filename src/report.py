"""Show the runs made so far beside the paper: terminal, one HTML page, Markdown, LaTeX, CSV. python -m src.report"""

from __future__ import annotations

import io
import os
import stat
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from src.cli import run_words
from src.config import nearest
from src.errors import UserError
from src.results.analyses import read_analyses
from src.results.claims import Claim, ledger
from src.results.html import render
from src.results.html_paper import has_runs
from src.results.label_curve import curve_table, label_curves
from src.results.paper import choose, read_claims, read_paper, read_text_numbers
from src.results.paper_tables import latex, left_out, markdown, missing, notes, terminal_tables, to_csv
from src.results.record import Record, folders, read_records, read_unfinished, write_text
from src.results.summary import FEWER, comparisons, largest, verdict
from src.results.tables import markdown_text, runs_table, to_markdown
from src.results.verdicts import Judged, judge

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
KEYS = {"runs": "folder", "out": "file.html", "format": "markdown", "save": "folder"}
FORMATS = ("terminal", "markdown", "latex", "csv")
PIPE_WIDTH = 120  # of the table when the output is no terminal
MOST_WARNINGS = 5
MOST_UNFINISHED = 5
MOST_RUNS = 100  # rows of the terminal's table
MOST_COMPARISONS = 20  # sentences of the terminal


def parse(words: list[str]) -> tuple[dict[str, str], list[str]]:
    """The command line as {'runs': ..., 'out': ...} and the named tables and figures.

    Raises:
        UserError: an unknown word, or a key without a value.
    """
    options: dict[str, str] = {}
    names = []
    known = [*KEYS, "claims", "--help", *read_paper()]
    for word in words:
        key, equals, value = word.partition("=")
        if not equals and key in (*read_paper(), "claims"):
            names.append(key)
        elif key not in KEYS:
            raise UserError(f"there is no table, figure or option {word!r}{nearest(key, known)} (--help lists them)")
        elif not value:
            raise UserError(f"{key} needs a value: {key}=<{KEYS[key]}>")
        else:
            options[key] = value
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


def summary_lines(records: list[Record]) -> Iterator[str]:
    """What every comparison shows, and which runs did not finish."""
    found = comparisons([record for record in records if record.finished])
    shown = largest(found, lambda comparison: len(comparison.records), most=MOST_COMPARISONS)
    lines = [f"{comparison.title}: {verdict(comparison.records)}\n" for comparison in shown]
    yield from lines
    if len(found) > len(shown):
        yield f"and {len(found) - len(shown):,} more comparisons: {FEWER}\n"
    if any("±" in line for line in lines):
        yield "± is the 95 % interval that follows from the number of test images; other seeds would vary on top.\n"
    for record in records:
        if not record.finished:
            why = f": {record.text('error')}" if record.get("error") else ""
            yield f"{record.status}: {record.group}/{record.folder.name}{why}"


def unfinished_lines(names: Sequence[str]) -> Iterator[str]:
    """The runs without a record: a few by name, and how many there are."""
    for name in names[:MOST_UNFINISHED]:
        yield f"not finished: {name} (the same command continues it)"
    if len(names) > MOST_UNFINISHED:
        yield f"not finished: {len(names):,} runs in all; the page lists them"


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
    warnings += damaged
    made = {name: [each.title for each in analyses if each.name == name] for name in {a.name for a in analyses}}
    claims = ledger(read_claims(), read_text_numbers(), judged, records, made)
    page = render(records, judged, claims, analyses, warnings=warnings, unfinished=unfinished, page=out)
    # Before the tables, which `| head` may cut off; what cannot be written is told after them.
    written, failure = write_all(out, page, options, judged, claims)
    form = options.get("format", "terminal")
    if form == "terminal":
        show(records, chosen if names != ["claims"] else {}, claims, names)
        print(*unfinished_lines(unfinished), sep="\n", end="\n" * bool(unfinished))
    else:
        print_as(form, records, chosen, claims, names)
    for warning in warnings[:MOST_WARNINGS]:
        print(f"skipped {warning}", file=sys.stderr)
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
    from src.results.plots import save_figures  # matplotlib is loaded only where it draws

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


def print_as(
    form: str, records: list[Record], chosen: dict[str, Judged], claims: list[Claim], names: Sequence[str]
) -> None:
    """The chosen tables as text to be copied or piped."""
    if form == "csv":
        print(to_csv([*chosen.values()]), end="")
    elif form == "latex":
        print("\n".join(latex(each) for each in chosen.values()))
    else:
        if not names and records:
            print(to_markdown(records))
        if names != ["claims"]:
            print("\n".join(markdown(each) for each in chosen.values()))
        if not names or "claims" in names:
            print(claims_markdown(claims))


def show(records: list[Record], chosen: dict[str, Judged], claims: list[Claim], names: Sequence[str]) -> None:
    """The terminal's report: the runs, then the paper's cells, then what has not been run."""
    console = Console(highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = PIPE_WIDTH
    if records and not names:
        console.print(runs_table(records[:MOST_RUNS], width=console.width))
        if len(records) > MOST_RUNS:
            console.print(f"and {len(records) - MOST_RUNS:,} more runs: the page lists all of them")
        console.print()
        for curve in label_curves(records):
            console.print(f"[bold]{escape(curve.title)}: accuracy in % against the share of labels[/bold]")
            console.print(curve_table(curve))
            console.print()
        for line in summary_lines(records):
            console.print(line, markup=False, soft_wrap=not console.is_terminal)
    whole = bool(names) or not records
    for each in chosen.values():
        if whole or has_runs(each):
            show_item(console, each, commands=whole)
    empty = [each.item.source for each in chosen.values() if not has_runs(each) and not is_settings(each)]
    if not whole and empty:
        console.print(
            f"Without runs yet: {', '.join(empty)} of the paper (python -m src.report table1 lists every cell of one,"
            " and the command that runs it)\n",
            markup=False,
        )
    if not names or "claims" in names:
        console.print(claims_table(claims) if "claims" in names else claims_line(claims))


def show_item(console: Console, each: Judged, *, commands: bool) -> None:
    """One table or figure; with `commands` also its notes and every cell without a run."""
    for title, table, counts in terminal_tables(each):
        console.print(f"[bold]{escape(title)}[/bold]", soft_wrap=True)
        console.print(table)
        console.print(f"{counts}\n", markup=False, style="italic")
    if more := left_out(each):
        console.print(f"{more}\n", markup=False, soft_wrap=True)
    if not commands:
        return
    for where, note in notes(each):
        console.print(f"  note on {where}: {note}", markup=False, style="dim", soft_wrap=True)
    lines = list(missing(each, each.paper))
    if lines:
        console.print(f"  all of it: {experiment_command(each.item.name, each)}", markup=False, soft_wrap=True)
    for line in lines:
        console.print(f"  {line}", markup=False, soft_wrap=True)
    console.print()


def is_settings(each: Judged) -> bool:
    """Whether its cells are settings of the configuration, which no run is needed for (Table 14)."""
    return bool(each.paper) and all(cell.cell.measure == "setting" for cell in each.paper)


def experiment_command(name: str, each: Judged) -> str:
    """The command that runs a whole table."""
    experiment = each.item.experiment
    return experiment.unbuilt or (f"python -m src.train +experiments={name}" if experiment.rows else "nothing to run")


def claims_line(claims: list[Claim]) -> str:
    counts = {status: sum(claim.status == status for claim in claims) for status in {c.status for c in claims}}
    listed = ", ".join(f"{count} {status}" for status, count in sorted(counts.items(), key=lambda pair: -pair[1]))
    return f"{len(claims)} claims of the paper: {listed} (python -m src.report claims lists them)"


def claims_table(claims: list[Claim]) -> Table:
    """The ledger: sentence, status, what the paper's numbers say, what ours say."""
    table = Table(title="Claims of the paper", title_justify="left", box=box.SIMPLE_HEAD, show_lines=True)
    for title in ("claim", "status", "the paper's own numbers", "our evidence"):
        table.add_column(title)
    for claim in claims:
        texts = (f"{claim.sentence} ({claim.where})", claim.status, f"{claim.paper} {claim.note}".strip())
        table.add_row(*map(escape, texts), escape("\n".join(filter(None, (claim.evidence, claim.small)))))
    return table


def claims_markdown(claims: list[Claim]) -> str:
    lines = [
        "## Claims of the paper\n",
        "| claim | where | status | the paper's own numbers | our evidence |",
        "|---|---|---|---|---|",
    ]
    for claim in claims:
        paper, evidence = f"{claim.paper} {claim.note}".strip(), f"{claim.evidence}; {claim.small}".strip("; ")
        cells = (claim.sentence, claim.where, claim.status, paper, evidence)
        lines.append("| " + " | ".join(map(markdown_text, cells)) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without ± shows ? in its place
    try:
        run_words(report, USAGE, interrupted="the page may be the one from before")
    except BrokenPipeError:  # `... | head` closed the pipe: nobody reads on
        sys.stderr.close()


if __name__ == "__main__":
    main()
