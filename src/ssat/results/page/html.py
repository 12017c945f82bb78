"""The report as one HTML file that needs no other file: styles, script, charts and pictures are inside."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

from markupsafe import Markup

from ssat.core.words import duration, first_few
from ssat.results.analyses import AnalysisRecord
from ssat.results.comparisons import finished_comparisons
from ssat.results.frontier import frontiers, shown, sign
from ssat.results.label_curve import LabelCurve, label_curves, next_labels
from ssat.results.page.charts import line_chart
from ssat.results.page.comparison import ComparisonPanel, comparison_panel
from ssat.results.page.detection import detection_panel
from ssat.results.page.notes import notes
from ssat.results.page.paper import paper_part
from ssat.results.page.runs import runs_table
from ssat.results.page.space import PageSpace, space_for
from ssat.results.page.template import render_template
from ssat.results.paper.claims import Claim
from ssat.results.paper.relevance import concerns_the_paper
from ssat.results.paper.verdicts import Judged
from ssat.results.spent import total_spent
from ssat.results.text import FEWER_RUNS, distinct, largest, quantity
from ssat.runs.record import STATES, Record

OPEN_COMPARISONS = 4  # the curves of the others are folded at first
MOST_COMPARISONS = 100  # of a page


def render(
    records: Sequence[Record],
    judged: Mapping[str, Judged] | None = None,
    claims: Sequence[Claim] = (),
    analyses: Sequence[AnalysisRecord] = (),
    *,
    warnings: Sequence[str] = (),
    unfinished: Sequence[str] = (),
    copies: Sequence[str] = (),
    page: Path | None = None,
    made: datetime | None = None,
) -> str:
    """The page for `records`.

    Args:
        records: all runs with a record, each once.
        judged: the paper's tables and figures, compared with the runs.
        claims: the paper's claims, compared with the runs.
        analyses: what src.analyze has written beside the runs.
        warnings: a line for each file that could not be read.
        unfinished: names of the runs without a record.
        copies: a sentence for each run that lies in several folders.
        page: the file that it will be written to; links to the runs' folders are relative to it. None: no links.
        made: the time that it shows as its own; None = now.
    """
    finished = [record for record in records if record.finished]
    space = space_for(len(finished))
    panels, left_out = _comparisons(records, space)
    is_folded = not analyses and not concerns_the_paper(records, (judged or {}).values())
    return render_template(
        "page.html",
        made=made or datetime.now().astimezone(),
        tiles=_tiles(records) if records else {},
        label_curves=[(_label_chart(curve), curve, next_labels(curve)) for curve in label_curves(records)],
        frontiers=[
            (each.title, each.steps, [(row, [(shown(one), sign(one)) for one in row.entries]) for row in each.rows])
            for each in frontiers(records)
        ],
        panels=panels,
        measures=list(dict.fromkeys(title for panel in panels for title in panel.measured)),
        left_out=left_out,
        fewer_runs=FEWER_RUNS,
        detection=detection_panel(records, page),
        paper=paper_part(judged, claims, analyses, page, space, is_folded=is_folded) if judged else None,
        runs=runs_table(records, page),
        unfinished=_unfinished(records, unfinished),
        warnings=warnings,
        notes=[*notes(records), *(f"{line}." for line in copies)],
    )


def _label_chart(curve: LabelCurve) -> Markup:
    return line_chart(f"{curve.title}: few labels", curve.series, x_label="% of the labels", y_label="accuracy in %")


def _tiles(records: Sequence[Record]) -> dict[str, str]:
    """The facts at the top of the page."""
    states = Counter(record.status for record in records)
    finished = [record for record in records if record.finished]
    devices = distinct(record.text("hardware.device") for record in records)
    days = sorted({record.text("finished")[:10] for record in finished} - {""})
    kwh = total_spent(finished, "energy.kwh")
    tiles = {
        "Runs": ", ".join(f"{states[state]} {state}" for state in STATES if states[state]),
        "Data": first_few(distinct(record.data for record in records)),
        "Encoder": first_few(distinct(record.encoder for record in records)),
        "Trained on": first_few(devices) or "not recorded",
        "When": " to ".join(distinct([days[0], days[-1]])) if days else "not recorded",
        "Training time": duration(total_spent(finished, "seconds") or 0),
    }
    sharing = sum(record.shares_energy for record in finished)
    left_out = f" (without {sharing} runs beside others)" if sharing else ""
    return tiles | ({} if kwh is None else {"Energy": quantity(kwh * 1000, "Wh") + left_out})


def _comparisons(records: Sequence[Record], space: PageSpace) -> tuple[list[ComparisonPanel], int]:
    """The comparisons with the most runs, and how many others there are."""
    found = finished_comparisons(records)
    shown = largest(found, lambda comparison: len(comparison.records), most=MOST_COMPARISONS)
    panels = [comparison_panel(each, space, is_open=index < OPEN_COMPARISONS) for index, each in enumerate(shown)]
    return panels, len(found) - len(shown)


def _unfinished(records: Sequence[Record], begun: Sequence[str]) -> list[str]:
    lines = [f"{name}: not finished (the same command continues it)" for name in begun]
    return lines + [
        f"{record.group}/{record.folder.name}: {record.text('error') or record.status}"
        for record in records
        if not record.finished
    ]
