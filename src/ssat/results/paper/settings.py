"""Settings of runs and of cells: what a cell's overrides fix, and whether a run has the settings of a cell."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from ssat.config.identity import BATCH_FACTORS, step_batch
from ssat.config.resolve import resolve
from ssat.config.words import CONF
from ssat.results.paper.paper import Experiment, read_yaml
from ssat.runs.faithful import BATCH_NORM, COMPARE_IMAGES
from ssat.runs.own_phases import MISSING, PHASES, WITHOUT_SSL
from ssat.runs.record import Record
from ssat.runs.settings import INIT_FROM, START, settings_of, with_start

# Keys that change how fast a run is or how often it is measured, not what its last accuracy means.
SAME_RESULT = ("trainer.", "eval_every", "data.pipeline", "data.memory_gb", "data.source.", "data.root", "data.verify")
SOURCE = "data.source.kind"  # images under a set's name are that set only where its own reader has counted them
# Numbers of images that follow from several keys, by the ends of what they are called here.
LOSS_BATCH, NORM_BATCH = "loss_batch", "norm_batch"
BATCHES = {
    "recipe.batch_size": "an optimizer step sees",
    LOSS_BATCH: "the loss that compares images sees",
    NORM_BATCH: "batch norms see",
}


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


def place_of(record: Record, experiment: Experiment) -> tuple[str | None, list[str]]:
    """The row that the run belongs to (None: it fits none), and its columns.

    Where cells have overrides of their own, a row is first looked for among whole cells, and then among the rows that
    name a mode.
    """
    rows, columns = fixed_by_name(experiment.rows), fixed_by_name(experiment.columns)
    if experiment.cells:
        cells = {place: fixed_of_cell(experiment, *place) for place in experiment.places}
        fitting = {place: fixed for place, fixed in cells.items() if fits(record, fixed)}
        if fitting:
            row, _ = max(fitting, key=lambda place: len(fitting[place]))
            return row, [column for name, column in fitting if name == row]
        rows = {name: fixed for name, fixed in rows.items() if "mode.name" in fixed}
    return row_of(record, rows), [name for name, fixed in columns.items() if fits(record, fixed)]


def fixed_of_cell(experiment: Experiment, row: str, column: str) -> dict[str, Any]:
    """The settings that row, column and the cell's own overrides fix, and those of the run that it starts from."""
    of_cell = [word for word in experiment.words(row, column) if word not in experiment.base]
    fixed = fixed_settings(tuple(word for word in of_cell if not word.startswith((f"{INIT_FROM}=", "run_dir="))))
    start = [word for word in experiment.start(row, column) if word not in experiment.base]
    begun = fixed_settings(tuple(word for word in start if not word.startswith("run_dir=")))
    return fixed | {START + key: value for key, value in begun.items()}


def cell_words(experiment: Experiment, row: str, column: str) -> tuple[str, ...]:
    """A cell's overrides, sorted: many tables have the same cell, which is then composed once."""
    return tuple(sorted(experiment.words(row, column)))


def start_words(experiment: Experiment, row: str, column: str) -> tuple[str, ...]:
    """The same of the run that the cell's run starts from."""
    return tuple(sorted(experiment.start(row, column)))


@cache
def cell_settings(words: tuple[str, ...]) -> dict[str, Any]:
    """The settings that a cell's overrides give, composed as the command line composes them."""
    if GlobalHydra.instance().is_initialized():
        GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        run = resolve(compose("train", overrides=list(words)))
    return settings_of(run.values, run.mode.name)


class Setting(NamedTuple):
    """A setting in which a run is not a cell: its key, and what was run, in words that a reader can act on."""

    key: str
    text: str


@cache
def differing(
    settings_key: str, words: tuple[str, ...], start: tuple[str, ...] = (), relevant: tuple[str, ...] = ("",)
) -> tuple[Setting, ...]:
    """The settings in which a run is not a cell: 'epochs=6'.

    Args:
        settings_key: of the run.
        words: the cell's overrides.
        start: those of the run that it starts from.
        relevant: beginnings of the keys that are compared.
    """
    all_wanted, all_ours = cell_settings(words), json.loads(settings_key)
    if start:
        all_wanted = with_start(all_wanted, cell_settings(start))
    wanted, ours = _deciding(all_wanted), _deciding(all_ours)
    if INIT_FROM in ours:  # what it started from is not known
        wanted = {key: value for key, value in wanted.items() if not key.startswith(START)}
    keys = sorted(key for key in wanted.keys() | ours.keys() if key.startswith(relevant))
    found = []
    for key in (key for key in keys if not _is_same(key, wanted, ours)):
        batch = next((what for end, what in BATCHES.items() if key.endswith(end)), "")
        if not batch or (key.startswith(PHASES) and key in all_ours):
            found.append(Setting(key, _said(key, all_ours if batch else ours)))
        elif key in wanted and key in ours:  # else another encoder or another task is the difference
            place = key.rpartition(".")[0]
            factors = [name for name in BATCH_FACTORS if (all_ours.get(name, 1), all_wanted.get(name, 1)) != (1, 1)]
            set_by = ", ".join([f"{place}.batch_size", *factors])
            found.append(Setting(key, f"{batch} {_number(ours[key])} images at once, not {wanted[key]} ({set_by})"))
    return tuple(found)


def _is_same(key: str, wanted: Mapping[str, Any], ours: Mapping[str, Any]) -> bool:
    """Whether both have the same value; null is none, except where a phase alone was told so."""
    no_value = MISSING if key.startswith(PHASES) else None
    return wanted.get(key, no_value) == ours.get(key, no_value)


def _said(key: str, ours: Mapping[str, Any]) -> str:
    if key not in ours:
        return f"without {key}"
    value = ours[key]
    return f"{key}={'null' if value is None else str(value).lower() if isinstance(value, bool) else value}"


def _number(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


@cache
def deciding_settings(settings_key: str) -> dict[str, Any]:
    """The settings of a run that decide its result."""
    return _deciding(json.loads(settings_key))


def _deciding(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings that decide a result; the batch is that of an optimizer step, on any number of devices."""
    start = {key.removeprefix(START): value for key, value in settings.items() if key.startswith(START)}
    if start:
        own = {key: value for key, value in settings.items() if not key.startswith(START)}
        return with_start(_deciding(own), _deciding(start))
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
        seen[f"{place}{LOSS_BATCH}"] = step_batch(batch, alone)
    if settings.get("encoder.kind") in BATCH_NORM:
        seen[f"{place}{NORM_BATCH}"] = batch
    return seen
