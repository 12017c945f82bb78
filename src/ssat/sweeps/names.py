"""What a sweep varies, as part of its runs' names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ssat.config.identity import NEUTRAL
from ssat.config.schema import Run
from ssat.sweeps.jobs import key_of


def swept_keys(jobs: Sequence[Sequence[str]]) -> list[str]:
    """The keys that differ between the jobs' overrides and change what a run computes, in the order of the words."""
    values: dict[str, set[str]] = {}
    for words in jobs:
        for word in words:
            values.setdefault(key_of(word), set()).add(_value(word))
    having = Counter(key for words in jobs for key in {key_of(word) for word in words})
    neutral = tuple(f"{key}." for key in NEUTRAL)
    return [
        key
        for key, found in values.items()
        if (len(found) > 1 or having[key] < len(jobs))
        and not f"{key}.".startswith(neutral)
        and "@" not in key
        and not key.startswith("hydra")
    ]


def swept_values(words: Sequence[str], swept: Sequence[str], config: Run) -> dict[str, str]:
    """What one job has of the sweep's keys, by their last word; what its name says anyway is left out.

    Two keys that end alike have their whole names: data.patch_size and encoder.patch_size.
    """
    leaves = Counter(key.rpartition(".")[2] for key in swept)
    said = {
        "encoder": config.encoder.name,
        "data": config.data.name,
        "mode": config.mode.name,
        "seed": str(config.seed),
    }
    given = {key_of(word): _value(word) for word in words}
    if given.get("ssl") == "several":
        given["ssl"] = "+".join(config.ssl.tasks)
    start = config.mode.phases[0].init_from
    if start and "$" in given.get("mode.init_from", ""):  # the folder that an experiment file names
        given["mode.init_from"] = Path(start).name
    return {
        leaf if leaves[leaf := key.rpartition(".")[2]] == 1 else key: given[key]
        for key in swept
        if key in given and said.get(key) != given[key]
    }


def _value(word: str) -> str:
    return word.partition("=")[2].strip("'\"")
