"""Which runs may be compared, how sure a difference is, and one sentence on what a comparison shows."""

from __future__ import annotations

import hashlib
import json
import math
import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ssat.results.epochs import last_phase_epochs
from ssat.results.labels import distinct_labels
from ssat.results.modes import mode_name
from ssat.runs.faithful import PAPER_EPOCHS
from ssat.runs.record import Record, as_number

Z95 = 1.959964  # of the normal distribution, two-sided 95 %
CAVEAT = "Keep in mind: "


@dataclass(frozen=True)
class Arm:
    """The runs of one configuration; only their seeds differ.

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

    @property
    def scored(self) -> list[Record]:
        """The finished runs with an accuracy, one for each seed: a run that was made twice counts once."""
        by_seed = {record.get("seed"): record for record in self.records if record.finished}
        return [record for record in by_seed.values() if record.accuracy is not None]

    @property
    def accuracies(self) -> list[float]:
        """Top-1 accuracy in percent, one for each seed."""
        return [record.accuracy for record in self.scored if record.accuracy is not None]

    @property
    def accuracy(self) -> float:
        """Mean top-1 accuracy over the seeds, in percent."""
        return statistics.fmean(self.accuracies)

    @property
    def deviation(self) -> float | None:
        """Standard deviation over the seeds in points; None for one seed."""
        return statistics.stdev(self.accuracies) if len(self.accuracies) > 1 else None

    def mean(self, key: str) -> float | None:
        """Mean over the scored runs of the number at a dotted key; None where no run has it."""
        numbers = [number for record in self.scored if (number := record.number(key)) is not None]
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
        variants = distinct_labels([settings[id(members[0])] for members in groups], skip=("mode.", "ssl."))
        for members, variant in zip(groups, variants, strict=True):
            found.append(Comparison(data, encoder, variant, _arms(members, settings)))
    return found


def finished_comparisons(records: Sequence[Record]) -> list[Comparison]:
    """The comparisons of the finished runs alone."""
    return comparisons([record for record in records if record.finished])


def shared_settings(record: Record) -> dict[str, Any]:
    """A run's settings without those of its mode and its SSL task."""
    return {key: value for key, value in record.settings.items() if not key.startswith(("mode.", "ssl."))}


def _arms(records: list[Record], settings: dict[int, dict[str, Any]]) -> list[Arm]:
    modes: dict[str, dict[str, list[Record]]] = defaultdict(lambda: defaultdict(list))
    for record in records:
        modes[record.mode][record.computed_key].append(record)
    arms = []
    for mode, groups in modes.items():
        variants = distinct_labels([settings[id(members[0])] for members in groups.values()])
        arms += [Arm(mode, variant, members) for members, variant in zip(groups.values(), variants, strict=True)]
    return arms


def _split_by_content(records: list[Record], settings: dict[int, dict[str, Any]]) -> list[list[Record]]:
    """Runs on the same images together: a folder with other images in it is another data set."""
    digests = [content_digest(record) for record in records]
    known = list(dict.fromkeys(filter(None, digests)))
    if len(known) < 2:
        return [records]
    for record, digest in zip(records, digests, strict=True):
        settings[id(record)]["data.content"] = digest or known[0]  # a failed run may not know its images
    return [[r for r in records if settings[id(r)]["data.content"] == digest] for digest in known]


def content_digest(record: Record) -> str:
    """Six digits of the hash of the run's images; empty where the record has none."""
    content = record.get("data_fingerprint.sha256")
    if not content:
        return ""
    text = json.dumps({"": content}, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:6]


@dataclass(frozen=True)
class Difference:
    """One accuracy minus another.

    Attributes:
        points: the difference in percentage points.
        uncertainty: half the width of its 95 % interval; None where the number of test images is unknown.
    """

    points: float
    uncertainty: float | None

    @property
    def is_noise(self) -> bool:
        """Whether the difference may be chance: it is within its interval, or the interval is unknown."""
        return self.uncertainty is None or abs(self.points) <= self.uncertainty

    def __str__(self) -> str:
        margin = "" if self.uncertainty is None else f" ± {self.uncertainty:.1f}"
        if round(abs(self.points), 1) == 0:
            return f"0.0{margin} points from"
        return f"{abs(self.points):.1f}{margin} points {'above' if self.points > 0 else 'below'}"


def arm_difference(a: Arm, b: Arm) -> Difference:
    """The mean accuracy of `a` minus that of `b`."""
    images_a, images_b = a.scored[0].split_size, b.scored[0].split_size
    return mean_difference((a.accuracies, images_a), (b.accuracies, images_b))


def mean_difference(a: tuple[Sequence[float], int | None], b: tuple[Sequence[float], int | None]) -> Difference:
    """The mean of the accuracies `a` minus the mean of the accuracies `b`.

    Args:
        a: accuracies in percent, one for each seed, and the number of images that they were measured on.
        b: the same of the other side.
    """
    points = statistics.fmean(a[0]) - statistics.fmean(b[0])
    variances = [variance_of_mean(accuracies, images) for accuracies, images in (a, b) if images]
    return Difference(points, Z95 * math.sqrt(sum(variances)) if len(variances) == 2 else None)


def variance_of_mean(accuracies: Sequence[float], images: int) -> float:
    """Variance of the mean of accuracies in percent: the binomial one of the images plus that of the seeds' mean.

    Two images are added to the count, one right and one wrong (Agresti & Caffo 2000): intervals near 0 and 100 % would
    be too narrow without them. Two runs see the same test images; this is ignored, so intervals are a little wide.
    """
    p = (statistics.fmean(accuracies) / 100 * images + 1) / (images + 2)
    of_seeds = statistics.variance(accuracies) / len(accuracies) if len(accuracies) > 1 else 0.0
    return 1e4 * p * (1 - p) / (images + 2) + of_seeds


def wilson_interval(arm: Arm) -> tuple[float, float] | None:
    """Wilson's 95 % interval of the arm's accuracy in percent, from the number of test images alone."""
    images = arm.scored[0].split_size
    if images is None:
        return None
    p, spread = arm.accuracy / 100, Z95**2 / images
    centre = p + spread / 2
    half = math.sqrt(spread * p * (1 - p) + spread**2 / 4)
    return 100 * max(0.0, (centre - half) / (1 + spread)), 100 * min(1.0, (centre + half) / (1 + spread))


def finding(records: Sequence[Record]) -> str:
    """What a comparison shows: SSAT against scratch and SSL+FT, how sure that is, and what to keep in mind."""
    found = comparisons(records)
    if len(found) > 1:
        return " ".join(f"{comparison.title}: {finding(comparison.records)}" for comparison in found)
    arms = [arm for comparison in found for arm in comparison.arms if arm.scored]
    ssat = [arm for arm in arms if arm.mode == "ssat"]
    if not arms:
        return "No finished run with an accuracy to compare yet."
    if not ssat:
        return f"No finished SSAT run to compare with {_listed(arms)}."
    if len(ssat) > 1:
        return _finding_of_several(ssat, [arm for arm in arms if arm.mode != "ssat"])
    return _finding_of_one(ssat[0], [arm for arm in arms if arm.mode in ("scratch", "ssl_ft")])


def _finding_of_several(ssat: list[Arm], others: list[Arm]) -> str:
    low, high = min(arm.accuracy for arm in ssat), max(arm.accuracy for arm in ssat)
    against = f", beside {_listed(others)}" if others else ""
    return (
        f"{len(ssat)} settings of SSAT end between {low:.1f} and {high:.1f} %{against}; "
        "taking the best of them by test accuracy would be a selection, not a result."
    )


def _finding_of_one(ssat: Arm, others: list[Arm]) -> str:
    record = ssat.scored[0]
    split = "test" if record.split == "test" else "validation"
    on = f" on {record.split_size:,} {split} images" if record.split_size else ""
    best = " (best epoch, chosen on these very images)" if record.get("selection") == "max" else ""
    reached = f"SSAT reaches {ssat.accuracy:.1f} %{on}{best}"
    if not others:
        return f"{reached}; there is no finished scratch or SSL+FT run of the same settings to compare it with."
    differences = [(other, arm_difference(ssat, other)) for other in others]
    parts = [
        f"{difference} {other.name}{' (within the noise)' if _is_known_noise(difference) else ''}"
        for other, difference in differences
    ]
    sentence = f"{reached}: {' and '.join(parts)}."
    is_clear_win = all(difference.points > 0 and not difference.is_noise for _, difference in differences)
    return sentence if is_clear_win else f"{sentence} {_caveat(ssat)}"


def _is_known_noise(difference: Difference) -> bool:
    return difference.uncertainty is not None and difference.is_noise


def _caveat(ssat: Arm) -> str:
    """The facts of the record in which this run differs from the paper's."""
    record = ssat.scored[0]
    phase = record.phases[-1] if record.phases else {}
    epochs, lam = last_phase_epochs(record), as_number(phase.get("lam"))
    train = record.number("data_fingerprint.splits.train")
    facts = []
    interval, classes = wilson_interval(ssat), record.classes
    if interval and classes and interval[0] <= 100 / classes:
        facts.append(f"this is no better than guessing one of {classes} classes ({100 / classes:.3g} %)")
    if epochs is not None and epochs < PAPER_EPOCHS:
        images = f" on {train:,.0f} images" if train else ""
        facts.append(f"it trained {epochs:.0f} epochs{images} (the paper: {PAPER_EPOCHS} epochs)")
    if lam is not None and lam < 1:
        facts.append(f"the classification loss has a weight of only {lam:g}")
    if len(ssat.accuracies) == 1:
        facts.append("there is a single seed")
    return f"{CAVEAT}{', '.join(facts[:-1])}{' and ' * (len(facts) > 1)}{facts[-1]}." if facts else ""


def _listed(arms: list[Arm]) -> str:
    return ", ".join(f"{arm.name} {arm.accuracy:.1f} %" for arm in arms)
