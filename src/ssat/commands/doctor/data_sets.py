"""The data sets that are there: by the code of `python -m src.prepare --check`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ssat.commands.doctor.finding import Finding
from ssat.commands.prepare import counts, treat
from ssat.config.words import command_line
from ssat.core.errors import UserError
from ssat.core.terminal import Console
from ssat.data.sets.card import Card
from ssat.data.sets.catalog import CATALOG
from ssat.data.sets.checks import Missing, locate

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
            text = f"not in {root}: {command_line('prepare')} data={card.name}{place}"
            yield Finding(f"data {card.name}", "skipped", text)
    elif absent:
        listed = ", ".join(card.name for card in absent)
        text = f"{listed} not in {root}: {command_line('prepare')} data=<name>{place}"
        yield Finding("data, others", "skipped", text)


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
