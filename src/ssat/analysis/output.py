"""An analysis on disk: <analysis>.json for the report, <analysis>.csv and <analysis>.png for people.

    {
      "schema": 1, "kind": "analysis", "analysis": "distance", "figure": 7, "title": "...",
      "encoder": "vit_t", "data": "flowers", "split": "test", "images": 1000, "indices_sha256": "...",
      "unit": "images",                       what `images` counts: images, or clips
      "settings": {...},                      the command's options that change the result
      "panels": [                             pairs of axes, in the order in which they are drawn; [] for Figures 10, 12
        {"name": "distance", "x_label": "block", "y_label": "...", "x_scale": "linear", "y_scale": "linear",
         "markers": true}
      ],
      "models": [                             in the order of runs=
        {"run": "...", "hash": "1a2b3c4d", "mode": "ssat", "name": "SSAT", "encoder": "vit_t", "seed": 0,
         "checkpoint": "...", "checkpoint_sha256": "...", "epochs": [100], "finished": true, "seconds": 12.3,
         "series": {"distance": {"x": [0, 1, ...], "y": [...], "std": [...]}},    by panel; std: over images, or null
         "summary": {"largest distance": 12.3},                                   a few numbers
         "values": {...}}                                                         everything else, see below
      ],
      "pictures": ["distance.png"],           beside the JSON file; the first is the figure, then its details
      "table": "distance.csv",                columns model, panel, x, y, std; null where there are no curves
      "created": "...", "git_commit": "...", "versions": {...}, "device": "cpu"
    }

`values` of a model, by analysis:
    attention   tokens, prefix, shown: {first, middle, last: number of the block}, blocks: [{block, mean, std, max,
                argmax, entropy, max_of_images, entropy_of_images, histogram: {edges, shares}}]; of clips slots and
                patches: {x, y, std} in place of prefix, mean and std, and grid: [slots, rows, cols]
    distance    nothing
    variance    stages: names of the points
    hessian     settings, parameters, all and converged: {eigenvalues, nep (%), ane, ape}, converged_share (%),
                eigenvalues: [{batch, rank, value, iterations, converged}]
    gradcam     images: [{index, true, predicted, probability, correct, map_predicted, map_true}]
                of clips: [{video, method, true, predicted, probability, correct, evidence, evidence_of_slots,
                evidence_of_patches, map}]; x of their series: seconds of the slots
    maps        images: [{index, map}]
A number that is not finite is null.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ssat.analysis.figures import Analysis
from ssat.analysis.models import Measured, Model
from ssat.analysis.plots import Line, Panel, draw_curves, draw_grid, draw_strip
from ssat.core.files import write_text
from ssat.runs.machine import git_commit, versions
from ssat.runs.record import write_record

SCHEMA = 1


def model_entry(model: Model, measured: Measured, seconds: float) -> dict[str, Any]:
    """One of the record's `models`."""
    return model.facts | {
        "seconds": round(seconds, 2),
        "series": {name: curve._asdict() for name, curve in measured.series.items()},
        "summary": measured.summary,
        "values": measured.values,
    }


def header(
    name: str,
    analysis: Analysis,
    first: Model,
    settings: dict[str, Any],
    entries: list[dict[str, Any]],
    chosen: list[int],
) -> dict[str, Any]:
    """The record without what its files add; the Hessian's images are not `chosen` but drawn from the training set."""
    of_training = analysis.figure == 9
    batches = entries[0]["values"]["settings"] if of_training else {}
    return {
        "schema": SCHEMA,
        "kind": "analysis",
        "analysis": name,
        "figure": analysis.figure,
        "title": analysis.title,
        "encoder": first.facts["encoder"],
        "data": first.facts["data"],
        "split": "train" if of_training else first.split,
        "images": batches["batches"] * batches["batch_size"] if of_training else len(chosen),
        "unit": "clips" if first.encoder.takes_clips else "images",
        "indices_sha256": None if of_training else hashlib.sha256(json.dumps(chosen).encode()).hexdigest(),
        "settings": settings,
        "models": entries,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "git_commit": git_commit(),
        "versions": versions(),
        "device": first.device.type,
    }


def table(record: dict[str, Any]) -> str:
    """The curves of a record as CSV."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("model", "panel", "x", "y", "std"))
    for model in record["models"]:
        for panel, curve in model["series"].items():
            deviations = curve["std"] or [""] * len(curve["x"])
            writer.writerows((model["name"], panel, *point) for point in zip(curve["x"], curve["y"], deviations))  # noqa: B905
    return text.getvalue()


def _lines(panel: Panel, models: Sequence[Model], results: Sequence[Measured]) -> list[Line]:
    return [Line(m.name, m.facts["mode"], r.series[panel.name]) for m, r in zip(models, results, strict=True)]


def write_curves(
    out: Path,
    record: dict[str, Any],
    panels: Sequence[Panel],
    models: Sequence[Model],
    results: Sequence[Measured],
    details: Sequence[str] = (),
) -> None:
    """<analysis>.png, .csv and, last, .json, which names the `details` too: pictures that are there already."""
    name = record["analysis"]
    lines = {panel.name: _lines(panel, models, results) for panel in panels}
    draw_curves(panels, lines, record["title"], out / f"{name}.png")
    pictures = [f"{name}.png", *details]
    record |= {"panels": [panel._asdict() for panel in panels], "pictures": pictures, "table": f"{name}.csv"}
    write_text(out / f"{name}.csv", table(record))
    write_record(out, record, name=f"{name}.json")


def write_strips(
    out: Path, record: dict[str, Any], axes: Panel, models: Sequence[Model], results: Sequence[Measured]
) -> None:
    """A film strip of each clip with its curves, <analysis>-<number>-<clip>.png, then all that write_curves writes."""
    panels, pictures = [axes._replace(name=clip) for clip in results[0].series], []
    for number, panel in enumerate(panels, 1):
        strips = {m.name: r.strips[panel.name] for m, r in zip(models, results, strict=True) if r.strips}
        pictures.append(f"{record['analysis']}-{number:02d}-{slug(panel.name)[:60]}.png")
        title = f"{record['title']}: {panel.name}"
        draw_strip(strips, axes, _lines(panel, models, results), title, out / pictures[-1])
    write_curves(out, record, panels, models, results, pictures)


def write_grids(
    out: Path, record: dict[str, Any], titles: Sequence[str], models: Sequence[Model], results: Sequence[Measured]
) -> None:
    """<analysis>.png with the rows of all models, a PNG of each model's details and, last, .json."""
    name = record["analysis"]
    together = {label: rows for result in results for label, rows in (result.pictures or {}).items()}
    captions = {label: texts for result in results for label, texts in (result.captions or {}).items()}
    draw_grid(together, titles, record["title"], out / f"{name}.png", captions)
    pictures = [f"{name}.png"]
    for model, result in zip(models, results, strict=True):
        for detail, rows in (result.details or {}).items():
            pictures.append(f"{name}-{detail}-{slug(model.name)}.png")
            draw_grid(rows, titles, f"{record['title']}: {model.name}", out / pictures[-1], result.captions)
    record |= {"panels": [], "pictures": pictures, "table": None}
    write_record(out, record, name=f"{name}.json")


def slug(name: str) -> str:
    """A name as part of a file name: SSL+FT, seed 1 -> ssl_ft-seed-1."""
    return re.sub(r"[^a-z0-9_]+", "-", name.lower().replace("+", "_")).strip("-")
