"""Which runs may be compared, and one honest sentence on what the comparison shows."""

from __future__ import annotations

import hashlib
import json
import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from src.results.record import Record, as_number

PAPER_EPOCHS = 100  # Table 14
LABELS = {
    "scratch": "scratch",
    "ssl_ft": "SSL+FT",
    "ssat": "SSAT",
    "finetune": "fine-tuning",
    "ssl": "SSL",
    "linear": "linear probe",
}
Z95 = 1.959964
CAVEAT = "Keep in mind: "
FEWER = "python -m src.report runs=<a folder with fewer runs>"  # what shows the things that are left out
T = TypeVar("T")


def label(mode: str) -> str:
    return LABELS.get(mode, mode)


@dataclass(frozen=True)
class Arm:
    """The runs of one configuration: they differ in nothing but the seed."""

    mode: str
    variant: str  # the settings in which it differs from the mode's other arms, else empty
    records: list[Record]

    @property
    def label(self) -> str:
        return label(self.mode) + (f" ({self.variant})" if self.variant else "")

    @property
    def scored(self) -> list[Record]:
        """The finished runs with an accuracy, one per seed: the same run made twice counts once."""
        by_seed = {record.get("seed"): record for record in self.records if record.finished}
        return [record for record in by_seed.values() if record.accuracy is not None]

    @property
    def accuracies(self) -> list[float]:
        """Top-1 accuracy in percent, one per seed."""
        return [record.accuracy for record in self.scored if record.accuracy is not None]

    @property
    def accuracy(self) -> float:
        return statistics.fmean(self.accuracies)

    @property
    def deviation(self) -> float | None:
        """Standard deviation over the seeds in points; None for one seed."""
        return statistics.stdev(self.accuracies) if len(self.accuracies) > 1 else None

    def mean(self, key: str) -> float | None:
        """Mean over the scored runs of the number at a dotted key."""
        numbers = [number for record in self.scored if (number := record.number(key)) is not None]
        return statistics.fmean(numbers) if numbers else None


@dataclass(frozen=True)
class Comparison:
    """Runs that share data, encoder, recipe and epochs: what differs is the mode, its settings and the seed."""

    data: str
    encoder: str
    variant: str  # the settings in which it differs from the other comparisons of this data and encoder
    arms: list[Arm]

    @property
    def title(self) -> str:
        return f"{self.encoder} on {self.data}" + (f", {self.variant}" if self.variant else "")

    @property
    def records(self) -> list[Record]:
        return [record for arm in self.arms for record in arm.records]

    def scored(self, mode: str) -> list[Arm]:
        return [arm for arm in self.arms if arm.mode == mode and arm.scored]


def comparisons(records: Sequence[Record]) -> list[Comparison]:
    """The records grouped by what may be compared, in the order in which they come."""
    settings = {id(record): dict(record.settings) for record in records}
    pairs: dict[tuple[str, str], dict[str, list[Record]]] = defaultdict(lambda: defaultdict(list))
    for record in records:
        pairs[record.data, record.encoder][record.shared_key].append(record)
    found = []
    for (data, encoder), by_key in pairs.items():
        groups = [part for members in by_key.values() for part in _split_by_content(members, settings)]
        variants = _variants([settings[id(members[0])] for members in groups], skip=("mode.", "ssl."))
        for members, variant in zip(groups, variants, strict=True):
            found.append(Comparison(data, encoder, variant, _arms(members, settings)))
    return found


def largest(items: Sequence[T], size: Callable[[T], int], *, most: int) -> list[T]:
    """The `most` items of the greatest size, in their own order."""
    kept = sorted(range(len(items)), key=lambda index: -size(items[index]))[:most]
    return [items[index] for index in sorted(kept)]


def shared_settings(record: Record) -> dict[str, Any]:
    """What a run computes, but for its mode, its SSL task and its seed."""
    return {key: value for key, value in record.settings.items() if not key.startswith(("mode.", "ssl."))}


def _arms(records: list[Record], settings: dict[int, dict[str, Any]]) -> list[Arm]:
    modes: dict[str, dict[str, list[Record]]] = defaultdict(lambda: defaultdict(list))
    for record in records:
        modes[record.mode][record.settings_key].append(record)
    arms = []
    for mode, groups in modes.items():
        variants = _variants([settings[id(members[0])] for members in groups.values()])
        arms += [Arm(mode, variant, members) for members, variant in zip(groups.values(), variants, strict=True)]
    return arms


def _split_by_content(records: list[Record], settings: dict[int, dict[str, Any]]) -> list[list[Record]]:
    """The same folder with other images in it is another data set; a failed run may not know its images."""
    contents = [record.get("data_fingerprint.sha256") for record in records]
    digests = [
        hashlib.sha256(json.dumps({"": content}, sort_keys=True, default=str).encode()).hexdigest()[:6]
        if content
        else ""
        for content in contents
    ]
    known = list(dict.fromkeys(filter(None, digests)))
    if len(known) < 2:
        return [records]
    for record, digest in zip(records, digests, strict=True):
        settings[id(record)]["data.content"] = digest or known[0]
    return [[r for r in records if settings[id(r)]["data.content"] == digest] for digest in known]


def shorten(text: str, most: int = 36) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _variants(groups: list[dict[str, Any]], *, skip: tuple[str, ...] = (), most: int = 3) -> list[str]:
    """For each group the settings in which it differs from the others, as 'lam=0.5, mask_ratio=0.6'."""
    keys = sorted({key for group in groups for key in group if not key.startswith(skip)})
    differing = [key for key in keys if len({str(group.get(key)) for group in groups}) > 1]
    names = []
    for group in groups:
        shown = {key.rpartition(".")[2]: group[key] for key in differing if key in group}
        listed = [shorten(f"{key}={value}") for key, value in list(shown.items())[:most]]
        names.append(", ".join(listed + [f"and {len(shown) - most} more"] * (len(shown) > most)))
    return names


@dataclass(frozen=True)
class Difference:
    """Accuracy of one arm minus another's, in points, with the half-width of its 95 % interval."""

    points: float
    uncertainty: float | None  # None when the number of test images is unknown

    @property
    def is_noise(self) -> bool:
        return self.uncertainty is None or abs(self.points) <= self.uncertainty

    def __str__(self) -> str:
        margin = "" if self.uncertainty is None else f" ± {self.uncertainty:.1f}"
        if round(abs(self.points), 1) == 0:
            return f"0.0{margin} points from"
        return f"{abs(self.points):.1f}{margin} points {'above' if self.points > 0 else 'below'}"


def difference(a: Arm, b: Arm) -> Difference:
    """`a` minus `b`, with the half-width of its interval."""
    return gap((a.accuracies, a.scored[0].split_size), (b.accuracies, b.scored[0].split_size))


def gap(a: tuple[Sequence[float], int | None], b: tuple[Sequence[float], int | None]) -> Difference:
    """Mean of the first accuracies (%, one per seed; and of how many images) minus that of the second."""
    points = statistics.fmean(a[0]) - statistics.fmean(b[0])
    variances = [variance(accuracies, images) for accuracies, images in (a, b) if images]
    return Difference(points, Z95 * math.sqrt(sum(variances)) if len(variances) == 2 else None)


def variance(accuracies: Sequence[float], images: int) -> float:
    """Of the mean of accuracies in percent, one per seed: binomial in the images, and that of the seeds' mean.

    The proportion is shrunk by two added images, one right and one wrong (Agresti & Caffo 2000), which keeps intervals
    honest near 0 and 100 %. Two runs see the same test images; ignoring that makes their interval a little wide.
    """
    p = (statistics.fmean(accuracies) / 100 * images + 1) / (images + 2)
    of_seeds = statistics.variance(accuracies) / len(accuracies) if len(accuracies) > 1 else 0.0
    return 1e4 * p * (1 - p) / (images + 2) + of_seeds


def interval(arm: Arm) -> tuple[float, float] | None:
    """Wilson's 95 % interval of the arm's accuracy in percent, from the number of images alone."""
    images = arm.scored[0].split_size
    if images is None:
        return None
    p, spread = arm.accuracy / 100, Z95**2 / images
    centre = p + spread / 2
    half = math.sqrt(spread * p * (1 - p) + spread**2 / 4)
    return 100 * max(0.0, (centre - half) / (1 + spread)), 100 * min(1.0, (centre + half) / (1 + spread))


def verdict(records: Sequence[Record]) -> str:
    """What one comparison shows: SSAT against scratch and SSL+FT, with the noise and the facts to read it by."""
    found = comparisons(records)
    if len(found) > 1:
        return " ".join(f"{comparison.title}: {verdict(comparison.records)}" for comparison in found)
    arms = [arm for comparison in found for arm in comparison.arms if arm.scored]
    ssat = [arm for arm in arms if arm.mode == "ssat"]
    if not arms:
        return "No finished run with an accuracy to compare yet."
    if not ssat:
        return f"No finished SSAT run to compare with {_listed(arms)}."
    if len(ssat) > 1:
        low, high = min(arm.accuracy for arm in ssat), max(arm.accuracy for arm in ssat)
        others = [arm for arm in arms if arm.mode != "ssat"]
        against = f", beside {_listed(others)}" if others else ""
        return (
            f"{len(ssat)} settings of SSAT end between {low:.1f} and {high:.1f} %{against}; "
            "taking the best of them by test accuracy would be a selection, not a result."
        )
    return _verdict(ssat[0], [arm for arm in arms if arm.mode in ("scratch", "ssl_ft")])


def _verdict(ssat: Arm, others: list[Arm]) -> str:
    record = ssat.scored[0]
    split = "test" if record.split == "test" else "validation"
    on = f" on {record.split_size:,} {split} images" if record.split_size else ""
    best = " (best epoch, chosen on these very images)" if record.get("selection") == "max" else ""
    reached = f"SSAT reaches {ssat.accuracy:.1f} %{on}{best}"
    if not others:
        return f"{reached}; there is no finished scratch or SSL+FT run of the same settings to compare it with."
    gaps = [(other, difference(ssat, other)) for other in others]
    parts = [f"{gap} {other.label}{_reading(gap)}" for other, gap in gaps]
    sentence = f"{reached}: {' and '.join(parts)}."
    return sentence if all(gap.points > 0 and not gap.is_noise for _, gap in gaps) else f"{sentence} {_why(ssat)}"


def _reading(gap: Difference) -> str:
    if gap.uncertainty is None:
        return ""
    return " (within the noise)" if gap.is_noise else ""


def _why(ssat: Arm) -> str:
    """The facts of the record that set this run apart from the paper's."""
    record = ssat.scored[0]
    phase = record.phases[-1] if record.phases else {}
    epochs, lam = as_number(phase.get("epochs")), as_number(phase.get("lam"))
    train = record.number("data_fingerprint.splits.train")
    facts = []
    span, classes = interval(ssat), record.classes
    if span and classes and span[0] <= 100 / classes:
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
    return ", ".join(f"{arm.label} {arm.accuracy:.1f} %" for arm in arms)
