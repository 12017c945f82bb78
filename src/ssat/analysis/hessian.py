"""The largest eigenvalues of the loss's Hessian, batch by batch (Figure 9; Park & Kim 2022, Yao et al. 2020)."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from rich.progress import track
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from ssat.analysis.models import Curve, Measured, Model, choose_training_images
from ssat.core.errors import UserError

RESIDUAL = 0.1  # |Hv - lambda v| / |lambda| of a vector that counts as found; lambda is then right to about its square
POINTS = 200


@dataclass(frozen=True)
class Settings:
    """How much of the spectrum is measured.

    Attributes:
        batches: mini-batches; the paper's counts need all of the training images.
        batch_size: images of one.
        top: eigenvalues of each, the largest by absolute value.
        tol: relative change of an eigenvalue at which its power iteration stops.
        max_iter: iterations at most.
        weight_decay: w adds w/2 |parameters|^2 to the loss, which shifts every eigenvalue by w.
        augmented: whether images are augmented as in training.
    """

    batches: int = 10
    batch_size: int = 16
    top: int = 5
    tol: float = 1e-3
    max_iter: int = 100
    weight_decay: float = 0.0
    augmented: bool = True


class Eigenvalue(NamedTuple):
    """One eigenvalue; `converged` is False where the iteration did not settle on an eigenvector."""

    value: float
    iterations: int
    converged: bool


class HessianProduct:
    """Products of the Hessian of `loss` by `parameters` with flat vectors (P,); the gradient's graph is built once.

    Raises:
        ValueError: the loss does not depend on the parameters.
    """

    def __init__(self, loss: Tensor, parameters: Sequence[Tensor], *, weight_decay: float = 0.0) -> None:
        gradients = torch.autograd.grad(loss, parameters, create_graph=True, allow_unused=True)
        self.parameters, self.weight_decay = list(parameters), weight_decay
        # A gradient without a graph is constant: its rows of the Hessian are 0.
        curved = [i for i, gradient in enumerate(gradients) if gradient is not None and gradient.requires_grad]
        if all(gradient is None for gradient in gradients):
            raise ValueError("the loss depends on none of the parameters")
        self.curved, self.gradients = curved, [gradients[i] for i in curved]
        self.sizes = [parameter.numel() for parameter in parameters]

    def __call__(self, vector: Tensor) -> Tensor:
        if not self.curved:
            return self.weight_decay * vector
        parts = vector.split(self.sizes)
        products = torch.autograd.grad(
            self.gradients,
            self.parameters,
            grad_outputs=[parts[i].view_as(self.parameters[i]) for i in self.curved],
            retain_graph=True,
            materialize_grads=True,
        )
        return torch.cat([product.flatten() for product in products]) + self.weight_decay * vector


def top_eigenvalues(
    product: HessianProduct,
    top: int,
    *,
    tol: float = 1e-3,
    max_iter: int = 100,
    generator: torch.Generator | None = None,
) -> list[Eigenvalue]:
    """PyHessian's power iteration with deflation: the `top` eigenvalues of largest absolute value, largest first.

    An iteration stops when its Rayleigh quotient changes by less than `tol` (relative), or after `max_iter`. Between
    two eigenvalues a and -a the quotient stands still though nothing is found: such a vector has a large residual and
    its value is not `converged`.
    """
    size, like = sum(product.sizes), product.parameters[0]
    found: list[Tensor] = []
    eigenvalues = []
    for _ in range(min(top, size)):
        vector = torch.randn(size, generator=generator).to(device=like.device, dtype=like.dtype)
        value, settled, residual, iteration = 0.0, False, float("inf"), 0
        for iteration in range(1, max_iter + 1):
            vector = _orthogonal(vector, found)
            image = product(vector)
            quotient = float(image @ vector)
            settled = iteration > 1 and abs(quotient - value) / (abs(value) + 1e-6) < tol
            value, residual = quotient, float((image - quotient * vector).norm())
            vector = image / image.norm().clamp_min(1e-30)
            if settled:
                break
        found.append(_orthogonal(vector, found))
        eigenvalues.append(Eigenvalue(value, iteration, settled and residual <= RESIDUAL * abs(value) + 1e-6))
    return eigenvalues


def _orthogonal(vector: Tensor, found: Sequence[Tensor]) -> Tensor:
    """The part of `vector` that is orthogonal to the orthonormal `found`, of length 1."""
    for other in found:
        vector = vector - (vector @ other) * other
    return vector / vector.norm().clamp_min(1e-30)


@contextmanager
def twice_differentiable() -> Iterator[None]:
    """The attention kernel that can be differentiated twice; the fused ones cannot."""
    with sdpa_kernel(SDPBackend.MATH):
        yield


def classifier_parameters(model: Model) -> list[Tensor]:
    """What the classifier learned: encoder and head, without the SSL part, fixed tables and mask tokens.

    Raises:
        UserError: the run has learned no labels.
    """
    if model.head is None:
        raise UserError(f"run {model.facts['run']} has learned no labels, so it has no classification loss")
    masked = model.encoder.only_masked()
    encoder = [p for name, p in model.encoder.named_parameters() if p.requires_grad and name not in masked]
    return [*encoder, *(p for p in model.head.parameters() if p.requires_grad)]


def spectrum(values: Sequence[float]) -> dict[str, float | int | None]:
    """NEP = share of negative eigenvalues in percent, ANE = their mean absolute value, APE = mean of the positive."""
    negative, positive = [-v for v in values if v < 0], [v for v in values if v > 0]
    return {
        "eigenvalues": len(values),
        "nep": 100 * len(negative) / len(values) if values else None,
        "ane": sum(negative) / len(negative) if negative else None,
        "ape": sum(positive) / len(positive) if positive else None,
    }


def density(values: Sequence[float]) -> Curve:
    """Gaussian kernel density of the values, Silverman's bandwidth; its area is 1."""
    sample = torch.tensor(values, dtype=torch.float64)
    spread = float(sample.std()) if len(sample) > 1 else 0.0
    quartiles = sample.quantile(torch.tensor([0.25, 0.75], dtype=torch.float64))
    inner = float(quartiles[1] - quartiles[0]) / 1.34
    width = 0.9 * (min(spread, inner) or spread) * len(sample) ** -0.2
    width = max(width, 1e-3 * float(sample.abs().max()), 1e-9)
    x = torch.linspace(float(sample.min()) - 4 * width, float(sample.max()) + 4 * width, POINTS, dtype=torch.float64)
    kernels = torch.exp(-0.5 * ((x[:, None] - sample) / width) ** 2)
    y = kernels.mean(1) / (width * (2 * torch.pi) ** 0.5)
    return Curve(x.tolist(), y.tolist())


def batch_eigenvalues(
    model: Model, batches: Iterable[tuple[Tensor, Tensor]], settings: Settings, seed: int
) -> Iterator[list[Eigenvalue]]:
    """Of each batch of (images, targets); all models start from the same random vectors."""
    parameters = classifier_parameters(model)
    for number, (images, targets) in enumerate(batches):
        with twice_differentiable():
            loss = F.cross_entropy(model.logits(images), targets)
            product = HessianProduct(loss, parameters, weight_decay=settings.weight_decay)
            generator = torch.Generator().manual_seed(seed * 1_000_003 + number)
            yield top_eigenvalues(
                product, settings.top, tol=settings.tol, max_iter=settings.max_iter, generator=generator
            )


def hessian(model: Model, *, settings: Settings, seed: int) -> Measured:
    """Figure 9: cross-entropy alone, in every mode, so that the modes compare.

    Raises:
        UserError: the run has learned no labels, or there are too few images for one batch.
    """
    chosen = choose_training_images(model, settings.batches * settings.batch_size, seed)
    count = len(chosen) // settings.batch_size
    if not count:
        raise UserError(
            f"hessian.batch_size={settings.batch_size} is more than the {len(chosen)} labelled training images"
        )
    batches = model.training_batches(
        chosen[: count * settings.batch_size], settings.batch_size, augmented=settings.augmented
    )
    pairs = ((batch.images, batch.targets) for batch in batches if batch.targets is not None)
    rows: list[dict[str, Any]] = []
    found = track(
        batch_eigenvalues(model, pairs, settings, seed),
        f"hessian: {model.name}",
        count,
        transient=True,
        disable=not sys.stdout.isatty(),
    )
    for number, eigenvalues in enumerate(found):
        rows += [{"batch": number, "rank": rank} | e._asdict() for rank, e in enumerate(eigenvalues, 1)]
    values = [row["value"] for row in rows]
    settled = [row["value"] for row in rows if row["converged"]]
    everything = spectrum(values)
    recorded = {
        "settings": asdict(settings) | {"batches": count},
        "parameters": sum(p.numel() for p in classifier_parameters(model)),
        "all": everything,
        "converged": spectrum(settled),
        "converged_share": 100 * len(settled) / len(values),
        "eigenvalues": rows,
    }
    summary = {
        "largest": max(values),
        "NEP, %": everything["nep"] or 0.0,
        "ANE": everything["ane"] or 0.0,
        "APE": everything["ape"] or 0.0,
        "converged, %": recorded["converged_share"],
    }
    return Measured({"density": density(values)}, recorded, summary)
