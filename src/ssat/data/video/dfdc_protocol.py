"""Splits of the Deepfake Detection Challenge set, whose actors are in no list: by part, or by original."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from ssat.core.errors import UserError
from ssat.core.words import many
from ssat.data.video.layouts.dfdc import part_number
from ssat.data.video.layouts.tree import read_table, stem
from ssat.data.video.manifest import Entry
from ssat.data.video.sides import TEST, TRAIN, VAL, Splits, separated, without_held

VAL_PARTS, TEST_PARTS = range(45, 50), range(40, 45)
FEWEST_PARTS = 5
SHARE = 0.1  # of the parts, or of the originals, for val and for test, where the usual parts are not there


def dfdc_splits(
    entries: Sequence[Entry],
    *,
    val_parts: Sequence[int] | None = None,
    test_parts: Sequence[int] | None = None,
    identity_csv: str | Path | None = None,
) -> Splits:
    """Splits of DFDC by part: val is parts 45 to 49, test the official test set.

    Without the official test (`test/labels.csv`), test is parts 40 to 44. The official validation set, if it is there,
    is a further test, official_val. Where the usual parts are not there, the last tenths of the parts take their place;
    with fewer than five parts the originals, each with its fakes, are split by a hash of their names.

    Args:
        entries: rows of a manifest.
        val_parts: numbers of parts; None = as above.
        test_parts: likewise; the official test set is then official_test.
        identity_csv: a table with the columns video_id (or file name) and identity. Training videos of a person who is
            in val or test are left out, and val videos of one who is in test.

    Raises:
        UserError: a part is not there or in both lists, a table is damaged, or a group is on two sides.
    """
    entries, remarks = _united(entries, identity_csv)
    pool = [row for row in entries if row.split not in ("test", "val")]
    official = [row for row in entries if row.split == "test"]
    sides: dict[str, list[Entry]] = {}
    if official:
        sides["official_test" if test_parts is not None else TEST] = official
    if official_val := [row for row in entries if row.split == "val"]:
        sides["official_val"] = official_val
    numbers = sorted({number for row in pool if (number := part_number(row.part)) is not None})
    by_part = val_parts is not None or test_parts is not None or len(numbers) >= FEWEST_PARTS
    if by_part:
        val, test = _parts(numbers, val_parts, test_parts, bool(official), remarks)
        for row in pool:
            number = part_number(row.part)
            side = VAL if number in val else TEST if number in test else TRAIN
            sides.setdefault(side, []).append(row)
    elif pool:
        remarks.append(
            f"there are {len(numbers)} training parts, fewer than {FEWEST_PARTS}: the originals are split with their"
            " fakes, and an actor may be on two sides"
        )
        groups = sorted({row.group_id for row in pool if row.status != "missing"}, key=_hash)
        share = max(1, round(SHARE * len(groups)))
        test_groups = set(groups[:share]) if not official else set()
        val_groups = set(groups[len(test_groups) : len(test_groups) + share])
        for row in pool:
            side = TEST if row.group_id in test_groups else VAL if row.group_id in val_groups else TRAIN
            sides.setdefault(side, []).append(row)
    ordered = {name: sides.pop(name, []) for name in (TRAIN, VAL, TEST)} | sides
    return separated(without_held(ordered, remarks) if identity_csv else ordered, remarks=remarks)


def _hash(group: str) -> str:
    return hashlib.sha256(group.encode()).hexdigest()


def _parts(
    numbers: Sequence[int],
    val_parts: Sequence[int] | None,
    test_parts: Sequence[int] | None,
    has_test: bool,
    remarks: list[str],
) -> tuple[set[int], set[int]]:
    for key, asked in (("data.val_parts", val_parts), ("data.test_parts", test_parts)):
        if absent := sorted(set(asked or ()) - set(numbers)):
            there = ", ".join(map(str, numbers)) or "none"
            text = f"{key} names part {absent[0]}, which is not prepared: choose from {there}"
            raise UserError(text, key=key, value=list(asked or ()))
    if both := sorted(set(val_parts or ()) & set(test_parts or ())):
        text = f"data.val_parts and data.test_parts both have part {both[0]}: remove it from one"
        raise UserError(text, key="data.val_parts", value=list(val_parts or ()))
    free = [number for number in numbers if number not in {*(val_parts or ()), *(test_parts or ())}]
    val, test = set(VAL_PARTS) & set(free), set(TEST_PARTS) & set(free)
    needs_val, needs_test = val_parts is None, test_parts is None and not has_test
    if (needs_val and not val) or (needs_test and not test):
        share = math.ceil(SHARE * len(numbers))
        val = set(free[-share:]) if needs_val and len(free) > share else set()
        rest = [number for number in free if number not in val]
        test = set(rest[-share:]) if needs_test and len(rest) > share else set()
        told = [f"{name} is part {_told(parts)}" for name, parts in ((VAL, val), (TEST, test)) if parts]
        remarks.append(f"parts 40 to 49 are not all there: {', '.join(told) or 'nothing is left for val and test'}")
    return val if needs_val else set(val_parts or ()), test if needs_test else set(test_parts or ())


def _told(parts: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(parts)))


def _united(entries: Sequence[Entry], table: str | Path | None) -> tuple[list[Entry], list[str]]:
    """`entries` with the groups of one identity made one, and remarks."""
    if table is None:
        return list(entries), []
    path = Path(table).expanduser()
    names: dict[str, list[Entry]] = {}
    for entry in entries:
        for name in {entry.video_id, entry.path, stem(entry.path), entry.path.rpartition("/")[2]}:
            names.setdefault(name, []).append(entry)
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        while (above := parent.setdefault(name, name)) != name:
            parent[name] = parent[above]
            name = parent[name]
        return name

    unknown = 0
    cure = "correct it, or leave data.identity_csv out"
    for line, row in read_table(path, ["video_id", "identity"], key="data.identity_csv", cure=cure):
        if not row["identity"]:
            text = f"data.identity_csv={table} line {line} has no identity for {row['video_id']!r}: fill it in"
            raise UserError(text, key="data.identity_csv", value=str(table))
        unknown += row["video_id"] not in names
        for entry in names.get(row["video_id"], ()):
            one, other = sorted((root(f"group {entry.group_id}"), root(f"person {row['identity']}")))
            parent[other] = one
    united = [replace(entry, group_id=root(f"group {entry.group_id}").removeprefix("group ")) for entry in entries]
    return united, [f"{path.name} names {many(unknown, 'video')} not among the prepared"] if unknown else []
