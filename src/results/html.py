"""The report as one self-contained HTML page: works offline, light and dark, on a phone."""

from __future__ import annotations

import base64
from datetime import datetime
from html import escape
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from src.results.record import MODES, value
from src.results.summary import finished, groups, mean_accuracies, verdict
from src.results.svg import Line, chart
from src.results.tables import COLUMNS, cells, seed_means

Record = dict[str, Any]
HERE = Path(__file__).resolve().parent
LABELS = {"scratch": "scratch", "ssl_ft": "SSL + FT", "ssat": "SSAT"}
MAX_PICTURE_BYTES = 200_000


def render(records: list[Record], warnings: list[str]) -> str:
    """The whole page."""
    sections = [_group(key, members) for key, members in groups(records).items()]
    body = "".join(
        [
            _header(records),
            *sections,
            _table(records),
            _failures(records),
            _footnotes(records, warnings),
        ]
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><title>SSAT: runs</title>'
        f"<style>{(HERE / 'page.css').read_text()}</style></head><body>{body}"
        f"<script>{(HERE / 'page.js').read_text()}</script></body></html>"
    )


def _css(record: Record) -> str:
    mode = str(record.get("mode"))
    return mode if mode in LABELS else "other"


def _label(mode: str) -> str:
    return LABELS.get(mode, mode)


def _header(records: list[Record]) -> str:
    devices = sorted({str(value(record, "hardware", "device")) for record in records})
    done = len(finished(records))
    return (
        f"<header><h1>Scratch, SSL + fine-tuning and SSAT, compared</h1><p class=soft>{done} finished of "
        f"{len(records)} runs; {escape(', '.join(devices))}; {datetime.now():%Y-%m-%d %H:%M}</p></header>"
    )


def _group(key: tuple[str, str, str], records: list[Record]) -> str:
    experiment, data, encoder = (escape(part) for part in key)
    splits = value(records[0], "data_fingerprint", "splits") or {}
    sizes = ", ".join(f"{count:,} {escape(str(name))}" for name, count in splits.items())
    return (
        f"<section><h2>{encoder} on {data} <span class=soft>{experiment}</span></h2>"
        f"<p class=verdict>{escape(verdict(records))}</p>{_bars(records)}"
        f"<p class=soft>Images: {sizes}. Test accuracy of the last epoch.</p>"
        f"<h3>Training</h3>{_key(records)}<div class=charts>{_charts(records)}</div>{_pictures(records)}</section>"
    )


def _bars(records: list[Record]) -> str:
    means = mean_accuracies(records)
    base = means.get("scratch", (None, 0))[0]
    rows = []
    for mode in sorted(means, key=lambda mode: MODES.index(mode) if mode in MODES else len(MODES)):
        number, count = means[mode]
        gain = f" ({number - base:+.2f})" if base is not None and mode != "scratch" else ""
        runs = f" <span class=soft>n={count}</span>" if count > 1 else ""
        css = mode if mode in LABELS else "other"
        rows.append(
            f"<span>{escape(_label(mode))}</span><i class={css} style='width:{number:.2f}%'></i>"
            f"<b>{number:.2f} %{gain}{runs}</b>"
        )
    return f"<div class=bars>{''.join(rows)}</div>"


def _key(records: list[Record]) -> str:
    seen = {_css(record): _label(str(record.get("mode"))) for record in records}
    return f"<p class=key>{''.join(f'<span class={css}>{escape(label)}</span>' for css, label in seen.items())}</p>"


def _points(record: Record, name: str, against: str) -> list[tuple[float, float]]:
    """(x, value) of every epoch of all phases; x counts epochs or seconds from the start of the run."""
    points, seconds, epochs = [], 0.0, 0
    for phase in record.get("phases") or []:
        for row in phase.get("history") or []:
            seconds += row.get("seconds") or 0.0
            if row.get(name) is not None:
                points.append((epochs + row["epoch"] + 1.0 if against == "epoch" else round(seconds, 1), row[name]))
        epochs += phase.get("epochs") or 0
    return points


def _charts(records: list[Record]) -> str:
    split = "val" if any(value(record, "metrics", "val") for record in records) else "test"
    wanted = [
        (f"{split}/acc1", "epoch", "accuracy, %"),
        (f"{split}/acc1", "seconds", "accuracy, %"),
        ("train/loss_cls", "epoch", "classification loss"),
        ("train/loss_ssl", "epoch", "auxiliary loss"),
    ]
    figures = []
    for name, against, title in wanted:
        lines = [
            Line(f"{_label(str(record.get('mode')))}, seed {record.get('seed')}", _css(record), points)
            for record in records
            if (points := _points(record, name, against))
        ]
        x_label = "epoch (all phases)" if against == "epoch" else "seconds"
        if svg := chart(title, x_label, title, lines):
            figures.append(f"<figure>{svg}<figcaption>{escape(split)} {title} against {x_label}</figcaption></figure>")
    return (
        "".join(figures)
        .replace("test classification", "train classification")
        .replace("test auxiliary", "train auxiliary")
    )


def _pictures(records: list[Record]) -> str:
    figures = []
    for record in records:
        for phase in record.get("phases") or []:
            files = phase.get("reconstructions") or []
            path = record["folder"] / files[-1] if files else None
            if path is not None and path.is_file():
                title = f"{_label(str(record.get('mode')))}, {phase.get('name')}, {path.stem.replace('_', ' ')}"
                figures.append(
                    f"<figure><img alt='Rows: original, masked and reconstructed images' src='{_data_uri(path)}'>"
                    f"<figcaption>{escape(title)}: original, masked, reconstructed</figcaption></figure>"
                )
    return f"<h3>Reconstructions</h3><div class=charts>{''.join(figures)}</div>" if figures else ""


def _data_uri(path: Path) -> str:
    content, kind = path.read_bytes(), "png"
    if len(content) > MAX_PICTURE_BYTES:
        buffer = BytesIO()
        with Image.open(path) as image:
            image.thumbnail((900, 900))
            image.convert("RGB").save(buffer, format="JPEG", quality=85)
        content, kind = buffer.getvalue(), "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _table(records: list[Record]) -> str:
    head = "".join(f"<th scope=col><button>{escape(name)}</button></th>" for name, _, _ in COLUMNS)
    rows = "".join(
        f"<tr class={escape(str(record['status']))}>{''.join(f'<td>{escape(cell)}</td>' for cell in cells(record))}</tr>"
        for record in records
    )
    means = "".join(f"<li>{escape(line)}</li>" for line in seed_means(records))
    return (
        f"<section><h2>All runs</h2><div class=scroll tabindex=0><table><thead><tr>{head}</tr></thead>"
        f"<tbody>{rows}</tbody></table></div><ul>{means}</ul></section>"
    )


def _failures(records: list[Record]) -> str:
    items = "".join(
        f"<li>{escape(str(record['folder']))}: {escape(str(record.get('error')))}</li>"
        for record in records
        if record["status"] == "failed"
    )
    return f"<section><h2>Failed runs</h2><ul>{items}</ul></section>" if items else ""


def _footnotes(records: list[Record], warnings: list[str]) -> str:
    notes = [
        "acc last: test accuracy after the last epoch. best: the maximum over the epochs; without a validation split "
        "it is chosen on the test images and therefore optimistic.",
        "params and GMAC: at inference, and in training in brackets (plain formulation, one image, forward).",
    ]
    sources = sorted(
        {str(value(record, "energy", "source")) for record in records if value(record, "energy", "source")}
    )
    if sources:
        notes.append(f"Energy and CO2: {'; '.join(sources)}; in brackets Lacoste's formula, power x hours x intensity.")
    reasons = sorted({reason for record in records for reason in record.get("unfaithful_reasons") or []})
    if reasons:
        notes.append(f"† not comparable with a cell of the paper: {'; '.join(reasons)}.")
    notes += warnings
    return f"<footer><ul>{''.join(f'<li>{escape(note)}</li>' for note in notes)}</ul></footer>"
