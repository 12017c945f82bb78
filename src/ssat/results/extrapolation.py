"""Accuracy with more labels than were measured: a small family of learning-curve laws, with an interval.

Error against labels falls as a power of their number (Hestness et al. 2017), but a few points do not tell which law
it is, and laws that fit equally well are far apart further out (Mahmood et al. 2022, "How Much More Data Do I
Need?"). So every law is fitted to many noisy copies of the points, and the interval spans them all.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ssat.results.intervals import SEED_DEVIATION, SEED_FREEDOM, image_variance

FEWEST = 3  # counts of labels that a law is fitted to
NOMINAL = 90  # % of later runs that the interval is to hold
COVERED = "in trials 95 % of the later runs lay inside (docs/evidence.md)"
DRAWS = 300  # noisy copies of the points
# Of the half widths, added for each doubling of the labels: no law is right, and further out that matters more. Chosen
# so that NOMINAL % lie inside in the splits 0 to 19 of `python -m benchmarks.label_curve`, also with one or two seeds.
WIDER = 0.2
SURE = 3  # deviations of a fall that is none of the noise; a smaller one is continued as a constant
LAST = 2  # points whose seeds tell how much those of a later run differ: with more labels they differ less
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Point:
    """What was measured with one number of labels.

    Attributes:
        labels: how many, or which share: the laws ask for ratios alone.
        accuracies: in percent, one for each seed.
        images: that they were measured on; None where it is unknown.
    """

    labels: float
    accuracies: Sequence[float]
    images: int | None = None

    @property
    def accuracy(self) -> float:
        """Mean over the seeds, in percent."""
        return statistics.fmean(self.accuracies)


@dataclass(frozen=True)
class Forecast:
    """What one further run with so many labels will reach: an accuracy and its interval, in percent."""

    labels: float
    accuracy: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.accuracy:.1f} % ({self.low:.1f} to {self.high:.1f})"


@dataclass(frozen=True)
class Law:
    """error(n) = a * shape(n) + c with a >= 0, of which `shape` falls.

    Attributes:
        shapes: values (S, M) of the shape at M numbers of labels, for S values of its own parameter.
        floor: what c may be: `none` (0), `positive`, or `free`.
    """

    shapes: Callable[[Array], Array]
    floor: str

    @property
    def parameters(self) -> int:
        """How many numbers are fitted."""
        return {"free": 2, "none": 2, "positive": 3}[self.floor]


EXPONENTS = np.geomspace(0.03, 2.0, 60)  # b; 0.05 to 0.5 in Hestness et al. 2017
SCALES = np.geomspace(0.02, 50.0, 60)  # of the arctangent, in units of the most labels measured
LAWS = {
    "power": Law(lambda n: n ** -EXPONENTS[:, None], "none"),
    "power with floor": Law(lambda n: n ** -EXPONENTS[:, None], "positive"),
    "logarithm": Law(lambda n: -np.log(n)[None], "free"),
    "arctangent": Law(lambda n: 1 - 2 / math.pi * np.arctan(n / SCALES[:, None]), "positive"),
}


def extrapolate(points: Sequence[Point], at: Sequence[float], *, seed: int = 0, wider: float = WIDER) -> list[Forecast]:
    """What one further run reaches with `at` labels.

    Args:
        points: with FEWEST different numbers of labels or more, in any order.
        at: numbers of labels, in the unit of the points.
        seed: of the noise.
        wider: share by which the interval is widened for each doubling of the labels.

    Raises:
        ValueError: fewer points than FEWEST, or an accuracy that falls by more than its noise; says so.
    """
    points = sorted(points, key=lambda point: point.labels)
    counts = len({point.labels for point in points})
    if counts < FEWEST:
        raise ValueError(f"{counts} of at least {FEWEST} shares of the labels are measured")
    fall, noise = points[0].accuracy - points[-1].accuracy, _variance(points[0]) + _variance(points[-1])
    if fall > SURE * 100 * math.sqrt(noise):
        raise ValueError("its accuracy falls with more labels, and no law of learning curves does")
    most, generator = points[-1].labels, np.random.default_rng(seed)
    errors, weight = _drawn_errors(points, np.array(at, dtype=float) / most, generator)
    deviation = np.sqrt(_seed_variance(points[-LAST:]) * 4 * _spread(errors))
    accuracies = 100 * (1 - errors - deviation * generator.normal(size=errors.shape))
    factors = [1 + wider * math.log2(max(1, labels / most)) for labels in at]
    return [_forecast(n, accuracies[:, k], weight, factors[k]) for k, n in enumerate(at)]


def _drawn_errors(points: Sequence[Point], later: Array, generator: np.random.Generator) -> tuple[Array, Array]:
    """Errors (R, L) at `later` numbers of labels, in units of the most measured, and their weights (R,).

    Every law is fitted to DRAWS noisy copies of the points; the weight of a law is Akaike's, by how well it fits them.
    """
    x = np.array([point.labels for point in points]) / points[-1].labels
    y = np.array([1 - point.accuracy / 100 for point in points])
    variance = np.array([_variance(point) for point in points])
    misfit = {name: float(_fit(law, x, y[None], variance, later)[1][0]) for name, law in LAWS.items()}
    # Points that no law meets scatter more than their seeds and images say.
    scatter = max(1.0, min(misfit[name] / max(1, len(x) - law.parameters) for name, law in LAWS.items()))
    akaike = {name: misfit[name] / scatter + 2 * law.parameters for name, law in LAWS.items()}
    copies = y + generator.normal(size=(DRAWS, len(x))) * np.sqrt(variance * scatter)
    errors = [_fit(law, x, copies, variance, later)[0] for law in LAWS.values()]
    weights = [math.exp((min(akaike.values()) - akaike[name]) / 2) for name in LAWS]
    return np.concatenate(errors).clip(0, 1), np.repeat(weights, DRAWS)


def _spread(error: Array) -> Array:
    """p (1 - p), as of at least one image in 200."""
    p = error.clip(0.005, 0.995)
    return p * (1 - p)


def _seed_variance(points: Sequence[Point]) -> float:
    """Variance of one run over seeds where half the images are right; elsewhere it is taken to go with p (1 - p).

    Moderated as `seed_variance` has it: seeds are expected to differ by SEED_DEVIATION points there.
    """
    total, freedom = SEED_FREEDOM * (SEED_DEVIATION / 100) ** 2, SEED_FREEDOM
    for point in points:
        if len(point.accuracies) > 1:
            scale = 4 * float(_spread(np.array(1 - point.accuracy / 100)))
            total += statistics.variance(point.accuracies) / 1e4 / scale * (len(point.accuracies) - 1)
            freedom += len(point.accuracies) - 1
    return total / freedom


def _variance(point: Point) -> float:
    """Of the point's mean error: by its seeds and its images."""
    seeds = _seed_variance([point]) * 4 * float(_spread(np.array(1 - point.accuracy / 100))) / len(point.accuracies)
    if len(point.accuracies) > 1 or not point.images:
        return seeds
    return seeds + image_variance(point.accuracies, point.images) / 1e4


def _fit(law: Law, x: Array, y: Array, variance: Array, later: Array) -> tuple[Array, Array]:
    """Weighted least squares of `law`.

    Args:
        law: to be fitted.
        x: (M,) numbers of labels.
        y: (R, M) errors.
        variance: (M,) of the errors.
        later: (L,) numbers of labels that are asked for.

    Returns:
        errors (R, L) there, and the sums of weighted squares (R,).
    """
    shapes, ahead, w = law.shapes(x), law.shapes(later), 1 / variance
    total, g, gg = w.sum(), shapes @ w, (shapes**2) @ w
    e, ge = (y * w).sum(1)[:, None], (y * w) @ shapes.T  # (R, 1), (R, S)
    a, c = ge / gg, np.zeros_like(ge)
    if law.floor != "none":
        slope = (total * ge - g * e) / np.maximum(total * gg - g**2, 1e-12 * total * gg)
        level = (e - slope * g) / total
        fits = np.ones_like(ge, dtype=bool) if law.floor == "free" else level >= 0
        a, c = np.where(fits, slope, a), np.where(fits, level, c)
        a, c = np.where(a < 0, 0.0, a), np.where(a < 0, e / total, c)  # it does not fall: a constant
    squares = (((a[..., None] * shapes + c[..., None]) - y[:, None]) ** 2 * w).sum(2)
    best, rows = squares.argmin(1), np.arange(len(y))
    return a[rows, best, None] * ahead[best] + c[rows, best, None], squares[rows, best]


def _forecast(labels: float, values: Array, weight: Array, factor: float) -> Forecast:
    """From weighted draws of the accuracy; `factor` widens the interval about its median."""
    order = values.argsort()
    share = (weight[order].cumsum() - weight[order] / 2) / weight.sum()
    tail = (100 - NOMINAL) / 200
    low, middle, high = (float(np.interp(q, share, values[order])) for q in (tail, 0.5, 1 - tail))
    low, high = middle - factor * (middle - low), middle + factor * (high - middle)
    return Forecast(labels, min(max(middle, 0.0), 100.0), max(low, 0.0), min(high, 100.0))
