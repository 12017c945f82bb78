"""What is exported: the encoder and its head, without any self-supervised part."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ssat.encoders.base import Encoder


class Classifier(nn.Module):
    """Encoder and head in evaluation mode, on the CPU, in fp32; tensors are named as in a checkpoint.

    Args:
        encoder: of a trained network; it is put into evaluation mode.
        head: from its features (B, num_features) to logits (B, K).
        name: of the encoder, as messages say it.
    """

    def __init__(self, encoder: Encoder, head: nn.Module, *, name: str) -> None:
        super().__init__()
        self.encoder, self.head, self.name = encoder, head, name
        self.float().cpu().eval().requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, K) of normalised float32 images (B, C, H, W), or clips (B, C, T, H, W)."""
        return self.head(self.encoder.forward_features(images))

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """(C, H, W) of one image, or (C, T, H, W) of one clip."""
        return self.encoder.in_chans, *self.encoder.img_size

    def example(self, batch: int, seed: int = 0) -> Tensor:
        """Random input (B, C, H, W) of unit variance, as normalised images have."""
        return torch.randn(batch, *self.sample_shape, generator=torch.Generator().manual_seed(seed))
