"""Images as patches and back, in the order of MAE's targets."""

from __future__ import annotations

from torch import Tensor


def patchify(images: Tensor, patch_size: int) -> Tensor:
    """(B, C, H, W) as (B, L, p * p * C), channels last inside a patch: the order of MAE's targets."""
    b, c, h, w = images.shape
    p = patch_size
    return images.reshape(b, c, h // p, p, w // p, p).permute(0, 2, 4, 3, 5, 1).reshape(b, -1, p * p * c)


def unpatchify(patches: Tensor, patch_size: int, grid: tuple[int, ...]) -> Tensor:
    """The inverse of `patchify`: (B, L, p * p * C) as (B, C, H, W)."""
    rows, cols = grid
    p = patch_size
    cells = patches.unflatten(2, (p, p, -1)).unflatten(1, (rows, cols))
    return cells.permute(0, 5, 1, 3, 2, 4).flatten(4).flatten(2, 3)


def normalise_patches(patches: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Each patch of (..., P) with mean 0 and unbiased variance 1, and the means and deviations (..., 1).

    Source: He et al. 2022, sec. 3.
    """
    mean = patches.mean(dim=-1, keepdim=True)
    std = (patches.var(dim=-1, keepdim=True) + 1e-6).sqrt()
    return (patches - mean) / std, mean, std
