"""Which images belong together (a patient, a video, a plate): `data.group`, read from file names or from a table."""

from __future__ import annotations

import hashlib
import posixpath
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ssat.core.errors import UserError
from ssat.core.words import many, nearest
from ssat.data.sets import GROUP_TABLE
from ssat.data.sets.checks import listed
from ssat.data.sets.sources import Groups, ImageList, Source
from ssat.data.sets.table import read_table
from ssat.data.subsets import Indices

SHAPES = (
    "a folder level below the class folders (1), a regular expression with one"
    " group ('data.group=\"(video\\d+)\"' with all of these quotes) or file.csv:column"
)


Splits = Mapping[str, tuple[ImageList, Indices]]


@dataclass(frozen=True)
class Name:
    """A file's name: whole, below its data set's root, and below its class folder."""

    whole: str
    below: str


def grouped(source: Source, group: int | str | None) -> Source:
    """`source` with the groups of its images; without `group` as it is.

    One name is one group, in whatever class and split it occurs.

    Args:
        source: its images are files.
        group: a level (1 = the first folder below the class folder), a regular expression whose one capture group is
            found in the path below the class folder, or `<file.csv>:<column>`, a table that has a column of file names.

    Raises:
        UserError: `group` is none of these, or leaves an image without a group.
    """
    if group is None:
        return source
    group = str(group)
    lists = {split: images for split in ("train", "val", "test") if (images := getattr(source, split)) is not None}
    if any(images.root is None for images in lists.values()):
        raise _refusal(group, f"needs images in files, and those of data={source.name} have no names: leave it out")
    names = [name for images in lists.values() for name in _names(images)]
    found = _read(group, names, source)
    numbers = {name: number for number, name in enumerate(dict.fromkeys(found))}
    taken, parts = 0, {}
    for split, images in lists.items():
        here = np.array([numbers[name] for name in found[taken : taken + len(images)]], dtype=np.int64)
        parts[split] = replace(images, groups=Groups(here, tuple(numbers)))
        taken += len(images)
    return replace(source, **parts)


def refuse_shared(splits: Splits) -> None:
    """Refuse splits that share a group, which only folders of the user's own can.

    Raises:
        UserError: names the first such group.
    """
    for (one, other), shared in shared_groups(splits).items():
        raise UserError(
            f"data.group: {len(shared)} of the groups in {other} are in {one} as well, the first is {shared[0]!r}:"
            f" move each to one of the two, rename what only has the same name, or leave data.group out",
            key="data.group",
        )


def shared_groups(splits: Splits) -> dict[tuple[str, str], list[str]]:
    """The names of the groups that two splits share, by the names of the two."""
    present = {
        split: (np.unique(images.groups.numbers[indices]), images.groups.names)
        for split, (images, indices) in splits.items()
        if images.groups is not None
    }
    order = [split for split in ("train", "val", "test") if split in present]
    found: dict[tuple[str, str], list[str]] = {}
    for place, one in enumerate(order):
        for other in order[place + 1 :]:
            both = np.intersect1d(present[one][0], present[other][0])
            if len(both):
                found[one, other] = [present[one][1][number] for number in both.tolist()]
    return found


def groups_in(images: ImageList, indices: Indices) -> list[str]:
    """The sorted names of the groups of these images; [] where they have none."""
    if images.groups is None:
        return []
    return sorted(images.groups.names[number] for number in np.unique(images.groups.numbers[indices]).tolist())


def group_fingerprint(splits: Splits) -> dict[str, dict[str, int | str]]:
    """Groups of each split as a number, and as a SHA-256 of the group of every image; {} where there are none."""
    found: dict[str, dict[str, int | str]] = {}
    for split, (images, indices) in splits.items():
        if images.groups is None:
            continue
        names = "".join(f"{images.groups.names[number]}\0" for number in images.groups.numbers[indices].tolist())
        found.setdefault("groups", {})[split] = len(groups_in(images, indices))
        found.setdefault("group_sha256", {})[split] = hashlib.sha256(names.encode(errors="surrogateescape")).hexdigest()
    return found


def has_subfolders(source: Source) -> bool:
    """Whether training images lie in folders below their class folders."""
    images = source.train
    return bool(images.class_depth) and any(str(name).count("/") > images.class_depth for name in images.images)


def _names(images: ImageList) -> list[Name]:
    return [Name(str(name), str(name).split("/", images.class_depth)[-1]) for name in images.images]


def _refusal(group: str, text: str) -> UserError:
    return UserError(f"data.group={group} {text}", key="data.group", value=group)


def _read(group: str, names: Sequence[Name], source: Source) -> list[str]:
    if re.fullmatch(r"[+-]?\d+", group):
        return _by_level(group, names, source)
    table = GROUP_TABLE.fullmatch(group)
    if table:
        assert source.train.root is not None
        return _by_table(group, Path(table[1]).expanduser(), table[2] or "", names, source.train.root)
    return _by_pattern(group, names)


def _by_level(group: str, names: Sequence[Name], source: Source) -> list[str]:
    level = int(group)
    if level < 1:
        raise _refusal(group, f"is no folder level: 1 is the first folder below the class folder; it can be {SHAPES}")
    if not source.train.class_depth:
        raise _refusal(
            group, f"counts folders below class folders, and data={source.name} has none: name a file.csv:column"
        )
    folders = [name.below.split("/")[:-1] for name in names]
    lacking = [name.whole for name, above in zip(names, folders, strict=True) if len(above) < level]
    if lacking:
        deepest = max(map(len, folders))
        most = f"the deepest level is {deepest}" if deepest else "there are no folders below the class folders"
        raise _refusal(
            group,
            f"names the folder at level {level} below the class folder, and {many(len(lacking), 'file')}"
            f" {'does' if len(lacking) == 1 else 'do'} not lie that deep, the first is {lacking[0]!r} ({most}): name a"
            " level of all files, a regular expression or a table, or move what is no part of the data away",
        )
    return ["/".join(above[:level]) for above in folders]


def _by_pattern(group: str, names: Sequence[Name]) -> list[str]:
    try:
        pattern = re.compile(group)
    except (re.error, RecursionError, OverflowError) as error:
        raise _refusal(group, f"is not understood as a regular expression ({error}): it can be {SHAPES}") from None
    if pattern.groups != 1:
        has = f"{pattern.groups} capture groups" if pattern.groups else "no capture group"
        raise _refusal(
            group, f"is a regular expression with {has}: put the one part that names the group in ( ), others in (?: )"
        )
    matches = [pattern.search(name.below) for name in names]
    found = [match[1] if match else None for match in matches]
    lacking = [name for name, value in zip(names, found, strict=True) if not value]
    if lacking:
        raise _refusal(
            group,
            f"finds no group in the name{'s' * (len(lacking) > 1)} of {many(len(lacking), 'file')}, the first is"
            f" {lacking[0].below!r} (of {lacking[0].whole!r}): widen it, so that it matches every path below the class"
            " folder, or move what is no part of the data away",
        )
    return [value for value in found if value]


def _by_table(group: str, path: Path, column: str, names: Sequence[Name], root: Path) -> list[str]:
    try:
        header, rows = read_table(path)
    except ValueError as error:
        raise _refusal(group, str(error)) from None
    if column not in header:
        what = f"has no column {column!r}{nearest(column, header)}" if column else "names a table and no column"
        raise _refusal(group, f"{what}: write {path}:<column>, one of {listed(header, 12)}")
    if header.count(column) > 1:
        raise _refusal(group, f"is a table with {header.count(column)} columns {column!r}: rename all but one")
    value_at = header.index(column)
    images = _Images(names, root)
    counts = {
        place: sum(len(images.of(row[place])) == 1 for _, row in rows if place < len(row))
        for place in range(len(header))
        if place != value_at
    }
    name_at = max(counts, key=lambda place: counts[place], default=-1)
    if name_at < 0 or not any(images.of(row[name_at]) for _, row in rows if name_at < len(row)):
        raise _refusal(group, f"is a table without a column of file names: none of its columns has {names[0].whole!r}")
    for place in counts:
        other = next((row for _, row in rows if _disagree(images, row, name_at, place)), None)
        if place != name_at and other:
            raise _refusal(
                group,
                f"is a table whose columns {header[name_at]!r} and {header[place]!r} name different images,"
                f" {other[name_at]!r} and {other[place]!r} in one row: leave one of them out of the table",
            )
    found: dict[int, str] = {}
    for line, row in rows:
        hits = images.of(row[name_at]) if name_at < len(row) else []
        if not hits:
            continue  # a table may hold more than these images
        if len(hits) > 1:
            raise _refusal(
                group,
                f"has {row[name_at]!r} in line {line}, which is the name of {len(hits)} files, such as"
                f" {names[hits[0]].whole!r} and {names[hits[1]].whole!r}: write their paths below {str(root)!r}",
            )
        value = row[value_at].strip() if value_at < len(row) else ""
        if not value:
            raise _refusal(group, f"has no value in line {line}, for {row[name_at]!r}: fill it in")
        if found.setdefault(hits[0], value) != value:
            raise _refusal(
                group, f"gives {names[hits[0]].whole!r} two groups, {found[hits[0]]!r} and {value!r}: keep one"
            )
    lacking = [name.whole for number, name in enumerate(names) if number not in found]
    if lacking:
        raise _refusal(
            group,
            f"has no row for {many(len(lacking), 'file')}, the first is {lacking[0]!r} (its file names are in the"
            f" column {header[name_at]!r}): add rows, or move the files away",
        )
    return [found[number] for number in range(len(names))]


def _disagree(images: _Images, row: list[str], one: int, other: int) -> bool:
    ones, others = (images.of(row[place]) if place < len(row) else [] for place in (one, other))
    return len(ones) == len(others) == 1 and ones != others


class _Images:
    """Images by the ways in which a table may write their names, the most exact first."""

    def __init__(self, names: Sequence[Name], root: Path) -> None:
        self.forms: list[dict[str, list[int]]] = [{} for _ in range(7)]
        for number, name in enumerate(names):
            stem, base = posixpath.splitext(name.whole)[0], posixpath.basename(name.whole)
            split_less = name.whole.split("/", 1)[-1]  # train/cat/1.jpg as cat/1.jpg
            written = (
                name.whole,
                posixpath.normpath(f"{root.as_posix()}/{name.whole}"),
                split_less,
                name.below,
                base,
                stem,
                posixpath.splitext(base)[0],
            )
            for form, text in zip(self.forms, written, strict=True):
                form.setdefault(text, []).append(number)

    def of(self, cell: str) -> list[int]:
        """The numbers of the images that `cell` may mean."""
        text = cell.strip().replace("\\", "/")
        if not text:
            return []
        text = posixpath.normpath(text)
        return next((form[text] for form in self.forms if text in form), [])
