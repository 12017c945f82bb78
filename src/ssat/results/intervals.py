"""How sure an accuracy of a few runs on some thousand images is: 95 % intervals of it and of differences."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

LEVEL = 0.05  # of two-sided intervals: 95 %
ABOVE, BELOW, NOISE, ONE_SEED = "above", "below", "within the noise", "one seed only"
# Points of deviation over seeds that are expected before any is seen, and how many degrees of freedom that counts as
# beside seeds that are, and alone (the moderated variance of Smyth 2004): choices, not measurements. With them at most
# 5 % of equal settings are called different while seeds deviate by up to 2 points, and few seeds that agree still tell
# something.
SEED_DEVIATION, SEED_FREEDOM, SINGLE_FREEDOM = 2.0, 3.0, 10.0


@cache
def normal_quantile(level: float = LEVEL) -> float:
    """Of the two-sided normal distribution: 1.96 at 5 %."""
    return statistics.NormalDist().inv_cdf(1 - level / 2)


@cache
def t_quantile(freedom: float, level: float = LEVEL) -> float:
    """Of Student's two-sided t distribution: 12.7 at one degree of freedom and 5 %, 2.78 at four."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, 1 - level / 2))


@dataclass(frozen=True)
class Difference:
    """One accuracy minus another.

    Attributes:
        points: the difference in percentage points.
        uncertainty: half the width of its interval; None where the number of test images is unknown.
        one_seed: whether a side has one seed, so that how much its seeds differ is assumed alone.
    """

    points: float
    uncertainty: float | None
    one_seed: bool = False

    @property
    def is_noise(self) -> bool:
        """Whether the difference may be chance: as printed it is within its interval, or the interval is unknown."""
        return self.uncertainty is None or round(abs(self.points), 1) <= round(self.uncertainty, 1)

    @property
    def sign(self) -> str:
        """above | below | within the noise | one seed only: what may be said of it."""
        if self.is_noise:
            return NOISE
        return ONE_SEED if self.one_seed else ABOVE if self.points > 0 else BELOW

    def __str__(self) -> str:
        margin = "" if self.uncertainty is None else f" ± {self.uncertainty:.1f}"
        if round(abs(self.points), 1) == 0:
            return f"0.0{margin} points from"
        return f"{abs(self.points):.1f}{margin} points {ABOVE if self.points > 0 else BELOW}"


def mean_difference(
    a: tuple[Sequence[float], int | None],
    b: tuple[Sequence[float], int | None],
    *,
    comparisons: int = 1,
    paired: float | None = None,
    matched: bool = False,
) -> Difference:
    """The mean of the accuracies `a` minus the mean of the accuracies `b`.

    The seeds' part of the interval is Student's t with the moderated variance of both sides (`seed_variance`), and the
    test images' part is added. Both sides see the same images: unless `paired` says on how many they disagree,
    intervals are a little wide.

    Args:
        a: accuracies in percent, one for each seed, and the number of images that they were measured on.
        b: the same of the other side.
        comparisons: of how many any one would do for a sentence; each is held to its share of the 5 % (Bonferroni).
            Where all of them must agree, each is held to 5 %.
        paired: variance of the difference by the images that the two sides disagree on, where that is known.
        matched: both sides have the same seeds in the same order, and a seed has drawn the same images for both. An
            easy draw is then easy for both, and the differences within seeds tell how much seeds differ.
    """
    points = statistics.fmean(a[0]) - statistics.fmean(b[0])
    one_seed = min(len(a[0]), len(b[0])) < 2
    if not a[1] or not b[1]:
        return Difference(points, None, one_seed)
    level = LEVEL / max(1, comparisons)
    of_images = paired if paired else image_variance(a[0], a[1]) + image_variance(b[0], b[1])
    if matched and not one_seed:
        within = [one - other for one, other in zip(a[0], b[0], strict=True)]
        variance, freedom = seed_variance(within, deviation=math.sqrt(2) * SEED_DEVIATION)
        of_seeds = t_quantile(freedom, level) ** 2 * variance / len(within)
    else:
        variance, freedom = seed_variance(a[0], b[0])
        of_seeds = t_quantile(freedom, level) ** 2 * variance * (1 / len(a[0]) + 1 / len(b[0]))
    return Difference(points, math.sqrt(normal_quantile(level) ** 2 * of_images + of_seeds), one_seed)


def seed_variance(*groups: Sequence[float], deviation: float = SEED_DEVIATION) -> tuple[float, float]:
    """Variance of one run over seeds, and its degrees of freedom: that of the `groups` moderated by an assumed one.

    Two seeds say little of how much seeds differ. So the squares of all groups are pooled with `deviation` as if that
    had been estimated with SEED_FREEDOM degrees of freedom (Smyth 2004, eq. 5), and each further seed adds one. Of
    single seeds it is `deviation` alone, which then counts as SINGLE_FREEDOM.
    """
    seen = float(sum(len(group) - 1 for group in groups))
    if not seen:
        return deviation**2, SINGLE_FREEDOM
    squares = sum(statistics.variance(group) * (len(group) - 1) for group in groups if len(group) > 1)
    freedom = SEED_FREEDOM + seen
    return (SEED_FREEDOM * deviation**2 + squares) / freedom, freedom


def image_variance(accuracies: Sequence[float], images: int) -> float:
    """Binomial variance, in points squared, of an accuracy in percent that was measured on so many images.

    Two images are added to the count, one right and one wrong (Agresti & Caffo 2000): intervals near 0 and 100 % would
    be too narrow without them.
    """
    p = (statistics.fmean(accuracies) / 100 * images + 1) / (images + 2)
    return 1e4 * p * (1 - p) / (images + 2)


def next_run_margin(values: Sequence[float], *, deviation: float = SEED_DEVIATION) -> float:
    """How far one further run may lie from the mean of `values`, one for each seed: the 95 % prediction interval.

    `deviation` over seeds is assumed as `seed_variance` has it. With the default it is 6.3 of one value; of two values
    that agree it is 5.9, of three 4.6 and of five 3.4.
    """
    variance, freedom = seed_variance(values, deviation=deviation)
    return t_quantile(freedom) * math.sqrt(variance * (1 + 1 / len(values)))


def wilson_interval(accuracy: float, images: int) -> tuple[float, float]:
    """Wilson's 95 % interval of an accuracy, both in percent, from the number of test images alone."""
    z = normal_quantile()
    p, spread = accuracy / 100, z**2 / images
    centre = p + spread / 2
    half = math.sqrt(spread * p * (1 - p) + spread**2 / 4)
    return 100 * max(0.0, (centre - half) / (1 + spread)), 100 * min(1.0, (centre + half) / (1 + spread))
