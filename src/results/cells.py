"""Which runs stand in which cell of a table: those of exactly its configuration, and apart from them smaller ones."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from src.cli import CONF
from src.config import BATCH_FACTORS, resolve, step_batch
from src.results.paper import Experiment, Item, read_yaml
from src.results.record import Record, settings_of

# Keys that change how fast or how often, not what a run's last accuracy means.
SAME_RESULT = ("trainer.", "eval_every", "data.pipeline", "data.memory_gb", "data.source.", "data.root", "data.verify")
# Shares of the data: runs that differ in them are never in one table, whatever its columns are.
SHARES = (
    "data.fraction",
    "data.samples_per_class",
    "data.label_fraction",
    "data.val_fraction",
    "data.classes",
    "data.subset",
    "data.protocol",
)
FOLLOW_DATA = re.compile(r"encoder\.(img_size|patch_size|in_chans|strides|window_size|mask_unit|stem)")
# What a group's choice changes, so that it is no difference between the runs of one table that varies the group.
CHANGES = {
    "encoder": ("encoder.", "ssl."),
    "data": ("data.",),
    "mode": ("mode.", "ssl."),
    "ssl": ("ssl.",),
    "recipe": ("recipe.", "mode.ssl_recipe.", "epochs"),
    "input": ("data.img_size", "data.patch_size"),
    "trainer.accumulate": ("recipe.batch_size",),
}
# Measures that do not depend on the training, and the settings that they depend on.
OF_NETWORK = ("encoder.", "ssl.", "mode.name", "data.name", "data.img_size", "data.channels", "recipe.decoder")
RELEVANT = {
    "params_inference": OF_NETWORK,
    "params_training": OF_NETWORK,
    "gflops": OF_NETWORK,
    "train_images": ("data.",),
    "test_images": ("data.",),
    "classes": ("data.",),
    "img_size": ("data.",),
}


@dataclass
class Block:
    """Runs that make one table: the paper's own configuration (no title), or other settings that all of them share."""

    title: str
    records: dict[tuple[str, str], list[Record]] = field(default_factory=lambda: defaultdict(list))

    @property
    def is_the_papers(self) -> bool:
        return not self.title

    @property
    def columns(self) -> list[str]:
        return list(dict.fromkeys(column for _, column in self.records))


@dataclass
class Filled:
    """A table or figure with its runs: the paper's block first, then the others; `strays` fit no row of it."""

    item: Item
    blocks: list[Block]
    strays: list[Record]

    @property
    def paper(self) -> Block:
        return self.blocks[0]


def fill(item: Item, records: Sequence[Record]) -> Filled:
    """Sort the finished runs into the cells of `item`."""
    experiment, exact = item.experiment, Block("")
    if not experiment.rows or experiment.unbuilt:
        return Filled(item, [exact], [])
    rows, columns = _axis(experiment.rows), _axis(experiment.columns)
    blocks: dict[str, Block] = {}
    places: dict[str, tuple[str | None, list[str]]] = {}  # of all runs that share their settings
    strays = []
    # The experiment's own runs first: they open the blocks that runs of other experiments may join.
    for record in sorted(filter(lambda r: r.finished, records), key=lambda r: r.get("experiment") != item.name):
        is_own = record.get("experiment") == item.name
        if record.settings_key not in places:
            fitting = [name for name, pins in columns.items() if _fits(record, pins)]
            places[record.settings_key] = _place(record, rows), fitting
        row, fitting = places[record.settings_key]
        if row is None:
            strays += [record] * is_own
        elif not _add_exact(exact, item, record, row, fitting) and (is_own or blocks):
            key, title = _block_of(record, experiment, bool(fitting))
            if is_own or key in blocks:
                block = blocks.setdefault(key, Block(title))
                for column in fitting or [record.data]:
                    block.records[row, column].append(record)
    for block in blocks.values():
        for place in block.records:
            block.records[place], left = _one_configuration(block.records[place], item.name)
            strays += [record for record in left if record.get("experiment") == item.name]
    _tell_apart([*blocks.values()])
    return Filled(item, [exact, *blocks.values()], list(dict.fromkeys(strays)))


def _add_exact(exact: Block, item: Item, record: Record, row: str, columns: list[str]) -> bool:
    """Put a run into the cells whose configuration is its own; whether its accuracy is one of them."""
    settled = False
    if not _fits(record, _pins(tuple(item.experiment.base))):
        return False
    for column in columns:
        cell = item.cells.get((row, column))
        if cell is not None and _is_exact(record, item.experiment, row, column, cell.measure):
            exact.records[row, column].append(record)
            settled = settled or cell.measure not in RELEVANT
    return settled


def _one_configuration(records: list[Record], experiment: str) -> tuple[list[Record], list[Record]]:
    """The runs of one configuration (this experiment's own, then the one with most seeds), and the rest."""
    groups: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        groups[repr(sorted(_comparable(record.settings_key).items(), key=str))].append(record)
    best = max(groups.values(), key=lambda g: (any(r.get("experiment") == experiment for r in g), len(g)))
    return best, [record for group in groups.values() if group is not best for record in group]


def _tell_apart(blocks: list[Block]) -> None:
    """Blocks of one title get the settings in which they differ."""
    titles: dict[str, list[Block]] = defaultdict(list)
    for block in blocks:
        titles[block.title].append(block)
    for title, same in titles.items():
        if len(same) < 2:
            continue
        settings = [_comparable(next(iter(block.records.values()))[0].settings_key) for block in same]
        keys = [
            k for k in settings[0] if len({str(s.get(k)) for s in settings}) > 1 and not k.startswith("data.source")
        ]
        for block, values in zip(same, settings, strict=True):
            shown = ", ".join(f"{key.rpartition('.')[2]}={values.get(key)}" for key in keys[:3])
            block.title = f"{title}; {shown or 'other images'}"


def _block_of(record: Record, experiment: Experiment, column_found: bool) -> tuple[str, str]:
    """What the runs of one table share, as a key, and as words for a person."""
    words = [word for row in experiment.rows.values() for word in row]
    if column_found:
        words += [word for column in experiment.columns.values() for word in column]
    changed = [prefix for word in words for prefix in CHANGES.get(_key(word), (_key(word),))]
    follows = any(_key(word) in ("data", "input") for word in words)
    told = {_key(word) for word in words}
    kept = {
        key: value
        for key, value in _comparable(record.settings_key).items()
        if (key in SHARES and key not in told or not key.startswith(tuple(changed)))
        and not (follows and FOLLOW_DATA.fullmatch(key))
    }
    if not column_found:
        kept["content"] = record.get("data_fingerprint.sha256")
    return repr(sorted(kept.items(), key=str)), _title(record, told, column_found)


def _title(record: Record, told: set[str], column_found: bool) -> str:
    images, epochs = record.number("data_fingerprint.splits.train"), record.number("config.epochs")
    parts = [] if column_found else [record.data]
    parts += [record.encoder] if "encoder" not in told else []
    if images and not (column_found and record.get("config.data.fraction") == 1 and "data" in told):
        parts.append(f"{images:,.0f} training images")
    parts += [f"{epochs:.0f} epochs"] if epochs is not None and "epochs" not in told else []
    recipe = record.text("config.recipe.name")
    parts += [f"recipe {recipe}"] if recipe not in ("", "official") and "recipe" not in told else []
    return ", ".join(parts) or "other settings"


def _compared(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings that decide a result; the batch is that of an optimizer step, on however many devices."""
    kept = {key: value for key, value in settings.items() if not key.startswith(SAME_RESULT)}
    for key, value in kept.items():
        if key.endswith("recipe.batch_size"):
            kept[key] = step_batch(value, settings)
    return kept


def _key(word: str) -> str:
    return word.split("=")[0].lstrip("+~")


@cache
def _pins(words: tuple[str, ...]) -> dict[str, Any]:
    """What overrides say about a run's settings: encoder=vit_t means encoder.name is vit_t."""
    pins: dict[str, Any] = {}
    for word in words:
        key, _, text = word.partition("=")
        path = CONF / key / f"{text}.yaml"
        if "." not in key and path.is_file():
            pins |= _option(key, text)
        elif key not in BATCH_FACTORS:  # how a batch is put together is no matter of the cell
            pins[key] = yaml.safe_load(text)
    return pins


@cache
def _option(group: str, option: str) -> dict[str, Any]:
    """A group's choice as settings: its name; a preset that refines another one also by the values it sets."""
    content = read_yaml(CONF / group / f"{option}.yaml") or {}
    parents = [parent for parent in content.get("defaults") or [] if isinstance(parent, str) and parent != "_self_"]
    inherited: dict[str, Any] = {}
    for parent in parents:
        if (CONF / group / f"{parent}.yaml").is_file() and parent != "base":
            inherited |= _option(group, parent)
    own = content.get(group, content) if isinstance(content.get(group), dict) else content
    prefix = "data" if group == "input" else group
    plain = {
        f"{prefix}.{key}": value
        for key, value in own.items()
        if isinstance(value, (str, int, float)) and "${" not in str(value) and not key.startswith("_")
    }
    named = {key: value for key, value in plain.items() if key == f"{prefix}.name"}
    refines = group in ("mode", "input") and (bool(inherited) or group == "input")
    return inherited | (plain if refines else named)


def _axis(axis: dict[str, list[str]]) -> dict[str, dict[str, Any]]:
    return {name: _pins(tuple(words)) for name, words in axis.items()}


def _fits(record: Record, pins: dict[str, Any]) -> bool:
    settings = record.settings
    skip = "ssl." if record.mode in ("scratch", "finetune", "linear") else " "
    return all(settings.get(key) == value for key, value in pins.items() if not key.startswith(skip))


def _place(record: Record, axis: dict[str, dict[str, Any]]) -> str | None:
    """The row that the run stands in: of several that fit, the one that says most."""
    fitting = [name for name, pins in axis.items() if _fits(record, pins)]
    return max(fitting, key=lambda name: len(axis[name]), default=None)


def _is_exact(record: Record, experiment: Experiment, row: str, column: str, measure: str) -> bool:
    """Whether the run is the cell's: its very configuration to the end, or for a network's size and cost that network.

    The record's `faithful` speaks of the paper as a whole; a cell may ask for a part of the data (Figure 5).
    """
    relevant = RELEVANT.get(measure)
    is_cut = record.get("config.trainer.max_steps") or record.get("skipped_images")
    if relevant is None and (is_cut or record.get("config.data.verify") is False):
        return False
    return _is_equal(record.settings_key, cell_words(experiment, row, column), relevant or ("",))


def cell_words(experiment: Experiment, row: str, column: str) -> tuple[str, ...]:
    """A cell's overrides in one order: many tables have the same cell."""
    return tuple(sorted(experiment.words(row, column)))


@cache
def _is_equal(settings_key: str, words: tuple[str, ...], relevant: tuple[str, ...]) -> bool:
    """Whether a run's settings are those of a cell, as far as they begin with one of `relevant`."""
    wanted, ours = _compared(composed(words)), _comparable(settings_key)
    keys = (key for key in wanted.keys() | ours.keys() if key.startswith(relevant))
    return all(wanted.get(key) == ours.get(key) for key in keys)


@cache
def _comparable(settings_key: str) -> dict[str, Any]:
    """`_compared` of the settings of all runs that share them."""
    return _compared(json.loads(settings_key))


@cache
def composed(words: tuple[str, ...]) -> dict[str, Any]:
    """The settings of a cell, composed as the command line would."""
    if GlobalHydra.instance().is_initialized():
        GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = resolve(compose("train", overrides=list(words)))
    return settings_of(config, config["mode"]["name"])
