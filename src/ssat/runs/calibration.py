"""Whether probabilities are as high as they are right: calibration error, and the temperature that mends it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ssat.runs.record import as_number, lookup

BINS = 15  # of equal width in confidence (Guo et al. 2017)
FEWEST = 100  # images that a temperature is fitted on: one fitted on 32 has made held-out probabilities worse
COLDEST, HOTTEST = 1e-2, 1e2  # temperatures; beyond them a softmax says nothing, or always the same


def recorded_temperature(phase: Mapping[str, Any], *, is_last: bool) -> float | None:
    """The temperature that a phase's record holds, which is of its last weights; None where it has none of these.

    Args:
        phase: the record.
        is_last: whether the weights are the last ones.
    """
    value = as_number(lookup(phase, "classification.temperature"))
    return value if is_last and value is not None and value > 0 else None


def helps(found: Mapping[str, Any]) -> bool | None:
    """Whether the temperature lowered the log-loss of the images that were measured; None where nobody measured it.

    Args:
        found: `image_metrics` of images that it was not fitted on.
    """
    before, after = as_number(lookup(found, "log_loss")), as_number(lookup(found, "log_loss_calibrated"))
    return None if before is None or after is None else after < before


def doubt(found: Mapping[str, Any], images: str = "test images") -> str:
    """A sentence where the temperature does not help, from `image_metrics` of `images`; else empty."""
    if helps(found) is not False:
        return ""
    return (
        f"the temperature does not help on the {images} (log-loss {found['log_loss']:.4f}, with it"
        f" {found['log_loss_calibrated']:.4f}): do not read the probabilities as shares of right answers"
    )


def remark(phase: Mapping[str, Any]) -> str:
    """What a user must know of the calibration at the end of a training with a validation split; else empty.

    Args:
        phase: the record of its last phase.
    """
    found = lookup(phase, "classification")
    if lookup(phase, "metrics.val") is None or not lookup(found, "temperature_source"):
        return ""
    if as_number(lookup(found, "temperature")) is None:
        return f"the probabilities are not calibrated: {found['temperature_source']}"
    return doubt(found)


def probabilities(logits: NDArray[np.float32], temperature: float = 1.0) -> NDArray[np.float64]:
    """Softmax (N, K) of logits (N, K) divided by the temperature, in double precision."""
    return torch.from_numpy(logits).double().div(temperature).softmax(dim=1).numpy()


class Bin(NamedTuple):
    """Images whose confidence lies between two values: how many, their mean confidence and their accuracy, [0, 1]."""

    low: float
    high: float
    images: int
    confidence: float
    accuracy: float


def reliability(probs: NDArray[np.float64], targets: NDArray[np.int64]) -> list[Bin]:
    """The bins of the ECE that have images, from (N, K) probabilities and (N,) classes."""
    confidence, right = probs.max(axis=1), probs.argmax(axis=1) == targets
    of_bin = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
    return [
        Bin(b / BINS, (b + 1) / BINS, int(own.sum()), float(confidence[own].mean()), float(right[own].mean()))
        for b in range(BINS)
        if (own := of_bin == b).any()
    ]


def expected_calibration_error(probs: NDArray[np.float64], targets: NDArray[np.int64]) -> float:
    """ECE in [0, 1]: the mean over images of |accuracy - confidence| of their bin (Guo et al. 2017, Eq. 3).

    That of the bins that `reliability` draws, in double precision: torchmetrics' is in single.

    Args:
        probs: (N, K), N > 0; the confidence is the highest of an image's.
        targets: (N,) classes.
    """
    return sum(b.images * abs(b.accuracy - b.confidence) for b in reliability(probs, targets)) / len(targets)


def log_loss(logits: NDArray[np.float32], targets: NDArray[np.int64], temperature: float = 1.0) -> float:
    """Mean cross-entropy of logits (N, K) over the temperature, in nats, double precision."""
    scaled = torch.from_numpy(logits).double() / temperature
    return float(F.cross_entropy(scaled, torch.from_numpy(targets)))


def fit_temperature(logits: NDArray[np.float32], targets: NDArray[np.int64]) -> float | None:
    """The temperature T for which softmax(logits / T) has the smallest log-loss (Guo et al. 2017, sec. 4.2).

    One number, found by L-BFGS on log T; it changes no predicted class. Fit it on images that nothing was trained or
    tested on, and on many of them: `calibrated_on` wants `FEWEST`.

    Args:
        logits: (N, K).
        targets: (N,) classes.

    Returns:
        T, between 0.01 and 100; None without images, or where all are right or all logits equal, which have none, or
        where T does not lower the log-loss of these images.
    """
    if not len(targets) or (logits.argmax(axis=1) == targets).all() or np.ptp(logits, axis=1).max() == 0:
        return None
    return _of_smallest_loss(torch.from_numpy(logits).double(), torch.from_numpy(targets), F.cross_entropy)


def label_log_loss(logits: NDArray[np.float32], targets: NDArray[np.int64], temperature: float = 1.0) -> float:
    """Mean binary cross-entropy of logits (N, K) over the temperature with labels (N, K), nats, double precision."""
    scaled = torch.from_numpy(logits).double() / temperature
    return float(F.binary_cross_entropy_with_logits(scaled, torch.from_numpy(targets).double()))


def fit_label_temperature(logits: NDArray[np.float32], targets: NDArray[np.int64]) -> float | None:
    """The temperature T for which sigmoid(logits / T) has the smallest log-loss over all decisions.

    As `fit_temperature`; one number for all labels, which changes no decision at probability 0.5.

    Args:
        logits: (N, K).
        targets: (N, K), 1 for each label that an image has, else 0.

    Returns:
        T, between 0.01 and 100; None without images, or where all decisions are right or all logits 0, which have none,
        or where T does not lower the log-loss of these images.
    """
    if not targets.size or ((logits > 0) == (targets == 1)).all() or not logits.any():
        return None
    truth = torch.from_numpy(targets).double()
    return _of_smallest_loss(torch.from_numpy(logits).double(), truth, F.binary_cross_entropy_with_logits)


def _of_smallest_loss(logits: Tensor, targets: Tensor, loss_of: Callable[[Tensor, Tensor], Tensor]) -> float | None:
    """T with the smallest `loss_of(logits / T, targets)`; None where it is not smaller than that of T = 1."""
    with torch.inference_mode(mode=False), torch.enable_grad():
        values, truth = logits.clone(), targets.clone()
        log_t = torch.zeros((), dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.LBFGS(
            [log_t], max_iter=100, tolerance_grad=1e-12, tolerance_change=1e-14, line_search_fn="strong_wolfe"
        )

        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = loss_of(values * torch.exp(-log_t), truth)
            loss.backward()
            return loss

        optimizer.step(closure)
        found = float(torch.exp(log_t.detach()).clamp(COLDEST, HOTTEST))
        return found if float(loss_of(values / found, truth)) < float(loss_of(values, truth)) else None
