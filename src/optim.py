"""Learning rate, parameter groups and the optimizer."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from src.encoders.base import Encoder


def effective_lr(base_lr: float, rule: str, global_batch: int) -> float:
    """`base_lr` x `global_batch` / 256 (Goyal et al. 2017; the authors' code), or `base_lr` itself when absolute."""
    return base_lr * global_batch / 256 if rule == "linear" else base_lr


def lr_at(step: int, *, lr: float, min_lr: float, warmup_lr: float, warmup_steps: float, total_steps: int) -> float:
    """Learning rate of optimizer step `step`, from 0: linear `warmup_lr` to `lr`, then half a cosine to `min_lr`."""
    if step < warmup_steps:
        return warmup_lr + (lr - warmup_lr) * step / warmup_steps
    progress = min(1.0, (step - warmup_steps) / max(1.0, total_steps - warmup_steps))
    return min_lr + (lr - min_lr) * 0.5 * (1 + math.cos(math.pi * progress))


def parameter_groups(
    parameters: Iterable[tuple[str, Tensor]],
    *,
    weight_decay: float,
    no_decay: set[str],
    layer_ids: dict[str, int],
    layer_decay: float = 1.0,
    decay_all: bool = False,
) -> list[dict]:
    """Groups for the optimizer, each with its `lr_scale`.

    One-dimensional parameters, biases and `no_decay` are not decayed unless `decay_all`. A parameter of layer i out of
    n is trained at `layer_decay` ** (n - i) of the learning rate; what has no layer (head, decoder) at the whole of it.
    """
    last = max(layer_ids.values(), default=0)
    groups: dict[tuple[bool, int], dict] = {}
    for name, parameter in parameters:
        if not parameter.requires_grad:
            continue
        decayed = decay_all or (parameter.ndim > 1 and not name.endswith(".bias") and name not in no_decay)
        layer = layer_ids.get(name, last) if layer_decay != 1.0 else last
        key = (decayed, layer)
        if key not in groups:
            groups[key] = {
                "params": [],
                "weight_decay": weight_decay if decayed else 0.0,
                "lr_scale": layer_decay ** (last - layer),
            }
        groups[key]["params"].append(parameter)
    return list(groups.values())


def module_groups(
    module: nn.Module,
    encoder: Encoder,
    *,
    weight_decay: float,
    layer_decay: float,
    decay_all: bool = False,
    no_decay: Iterable[str] = (),
) -> list[dict]:
    """`parameter_groups` of a module that holds `encoder` under the name 'encoder'.

    Args:
        no_decay: names of the encoder's parameters that are not decayed, besides those that it says itself.
    """
    return parameter_groups(
        module.named_parameters(),
        weight_decay=weight_decay,
        no_decay={f"encoder.{name}" for name in encoder.no_weight_decay() | set(no_decay)},
        layer_ids={f"encoder.{name}": layer for name, layer in encoder.layer_ids().items()},
        layer_decay=layer_decay,
        decay_all=decay_all,
    )


def adamw(groups: list[dict], *, lr: float, betas: tuple[float, float], eps: float) -> AdamW:
    """AdamW whose groups start at `lr` x `lr_scale`; the weight decay is each group's own."""
    return AdamW(_scaled(groups, lr), lr=lr, betas=betas, eps=eps, weight_decay=0.0)


def sgd(groups: list[dict], *, lr: float, momentum: float) -> SGD:
    """SGD with Nesterov's momentum whose groups start at `lr` x `lr_scale`; the weight decay is each group's own."""
    return SGD(_scaled(groups, lr), lr=lr, momentum=momentum, nesterov=momentum > 0, weight_decay=0.0)


def _scaled(groups: list[dict], lr: float) -> list[dict]:
    for group in groups:
        group["lr"] = lr * group["lr_scale"]
    return groups


def warmup_cosine(
    optimizer: Optimizer, *, lr: float, min_lr: float, warmup_lr: float, warmup_steps: float, total_steps: int
) -> LambdaLR:
    """`lr_at` as a scheduler to be stepped after every optimizer step; layer scales multiply it, as in MAE."""

    def factor(step: int) -> float:
        return (
            lr_at(
                step,
                lr=lr,
                min_lr=min_lr,
                warmup_lr=warmup_lr,
                warmup_steps=warmup_steps,
                total_steps=total_steps,
            )
            / lr
        )

    return LambdaLR(optimizer, factor)


def seed_step(seed: int, step: int, rank: int) -> None:
    """Seed every global generator for one training step.

    Dropout, drop path and mixing then follow from (seed, step, rank) alone, so that a resumed run repeats them without
    any saved random state.
    """
    mixed = (seed * 0x9E3779B97F4A7C15 + step * 0xBF58476D1CE4E5B9 + rank * 0x94D049BB133111EB) % 2**64
    mixed ^= mixed >> 31
    random.seed(mixed)
    np.random.seed(mixed % 2**32)
    torch.manual_seed(mixed % 2**63)
