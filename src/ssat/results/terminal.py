"""The report on the terminal: runs, comparisons, the paper's tables and claims, and what has not been run yet."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from rich import box
from rich.markup import escape
from rich.table import Table

from ssat.config.words import as_typed_here, command_line
from ssat.core.terminal import Console, tell
from ssat.core.words import markdown_text
from ssat.results.comparisons import finding, finished_comparisons
from ssat.results.content import counted
from ssat.results.frontier import frontier_table, frontiers
from ssat.results.intervals import SEED_DEVIATION
from ssat.results.label_curve import curve_table, label_curves, next_labels
from ssat.results.paper.claims import Claim, status_counts
from ssat.results.paper.paper_tables import latex, left_out, markdown, missing, notes, terminal_tables, to_csv
from ssat.results.paper.relevance import NOT_OF_THE_PAPER, concerns_the_paper
from ssat.results.paper.verdicts import Judged
from ssat.results.spent import said_extensions
from ssat.results.tables import runs_table, to_markdown
from ssat.results.text import FEWER_RUNS, largest, shared_energy
from ssat.runs.record import Record

PIPE_WIDTH = 120  # characters of a table when the output is no terminal
MOST_UNFINISHED = 5  # names of runs without a record
MOST_RUNS = 100  # rows of the table of runs
MOST_COMPARISONS = 20  # sentences on what comparisons show


def comparison_lines(records: list[Record]) -> Iterator[str]:
    """What every comparison shows, and which runs did not finish."""
    found = finished_comparisons(records)
    shown = largest(found, lambda comparison: len(comparison.records), most=MOST_COMPARISONS)
    lines = [f"{comparison.title}: {finding(comparison.records)}\n" for comparison in shown]
    yield from lines
    if len(found) > len(shown):
        yield f"and {len(found) - len(shown):,} more comparisons: {FEWER_RUNS}\n"
    if any("±" in line for line in lines):
        yield (
            f"± of points is the 95 % interval of a difference: it follows from the number of test {counted(records)}"
            f" and from how much seeds differ, assumed as a deviation of {SEED_DEVIATION:g} points until more seeds"
            " tell. ± of a mean in a table is the deviation of its seeds.\n"
        )
    for sentence in filter(None, (shared_energy(records), said_extensions(records))):
        yield f"{sentence}\n"
    for record in records:
        if not record.finished:
            error = f": {record.text('error')}" if record.get("error") else ""
            yield f"{record.status}: {record.group}/{record.folder.name}{error}"


def unfinished_lines(names: Sequence[str]) -> Iterator[str]:
    """The names of a few runs without a record, and how many there are."""
    for name in names[:MOST_UNFINISHED]:
        yield f"not finished: {name} (the same command continues it)"
    if len(names) > MOST_UNFINISHED:
        yield f"not finished: {len(names):,} runs in all; the page lists them"


def print_as(
    form: str, records: list[Record], chosen: dict[str, Judged], claims: list[Claim], names: Sequence[str]
) -> None:
    """Print the chosen tables as csv, latex or markdown.

    Args:
        form: csv | latex | markdown.
        records: all runs.
        chosen: the tables and figures to print.
        claims: of the paper.
        names: what the user has named on the command line; empty = everything.
    """
    if form == "csv":
        tell(to_csv([*chosen.values()]).rstrip("\n"))
    elif form == "latex":
        tell("\n".join(latex(each) for each in chosen.values()))
    else:
        if not names and records:
            tell(to_markdown(records))
            for sentence in filter(None, (shared_energy(records), said_extensions(records))):
                tell(f"\n{markdown_text(sentence)}")
        if names != ["claims"]:
            tell("\n".join(markdown(each) for each in chosen.values()))
        if not names or "claims" in names:
            tell(claims_markdown(claims))


def show(records: list[Record], chosen: dict[str, Judged], claims: list[Claim], names: Sequence[str]) -> None:
    """Print the runs, the paper's tables with our numbers, and what has not been run.

    Args:
        records: all runs.
        chosen: the tables and figures to print.
        claims: of the paper.
        names: what the user has named on the command line; empty = everything, in brief.
    """
    console = Console(highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = PIPE_WIDTH
    if not names and records:
        _show_runs(console, records)
    elif not names:
        first = command_line("train", ["encoder=vit_micro", "data=digits", "mode=ssat"])
        console.print(f"No run is finished yet: {first} trains one within a minute\n", markup=False, soft_wrap=True)
    is_whole = bool(names)
    for each in chosen.values():
        if is_whole or each.has_runs:
            show_item(console, each, commands=is_whole)
    if not is_whole and not concerns_the_paper(records, chosen.values()):
        console.print(as_typed_here(f"{NOT_OF_THE_PAPER} (python -m src.report table1 lists its cells)"), markup=False)
        return
    without_runs = [each.item.source for each in chosen.values() if not each.has_runs and not each.is_settings]
    if not is_whole and without_runs:
        console.print(
            f"Without runs yet: {', '.join(without_runs)} of the paper ({command_line('report', ['table1'])} lists the"
            " cells of Table 1 and the commands that run them)\n",
            markup=False,
        )
    if not names:
        console.print(claims_line(claims))
    elif "claims" in names:
        console.print(claims_table(claims))


def _show_runs(console: Console, records: list[Record]) -> None:
    console.print(runs_table(records[:MOST_RUNS], width=console.width))
    if len(records) > MOST_RUNS:
        console.print(f"and {len(records) - MOST_RUNS:,} more runs: the page lists all of them")
    console.print()
    for curve in label_curves(records):
        console.print(f"[bold]{escape(curve.title)}: accuracy in % against the share of labels[/bold]")
        console.print(curve_table(curve))
        for line in next_labels(curve):
            console.print(line, markup=False, soft_wrap=not console.is_terminal)
        console.print()
    for frontier in frontiers(records):
        title = f"{frontier.title}: accuracy in % from scratch, and SSAT minus scratch"
        console.print(f"[bold]{escape(title)}[/bold]")
        console.print(frontier_table(frontier))
        console.print()
    for line in comparison_lines(records):
        console.print(line, markup=False, soft_wrap=not console.is_terminal)


def show_item(console: Console, judged: Judged, *, commands: bool) -> None:
    """Print one table or figure; with `commands` also its notes and the command of every cell without a run."""
    for title, table, counts in terminal_tables(judged):
        console.print(f"[bold]{escape(title)}[/bold]", soft_wrap=True)
        console.print(table)
        console.print(f"{counts}\n", markup=False, style="italic")
    if more := left_out(judged):
        console.print(f"{more}\n", markup=False, soft_wrap=True)
    if not commands:
        return
    for where, note in notes(judged):
        console.print(f"  note on {where}: {note}", markup=False, style="dim", soft_wrap=True)
    lines = list(missing(judged))
    if lines:
        console.print(f"  all of it: {experiment_command(judged)}", markup=False, soft_wrap=True)
    for line in lines:
        console.print(f"  {line}", markup=False, soft_wrap=True)
    console.print()


def experiment_command(judged: Judged) -> str:
    """The command that runs a whole table or figure, or why there is none."""
    experiment = judged.item.experiment
    if experiment.trains_nothing:
        return experiment.trains_nothing
    return command_line("train", [f"+experiments={judged.item.name}"]) if experiment.rows else "nothing to run"


def claims_line(claims: list[Claim]) -> str:
    """How many claims have which status."""
    return as_typed_here(
        f"{len(claims)} claims of the paper: {status_counts(claims)} (python -m src.report claims lists them)"
    )


def claims_table(claims: list[Claim]) -> Table:
    """The claims ledger: sentence, status, what the paper's numbers say, what ours say."""
    table = Table(title="Claims of the paper", title_justify="left", box=box.SIMPLE_HEAD, show_lines=True)
    for title in ("claim", "status", "the paper's own numbers", "our evidence"):
        table.add_column(title)
    for claim in claims:
        texts = (
            f"{claim.sentence} ({claim.where})",
            claim.status,
            " ".join(claim.paper_lines),
            "\n".join(claim.evidence_lines),
        )
        table.add_row(*map(escape, texts))
    return table


def claims_markdown(claims: list[Claim]) -> str:
    """The claims ledger as a Markdown table."""
    lines = [
        "## Claims of the paper\n",
        "| claim | where | status | the paper's own numbers | our evidence |",
        "|---|---|---|---|---|",
    ]
    for claim in claims:
        told = (" ".join(claim.paper_lines), "; ".join(claim.evidence_lines))
        texts = (claim.sentence, claim.where, claim.status, *told)
        lines.append("| " + " | ".join(map(markdown_text, texts)) + " |")
    return "\n".join(lines) + "\n"
