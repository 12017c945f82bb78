"""One comparison of the HTML report: verdict, accuracy bars, training curves, reconstructions."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from html import escape
from pathlib import Path

from src.results.budget import ACCURACY, BUDGETS, budget_sentence, curve, history_split
from src.results.pictures import embeddable
from src.results.record import Record, as_number
from src.results.summary import CAVEAT, FEWER, Arm, Comparison, difference, interval, label, verdict
from src.results.svg import MOST_POINTS, Series, css_class, key_list, line_chart
from src.results.tables import duration, quantity

NO_ROOM = f"Its curves are left out, the page is full: {escape(FEWER)} has them."
PICTURE_BYTES = 200_000  # a larger picture is shrunk


def comparison_panel(comparison: Comparison, budget: Budget, *, is_open: bool) -> str:
    """Verdict, bars, curves and reconstructions of runs that may be compared."""
    arms = [arm for arm in comparison.arms if arm.scored]
    legend = key_list({label(arm.mode): arm.mode for arm in comparison.arms})
    charts = "".join(_charts(comparison, budget.points)) if budget.charts > 0 else ""
    budget.charts -= len(charts)
    equal = " ".join(filter(None, (budget_sentence(comparison, across) for across in BUDGETS)))
    equal = f'<h3>At an equal budget</h3><p class="quiet">{escape(equal)}</p>' if equal else ""
    curves = f'{equal}<h3>Training curves</h3>{legend}<div class="charts">{charts}</div>'
    pictures = "".join(_picture(arm, record, budget) for arm in comparison.arms for record in arm.records)
    details = (curves if charts else "") + (
        f'<h3>Reconstructions</h3><p class="quiet">Rows from top to bottom: original, masked, reconstructed.</p>'
        f'<div class="pictures">{pictures}</div>'
        if pictures
        else ""
    )
    if budget.charts <= 0 and not charts:
        details = f'<p class="quiet">{NO_ROOM}</p>{details}'
    finding, keep, caveat = verdict(comparison.records).partition(CAVEAT)
    return (
        f'<section><h2>{escape(comparison.title)}</h2><p class="facts">{escape(_facts(comparison))}</p>'
        f'<p class="verdict">{escape(finding)}</p>'
        + (f'<p class="caveat">{escape(keep + caveat)}</p>' if caveat else "")
        + _bars(arms)
        + (f"<details{' open' * is_open}><summary>Curves and pictures</summary>{details}</details>" if details else "")
        + "</section>\n"
    )


def _facts(comparison: Comparison) -> str:
    record = comparison.records[0]
    splits = record.get("data_fingerprint.splits")
    names = {"train": "training", "val": "validation", "test": "test"}
    facts = [
        f"{count:,.0f} {names.get(name, name)} images"
        for name, value in (splits.items() if isinstance(splits, dict) else ())
        if (count := as_number(value)) is not None
    ]
    facts += [f"{record.classes} classes"] if record.classes else []
    for key, text in (("config.epochs", "{:.0f} epochs"), ("config.recipe.batch_size", "batch {:.0f}")):
        number = record.number(key)
        facts += [text.format(number)] if number is not None else []
    facts += [f"recipe {record.text('config.recipe.name')}"] if record.get("config.recipe.name") else []
    return " · ".join(facts)


def _bars(arms: list[Arm]) -> str:
    scratch = [arm for arm in arms if arm.mode == "scratch"]
    items = []
    for arm in arms:
        spread = "" if arm.deviation is None else f" ± {arm.deviation:.2f}"
        notes = [f"{len(arm.accuracies)} seeds"] if len(arm.accuracies) > 1 else []
        if len(scratch) == 1 and arm is not scratch[0]:
            notes.append(f"{difference(arm, scratch[0]).points:+.1f} points to scratch".replace("-", "−"))
        seconds, kwh = arm.mean("seconds"), arm.mean("energy.kwh")
        notes += [duration(seconds)] if seconds is not None else []
        notes += [quantity(kwh * 1000, "Wh")] if kwh is not None else []
        span = interval(arm)
        whisker = f'<i class="whisker" style="left:{span[0]:.2f}%;width:{span[1] - span[0]:.2f}%"></i>' if span else ""
        items.append(
            f'<li class="{css_class(arm.mode)}"><b>{escape(arm.label)}</b>'
            f'<span class="track" aria-hidden="true"><i class="fill" style="width:{arm.accuracy:.2f}%"></i>{whisker}'
            f'</span><span class="value">{arm.accuracy:.2f}{spread} %</span>'
            f'<span class="note">{escape(" · ".join(notes))}</span></li>'
        )
    return f'<ol class="bars" aria-label="Top-1 accuracy">{"".join(items)}</ol>' if items else ""


def _charts(comparison: Comparison, most_points: int) -> Iterable[str]:
    names = {"test": "Test accuracy", "val": "Validation accuracy"}
    name = " and ".join(names[split] for split in sorted({history_split(record) for record in comparison.records}))
    runs = [(arm, record) for arm in comparison.arms for record in arm.records]

    def chart(title: str, metric: str, across: str, x_label: str, y_label: str, *, whole: bool = True) -> str:
        series = [
            Series(_run_label(arm, record), arm.mode, list(curve(record, metric, across))) for arm, record in runs
        ]
        if all(len(line.points) < 2 for line in series):
            return ""
        return line_chart(title, series, x_label=x_label, y_label=y_label, whole=whole, most_points=most_points)

    yield chart(f"{name} by epoch", ACCURACY, "epoch", "epoch with labels", "%")
    yield chart(f"{name} by time", ACCURACY, "seconds", "device seconds since the start, all phases", "%")
    yield chart(f"{name} by energy", ACCURACY, "wh", "Wh since the start, all phases", "%", whole=False)
    yield chart("Classification loss", "train/loss_cls", "epoch", "epoch", "training")
    yield chart("Auxiliary loss", "train/loss_ssl", "epoch", "epoch", "training")


def _run_label(arm: Arm, record: Record) -> str:
    return arm.label + (f", seed {record.text('seed')}" if len(arm.records) > 1 else "")


class Budget:
    """Bytes that the page may still spend on pictures and on charts, and the points that it may draw of each curve."""

    def __init__(self, left: int, *, charts: int = 10**6, points: int = MOST_POINTS) -> None:
        self.left, self.charts, self.points = left, charts, points


def _picture(arm: Arm, record: Record, budget: Budget) -> str:
    """The last reconstruction of a run, with the phase and epoch it is from; empty where there is none."""
    listed = [(phase, phase.get("reconstructions")) for phase in record.phases]
    named = [(phase, path) for phase, paths in listed if isinstance(paths, list) for path in paths if path]
    if not named:
        return ""
    phase, path = named[-1]
    epoch = "".join(filter(str.isdigit, Path(str(path)).stem)).lstrip("0")
    where = f"{_run_label(arm, record)}, {phase.get('name')}" + (f" after epoch {epoch}" if epoch else "")
    png = embeddable(record.folder, str(path), min(PICTURE_BYTES, budget.left))
    if png is None:
        where += f": see {record.folder.name}/{path}"
        return f"<figure><figcaption>{escape(where)}</figcaption></figure>"
    budget.left -= len(png)
    source = f"data:image/png;base64,{base64.b64encode(png).decode()}"
    return (
        f'<figure><img alt="Original, masked and reconstructed images, {escape(where)}" src="{source}">'
        f"<figcaption>{escape(where)}</figcaption></figure>"
    )
