"""Which runs belong to which cell of a table: runs of exactly its configuration, and apart from them other runs."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from ssat.results.content import content_digest, counted, shared_content
from ssat.results.epochs import epochs_text
from ssat.results.labels import distinct_labels
from ssat.results.paper.paper import Experiment, Item
from ssat.results.paper.settings import (
    cell_words,
    deciding_settings,
    differing,
    fits,
    fixed_settings,
    place_of,
    start_words,
)
from ssat.results.paper.videos import TOTAL, official_videos
from ssat.results.paper.whole import lacks
from ssat.runs.record import Record
from ssat.runs.settings import START

# Keys that choose a part of the data: runs that differ in them never share a table, whatever its columns are.
PARTS_OF_DATA = (
    "data.fraction",
    "data.samples_per_class",
    "data.label_fraction",
    "data.val_fraction",
    "data.group",
    "data.classes",
    "data.subset",
    "data.protocol",
)
FOLLOWS_DATA = re.compile(r"encoder\.(img_size|patch_size|in_chans|strides|window_size|mask_unit|stem)")
# The keys that follow from a group's choice. Where the rows or columns of a table vary the group, runs of this table
# may differ in these keys.
FOLLOWS_GROUP = {
    "encoder": ("encoder.", "ssl."),
    "data": ("data.",),
    "mode": ("mode.", "ssl.", START),
    "ssl": ("ssl.",),
    "recipe": ("recipe.", "mode.ssl_recipe.", "epochs"),
    "input": ("data.img_size", "data.patch_size"),
    "trainer.accumulate": ("recipe.batch_size",),
}
# Measures that do not depend on the training, and the beginnings of the keys that they depend on.
OF_NETWORK = ("encoder.", "ssl.", "mode.name", "data.name", "data.img_size", "data.channels", "recipe.decoder")
RELEVANT_KEYS = {
    "params_inference": OF_NETWORK,
    "params_training": OF_NETWORK,
    "gflops": OF_NETWORK,
    "train_images": ("data.",),
    "test_images": ("data.",),
    "classes": ("data.",),
    "img_size": ("data.",),
    "videos": ("data.",),
}


@dataclass
class Block:
    """Runs that make one table.

    Attributes:
        title: the settings that all of them share; empty for runs of exactly the paper's configuration.
        records: by row and column.
    """

    title: str
    records: dict[tuple[str, str], list[Record]] = field(default_factory=lambda: defaultdict(list))

    @property
    def is_exact(self) -> bool:
        """Whether it holds the runs of exactly the paper's configuration."""
        return not self.title

    @property
    def columns(self) -> list[str]:
        """The columns that have a run."""
        return list(dict.fromkeys(column for _, column in self.records))

    @property
    def run_count(self) -> int:
        """How many runs it has; a run in two cells counts twice."""
        return sum(map(len, self.records.values()))


@dataclass
class Matches:
    """A table or figure with its runs.

    Attributes:
        item: the table or figure.
        exact: runs of exactly the paper's configuration.
        others: other runs of this table, such as smaller ones; a block for each setting.
        strays: runs of this table's experiment that fit none of its rows.
    """

    item: Item
    exact: Block = field(default_factory=lambda: Block(""))
    others: list[Block] = field(default_factory=list)
    strays: list[Record] = field(default_factory=list)


def match_runs(item: Item, records: Sequence[Record]) -> Matches:
    """Put the finished runs into the cells of `item`."""
    matches = Matches(item)
    if item.experiment.trains_nothing:
        return _counted(matches, records)
    if not item.experiment.rows:
        return matches
    others: dict[str, Block] = {}
    for record, row, columns in _with_places(item, records):
        if row is None:
            matches.strays += [record] * _is_own(record, item)
        elif not _add_exact(matches.exact, item, record, row, columns):
            _add_other(others, item, record, row, columns)
    matches.others = [*others.values()]
    matches.strays += [record for record in _keep_one_configuration(matches.others, item) if _is_own(record, item)]
    matches.strays = list(dict.fromkeys(matches.strays))
    _tell_apart(matches.others)
    return matches


def _counted(matches: Matches, records: Sequence[Record]) -> Matches:
    """The runs whose data were counted as the table counts them (Table 13), of them the one with the most videos."""
    of_videos = [cell for cell in matches.item.cells.values() if cell.measure == "videos"]
    found = (
        {record: total for record in records if (total := official_videos(record, TOTAL, TOTAL))} if of_videos else {}
    )
    for cell in of_videos:
        matches.exact.records[cell.row, cell.column] = [max(found, key=lambda record: found[record])] if found else []
    return matches


def _is_own(record: Record, item: Item) -> bool:
    """Whether the run was made for this table or figure."""
    return record.get("experiment") == item.name


def _with_places(item: Item, records: Sequence[Record]) -> Iterator[tuple[Record, str | None, list[str]]]:
    """Each finished run with its row (None: it fits none) and its columns; the experiment's own runs come first.

    They open the blocks that runs of other experiments may join.
    """
    places: dict[str, tuple[str | None, list[str]]] = {}  # of all runs that share their settings
    for record in sorted(filter(lambda r: r.finished, records), key=lambda r: not _is_own(r, item)):
        if record.settings_key not in places:
            places[record.settings_key] = place_of(record, item.experiment)
        yield record, *places[record.settings_key]


def _add_exact(exact: Block, item: Item, record: Record, row: str, columns: list[str]) -> bool:
    """Put a run into the cells that have exactly its configuration; whether one of them is judged by its training."""
    is_trained_cell = False
    if not fits(record, fixed_settings(tuple(item.experiment.base))):
        return False
    for column in columns:
        cell = item.cells.get((row, column))
        if cell is not None and _is_exact(record, item.experiment, row, column, cell.measure):
            exact.records[row, column].append(record)
            is_trained_cell = is_trained_cell or cell.measure not in RELEVANT_KEYS
    return is_trained_cell


def _add_other(others: dict[str, Block], item: Item, record: Record, row: str, columns: list[str]) -> None:
    """Put a run into the block of its settings; only a run of this experiment opens a new block."""
    is_own = _is_own(record, item)
    if not is_own and not others:
        return
    key = _block_key(record, item.experiment, bool(columns))
    if not is_own and key not in others:
        return
    block = others.setdefault(key, Block(_block_title(record, item.experiment, bool(columns))))
    for column in columns or [record.data]:
        block.records[row, column].append(record)


def _keep_one_configuration(blocks: Iterable[Block], item: Item) -> list[Record]:
    """Keep in every place of the blocks the runs of one configuration; the runs that were taken out."""
    taken_out = []
    for block in blocks:
        for place, records in block.records.items():
            block.records[place], rest = _one_configuration(records, item)
            taken_out += rest
    return taken_out


def _one_configuration(records: list[Record], item: Item) -> tuple[list[Record], list[Record]]:
    """The runs of one configuration, and the rest: one of this experiment comes first, then the one with most seeds."""
    groups: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        groups[repr(sorted(deciding_settings(record.settings_key).items(), key=str))].append(record)
    best = max(groups.values(), key=lambda group: (any(_is_own(record, item) for record in group), len(group)))
    return best, [record for group in groups.values() if group is not best for record in group]


def _tell_apart(blocks: list[Block]) -> None:
    """Add to equal titles of blocks the settings in which the blocks differ."""
    by_title: dict[str, list[Block]] = defaultdict(list)
    for block in blocks:
        by_title[block.title].append(block)
    for title, same in by_title.items():
        if len(same) < 2:
            continue
        first = [next(iter(block.records.values()))[0] for block in same]
        settings = [deciding_settings(record.settings_key) | _images_of(record) for record in first]
        for block, label in zip(same, distinct_labels(settings), strict=True):
            block.title = f"{title}; {label}" if label else title


def _images_of(record: Record) -> dict[str, Any]:
    """Where the run's own images lie and a mark of what they are, neither of which decides a published set's result."""
    found = {"data.root": record.get("config.data.root"), "data.content": content_digest(record)}
    return {key: value for key, value in found.items() if value}


def _varied_words(experiment: Experiment, has_column: bool) -> list[str]:
    """The overrides by which rows and columns differ; a run without a column has a column of its own data."""
    words = [word for each in (experiment.rows, experiment.cells) for found in each.values() for word in found]
    return words + [word for column in experiment.columns.values() for word in column] * has_column


def _block_key(record: Record, experiment: Experiment, has_column: bool) -> str:
    """What the runs of one block share."""
    words = _varied_words(experiment, has_column)
    varied = {_key_of(word) for word in words}
    follow = tuple(prefix for key in varied for prefix in FOLLOWS_GROUP.get(key, (key,)))
    varies_data = bool(varied & {"data", "input"})

    def is_shared(key: str) -> bool:
        if varies_data and FOLLOWS_DATA.fullmatch(key):
            return False
        if key.startswith("mode.phases."):  # an override of one phase alone, which no row makes
            return True
        return (key in PARTS_OF_DATA and key not in varied) or not key.startswith(follow)

    shared = {key: value for key, value in deciding_settings(record.settings_key).items() if is_shared(key)}
    shared["trainer.max_steps"] = record.get("config.trainer.max_steps")  # a run that was cut short stands apart
    if not has_column:
        shared["content"] = shared_content(record)
    return repr(sorted(shared.items(), key=str))


def _block_title(record: Record, experiment: Experiment, has_column: bool) -> str:
    """What the runs of one block share, in words."""
    varied = {_key_of(word) for word in _varied_words(experiment, has_column)}
    images, epochs = record.number("data_fingerprint.splits.train"), epochs_text(record, last=True)
    noun = counted([record])
    recipe = record.text("config.recipe.name")
    has_all_images = has_column and record.get("config.data.fraction") == 1 and "data" in varied
    parts = [] if has_column else [record.data]
    if "encoder" not in varied:
        parts.append(record.encoder)
    if images and not has_all_images:
        parts.append(f"{images:,.0f} training {noun}")
    if epochs and "epochs" not in varied:
        parts.append(epochs)
    if recipe not in ("", "official") and "recipe" not in varied:
        parts.append(f"recipe {recipe}")
    return ", ".join(parts) or "other settings"


def _key_of(word: str) -> str:
    return word.split("=")[0].lstrip("+~")


def _is_exact(record: Record, experiment: Experiment, row: str, column: str, measure: str) -> bool:
    """Whether the run has exactly the cell's configuration; for size and cost, whether it has the cell's network.

    The record's `faithful` is not asked: it speaks of the paper as a whole, and a cell may ask for a part of the data
    (Figure 5).
    """
    relevant = RELEVANT_KEYS.get(measure)
    if relevant is None and lacks(record):
        return False
    words, start = cell_words(experiment, row, column), start_words(experiment, row, column)
    if differing(record.settings_key, words, start, relevant or ("",)):
        return False
    return relevant is not None or not start or record.get("inputs.start.complete") is True
