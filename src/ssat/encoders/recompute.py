"""Operations that compute again in the backward pass what is cheap to compute, in place of keeping it in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import forward_ad

IN_CACHE = 2**21  # bytes of attention weights


def possible(x: Tensor) -> bool:
    """Whether it is computed on a CPU, and no compiler, tracer or transform wants PyTorch's own operations."""
    others = torch.compiler.is_compiling() or torch.jit.is_tracing() or torch._C._are_functorch_transforms_active()
    return x.device.type == "cpu" and not others and forward_ad._current_level < 0


class ActivatedLinear(torch.autograd.Function):
    """`F.linear(activation(x), weight, bias)` that keeps `x`, not the activations, the widest tensors of a block."""

    @staticmethod
    def forward(ctx: Any, activation: Callable[[Tensor], Tensor], x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """(..., 4D) to (..., D), all of one type; `activation` is elementwise, without parameters or chance."""
        ctx.save_for_backward(x, weight)
        ctx.activation = activation
        return F.linear(activation(x), weight, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of `x`, `weight` and `bias`; differentiable."""
        x, weight = ctx.saved_tensors
        _, of_x, of_weight, of_bias = ctx.needs_input_grad
        twice = torch.is_grad_enabled()  # a graph of this pass is wanted
        rows = grad.reshape(-1, grad.shape[-1])
        with torch.enable_grad():
            x = x.view_as(x) if twice else x.detach().requires_grad_()  # another tensor: the hooks of x have their call
            activated = ctx.activation(x)
        return (
            None,
            torch.autograd.grad(activated, x, grad @ weight, create_graph=twice)[0] if of_x else None,
            rows.mT @ activated.reshape(-1, activated.shape[-1]) if of_weight else None,
            rows.sum(0) if of_bias else None,
        )


class Attention(torch.autograd.Function):
    """Attention as two products with a softmax between, whose weights nobody keeps.

    A few heads at a time, so that their weights stay in the processor's cache.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """(B, Q, d) of queries (B, Q, d), keys and values (B, K, d); B counts samples and heads."""
        ctx.save_for_backward(q, k, v)
        out = q.new_empty(*q.shape[:2], v.shape[2])
        for part in _parts(q, k):
            torch.bmm(_weights(q[part], k[part]), v[part], out=out[part])
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        """Gradients of queries, keys and values; differentiable."""
        q, k, v = ctx.saved_tensors
        if torch.is_grad_enabled():  # a graph of this pass is wanted
            q, k, v = inputs = tuple(x.view_as(x) for x in (q, k, v))
            return torch.autograd.grad(two_products(q, k, v), inputs, grad, create_graph=True)
        of_q, of_k, of_v = (x.new_empty(x.shape) for x in (q, k, v))
        for part in _parts(q, k):
            weights = _weights(q[part], k[part])
            torch.bmm(weights.mT, grad[part], out=of_v[part])
            of_weights = torch.bmm(grad[part], v[part].mT)
            of_scores = torch._softmax_backward_data(of_weights, weights, -1, weights.dtype)
            torch.bmm(of_scores, k[part], out=of_q[part])
            torch.bmm(of_scores.mT, q[part], out=of_k[part])
        scale = q.shape[-1] ** -0.5
        return of_q.mul_(scale), of_k.mul_(scale), of_v


def _parts(q: Tensor, k: Tensor) -> Iterator[slice]:
    """Slices of samples and heads whose attention weights stay in the cache."""
    at_once = max(1, IN_CACHE // max(1, q.shape[1] * k.shape[1] * q.element_size()))
    return (slice(start, start + at_once) for start in range(0, len(q), at_once))


def two_products(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The same attention in its plain form, (B, Q, d)."""
    return torch.bmm(_weights(q, k), v)


def _weights(q: Tensor, k: Tensor) -> Tensor:
    return torch.bmm(q * q.shape[-1] ** -0.5, k.mT).softmax(dim=-1)
