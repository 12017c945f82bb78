"""The paper's tables with our numbers beside them: for the terminal, as Markdown, LaTeX and CSV."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from rich import box
from rich.markup import escape
from rich.table import Table

from ssat.config.words import as_typed_here
from ssat.core.words import markdown_text
from ssat.results.paper.paper import Cell
from ssat.results.paper.verdicts import (
    ACCURACIES,
    COUNTS,
    DIFFERS,
    MEASURED,
    NOT_OURS,
    NOT_RUN,
    OF_MACHINE,
    ONE_SEED,
    OTHER,
    OTHER_MACHINE,
    PARTIAL,
    REPRODUCED,
    TOO_NOISY,
    VERDICTS,
    CellResult,
    Judged,
    Part,
)
from ssat.results.text import FEWER_RUNS, with_minus

STYLES = {
    REPRODUCED: "green",
    DIFFERS: "red",
    TOO_NOISY: "yellow",
    ONE_SEED: "yellow",
    PARTIAL: "yellow",
    OTHER: "yellow",
    MEASURED: "cyan",
    OTHER_MACHINE: "cyan",
}
DECIMALS = dict.fromkeys(COUNTS, 0)
# What measures a trained network otherwise than its training did, which names the folder.
EVALUATE = as_typed_here("python -m src.evaluate run='<its folder>' data.perturb=perspective")
ZERO_SHOT = as_typed_here("python -m src.evaluate run={folder} data=ffpp split=test_{method}")


def heading(judged: Judged) -> str:
    """'Table 3: ViT-T from scratch, ...'"""
    return f"{judged.item.source}: {judged.item.title}"


def part_heading(judged: Judged, part: Part, *, separator: str) -> str:
    """The heading of a table or figure; for a block of other runs, also the block's title."""
    return heading(judged) + ("" if part.block.is_exact else f"{separator}{part.block.title}")


def tally(results: Sequence[CellResult]) -> str:
    """'10 cells: 1 reproduced within error, 9 not run'"""
    return f"{len(results)} cells: {verdict_counts(results)}" if results else "no numbers"


def verdict_counts(results: Sequence[CellResult]) -> str:
    """'1 reproduced within error, 9 not run'"""
    counts = Counter(each.verdict for each in results)
    return ", ".join(f"{counts[verdict]} {verdict}" for verdict in VERDICTS if counts[verdict])


def item_counts(judged: Judged) -> str:
    """What the overview and the section say of a table or figure: '12 not run', and how many cells have other runs."""
    others = sum(len(part.results) for part in judged.parts[1:])
    return "; ".join(filter(None, (verdict_counts(judged.exact), f"{others} of other runs" if others else "")))


def total(judged: Iterable[Judged]) -> str:
    """The cells of all tables and figures: the sum of what each of them counts."""
    return tally([result for each in judged for result in each.exact])


def left_out(judged: Judged) -> str:
    """'and 480 more settings: ...'; empty where all are shown."""
    count = len(judged.parts) - len(judged.shown_parts)
    settings = "setting" if count == 1 else "settings"
    return f"and {count:,} more {settings}: {FEWER_RUNS}" if count else ""


def shown_ours(result: CellResult) -> str:
    """Our mean ± deviation over seeds (their number), or our setting; empty where nothing was measured."""
    if result.setting:
        return result.setting
    if result.ours is None:
        return ""
    deviation = "" if result.deviation is None else f" ± {result.deviation:.2f}"
    seeds = f" (n={len(result.values)})" if len(result.values) > 1 else ""
    return f"{result.ours:,.{_decimals(result)}f}{deviation}{seeds}"


def shown_difference(result: CellResult) -> str:
    """Ours minus the paper's, with its sign and its interval; empty where one of them is missing.

    Of hours and CO2 the interval is that of the verdict; sizes and counts have none.
    """
    if result.difference is None:
        return ""
    has_interval = result.cell.measure in (*ACCURACIES, *OF_MACHINE) and result.tolerance is not None
    margin = f" ± {result.tolerance:.2f}" if has_interval else ""
    return with_minus(f"{result.difference:+,.{_decimals(result)}f}") + margin


def judgement(result: CellResult) -> str:
    """'+0.31 ± 0.80, reproduced within error': the difference, where there is one, the verdict, and what limits it."""
    near = f"but so is {_listed(result.as_near)}" if result.as_near else ""
    is_judged = result.is_one_seed and result.verdict in (REPRODUCED, DIFFERS)
    one_seed = "one seed" if is_judged else ""
    repeats = "; ".join(each.said for each in result.repeats)
    words = (shown_difference(result), result.verdict, one_seed, near, _listed(result.differs_in), repeats)
    return ", ".join(filter(None, (*words, *result.remarks)))


def _listed(words: Sequence[str], most: int = 3) -> str:
    more = f" and {len(words) - most} more" if len(words) > most else ""
    return ", ".join(words[:most]) + more


def _decimals(result: CellResult) -> int:
    return DECIMALS.get(result.cell.measure, 2)


def command(judged: Judged, cell: Cell) -> str:
    """The command that runs a cell; empty where nothing can be run yet."""
    experiment = judged.item.experiment
    if not experiment.has(cell):
        return ""
    line = experiment.command(cell.row, cell.column)
    if line and cell.measure == "perspective":
        return f"{line} && {EVALUATE}"
    if line and cell.measure == "zero_shot":
        named = next(word for word in experiment.words(cell.row, cell.column) if word.startswith("run_dir="))
        folder = named.partition("=")[2].replace("${runs_dir}", "runs").replace("${seed}", "0")  # the defaults
        return f"{line} && {ZERO_SHOT.format(folder=folder, method=cell.column.split()[-1])}"
    return line


def missing(judged: Judged) -> Iterator[str]:
    """A line for every cell of the paper's configuration without a run: its place and its command."""
    for each in judged.exact:
        if each.verdict in (NOT_RUN, NOT_OURS):
            line = command(judged, each.cell) or judged.item.experiment.trains_nothing or "see the notes"
            printed = f", the paper: {each.cell.shown}" if each.cell.shown else ""
            yield f"{each.cell.row}, {each.cell.column}{printed}: {each.verdict}: {line}"


def grid(judged: Judged, part: Part) -> tuple[list[str], dict[str, dict[str, CellResult]]]:
    """The columns of a part, and for each of its rows the results by column."""
    rows: dict[str, dict[str, CellResult]] = {}
    for each in part.results:
        rows.setdefault(each.cell.row, {})[each.cell.column] = each
    columns = judged.item.columns if part.block.is_exact else part.block.columns
    return [column for column in columns if any(column in row for row in rows.values())], rows


def notes(judged: Judged) -> list[tuple[str, str]]:
    """The notes on the paper's numbers: where they belong and what they say, each once."""
    places: dict[str, list[str]] = {}
    for cell in judged.item.cells.values():
        for note in cell.notes:
            places.setdefault(note, []).append(f"{cell.row}, {cell.column}")
    on_cells = [("; ".join(found[:3]) + (" ..." if len(found) > 3 else ""), note) for note, found in places.items()]
    return [*on_cells, *((judged.item.source, note) for note in judged.item.notes)]


def terminal_tables(judged: Judged) -> Iterator[tuple[str, Table, str]]:
    """Title, table and tally of every part; a cell shows the paper's number, ours, the difference and the verdict."""
    for part in judged.shown_parts:
        columns, rows = grid(judged, part)
        title = heading(judged) if part.block.is_exact else f"{judged.item.source}, {part.kind}: {part.block.title}"
        table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
        table.add_column(escape(judged.item.row_header))
        for column in columns:
            table.add_column(escape(column), justify="right")
        for row, found in rows.items():
            table.add_row(escape(row), *(_terminal_cell(found.get(column)) for column in columns))
        yield title, table, tally(part.results)


def _terminal_cell(result: CellResult | None) -> str:
    if result is None:
        return ""
    paper, ours = escape(result.cell.shown), shown_ours(result)
    if not ours:
        return f"{paper}\n[dim]{escape(judgement(result))}[/dim]".strip()
    style = STYLES.get(result.verdict, "default")
    return f"{paper}\n[bold]{ours}[/bold]\n[{style}]{escape(judgement(result))}[/{style}]".strip()


def markdown(judged: Judged) -> str:
    """Every part as a Markdown table; a cell reads 'paper / ours (difference, verdict)'."""
    lines = [f"## {heading(judged)}\n"]
    for part in judged.shown_parts:
        columns, rows = grid(judged, part)
        if not part.block.is_exact:
            lines.append(f"\n**{part.kind}: {markdown_text(part.block.title)}**\n")
        lines.append(f"| {' | '.join(map(markdown_text, [judged.item.row_header, *columns]))} |")
        lines.append("|---|" + "---:|" * len(columns))
        for row, found in rows.items():
            cells = " | ".join(_markdown_cell(found.get(column)) for column in columns)
            lines.append(f"| {markdown_text(row)} | {cells} |")
        lines.append(f"\n{tally(part.results)}.")
    lines += [f"\n{markdown_text(more)}"] if (more := left_out(judged)) else []
    lines += ["", *(f"- {where}: {note}" for where, note in notes(judged))]
    return "\n".join(lines).rstrip() + "\n"


def _markdown_cell(result: CellResult | None) -> str:
    if result is None:
        return ""
    paper, ours = markdown_text(result.cell.shown), shown_ours(result)
    if not ours:
        return f"{paper} ({markdown_text(judgement(result))})".strip()
    return f"{paper or '-'} / **{markdown_text(ours)}** ({markdown_text(judgement(result))})"


def latex(judged: Judged) -> str:
    """Every part as a booktabs table; each column of the paper becomes two, Paper and Ours."""
    lines = []
    for part in judged.shown_parts:
        columns, rows = grid(judged, part)
        caption = part_heading(judged, part, separator=f". {part.kind}: ")
        heads = " & ".join(f"\\multicolumn{{2}}{{c}}{{{_tex(column)}}}" for column in columns)
        lines += [
            "\\begin{table}",
            f"  \\caption{{{_tex(caption)}. {_tex(tally(part.results))}.}}",
            f"  \\begin{{tabular}}{{l{'rr' * len(columns)}}}",
            "    \\toprule",
            f"    {_tex(judged.item.row_header)} & {heads} \\\\",
            f"    {' & '.join(['', *(['Paper & Ours'] * len(columns))])} \\\\",
            "    \\midrule",
        ]
        for row, found in rows.items():
            cells = " & ".join(_latex_cells(found.get(column)) for column in columns)
            lines.append(f"    {_tex(row)} & {cells} \\\\")
        lines += ["    \\bottomrule", "  \\end{tabular}", "\\end{table}", ""]
    lines += [f"% {more}", ""] if (more := left_out(judged)) else []
    return "\n".join(lines)


def _latex_cells(result: CellResult | None) -> str:
    if result is None:
        return " & "
    ours = shown_ours(result)
    mark = "$^{\\ast}$" if result.verdict in (PARTIAL, OTHER) else ""
    return f"{_tex(result.cell.shown or '--')} & {_tex(ours) + mark if ours else '--'}"


GREEK = (
    "α alpha β beta γ gamma δ delta ε epsilon ζ zeta η eta θ theta ι iota κ kappa λ lambda μ mu ν nu ξ xi π pi ρ rho "
    "σ sigma τ tau υ upsilon φ phi χ chi ψ psi ω omega Γ Gamma Δ Delta Θ Theta Λ Lambda Ξ Xi Π Pi Σ Sigma Φ Phi Ψ Psi "
    "Ω Omega"
)
TEX = {letter: f"$\\{name}$" for letter, name in zip(GREEK.split()[::2], GREEK.split()[1::2], strict=True)}
TEX |= {"\\": "\\textbackslash{}", "±": "$\\pm$", "−": "$-$", "†": "$\\dagger$", "×": "$\\times$"}
TEX |= {character: f"\\{character}" for character in "&%$#_{}"} | {"~": "\\textasciitilde{}", "^": "\\^{}"}


def _tex(text: str) -> str:
    return "".join(TEX.get(character, character) for character in text)


CSV_HEADER = (
    *("item", "row", "column", "measure", "unit", "setting"),
    *("paper", "ours", "deviation", "seeds", "difference", "interval", "verdict", "records", "command"),
)


def csv_rows(judged: Judged) -> Iterator[list[str]]:
    """One line for each cell: what the tables show, unrounded, with the records and the command."""
    for part in judged.parts:
        for each in part.results:
            yield _csv_row(judged, part, each)


def _csv_row(judged: Judged, part: Part, result: CellResult) -> list[str]:
    cell = result.cell
    measured = (result.ours, result.deviation, len(result.values), result.difference, result.tolerance)
    numbers = ["" if number is None else repr(number) for number in (cell.number, *measured)]
    records = ";".join(str(record.path) for record in result.records)
    place = [cell.item, cell.row, cell.column, cell.measure, cell.unit, part.block.title]
    return [*place, *numbers, result.verdict, records, command(judged, cell)]


def to_csv(tables: Sequence[Judged]) -> str:
    """All cells of the tables as one CSV file."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(CSV_HEADER)
    writer.writerows(row for judged in tables for row in csv_rows(judged))
    return buffer.getvalue()
