"""Histograms of oriented gradients, the target of MaskFeat (Wei et al. 2022)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

BINS = 9
CELL = 8  # pixels; a smaller patch is one cell


def hog_dim(patch_size: int, channels: int) -> int:
    """Numbers per patch of `patch_size` pixels per side: 9 per cell and channel."""
    return (patch_size // cell_size(patch_size)) ** 2 * BINS * channels


def cell_size(patch_size: int) -> int:
    """Pixels per side of a histogram's cell: 8, or the whole patch where 8 does not divide it."""
    return CELL if patch_size % CELL == 0 else patch_size


def hog(images: Tensor, patch_size: int) -> Tensor:
    """(B, C, H, W) to (B, L, hog_dim): for each patch a histogram per cell and channel, scaled to length 1.

    Gradients are central differences. Each pixel votes for one of nine unsigned orientations with the length of its
    gradient. A histogram without votes stays 0.
    """
    images = images.float()
    padded = F.pad(images, (1, 1, 1, 1), mode="replicate")
    dx = padded[:, :, 1:-1, 2:] - padded[:, :, 1:-1, :-2]
    dy = padded[:, :, 2:, 1:-1] - padded[:, :, :-2, 1:-1]
    bins = (torch.atan2(dy, dx) % math.pi / math.pi * BINS).long().clamp_max(BINS - 1)
    votes = torch.zeros(*images.shape, BINS, device=images.device)
    votes.scatter_(4, bins.unsqueeze(4), torch.hypot(dx, dy).unsqueeze(4))
    cell = cell_size(patch_size)
    per_patch = patch_size // cell
    b, c, h, w = images.shape
    histograms = votes.view(b, c, h // cell, cell, w // cell, cell, BINS).sum((3, 5))
    histograms = F.normalize(histograms, dim=4)
    rows, cols = h // patch_size, w // patch_size
    cells = histograms.view(b, c, rows, per_patch, cols, per_patch, BINS)
    return cells.permute(0, 2, 4, 3, 5, 1, 6).reshape(b, rows * cols, -1)
