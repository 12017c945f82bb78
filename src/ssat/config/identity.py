"""What a run computes, as a hash, and whether two configurations compute the same."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os.path
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ssat.config.callbacks import computed_by
from ssat.config.create import defaults_of
from ssat.config.fields import default_of
from ssat.config.resolve import build
from ssat.config.schema import Component, Data, Run, Trainer
from ssat.config.trust import trusted
from ssat.core.errors import UserError
from ssat.core.words import flatten
from ssat.data.sets import GROUP_TABLE, SOURCES
from ssat.encoders import ENCODERS
from ssat.tasks import TASKS

PATHS = ("root", "file", "labels", "teacher", "pretrained", "init_from")  # keys whose text names a file or a folder
SELECT, DEFAULT_SELECT = "monitor.select", (None, "acc1")  # the one key of `monitor` that changes a result: the best
BATCH_FACTORS = ("trainer.devices", "trainer.num_nodes", "trainer.accumulate")


SECTIONS: dict[str, Any] = {"": Run, "data.": Data, "trainer.": Trainer}
# Keys that say where and how a run is watched, not what it computes.
NEUTRAL = (
    "version",
    *(
        prefix + field.name
        for prefix, section in SECTIONS.items()
        for field in dataclasses.fields(section)
        if not field.metadata.get("identity", True)
    ),
)


def flat_settings(values: Mapping[str, Any]) -> dict[str, Any]:
    """The flat plain values without the neutral keys: what a person set, and the defaults beside it."""
    neutral = tuple(f"{key}." for key in NEUTRAL)
    everything = flatten(dict(values))
    neutral += ("callbacks.",)  # of these only what changes the training
    flat = {key: value for key, value in everything.items() if not f"{key}.".startswith(neutral)}
    with suppress(UserError):  # of a damaged record: reports show what they can read
        flat |= computed_by(values.get("callbacks") or [])
    if everything.get(SELECT) not in DEFAULT_SELECT:
        flat[SELECT] = everything[SELECT]
    official = "data.source.verify" in flat
    if official or flat.get("data.root", "") is None:  # an official set is the same wherever it lies
        for key in ("data.root", "data.source.root"):
            flat.pop(key, None)
    return flat


def identity(run: Run) -> dict[str, Any]:
    """What the run computes: flat keys, without those that have their default."""
    flat = _component(run.encoder, "encoder", ENCODERS)
    flat |= _fields(run.encoder, "encoder", only=("pretrained", "adapt_stem"))
    flat |= _component(run.data.source, "data.source", SOURCES, skip=("root",) if is_official(run) else ())
    # timm where the SSL task needs views is refused, so timm said and timm by default are the same.
    said = ["pipeline"] if run.data.pipeline == "timm" else []
    said += ["test_fraction"] if run.data.frames is not None else []  # of videos their reader has it
    flat |= {"data.name": run.data.name} | _fields(run.data, "data", skip=("name", "source", "extra", *said))
    if run.data.statistics.own is None:  # was the official one before it was measured
        used = any(phase.recipe.statistics == "own" for phase in run.mode.phases)
        own = {"data.statistics.own": "measured"}
        flat |= own if used else _fields(run.data.statistics.official, "data.statistics.own")
    if any(phase.lam < 1 for phase in run.mode.phases):
        for name, task in run.ssl.tasks.items():
            flat |= _component(task, f"ssl.{name}", TASKS)
        if list(run.ssl.tasks) != sorted(run.ssl.tasks):
            flat["ssl.order"] = list(run.ssl.tasks)  # each draws its first weights after the one before it
        if run.ssl.weights and {*run.ssl.weights.values()} != {1 / len(run.ssl.tasks)}:  # equal ones are the default
            flat |= {f"ssl.weights.{name}": weight for name, weight in run.ssl.weights.items()}
    flat["mode.name"] = run.mode.name
    for index, phase in enumerate(run.mode.phases):
        flat |= _fields(phase, f"mode.phases.{index}")
    unread = ".recipe.clip_augment." if run.data.frames is None else ".recipe.augment."
    flat = {key: value for key, value in flat.items() if unread not in f"{key}."}
    flat |= _fields(run.trainer, "trainer")
    flat |= _fields(run, "", only=("seed", "eval_every", "extend"))
    if run.monitor.select not in DEFAULT_SELECT:
        flat[SELECT] = run.monitor.select
    return flat | computed_by(run.callbacks)


def is_official(run: Run) -> bool:
    """Whether the data are a published set, whose images are counted against it."""
    return "verify" in run.data.source.options


def official_name(run: Run) -> str:
    """The published set that is read, whatever the data are called; empty where it is none."""
    source = run.data.source
    return str(source.options.get("domain") or source.kind) if is_official(run) else ""


def _component(part: Component, prefix: str, table: Mapping[str, str], skip: tuple[str, ...] = ()) -> dict[str, Any]:
    defaults = defaults_of(table, part.kind, f"{prefix}.kind")
    flat = {f"{prefix}.kind": part.kind}
    for key, value in part.options.items():
        if key == "classes" and isinstance(value, (list, tuple)):
            value = sorted({*map(str, value)})  # as the readers number them
        if key not in skip and value is not None and _plain(value) != _plain(defaults.get(key)):
            flat[f"{prefix}.{key}"] = _spelled_once(key, value)
    return flat


def _fields(section: Any, prefix: str, *, only: tuple[str, ...] = (), skip: tuple[str, ...] = ()) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for field in dataclasses.fields(section):
        name, value = field.name, getattr(section, field.name)
        if name in skip or (only and name not in only) or not field.metadata.get("identity", True):
            continue
        key = f"{prefix}.{name}" if prefix else name
        if dataclasses.is_dataclass(value):
            flat |= _fields(value, key)
        elif isinstance(value, Mapping):
            for of, item in value.items():
                flat |= _fields(item, f"{key}.{of}") if dataclasses.is_dataclass(item) else {f"{key}.{of}": item}
        elif _plain(value) != _plain(default_of(field)):
            flat[key] = _spelled_once(name, value)
    return flat


def _spelled_once(key: str, value: Any) -> Any:
    """`value`; a path in one spelling, whichever was written: imgs, ./imgs/ and /here/imgs are one folder."""
    if key == "group" and isinstance(value, str):
        table = GROUP_TABLE.fullmatch(value)
        if table:
            return f"{_spelled_once('root', table[1])}:{table[2]}"
        return int(value) if value.isdecimal() else value
    if key not in PATHS or not isinstance(value, str) or value == "previous":
        return _plain(value)
    path = os.path.abspath(os.path.expanduser(value))
    below = os.path.relpath(path)
    return path if below.startswith(os.pardir) else below


def _plain(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value  # 1.0 is 1


def config_hash(run: Run) -> str:
    """Eight hexadecimal digits that name what the run computes."""
    text = json.dumps(identity(run), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def differences(ours: Run, theirs: Run) -> list[str]:
    """The keys in which two runs compute different things, as 'key: theirs -> ours'."""
    a, b = identity(theirs), identity(ours)
    return [
        f"{key}: {a.get(key, 'default')} -> {b.get(key, 'default')}"
        for key in sorted(a.keys() | b.keys())
        if a.get(key) != b.get(key)
    ]


def check_same_run(ours: Run, theirs: Any, path: Path) -> None:
    """Refuse to continue in `path` what was begun under another configuration.

    Args:
        ours: this run.
        theirs: the plain values of the one in `path`.
        path: its folder or file.

    Raises:
        UserError: names the first differences.
    """
    if not isinstance(theirs, Mapping):
        raise UserError(f"{path} was not written by this framework: move it away, or start from it with mode.init_from")
    try:
        built = build(theirs, str(path))
    except UserError as error:
        raise UserError(f"{path} is damaged, its configuration cannot be: {error}", key=error.key) from error
    begun = trusted(built, like=ours)
    changed = differences(ours, begun)
    if changed and {text.partition(":")[0] for text in changed} <= {*BATCH_FACTORS}:
        raise UserError(f"{path} was begun with {_other_factors(begun, ours)}: {continued(ours, begun)}")
    if changed:
        listed = "; ".join(changed[:5]) + (f"; and {len(changed) - 5} more" if len(changed) > 5 else "")
        raise UserError(
            f"{path} belongs to another configuration ({listed}): repeat the words it was begun with, use another"
            " run_dir, or force=true to start afresh"
        )


def continued(ours: Run, begun: Run) -> str:
    """What to type where two runs differ in BATCH_FACTORS alone: to go on, and to train anew on the devices of ours."""
    other = _other_factors(begun, ours)
    trainer, images = ours.trainer, _processes(begun.trainer) * begun.trainer.accumulate
    anew = "force=true to train anew"
    if images % _processes(trainer) == 0:
        typed = [f"trainer.devices={trainer.devices}", f"trainer.accumulate={images // _processes(trainer)}"]
        anew = f"{' '.join(typed)} force=true to train anew on as many images a step"
    return f"type {other} to continue it, or {anew}"


def _other_factors(begun: Run, ours: Run) -> str:
    pairs = [(key, *(getattr(run.trainer, key.partition(".")[2]) for run in (begun, ours))) for key in BATCH_FACTORS]
    return " ".join(f"{key}={theirs}" for key, theirs, own in pairs if theirs != own)


def _processes(trainer: Trainer) -> int:
    return trainer.devices * trainer.num_nodes


def step_batch(batch_size: Any, flat: Mapping[str, Any]) -> Any:
    """Images of an optimizer step: those of a device, times BATCH_FACTORS; `batch_size` itself if that is no number."""
    numbers = [batch_size, *(flat.get(key, 1) for key in BATCH_FACTORS)]
    return math.prod(numbers) if all(isinstance(number, int) for number in numbers) else batch_size
