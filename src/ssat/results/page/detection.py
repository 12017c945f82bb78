"""Deepfake detection on the page: a table of every run, split and method, and ROC curves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from ssat.results.detection import Measured, measured_runs, roc_curves
from ssat.results.modes import mode_name
from ssat.results.page.charts import legend, line_chart
from ssat.results.page.links import folder_link
from ssat.results.page.runs import PageEntry, PageRow
from ssat.results.page.template import CHANCE, mode_class
from ssat.results.series import Series
from ssat.runs.record import Record

MOST_ROWS = 1000
MOST_CHARTS, MOST_CURVES = 8, 10  # of the section, and of a chart
MOST_POINTS = 80  # of a curve
NUMBERS = {  # of `detection_metrics`: heading, and form of the number
    "auc": ("AUC", "{:.4f}"),
    "balanced_accuracy": ("balanced %", "{:.2f}"),
    "accuracy": ("acc %", "{:.2f}"),
    "eer": ("EER", "{:.4f}"),
    "ap": ("AP", "{:.4f}"),
    "log_loss": ("log-loss", "{:.4f}"),
    "n_total": ("videos", "{:,.0f}"),
    "n_failed": ("failed", "{:,.0f}"),
}
WORDS = ("seed", "encoder", "data", "split", "method", "weights")  # the encoder where the runs differ in it


@dataclass(frozen=True)
class DetectionPanel:
    """What templates/detection.html shows.

    Attributes:
        headings: of the columns.
        rows: one for each run, split and method.
        left_out: rows for which there is no room.
        legend: of the curves.
        charts: ROC curves, one chart for each test set.
        faults: a sentence for each file that does not count, and for curves without room.
    """

    headings: list[PageEntry]
    rows: list[PageRow]
    left_out: int
    legend: Markup
    charts: list[Markup]
    faults: list[str]


def detection_panel(records: Sequence[Record], page: Path | None) -> DetectionPanel | None:
    """The section with links relative to `page`; None where no run has told deepfakes from originals."""
    measured, faults = measured_runs(records)
    if not measured:
        return None
    names, charts, more = _curves(records)
    words = [word for word in WORDS if word != "encoder" or len({each.record.encoder for each in measured}) > 1]
    headings = [PageEntry("mode", "mode"), *(PageEntry(word, "") for word in words)]
    for key, (title, _) in NUMBERS.items():
        headings += [PageEntry(title, "n"), *([PageEntry("95 % interval", "n")] if key == "accuracy" else [])]
    return DetectionPanel(
        headings=[*headings, PageEntry("run", "")],  # the longest, and a link: it stands last
        rows=[_row(each, words, page) for each in measured[:MOST_ROWS]],
        left_out=len(measured[MOST_ROWS:]),
        legend=legend(names) if charts else Markup(),
        charts=charts,
        faults=faults + more,
    )


def _row(measured: Measured, words: Sequence[str], page: Path | None) -> PageRow:
    record = measured.record
    texts = {
        "seed": record.text("seed"),
        "encoder": record.encoder,
        "data": measured.data,
        "split": measured.split,
        "method": measured.method,
        "weights": measured.weights,
    }
    entries = [PageEntry(mode_name(record.mode), "mode"), *(PageEntry(texts[word], "") for word in words)]
    for key, (_, form) in NUMBERS.items():
        value = measured.number(key)
        entries.append(
            PageEntry("" if value is None else form.format(value), "n", "" if value is None else repr(value))
        )
        if key == "accuracy":
            low, high = measured.number("accuracy_low"), measured.number("accuracy_high")
            both = "" if low is None or high is None else f"{low:.1f} to {high:.1f}"
            entries.append(PageEntry(both, "n", repr(low) if both else ""))
    link = f"{folder_link(record, page)}/result.json" if page is not None else ""
    return PageRow(mode_class(record.mode), [*entries, PageEntry(record.folder.name, "", link=link)])


def _curves(records: Sequence[Record]) -> tuple[dict[str, str], list[Markup], list[str]]:
    """Names of the lines with their modes, charts, and what is to be said."""
    found, faults = roc_curves(records)
    names: dict[str, str] = {}
    charts = []
    for group in found[:MOST_CHARTS]:
        series = [Series("chance", CHANCE, [(0.0, 0.0), (1.0, 1.0)])]
        for record, auc, points in group.curves[:MOST_CURVES]:
            name = f"{mode_name(record.mode)}, {record.folder.name}"
            names[name] = record.mode
            series.append(Series(f"{name}: AUC {auc:.3f}", record.mode, points))
        charts.append(
            line_chart(
                f"ROC: {group.title}",
                series,
                x_label="FPR (originals called fake)",
                y_label="TPR (fakes called fake)",
                whole=False,
                most_points=MOST_POINTS,
            )
        )
        if (more := len(group.curves) - MOST_CURVES) > 0:
            faults.append(f"ROC: {group.title}: the {MOST_CURVES} curves with the highest AUC, {more} are left out")
    if len(found) > MOST_CHARTS:
        faults.append(f"ROC curves of {len(found) - MOST_CHARTS} more test sets are left out")
    return names, charts, faults
