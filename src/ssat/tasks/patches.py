"""Images as patches, clips as tubelets, and back, in the order of MAE's and VideoMAE's targets."""

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


def tubelets_of(clips: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, C, T, H, W) as (B, L, t * p * p, C), `size` = (t, p): the order of VideoMAE's targets."""
    t, p = size
    cells = clips.unflatten(4, (-1, p)).unflatten(3, (-1, p)).unflatten(2, (-1, t))
    return cells.permute(0, 2, 4, 6, 3, 5, 7, 1).flatten(4, 6).flatten(1, 3)


def clips_of(tubelets: Tensor, size: tuple[int, int], grid: tuple[int, ...]) -> Tensor:
    """The inverse of `tubelets_of`, `grid` = (slots, rows, cols): (B, L, t * p * p, C) as (B, C, T, H, W)."""
    t, p = size
    cells = tubelets.unflatten(2, (t, p, p)).unflatten(1, grid)
    return cells.permute(0, 7, 1, 4, 2, 5, 3, 6).flatten(6).flatten(4, 5).flatten(2, 3)


def normalise_tubelets(tubelets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Each channel of each tubelet of (B, L, P, C) with mean 0 and deviation 1, and both as (B, L, 1, C).

    The deviation is the root of the unbiased variance, plus 1e-6 (Tong et al. 2022, sec. 3.3 and released code).
    """
    mean, std = tubelets.mean(dim=2, keepdim=True), tubelets.std(dim=2, keepdim=True) + 1e-6
    return (tubelets - mean) / std, mean, std


def normalise_patches(patches: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Each patch of (..., P) with mean 0 and unbiased variance 1, and the means and deviations (..., 1).

    Source: He et al. 2022, sec. 3.
    """
    mean = patches.mean(dim=-1, keepdim=True)
    std = (patches.var(dim=-1, keepdim=True) + 1e-6).sqrt()
    return (patches - mean) / std, mean, std
