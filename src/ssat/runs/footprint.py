"""Parameters, multiply-accumulates and the CO2 formula."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from contextlib import suppress

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ssat.core.batch import Batch
from ssat.encoders.base import Encoder
from ssat.tasks.base import Task
from ssat.tasks.masked import MaskedPrediction

STEP_BATCH = 2  # a task that compares images needs two
# Parameters x pixels of all frames: above it computing takes a CPU longer than working out the shapes (seconds).
LARGE = 1e13


def trainable(module: nn.Module | None) -> int:
    """Trainable parameters; a fixed position table is none."""
    return 0 if module is None else sum(p.numel() for p in module.parameters() if p.requires_grad)


def count_parameters(
    encoder: Encoder, head: nn.Module | None, ssl: nn.Module | None, *, frozen: Sequence[nn.Parameter] = ()
) -> dict[str, int]:
    """`inference`: encoder and head (Table 1's first column); `training`: what learns, with the SSL part."""
    masked, full = encoder.only_masked(), encoder.only_full()
    # A phase may have frozen what it does not read; the classifier reads it all the same.
    read = [p for n, p in encoder.named_parameters() if n not in masked and (p.requires_grad or n in full)]
    inference = sum(p.numel() for p in [*read, *frozen]) + trainable(head)
    return {"inference": inference, "training": trainable(encoder) + trainable(head) + trainable(ssl)}


def macs_of(call: Callable[[], object]) -> int:
    """Multiply-accumulates of `call`, matrix products and convolutions only (what the paper calls FLOPs)."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops() // 2


def count_macs(
    encoder: Encoder, ssl: Task | None, image: tuple[int, ...], *, head: nn.Module | None = None
) -> dict[str, int]:
    """MACs of one image (channels, height, width), or of one clip (channels, frames, height, width).

    They are those of the plain formulation, all tokens computed, as Table 3 counts. `full`: the classification pass;
    `auxiliary`: the SSL pass; `both`: a joint step's forward. What training saves by leaving out unread tokens is not
    subtracted.
    """
    device = next(encoder.parameters()).device
    images = torch.zeros(1, *image, device=device)
    modes = [(module, module.training) for module in (encoder, ssl, head) if module is not None]
    for module, _ in modes:
        module.eval()
    full = macs_of(lambda: encoder.forward_features_plain(images))
    if head is not None:
        full += macs_of(lambda: head(torch.zeros(1, encoder.num_features, device=device)))
    auxiliary = 0
    if isinstance(ssl, MaskedPrediction):
        mask = ssl.fixed_mask(torch.zeros(1, dtype=torch.int64, device=device))
        auxiliary = macs_of(lambda: ssl.forward_reference(encoder, images, mask, num_visible=ssl.num_visible))
    elif ssl is not None:
        # The classification may share a pass with the task: what the task costs is what it adds.
        batch = Batch(images, views=ssl.blank_views(images))
        shared = head is not None
        auxiliary = macs_of(lambda: ssl(encoder, batch, shared))
        auxiliary -= shared * macs_of(lambda: encoder.forward_features_plain(images))
    for module, was_training in modes:
        module.train(was_training)
    return {"full": full, "auxiliary": auxiliary, "both": full + auxiliary}


def count_step_macs(
    encoder: Encoder, ssl: Task | None, image: tuple[int, ...], *, head: nn.Module | None = None
) -> int:
    """MACs per image of one training step, forward and backward, as it runs: what unread tokens save is subtracted."""
    device = next(encoder.parameters()).device
    images = torch.zeros(STEP_BATCH, *image, device=device)
    parts = [module for module in (encoder, ssl, head) if module is not None]
    modes = [module.training for module in parts]
    for module in parts:
        module.eval()  # no random state moves; the gradients are the same work
    encoder.training = bool(encoder.patch_dropout)  # the encoder alone, not its parts: patches are left out
    trained = [p for module in parts for p in module.parameters() if p.requires_grad]
    forked = torch.random.fork_rng([device] if device.type == "cuda" else [], enabled=encoder.training)
    with FlopCounterMode(display=False) as counter, forked:
        loss, features = torch.zeros((), device=device), None
        if ssl is None:
            features = encoder.forward_features(images)
        else:
            loss, features, _ = ssl(encoder, Batch(images, views=ssl.blank_views(images)), head is not None)
        if head is not None:
            loss = loss + head(features).sum()
        torch.autograd.grad(loss, trained, allow_unused=True)
    for module, mode in zip(parts, modes, strict=True):
        module.train(mode)
    return counter.get_total_flops() // 2 // STEP_BATCH


def count_all_macs(
    encoder: Encoder, ssl: Task | None, image: tuple[int, ...], *, head: nn.Module | None = None
) -> dict[str, int]:
    """`count_macs`, and with them `step`: `count_step_macs`. Those of a large network follow from the shapes alone."""

    def count(encoder: Encoder, ssl: Task | None, head: nn.Module | None) -> dict[str, int]:
        return {**count_macs(encoder, ssl, image, head=head), "step": count_step_macs(encoder, ssl, image, head=head)}

    if sum(p.numel() for p in encoder.parameters()) * math.prod(image[1:]) > LARGE:
        with suppress(Exception):  # a user's own network may look at values
            # Tensors without values that take their device's kernels; those of the meta device count other attention.
            from torch._subclasses.fake_tensor import FakeCopyMode, FakeTensorMode

            shapes = FakeTensorMode()
            with FakeCopyMode(shapes):
                copies = copy.deepcopy((encoder, ssl, head))
            with shapes:
                return count(*copies)
    return count(encoder, ssl, head)


def lacoste_co2(hours: float, *, devices: int = 1, tdp_watts: float, intensity: float = 0.432) -> float:
    """kg CO2 = hours x devices x kW x kg/kWh (Lacoste et al. 2019, the paper's [26]).

    230 W (RTX A5000) and 0.432 kg/kWh give Table 3's 5.96 kg for 60 h.
    """
    return hours * devices * tdp_watts / 1000 * intensity
