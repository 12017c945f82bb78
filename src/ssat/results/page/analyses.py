"""Analyses on the page: Figures 6 to 10 and 12, from the files that src.analyze has written beside the runs."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from ssat.results.analyses import AnalysisRecord
from ssat.results.page.charts import legend, line_chart
from ssat.results.page.pictures import Picture, data_address
from ssat.results.page.space import PageSpace
from ssat.results.series import Series
from ssat.runs.record import as_number, lookup


@dataclass(frozen=True)
class AnalysisPanel:
    """What templates/analysis.html shows.

    Attributes:
        title: encoder, data set and number of images; the folder too, where several have the same.
        legend: of the charts; empty without charts.
        charts: one for each pair of axes.
        numbers: a line for each model: a few numbers that sum it up.
        pictures: the figure itself, where it is a picture, or what its charts leave out: film strips of clips.
    """

    title: str
    legend: Markup
    charts: list[Markup]
    numbers: list[str]
    pictures: list[Picture]


def analysis_panels(name: str, records: Sequence[AnalysisRecord], space: PageSpace) -> list[AnalysisPanel]:
    """What the page shows of an analysis; empty where it has not been made."""
    shown = [record for record in records if record.name == name]
    titles = Counter(record.title for record in shown)
    return [_panel(record, space, is_repeated=titles[record.title] > 1) for record in shown]


def _panel(record: AnalysisRecord, space: PageSpace, *, is_repeated: bool) -> AnalysisPanel:
    names = {str(model.get("name")): str(model.get("mode")) for model in record.models}
    return AnalysisPanel(
        title=record.title + f" ({record.path.parent.name})" * is_repeated,
        legend=legend(names) if record.values.get("panels") else Markup(),
        charts=[_chart(record, axes) for axes in record.axes],
        numbers=list(_numbers(record)),
        pictures=list(_pictures(record, space)),
    )


def _chart(record: AnalysisRecord, axes: dict[str, Any]) -> Markup:
    is_log = axes.get("x_scale") == "log"
    series = [
        Series(str(model.get("name")), str(model.get("mode")), list(_points(model, axes["name"], is_log=is_log)))
        for model in record.models
    ]
    largest = max((x for line in series for x, _ in line.points), default=0)
    x_label, y_label = (str(axes.get(key, "")) for key in ("x_label", "y_label"))
    x_label = f"log10 of {x_label}" if is_log else x_label
    return line_chart(axes["name"], series, x_label=x_label, y_label=y_label, whole=largest > 5)


def _points(model: dict[str, Any], name: str, *, is_log: bool) -> Iterator[tuple[float, float]]:
    """The points of a model's curve; what is no number is left out, also a logarithm that there is not."""
    curves = model.get("series")
    curve = curves.get(name) if isinstance(curves, dict) else None
    xs, ys = (values if isinstance(values := lookup(curve, axis), list) else [] for axis in ("x", "y"))
    for x, y in zip(map(as_number, xs), map(as_number, ys), strict=False):
        if x is None or y is None or (is_log and x <= 0):
            continue
        yield (math.log10(x) if is_log else x), y


def _numbers(record: AnalysisRecord) -> Iterator[str]:
    for model in record.models:
        summary = model.get("summary")
        values = summary.items() if isinstance(summary, dict) else ()
        shown = [f"{key} {value:.4g}" for key, value in values if as_number(value) is not None]
        if shown:
            yield f"{model.get('name')}: {', '.join(shown)}"


def _pictures(record: AnalysisRecord, space: PageSpace) -> Iterator[Picture]:
    """The figure's own picture (Figures 10 and 12); where it is charts, the pictures beside them."""
    listed = record.values.get("pictures")
    names = listed if isinstance(listed, list) else []
    folder = record.path.parent
    for name in names[1:] if record.values.get("panels") else names[:1]:
        source = data_address(folder, str(name), space)
        yield Picture("" if source else f"see {folder.name}/{name}", f"{record.name}, {record.title}, {name}", source)
