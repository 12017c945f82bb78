"""The paper on the page: its tables and figures with our numbers beside them, and its claims."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from ssat.results.analyses import AnalysisRecord
from ssat.results.page.analyses import AnalysisPanel, analysis_panels
from ssat.results.page.charts import bar_chart, legend, line_chart
from ssat.results.page.links import folder_link
from ssat.results.page.space import PageSpace
from ssat.results.paper.claims import Claim, status_counts
from ssat.results.paper.figures import figure_bars, figure_series, is_count_axis, part_title, position
from ssat.results.paper.paper_tables import (
    grid,
    heading,
    item_counts,
    judgement,
    left_out,
    missing,
    notes,
    part_heading,
    shown_ours,
    total,
)
from ssat.results.paper.verdicts import NOT_OURS, VERDICTS, CellResult, Judged, Part

STYLES = {verdict: f"v-{verdict.split()[0]}" for verdict in VERDICTS} | {NOT_OURS: "v-not-ours"}  # CSS classes


@dataclass(frozen=True)
class PageCell:
    """One cell of a table of the paper.

    Attributes:
        verdict: on the cell.
        style: CSS class of the verdict.
        printed: the paper's number; may be empty.
        ours: our number; empty where nothing was measured.
        judgement: the difference and the verdict.
        link: to the folder of a run that it was measured on; may be empty.
        repeats: seeds with several runs: what is said of them, and the name and link of each folder.
    """

    verdict: str
    style: str
    printed: str
    ours: str
    judgement: str
    link: str
    repeats: list[tuple[str, list[tuple[str, str]]]]


@dataclass(frozen=True)
class PageTable:
    """A table of the paper, or one of other runs in its form.

    Attributes:
        title: of other runs; empty for the paper's configuration.
        name: what a screen reader calls it.
        row_header: heading of the first column.
        columns: headings of the others.
        rows: names of the rows, and their cells; None where a row has no such cell.
    """

    title: str
    name: str
    row_header: str
    columns: list[str]
    rows: list[tuple[str, list[PageCell | None]]]


@dataclass(frozen=True)
class ItemPanel:
    """What templates/item.html shows of a table or figure.

    Attributes:
        name: table1, figure3, ...
        source: Table 1, Figure 3, ...
        heading: with its title.
        tally: how many cells of the paper have which verdict, and how many cells have other runs.
        brief: the same for the overview.
        shares: CSS class and percent of each verdict.
        is_open: whether its numbers are unfolded at first.
        shapes: what lines, rings, bars and outlines mean; empty without charts.
        legend: of the charts.
        charts: of a figure.
        analyses: that a figure is drawn from.
        tables: of the paper's configuration and of other runs.
        left_out: how many tables are not shown; may be empty.
        notes: on the paper's numbers.
        commands: cells without a run, and the commands that run them.
        strays: runs of its experiment that fit none of its rows.
    """

    name: str
    source: str
    heading: str
    tally: str
    brief: str
    shares: list[tuple[str, float]]
    is_open: bool
    shapes: str
    legend: Markup
    charts: list[Markup]
    analyses: list[AnalysisPanel]
    tables: list[PageTable]
    left_out: str
    notes: list[str]
    commands: list[tuple[str, str]]
    strays: list[str]


@dataclass(frozen=True)
class PaperPart:
    """What templates/paper.html shows.

    Attributes:
        tally: of all cells.
        verdicts: that a cell has; the reader can choose one.
        items: tables and figures.
        claims: of the paper.
        claim_counts: how many claims have which status.
        is_folded: whether it is closed at first, because no run and no analysis is of it.
    """

    tally: str
    verdicts: list[str]
    items: list[ItemPanel]
    claims: Sequence[Claim]
    claim_counts: str
    is_folded: bool


def paper_part(
    judged: Mapping[str, Judged],
    claims: Sequence[Claim],
    analyses: Sequence[AnalysisRecord],
    page: Path | None,
    space: PageSpace,
    *,
    is_folded: bool,
) -> PaperPart:
    """The paper's part of the page; links are relative to `page`, pictures are taken off `space`."""
    found = {result.verdict for item in judged.values() for result in item.all_results}
    return PaperPart(
        tally=total(judged.values()),
        verdicts=[verdict for verdict in VERDICTS if verdict in found],
        items=[_item(each, analyses, page, space) for each in judged.values()],
        claims=claims,
        claim_counts=status_counts(claims),
        is_folded=is_folded,
    )


def _item(judged: Judged, analyses: Sequence[AnalysisRecord], page: Path | None, space: PageSpace) -> ItemPanel:
    item = judged.item
    analysed = analysis_panels(item.analysis, analyses, space) if item.analysis else []
    charts = figure_charts(judged)
    counts = item_counts(judged)
    return ItemPanel(
        name=item.name,
        source=item.source,
        heading=heading(judged),
        tally=f"{len(judged.exact)} cells: {counts}" if judged.exact else "no numbers",
        brief=counts,
        shares=_shares(judged.exact),
        is_open=bool(analysed) or any(result.ours is not None for result in judged.all_results),
        shapes=_shapes(judged) if charts else "",
        legend=_legend(judged) if charts else Markup(),
        charts=charts,
        analyses=analysed,
        tables=[table for part in judged.shown_parts if (table := _table(judged, part, page)).rows],
        left_out=left_out(judged),
        notes=[f"{where}: {note}" for where, note in notes(judged)],
        commands=[_command(line) for line in missing(judged)],
        strays=[f"{record.group}/{record.folder.name}" for record in judged.strays],
    )


def _shares(results: Sequence[CellResult]) -> list[tuple[str, float]]:
    counts = Counter(each.verdict for each in results)
    return [(STYLES[verdict], 100 * counts[verdict] / len(results)) for verdict in VERDICTS if counts[verdict]]


def figure_charts(judged: Judged) -> list[Markup]:
    """The charts of a figure: the paper's configuration, and blocks of other runs; empty where nothing is known."""
    return [chart for part in judged.shown_parts if (chart := _chart(judged, part))]


def _chart(judged: Judged, part: Part) -> Markup:
    title, (x_label, y_label) = part_title(judged, part), judged.item.axes
    if judged.item.kind == "line":
        whole = is_count_axis(map(position, part.results))
        return line_chart(title, figure_series(part.results), x_label=x_label, y_label=y_label, whole=whole)
    if judged.item.kind == "bars":
        return bar_chart(title, figure_bars(judged, part.results), y_label=y_label)
    return Markup()


def _shapes(judged: Judged) -> str:
    shapes = "Lines are our runs, rings" if judged.item.kind == "line" else "Filled bars are our runs, outlines"
    return f"{shapes} the paper’s numbers."


def _legend(judged: Judged) -> Markup:
    names: dict[str, str] = {}
    for part in judged.shown_parts:
        if judged.item.kind == "line":
            names |= {line.name: line.mode for line in figure_series(part.results) if not line.is_marks}
        else:
            names |= {bar.name: bar.mode for bar in figure_bars(judged, part.results)}
    return legend(names)


def _table(judged: Judged, part: Part, page: Path | None) -> PageTable:
    columns, rows = grid(judged, part)
    return PageTable(
        title="" if part.block.is_exact else f"{part.kind}: {part.block.title}",
        name=part_heading(judged, part, separator=", "),
        row_header=judged.item.row_header,
        columns=columns,
        rows=[(row, [_cell(found.get(column), page) for column in columns]) for row, found in rows.items()],
    )


def _cell(result: CellResult | None, page: Path | None) -> PageCell | None:
    if result is None:
        return None
    ours = shown_ours(result)
    return PageCell(
        verdict=result.verdict,
        style=STYLES[result.verdict],
        printed=result.cell.shown,
        ours=ours,
        judgement=judgement(result),
        link=folder_link(result.records[0], page) if ours and page is not None and result.records else "",
        repeats=[] if page is None else _repeats(result, page),
    )


def _repeats(result: CellResult, page: Path) -> list[tuple[str, list[tuple[str, str]]]]:
    return [
        (each.said.partition(":")[0], [(run.folder.name, folder_link(run, page)) for run in each.records])
        for each in result.repeats
    ]


def _command(line: str) -> tuple[str, str]:
    """A line of `missing` as the cell's place and its command, which may be empty."""
    where, _, rest = line.partition(": python ")
    return where, f"python {rest}" if rest else ""
