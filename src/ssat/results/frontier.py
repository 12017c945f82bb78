"""Where joint training begins to pay: SSAT minus scratch against the number of images and of optimizer steps."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from rich import box
from rich.markup import escape
from rich.table import Table

from ssat.results.comparisons import Arm, Comparison, arm_difference, same_but_for
from ssat.results.intervals import ABOVE, BELOW, Difference
from ssat.results.labels import distinct_labels
from ssat.results.modes import mode_name
from ssat.runs.record import Record
from ssat.runs.settings import OF_MODE

VARIED = ("data.samples_per_class", "data.fraction", "epochs", "eval_every")  # what makes other images and steps
STYLES = {ABOVE: "green", BELOW: "red"}


class Place(NamedTuple):
    """Distinct training images, and optimizer steps from scratch."""

    images: int
    steps: int


class Row(NamedTuple):
    """A line of the grid: so many images and scratch or a setting of SSAT; an entry for each number of steps."""

    images: int
    name: str
    entries: list[Difference | float | None]


@dataclass(frozen=True)
class Frontier:
    """A grid of one encoder on one data set, whose runs share all other settings.

    Attributes:
        title: encoder and data set.
        scratch: accuracy in percent from scratch, at each place.
        gains: for each setting of SSAT, at each place, its accuracy minus that.
    """

    title: str
    scratch: dict[Place, float]
    gains: dict[str, dict[Place, Difference]]

    @property
    def images(self) -> list[int]:
        """Numbers of training images, from few to many."""
        return sorted({place.images for place in self.scratch})

    @property
    def steps(self) -> list[int]:
        """Numbers of optimizer steps, from few to many."""
        return sorted({place.steps for place in self.scratch})

    @property
    def rows(self) -> Iterator[Row]:
        """For each number of images the accuracies from scratch, then what each setting of SSAT adds to them."""
        for images in self.images:
            places = [Place(images, steps) for steps in self.steps]
            yield Row(images, mode_name("scratch"), [self.scratch.get(place) for place in places])
            for name, gains in sorted(self.gains.items()):
                if any(place in gains for place in places):
                    yield Row(images, name, [gains.get(place) for place in places])


def frontiers(records: Sequence[Record]) -> list[Frontier]:
    """A grid for each group of finished runs with two numbers of images and two of steps or more."""
    found = [_frontier(group) for group in same_but_for(VARIED, records)]
    return [each for each in found if each.gains and len(each.images) > 1 and len(each.steps) > 1]


def _frontier(group: Sequence[Comparison]) -> Frontier:
    scratch: dict[Place, float] = {}
    gains: dict[str, dict[Place, Difference]] = defaultdict(dict)
    names = _names([arm for comparison in group for arm in comparison.scored_arms("ssat")])
    for comparison in group:
        bases = comparison.scored_arms("scratch")
        place = _place(bases[0]) if len(bases) == 1 else None
        if place is None or place in scratch:  # several of one place differ in more than this grid can show
            continue
        scratch[place] = bases[0].accuracy
        for arm in comparison.scored_arms("ssat"):
            gains[names[_of_mode(arm)]][place] = arm_difference(arm, bases[0])
    return Frontier(f"{group[0].encoder} on {group[0].data}", scratch, dict(gains))


def _place(arm: Arm) -> Place | None:
    """None where the record does not say."""
    images, steps = (arm.scored[0].number(key) for key in ("data_fingerprint.splits.train", "steps"))
    return Place(int(images), int(steps)) if images and steps else None


def _of_mode(arm: Arm) -> str:
    return repr(sorted(_settings_of_mode(arm).items()))


def _settings_of_mode(arm: Arm) -> dict[str, Any]:
    return {key: value for key, value in arm.scored[0].settings.items() if key.startswith(OF_MODE)}


def _names(arms: Sequence[Arm]) -> dict[str, str]:
    """A name for each setting of SSAT, the same in all places; comparisons name theirs by what they have."""
    settings = {_of_mode(arm): _settings_of_mode(arm) for arm in arms}
    labels = distinct_labels(list(settings.values()))
    mode = mode_name("ssat")
    return {key: f"{mode} ({label})" if label else mode for key, label in zip(settings, labels, strict=True)}


def shown(entry: Difference | float | None) -> str:
    """'50.3' from scratch, '+0.8 ± 2.9' of SSAT, and nothing where there is no run."""
    if isinstance(entry, Difference):
        margin = "" if entry.uncertainty is None else f" ± {entry.uncertainty:.1f}"
        return f"{entry.points:+.1f}{margin}"
    return "" if entry is None else f"{entry:.1f}"


def frontier_table(frontier: Frontier) -> Table:
    """Rows are images and settings, columns are steps: percent from scratch, and points that SSAT adds or costs."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False)
    table.add_column("images", justify="right")
    table.add_column("")
    for steps in frontier.steps:
        table.add_column(f"{steps:,} steps", justify="right")
    before = None
    for row in frontier.rows:
        entries = [f"[{STYLES[sign(each)]}]{shown(each)}[/]" if sign(each) else shown(each) for each in row.entries]
        table.add_row(f"{row.images:,}" if row.images != before else "", escape(row.name), *entries)
        before = row.images
    return table


def sign(entry: Difference | float | None) -> str:
    """above | below, where SSAT is that beyond the noise with several seeds; else empty."""
    return entry.sign if isinstance(entry, Difference) and entry.sign in STYLES else ""
