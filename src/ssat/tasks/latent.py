"""Reconstruction of an averaged encoder's features in place of pixels (after data2vec, Baevski et al. 2022)."""

from __future__ import annotations

import copy
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ssat.core.errors import UserError
from ssat.core.schedules import cosine, warmed_up
from ssat.encoders.base import Encoder
from ssat.tasks.decoders import DecoderKind, Fusion
from ssat.tasks.masking import MaskKind
from ssat.tasks.reconstruction import Reconstruction, Source
from ssat.tasks.teacher import follow


class LatentReconstruction(Reconstruction):
    """Predict the features that a moving average of the encoder gives the hidden patches when it sees the whole image.

    The target of a patch is the mean of its tokens after the last blocks; each token is normalised over its channels
    before the mean, and the mean once more.

    Args:
        encoder: one with flat tokens; the teacher starts as a copy of it.
        blocks: how many of the last blocks are averaged.
        momentum: of the teacher; it rises to 1 along a cosine, and warms up (`schedules.warmed_up`).
        mask_ratio: this and all further arguments are those of `Reconstruction`.

    Raises:
        UserError: an encoder without one flat token grid, or more blocks than it has; as `Reconstruction`.
    """

    flat_tokens = True
    reads = ("forward_blocks",)

    def __init__(
        self,
        encoder: Encoder,
        *,
        blocks: int = 4,
        momentum: float = 0.996,
        mask_ratio: float = 0.75,
        mask: MaskKind = "random",
        mask_block: int = 2,
        source: Source = "mixed",
        loss: Literal["mse", "l1"] = "mse",
        decoder: DecoderKind | None = None,
        decoder_dim: int = 128,
        decoder_depth: int = 2,
        decoder_heads: int = 16,
        decoder_mlp_ratio: float = 4.0,
        fuse: Fusion = "pool",
        seed: int = 0,
    ) -> None:
        super().__init__(
            encoder,
            mask_ratio=mask_ratio,
            mask=mask,
            mask_block=mask_block,
            source=source,
            loss=loss,
            decoder=decoder,
            decoder_dim=decoder_dim,
            decoder_depth=decoder_depth,
            decoder_heads=decoder_heads,
            decoder_mlp_ratio=decoder_mlp_ratio,
            fuse=fuse,
            seed=seed,
        )
        if not 1 <= blocks <= encoder.depth:
            raise UserError(
                f"ssl.blocks={blocks} is not possible: the encoder has {encoder.depth} blocks",
                key="ssl.blocks",
                value=blocks,
            )
        self.blocks, self.momentum = blocks, momentum
        self.teacher = copy.deepcopy(encoder).requires_grad_(False)

    def target_dim(self, encoder: Encoder) -> int:
        """The width of the encoder's tokens."""
        return encoder.latent_dims[-1]

    @property
    def has_pictures(self) -> bool:
        """Features cannot be shown."""
        return False

    @torch.no_grad()
    def target(self, images: Tensor) -> Tensor:
        """(B, L, D), fp32; every token has mean 0 and variance 1."""
        blocks = self.teacher.forward_blocks(images)[-self.blocks :]
        tokens = [self.teacher.image_tokens(block).float() for block in blocks]
        normal = [F.layer_norm(each, each.shape[-1:]) for each in tokens]
        return F.layer_norm(torch.stack(normal).mean(0), tokens[0].shape[-1:])

    def resize(self, encoder: Encoder) -> None:
        """The teacher takes images of this size, too."""
        super().resize(encoder)
        self.teacher.resize((encoder.img_size[0], encoder.img_size[1]))

    def monitors(self, targets: Tensor) -> dict[str, Tensor]:
        """The targets' deviation over patches, which nears 0 when the teacher gives all of them the same features."""
        return {"target_std": targets.flatten(0, 1).std(0).mean()}

    def begin(self, encoder: Encoder) -> None:
        """The teacher starts as the encoder is."""
        self.teacher.load_state_dict(encoder.state_dict())

    def train(self, mode: bool = True) -> LatentReconstruction:
        """The teacher stays in evaluation mode: it has no drop path."""
        super().train(mode)
        self.teacher.eval()
        return self

    def after_step(self, encoder: Encoder, progress: float, step: int) -> None:
        """The teacher follows the encoder."""
        follow(self.teacher, encoder, warmed_up(cosine(self.momentum, 1.0, progress), step))
