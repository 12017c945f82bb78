"""How the gradients of the two losses on the shared encoder relate: their angle and their lengths."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from functools import cached_property

import torch
from torch import Tensor

from ssat.core.distributed import mean_over_processes
from ssat.encoders.base import Encoder


def shared_gradients(encoder: Encoder, *losses: Tensor) -> list[dict[str, Tensor]]:
    """For each loss its gradients by name, over all processes, of the parameters that all of the losses reach.

    The graph is kept and no `.grad` is touched, so that the training step goes on as if nothing had happened.
    """
    named = {name: p for name, p in encoder.named_parameters() if p.requires_grad}
    found = [torch.autograd.grad(loss, list(named.values()), retain_graph=True, allow_unused=True) for loss in losses]
    shared = [i for i in range(len(named)) if all(gradients[i] is not None for gradients in found)]
    names = list(named)
    return [{names[i]: mean_over_processes(gradients[i].float()) for i in shared} for gradients in found]


def _dot(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: (first[name] * second[name]).sum() for name in first}


def layer_cosines(encoder: Encoder, first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Cosine between two gradients for every layer of `Encoder.layer_ids`, `layer_00` first, and for `all` of them."""
    layers, products = encoder.layer_ids(), [_dot(first, second), _dot(first, first), _dot(second, second)]
    groups = defaultdict(list)
    for name in first:
        groups[f"layer_{layers[name]:02d}"].append(name)
        groups["all"].append(name)
    cosines = {}
    for key, names in sorted(groups.items()):
        both, a, b = (torch.stack([product[name] for name in names]).sum() for product in products)
        cosines[key] = both / (a * b).sqrt().clamp_min(1e-30)
    return cosines


def length(gradients: Mapping[str, Tensor]) -> Tensor:
    """Euclidean norm of all of them together."""
    return torch.stack(list(_dot(gradients, gradients).values())).sum().sqrt()


class LossGradients:
    """The gradients of L_cls and L_SSAT on the encoder at one step, measured once and only when something reads them.

    Args:
        encoder: both losses come from it.
        cls_loss, ssl_loss: scalars with their graphs.
    """

    def __init__(self, encoder: Encoder, cls_loss: Tensor, ssl_loss: Tensor) -> None:
        self.encoder, self.losses = encoder, (cls_loss, ssl_loss)

    @cached_property
    def pair(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The gradients of L_cls and of L_SSAT by name, see `shared_gradients`; costs two backward passes."""
        of_cls, of_ssl = shared_gradients(self.encoder, *self.losses)
        return of_cls, of_ssl

    def ratio(self) -> Tensor:
        """Length of the gradient of L_cls over that of L_SSAT."""
        of_cls, of_ssl = self.pair
        return length(of_cls) / length(of_ssl).clamp_min(1e-30)

    def cosines(self) -> dict[str, Tensor]:
        """Cosine between both by layer, see `layer_cosines`."""
        return layer_cosines(self.encoder, *self.pair)
