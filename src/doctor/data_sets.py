"""The data sets that are there: by the code of `python -m src.prepare --check`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from rich.console import Console

from src.data.card import Card
from src.data.catalog import CATALOG
from src.data.checks import Missing, locate
from src.doctor.finding import Finding
from src.errors import UserError
from src.prepare import counts, treat

QUICK_MEGABYTES = 10  # larger sets are only located under quick=true


def check_data(names: list[str], root: Path, *, quick: bool) -> Iterator[Finding]:
    """One finding for each set that is there or was asked for; those that are absent share a line.

    Args:
        names: of the catalog; empty = all of it.
        root: the data folder.
        quick: look at the content of small sets only.
    """
    absent = []
    for card in (CATALOG[name] for name in names or CATALOG):
        finding = _look(card, root, quick=quick)
        if finding is None:
            absent.append(card)
        else:
            yield finding
    place = "" if str(root) == "data" else f" data.root={root}"
    if names:
        for card in absent:
            text = f"not in {root}: python -m src.prepare data={card.name}{place}"
            yield Finding(f"data {card.name}", "skipped", text)
    elif absent:
        listed = ", ".join(card.name for card in absent)
        yield Finding("data, others", "skipped", f"{listed} not in {root}: python -m src.prepare data=<name>{place}")


def _look(card: Card, root: Path, *, quick: bool) -> Finding | None:
    """The finding for one set; None where it is absent."""
    name = f"data {card.name}"
    # 0 = of unknown size, and those are large; the embedded digits have no files at all.
    if quick and card.marks and (card.disk > QUICK_MEGABYTES or not card.disk):
        try:
            locate(card, root)
        except Missing:
            return None
        except UserError as error:
            return Finding(name, "failed", str(error))
        return Finding(name, "ok", f"{counts(card)} images expected, its files are there, not read (quick=true)")
    outcome = treat(card, root, None, Console(stderr=True), check=True)
    if outcome.status in ("absent", "ask for it"):
        return None
    if outcome.status == "ready":
        return Finding(name, "ok", f"{counts(card)} images, {outcome.text}")
    return Finding(name, "failed", outcome.text)
