"""From the accuracies of short pilots to what the whole budget lets one expect, with honest intervals.

The model: the log-odds of an accuracy grow by a slope with each doubling of the time, each candidate with its own slope
around a common one. It is linear and Gaussian, so its posterior has a closed form. Beyond the last pilot curves bend:
that widens the intervals with every doubling. The figures in capitals are choices, not measurements.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ssat.results.intervals import LEVEL, image_variance, normal_quantile, seed_variance, t_quantile

SLOPE, SLOPE_SPREAD = 0.3, 0.3  # log-odds per doubling, before any pilot is seen: 70 % becomes 76 %
OWN_SLOPE = 0.12  # deviation of a candidate's slope from the common one
BEND, OWN_BEND = 0.10, 0.05  # deviation per doubling beyond the last pilot: of all candidates alike, and of each
WIDE = 100.0  # variance of what nothing is assumed of
DRAWS = 20_000
EDGE = 0.005  # accuracies nearer to 0 or 1 have log-odds that say nothing


@dataclass(frozen=True)
class Point:
    """What the pilots of one candidate and length have shown.

    Attributes:
        candidate: its number; 0 is scratch.
        share: of the budget that one pilot has taken.
        accuracy: mean over the seeds, in percent.
        variance: of that mean, in points squared.
    """

    candidate: int
    share: float
    accuracy: float
    variance: float


@dataclass(frozen=True)
class Expected:
    """What a candidate will reach with the whole budget: accuracy and gain over scratch, with 95 % intervals.

    Those of the gains hold for all candidates together, because the best of them is chosen (Bonferroni).
    """

    accuracy: float
    low: float
    high: float
    gain: float
    gain_low: float
    gain_high: float


def points_of(measured: Mapping[tuple[int, float], Sequence[float]], images: int) -> tuple[list[Point], float]:
    """The accuracies (percent, one for each seed) by candidate and share as points, and their degrees of freedom.

    The variance is that of the seeds, moderated as in reports, and the binomial one of the validation images.
    """
    seeds, freedom = seed_variance(*measured.values())
    points = [
        Point(*place, float(np.mean(values)), seeds / len(values) + image_variance(values, images))
        for place, values in measured.items()
    ]
    return points, freedom


def expect(points: Sequence[Point], *, freedom: float = math.inf) -> dict[int, Expected]:
    """By number of the candidate, of those that have points.

    Args:
        points: candidate 0 must be among them.
        freedom: degrees of freedom of the variances.
    """
    numbers = sorted({point.candidate for point in points})
    mean, covariance = _at_the_end(points, numbers)
    wider = 1.0 if math.isinf(freedom) else t_quantile(freedom) / normal_quantile()
    draws = np.random.default_rng(0).multivariate_normal(mean, covariance * wider**2, DRAWS, method="eigh")
    accuracies, middle = 100 * _share(draws), 100 * _share(mean)
    gains = accuracies - accuracies[:, :1]
    found, tail = {}, LEVEL / 2 / max(1, len(numbers) - 1)
    for place, number in enumerate(numbers):
        low, high = np.quantile(accuracies[:, place], (LEVEL / 2, 1 - LEVEL / 2))
        gain_low, gain_high = np.quantile(gains[:, place], (tail, 1 - tail))
        values = (middle[place], low, high, middle[place] - middle[0], gain_low, gain_high)
        found[number] = Expected(*map(float, values))
    return found


def _at_the_end(points: Sequence[Point], numbers: Sequence[int]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and covariance of the candidates' log-odds when the whole budget is used."""
    count = len(numbers)
    rows = np.zeros((len(points), 2 * count + 1))  # levels at the whole budget, the common slope, deviations from it
    odds, weights = np.zeros(len(points)), np.zeros(len(points))
    for row, point in enumerate(points):
        place, doublings = numbers.index(point.candidate), math.log2(point.share)
        rows[row, [place, count, count + 1 + place]] = 1.0, doublings, doublings
        right = min(max(point.accuracy / 100, EDGE), 1 - EDGE)
        odds[row] = math.log(right / (1 - right))
        weights[row] = (100 * right * (1 - right)) ** 2 / point.variance
    prior = np.array([1 / WIDE] * count + [SLOPE_SPREAD**-2] + [OWN_SLOPE**-2] * count)
    before = np.zeros(2 * count + 1)
    before[count] = SLOPE
    covariance = np.linalg.inv(rows.T @ (weights[:, None] * rows) + np.diag(prior))
    mean = covariance @ (rows.T @ (weights * odds) + prior * before)
    beyond = np.array([-math.log2(max(p.share for p in points if p.candidate == number)) for number in numbers])
    bends = BEND**2 * np.outer(beyond, beyond) + np.diag((OWN_BEND * beyond) ** 2)
    return mean[:count], covariance[:count, :count] + bends


def _share(odds: NDArray[np.float64]) -> NDArray[np.float64]:
    return 1 / (1 + np.exp(-odds))
