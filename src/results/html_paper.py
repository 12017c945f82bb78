"""The paper's part of the HTML page: its tables and figures with our numbers beside, and the ledger of its claims."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from urllib.parse import quote

from src.results.analyses import AnalysisRecord, analysis_figure
from src.results.claims import Claim
from src.results.figures import figure_charts, legend
from src.results.panel import Budget
from src.results.paper_tables import difference, grid, heading, left_out, missing, notes, ours, tally
from src.results.record import Record
from src.results.verdicts import NOT_BUILT, PARTIAL, VERDICTS, Judged, Result, shown_parts

CLASSES = {verdict: f"v-{verdict.split()[0]}{'-built' * (verdict == NOT_BUILT)}" for verdict in VERDICTS}


def paper_sections(
    judged: Mapping[str, Judged],
    claims: Sequence[Claim],
    analyses: Sequence[AnalysisRecord],
    page: Path | None,
    budget: Budget,
) -> str:
    """Overview, tables, figures, claims."""
    items = "".join(_item(each, analyses, page, budget) for each in judged.values())
    return _overview(judged) + items + _ledger(claims)


def _overview(judged: Mapping[str, Judged]) -> str:
    cells = [each for item in judged.values() for each in item.paper if each.cell.number is not None]
    counts = Counter(each.verdict for each in cells)
    options = "".join(f"<option>{verdict}</option>" for verdict in VERDICTS if counts[verdict])
    items = "".join(
        f'<li><a href="#{name}">{escape(each.item.source)}</a> {_bar(each.paper)}'
        f"<span>{escape(_brief(each))}</span></li>"
        for name, each in judged.items()
    )
    return (
        '<section id="paper"><h2>The paper, cell by cell</h2>'
        '<p class="facts">Top: the paper&rsquo;s number. Below it: ours, the mean &plusmn; deviation over seeds, the '
        "difference and a verdict. Only runs of exactly a cell&rsquo;s configuration, on all of its data, are judged; "
        "smaller runs stand apart as partial data. Nothing of the paper is ever filled into our column.</p>"
        f'<p class="verdict">{escape(tally(cells))}.</p><ul class="items">{items}</ul>'
        '<label class="filter">Show cells that are <select data-filter="verdict"><option value="">any</option>'
        f"{options}</select></label></section>\n"
    )


def _brief(each: Judged) -> str:
    known = Counter(
        cell.verdict for _, cells in each.parts for cell in cells if cell.cell.number is not None or cell.ours
    )
    return ", ".join(f"{known[verdict]} {verdict}" for verdict in VERDICTS if known[verdict])


def _bar(cells: Sequence[Result]) -> str:
    counts, total = Counter(each.verdict for each in cells), max(1, len(cells))
    parts = "".join(
        f'<i class="{CLASSES[verdict]}" style="width:{100 * counts[verdict] / total:.1f}%"></i>'
        for verdict in VERDICTS
        if counts[verdict]
    )
    return f'<span class="track" aria-hidden="true">{parts}</span>'


def _item(each: Judged, analyses: Sequence[AnalysisRecord], page: Path | None, budget: Budget) -> str:
    item = each.item
    analysed = analysis_figure(item.analysis, analyses, budget) if item.analysis else ""
    is_open = bool(analysed) or any(cell.ours is not None for _, cells in each.parts for cell in cells)
    charts = "".join(figure_charts(each)) if item.is_figure else ""
    figures = (legend(each) if charts else "") + (f'<div class="charts">{charts}</div>' if charts else "")
    lines = list(missing(each, each.paper))
    commands = (
        f"<details><summary>{len(lines)} cells without a run, and their commands</summary>"
        f'<ul class="commands">{"".join(_command(line) for line in lines)}</ul></details>'
        if lines
        else ""
    )
    strays = _list("Runs of this experiment that stand in no cell", [f"{r.group}/{r.folder.name}" for r in each.strays])
    body = figures + analysed + _tables(each, page) + _notes(each) + commands + strays
    return (
        f'<section id="{item.name}" class="item{" idle" * (not is_open)}"><h2>{escape(heading(each))}</h2>'
        f'<p class="facts">{escape(tally(each.paper))}</p>'
        f"<details{' open' * is_open}><summary>Numbers</summary>{body}</details></section>\n"
    )


def _tables(each: Judged, page: Path | None) -> str:
    parts = []
    for block, cells in shown_parts(each):
        columns, rows = grid(block, each, cells)
        if not rows:
            continue
        head = "".join(f'<th scope="col" class="n">{escape(column)}</th>' for column in columns)
        body = "".join(
            f'<tr><th scope="row">{escape(row)}</th>'
            + "".join(_cell(found.get(column), page) for column in columns)
            + "</tr>"
            for row, found in rows.items()
        )
        title = "" if block.is_the_papers else f"<h3>{PARTIAL}: {escape(block.title)}</h3>"
        name = heading(each) + ("" if block.is_the_papers else f", {block.title}")
        parts.append(
            f'{title}<div class="scroll" role="region" tabindex="0" aria-label="{escape(name)}"><table class="cells">'
            f'<thead><tr><th scope="col">{escape(each.item.row_header)}</th>{head}</tr></thead>'
            f"<tbody>{body}</tbody></table></div>"
        )
    parts += [f'<p class="quiet">{escape(more)}</p>'] if (more := left_out(each)) else []
    return "".join(parts)


def _cell(each: Result | None, page: Path | None) -> str:
    if each is None:
        return "<td></td>"
    paper = f'<span class="printed">{escape(each.cell.shown)}</span>' if each.cell.shown else ""
    attributes = f'class="n {CLASSES[each.verdict]}" data-verdict="{each.verdict}"'
    if not ours(each):
        return f'<td {attributes}>{paper}<span class="chip">{each.verdict}</span></td>'
    change = difference(each)
    told = f'<span class="chip">{escape(f"{change}, " if change else "")}{each.verdict}</span>'
    return f"<td {attributes}>{paper}<b>{escape(ours(each))}</b>{told}{_links(each.records, page)}</td>"


def folder_link(record: Record, page: Path) -> str:
    """The run's folder as the page addresses it."""
    folder = Path(os.path.relpath(record.folder.resolve(), page.resolve().parent)).as_posix()
    return f"./{escape(quote(os.fsencode(folder)))}"


def _links(records: Sequence[Record], page: Path | None) -> str:
    if page is None or not records:
        return ""
    link = folder_link(records[0], page)
    return f'<span class="links"><a href="{link}/result.json">record</a> <a href="{link}/config.yaml">config</a></span>'


def _command(line: str) -> str:
    where, _, rest = line.partition(": python ")
    return f"<li>{escape(where)}{f'<code>python {escape(rest)}</code>' if rest else ''}</li>"


def _notes(each: Judged) -> str:
    return _list("Notes on the paper&rsquo;s numbers", [f"{where}: {note}" for where, note in notes(each)])


def _ledger(claims: Sequence[Claim]) -> str:
    if not claims:
        return ""
    body = "".join(
        f'<tr data-verdict="{claim.status}"><th scope="row"><q>{escape(claim.sentence)}</q>'
        f'<span class="quiet">{escape(claim.where)}</span></th>'
        f'<td><span class="chip s-{claim.status.split()[0]}">{claim.status}</span></td>'
        f"<td>{_lines((claim.paper, claim.note))}</td><td>{_lines((claim.evidence, claim.small))}</td></tr>"
        for claim in claims
    )
    counts = Counter(claim.status for claim in claims)
    told = ", ".join(f"{count} {status}" for status, count in counts.most_common())
    return (
        f'<section id="claims"><h2>Claims of the paper</h2><p class="facts">{len(claims)} claims: {told}. A claim is '
        "supported when every comparison it makes was run in the paper&rsquo;s own configuration and came out above "
        "the noise.</p>"
        '<div class="scroll" role="region" tabindex="0" aria-label="Claims of the paper">'
        '<table class="claims"><thead><tr>'
        '<th scope="col">Claim</th><th scope="col">Status</th><th scope="col">The paper&rsquo;s own numbers</th>'
        f'<th scope="col">Our evidence</th></tr></thead><tbody>{body}</tbody></table></div></section>\n'
    )


def _lines(words: Iterable[str]) -> str:
    return "".join(f"<p>{escape(word)}</p>" for word in words if word)


def _list(title: str, lines: Sequence[str]) -> str:
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f'<h3>{title}</h3><ul class="quiet">{items}</ul>' if lines else ""


def has_runs(each: Judged) -> bool:
    """Whether any run stands in a cell of it, or beside."""
    return bool(each.strays) or any(cell.records for _, cells in each.parts for cell in cells)
