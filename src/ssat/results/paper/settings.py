"""Settings of runs and of cells: what a cell's overrides fix, and whether a run has the settings of a cell."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from ssat.config.identity import BATCH_FACTORS, step_batch
from ssat.config.resolve import resolve
from ssat.config.words import CONF
from ssat.results.paper.paper import Experiment, read_yaml
from ssat.runs.faithful import BATCH_NORM, COMPARE_IMAGES
from ssat.runs.record import Record, settings_of

# Keys that change how fast a run is or how often it is measured, not what its last accuracy means.
SAME_RESULT = ("trainer.", "eval_every", "data.pipeline", "data.memory_gb", "data.source.", "data.root", "data.verify")
SOURCE = "data.source.kind"  # images under a set's name are that set only where its own reader has counted them
WITHOUT_SSL = ("scratch", "finetune", "linear")


def fixed_by_name(axis: Mapping[str, Sequence[str]]) -> dict[str, dict[str, Any]]:
    """For each row or column the settings that its overrides fix."""
    return {name: fixed_settings(tuple(words)) for name, words in axis.items()}


@cache
def fixed_settings(words: tuple[str, ...]) -> dict[str, Any]:
    """The settings of a run that overrides fix: encoder=vit_t means that encoder.name is vit_t."""
    fixed: dict[str, Any] = {}
    for word in words:
        key, _, text = word.partition("=")
        path = CONF / key / f"{text}.yaml"
        if "." not in key and path.is_file():
            fixed |= _fixed_by_option(key, text)
        elif key not in BATCH_FACTORS:  # only the size of a step's batch matters, not how it is put together
            fixed[key] = yaml.safe_load(text)
    return fixed


@cache
def _fixed_by_option(group: str, option: str) -> dict[str, Any]:
    """The settings that a group's choice fixes: its name; an input or a refined mode also fixes the values it sets."""
    content = read_yaml(CONF / group / f"{option}.yaml") or {}
    inherited: dict[str, Any] = {}
    for parent in content.get("defaults") or []:
        if isinstance(parent, str) and (CONF / group / f"{parent}.yaml").is_file():
            inherited |= _fixed_by_option(group, parent)
    own = content.get(group, content) if isinstance(content.get(group), dict) else content
    prefix = "data" if group == "input" else group
    plain = {
        f"{prefix}.{key}": value
        for key, value in own.items()
        if isinstance(value, (str, int, float)) and "${" not in str(value) and not key.startswith("_")
    }
    if group == "input" or (group == "mode" and inherited):
        return inherited | plain
    return inherited | {key: value for key, value in plain.items() if key == f"{prefix}.name"}


def fits(record: Record, fixed: dict[str, Any]) -> bool:
    """Whether the run has the fixed settings; those of an SSL task do not matter to a run without one."""
    settings = record.settings | _pretrained(record.settings)
    unused = "ssl." if record.mode in WITHOUT_SSL else " "
    return all(settings.get(key) == value for key, value in fixed.items() if not key.startswith(unused))


def _pretrained(settings: Mapping[str, Any]) -> dict[str, bool]:
    """Weights in a file are taken for the hub's, which a machine without a network lacks."""
    return {"encoder.pretrained": True} if isinstance(settings.get("encoder.pretrained"), str) else {}


def row_of(record: Record, rows: dict[str, dict[str, Any]]) -> str | None:
    """The row that the run belongs to: of several that fit, the one that fixes the most settings."""
    fitting = [name for name, fixed in rows.items() if fits(record, fixed)]
    return max(fitting, key=lambda name: len(rows[name]), default=None)


def cell_words(experiment: Experiment, row: str, column: str) -> tuple[str, ...]:
    """A cell's overrides, sorted: many tables have the same cell, which is then composed once."""
    return tuple(sorted(experiment.words(row, column)))


@cache
def cell_settings(words: tuple[str, ...]) -> dict[str, Any]:
    """The settings that a cell's overrides give, composed as the command line composes them."""
    if GlobalHydra.instance().is_initialized():
        GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        run = resolve(compose("train", overrides=list(words)))
    return settings_of(run.values, run.mode.name)


@cache
def differing(settings_key: str, words: tuple[str, ...], relevant: tuple[str, ...] = ("",)) -> tuple[str, ...]:
    """The settings in which a run is not a cell, of those whose keys begin with one of `relevant`: 'epochs=6'."""
    wanted, ours = _deciding(cell_settings(words)), deciding_settings(settings_key)
    keys = sorted(key for key in wanted.keys() | ours.keys() if key.startswith(relevant))
    return tuple(f"{key}={ours.get(key)}" for key in keys if wanted.get(key) != ours.get(key))


@cache
def deciding_settings(settings_key: str) -> dict[str, Any]:
    """The settings of a run that decide its result."""
    return _deciding(json.loads(settings_key))


def _deciding(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings that decide a result; the batch is that of an optimizer step, on any number of devices."""
    kept = {key: value for key, value in settings.items() if not key.startswith(SAME_RESULT) or key == SOURCE}
    for key, value in list(kept.items()):
        if key.endswith("recipe.batch_size"):
            kept[key] = step_batch(value, settings)
            kept |= _forward_batches(key.removesuffix("batch_size"), value, settings)
    return kept | _pretrained(kept)


def _forward_batches(place: str, batch: Any, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The batches that a contrastive loss (gathered over processes) and a batch norm (each process's own) see."""
    tasks = [value for key, value in settings.items() if key.startswith("ssl.") and key.endswith("kind")]
    alone = {key: value for key, value in settings.items() if key != "trainer.accumulate"}
    seen = {}
    if {*tasks} & {*COMPARE_IMAGES}:
        seen[f"{place}loss_batch"] = step_batch(batch, alone)
    if settings.get("encoder.kind") in BATCH_NORM:
        seen[f"{place}norm_batch"] = batch
    return seen
