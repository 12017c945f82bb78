"""What the runs of a cell say beside the paper's number: ours, the difference, and whether that is a reproduction."""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from ssat.results.content import is_of_videos
from ssat.results.intervals import ONE_SEED, image_variance, next_run_margin, normal_quantile
from ssat.results.paper.matching import RELEVANT_KEYS, Block, match_runs
from ssat.results.paper.measures import measure, why_not
from ssat.results.paper.paper import Cell, Item
from ssat.results.paper.settings import Setting, cell_settings, cell_words, differing, start_words
from ssat.results.paper.videos import detection, is_whole_test, remark, scored
from ssat.results.paper.whole import lacks, unverified_weights
from ssat.results.repeats import SeedRuns, by_seed
from ssat.results.text import distinct, largest
from ssat.runs.record import Record, as_number

REPRODUCED, DIFFERS = "reproduced within error", "differs"
TOO_NOISY = "too noisy to tell"
PARTIAL, OTHER = "partial data", "other settings"  # of runs that are not the cell's
SAME, OTHERWISE = "as printed", "set otherwise"  # of settings, which no run measures
MEASURED, OTHER_MACHINE, NOT_RUN = "measured", "other machine", "not run"
NOT_OURS = "not trained here"  # a network of other people that the framework does not have
NO_KEY = "no key"  # the paper prints a setting that no key of the configuration holds
VERDICTS = (
    *(REPRODUCED, DIFFERS, TOO_NOISY, ONE_SEED, PARTIAL, OTHER),
    *(MEASURED, OTHER_MACHINE, SAME, OTHERWISE, NO_KEY, NOT_RUN, NOT_OURS),
)
# Points; seeds that differ so much that a further run may lie further away than one seed alone lets us expect.
WIDEST = next_run_margin([0.0])
PAPER_DEVICE = "A5000"
OF_MACHINE = ("hours", "co2_kg_lacoste")
MACHINE_TOLERANCE = 0.05  # of the paper's hours and CO2: other drivers and versions on the same device
MACHINE_DEVIATION = 0.005  # of our own from seed to seed on one machine, assumed as SEED_DEVIATION is
LESS_DATA = ("data.fraction", "data.samples_per_class", "data.label_fraction", "data.val_fraction", "data.classes")
COUNTS = ("train_images", "test_images", "classes", "img_size", "videos")
ACCURACIES = ("acc1", "perspective", "zero_shot")
MOST_BLOCKS = 20  # blocks of other runs that are shown of one table or figure


@dataclass(frozen=True)
class CellResult:
    """One cell with what was measured for it.

    Attributes:
        cell: the paper's number and what it is of.
        verdict: one of VERDICTS.
        records: the runs that it was measured on, those of one seed one after another.
        values: what was measured, one for each seed.
        setting: our value, where the cell is a setting.
        tolerance: half the width of the 95 % interval of ours minus the paper's; of hours and CO2 5 %.
        differs_in: what runs that are not the cell's had less or otherwise.
        as_near: rows of the same column whose printed number the same interval holds.
        repeats: seeds of which several runs were made.
        remarks: what else limits the verdict, or why something measured does not count.
    """

    cell: Cell
    verdict: str
    records: tuple[Record, ...] = ()
    values: tuple[float, ...] = ()
    setting: str = ""
    tolerance: float | None = None
    differs_in: tuple[str, ...] = ()
    as_near: tuple[str, ...] = ()
    repeats: tuple[SeedRuns, ...] = ()
    remarks: tuple[str, ...] = ()

    @property
    def is_one_seed(self) -> bool:
        """Whether seeds could change the value, and there is one."""
        return len(self.values) == 1 and self.cell.measure not in RELEVANT_KEYS

    @property
    def own_margin(self) -> float | None:
        """How sure our own value is: half the width of the interval of a further run; None where that is unknown."""
        if self.cell.measure not in OF_MACHINE or self.ours is None:
            return self.tolerance
        return next_run_margin(self.values, deviation=MACHINE_DEVIATION * abs(self.ours))

    @property
    def ours(self) -> float | None:
        """Mean over the seeds; None where nothing was measured."""
        return statistics.fmean(self.values) if self.values else None

    @property
    def deviation(self) -> float | None:
        """Standard deviation over the seeds; None for one seed."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None

    @property
    def difference(self) -> float | None:
        """Ours minus the paper's; None where one of them is missing."""
        return None if self.ours is None or self.cell.number is None else self.ours - self.cell.number


class Part(NamedTuple):
    """A block of runs, and the results of its cells."""

    block: Block
    results: list[CellResult]

    @property
    def kind(self) -> str:
        """What runs that are not the paper's are: with less data or steps, or with other settings."""
        return PARTIAL if any(result.verdict == PARTIAL for result in self.results) else OTHER


@dataclass(frozen=True)
class Judged:
    """A table or figure with a verdict on every cell.

    Attributes:
        item: the table or figure.
        parts: the paper's configuration first, then the blocks of other runs.
        strays: runs of its experiment that fit none of its rows.
    """

    item: Item
    parts: list[Part]
    strays: list[Record]

    @property
    def exact(self) -> list[CellResult]:
        """Every cell with the runs of exactly the paper's configuration."""
        return self.parts[0].results

    @property
    def all_results(self) -> list[CellResult]:
        """Every cell of every block."""
        return [result for part in self.parts for result in part.results]

    @property
    def has_runs(self) -> bool:
        """Whether any run belongs to it."""
        return bool(self.strays) or any(result.records for result in self.all_results)

    @property
    def is_settings(self) -> bool:
        """Whether its cells are settings of the configuration, which need no run (Table 14)."""
        return bool(self.exact) and all(result.cell.measure == "setting" for result in self.exact)

    @property
    def shown_parts(self) -> list[Part]:
        """The paper's configuration, and the blocks of other runs with the most runs where there are too many."""
        return self.parts[:1] + largest(self.parts[1:], lambda part: part.block.run_count, most=MOST_BLOCKS)

    def find(self, row: str, column: str) -> CellResult | None:
        """The cell with the runs of exactly the paper's configuration."""
        return next((each for each in self.exact if (each.cell.row, each.cell.column) == (row, column)), None)


def judge(item: Item, records: Sequence[Record]) -> Judged:
    """Put the runs into the cells of `item`, and say what they show."""
    matches = match_runs(item, records)
    exact = [judge_cell(cell, matches.exact.records.get(place, []), item) for place, cell in item.cells.items()]
    exact = [replace(result, as_near=_as_near(result, item)) for result in exact]
    others = [Part(block, _partial_results(block, item)) for block in matches.others]
    return Judged(item, [Part(matches.exact, exact), *others], matches.strays)


def _as_near(result: CellResult, item: Item) -> tuple[str, ...]:
    """The other rows of its column that a reproduced accuracy would reproduce as well."""
    cell, ours, allowed = result.cell, result.ours, result.tolerance
    if result.verdict != REPRODUCED or cell.measure not in ACCURACIES or ours is None or allowed is None:
        return ()
    others = [other for (row, column), other in item.cells.items() if column == cell.column and row != cell.row]
    return tuple(each.row for each in others if each.number is not None and abs(each.number - ours) <= allowed)


def _partial_results(block: Block, item: Item) -> list[CellResult]:
    rank = {row: index for index, row in enumerate(item.rows)}
    results = [
        partial_result(item.cells.get((row, column)) or Cell(item.name, row, column, "acc1", "%"), records, item)
        for (row, column), records in block.records.items()
    ]
    return sorted(results, key=lambda each: rank.get(each.cell.row, len(rank)))


def judge_cell(cell: Cell, records: list[Record], item: Item) -> CellResult:
    """The verdict on a cell by the runs of exactly its configuration."""
    if cell.measure == "setting":
        return judge_setting(cell, item)
    seeds = _measured(cell, records)
    uncounted = tuple(distinct(filter(None, (why_not(cell, record) for record in records))))
    if not seeds:
        return CellResult(cell, NOT_RUN if item.experiment.has(cell) else NOT_OURS, remarks=uncounted)
    found = _of_seeds(cell, NOT_RUN, seeds)
    allowed = tolerance(cell, found.records, found.values)
    if _is_part(cell, found):
        verdict = PARTIAL
    elif cell.number is None or allowed is None:
        verdict = MEASURED
    elif cell.measure in OF_MACHINE and not all(PAPER_DEVICE in run.text("hardware.device") for run in found.records):
        verdict = OTHER_MACHINE
    else:
        verdict = compared(cell, found.values, allowed, images=measured_on(cell, found.records[0]))
    weights = [unverified_weights(run) for run in found.records] if cell.measure not in RELEVANT_KEYS else []
    remarks = (*found.remarks, *distinct(filter(None, weights)), *uncounted)
    return replace(found, verdict=verdict, tolerance=allowed, remarks=remarks)


def _is_part(cell: Cell, found: CellResult) -> bool:
    """Whether videos are missing that the paper has."""
    if cell.measure == "videos":
        return found.values[0] < (cell.number or 0.0)
    tested = [tested for run in found.records if (tested := _tested(cell, run))]
    return not all(map(is_whole_test, tested))


def _tested(cell: Cell, run: Record) -> Mapping[str, Any]:
    """What was measured of every test video of an accuracy; {} of other measures and of images."""
    if cell.measure == "zero_shot":
        return detection(run, cell.column)
    return detection(run) if cell.measure == "acc1" and is_of_videos(run) else {}


def measured_on(cell: Cell, run: Record) -> int | None:
    """Test images, or scored videos, that the cell's accuracy of a run is of."""
    found = _tested(cell, run)
    return scored(found) if found else run.split_size


def _of_seeds(cell: Cell, verdict: str, seeds: Sequence[SeedRuns]) -> CellResult:
    """A result with what the runs of each seed have measured."""
    runs = tuple(record for each in seeds for record in each.records)
    repeats = tuple(each for each in seeds if each.said)
    scores = tuple(distinct(filter(None, (remark(_tested(cell, run)) for run in runs))))
    values = tuple(each.mean for each in seeds)
    return CellResult(cell, verdict, runs, values, repeats=repeats, remarks=scores)


def compared(cell: Cell, values: Sequence[float], allowed: float, *, images: int | None = None) -> str:
    """What our values, one for each seed, say of the paper's number, of which `allowed` is the tolerance.

    A single run that is not within what its test `images` explain has only the assumed deviation of seeds to speak for
    it: nothing is concluded from that.
    """
    distance = abs(statistics.fmean(values) - (cell.number or 0.0))
    if distance > allowed:
        return DIFFERS
    if cell.measure not in ACCURACIES:
        return REPRODUCED
    if len(values) == 1 and images and distance > _image_margin(cell, values, images):
        return ONE_SEED
    return TOO_NOISY if next_run_margin(values) > WIDEST else REPRODUCED


def judge_setting(cell: Cell, item: Item) -> CellResult:
    """The value that the cell's configuration sets, compared with the value that the paper prints."""
    if not cell.key or not item.experiment.has(cell):
        return CellResult(cell, NO_KEY)
    ours = cell_settings(cell_words(item.experiment, cell.row, cell.column)).get(cell.key)
    return CellResult(cell, SAME if ours == cell.value else OTHERWISE, setting=str(ours))


def partial_result(cell: Cell, records: list[Record], item: Item) -> CellResult:
    """A cell with runs of another configuration, such as smaller ones: shown, never judged."""
    seeds = _measured(cell, records)
    if not seeds:
        return CellResult(cell, NOT_RUN)
    found = _of_seeds(cell, OTHER, seeds)
    run = found.records[0]
    less = list(lacks(run))
    if not item.experiment.has(cell):
        return replace(found, verdict=PARTIAL, differs_in=tuple(less or [f"{run.data} is no column of this table"]))
    words, start = (of(item.experiment, cell.row, cell.column) for of in (cell_words, start_words))
    settings = differing(run.settings_key, words, start)
    told = cell_settings(words)
    less += [each.text for each in settings if _is_less(each, run, told.get(each.key))]
    said = [*less, *(each.text for each in settings if each.text not in less)]
    return replace(found, verdict=PARTIAL if less else OTHER, differs_in=tuple(said))


def _is_less(setting: Setting, run: Record, wanted: object) -> bool:
    """Whether a setting leaves a part of the images or labels out that the cell does not leave out."""
    if setting.key not in LESS_DATA:
        return False
    ours = run.get(f"config.{setting.key}")
    if setting.key in ("data.fraction", "data.label_fraction"):
        share, whole = as_number(ours), as_number(wanted)
        return share is not None and whole is not None and share < whole
    return bool(ours)


def _measured(cell: Cell, records: list[Record]) -> list[SeedRuns]:
    """The runs with a value by seed; all together where the seed changes nothing."""
    pairs = [(run, value) for run in records if (value := measure(cell, run)) is not None]
    if cell.measure not in RELEVANT_KEYS:
        return by_seed(pairs)
    # Of runs that agree one is shown.
    return by_seed(pairs[:1] if len({value for _, value in pairs}) == 1 else pairs, seeded=False)


def _image_margin(cell: Cell, values: Sequence[float], images: int) -> float:
    """What the test images explain of the distance between our mean and the paper's number."""
    variance = image_variance(values, images) / len(values) + image_variance([cell.number or 0.0], images)
    return normal_quantile() * math.sqrt(variance)


def tolerance(cell: Cell, runs: tuple[Record, ...], values: tuple[float, ...]) -> float | None:
    """How far ours may be from the paper's number and still count as the same; None where that is unknown.

    An accuracy: where one further run of ours would lie in 95 of 100 cases, for the paper's number is one run. That is
    Student's t with the moderated variance of the seeds, and what the test images explain. A size or an operation
    count: the paper's rounding, or 1 % where that is more. Time and CO2: 5 %. A number of images, classes or pixels: 0.
    """
    if cell.number is None:
        return None
    if cell.measure in ACCURACIES:
        images = measured_on(cell, runs[0])
        if images is None:
            return None
        return math.hypot(_image_margin(cell, values, images), next_run_margin(values))
    if cell.measure in RELEVANT_KEYS and cell.measure not in COUNTS:
        printed = re.search(r"\d+\.?(\d*)", cell.shown)  # 2.8M and 0.43+1.26 have one and two decimals
        decimals = len(printed[1]) if printed else 2
        return max(0.5 * 10**-decimals, 0.01 * cell.number) + 1e-9
    if cell.measure in OF_MACHINE:
        return MACHINE_TOLERANCE * cell.number
    return 0.0
