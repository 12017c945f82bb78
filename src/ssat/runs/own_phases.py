"""What a configuration sets for one phase of its mode alone."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from functools import cache
from typing import Any

import yaml

from ssat.config.fields import defaults_in
from ssat.config.schema import Phase
from ssat.config.words import CONF
from ssat.core.words import flatten

MISSING = object()
DEFAULTS = {key: value for key, value in defaults_in(Phase).items() if not isinstance(value, dict)}
REQUIRED = {"name", "lam", "epochs", "recipe"}
PHASES, COUNT = "mode.phases.", "mode.phases"
SURPLUS = {"recipe": "${recipe}"}  # what may be expected of a phase that conf/mode does not name
WITHOUT_SSL = ("scratch", "finetune", "linear")


def own_settings(config: Mapping[str, Any], mode: str) -> dict[str, Any]:
    """What was run where a phase was told something else than the key that conf/mode names for it.

    mode.phases.0.epochs=6 beside epochs=30 is `epochs` 6, as 30 were never run; where no key of one phase alone stands
    for it, it is `mode.phases.0.lam`. Another number of phases is `mode.phases`, and all that a surplus phase says
    besides its defaults is listed: also of a mode of the user's own, which has no file in conf/mode. A key that an old
    record lacks, and a phase that lacks a key which every phase has, are not compared.
    """
    found: dict[str, Any] = {}
    phases = _phases(config)
    planned = _planned(mode)
    if phases and len(phases) != len(planned):
        found[COUNT] = len(phases)
    sources = Counter(source for phase in planned for value in phase.values() if (source := _source(value)))
    for index, phase in enumerate(phases):
        if not phase.keys() >= REQUIRED:
            continue
        plan = planned[index] if index < len(planned) else SURPLUS
        ours, theirs = flatten(phase), _resolved(plan, config)
        required = REQUIRED - plan.keys()  # of a surplus phase, which no plan names
        for key in (key for key in ours if theirs.get(key, MISSING if key in required else ours[key]) != ours[key]):
            first, dot, rest = key.partition(".")
            source = _source(plan.get(first)) if plan is not SURPLUS else ""
            place = source if sources[source] == 1 else f"{PHASES}{index}.{first}"
            found[f"{place}{dot}{rest}"] = ours[key]
    return found


def uses_labels_alone(config: Mapping[str, Any], mode: str) -> bool:
    """Whether no phase has a self-supervised loss, so that the settings of SSL tasks say nothing of the run."""
    weights = [phase["lam"] for phase in _phases(config) if "lam" in phase]
    return all(lam == 1 for lam in weights) if weights else mode in WITHOUT_SSL


def planned_phases(mode: str) -> int | None:
    """How many phases conf/mode names for a mode; None for a mode of the user's own."""
    return len(_planned(mode)) or None


def _phases(config: Mapping[str, Any]) -> list[dict[str, Any]]:
    mode = config.get("mode")
    phases = mode.get("phases") if isinstance(mode, Mapping) else None
    return [phase for phase in phases if isinstance(phase, dict)] if isinstance(phases, (list, tuple)) else []


def _source(value: Any) -> str:
    """The key that a value of conf/mode is taken from: `epochs` of ${epochs}; empty for a plain value."""
    named = re.fullmatch(r"\$\{([\w.]+)\}", str(value))
    return named[1] if named else ""


def _resolved(planned: dict[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """A phase of conf/mode as flat values, with those of `config` where it names a key; without those it lacks."""
    values: dict[str, Any] = {}
    for key, value in (DEFAULTS | planned).items():
        source = _source(value)
        found = _lookup(config, source) if source else value
        values |= {} if found is MISSING else flatten({key: found})
    return values


def _lookup(config: Any, key: str) -> Any:
    for part in key.split("."):
        config = config.get(part, MISSING) if isinstance(config, Mapping) else MISSING
    return config


@cache
def _planned(mode: str) -> list[dict[str, Any]]:
    """The phases that conf/mode names for a mode; a value may be the key that it comes from."""
    path = CONF / "mode" / f"{mode}.yaml"
    if not re.fullmatch(r"\w+", mode) or not path.is_file():
        return []
    return yaml.safe_load(path.read_text(encoding="utf-8")).get("phases") or []
