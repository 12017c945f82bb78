"""What `python -m src.evaluate` prints of images: the numbers of all, and a table of the classes."""

from __future__ import annotations

from typing import Any

from rich.markup import escape
from rich.table import Table

from ssat.core.terminal import Console

WORST = 10  # classes in the table, where there are more


def show_images(found: dict[str, Any], console: Console) -> None:
    """Print `image_metrics`: four lines, the classes (of more than ten the worst), and the notes."""
    for line in lines(found):
        console.print(line, markup=False)
    names = [name for name, each in found["classes"].items() if each["n"]]
    worst = sorted(names, key=lambda name: found["classes"][name]["accuracy"])[:WORST]
    listed = worst if len(names) > WORST else names
    title = f"class (the worst {WORST} of {len(names)})" if len(names) > WORST else "class"
    table = Table(box=None, padding=(0, 2, 0, 0), show_edge=False)
    table.add_column(title)
    for heading in ("n", "acc %"):
        table.add_column(heading, justify="right")
    table.add_column("most often taken for")
    for name in listed:
        each = found["classes"][name]
        taken = f"{each['confused_with']} ({each['confused']:,})" if each["confused_with"] is not None else "-"
        table.add_row(*map(escape, (name, f"{each['n']:,}", f"{each['accuracy']:.2f}", taken)))
    console.print(table)
    for note in found["notes"]:
        console.print(f"note: {note}", markup=False)


def show_labels(found: dict[str, Any], console: Console) -> None:
    """Print `label_metrics`: the numbers of all labels, a table (of more than ten the worst), and the notes."""
    without = f", of which {found['without']:,} have no label" if found["without"] else ""
    most = ", ".join(found["most_frequent"]) or "no label"
    console.print(
        f"mAP {_number(found['map'])} of {found['images']:,} images{without} (guessing: {_number(found['prevalence'])},"
        f" the mean prevalence), AUROC {_number(found['auroc'])}",
        markup=False,
    )
    console.print(
        f"at probability 0.5: macro F1 {found['macro_f1']:.2f} %, micro F1 {found['micro_f1']:.2f} %, decisions right"
        f" {found['hamming_accuracy']:.2f} %, all labels right {found['exact_match']:.2f} % (always answering {most}:"
        f" {found['exact_match_of_most']:.2f} %)",
        markup=False,
    )
    console.print(_calibration(found).replace("calibration", "calibration of the decisions", 1), markup=False)
    labels = found["labels"]
    worst = sorted((name for name in labels if labels[name]["ap"] is not None), key=lambda name: labels[name]["ap"])
    listed = worst[:WORST] if len(labels) > WORST else list(labels)
    table = Table(box=None, padding=(0, 2, 0, 0), show_edge=False)
    table.add_column(f"label (the worst {len(listed)} of {len(labels)})" if len(labels) > WORST else "label")
    for heading in ("n", "prevalence", "AP", "AUROC", "F1 %"):
        table.add_column(heading, justify="right")
    for name in listed:
        each = labels[name]
        numbers = (f"{each['n']:,}", f"{each['prevalence']:.3f}", _number(each["ap"]), _number(each["auroc"]))
        table.add_row(escape(name), *numbers, f"{each['f1']:.2f}")
    console.print(table)
    for note in found["notes"]:
        console.print(f"note: {note}", markup=False)


def lines(found: dict[str, Any]) -> list[str]:
    """The numbers of all images."""
    interval = f"{found['accuracy_low']:.1f} to {found['accuracy_high']:.1f}"
    counted = f"{found['images']:,} images"
    ranks = [f"{name} {_number(found[key])}" for name, key in (("AUROC", "auroc"), ("AP", "ap"))]
    return [
        f"accuracy {found['accuracy']:.2f} % of {counted} ({interval}: Wilson's 95 % interval)",
        f"majority rate {found['majority']:.2f} % (always answering {found['majority_class']})",
        f"balanced accuracy {found['balanced_accuracy']:.2f} %, macro F1 {found['macro_f1']:.2f} %, {', '.join(ranks)}",
        _calibration(found),
    ]


def _calibration(found: dict[str, Any]) -> str:
    said = f"calibration: ECE {found['ece']:.4f}, log-loss {found['log_loss']:.4f}"
    if found["ece_calibrated"] is None:
        return said
    return (
        f"{said}; with temperature {found['temperature']:.3f} ({found['temperature_source']}) ECE"
        f" {found['ece_calibrated']:.4f}, log-loss {found['log_loss_calibrated']:.4f}"
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
