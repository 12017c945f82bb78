"""Checks images of the user's own: python -m src.prepare --check data=image_folder data.root=<folder> [--json]"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ssat.config.create import checked_options
from ssat.config.overrides import composed
from ssat.config.resolve import resolve
from ssat.core.terminal import Console
from ssat.core.words import printable
from ssat.data.audit import Audit, Copies, audit, imbalance
from ssat.data.image import ImageDataModule
from ssat.data.overview import said_not_read
from ssat.data.sets import SOURCES
from ssat.data.sets.checks import listed
from ssat.data.sets.folder import any_folder
from ssat.training.data import build_images

LIMITS = (
    "the search for near duplicates finds copies of another size, quality, brightness or contrast; it misses those that"
    " are cropped, mirrored or turned, and some of those so bright or dark that parts have lost their shades"
)
SETS, CLASSES = 20, 30  # at most in the text
LINE_EVERY = 10.0  # seconds between two lines of progress when the output is no terminal


def check(words: list[str]) -> int:
    """Print the report; returns 0 if there is nothing to say, else 1.

    Args:
        words: overrides as of src.train, and `--json`.

    Raises:
        UserError: a word is wrong, or the images cannot be split as it asks.
    """
    data = own_data([word for word in words if word not in ("--check", "--json")])
    # What training would leave out is what the check is for.
    splits, _ = replace(data.choice, on_bad_image="error").splits(data.source)
    with counted(sum(len(indices) for _, indices in splits.values())) as progress:
        found = audit(data.source, splits, progress)
    found = replace(found, overview=replace(found.overview, values=data.range_remarks()))
    findings = found_in(found)
    if "--json" in words:
        print(json.dumps(asdict(found) | {"findings": findings}, indent=1))
    else:
        for line in report(data, found, findings):
            print(printable(line))
    return 1 if findings else 0


def own_data(overrides: list[str]) -> ImageDataModule:
    """The data of a training command; in an image folder a split may lack classes."""
    config = resolve(composed(overrides))
    part, source = config.data.source, None
    if part.kind == "image_folder" and not config.data.multi_label:
        options = checked_options(SOURCES, part.kind, part.options, "data.source")
        source = any_folder(options["root"], options.get("classes"))
    return build_images(config, config.mode.phases[-1], source)


@contextmanager
def counted(total: int) -> Iterator[Callable[[int], None]]:
    """On stderr a progress bar in a terminal, a line now and then elsewhere."""
    console = Console(highlight=False, stderr=True)
    if console.is_terminal:
        columns = (TextColumn("reading images"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console, transient=True) as progress:
            task = progress.add_task("", total=total)
            yield lambda done: progress.update(task, completed=done)
        return
    last = time.monotonic()

    def line(done: int) -> None:
        nonlocal last
        if time.monotonic() - last >= LINE_EVERY:
            last = time.monotonic()
            print(f"reading images: {done:,} of {total:,}", file=sys.stderr, flush=True)

    yield line


def found_in(found: Audit) -> list[str]:
    """One sentence for each kind of finding."""
    counts = found.overview
    sentences = []
    if found.unreadable:
        sentences.append(f"{_many(len(found.unreadable), 'file')} cannot be read")
    sentences += [_said("exact duplicates", found.exact)] if found.exact else []
    sentences += [_said("near duplicates", found.suspect_near)] if found.suspect_near else []
    sentences += [f"{split} has no image of class {listed(names)}" for split, names in counts.lacking.items()]
    if counts.not_read:
        sentences.append(said_not_read(counts.not_read))
    sentences += counts.values
    for between, names in found.shared.items():
        sentences.append(f"{_many(len(names), 'group')} in both {between}: {listed(names)}")
    return sentences


def _many(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'s' * (count != 1)}"


def _said(kind: str, copies: list[Copies]) -> str:
    across = [one for one in copies if len(one.splits) > 1]
    labels = [one for one in copies if len(one.classes) > 1]
    images = sum(len(one.images) for one in copies)
    said = f"{kind}: {_many(len(copies), 'set')} of {images:,} images, {len(across):,} across splits"
    return f"{said}, {len(labels):,} with different classes" if labels else said


def report(data: ImageDataModule, found: Audit, findings: list[str]) -> Iterator[str]:
    """The lines of the text."""
    counts = found.overview
    root = data.source.train.root
    kind = "labels" if data.multi_label else "classes"
    yield f"{data.source.name}{f' in {root}' if root is not None else ''}: {data.num_classes:,} {kind}"
    for split in (name for name in ("train", "val", "test") if name in counts.counts):
        of_class = counts.counts[split]
        total = counts.total.get(split, sum(of_class.values()))
        groups = f" in {_many(counts.groups[split], 'group')}" if split in counts.groups else ""
        ratio = imbalance(of_class)
        what = "label" if data.multi_label else "class"
        uneven = f"largest {what} / smallest {ratio:.1f}" if ratio else f"a {what} has no image"
        if counts.without.get(split):
            uneven += f", {counts.without[split]:,} without a label"
        yield f"\n{split}: {_many(total, 'image')}{groups}, {uneven}"
        ranked = sorted(of_class.items(), key=lambda item: -item[1])
        shown = ranked if len(ranked) <= CLASSES else [*ranked[: CLASSES // 2], *ranked[-CLASSES // 2 :]]
        for name, count in shown:
            yield f"  {count:>9,}  {name}"
        if len(ranked) > len(shown):
            yield f"  (the largest and the smallest {CLASSES // 2} of {len(ranked):,} classes)"
    if "val" not in counts.counts and "test" not in counts.counts:
        yield "\nno validation or test images: data.val_fraction=0.2 keeps some apart, here and in training"
    yield ""
    for side, values in found.sizes.items():
        if values:
            yield f"{side}: {values[0]:,.0f} / {values[1]:,.0f} / {values[2]:,.0f} pixels (least / median / greatest)"
    if found.unreadable:
        yield f"\n{_many(len(found.unreadable), 'file')} cannot be read:"
        yield from (f"  {name}: {fault}" for name, fault in found.unreadable)
    yield from _sets("exact duplicates (the same bytes)", found.exact)
    yield from _sets("near duplicates (close perceptual hashes; look at them)", found.suspect_near)
    yield f"\n{LIMITS}"
    if expected := len(found.near) - len(found.suspect_near):
        yield f"\nnear duplicates inside one group and split, which is as it should be: {_many(expected, 'set')}"
    if not found.near_is_complete:
        yield "\nso many images look alike that each was compared with the nearest 100 only"
    if counts.not_read:
        yield "\nfiles that are not read:"
        for name, kinds in counts.not_read.items():
            yield f"  {name}: " + ", ".join(f"{count:,} {kind}" for kind, count in kinds.items())
    if counts.subfolders:
        yield (
            "\nnote: images lie in folders below the class folders and are split one by one; if a folder is one patient"
            " or one video, data.group=1 keeps it on one side"
        )
    yield ""
    yield from (f"finding: {sentence}" for sentence in findings)
    if not findings:
        yield "clean: nothing found"


def _sets(title: str, copies: list[Copies]) -> Iterator[str]:
    if not copies:
        return
    yield f"\n{title}: {_many(len(copies), 'set')}"
    for one in copies[:SETS]:
        shown = [f"{name} ({split})" for split, name in one.images[:4]]
        rest = f" and {len(one.images) - 4} more" if len(one.images) > 4 else ""
        mark = " [different classes]" if len(one.classes) > 1 else ""
        yield f"  {' = '.join(shown)}{rest}{mark}"
    if len(copies) > SETS:
        yield f"  and {_many(len(copies) - SETS, 'set')} more (--json lists all)"
