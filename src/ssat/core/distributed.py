"""Batches of all processes as one, with gradients."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def world_size() -> int:
    """Processes of the run; 1 without DDP."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, local: Tensor) -> Tensor:
        parts = [torch.empty_like(local) for _ in range(world_size())]
        dist.all_gather(parts, local.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        grad = grad.contiguous()
        dist.all_reduce(grad)
        return grad.chunk(world_size())[dist.get_rank()]


def gather(local: Tensor) -> Tensor:
    """Rows (B, ...) of every process, (W * B, ...) in the order of the ranks; B must be the same in all of them.

    The gradient of a row is the sum over the processes. Where all of them compute the same loss of the gathered rows,
    DDP's mean of the parameters' gradients is that of one process with the whole batch.
    """
    return _Gather.apply(local) if world_size() > 1 else local


@torch.no_grad()
def mean_over_processes(value: Tensor) -> Tensor:
    """`value` averaged over the processes, without a gradient."""
    if world_size() > 1:
        value = value.clone()
        dist.all_reduce(value)
        value /= world_size()
    return value


def over_labelled(total: Tensor, known: Tensor) -> Tensor:
    """A sum of losses over the labelled samples of all processes, `known` (B,) of this one.

    A process with few labels then weighs as much as its labels do: the mean over processes is the mean over labels.
    """
    return total / mean_over_processes(known.sum().float()).clamp_min(1 / world_size())
