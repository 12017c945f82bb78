"""Random masks: which cells of an image are hidden."""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor

from ssat.core.choices import check_choice
from ssat.core.errors import UserError

MaskKind = Literal["random", "block", "grid"]


def num_visible(length: int, ratio: float) -> int:
    """Number of visible cells out of `length` at mask ratio `ratio`: int(length * (1 - ratio)), as the authors and MAE.

    Raises:
        UserError: `ratio` is outside (0, 1), or leaves no cell visible or none hidden.
    """
    _check_share(ratio)
    return _checked(int(length * (1 - ratio)), length, ratio)


def num_visible_in_tubes(cells: int, ratio: float) -> int:
    """Visible ones of `cells` tubes: all but int(ratio * cells), as VideoMAE counts (196: 49, 20, 10 at .75, .9, .95).

    Raises:
        UserError: as `num_visible`.
    """
    _check_share(ratio)
    return _checked(cells - int(ratio * cells), cells, ratio)


def _check_share(ratio: float) -> None:
    if not 0 < ratio < 1:
        raise UserError(
            f"ssl.mask_ratio={ratio} is outside (0, 1): it is the share of the patches that is hidden",
            key="ssl.mask_ratio",
            value=ratio,
        )


def _checked(visible: int, length: int, ratio: float) -> int:
    if not 0 < visible < length:
        what = "leaves no visible patch" if visible == 0 else "hides no patch"
        raise UserError(
            f"ssl.mask_ratio={ratio} {what} out of {length}: change it, or use smaller patches",
            key="ssl.mask_ratio",
            value=ratio,
        )
    return visible


def mask_scores(noise: Tensor, grid: tuple[int, ...], kind: MaskKind, size: int) -> Tensor:
    """Scores (B, L) from uniform `noise` (B, L): a mask of any ratio leaves the cells with the smallest ones visible.

    Args:
        noise: in [0, 1).
        grid: (rows, cols) of the cells.
        kind: `random` = the scores are the noise, as in MAE. `block` = blocks of size x size cells are visible or
            hidden as a whole, except the one block that the ratio cuts (as SimMIM and BEiT; the holes are larger).
            `grid` = every such block has the same number of visible cells (as UM-MAE's uniform sampling; no hole is
            large).
        size: side of a block, cells.

    Raises:
        UserError: an unknown kind.
    """
    check_choice("ssl.mask", kind, get_args(MaskKind))
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
        # The noise of a block's first cell has decided its rank, but the last 12 of its 24 bits have not.
        return rank + noise * 4096 % 1
    # A cell's place in the random order of its block.
    smaller = (noise.unsqueeze(2) > noise.unsqueeze(1)) & (block[:, None] == block)
    return smaller.sum(2) + noise


def mask_from_noise(noise: Tensor, ratio: float) -> Tensor:
    """Boolean mask (B, L), True = removed; in each row of `noise` (B, L) the cells with the smallest values stay."""
    return _keeping(noise, num_visible(noise.shape[1], ratio))


def tube_mask(noise: Tensor, ratio: float, slots: int) -> Tensor:
    """Boolean mask (B, slots * cells), True = removed: one spatial mask of `noise` (B, cells), the same in every slot.

    Source: Tong et al. 2022, sec. 3.3.
    """
    return _keeping(noise, num_visible_in_tubes(noise.shape[1], ratio)).repeat(1, slots)


def _keeping(noise: Tensor, visible: int) -> Tensor:
    kept = noise.argsort(dim=1, stable=True)[:, :visible]
    return torch.ones_like(noise, dtype=torch.bool).scatter_(1, kept, False)


def random_mask(
    batch: int,
    grid: tuple[int, ...],
    ratio: float,
    generator: torch.Generator | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    """Uniformly random mask (batch, L), L = the cells of `grid`; every row hides the same number of them."""
    return mask_from_noise(torch.rand(batch, math.prod(grid), generator=generator, device=device), ratio)
