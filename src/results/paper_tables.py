"""The paper's tables with our numbers beside: for the terminal, as Markdown, LaTeX and CSV."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterator, Sequence

from rich import box
from rich.markup import escape
from rich.table import Table

from src.results.cells import Block
from src.results.paper import Cell
from src.results.summary import FEWER
from src.results.tables import markdown_text
from src.results.verdicts import (
    DIFFERS,
    MEASURED,
    NOT_BUILT,
    NOT_RUN,
    OTHER_MACHINE,
    PARTIAL,
    REPRODUCED,
    SAME,
    VERDICTS,
    Judged,
    Result,
    shown_parts,
)

STYLES = {
    REPRODUCED: "green",
    SAME: "green",
    DIFFERS: "red",
    PARTIAL: "yellow",
    MEASURED: "cyan",
    OTHER_MACHINE: "cyan",
}
DECIMALS = {"train_images": 0, "test_images": 0, "classes": 0, "img_size": 0}
EVALUATE = "python -m src.evaluate run='<its folder>' data.perturb=perspective"  # the training names the folder


def heading(judged: Judged) -> str:
    """'Table 3: ViT-T from scratch, ...'"""
    return f"{judged.item.source}: {judged.item.title}"


def tally(cells: Sequence[Result]) -> str:
    """'10 cells: 1 reproduced within error, 9 not run'"""
    counts = Counter(each.verdict for each in cells)
    listed = ", ".join(f"{counts[verdict]} {verdict}" for verdict in VERDICTS if counts[verdict])
    return f"{len(cells)} cells: {listed}" if cells else "no numbers"


def left_out(judged: Judged) -> str:
    """'and 480 more settings: ...'; empty where all are shown."""
    count = len(judged.parts) - len(shown_parts(judged))
    settings = "setting" if count == 1 else "settings"
    return f"and {count:,} more {settings}: {FEWER}" if count else ""


def number(cell: Cell, value: float) -> str:
    return f"{value:,.{DECIMALS.get(cell.measure, 2)}f}"


def ours(each: Result) -> str:
    """Mean, deviation over seeds and their number, or a setting; empty where nothing was measured."""
    if each.setting:
        return each.setting
    if each.ours is None:
        return ""
    spread = "" if each.deviation is None else f" ± {each.deviation:.2f}"
    seeds = f" (n={len(each.values)})" if len(each.values) > 1 else ""
    return f"{number(each.cell, each.ours)}{spread}{seeds}"


def difference(each: Result) -> str:
    """Ours minus the paper's, with its sign."""
    if each.difference is None:
        return ""
    return f"{each.difference:+,.{DECIMALS.get(each.cell.measure, 2)}f}".replace("-", "−")


def command(judged: Judged, cell: Cell) -> str:
    """What runs a cell; empty where nothing can yet."""
    experiment = judged.item.experiment
    if cell.row not in experiment.rows or cell.column not in experiment.columns:
        return ""
    line = experiment.command(cell.row, cell.column)
    return f"{line} && {EVALUATE}" if line and cell.measure == "perspective" else line


def missing(judged: Judged, cells: Sequence[Result]) -> Iterator[str]:
    """A line for every cell without a run: where it stands, and the command."""
    for each in cells:
        if each.verdict in (NOT_RUN, NOT_BUILT):
            line = command(judged, each.cell) or judged.item.experiment.unbuilt or "see the notes"
            printed = f", the paper: {each.cell.shown}" if each.cell.shown else ""
            yield f"{each.cell.row}, {each.cell.column}{printed}: {each.verdict}: {line}"


def grid(block: Block, judged: Judged, cells: Sequence[Result]) -> tuple[list[str], dict[str, dict[str, Result]]]:
    """Columns, and for each row its results by column."""
    rows: dict[str, dict[str, Result]] = {}
    for each in cells:
        rows.setdefault(each.cell.row, {})[each.cell.column] = each
    columns = judged.item.columns if block.is_the_papers else block.columns
    return [column for column in columns if any(column in row for row in rows.values())], rows


def terminal_tables(judged: Judged) -> Iterator[tuple[str, Table, str]]:
    """Title, table and tally of every block; a cell is the paper's number, ours, the difference and the verdict."""
    for block, cells in shown_parts(judged):
        columns, rows = grid(block, judged, cells)
        title = heading(judged) if block.is_the_papers else f"{judged.item.source}, {PARTIAL}: {block.title}"
        table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
        table.add_column(escape(judged.item.row_header))
        for column in columns:
            table.add_column(escape(column), justify="right")
        for row, found in rows.items():
            table.add_row(escape(row), *(_terminal(found.get(column)) for column in columns))
        yield title, table, tally(cells)


def _terminal(each: Result | None) -> str:
    if each is None:
        return ""
    paper = escape(each.cell.shown)
    if not ours(each):
        return f"{paper} [dim]{each.verdict}[/dim]" if not paper else f"{paper}\n[dim]{each.verdict}[/dim]"
    style = STYLES.get(each.verdict, "")
    change = difference(each)
    lines = [paper, f"[bold]{ours(each)}[/bold]", f"[{style}]{f'{change}, ' if change else ''}{each.verdict}[/{style}]"]
    return "\n".join(filter(None, lines))


def markdown(judged: Judged) -> str:
    """Every block as a Markdown table, cells 'paper / ours (difference, verdict)'."""
    parts = [f"## {heading(judged)}\n"]
    for block, cells in shown_parts(judged):
        columns, rows = grid(block, judged, cells)
        if not block.is_the_papers:
            parts.append(f"\n**{PARTIAL}: {markdown_text(block.title)}**\n")
        parts.append(_line([judged.item.row_header, *columns]))
        parts.append("|---|" + "---:|" * len(columns))
        for row, found in rows.items():
            parts.append(f"| {markdown_text(row)} | {' | '.join(_plain(found.get(column)) for column in columns)} |")
        parts.append(f"\n{tally(cells)}.")
    parts += [f"\n{markdown_text(more)}"] if (more := left_out(judged)) else []
    parts += ["", *(f"- {where}: {note}" for where, note in notes(judged))]
    return "\n".join(parts).rstrip() + "\n"


def notes(judged: Judged) -> list[tuple[str, str]]:
    """The notes on the paper's numbers: where they stand and what they say, each once."""
    found: dict[str, list[str]] = {}
    for cell in judged.item.cells.values():
        for note in cell.notes:
            found.setdefault(note, []).append(f"{cell.row}, {cell.column}")
    listed = [("; ".join(places[:3]) + (" ..." if len(places) > 3 else ""), note) for note, places in found.items()]
    return [*listed, *((judged.item.source, note) for note in judged.item.notes)]


def _line(words: Sequence[str]) -> str:
    return f"| {' | '.join(map(markdown_text, words))} |"


def _plain(each: Result | None) -> str:
    if each is None:
        return ""
    if not ours(each):
        return f"{markdown_text(each.cell.shown)} ({each.verdict})".strip()
    change, paper = difference(each), markdown_text(each.cell.shown)
    return f"{paper or '-'} / **{markdown_text(ours(each))}** ({f'{change}, ' if change else ''}{each.verdict})"


def latex(judged: Judged) -> str:
    """Every block as a booktabs table with two columns, Paper and Ours, for each of the paper's."""
    parts = []
    for block, cells in shown_parts(judged):
        columns, rows = grid(block, judged, cells)
        caption = heading(judged) + ("" if block.is_the_papers else f". {PARTIAL}: {block.title}")
        heads = " & ".join(f"\\multicolumn{{2}}{{c}}{{{_tex(column)}}}" for column in columns)
        parts += [
            "\\begin{table}",
            f"  \\caption{{{_tex(caption)}. {_tex(tally(cells))}.}}",
            f"  \\begin{{tabular}}{{l{'rr' * len(columns)}}}",
            "    \\toprule",
            f"    {_tex(judged.item.row_header)} & {heads} \\\\",
            f"    {' & '.join(['', *(['Paper & Ours'] * len(columns))])} \\\\",
            "    \\midrule",
        ]
        for row, found in rows.items():
            parts.append(f"    {_tex(row)} & {' & '.join(_tex_pair(found.get(column)) for column in columns)} \\\\")
        parts += ["    \\bottomrule", "  \\end{tabular}", "\\end{table}", ""]
    parts += [f"% {more}", ""] if (more := left_out(judged)) else []
    return "\n".join(parts)


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


def _tex_pair(each: Result | None) -> str:
    if each is None:
        return " & "
    mark = "$^{\\ast}$" if each.verdict == PARTIAL else ""
    return f"{_tex(each.cell.shown or '--')} & {_tex(ours(each)) + mark if ours(each) else '--'}"


CSV_HEAD = ("item", "row", "column", "measure", "unit", "setting", "paper", "ours", "deviation", "seeds", "difference")
CSV_TAIL = ("interval", "verdict", "records", "command")


def csv_rows(judged: Judged) -> Iterator[list[str]]:
    """One line a cell: what the tables show, unrounded, with the records and the command."""
    for block, cells in judged.parts:
        for each in cells:
            cell = each.cell
            figures = (cell.number, each.ours, each.deviation, len(each.values), each.difference, each.tolerance)
            paper, mean, deviation, seeds, change, interval = ("" if f is None else repr(f) for f in figures)
            yield [
                *(cell.item, cell.row, cell.column, cell.measure, cell.unit, block.title),
                *(paper, mean, deviation, seeds, change, interval, each.verdict),
                ";".join(str(record.path) for record in each.records),
                command(judged, cell),
            ]


def to_csv(tables: Sequence[Judged]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([*CSV_HEAD, *CSV_TAIL])
    writer.writerows(row for judged in tables for row in csv_rows(judged))
    return buffer.getvalue()
