"""The report as one HTML file that needs nothing but itself: styles, script, charts and pictures are inside."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from html import escape
from pathlib import Path

from src.results.analyses import AnalysisRecord
from src.results.claims import Claim
from src.results.html_paper import folder_link, paper_sections
from src.results.label_curve import curve_chart, label_curves
from src.results.panel import Budget, comparison_panel
from src.results.record import STATES, Record
from src.results.summary import FEWER, comparisons, largest
from src.results.svg import MOST_POINTS, css_class
from src.results.tables import COLUMNS, DAGGER, LEGEND, Row, common, common_title, duration, quantity, rows
from src.results.verdicts import Judged

ASSETS = Path(__file__).parent
# Nothing may be loaded from anywhere, whatever a record says.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"
PICTURES_BYTES = 500_000  # all pictures of a page together
CHARTS_BYTES = 700_000  # all curves
POINTS = 30_000  # of all curves of a page together
LEAST_POINTS = 6  # of one curve
OPEN_SECTIONS = 4  # comparisons beyond these start folded
MOST_SECTIONS = 100  # comparisons of a page


def render(
    records: Sequence[Record],
    judged: Mapping[str, Judged] | None = None,
    claims: Sequence[Claim] = (),
    analyses: Sequence[AnalysisRecord] = (),
    *,
    warnings: Sequence[str] = (),
    unfinished: Sequence[str] = (),
    page: Path | None = None,
    made: datetime | None = None,
) -> str:
    """The page for `records`; links to the runs' folders are relative to `page`, the file it will be written to.

    `judged` and `claims` are the paper's tables, figures and sentences, compared with the runs; `analyses` what
    src.analyze has left beside them; `unfinished` names the runs without a record.
    """
    finished = [record for record in records if record.finished]
    points = max(LEAST_POINTS, min(MOST_POINTS, POINTS // max(1, 5 * len(finished))))
    budget = Budget(PICTURES_BYTES, charts=CHARTS_BYTES, points=points)
    made = made or datetime.now().astimezone()
    body = [
        _label_curves(records),
        _comparisons(finished, budget),
        paper_sections(judged, claims, analyses, page, budget) if judged else "",
        _runs(records, page),
        _unfinished(records, unfinished),
        _list("Files that were skipped", warnings),
        _notes(records),
    ]
    text = "".join(filter(None, body))
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n<title>SSAT training report</title>\n'
        f"<style>\n{(ASSETS / 'page.css').read_text(encoding='utf-8')}</style>\n</head>\n<body>\n"
        f"<main>\n{_header(records, made)}{_navigation(text)}{text}</main>\n"
        f"<script>\n{(ASSETS / 'page.js').read_text(encoding='utf-8')}</script>\n</body>\n</html>\n"
    )


def _header(records: Sequence[Record], made: datetime) -> str:
    states = Counter(record.status for record in records)
    runs = ", ".join(f"{states[state]} {state}" for state in STATES if states[state])
    finished = [record for record in records if record.finished]
    devices = _unique(record.text("hardware.device") for record in records)
    days = sorted({record.text("finished")[:10] for record in finished} - {""})
    if not records:
        return "<header><h1>SSAT training report</h1><p>There are no runs yet.</p></header>\n"
    tiles = {
        "Runs": runs,
        "Data": _short(_unique(record.data for record in records)),
        "Encoder": _short(_unique(record.encoder for record in records)),
        "Trained on": _short(devices) or "not recorded",
        "When": " to ".join(dict.fromkeys((days[0], days[-1]))) if days else "not recorded",
        "Training time": duration(sum(record.number("seconds") or 0 for record in finished)),
    }
    energies = [number for record in finished if (number := record.number("energy.kwh")) is not None]
    if energies:
        tiles["Energy"] = quantity(sum(energies) * 1000, "Wh")
    listed = "".join(f"<div><dt>{key}</dt><dd>{escape(value)}</dd></div>" for key, value in tiles.items())
    return (
        f"<header><h1>SSAT training report</h1><p>Made {made:%Y-%m-%d %H:%M} from the runs&rsquo; own records.</p>"
        f'<dl class="tiles">{listed}</dl></header>\n'
    )


def _navigation(body: str) -> str:
    """Links to the parts that the page has."""
    links = {"paper": "The paper, cell by cell", "claims": "Its claims", "runs": "All runs"}
    shown = [f'<a href="#{name}">{text}</a>' for name, text in links.items() if f'<section id="{name}"' in body]
    return f'<nav aria-label="Parts of the page">{" ".join(shown)}</nav>\n' if shown else ""


def _label_curves(records: Sequence[Record]) -> str:
    charts = "".join(curve_chart(curve) for curve in label_curves(records))
    return f'<section><h2>Accuracy against labels</h2><div class="charts">{charts}</div></section>\n' if charts else ""


def _comparisons(finished: Sequence[Record], budget: Budget) -> str:
    found = comparisons(finished)
    shown = largest(found, lambda comparison: len(comparison.records), most=MOST_SECTIONS)
    sections = [comparison_panel(each, budget, is_open=index < OPEN_SECTIONS) for index, each in enumerate(shown)]
    if len(found) > len(shown):
        sections.append(f"<p>{escape(f'and {len(found) - len(shown):,} more comparisons: {FEWER}')}</p>\n")
    return "".join(sections)


def _runs(records: Sequence[Record], page: Path | None) -> str:
    if not records:
        return ""
    lines, shared = list(rows(records)), common(records)
    used = [i for i, c in enumerate(COLUMNS) if c.title not in shared and any(line.cells[i].text for line in lines)]
    used.sort(key=lambda index: COLUMNS[index].title == "run")  # the longest, and a link: it stands last
    head = "".join(
        f'<th scope="col"{_class(index)}><button type="button">{escape(COLUMNS[index].title or "note")}</button></th>'
        for index in used
    )
    body = "".join(_row(line, used, page) for line in lines)
    title = "All runs" + (f", {common_title(shared)}" if shared else "")
    return (
        f'<section id="runs"><h2>{escape(title)}</h2><p class="facts">{escape(LEGEND)}. Click a heading to sort.</p>'
        '<label class="filter">Show runs with <input type="search" data-filter="text" '
        'placeholder="words in any column"></label>'
        '<div class="scroll" role="region" tabindex="0" aria-label="Table of all runs">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div></section>\n"
    )


def _row(line: Row, used: Sequence[int], page: Path | None) -> str:
    cells = []
    for position, index in enumerate(used):
        text, order = line.cells[index]
        tag = 'th scope="row"' if position == 0 else "td"
        exact = f"{order:.6g}" if isinstance(order, float) else str(order)
        key = "" if order is None or exact == text else f' data-order="{escape(exact)}"'
        inner = escape(text)
        if COLUMNS[index].title == "run" and line.record is not None and page is not None:
            inner = f'<a href="{folder_link(line.record, page)}/result.json">{inner}</a>'
        cells.append(f"<{tag}{_class(index)}{key}>{inner}</{tag[:2]}>")
    if line.record is None:
        return f'<tr class="mean">{"".join(cells)}</tr>'
    failed = " failed" * (line.record.status == "failed")
    return f'<tr class="{css_class(line.record.mode)}{failed}">{"".join(cells)}</tr>'


def _class(index: int) -> str:
    title = COLUMNS[index].title
    return ' class="n"' if COLUMNS[index].is_number or title == "seed" else ' class="mode"' if title == "mode" else ""


def _unfinished(records: Sequence[Record], begun: Sequence[str]) -> str:
    lines = [f"{name}: not finished (the same command continues it)" for name in begun]
    lines += [
        f"{record.group}/{record.folder.name}: {record.text('error') or record.status}"
        for record in records
        if not record.finished
    ]
    return _list("Runs that did not finish", lines)


def _notes(records: Sequence[Record]) -> str:
    finished = [record for record in records if record.finished]
    notes = []
    if any(record.split == "test" and not record.get("metrics.val") for record in finished):
        notes.append(
            "best is the highest accuracy of any epoch, measured on the very test images (there is no validation "
            "split), hence optimistic. The verdicts use the last epoch unless recipe.report=max."
        )
    notes.append(
        "± after a difference, and the thin line on a bar, is the 95 % interval that follows from the number of test "
        "images (binomial), plus the seeds' own variation where a configuration has several; ± after a mean is the "
        "standard deviation over seeds. With a single seed, differences between seeds come on top."
    )
    if len({_norm_pix(record) for record in finished} - {None}) > 1:
        notes.append(
            "Auxiliary losses of different modes are not on one scale here: some runs reconstruct pixels normalised "
            "within each patch (norm_pix), others plain ones."
        )
    metered = [record for record in finished if record.get("energy.source")]
    sources = _unique(f"{record.text('energy.source')}, {record.text('energy.country')}" for record in metered)
    if sources:
        notes.append(
            f"Energy and CO2: {'; '.join(sources)}. CO2 Lacoste is hours × rated power × kg/kWh, the paper's formula."
        )
    notes.append("Time is that of all phases of a run, evaluation included; images/s counts training alone.")
    unfaithful = [record for record in finished if record.get("faithful") is False]
    reasons = Counter(str(reason) for record in unfaithful for reason in record.items("unfaithful_reasons"))
    if unfaithful:
        listed = "; ".join(f"{reason} ({count} of {len(finished)} runs)" for reason, count in reasons.most_common())
        notes.append(f"{DAGGER} cannot be read as a cell of the paper: {listed or 'no reason recorded'}.")
    commits = [record.text("git_commit") for record in finished]
    code = _unique(commit[:10] + "+" * commit.endswith("+") for commit in commits)
    torch = _unique(record.text("versions.torch") for record in finished)
    if code or torch:
        notes.append(f"Code: commit {_short(code) or 'unknown'} (+ = with local changes); torch {_short(torch)}.")
    return _list("Notes", notes)


def _norm_pix(record: Record) -> bool | None:
    """Whether the run's auxiliary loss has normalised targets; None for a run without one."""
    if record.get("config.ssl.norm_pix") is not None:
        return bool(record.get("config.ssl.norm_pix"))
    for phase in record.items("config.mode.phases"):
        if isinstance(phase, dict) and phase.get("lam") != 1 and isinstance(phase.get("recipe"), dict):
            return bool(phase["recipe"].get("norm_pix"))
    return None


def _list(title: str, lines: Sequence[str]) -> str:
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f'<section class="list"><h2>{title}</h2><ul>{items}</ul></section>\n' if lines else ""


def _unique(words: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(word for word in words if word))


def _short(words: list[str], most: int = 3) -> str:
    return ", ".join(words[:most]) + (f" and {len(words) - most} more" if len(words) > most else "")
