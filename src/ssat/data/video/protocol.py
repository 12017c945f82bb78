"""From the rows of a manifest to the splits of a training, by the protocol of each set. Pure functions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from ssat.core.errors import UserError
from ssat.data.group_subsets import Stratified
from ssat.data.sets.checks import listed
from ssat.data.sets.sources import Groups, ImageList
from ssat.data.subsets import SPLIT, TEST_STREAM
from ssat.data.video.dfdc_protocol import dfdc_splits
from ssat.data.video.ffpp_splits import METHODS, ORIGINAL, TABLE_13, check_method, choose_level
from ssat.data.video.layouts.index import Count
from ssat.data.video.manifest import USABLE, Entry
from ssat.data.video.sides import TEST, TRAIN, VAL, Splits, refuse_leaks, refuse_untrainable, separated, without_held

__all__ = [
    "Splits",
    "dfdc_splits",
    "dfdcp_splits",
    "ffpp_splits",
    "folder_splits",
    "refuse_leaks",
    "refuse_untrainable",
    "table13",
]


def ffpp_splits(
    entries: Sequence[Entry],
    *,
    held_out: str | None = None,
    methods: Sequence[str] | None = None,
    level: str | None = None,
) -> Splits:
    """The official splits of FaceForensics++; with `held_out` the cross-manipulation protocol of sec. 5.4.

    train and val have the originals and the fakes of all methods but `held_out`. test has the originals and the fakes
    of `held_out`, and in_domain those of the other methods. Without `held_out` test has all methods, and
    test_<method> the originals and one of them: the zero-shot tests of a network that was trained on another set.

    Args:
        entries: rows of a manifest.
        held_out: a method that is in test only.
        methods: to train on; None = those of the paper's four that are there.
        level: raw (or c0), c23 or c40; None = c23 where there are several, else the one that there is.

    Raises:
        UserError: a method or level is not there, nothing is left to train on, or an identity is on two sides.
    """
    if not entries:
        raise UserError("the manifest of FaceForensics++ has no video: prepare the videos again", key="data.root")
    level = choose_level({entry.level for entry in entries}, level, "the prepared videos")
    rows = [entry for entry in entries if entry.level == level]
    trained, remarks = _methods(rows, methods, held_out)

    def of(split: str, names: Iterable[str]) -> list[Entry]:
        wanted = {ORIGINAL, *names}
        return [row for row in rows if row.split == split and row.method in wanted]

    sides = {TRAIN: of("train", trained), VAL: of("val", trained)}
    if held_out:
        sides |= {TEST: of("test", [held_out]), "in_domain": of("test", trained)}
    else:
        sides |= {TEST: of("test", trained)} | {f"test_{name}": of("test", [name]) for name in trained}
    # Of all four where none is named: a set without one of them is not complete.
    counts = table13(rows, [*(methods or METHODS), *([held_out] if held_out else [])])
    counts = [count for count in counts if count.method != held_out or count.split == "test"]
    short = sum(count.missing for count in counts)
    if short:
        total = sum(count.expected or 0 for count in counts)
        remarks.append(f"{short:,} of the {total:,} videos of the official splits are not there or cannot be used")
    return separated(sides, counts=counts, remarks=remarks)


def table13(entries: Sequence[Entry], methods: Sequence[str] = METHODS) -> list[Count]:
    """Videos of FaceForensics++ that Table 13 expects and that can be used, by split and method.

    Args:
        entries: rows of a manifest, of one level.
        methods: beside the originals.
    """
    usable = Counter((entry.split, entry.method) for entry in entries if entry.status in USABLE)
    level = entries[0].level if entries else ""
    return [
        Count(split, method, level, expected, usable[split, method])
        for split, expected in TABLE_13.items()
        for method in dict.fromkeys([ORIGINAL, *methods])
    ]


def _methods(rows: Sequence[Entry], methods: Sequence[str] | None, held_out: str | None) -> tuple[list[str], list[str]]:
    """The methods to train on, and remarks."""
    there = {row.method for row in rows if row.split}
    asked = [("data.held_out", held_out)] * bool(held_out) + [("data.methods", name) for name in methods or ()]
    for key, name in asked:
        check_method(str(name), key)
        if name not in there:
            what = "has no official split" if name == "DeepFakeDetection" else "has no prepared video"
            others = f"there are {listed(sorted(there - {ORIGINAL}))}" if there - {ORIGINAL} else "there is none"
            text = f"{key}={name} {what} at this level, {others}: choose another or prepare it"
            raise UserError(text, key=key, value=name)
    chosen = list(dict.fromkeys(methods or [name for name in METHODS if name in there]))
    trained = [name for name in chosen if name != held_out]
    if not trained:
        text = f"data.held_out={held_out} leaves no method to train on" if held_out else "no method is prepared"
        raise UserError(f"{text}: add one to data.methods, or prepare more", key="data.held_out", value=held_out)
    absent = [name for name in METHODS if name not in there] if methods is None else []
    return trained, [f"no video of {', '.join(absent)} is prepared: the splits go without"] if absent else []


def dfdcp_splits(entries: Sequence[Entry], *, val_fraction: float = 0.1, seed: int = 0) -> Splits:
    """The official train and test sets of the DFDC preview; val is whole subjects of train.

    Training videos of a subject who is in test as well are left out.

    Raises:
        UserError: val_fraction is outside [0, 1), or the subjects cannot be split.
    """
    remarks: list[str] = []
    sides = {name: [row for row in entries if row.split == name] for name in (TRAIN, VAL, TEST)}
    sides = without_held(sides, remarks)
    return folder_splits(
        [row for rows in sides.values() for row in rows],
        val_fraction=val_fraction,
        test_fraction=0.0,
        seed=seed,
        remarks=remarks,
    )


def folder_splits(
    entries: Sequence[Entry],
    *,
    val_fraction: float = 0.0,
    test_fraction: float = 0.0,
    seed: int = 0,
    remarks: Sequence[str] = (),
) -> Splits:
    """Splits of the user's own videos: its folders train, val and test; what lacks is taken from train by whole groups.

    Args:
        entries: rows of a manifest.
        val_fraction: share of the training videos, without those for test, for val; not used where there is val/.
        test_fraction: share of the training videos for test, 1 = all; not used where there is test/.
        seed: of the choice, which is stratified by class.
        remarks: what there is to say already.

    Raises:
        UserError: a fraction is outside its range, whole groups cannot give it, or a group is in two of the folders.
    """
    notes = list(remarks)
    sides = {name: [row for row in entries if row.split == name] for name in (VAL, TEST)}
    train = [row for row in entries if row.split not in sides]
    for name, fraction, stream in ((TEST, test_fraction, TEST_STREAM), (VAL, val_fraction, SPLIT)):
        key = f"{name}_fraction"
        if sides[name] and fraction:
            notes.append(f"the set has its own {name} split: data.{key} is not used")
        elif fraction == 1 and name == TEST:
            train, sides[name] = [], train
        elif fraction and train:
            train, sides[name] = _taken(train, fraction, seed, key=key, stream=stream)
    return separated({TRAIN: train, VAL: sides[VAL], TEST: sides[TEST]}, remarks=notes)


def _taken(
    rows: Sequence[Entry], fraction: float, seed: int, *, key: str, stream: int
) -> tuple[list[Entry], list[Entry]]:
    """`rows` without and with a share of them: whole groups, stratified by class."""
    rows = sorted(rows, key=lambda row: row.video_id)
    names = {name: number for number, name in enumerate(dict.fromkeys(row.group_id for row in rows))}
    labels = np.array([row.label for row in rows], dtype=np.int64)
    groups = Groups(np.array([names[row.group_id] for row in rows], dtype=np.int64), tuple(names))
    images = ImageList([row.path for row in rows], labels, groups=groups)
    classes = {row.label: row.method for row in rows}
    if rows[0].dataset != "video_folder":
        classes = {0: "real", 1: "fake"}
    known = [classes.get(label, str(label)) for label in range(max(classes) + 1)]
    chosen = Stratified(images, np.arange(len(rows)), known, noun="videos")
    kept, taken = chosen.split(fraction, seed, key=key, stream=stream)
    return [rows[index] for index in kept.tolist()], [rows[index] for index in taken.tolist()]
