"""Fetch and check the paper's data sets, check your own. python -m src.prepare data=<name|all> [--check|--show]"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.table import Table

from ssat.config.command_line import explain, fail
from ssat.config.words import as_typed_here, command_line
from ssat.core import interrupts
from ssat.core.errors import UserError
from ssat.core.options import read_options
from ssat.core.terminal import Console
from ssat.core.words import nearest
from ssat.data.sets.card import Card
from ssat.data.sets.catalog import CATALOG
from ssat.data.sets.checks import Missing, locate
from ssat.data.sets.download import Report
from ssat.data.sets.obtain import obtain, verify
from ssat.data.sets.sources import Source
from ssat.data.video import SETS

USAGE = f"""\
python -m src.prepare data=<name|all> [data.root=<folder>] [mirror=<address>] [--check|--show]

Downloads a data set, checks it and puts it where `python -m src.train data=<name>` looks for it; what is there is kept,
a broken download goes on. ImageNet and Chaoyang must be asked for: the command says where, and unpacks ImageNet's tars.

  data=<name>       {", ".join(CATALOG)}, or all
  data.root=data    folder of the data sets
  mirror=<address>  http(s):// or file:// folder that holds the files under their own names
  --show            draw what training sees (both pipelines) and the images of each class, as one PNG; every override
                    of src.train is possible: data=image_folder data.root=my_images recipe.augment.re_prob=0
  --check           download nothing; compare what is there with the official counts and hashes
  --check data=image_folder data.root=<folder> [--json]
                    look at every image of yours: unreadable files, duplicates in and across splits, classes that a
                    split lacks, files that are not read, sizes, groups on two sides (data.group); every override of
                    src.train is possible; exit code 0 = clean, 1 = findings, 2 = a mistake. data=csv, data=hf likewise
  data=ffpp|dfdc|dfdcp|video_folder data.raw=<folder>
                    find and crop the faces of videos; data=ffpp --help says more
  --help            this text
"""
OWN = ("image_folder", "csv", "hf")  # images that nobody has counted before
LINE_EVERY = 10.0  # seconds between two lines of progress when the output is no terminal
PIPE_WIDTH = 160  # of the table then


@dataclass(frozen=True)
class Outcome:
    """How it stands with a data set: ready, absent, ask for it, wrong (found so), or failed (to be prepared)."""

    card: Card
    status: str
    text: str
    source: Source | None = None


KEYS = {"data": "<name>", "data.root": "<folder>", "mirror": "<address>"}


def _of_videos(words: list[str]) -> bool:
    return any(f"data={name}" in words for name in SETS)


def parse(words: list[str]) -> dict[str, str]:
    """The command line as {'data': ..., 'data.root': ..., 'mirror': ..., '--check': ''}.

    Raises:
        UserError: an unknown word, a key without a value or a value that is not possible.
    """
    for own in OWN:
        if {"--check", f"data={own}"} <= {*words} and {"--help", "-h"}.isdisjoint(words):
            return {"data": own, "--check": ""}  # its other words are overrides, read by check_data
    if _of_videos(words):
        from ssat.commands.prepare_videos import read_words  # it needs torch

        values, flags = read_words(words)
        return values | dict.fromkeys(flags, "")
    aliases = {"root": "data.root", "-h": "--help"}
    options, flags, _ = read_options(words, KEYS, names=("--check", "--help"), aliases=aliases)
    options |= dict.fromkeys(flags, "")
    name = options.get("data")
    if name in OWN:
        raise UserError(
            f"data={name} is your own choice of images: there is nothing to prepare, --check looks for what is wrong"
            " with them (see docs/datasets.md)"
        )
    if name not in (None, "all", *CATALOG):
        names = [*CATALOG, *SETS]
        raise UserError(f"data={name} does not exist{nearest(str(name), names)}; it can be: {', '.join(names)}, all")
    mirror = options.get("mirror")
    if mirror is not None and not mirror.startswith(("http://", "https://", "file://")):
        raise UserError(f"mirror={mirror!r} is no address: begin it with https://, http:// or file://")
    if name is None and "--help" not in options:
        raise UserError("say which data set: data=<name>, or data=all (--help lists them)")
    return options


def treat(card: Card, root: Path, mirror: str | None, console: Console, *, check: bool) -> Outcome:
    """Prepare or check one data set; its errors become an outcome."""
    try:
        if check:
            source, text = verify(card, root)
        else:
            source, text = obtain(card, root, mirror=mirror, meter=lambda title: shown(title, console)), card.note
    except Missing as error:
        return Outcome(card, "ask for it" if card.request else "absent", str(error))
    except UserError as error:
        return Outcome(card, "wrong" if check else "failed", str(error))
    return Outcome(card, "ready", text, source)


def fetch_missing(name: str, root: Path) -> None:
    """Download the set of that name if it may be downloaded and is not there; for a training command that needs it."""
    card = CATALOG.get(name)
    if card is None or card.request or not card.downloads:
        return
    try:
        locate(card, root)
    except Missing:
        console = Console(highlight=False, stderr=True)
        console.print(f"{card.title} is not in {root}: downloading it first ({card.download_megabytes:,.0f} MB)")
        obtain(card, root, mirror=None, meter=lambda title: shown(title, console))


@contextmanager
def shown(title: str, console: Console) -> Iterator[Report]:
    """A progress bar in a terminal, a line now and then elsewhere."""
    if console.is_terminal:
        columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
        with Progress(TextColumn("{task.description}"), *columns, console=console) as progress:
            task = progress.add_task(title, total=None)
            yield lambda done, total: progress.update(task, completed=done, total=total)
        return
    begun = last = time.monotonic()

    def line(done: int, total: int | None) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= LINE_EVERY or (done == total and now - begun >= LINE_EVERY):
            last = now
            of = f" of {total / 1e6:,.0f}" if total else ""
            console.print(f"{title}: {done / 1e6:,.0f}{of} MB after {now - begun:.0f} s", soft_wrap=True)

    yield line


def counts(card: Card) -> str:
    """'1,437 / 360', or with a validation split '4,708 + 524 / 624'."""
    train = f"{card.train:,}" if card.val is None else f"{card.train:,} + {card.val:,}"
    return f"{train} / {card.test:,}"


def advice(outcome: Outcome) -> str:
    """What to do, short where the command for the one set says more."""
    command = command_line("prepare", [f"data={outcome.card.name}"])
    if outcome.status == "ask for it":
        return f"{command} says where"
    if outcome.status == "absent":
        return f"{command} ({outcome.card.download_megabytes:,.0f} MB)"
    return outcome.text


def table(outcomes: list[Outcome], root: Path) -> Table:
    """One row per data set."""
    result = Table(box=None, pad_edge=False)
    for title in ("data", "status", "train (+ val) / test", "path", "what to do"):
        result.add_column(title, overflow="fold")
    for outcome in outcomes:
        card = outcome.card
        path = str(locate(card, root)) if outcome.source is not None and card.marks else ""
        result.add_row(card.name, outcome.status, counts(card), path, advice(outcome))
    return result


def prepare(words: list[str]) -> int:
    """The command; returns its exit code.

    Raises:
        UserError: the command line is wrong, or the one set that was asked for is not ready.
    """
    if "--show" in words:
        # Only here: it loads what training loads.
        from ssat.commands.contact_sheet import show

        print(f"wrote {show([word for word in words if word != '--show'])}")
        return 0
    if _of_videos(words):
        from ssat.commands.prepare_videos import prepare_videos  # it needs torch

        return prepare_videos(words)
    options = parse(words)
    if "--help" in options:
        print(as_typed_here(USAGE), end="")
        return 0
    if options["data"] in OWN:
        from ssat.commands.check_data import check as check_own

        return check_own(words)
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = PIPE_WIDTH
    check, root = "--check" in options, Path(options.get("data.root", "data")).expanduser()
    cards = list(CATALOG.values()) if options["data"] == "all" else [CATALOG[options["data"]]]
    outcomes = [treat(card, root, options.get("mirror"), console, check=check) for card in cards]
    if len(outcomes) == 1 and outcomes[0].status != "ready":
        raise UserError(outcomes[0].text)
    console.print(table(outcomes, root))
    return 2 if any(outcome.status in ("wrong", "failed") for outcome in outcomes) else 0


def main() -> None:
    """The command."""
    try:
        raise SystemExit(prepare(sys.argv[1:]))
    except UserError as error:
        fail(str(error))
    except (HydraException, OmegaConfBaseException) as error:
        fail(explain(error, "train"))
    except KeyboardInterrupt:
        interrupts.last_word("the same command goes on from what has been downloaded")
        raise SystemExit(130) from None
