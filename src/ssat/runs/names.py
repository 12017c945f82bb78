"""The name of a run: encoder, data, mode, what a sweep varies, seed. A user's own name is left as it is."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress

from ssat.config.schema import Run

LONGEST = 40  # characters of a value in a name; the hash behind the name tells longer ones apart


def ends(encoder: str, data: str, mode: str, seed: int) -> tuple[str, str]:
    """What every name begins and ends with that no user has chosen."""
    return f"{encoder}-{data}-{mode}", f"-s{seed}"


def ends_of(config: Run) -> tuple[str, str]:
    """The ends of the name that the run has if nobody names it."""
    return ends(config.encoder.name, config.data.name, config.mode.name, config.seed)


def is_automatic(name: str, of: tuple[str, str]) -> bool:
    """Whether it is the name `of` such a run, with or without the keys of a sweep: vit_t-cifar10-ssat-lam=0.3-s0."""
    start, end = map(re.escape, of)
    return re.fullmatch(rf"{start}(-[\w.]+=[\w.+,-]*)*{end}", name) is not None


def with_swept(name: str, of: tuple[str, str], swept: Mapping[str, str]) -> str:
    """The name with the keys that a sweep varies before its seed; a name of the user's own stays."""
    if not is_automatic(name, of) or not swept:
        return name
    start, end = of
    return start + "".join(f"-{key}={_in_a_path(value)}" for key, value in swept.items()) + end


def _in_a_path(value: str) -> str:
    """The value as part of a folder's name, a number in its short form."""
    with suppress(ValueError):
        value = f"{float(value):g}"
    return re.sub(r"[^\w.+,-]+", "_", value).strip("_")[:LONGEST]
