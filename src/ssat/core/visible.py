"""What one sees of images with any number of channels."""

from __future__ import annotations

from torch import Tensor


def visible(images: Tensor) -> Tensor:
    """(B, C, H, W) as (B, 3, H, W): grey is repeated, of more than three channels the first three, of two the first."""
    return images[:, :3] if images.shape[1] >= 3 else images[:, :1].expand(-1, 3, -1, -1)
