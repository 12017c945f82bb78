"""Eigenvalues of Hessians that are known in closed form or small enough to be computed whole."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssat.analysis.hessian import HessianProduct, density, spectrum, top_eigenvalues, twice_differentiable
from tests.encoders.cases import build, images_for

LARGEST = [10.0, -7.0, 5.0, -3.0, 2.0]


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def quadratic(eigenvalues: list[float], weight_decay: float = 0.0) -> HessianProduct:
    """0.5 w'Hw with these eigenvalues, in a random basis."""
    size = len(eigenvalues)
    basis = torch.linalg.qr(torch.randn(size, size, dtype=torch.float64)).Q
    matrix = basis @ torch.diag(torch.tensor(eigenvalues, dtype=torch.float64)) @ basis.T
    w = torch.randn(size, dtype=torch.float64, requires_grad=True)
    return HessianProduct(0.5 * w @ matrix @ w, [w], weight_decay=weight_decay)


def bulk() -> list[float]:
    return [0.5 * (-1) ** i * (1 - i / 100) for i in range(40)]


def test_a_quadratic_has_its_eigenvalues_largest_first_with_their_signs() -> None:
    found = top_eigenvalues(quadratic(LARGEST + bulk()), 5, generator=generator())
    assert [e.value for e in found] == pytest.approx(LARGEST, abs=0.02)
    assert all(e.converged for e in found)
    assert all(e.iterations < 100 for e in found)


def test_a_small_tolerance_makes_them_exact() -> None:
    found = top_eigenvalues(quadratic(LARGEST + bulk()), 5, tol=1e-10, max_iter=1000, generator=generator())
    assert [e.value for e in found] == pytest.approx(LARGEST, abs=1e-6)


def test_weight_decay_shifts_every_eigenvalue() -> None:
    product = quadratic(LARGEST + bulk(), weight_decay=0.05)
    found = top_eigenvalues(product, 5, tol=1e-10, max_iter=1000, generator=generator())
    assert [e.value for e in found] == pytest.approx([value + 0.05 for value in LARGEST], abs=1e-6)


def test_an_eigenvalue_and_its_opposite_are_flagged() -> None:
    found = top_eigenvalues(quadratic([4.0, -4.0, *bulk()]), 2, generator=generator())
    assert not found[0].converged


def test_iterations_that_run_out_are_flagged() -> None:
    (only,) = top_eigenvalues(quadratic([1.0, 0.999, 0.5]), 1, tol=1e-15, max_iter=3, generator=generator())
    assert only.iterations == 3 and not only.converged


def test_softmax_regression_has_a_double_largest_eigenvalue() -> None:
    x, y = torch.randn(64, 5, dtype=torch.float64), torch.randint(3, (64,))
    weight = torch.zeros(3, 5, dtype=torch.float64, requires_grad=True)
    product = HessianProduct(F.cross_entropy(x @ weight.T, y), [weight])
    found = top_eigenvalues(product, 3, tol=1e-12, max_iter=3000, generator=generator())
    # At W = 0 the Hessian is (I/3 - 11'/9) x X'X/n: 1/3, 1/3 and 0 times the eigenvalues of X'X/n.
    of_data = np.linalg.eigvalsh((x.T @ x / 64).numpy())[::-1]
    assert [e.value for e in found] == pytest.approx([of_data[0] / 3, of_data[0] / 3, of_data[1] / 3], rel=1e-5)


def whole_hessian(loss: Tensor, parameters: list[nn.Parameter]) -> np.ndarray:
    product = HessianProduct(loss, parameters)
    size = sum(product.sizes)
    return torch.stack([product(row) for row in torch.eye(size, dtype=loss.dtype)]).numpy()


def test_products_agree_with_autograds_own_hessian_and_unused_parameters_count_as_zero() -> None:
    x, y = torch.randn(9, 4, dtype=torch.float64), torch.randint(3, (9,))

    def loss_of(first: Tensor, second: Tensor) -> Tensor:
        return F.cross_entropy(torch.tanh(x @ first.view(4, 4)) @ second.view(4, 3), y)

    first, second = (nn.Parameter(torch.randn(size, dtype=torch.float64)) for size in (16, 12))
    unused = nn.Parameter(torch.randn(2, dtype=torch.float64))
    ours = whole_hessian(loss_of(first, second), [first, unused, second])
    rows = torch.autograd.functional.hessian(loss_of, (first, second))
    expected = torch.cat([torch.cat(row, 1) for row in rows]).numpy()
    kept = [i for i in range(30) if i not in (16, 17)]
    np.testing.assert_allclose(ours[np.ix_(kept, kept)], expected, atol=1e-10)
    assert not ours[16:18].any()


@pytest.mark.slow
def test_a_transformers_eigenvalues_are_those_of_its_whole_hessian() -> None:
    encoder = build("vit-no-qkv-bias-one-block").double()
    head = nn.Linear(encoder.num_features, 3).double()
    parameters = [encoder.norm.weight, encoder.blocks[0].attn.qkv.weight, *head.parameters()]
    with twice_differentiable():
        logits = head(encoder.forward_features(images_for(encoder, 4).double()))
        loss = F.cross_entropy(logits, torch.tensor([0, 1, 2, 0]))
        found = top_eigenvalues(HessianProduct(loss, parameters), 3, tol=1e-9, max_iter=2000, generator=generator())
        matrix = whole_hessian(loss, parameters)
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-6)
    eigenvalues = np.linalg.eigvalsh(matrix)
    expected = eigenvalues[np.argsort(-np.abs(eigenvalues))][:3]
    assert [e.value for e in found] == pytest.approx(expected.tolist(), rel=1e-4)


def test_a_loss_without_the_parameters_is_a_mistake() -> None:
    w = torch.zeros(3, requires_grad=True)
    with pytest.raises(ValueError, match="depends on none"):
        HessianProduct(torch.ones(1, requires_grad=True).sum(), [w])


def test_a_linear_loss_has_no_curvature() -> None:
    w = torch.randn(3, requires_grad=True)
    assert HessianProduct(w.sum(), [w])(torch.ones(3)).tolist() == [0, 0, 0]


def test_the_negative_share_and_both_means() -> None:
    assert spectrum([4.0, 2.0, -1.0, -3.0, 0.0]) == {"eigenvalues": 5, "nep": 40.0, "ane": 2.0, "ape": 3.0}
    assert spectrum([1.0])["ane"] is None
    assert spectrum([])["nep"] is None


@pytest.mark.parametrize("values", [[1.0, 2.0, 5.0, -1.0], [3.0], [2.0, 2.0, 2.0], [0.0]])
def test_the_density_has_area_one(values: list[float]) -> None:
    x, y, _ = density(values)
    assert np.trapezoid(y, x) == pytest.approx(1, abs=1e-3)
