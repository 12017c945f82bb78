"""Labels that tell groups of runs apart by the settings in which they differ, as they were run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from ssat.results.text import shorten
from ssat.runs.settings import START

MOST = 3  # settings of a label, unless more are needed to tell two groups apart
WIDTH = 36  # characters of a setting
# A key that only another one reads: the encoder's is what was run, whatever the data's says.
PHASES, SOURCE = "mode.phases.", "data.source."  # most keys below them repeat another one
MISSING = "(not there)"  # no value's repr begins so
REPLACED_BY = {"data.patch_size": "encoder.patch_size", "data.root": "data.source.root"}


def distinct_labels(groups: Sequence[Mapping[str, Any]], *, skip: tuple[str, ...] = ()) -> list[str]:
    """For each group the settings in which it differs from the others: lam=0.5, mask_ratio=0.6.

    Two groups of different settings never have the same label.

    Args:
        groups: the settings of each group by dotted key.
        skip: beginnings of keys that are left out.
    """
    keys = _differing(groups, skip)
    first = [key for key in keys if not _is_replaced(key, groups)]
    shown = first[:MOST]
    for key in [*first[MOST:], *(key for key in keys if key not in first)]:
        if _tells_apart(key, shown, groups):
            shown.append(key)
    names, more = _names(shown), len(first) - len([key for key in shown if key in first])
    texts = {key: _shortened([group.get(key) for group in groups]) for key in shown}
    labels = []
    for index, group in enumerate(groups):
        listed = [f"{names[key]}={texts[key][index]}" for key in shown if key in group]
        labels.append(", ".join(listed + [f"and {more} more"] * (more > 0 and bool(listed))))
    return labels


def _differing(groups: Sequence[Mapping[str, Any]], skip: tuple[str, ...]) -> list[str]:
    keys = sorted({key for group in groups for key in group if not key.startswith(skip)})
    values = {key: [_mark(group, key) for group in groups] for key in keys}
    found = [key for key in keys if len(set(values[key])) > 1]
    repeating = [key for key in found if key.startswith((PHASES, SOURCE, START)) and key not in REPLACED_BY.values()]
    said = {(key.rpartition(".")[2], *values[key]) for key in found if key not in repeating}
    return [key for key in found if key not in repeating or (key.rpartition(".")[2], *values[key]) not in said]


def _mark(group: Mapping[str, Any], key: str) -> str:
    """The value as a text that no other value has; a key that is null is not one that is not there."""
    return repr(group[key]) if key in group else MISSING


def _is_replaced(key: str, groups: Sequence[Mapping[str, Any]]) -> bool:
    """Whether another key says what was run in every group."""
    return key in REPLACED_BY and all(REPLACED_BY[key] in group for group in groups)


def _tells_apart(key: str, shown: Sequence[str], groups: Sequence[Mapping[str, Any]]) -> bool:
    """Whether `key` differs between two groups that are the same in all of `shown`."""
    seen: dict[str, str] = {}
    for group in groups:
        value = _mark(group, key)
        if seen.setdefault(repr([_mark(group, each) for each in shown]), value) != value:
            return True
    return False


def _names(keys: Sequence[str]) -> dict[str, str]:
    """The last word of each key; the whole key where two end alike, or where it says what was not run."""
    leaves = {key: key.rpartition(".")[2] for key in keys}
    counts = Counter(leaves.values())
    return {key: key if counts[leaf] > 1 or key in REPLACED_BY else leaf for key, leaf in leaves.items()}


def _shortened(values: Sequence[Any]) -> list[str]:
    """The values as short texts; those that differ stay different: of a path the end is kept."""
    texts = ["null" if value is None else str(value) for value in values]
    if len({*texts}) < len({*map(repr, values)}):  # the text 0.5 beside the number
        texts = [repr(value) for value in values]
    for short in (shorten, _end_of):
        found = [short(text, WIDTH) for text in texts]
        pairs = combinations(zip(texts, found, strict=True), 2)
        if all(a == b or short_a != short_b for (a, short_a), (b, short_b) in pairs):
            return found
    return texts


def _end_of(text: str, most: int) -> str:
    return text if len(text) <= most else "…" + text[1 - most :]
