"""Operations that compute again in the backward pass what is cheap to compute, in place of keeping it in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

IN_CACHE = 2**21  # bytes of attention weights


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
        rows = grad.flatten(0, -2)
        with torch.enable_grad():
            x = x if twice else x.detach().requires_grad_()
            activated = ctx.activation(x)
        return (
            None,
            torch.autograd.grad(activated, x, grad @ weight, create_graph=twice)[0] if of_x else None,
            rows.mT @ activated.flatten(0, -2) if of_weight else None,
            rows.sum(0) if of_bias else None,
        )


class Attention(torch.autograd.Function):
    """Attention as two products with a softmax between, whose weights nobody keeps.

    A few samples at a time, so that their weights stay in the processor's cache.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """(B, H, Q, d) of queries (B, H, Q, d), keys and values (B, H, K, d)."""
        ctx.save_for_backward(q, k, v)
        out = q.new_empty(len(q), q.shape[2], q.shape[1], q.shape[3]).transpose(1, 2)  # heads side by side
        for part, queries, keys, values in _parts(q, k, v):
            out[part] = torch.bmm(_weights(queries, keys), values).view_as(out[part])
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of queries, keys and values."""
        inputs = ctx.saved_tensors
        results = tuple(torch.empty_like(x) for x in inputs)
        scale = grad.shape[-1] ** -0.5
        for part, q, k, v, of_out in _parts(*inputs, grad):
            weights = _weights(q, k)
            of_scores = torch._softmax_backward_data(torch.bmm(of_out, v.mT), weights, -1, weights.dtype)
            of_keys = torch.bmm(of_scores.mT, q).mul_(scale)
            found = torch.bmm(of_scores, k).mul_(scale), of_keys, torch.bmm(weights.mT, of_out)
            for result, of in zip(results, found, strict=True):
                result[part] = of.view_as(result[part])
        return results


def _parts(q: Tensor, k: Tensor, *more: Tensor) -> Iterator[tuple[Any, ...]]:
    """Slices of the samples, with each tensor's (B, H, N, d) as (samples * H, N, d)."""
    of_sample = q.shape[1] * q.shape[2] * k.shape[2] * q.element_size()
    at_once = max(1, IN_CACHE // of_sample)
    for start in range(0, len(q), at_once):
        part = slice(start, start + at_once)
        yield part, *(x[part].flatten(0, 1) for x in (q, k, *more))


def _weights(q: Tensor, k: Tensor) -> Tensor:
    return torch.bmm(q * q.shape[-1] ** -0.5, k.mT).softmax(dim=-1)
