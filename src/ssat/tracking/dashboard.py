"""The Weights & Biases dashboard as plain data.

`specification` is what `python -m src.dashboard` writes to a file: sections, each with its set of runs and its panels,
in W&B's own names. `to_report` turns it into a report of wandb-workspaces (extra `dashboard`); the rest needs no W&B.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

from ssat.core.errors import UserError
from ssat.tracking.names import RESULT_TAG

SCHEMA = 1
WIDTH, HEIGHT = 12, 8  # of a panel, in units of a report's 24 columns
# What each kind of panel has beside `kind` and `title`: the keys that it needs, and those that it may have.
KINDS: dict[str, tuple[set[str], set[str]]] = {
    "line": ({"x", "y"}, {"groupby", "log_y"}),
    "bar": ({"metrics"}, {"groupby"}),
    "scatter": ({"x", "y"}, {"log_x"}),
    "pictures": ({"keys"}, set()),
    "columns": ({"columns"}, set()),
}


def specification(project: str, entity: str | None) -> dict[str, Any]:
    """The whole dashboard as JSON-ready data."""
    return sealed(
        {
            "schema": SCHEMA,
            "project": project,
            "entity": entity,
            "title": "SSAT: scratch, SSL+FT and SSAT compared",
            "url": None,
            "sections": [*comparison_sections(), *ablation_sections(), *training_sections()],
        }
    )


def sealed(spec: dict[str, Any]) -> dict[str, Any]:
    """`spec` as one that we have built: with the digest by which a later edit is noticed."""
    return spec | {"built": digest(spec)}


def digest(spec: dict[str, Any]) -> str:
    """Twelve hexadecimal digits of everything but the digest itself and the report's address."""
    content = {key: value for key, value in spec.items() if key not in ("built", "url")}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def runs(name: str, *conditions: str, groupby: list[str]) -> dict[str, Any]:
    """A set of runs; grouped runs (the seeds of one setting) are drawn as their mean and range."""
    return {"name": name, "filters": " and ".join(conditions), "groupby": groupby}


IS_RESULT = f"Tags() in ['{RESULT_TAG}']"
SETTING = ["group", "config.data_name", "config.encoder_name", "config.mode_name"]


def line(title: str, y: list[str], *, x: str = "epoch", groupby: str | None = None) -> dict[str, Any]:
    """A panel of curves."""
    return {"kind": "line", "title": title, "x": x, "y": y, "groupby": groupby}


def bar(title: str, metric: str, groupby: str) -> dict[str, Any]:
    """A panel of one bar per group."""
    return {"kind": "bar", "title": title, "metrics": [f"result/{metric}"], "groupby": groupby}


def scatter(title: str, x: str, y: str = "result/acc1", *, log_x: bool = False) -> dict[str, Any]:
    """A panel of one point per run."""
    return {"kind": "scatter", "title": title, "x": x, "y": y, "log_x": log_x}


def comparison_sections() -> list[dict[str, Any]]:
    """The modes against each other, by accuracy and by cost."""
    return [
        {
            "title": "Modes: scratch, SSL+FT, SSAT",
            "text": "Grouped by experiment, data set, encoder and mode; seeds are averaged. `result/acc1` is the"
            " accuracy that tables show; `result/faithful` says whether it may be read as a cell of the paper.",
            "runs": runs("results", IS_RESULT, groupby=SETTING),
            "panels": [
                line("Test accuracy, %", ["test/acc1"]),
                bar("Accuracy, % by mode", "acc1", "mode_name"),
                bar("Accuracy, % by experiment", "acc1", "Group"),
                bar("Best accuracy, % (optimistic: chosen on the test set)", "acc1_best", "mode_name"),
            ],
        },
        {
            "title": "Footprint",
            "text": "Accuracy against what it cost: energy and CO2 of codecarbon, CO2 by Lacoste's formula, hours of"
            " all phases of the run.",
            "runs": runs("results", IS_RESULT, groupby=SETTING),
            "panels": [
                scatter("Accuracy, % against kWh", "result/kwh", log_x=True),
                scatter("Accuracy, % against kg CO2", "result/co2_kg", log_x=True),
                scatter("Accuracy, % against kg CO2 (Lacoste)", "result/co2_kg_lacoste", log_x=True),
                scatter("Accuracy, % against hours", "result/hours", log_x=True),
                bar("kWh by mode", "kwh", "mode_name"),
                bar("Images or clips per second by mode", "images_per_s", "mode_name"),
            ],
        },
    ]


def ablation_sections() -> list[dict[str, Any]]:
    """Figure 3, Tables 10 to 12 and the label curve: accuracy over the value that is varied."""
    found = []
    for title, experiment, key, what in (
        ("Lambda (Figure 3)", "figure3", "lam", "the weight of the classification loss"),
        ("Decoder depth (Table 10)", "table10", "decoder_depth", "the decoder's depth"),
        ("Decoder dimension (Table 11)", "table11", "decoder_dim", "the decoder's width"),
        ("Decoder heads (Table 12)", "table12", "decoder_heads", "the decoder's attention heads"),
        ("Few labels", "label_curve", "label_fraction", "the share of labels"),
    ):
        over = f"config.{key}"
        found.append(
            {
                "title": title,
                "text": f"The runs of `+experiments={experiment}`: accuracy over {what}."
                " Runs of another experiment: change `Group` in the run set's filter.",
                "runs": runs(experiment, IS_RESULT, f"Metric('Group') = '{experiment}'", groupby=[*SETTING[1:], over]),
                "panels": [
                    scatter(f"Accuracy, % over {key}", over),
                    bar(f"Accuracy, % by {key}", "acc1", key),
                    line("Test accuracy, %", ["test/acc1"], groupby=key),
                    {"kind": "columns", "title": title, "columns": ["config.data_name", over, "result/acc1"]},
                ],
            }
        )
    return found


def training_sections() -> list[dict[str, Any]]:
    """All phases, pre-training too: losses, speed, pictures."""
    every = ["group", "config.data_name", "config.encoder_name", "config.mode_name", "jobType"]
    return [
        {
            "title": "Losses and speed",
            "text": "Every phase, pre-training included. Epoch means; the step-wise losses are `train/...`.",
            "runs": runs("all phases", groupby=every),
            "panels": [
                line("L = lambda L_cls + (1 - lambda) L_SSAT", ["epoch/train/loss"]),
                line("L_cls", ["epoch/train/loss_cls"]),
                line("L_SSAT", ["epoch/train/loss_ssl"]),
                line("Test loss", ["test/loss"]),
                line("Learning rate", ["lr"], x="trainer/global_step"),
                line("Images or clips per second", ["throughput/images_per_s"]),
            ],
        },
        {
            "title": "Reconstructions",
            "text": "Original, masked and reconstructed: the same images or clips and masks every few epochs.",
            "runs": runs("all phases", groupby=[]),
            "panels": [{"kind": "pictures", "title": "Reconstructions", "keys": ["reconstructions"]}],
        },
    ]


def validate(spec: Any, source: str) -> dict[str, Any]:
    """`spec` as it was written by us or edited by the user.

    Raises:
        UserError: names the place in `source` that is wrong.
    """
    if not isinstance(spec, dict) or spec.get("schema") != SCHEMA:
        raise UserError(f"{source} is not a dashboard of this version: python -m src.dashboard writes one")
    for key in ("project", "title"):
        if not isinstance(spec.get(key), str) or not spec[key]:
            raise UserError(f'{source} has no {key}: add one, e.g. "{key}": "ssat"')
    for key in ("entity", "url"):
        if not isinstance(spec.get(key), str | None):
            raise UserError(f"{source} has {key}={spec[key]!r}: it must be text or null")
    if not isinstance(spec.get("sections"), list):
        raise UserError(f"{source} has no list of sections: python -m src.dashboard writes them")
    for index, section in enumerate(spec["sections"]):
        where = f"{source}, section {index + 1}"
        if not isinstance(section, dict) or not {"title", "runs", "panels"} <= section.keys():
            raise UserError(f"{where} needs title, runs and panels")
        if not isinstance(section["runs"], dict) or not {"name", "filters", "groupby"} <= section["runs"].keys():
            raise UserError(f"{where}: runs needs name, filters and groupby")
        if not isinstance(section["panels"], list):
            raise UserError(f"{where}: panels is no list")
        for panel in section["panels"]:
            validate_panel(panel, where)
    return spec


def validate_panel(panel: Any, where: str) -> None:
    """Refuse a panel that cannot be drawn.

    Raises:
        UserError: its kind does not exist, or a key is missing or unknown.
    """
    kind = panel.get("kind") if isinstance(panel, dict) else panel
    if not isinstance(kind, str) or kind not in KINDS:
        raise UserError(f"{where}: a panel of kind {kind!r} does not exist; there are {', '.join(KINDS)}")
    needed, optional = KINDS[kind]
    missing = (needed | {"title"}) - panel.keys()
    if missing:
        raise UserError(f"{where}: a panel of kind {kind} needs {', '.join(sorted(missing))}")
    unknown = panel.keys() - needed - optional - {"kind", "title"}
    if unknown:
        raise UserError(f"{where}: a panel of kind {kind} has no {', '.join(sorted(unknown))}")


def to_report(spec: dict[str, Any], *, entity: str, report: Any = None) -> Any:
    """The specification as a report object of wandb-workspaces; `report`: an existing one whose content is replaced.

    Raises:
        UserError: a filter or a value that W&B does not understand.
    """
    import wandb_workspaces.reports.v2 as wr

    blocks: list[Any] = [wr.TableOfContents()]
    for section in spec["sections"]:
        chosen = section["runs"]
        try:
            grid = wr.PanelGrid(
                runsets=[wr.Runset(name=chosen["name"], filters=chosen["filters"], groupby=chosen["groupby"])],
                panels=[panel_of(wr, panel, index) for index, panel in enumerate(section["panels"])],
            )
            grid._to_model()  # parses the filter now rather than at the upload
            blocks += [wr.H1(section["title"]), wr.P(section.get("text", "")), grid]
        except (ValueError, TypeError, KeyError, AttributeError, SyntaxError) as error:
            why = " ".join(str(error).split())[:200]
            raise UserError(f"section {section['title']!r} is not understood by W&B: {why}") from error
    if report is None:
        report = wr.Report(project=spec["project"], entity=entity, title=spec["title"], width="fluid")
    report.title, report.blocks = spec["title"], blocks
    return report


def panel_of(wr: Any, panel: dict[str, Any], index: int) -> Any:
    """One panel, the `index`-th of its section, two in a row."""
    layout = wr.Layout(x=index % 2 * WIDTH, y=index // 2 * HEIGHT, w=WIDTH, h=HEIGHT)
    title = panel["title"]
    makers: dict[str, Callable[[], Any]] = {
        "line": lambda: wr.LinePlot(
            title=title,
            x=panel["x"],
            y=panel["y"],
            groupby=panel.get("groupby"),
            groupby_aggfunc="mean",
            groupby_rangefunc="minmax",
            log_y=panel.get("log_y"),
            layout=layout,
        ),
        "bar": lambda: wr.BarPlot(
            title=title,
            metrics=panel["metrics"],
            groupby=panel.get("groupby"),
            groupby_aggfunc="mean",
            groupby_rangefunc="minmax",
            layout=layout,
        ),
        "scatter": lambda: wr.ScatterPlot(
            title=title, x=metric(wr, panel["x"]), y=metric(wr, panel["y"]), log_x=panel.get("log_x"), layout=layout
        ),
        "pictures": lambda: wr.MediaBrowser(title=title, media_keys=panel["keys"], gallery_axis="step", layout=layout),
        "columns": lambda: wr.ParallelCoordinatesPlot(
            title=title,
            columns=[wr.ParallelCoordinatesPlotColumn(metric(wr, name)) for name in panel["columns"]],
            layout=layout,
        ),
    }
    return makers[panel["kind"]]()


def metric(wr: Any, name: str) -> Any:
    """`config.lam` as a key of the configuration, anything else as a value of the summary."""
    return wr.Config(name.removeprefix("config.")) if name.startswith("config.") else wr.SummaryMetric(name)
