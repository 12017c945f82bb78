"""Which runs may be compared, how sure a difference is, and one sentence on what a comparison shows."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ssat.core.words import many
from ssat.results.content import by_content, counted, draws_by_seed, labelled_images, unit
from ssat.results.epochs import last_phase_epochs
from ssat.results.intervals import ABOVE, NOISE, ONE_SEED, Difference, mean_difference, wilson_interval
from ssat.results.labels import distinct_labels
from ssat.results.modes import mode_name
from ssat.results.repeats import SeedRuns, by_seed, said_repeats
from ssat.runs.faithful import PAPER_EPOCHS
from ssat.runs.own_phases import COUNT, planned_phases
from ssat.runs.predictions import paired_variance
from ssat.runs.record import Record, as_number
from ssat.runs.settings import OF_MODE

CAVEAT = "Keep in mind: "
MOST_SETTINGS = 3  # of SSAT, whose differences one sentence can hold


@dataclass(frozen=True)
class Arm:
    """The runs of one configuration; only their seeds, and the folds of a cross-validation, differ.

    Attributes:
        mode: of all its runs.
        variant: the settings in which it differs from other arms of its mode; empty where there is no other arm.
        records: its runs, also those that failed.
    """

    mode: str
    variant: str
    records: list[Record]

    @property
    def name(self) -> str:
        """The mode's name and the variant: SSAT (lam=0.5)."""
        return mode_name(self.mode) + (f" ({self.variant})" if self.variant else "")

    @cached_property
    def seeds(self) -> list[SeedRuns]:
        """The finished runs with an accuracy by seed; of several runs of a seed the mean counts."""
        finished = [(record, record.accuracy) for record in self.records if record.finished]
        return by_seed((record, accuracy) for record, accuracy in finished if accuracy is not None)

    @cached_property
    def repeats(self) -> list[SeedRuns]:
        """The same as `seeds`; of images with several labels each, which have no accuracy, by their mAP."""
        key = "metrics.{split}.map.last"
        finished = [(record, record.number(key.format(split=record.split))) for record in self.records]
        measured = by_seed((record, value) for record, value in finished if record.finished and value is not None)
        return self.seeds or measured

    @property
    def scored(self) -> list[Record]:
        """The finished runs with an accuracy, those of one seed one after another; a copy of a record counts once."""
        return [record for each in self.seeds for record in each.records]

    @property
    def accuracies(self) -> list[float]:
        """Top-1 accuracy in percent, one for each seed."""
        return [each.mean for each in self.seeds]

    @property
    def accuracy(self) -> float:
        """Mean top-1 accuracy over the seeds, in percent."""
        return statistics.fmean(self.accuracies)

    @property
    def deviation(self) -> float | None:
        """Standard deviation over the seeds in points; None for one seed."""
        return statistics.stdev(self.accuracies) if len(self.accuracies) > 1 else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """Wilson's 95 % interval of the accuracy in percent, from the number of test images alone."""
        images = self.images
        return wilson_interval(self.accuracy, images) if images else None

    @property
    def images(self) -> int | None:
        """Images that the accuracy is measured on: of a cross-validation those of all folds."""
        first = self.scored[0]
        sizes = {record.fold: record.split_size for record in self.scored if record.get("seed") == first.get("seed")}
        known = [size for size in sizes.values() if size]
        return sum(known) if len(known) == len(sizes) else None

    @property
    def folds(self) -> set[int]:
        """The parts of a cross-validation that its finished runs were tested on; empty where it is none."""
        return {each.fold for each in self.repeats if each.fold is not None}

    @property
    def said_runs(self) -> str:
        """'3 seeds', '5 folds' or '5 folds, 3 seeds'."""
        folds = self.folds
        seeds = len({each.seed for each in self.repeats})
        parts = [f"{len(folds)} fold{'s' * (len(folds) > 1)}"] if folds else []
        return ", ".join(parts + [f"{seeds} seed{'s' * (seeds > 1)}"] * (seeds > 1 or not folds))

    def one_of(self, record: Record) -> str:
        """Which of the arm's runs it is: 'seed 0 of 2 seeds', or 'fold 1, seed 0 of 3 folds, 2 seeds'."""
        fold = "" if record.fold is None else f"fold {record.fold}, "
        return f"{fold}seed {record.text('seed')} of {self.said_runs}"

    def numbers(self, key: str) -> list[float]:
        """The numbers at a dotted key, one for each seed that has it; `{split}` in it is that of the accuracy."""
        of_seeds = [[record.number(key.format(split=record.split)) for record in each.records] for each in self.repeats]
        known = [[number for number in numbers if number is not None] for numbers in of_seeds]
        return [statistics.fmean(numbers) for numbers in known if numbers]

    def mean(self, key: str) -> float | None:
        """Mean over the seeds of the number at a dotted key; None where no run has it."""
        numbers = self.numbers(key)
        return statistics.fmean(numbers) if numbers else None


@dataclass(frozen=True)
class Comparison:
    """Runs that may be compared: they share data, encoder, recipe and epochs.

    Attributes:
        data: name of the data set.
        encoder: name of the encoder.
        variant: the settings in which it differs from other comparisons of this data set and encoder.
        arms: the configurations that are compared; they differ in the mode and its settings.
    """

    data: str
    encoder: str
    variant: str
    arms: list[Arm]

    @property
    def title(self) -> str:
        """Encoder, data set and variant: vit_t on cifar10, epochs=50."""
        return f"{self.encoder} on {self.data}" + (f", {self.variant}" if self.variant else "")

    @property
    def records(self) -> list[Record]:
        """The runs of all arms."""
        return [record for arm in self.arms for record in arm.records]

    def scored_arms(self, mode: str) -> list[Arm]:
        """The arms of one mode that have a finished run with an accuracy."""
        return [arm for arm in self.arms if arm.mode == mode and arm.scored]


def comparisons(records: Sequence[Record]) -> list[Comparison]:
    """The records in groups of runs that may be compared; groups and runs keep their order."""
    settings = {id(record): dict(record.settings) for record in records}
    by_pair: dict[tuple[str, str], dict[str, list[Record]]] = defaultdict(lambda: defaultdict(list))
    for record in records:
        by_pair[record.data, record.encoder][record.shared_key].append(record)
    found = []
    for (data, encoder), by_key in by_pair.items():
        groups = [part for members in by_key.values() for part in _split_by_content(members, settings)]
        variants = distinct_labels([settings[id(members[0])] for members in groups], skip=OF_MODE)
        for members, variant in zip(groups, variants, strict=True):
            found.append(Comparison(data, encoder, variant, _arms(members, settings)))
    return found


def finished_comparisons(records: Sequence[Record]) -> list[Comparison]:
    """The comparisons of the finished runs alone."""
    return comparisons([record for record in records if record.finished])


def shared_settings(record: Record) -> dict[str, Any]:
    """A run's settings without those of its mode, its SSL task and the run that it starts from."""
    return {key: value for key, value in record.settings.items() if not key.startswith(OF_MODE)}


def same_but_for(keys: Collection[str], records: Sequence[Record]) -> list[list[Comparison]]:
    """The comparisons of the finished runs, those together that differ in the settings `keys` alone."""
    groups: dict[str, list[Comparison]] = defaultdict(list)
    for found in finished_comparisons(records):
        settings = sorted((key, value) for key, value in shared_settings(found.records[0]).items() if key not in keys)
        groups[repr((found.data, found.encoder, settings))].append(found)
    return list(groups.values())


def _arms(records: list[Record], settings: dict[int, dict[str, Any]]) -> list[Arm]:
    modes: dict[str, dict[str, list[Record]]] = defaultdict(lambda: defaultdict(list))
    for record in records:
        modes[record.mode][record.computed_key].append(record)
    arms = []
    for mode, groups in modes.items():
        variants = distinct_labels([settings[id(members[0])] for members in groups.values()])
        first = settings[id(next(iter(groups.values()))[0])]
        if len(groups) == 1 and COUNT in first and planned_phases(mode):  # else it would bear the mode's bare name
            variants = [f"phases={first[COUNT]}"]
        arms += [Arm(mode, variant, members) for members, variant in zip(groups.values(), variants, strict=True)]
    return arms


def _split_by_content(records: list[Record], settings: dict[int, dict[str, Any]]) -> list[list[Record]]:
    """Runs on the same images together; their settings say which where there are several sets of images."""
    parts = by_content(records)
    if len(parts) < 2:
        return [records]
    for mark, members in parts:
        for record in members:
            settings[id(record)]["data.content"] = mark
    return [members for _, members in parts]


def arm_difference(a: Arm, b: Arm, *, comparisons: int = 1) -> Difference:
    """The mean accuracy of `a` minus that of `b`; `comparisons` as `mean_difference` has them."""
    sides = (a.accuracies, a.images), (b.accuracies, b.images)
    drawn = [[(each.seed, each.fold) for each in arm.seeds] for arm in (a, b) if draws_by_seed(arm.scored[0])]
    is_matched = len(drawn) == 2 and drawn[0] == drawn[1]
    paired = paired_variance(a.scored, b.scored)
    return mean_difference(*sides, comparisons=comparisons, paired=paired, matched=is_matched)


def finding(records: Sequence[Record]) -> str:
    """What a comparison shows: SSAT against scratch and SSL+FT, how sure that is, and what to keep in mind."""
    found = comparisons(records)
    if len(found) > 1:
        return " ".join(f"{comparison.title}: {finding(comparison.records)}" for comparison in found)
    arms = [arm for comparison in found for arm in comparison.arms if arm.scored]
    ssat = [arm for arm in arms if arm.mode == "ssat"]
    if not arms:
        return _finding_of_labels(found) or "No finished run with an accuracy to compare yet."
    if not ssat:
        return f"No finished SSAT run to compare with {_listed(arms)}."
    if len(ssat) > 1:
        return _finding_of_several(ssat, [arm for arm in arms if arm.mode != "ssat"])
    return _finding_of_one(ssat[0], [arm for arm in arms if arm.mode in ("scratch", "ssl_ft")])


def _finding_of_several(ssat: list[Arm], others: list[Arm]) -> str:
    low, high = min(arm.accuracy for arm in ssat), max(arm.accuracy for arm in ssat)
    against = f", beside {_listed(others)}" if others else ""
    plain = [arm for arm in others if arm.mode in ("scratch", "ssl_ft")]
    shown = ssat if plain and len(ssat) <= MOST_SETTINGS else []
    each = [f" {arm.name}: {_compared(_differences(arm, plain, len(ssat)))}." for arm in shown]
    return (
        f"{len(ssat)} settings of SSAT end between {low:.1f} and {high:.1f} %{against}; "
        f"taking the best of them by test accuracy would be a selection, not a result.{''.join(each)}"
    )


def _differences(ssat: Arm, others: list[Arm], settings: int = 1) -> list[tuple[Arm, Difference]]:
    """Of one of so many settings of SSAT, each of which is held to its share of the 5 %."""
    return [(other, arm_difference(ssat, other, comparisons=settings)) for other in others]


def _compared(differences: list[tuple[Arm, Difference]]) -> str:
    return " and ".join(f"{difference} {other.name}{_doubt(difference)}" for other, difference in differences)


def _finding_of_one(ssat: Arm, others: list[Arm]) -> str:
    record = ssat.scored[0]
    split = "test" if record.split == "test" else "validation"
    on = f" on {ssat.images:,} {split} {counted([record])}" if ssat.images else ""
    on += f" of {len(ssat.folds)} folds" if len(ssat.folds) > 1 else ""
    best = f" (best epoch, chosen on these very {counted([record])})" if record.get("selection") == "max" else ""
    reached = f"SSAT reaches {ssat.accuracy:.1f} %{on}{best}{_with_labels(record)}"
    if not others:
        return f"{reached}; there is no finished scratch or SSL+FT run of the same settings to compare it with."
    differences = _differences(ssat, others)
    sentence = f"{reached}: {_compared(differences)}.{_said_repeats([ssat, *others])}"
    is_clear_win = all(difference.sign == ABOVE for _, difference in differences)
    return sentence if is_clear_win else f"{sentence} {_caveat(ssat)}"


def _with_labels(record: Record) -> str:
    """', with labels of 14 of 1,437 training images'; empty where all have one."""
    known, train = labelled_images(record), record.number("data_fingerprint.splits.train")
    if not known or not train or known >= train:
        return ""
    return f", with labels of {known:,.0f} of {train:,.0f} training {counted([record])}"


def _said_repeats(arms: Sequence[Arm]) -> str:
    said = [f"{arm.name}, {text}" for arm in arms for text in said_repeats(arm.seeds)]
    return f" Counted by their mean: {'; '.join(said)}." if said else ""


def _doubt(difference: Difference) -> str:
    """What stands against a difference: it may be chance, and of a single seed the seeds' part is assumed."""
    if difference.uncertainty is None:
        return ""
    doubts = [NOISE] * difference.is_noise + [ONE_SEED] * difference.one_seed
    return f" ({', '.join(doubts)})" if doubts else ""


def _caveat(ssat: Arm) -> str:
    """The facts of the record in which this run differs from the paper's."""
    record = ssat.scored[0]
    phase = record.phases[-1] if record.phases else {}
    epochs, lam = last_phase_epochs(record), as_number(phase.get("lam"))
    train = record.number("data_fingerprint.splits.train")
    facts = []
    interval, classes = ssat.interval, record.classes
    if interval and classes and interval[0] <= 100 / classes:
        facts.append(f"this is no better than guessing one of {classes} classes ({100 / classes:.3g} %)")
    if epochs is not None and epochs < PAPER_EPOCHS:
        on = f" on {train:,.0f} {counted([record])}" + " in each fold" * (len(ssat.folds) > 1) if train else ""
        if size := record.number("config.data.epoch_size"):
            on = f" of {size:,.0f} {unit([record])}"
        facts.append(f"it trained {many(round(epochs), 'epoch')}{on} (the paper: {PAPER_EPOCHS} epochs)")
    if lam is not None and lam < 1:
        facts.append(f"the classification loss has a weight of only {lam:g}")
    if len(ssat.accuracies) == 1:
        facts.append("there is a single seed")
    return f"{CAVEAT}{', '.join(facts[:-1])}{' and ' * (len(facts) > 1)}{facts[-1]}." if facts else ""


def _finding_of_labels(found: Sequence[Comparison]) -> str:
    """The mAP of each arm whose images have several labels each; empty where there are none."""
    key, said = "metrics.{split}.map.last", []
    for arm in (arm for comparison in found for arm in comparison.arms):
        values = [record.number(key.format(split=record.split)) for record in arm.records if record.finished]
        if known := [value for value in values if value is not None]:
            said.append(f"{arm.name} {statistics.fmean(known):.4f}")
    return f"mAP of the last epoch, which no interval is known of: {', '.join(said)}." if said else ""


def _listed(arms: list[Arm]) -> str:
    return ", ".join(f"{arm.name} {arm.accuracy:.1f} %" for arm in arms)
