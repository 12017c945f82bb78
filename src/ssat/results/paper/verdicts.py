"""What the runs of a cell say beside the paper's number: ours, the difference, and whether that is a reproduction."""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from ssat.config.identity import config_hash
from ssat.config.resolve import build
from ssat.core.errors import UserError
from ssat.results.intervals import ONE_SEED, SEED_DEVIATION, image_variance, next_run_margin, normal_quantile
from ssat.results.paper.matching import PARTS_OF_DATA, RELEVANT_KEYS, Block, match_runs
from ssat.results.paper.paper import Cell, Item
from ssat.results.paper.settings import Setting, cell_settings, cell_words, differing
from ssat.results.text import largest
from ssat.runs.record import Record, as_number, as_percentage, lookup, read_json

REPRODUCED, DIFFERS = "reproduced within error", "differs"
TOO_NOISY = "too noisy to tell"
PARTIAL, OTHER = "partial data", "other settings"  # of runs that are not the cell's
SAME, OTHERWISE = "as printed", "set otherwise"  # of settings, which no run measures
MEASURED, OTHER_MACHINE, NOT_RUN, NOT_BUILT = "measured", "other machine", "not run", "not built yet"
NO_KEY = "no key"  # the paper prints a setting that no key of the configuration holds
VERDICTS = (
    *(REPRODUCED, DIFFERS, TOO_NOISY, ONE_SEED, PARTIAL, OTHER),
    *(MEASURED, OTHER_MACHINE, SAME, OTHERWISE, NO_KEY, NOT_RUN, NOT_BUILT),
)
WIDEST = 5.0  # points; an interval that is wider on either side says nothing
PAPER_DEVICE = "A5000"
OF_MACHINE = ("hours", "co2_kg_lacoste")
# The settings of the command that measures Table 2's perspective cells.
PERSPECTIVE = {
    "checkpoint": "last",
    "split": "test",
    "phase": "",
    "probe": "",
    "data.perturb": "perspective",
    "seeds": "5",
}
COUNTS = ("train_images", "test_images", "classes", "img_size")
ACCURACIES = ("acc1", "perspective")
MOST_BLOCKS = 20  # blocks of other runs that are shown of one table or figure


@dataclass(frozen=True)
class CellResult:
    """One cell with what was measured for it.

    Attributes:
        cell: the paper's number and what it is of.
        verdict: one of VERDICTS.
        records: the runs that it was measured on.
        values: what was measured, one for each seed.
        setting: our value, where the cell is a setting.
        tolerance: half the width of the 95 % interval of ours minus the paper's.
        differs_in: the settings in which runs that are not the cell's differ from it.
        as_near: rows of the same column whose printed number the same interval holds.
    """

    cell: Cell
    verdict: str
    records: tuple[Record, ...] = ()
    values: tuple[float, ...] = ()
    setting: str = ""
    tolerance: float | None = None
    differs_in: tuple[str, ...] = ()
    as_near: tuple[str, ...] = ()

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
    measured = _measured(cell, records)
    if not measured:
        return CellResult(cell, NOT_BUILT if item.experiment.unbuilt else NOT_RUN)
    runs, values = zip(*measured, strict=True)
    allowed = tolerance(cell, runs, values)
    if cell.number is None:
        verdict = MEASURED
    elif cell.measure in OF_MACHINE and not all(PAPER_DEVICE in run.text("hardware.device") for run in runs):
        verdict = OTHER_MACHINE
    elif allowed is None:
        verdict = MEASURED
    else:
        verdict = compared(cell, values, allowed)
    return CellResult(cell, verdict, runs, values, tolerance=allowed)


def compared(cell: Cell, values: Sequence[float], allowed: float) -> str:
    """What our values, one for each seed, say of the paper's number, of which `allowed` is the tolerance."""
    distance = abs(statistics.fmean(values) - (cell.number or 0.0))
    if cell.measure not in ACCURACIES:
        return REPRODUCED if distance <= allowed else DIFFERS
    if distance <= allowed:
        return REPRODUCED if allowed <= WIDEST else TOO_NOISY
    # One run on either side: the difference may also be that of two seeds.
    of_seeds = normal_quantile() * SEED_DEVIATION * math.sqrt(2)
    return ONE_SEED if len(values) == 1 and distance <= math.hypot(allowed, of_seeds) else DIFFERS


def judge_setting(cell: Cell, item: Item) -> CellResult:
    """The value that the cell's configuration sets, compared with the value that the paper prints."""
    if not cell.key or cell.row not in item.experiment.rows or cell.column not in item.experiment.columns:
        return CellResult(cell, NO_KEY)
    ours = cell_settings(cell_words(item.experiment, cell.row, cell.column)).get(cell.key)
    return CellResult(cell, SAME if ours == cell.value else OTHERWISE, setting=str(ours))


def partial_result(cell: Cell, records: list[Record], item: Item) -> CellResult:
    """A cell with runs of another configuration, such as smaller ones: shown, never judged."""
    measured = _measured(cell, records)
    if not measured:
        return CellResult(cell, NOT_RUN)
    runs, values = zip(*measured, strict=True)
    if cell.row not in item.experiment.rows or cell.column not in item.experiment.columns:
        return CellResult(cell, PARTIAL, runs, values)
    differs_in = differing(runs[0].settings_key, cell_words(item.experiment, cell.row, cell.column))
    return CellResult(
        cell,
        PARTIAL if _is_less(runs[0], differs_in) else OTHER,
        runs,
        values,
        differs_in=tuple(each.text for each in differs_in),
    )


def _is_less(record: Record, differs_in: Sequence[Setting]) -> bool:
    """Whether a run had less than the cell: a part of the images, or an early end."""
    is_cut = record.get("config.trainer.max_steps") or record.get("skipped_images")
    keys = {setting.key for setting in differs_in}
    return bool(is_cut or keys & {*PARTS_OF_DATA, "data.name", "data.source.kind"} or not keys)


def _measured(cell: Cell, records: list[Record]) -> list[tuple[Record, float]]:
    """The runs with a value, one for each seed; a single run where the seed changes nothing."""
    by_seed = {record.get("seed"): record for record in records}
    found = [(run, value) for run in by_seed.values() if (value := measure(cell.measure, run)) is not None]
    return found[:1] if cell.measure in RELEVANT_KEYS else found


def measure(name: str, record: Record) -> float | None:
    """A run's value of a measure, in the unit of the paper's tables; None where the run does not have it."""
    return MEASURES[name](record) if name in MEASURES else None


def _gflops(record: Record) -> float | None:
    """GMAC of the passes of all phases (Table 3: 0.43+1.26).

    A phase that learns only labels has the full pass, one without labels the auxiliary pass, a joint one both.
    """
    total = 0.0
    for phase in record.phases:
        lam = as_number(phase.get("lam"))
        if lam is None:
            return None
        key = "full" if lam == 1 else "auxiliary" if lam == 0 else "both"
        macs = as_number(lookup(phase, f"macs.{key}"))
        if macs is None:
            return None
        total += macs / 1e9
    return total or None


def _hours(record: Record) -> float | None:
    """Hours times devices."""
    seconds = record.number("seconds")
    devices = record.number("hardware.processes") if record.get("hardware.accelerator") == "cuda" else 1
    return None if seconds is None else seconds / 3600 * (devices or 1)


def _perspective(record: Record) -> float | None:
    """Mean accuracy on the perturbed test images, from the file that src.evaluate has written beside the run.

    Only of this run, its last weights, all its test images and the command's own perturbation.
    """
    try:
        values = read_json(record.folder / "evaluations" / "last-test-perspective.json")
    except ValueError:
        return None
    settings = lookup(values, "settings")
    settings = settings if isinstance(settings, dict) else {}
    said, overrides = {key: settings.get(key) for key in PERSPECTIVE}, settings.get("overrides") or []
    is_own = lookup(values, "hash") in (record.get("hash"), _hash_now(record))
    on_all = lookup(values, "data_fingerprint.splits.test") == record.get("data_fingerprint.splits.test")
    content = lookup(values, "data_fingerprint.sha256.test") == record.get("data_fingerprint.sha256.test")
    if not (is_own and on_all and content and said == PERSPECTIVE) or any(map(_changes_images, overrides)):
        return None
    return as_percentage(lookup(values, "summary.acc1_mean"))


def _changes_images(override: Any) -> bool:
    return not isinstance(override, str) or (override.startswith("data.") and not override.startswith("data.root="))


def _hash_now(record: Record) -> str | None:
    """The run's hash by today's rule, where an earlier version has written its record."""
    try:
        return config_hash(build(record.get("config"), str(record.path)))
    except (UserError, TypeError, AttributeError):
        return None


def _scaled(key: str, factor: float) -> Callable[[Record], float | None]:
    def read(record: Record) -> float | None:
        value = record.number(key)
        return None if value is None else value / factor

    return read


MEASURES: dict[str, Callable[[Record], float | None]] = {
    "acc1": lambda record: record.accuracy,
    "perspective": _perspective,
    "params_inference": _scaled("params.inference", 1e6),
    "params_training": _scaled("params.training", 1e6),
    "gflops": _gflops,
    "hours": _hours,
    "co2_kg_lacoste": lambda record: record.number("energy.co2_kg_lacoste"),
    "train_images": lambda record: record.number("data_fingerprint.splits.train"),
    "test_images": lambda record: record.number("data_fingerprint.splits.test"),
    "classes": lambda record: record.classes,
    "img_size": lambda record: record.number("config.data.img_size"),
}


def tolerance(cell: Cell, runs: tuple[Record, ...], values: tuple[float, ...]) -> float | None:
    """How far ours may be from the paper's number and still count as the same; None where that is unknown.

    An accuracy: where one further run of ours would lie in 95 of 100 cases (Student's t), for the paper's number is one
    run; of a single seed, and at least, what the test images explain. A size or an operation count: the paper's
    rounding, or 1 % where that is more. Time and CO2: 5 %. A number of images, classes or pixels: 0.
    """
    if cell.number is None:
        return None
    if cell.measure in ACCURACIES:
        images = runs[0].split_size
        if images is None:
            return None
        of_images = image_variance(values, images) / len(values) + image_variance([cell.number], images)
        of_seeds = next_run_margin(values) if len(values) > 1 else 0.0
        return max(normal_quantile() * math.sqrt(of_images), of_seeds)
    if cell.measure in RELEVANT_KEYS and cell.measure not in COUNTS:
        printed = re.search(r"\d+\.?(\d*)", cell.shown)  # 2.8M and 0.43+1.26 have one and two decimals
        decimals = len(printed[1]) if printed else 2
        return max(0.5 * 10**-decimals, 0.01 * cell.number) + 1e-9
    if cell.measure in OF_MACHINE:
        return 0.05 * cell.number
    return 0.0
