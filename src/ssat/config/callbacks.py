"""`callbacks=[early_stopping, ...]`: what a user adds to a training, by a name of NAMED or as a class of their own."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ssat.config.fields import default_of, key, parse
from ssat.core.errors import UserError
from ssat.core.words import nearest


@dataclass(frozen=True)
class EarlyStopping:
    """Ends a phase that learns labels when the number that chooses `best.ckpt` has stopped to rise."""

    patience: int = key(10, "evaluations in a row without a better value", low=1)
    min_delta: float = key(0.0, "a value that is higher by no more than this is not better", low=0)
    threshold: float | None = key(None, "end as soon as the value is higher than this")


@dataclass(frozen=True)
class LrMonitor:
    """Logs the learning rate of every parameter group, which `recipe.layer_decay` makes different."""

    interval: Literal["step", "epoch"] = key("epoch", "how often")
    weight_decay: bool = key(False, "log the weight decay too")


@dataclass(frozen=True)
class DeviceStats:
    """Logs memory and load of the device."""

    cpu_stats: bool = key(False, "log the processor's too, where the device is a GPU")


@dataclass(frozen=True)
class ModelSummary:
    """Prints the layers with their parameters at the start of a phase."""

    max_depth: int = key(1, "levels of nested layers; -1 = all", low=-1)


NAMED: dict[str, type[Any]] = {
    "early_stopping": EarlyStopping,
    "lr_monitor": LrMonitor,
    "device_stats": DeviceStats,
    "model_summary": ModelSummary,
}
OBSERVERS = ("lr_monitor", "device_stats", "model_summary")  # they change nothing that is computed
BY_ITSELF = "checkpoints are written by themselves (checkpoint_minutes, monitor.select)"
# Names that users of Lightning know, and what does the same here.
ELSEWHERE = {
    "model_checkpoint": BY_ITSELF,
    "on_exception_checkpoint": BY_ITSELF,
    "rich_progress_bar": "the bar is trainer.progress=bar",
    "tqdm_progress_bar": "the bar is trainer.progress=bar",
    "stochastic_weight_averaging": "an average of the weights is recipe.ema_decay=0.9998",
    "weight_averaging": "an average of the weights is recipe.ema_decay=0.9998",
    "ema": "an average of the weights is recipe.ema_decay=0.9998",
    "gradient_accumulation_scheduler": "batches are accumulated by trainer.accumulate",
    "batch_size_finder": "the batch is found by recipe.batch_size=auto",
    "timer": "a training ends after trainer.max_steps, and goes on when it is repeated",
}
ALSO_CALLED = {"learning_rate_monitor": "lr_monitor", "device_stats_monitor": "device_stats"} | {
    "rich_model_summary": "model_summary"
}


@dataclass(frozen=True)
class Chosen:
    """One callback of a run.

    Attributes:
        kind: a name of NAMED, or the user's own `module:Class`.
        options: an object of NAMED's class, or the arguments of the user's.
    """

    kind: str
    options: Any


def chosen(entries: Any) -> list[Chosen]:
    """The callbacks that the entries of `callbacks` describe.

    Args:
        entries: each a name, a name with its options (`{early_stopping: {patience: 5}}`), or a class of the user's
            with its arguments (`{kind: my.module:Mine, ...}`, or `_target_: my.module.Mine` in place of kind).

    Raises:
        UserError: an entry is none of these, or its options are not possible.
    """
    if isinstance(entries, str) or not isinstance(entries, Sequence):
        raise UserError(
            f"callbacks={entries!r} is not a list: write callbacks=[early_stopping]", key="callbacks", value=entries
        )
    found = [_chosen(entry) for entry in entries]
    kinds = [each.kind for each in found]
    if twice := [kind for kind in kinds if kinds.count(kind) > 1]:
        raise UserError(f"callbacks names {twice[0]} twice: keep one of them", key="callbacks", value=twice[0])
    return found


def _chosen(entry: Any) -> Chosen:
    if isinstance(entry, str):
        return _named(entry, {})
    if isinstance(entry, Mapping) and {"kind", "_target_"} & {*entry}:
        options = {str(name): value for name, value in entry.items() if name not in ("kind", "_target_")}
        return _named(class_path(entry), options)
    if isinstance(entry, Mapping) and len(entry) == 1:
        ((name, options),) = entry.items()
        if options is None or isinstance(options, Mapping):
            return _named(str(name), options or {})
    raise UserError(
        f"callbacks: {entry!r} is not understood: write a name, '{{early_stopping: {{patience: 5}}}}', or"
        " '{kind: my.module:MyCallback}'",
        key="callbacks",
        value=entry,
    )


def class_path(entry: Mapping[str, Any]) -> str:
    """A class as `kind` names it; Hydra's `_target_` has a dot in place of the colon."""
    path = str(entry.get("kind") or entry["_target_"])
    return path if ":" in path else ":".join(path.rsplit(".", 1))


def _named(name: str, options: Mapping[str, Any]) -> Chosen:
    name = ALSO_CALLED.get(name, name)
    if ":" in name:
        return Chosen(name, dict(options))
    if name in ELSEWHERE:
        raise UserError(
            f"callbacks: there is no {name}: {ELSEWHERE[name]}; leave it out of the list", key="callbacks", value=name
        )
    if name not in NAMED:
        raise UserError(
            f"callbacks: {name} is not one of {', '.join(NAMED)}{nearest(name, list(NAMED))}; a class of your own is"
            f" written as {{kind: module:Class}}",
            key="callbacks",
            value=name,
        )
    return Chosen(name, parse(NAMED[name], options, f"callbacks.{name}"))


def early_stopping(entries: Any) -> EarlyStopping | None:
    """The options of early stopping, where it is among the callbacks."""
    return next((each.options for each in chosen(entries) if each.kind == "early_stopping"), None)


def computed_by(entries: Any) -> dict[str, Any]:
    """What the callbacks change in what a run computes, as flat keys; those that only watch change nothing."""
    return {key: value for each in chosen(entries) if each.kind not in OBSERVERS for key, value in _flat(each)}


def _flat(each: Chosen) -> Iterator[tuple[str, Any]]:
    place = f"callbacks.{each.kind}"
    yield place, True
    if isinstance(each.options, Mapping):
        yield from ((f"{place}.{name}", value) for name, value in each.options.items())
        return
    for field in dataclasses.fields(each.options):
        value = getattr(each.options, field.name)
        if value != default_of(field):
            yield f"{place}.{field.name}", value
