"""What one sees of images with any number of channels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def visible(images: Tensor) -> Tensor:
    """(B, C, H, W) as (B, 3, H, W): grey is repeated, of more than three channels the first three, of two the first."""
    return images[:, :3] if images.shape[1] >= 3 else images[:, :1].expand(-1, 3, -1, -1)


def pixels(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> NDArray[np.float32]:
    """Normalised images (B, C, H, W) as pictures (B, H, W, 3) in [0, 1]."""
    scale, shift = (torch.tensor(values).view(-1, 1, 1) for values in (std, mean))
    return visible((images * scale + shift).clamp(0, 1)).permute(0, 2, 3, 1).numpy()
