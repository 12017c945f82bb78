"""Random masks: which cells of an image are hidden."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from src.errors import UserError


def num_visible(length: int, ratio: float) -> int:
    """Cells kept out of `length` at mask ratio `ratio`: int(length * (1 - ratio)), as the authors and MAE.

    Raises:
        UserError: `ratio` is outside (0, 1), or keeps or hides no cell at all.
    """
    if not 0 < ratio < 1:
        raise UserError(f"ssl.mask_ratio={ratio} is outside (0, 1): it is the share of the patches that is hidden")
    kept = int(length * (1 - ratio))
    if not 0 < kept < length:
        what = "leaves no visible patch" if kept == 0 else "hides no patch"
        raise UserError(f"ssl.mask_ratio={ratio} {what} out of {length}: change it, or use smaller patches")
    return kept


KINDS = ("random", "block", "grid")


def arrange(noise: Tensor, grid: tuple[int, ...], kind: str, size: int) -> Tensor:
    """Scores (B, L) from uniform `noise` (B, L): the smallest are to stay visible, whatever the mask ratio.

    `random`: the noise itself. `block`: whole blocks of size x size cells are visible or hidden, but for one that the
    ratio cuts (larger holes than MAE's, as SimMIM and BEiT). `grid`: of each such block equally many cells are visible
    (as UM-MAE's uniform sampling), so that no hole is large.

    Raises:
        UserError: an unknown kind.
    """
    if kind not in KINDS:
        raise UserError(f"ssl.mask={kind!r} is not one of {', '.join(KINDS)}")
    if kind == "random":
        return noise
    rows, cols = grid[-2:]
    row, col = (torch.arange(side, device=noise.device) // size for side in (rows, cols))
    across = -(-cols // size)
    block = (row[:, None] * across + col).flatten()  # (L,): the block of each cell
    if kind == "block":
        first = (
            torch.arange(rows, device=noise.device)[::size, None] * cols
            + torch.arange(cols, device=noise.device)[::size]
        ).flatten()
        rank = noise[:, first].argsort(dim=1, stable=True).argsort(dim=1)[:, block]
        # The noise of the cut block's first cell has decided its rank; its last 12 of 24 bits have not.
        return rank + noise * 4096 % 1
    # A cell's place in the random order of its block.
    smaller = (noise.unsqueeze(2) > noise.unsqueeze(1)) & (block[:, None] == block)
    return smaller.sum(2) + noise


def mask_from_noise(noise: Tensor, ratio: float) -> Tensor:
    """Boolean mask (B, L), True = removed, that keeps the smallest noises of each row of `noise` (B, L)."""
    kept = noise.argsort(dim=1, stable=True)[:, : num_visible(noise.shape[1], ratio)]
    return torch.ones_like(noise, dtype=torch.bool).scatter_(1, kept, False)


def random_mask(
    batch: int,
    grid: tuple[int, ...],
    ratio: float,
    generator: torch.Generator | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    """Uniformly random mask (batch, L), L = the cells of `grid`; the same number hidden in every row."""
    return mask_from_noise(torch.rand(batch, math.prod(grid), generator=generator, device=device), ratio)


def _int64(value: int) -> int:
    """`value` mod 2^64 as a signed 64-bit number."""
    value %= 2**64
    return value - 2**64 if value >= 2**63 else value


def _shift(x: Tensor, bits: int) -> Tensor:
    # A right shift of signed integers copies the sign; the mask makes it logical.
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _mix(x: Tensor) -> Tensor:
    """The finaliser of splitmix64 (Steele et al. 2014) on int64; multiplication wraps."""
    x = (x ^ _shift(x, 30)) * _int64(0xBF58476D1CE4E5B9)
    x = (x ^ _shift(x, 27)) * _int64(0x94D049BB133111EB)
    return x ^ _shift(x, 31)


def sample_noise(indices: Tensor, length: int, *, seed: int, draw: int | Tensor) -> Tensor:
    """Uniform noise (B, length) in [0, 1) that is a function of (seed, draw, index, cell) alone.

    A sample's mask is then the same in any batch, on any rank and device, and after any restart, and drawing it leaves
    every global generator as it was.

    Args:
        indices: (B,) int64 of the samples.
        length: cells per sample.
        seed: of the run.
        draw: which draw for these samples, e.g. the number of batches before this one.
    """
    golden = _int64(0x9E3779B97F4A7C15)
    mixed = _mix(torch.as_tensor(draw, dtype=torch.int64) * golden + _int64(seed * 0xD1B54A32D192ED03))
    # Keep the key a Python int: copying it to the device would synchronise.
    key = mixed if mixed.device == indices.device else int(mixed)
    rows = _mix(key + (indices + 1) * golden)
    # golden * (1, 2, ...); Inductor folds a product with arange into a 32-bit index expression, which overflows on a GPU.
    cells = torch.full((length,), golden, device=indices.device).cumsum(0)
    return _shift(_mix(rows.unsqueeze(1) + cells), 40).float() / 2**24
