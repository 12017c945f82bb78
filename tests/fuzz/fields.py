"""Records and configurations in which one value is missing or of another type."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

Place = tuple[str | int, ...]
MISSING = object()
MODE = ("mode=ssl_ft", "epochs=1", "eval_every=1", "reconstruct_every=0")  # of the run that is changed
WRONG: dict[str, Any] = {
    "missing": MISSING,
    "null": None,
    "list": [[1, "x"]],
    "no list": [],
    "mapping": {"a": {"b": 1}},
    "no mapping": {},
    "text": "\x1b[31m<script>",
    "no text": "",
    "huge": 10**30,
    "negative": -1,
    "nan": float("nan"),
    "infinite": float("inf"),
    "true": True,
}


def places(value: Any, above: Place = ()) -> Iterator[Place]:
    """The place of every value below `value`; of a list the first and the last."""
    inner = value.items() if isinstance(value, dict) else []
    if isinstance(value, list):
        inner = {0: value[0], len(value) - 1: value[-1]}.items() if value else []
    for key, child in inner:
        yield (*above, key)
        yield from places(child, (*above, key))


def replaced(value: Any, place: Place, new: Any) -> Any:
    """A copy of `value` with `new` at `place`; without it where `new` is MISSING."""
    changed = copy.deepcopy(value)
    within = changed
    for key in place[:-1]:
        within = within[key]
    if new is MISSING:
        del within[place[-1]]
    else:
        within[place[-1]] = new
    return changed


def read(path: Path) -> Any:
    """The values of a JSON or YAML file."""
    return json.loads(path.read_text()) if path.suffix == ".json" else yaml.safe_load(path.read_text())


def write(path: Path, value: Any) -> None:
    """The file with other values."""
    path.write_text(json.dumps(value) if path.suffix == ".json" else yaml.safe_dump(value))


def cases(value: Any) -> list[tuple[Place, str]]:
    """Every place of `value` with every name of WRONG."""
    return [(place, name) for place in places(value) for name in WRONG]


def drawn(value: Any, draw: random.Random) -> tuple[Place, str]:
    """A place, those near the top as often as the many below, and what to put there."""
    every = list(places(value))
    depth = draw.randint(1, max(map(len, every)))
    return draw.choice([place for place in every if len(place) <= depth]), draw.choice(list(WRONG))
