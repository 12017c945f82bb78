"""What is computed again in the backward pass has the same numbers, and is not kept."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ssat.encoders import recompute
from ssat.encoders.layers import Mlp, QuickGELU, attend


def kept_bytes(compute: Callable[[], Tensor], *, but: tuple[Tensor, ...] = ()) -> int:
    """Bytes of the different tensors that the backward pass of `compute` is going to read, `but` its inputs."""
    known = {x.untyped_storage().data_ptr() for x in but}
    kept: dict[int, Tensor] = {}

    def keep(x: Tensor) -> Tensor:
        if x.untyped_storage().data_ptr() not in known:
            kept[x.untyped_storage().data_ptr()] = x
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        _held = compute()
    return sum(x.untyped_storage().nbytes() for x in kept.values())


def plain(mlp: Mlp, x: Tensor) -> Tensor:
    return mlp.fc2(mlp.activation(mlp.fc1(x)))


def gradients(out: Tensor, of: list[Tensor]) -> list[Tensor]:
    return list(torch.autograd.grad(out.float().square().sum(), of))


@pytest.mark.parametrize("shape", [(5, 8), (2, 3, 8)])
@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize(("activation", "plainly"), [(nn.GELU(), 1), (nn.GELU("tanh"), 1), (QuickGELU(), 2)])
def test_an_mlp_has_the_numbers_of_the_plain_one_and_keeps_less(
    shape: tuple[int, ...], half: bool, activation: nn.Module, plainly: int
) -> None:
    mlp, x = Mlp(8, 32, activation), torch.randn(*shape, requires_grad=True)
    of = [x, *mlp.parameters()]
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        ours, expected = mlp(x), plain(mlp, x)
        ours_kept, plain_kept = (
            kept_bytes(lambda form=form: form(x), but=(x, *mlp.parameters()))  # type: ignore[misc]
            for form in (mlp, lambda x: plain(mlp, x))
        )
    assert torch.equal(ours, expected)
    for own, other in zip(gradients(ours, of), gradients(expected, of), strict=True):
        assert torch.equal(own, other)
    assert plain_kept - ours_kept == (0 if half else plainly * x.numel() // 8 * 32 * 4)  # the activations


def test_the_second_derivative_of_an_mlp_is_right() -> None:
    mlp, gelu = Mlp(3, 4).double(), nn.GELU()
    inputs = [x.detach().requires_grad_() for x in (torch.randn(2, 4).double(), mlp.fc2.weight, mlp.fc2.bias)]
    assert torch.autograd.gradcheck(lambda *of: recompute.ActivatedLinear.apply(gelu, *of), inputs)
    assert torch.autograd.gradgradcheck(lambda *of: recompute.ActivatedLinear.apply(gelu, *of), inputs)


@pytest.mark.parametrize("frozen", ["fc1", "fc2", "fc2.bias", "x"])
def test_frozen_parts_of_an_mlp_get_no_gradient_and_the_others_the_same(frozen: str) -> None:
    mlp, x = Mlp(8, 32), torch.randn(5, 8, requires_grad=frozen != "x")
    for name, parameter in mlp.named_parameters():
        parameter.requires_grad_(not name.startswith(frozen))
    of = [each for each in (x, *mlp.parameters()) if each.requires_grad]
    ours, expected = mlp(x), plain(mlp, x)
    for own, other in zip(gradients(ours, of), gradients(expected, of), strict=True):
        assert torch.equal(own, other)


def test_an_mlp_without_a_second_bias_and_one_that_is_hooked_work() -> None:
    mlp, x = Mlp(8, 32), torch.randn(5, 8, requires_grad=True)
    seen: list[Tensor] = []
    handle = mlp.fc2.register_forward_hook(lambda module, given, out: seen.append(out))
    assert torch.equal(mlp(x), seen[0])
    handle.remove()
    mlp.fc2 = nn.Linear(32, 8, bias=False)
    assert torch.equal(mlp(x), plain(mlp, x))
    assert torch.equal(*(gradients(form(x), [mlp.fc2.weight])[0] for form in (mlp, lambda x: plain(mlp, x))))


def test_hooks_of_the_first_layer_s_output_are_called_once_in_a_pass_of_which_a_graph_is_wanted() -> None:
    mlp, x = Mlp(8, 32), torch.randn(5, 8, requires_grad=True)

    def gradient(form: Callable[[Tensor], Tensor]) -> Tensor:
        handle = mlp.fc1.register_forward_hook(lambda module, given, out: (out.register_hook(lambda g: 2 * g), out)[1])
        (found,) = torch.autograd.grad(form(x).square().sum(), x, create_graph=True)
        handle.remove()
        return found

    assert torch.equal(gradient(mlp), gradient(lambda x: plain(mlp, x)))


@pytest.mark.parametrize("activation", [nn.PReLU(), nn.ReLU(inplace=True), nn.Sequential(nn.GELU(), nn.Dropout(0.5))])
def test_an_activation_of_another_kind_is_not_computed_again(activation: nn.Module) -> None:
    mlp, x = Mlp(8, 32, activation), torch.randn(5, 8, requires_grad=True)
    of = [x, *mlp.parameters()]
    outs = []
    for form in (mlp, lambda x: plain(mlp, x)):
        torch.manual_seed(0)
        outs.append(gradients(form(x), of))
    for own, other in zip(*outs, strict=True):
        assert torch.equal(own, other)


def test_whoever_watches_the_second_layer_is_called() -> None:
    mlp, x = Mlp(8, 32), torch.randn(5, 8, requires_grad=True)
    calls: list[object] = []
    handle = mlp.fc2.register_full_backward_pre_hook(lambda module, grad: calls.append(module))
    mlp(x).sum().backward()
    handle.remove()
    assert calls == [mlp.fc2]
    mlp.fc2.forward = lambda given: given[..., :8]  # type: ignore[method-assign]
    assert torch.equal(mlp(x), mlp.activation(mlp.fc1(x))[..., :8])


def test_an_mlp_of_one_token_and_its_transforms_are_right() -> None:
    mlp, x = Mlp(8, 32), torch.randn(8, requires_grad=True)
    assert torch.equal(*(torch.autograd.grad(form(x).sum(), x)[0] for form in (mlp, lambda x: plain(mlp, x))))
    for transform in (torch.func.grad, torch.func.jacrev):
        ours, expected = (transform(lambda x, form=form: form(x).sum())(x) for form in (mlp, lambda x: plain(mlp, x)))  # type: ignore[misc]
        assert torch.equal(ours, expected)


def test_a_checkpointed_mlp_keeps_its_input_alone() -> None:
    mlp, x = Mlp(8, 32), torch.randn(5, 8, requires_grad=True)

    def checkpointed() -> Tensor:
        return checkpoint(mlp, x, use_reentrant=False)

    assert kept_bytes(checkpointed, but=(x, *mlp.parameters())) == 0
    of = [x, *mlp.parameters()]
    for own, other in zip(gradients(checkpointed(), of), gradients(mlp(x), of), strict=True):
        assert torch.equal(own, other)


def two_products(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return ((q * q.shape[-1] ** -0.5) @ k.mT).softmax(-1) @ v


@pytest.mark.parametrize("queries", [1, 7, 40])
@pytest.mark.parametrize("at_once", [1, 4, 15])
def test_attention_in_parts_is_attention(queries: int, at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    q, k, v = (torch.randn(15, n, 4, dtype=torch.double, requires_grad=True) for n in (queries, 40, 40))
    monkeypatch.setattr(recompute, "IN_CACHE", at_once * queries * 40 * 8)
    ours, expected = recompute.Attention.apply(q, k, v), two_products(q, k, v)
    assert torch.allclose(ours, expected, rtol=0, atol=1e-14)
    weights = torch.randn_like(expected)
    for own, other in zip(*(torch.autograd.grad(out, (q, k, v), weights) for out in (ours, expected)), strict=True):
        assert torch.allclose(own, other, rtol=0, atol=1e-13)


def test_the_second_derivative_of_attention_in_parts_is_right() -> None:
    inputs = [torch.randn(2, n, 3, dtype=torch.double, requires_grad=True) for n in (2, 4, 4)]
    assert torch.autograd.gradcheck(recompute.Attention.apply, inputs)
    assert torch.autograd.gradgradcheck(recompute.Attention.apply, inputs)


def test_attention_without_queries_or_with_wider_values_is_right() -> None:
    q, k, v = (torch.randn(2, n, d) for n, d in ((0, 3), (4, 3), (4, 5)))
    assert recompute.Attention.apply(q, k, v).shape == (2, 0, 5)
    q = torch.randn(2, 3, 3)
    assert torch.allclose(recompute.Attention.apply(q, k, v), two_products(q, k, v), rtol=0, atol=1e-6)


def test_the_weights_of_long_rows_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ssat.encoders.layers.multiplies_bf16", lambda: True)
    for tokens, width, kept in ((512, 16, True), (513, 64, False), (128, 4, True), (129, 4, False)):
        heads = tuple(torch.randn(1, 2, tokens, width, dtype=torch.bfloat16, requires_grad=True) for _ in range(3))
        found = kept_bytes(lambda heads=heads: attend(*heads), but=heads)  # type: ignore[misc]
        assert (found >= 2 * tokens**2 * 2) is kept


@pytest.mark.parametrize("width", [1, 64])  # rows that are long and short for it
def test_attention_in_bf16_compiles_into_one_graph(width: int) -> None:
    torch._dynamo.reset()
    heads = [torch.randn(2, 2, 50, width, dtype=torch.bfloat16, requires_grad=True) for _ in range(3)]
    compiled = torch.compile(attend, fullgraph=True, backend="aot_eager")
    for own, other in zip(gradients(compiled(*heads), heads), gradients(attend(*heads), heads), strict=True):
        assert torch.allclose(own, other, rtol=0.02, atol=0.02)
