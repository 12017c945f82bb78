"""The contract every self-supervised task keeps."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from src.auxiliary.masking import sample_noise
from src.batch import Batch
from src.encoders.base import Encoder
from src.errors import UserError


class SSLOutput(NamedTuple):
    """What one SSL forward gives.

    Attributes:
        loss: scalar.
        features: (B, num_features) of the full classification images, or None when they were not asked for.
        logs: scalar tensors to log, by name.
    """

    loss: Tensor
    features: Tensor | None
    logs: dict[str, Tensor]


class SSLTask(nn.Module):
    """A self-supervised task; owns its decoder, head or teacher, all of it dropped at inference.

    Its `features` may be those of several views of the images, one after the other: (v * B, num_features).

    Attributes:
        views: how many extra views it needs from the data (0 for reconstruction).
        masked: whether it reads the encoder's masked pass.
        full: whether it reads the encoder's full pass also where no features are asked for.
        min_batch: images that it must see at once, over all processes.
    """

    views: int = 0
    masked: bool = False
    full: bool = True
    min_batch: int = 1

    def forward(self, encoder: Encoder, batch: Batch, with_features: bool) -> SSLOutput:
        """One pass of `encoder` over `batch`: the SSL loss and, if `with_features`, the features to classify."""
        raise NotImplementedError

    def blank_views(self, images: Tensor) -> tuple[Tensor, ...]:
        """Zeros in the shapes of the extra views of `images` (B, C, H, W)."""
        return tuple(torch.zeros_like(images) for _ in range(self.views))

    def begin(self, encoder: Encoder) -> None:
        """Called once before the first step of a phase, when the encoder has the weights that it starts from."""

    def after_step(self, encoder: Encoder, progress: float) -> None:
        """Called after each optimizer step with the share of training done, in [0, 1]."""


class RandomTask(SSLTask):
    """A task that draws random numbers of its own, a function of (seed, sample, training batches seen) alone."""

    FIXED_DRAW = -1
    draws: Tensor

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.seed = seed
        # Training batches seen: part of the state, so that a resumed run draws the next numbers, not the first again.
        self.register_buffer("draws", torch.zeros((), dtype=torch.int64))

    def noise(self, batch: Batch, length: int) -> Tensor:
        """Uniform numbers (B, length) of the batch's samples: the next draw in training, a fixed one in evaluation."""
        indices = batch.indices
        if indices is None:
            indices = torch.arange(len(batch.images), device=batch.images.device)
        draw = self.draws.clone() if self.training else self.FIXED_DRAW
        if self.training:
            self.draws += 1
        return sample_noise(indices, length, seed=self.seed, draw=draw)


def check_views(batch: Batch, needed: int) -> None:
    """Raises: UserError: the batch has fewer extra views than the task needs."""
    if len(batch.views) < needed:
        raise UserError(
            f"the SSL task needs {needed} extra view(s) of each image and the batch has {len(batch.views)}:"
            " use data.pipeline=batched, which makes them"
        )
