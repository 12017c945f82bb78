"""Figures 6 to 10 and 12: what python -m src.analyze has left beside the runs, as charts and pictures of the page."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from src.results.panel import PICTURE_BYTES, Budget
from src.results.pictures import embeddable
from src.results.record import Tree, as_number, folders, lookup, read_json
from src.results.svg import Series, key_list, line_chart

FOLDER = "analyses"


@dataclass(frozen=True)
class AnalysisRecord:
    """One analysis of some models, as src/analysis/output.py describes it."""

    path: Path
    values: dict[str, Any]

    @property
    def name(self) -> str:
        return str(self.values["analysis"])

    @property
    def title(self) -> str:
        images = as_number(self.values.get("images"))
        count = f", {images:,.0f} images" if images else ""
        return f"{self.values.get('encoder')} on {self.values.get('data')}{count}"

    @property
    def models(self) -> list[dict[str, Any]]:
        found = self.values.get("models")
        return [model for model in found if isinstance(model, dict)] if isinstance(found, list) else []


def read_analyses(runs: Path, tree: Tree | None = None) -> tuple[list[AnalysisRecord], list[str]]:
    """Every analysis below `runs`, and a line for each file of such a folder that is none.

    `tree`: what `folders` has found there, if it is known.
    """
    found, warnings = [], []
    # A folder that cannot be read is told by read_records.
    for folder, files in (tree or folders(runs)).folders:
        if folder.parent.name != FOLDER:
            continue
        for path in (folder / name for name in files if name.endswith(".json")):
            try:
                values = read_json(path)
            except ValueError as error:
                warnings.append(f"{path}: {error}")
                continue
            if lookup(values, "kind") == "analysis" and values.get("schema") == 1 and "analysis" in values:
                found.append(AnalysisRecord(path, values))
            else:
                warnings.append(f"{path}: not a record of an analysis")
    return found, warnings


def analysis_figure(name: str, records: Sequence[AnalysisRecord], budget: Budget) -> str:
    """The charts, pictures and summaries of an analysis; empty where it has not been made."""
    parts = [
        f"<h3>{escape(record.title)}</h3>{_key(record)}"
        f'<div class="charts">{"".join(_charts(record))}</div>'
        f"{_summary(record)}{_picture(record, budget)}"
        for record in records
        if record.name == name
    ]
    return "".join(parts)


def _key(record: AnalysisRecord) -> str:
    names = {str(model.get("name")): str(model.get("mode")) for model in record.models}
    return key_list(names) if record.values.get("panels") else ""


def _charts(record: AnalysisRecord) -> Iterator[str]:
    panels = record.values.get("panels")
    for panel in panels if isinstance(panels, list) else ():
        if not isinstance(panel, dict) or not isinstance(panel.get("name"), str):
            continue
        series, is_log = [], panel.get("x_scale") == "log"
        for model in record.models:
            curve = lookup(model, "series")
            curve = curve.get(panel["name"]) if isinstance(curve, dict) else None
            xs, ys = (values if isinstance(values := lookup(curve, axis), list) else [] for axis in ("x", "y"))
            points = [
                (x, y) for x, y in zip(xs, ys, strict=False) if as_number(x) is not None and as_number(y) is not None
            ]
            if is_log:
                points = [(math.log10(x), y) for x, y in points if x > 0]
            series.append(Series(str(model.get("name")), str(model.get("mode")), points))
        largest = max((x for line in series for x, _ in line.points), default=0)
        x_label, y_label = (str(panel.get(key, "")) for key in ("x_label", "y_label"))
        x_label = f"log10 of {x_label}" if is_log else x_label
        yield line_chart(panel["name"], series, x_label=x_label, y_label=y_label, whole=largest > 5)


def _summary(record: AnalysisRecord) -> str:
    lines = []
    for model in record.models:
        summary = model.get("summary")
        values = summary.items() if isinstance(summary, dict) else ()
        told = [f"{key} {value:.4g}" for key, value in values if as_number(value) is not None]
        lines += [f"<li>{escape(str(model.get('name')))}: {escape(', '.join(told))}</li>"] if told else []
    return f'<ul class="quiet">{"".join(lines)}</ul>' if lines else ""


def _picture(record: AnalysisRecord, budget: Budget) -> str:
    """The figure's own picture, where it is one (Figures 10 and 12)."""
    pictures = record.values.get("pictures")
    if record.values.get("panels") or not isinstance(pictures, list) or not pictures:
        return ""
    png = embeddable(record.path.parent, str(pictures[0]), min(PICTURE_BYTES, budget.left))
    if png is None:
        return f'<p class="quiet">see {escape(record.path.parent.name)}/{escape(str(pictures[0]))}</p>'
    budget.left -= len(png)
    source = f"data:image/png;base64,{base64.b64encode(png).decode()}"
    return f'<figure class="wide"><img alt="{escape(record.name)}, {escape(record.title)}" src="{source}"></figure>'
