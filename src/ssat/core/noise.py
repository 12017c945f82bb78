"""Random numbers as a function of seed, draw, sample and cell."""

from __future__ import annotations

import torch
from torch import Tensor


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
        draw: which draw for these samples, e.g. the number of batches before this one; or (B,) one of each.
    """
    stream = _int64(seed * 0xD1B54A32D192ED03)
    noise: Tensor = _noise(indices, torch.as_tensor(draw, dtype=torch.int64), length, stream)
    return noise


# An operator of its own, which a compiler calls as it is: Inductor makes 32-bit numbers of the cells' 64-bit ones.
@torch.library.custom_op(
    "ssat::noise", mutates_args=(), schema="(Tensor indices, Tensor draw, int length, int stream) -> Tensor"
)
def _noise(indices: Tensor, draw: Tensor, length: int, stream: int) -> Tensor:
    golden = _int64(0x9E3779B97F4A7C15)
    mixed = _mix(draw * golden + stream)
    # Keep the key a Python int: copying it to the device would synchronise.
    key = mixed if mixed.device == indices.device else int(mixed)
    rows = _mix(key + (indices + 1) * golden)
    cells = torch.arange(1, length + 1, device=indices.device) * golden
    return _shift(_mix(rows.unsqueeze(1) + cells), 40).float() / 2**24


@_noise.register_fake
def _(indices: Tensor, draw: Tensor, length: int, stream: int) -> Tensor:
    return indices.new_empty((len(indices), length), dtype=torch.float32)
