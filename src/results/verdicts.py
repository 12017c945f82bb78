"""What a cell's runs say beside the paper's number: ours, the difference, and whether that is a reproduction."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from src.results.cells import RELEVANT, Block, cell_words, composed, fill
from src.results.paper import Cell, Item
from src.results.record import Record, as_number, as_percentage, lookup, read_json
from src.results.summary import Z95, largest, variance

REPRODUCED, DIFFERS, PARTIAL = "reproduced within error", "differs", "partial data"
SAME = "as printed"  # of settings
MEASURED, OTHER_MACHINE, NOT_RUN, NOT_BUILT = "measured", "other machine", "not run", "not built yet"
NO_KEY = "no key"  # a setting that is no value of the configuration
VERDICTS = (REPRODUCED, SAME, DIFFERS, PARTIAL, MEASURED, OTHER_MACHINE, NO_KEY, NOT_RUN, NOT_BUILT)
PAPER_DEVICE = "A5000"
OF_MACHINE = ("hours", "co2_kg_lacoste")
MOST_SETTINGS = 20  # partial tables that are shown of a table or figure


@dataclass(frozen=True)
class Result:
    """One cell with what was measured for it; `ours` is None where nothing was."""

    cell: Cell
    verdict: str
    records: tuple[Record, ...] = ()
    values: tuple[float, ...] = ()  # one per seed
    setting: str = ""  # ours, under measure=setting
    tolerance: float | None = None  # half-width of the 95 % interval of ours minus the paper's

    @property
    def ours(self) -> float | None:
        return statistics.fmean(self.values) if self.values else None

    @property
    def deviation(self) -> float | None:
        """Standard deviation over the seeds; None for one seed."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None

    @property
    def difference(self) -> float | None:
        """Ours minus the paper's."""
        return None if self.ours is None or self.cell.number is None else self.ours - self.cell.number


@dataclass(frozen=True)
class Judged:
    """A table or figure with a verdict on every cell: the paper's configuration first, then blocks of other runs."""

    item: Item
    parts: list[tuple[Block, list[Result]]]
    strays: list[Record]  # runs of its experiment that stand in no row

    @property
    def paper(self) -> list[Result]:
        """Every cell of the paper's own configuration."""
        return self.parts[0][1]

    def find(self, row: str, column: str) -> Result | None:
        """The cell in the paper's own configuration."""
        return next((each for each in self.paper if (each.cell.row, each.cell.column) == (row, column)), None)


def shown_parts(judged: Judged) -> list[tuple[Block, list[Result]]]:
    """The paper's configuration and the other settings, of which those with most runs where there are too many."""
    return judged.parts[:1] + largest(judged.parts[1:], lambda part: _runs(part[0]), most=MOST_SETTINGS)


def _runs(block: Block) -> int:
    return sum(map(len, block.records.values()))


def judge(item: Item, records: Sequence[Record]) -> Judged:
    """Sort the runs into the cells of `item`, and say of each what it shows."""
    filled = fill(item, records)
    exact = filled.blocks[0]
    parts = [(exact, [result(cell, exact.records.get(place, []), item) for place, cell in item.cells.items()])]
    rank = {row: index for index, row in enumerate(item.rows)}
    for block in filled.blocks[1:]:
        cells = [
            partial(item.cells.get((row, column)) or Cell(item.name, row, column, "acc1", "%"), records_)
            for (row, column), records_ in block.records.items()
        ]
        parts.append((block, sorted(cells, key=lambda each: rank.get(each.cell.row, len(rank)))))
    return Judged(item, parts, filled.strays)


def result(cell: Cell, records: list[Record], item: Item) -> Result:
    """The verdict on a cell by the runs of its own configuration."""
    if cell.measure == "setting":
        return setting(cell, item)
    measured = _measured(cell, records)
    if not measured:
        return Result(cell, NOT_BUILT if item.experiment.unbuilt else NOT_RUN)
    runs, values = zip(*measured, strict=True)
    allowed = tolerance(cell, runs, values)
    if cell.number is None:
        verdict = MEASURED
    elif cell.measure in OF_MACHINE and not all(PAPER_DEVICE in run.text("hardware.device") for run in runs):
        verdict = OTHER_MACHINE
    elif allowed is None:
        verdict = MEASURED
    else:
        verdict = REPRODUCED if abs(statistics.fmean(values) - cell.number) <= allowed else DIFFERS
    return Result(cell, verdict, runs, values, tolerance=allowed)


def setting(cell: Cell, item: Item) -> Result:
    """What the cell's configuration sets beside what the paper prints; one without a key has nothing to compare."""
    if not cell.key or cell.row not in item.experiment.rows or cell.column not in item.experiment.columns:
        return Result(cell, NO_KEY)
    ours = composed(cell_words(item.experiment, cell.row, cell.column)).get(cell.key)
    return Result(cell, SAME if ours == cell.value else DIFFERS, setting=str(ours))


def partial(cell: Cell, records: list[Record]) -> Result:
    """A cell of smaller runs: shown, never judged."""
    measured = _measured(cell, records)
    if not measured:
        return Result(cell, NOT_RUN)
    runs, values = zip(*measured, strict=True)
    return Result(cell, PARTIAL, runs, values)


def _measured(cell: Cell, records: list[Record]) -> list[tuple[Record, float]]:
    """The runs with a value, one per seed; for what no seed changes, one."""
    by_seed = {record.get("seed"): record for record in records}
    found = [(run, value) for run in by_seed.values() if (value := measure(cell.measure, run)) is not None]
    return found[:1] if cell.measure in RELEVANT else found


def measure(name: str, record: Record) -> float | None:
    """A run's value of a measure, in the unit of the paper's tables; None where the run does not have it."""
    return MEASURES[name](record) if name in MEASURES else None


def _gflops(record: Record) -> float | None:
    """GMAC of the passes (Table 3: 0.43+1.26): the full one where labels are learned, else the auxiliary one."""
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
    """Mean accuracy on the perturbed test images, as src.evaluate left it beside the run."""
    try:
        values = read_json(record.folder / "evaluations" / "last-test-perspective.json")
    except ValueError:
        return None
    return as_percentage(lookup(values, "summary.acc1_mean"))


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
    """By how much ours may miss the paper's number and still be the same; None where that is unknown.

    An accuracy: 95 % of what the test images of both and the seeds explain (the paper's is one run, whose seeds are
    taken to vary as ours do). A size or cost: the paper's rounding, and 1 %. A count: nothing.
    """
    if cell.number is None:
        return None
    if cell.measure in ("acc1", "perspective"):
        images = runs[0].split_size
        if images is None:
            return None
        spread = statistics.variance(values) if len(values) > 1 else 0.0
        return Z95 * math.sqrt(variance(values, images) + variance([cell.number], images) + spread)
    if cell.measure in RELEVANT and cell.measure not in ("train_images", "test_images", "classes", "img_size"):
        decimals = len(cell.shown.partition(".")[2]) if cell.shown.replace(".", "").isdigit() else 2
        return max(0.5 * 10**-decimals, 0.01 * cell.number) + 1e-9
    if cell.measure in OF_MACHINE:
        return 0.05 * cell.number
    return 0.0
