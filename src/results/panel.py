"""One comparison of the HTML report: verdict, accuracy bars, training curves, reconstructions."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from html import escape
from pathlib import Path

from src.results.pictures import embeddable
from src.results.record import Record, as_number
from src.results.summary import CAVEAT, Arm, Comparison, difference, interval, label, verdict
from src.results.svg import Series, css_class, line_chart
from src.results.tables import duration, quantity

PICTURE_BYTES = 200_000  # a larger picture is shrunk


def comparison_panel(comparison: Comparison, budget: Budget, *, is_open: bool) -> str:
    """Verdict, bars, curves and reconstructions of runs that may be compared."""
    arms = [arm for arm in comparison.arms if arm.scored]
    legend = "".join(
        f'<li class="{css_class(mode)}"><svg viewBox="0 0 28 8" aria-hidden="true">'
        f'<polyline class="line {css_class(mode)}" points="1,4 27,4"/></svg><span>{escape(label(mode))}</span></li>'
        for mode in dict.fromkeys(arm.mode for arm in comparison.arms)
    )
    charts = "".join(_charts(comparison))
    curves = f'<h3>Training curves</h3><ul class="legend">{legend}</ul><div class="charts">{charts}</div>'
    pictures = "".join(_picture(arm, record, budget) for arm in comparison.arms for record in arm.records)
    details = (curves if charts else "") + (
        f'<h3>Reconstructions</h3><p class="quiet">Rows from top to bottom: original, masked, reconstructed.</p>'
        f'<div class="pictures">{pictures}</div>'
        if pictures
        else ""
    )
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


def _charts(comparison: Comparison) -> Iterable[str]:
    split = comparison.records[0].split
    accuracy, name = f"{split}/acc1", "Test accuracy" if split == "test" else "Validation accuracy"
    runs = [(arm, record) for arm in comparison.arms for record in arm.records]

    def lines(metric: str, *, in_seconds: bool = False) -> list[Series]:
        return [
            Series(_run_label(arm, record), arm.mode, list(_points(record, metric, in_seconds=in_seconds)))
            for arm, record in runs
        ]

    yield line_chart(f"{name} by epoch", lines(accuracy), x_label="epoch with labels", y_label="%")
    by_time = lines(accuracy, in_seconds=True)
    yield line_chart(f"{name} by time", by_time, x_label="seconds since the start, all phases", y_label="%")
    yield line_chart("Classification loss", lines("train/loss_cls"), x_label="epoch", y_label="training")
    yield line_chart("Auxiliary loss", lines("train/loss_ssl"), x_label="epoch", y_label="training")


def _run_label(arm: Arm, record: Record) -> str:
    return arm.label + (f", seed {record.text('seed')}" if len(arm.records) > 1 else "")


def _points(record: Record, metric: str, *, in_seconds: bool) -> Iterable[tuple[float, float]]:
    """The metric's history: against epochs counted from 1 within its phase, or against the run's seconds."""
    before = 0.0
    for phase in record.phases:
        history = phase.get("history")
        clock = before
        for row in history if isinstance(history, list) else ():
            values = row if isinstance(row, dict) else {}
            clock += as_number(values.get("seconds")) or 0.0
            epoch, y = as_number(values.get("epoch")), as_number(values.get(metric))
            if y is not None and epoch is not None:
                yield (clock if in_seconds else epoch + 1), y
        before = max(clock, before + (as_number(phase.get("seconds")) or 0.0))


class Budget:
    """Bytes that the page may still spend on pictures."""

    def __init__(self, left: int) -> None:
        self.left = left


def _picture(arm: Arm, record: Record, budget: Budget) -> str:
    """The last reconstruction of a run, with the phase and epoch it is from; empty where there is none."""
    named = [(phase, path) for phase in record.phases for path in phase.get("reconstructions") or () if path]
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
