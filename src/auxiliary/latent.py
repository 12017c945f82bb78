"""Reconstruction of an averaged encoder's features in place of pixels (after data2vec, Baevski et al. 2022)."""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from src.auxiliary.reconstruction import Reconstruction
from src.auxiliary.teacher import cosine, follow
from src.encoders.base import Encoder
from src.errors import UserError


class LatentReconstruction(Reconstruction):
    """Predict what the student's moving average makes of the hidden patches when it sees the whole image.

    The target is the mean of the last blocks' patch tokens, each normalised over its channels, normalised again.

    Args:
        encoder: a plain ViT; the teacher starts as a copy of it.
        blocks: how many of the last blocks are averaged.
        momentum: of the teacher at the start; it rises to 1 along a cosine.
        others: as for `Reconstruction`, without the choice of a target.

    Raises:
        UserError: an encoder without one grid of tokens, or more blocks than it has.
    """

    def __init__(self, encoder: Encoder, *, blocks: int = 4, momentum: float = 0.996, **others: Any) -> None:
        if encoder.hidden != "dropped":
            raise UserError(
                f"ssl=latent predicts the tokens of a plain ViT, and {type(encoder).__name__} has none of one grid: use"
                " ssl=convmae, simmim or swin_light, or a plain ViT"
            )
        super().__init__(encoder, **others)
        depth = max(encoder.layer_ids().values()) - 1
        if not 1 <= blocks <= depth:
            raise UserError(f"ssl.blocks={blocks} is not possible: the encoder has {depth} blocks")
        self.blocks, self.momentum = blocks, momentum
        self.teacher = copy.deepcopy(encoder).requires_grad_(False)

    def target_dim(self, encoder: Encoder) -> int:
        return encoder.latent_dims[-1]

    @property
    def has_pictures(self) -> bool:
        return False

    @torch.no_grad()
    def target(self, images: Tensor) -> Tensor:
        """(B, L, D), fp32; every token has mean 0 and variance 1."""
        blocks = self.teacher.forward_blocks(images)[-self.blocks :]
        tokens = [block[:, self.teacher.num_prefix :].float() for block in blocks]
        normal = [F.layer_norm(each, each.shape[-1:]) for each in tokens]
        return F.layer_norm(torch.stack(normal).mean(0), tokens[0].shape[-1:])

    def monitors(self, targets: Tensor) -> dict[str, Tensor]:
        # Near 0 once the teacher gives every patch the same features.
        return {"target_std": targets.flatten(0, 1).std(0).mean()}

    def begin(self, encoder: Encoder) -> None:
        self.teacher.load_state_dict(encoder.state_dict())

    def train(self, mode: bool = True) -> LatentReconstruction:
        super().train(mode)
        self.teacher.eval()
        return self

    def after_step(self, encoder: Encoder, progress: float) -> None:
        follow(self.teacher, encoder, cosine(self.momentum, 1.0, progress))
