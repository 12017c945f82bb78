"""Colour operations on whole batches of 8-bit images, with Pillow's arithmetic and its rounding."""

from __future__ import annotations

import torch
from torch import Tensor

LEVELS = 256


def grey(images: Tensor) -> Tensor:
    """(B, 3, H, W) uint8 -> (B, 1, H, W) int32 luminance (ITU-R 601-2, in Pillow's fixed point)."""
    r, g, b = images.int().unbind(1)
    return ((r * 19595 + g * 38470 + b * 7471 + 0x8000) >> 16).unsqueeze(1)


def blend(first: Tensor, second: Tensor, factor: Tensor) -> Tensor:
    """first + factor * (second - first), cut off to whole numbers and to 0..255; as uint8."""
    first, second = first.float(), second.float()
    return (first + factor * (second - first)).clamp(0, 255).to(torch.uint8)


def histogram(images: Tensor) -> Tensor:
    """(B, C, H, W) uint8 -> (B, C, 256) int64 counts."""
    pixels = images.flatten(2).long()
    counts = torch.zeros(*pixels.shape[:2], LEVELS, dtype=torch.int64, device=images.device)
    return counts.scatter_add_(2, pixels, torch.ones_like(pixels))


def look_up(images: Tensor, tables: Tensor) -> Tensor:
    """Replace each value by that of its sample's and channel's table (B, C or 1, 256) uint8."""
    pixels = images.flatten(2).long()
    return tables.expand(-1, images.shape[1], -1).gather(2, pixels).view(images.shape)


def _levels(images: Tensor) -> Tensor:
    return torch.arange(LEVELS, device=images.device)


def autocontrast_table(images: Tensor) -> Tensor:
    """(B, C, 256): each channel stretched from its smallest and largest value to 0 and 255."""
    low, high = (bound.unsqueeze(2).double() for bound in torch.aminmax(images.flatten(2), dim=2))
    scale = 255.0 / (high - low).clamp_min(1)
    stretched = (_levels(images) * scale - low * scale).long().clamp(0, 255)
    return torch.where(high > low, stretched, _levels(images)).to(torch.uint8)


def equalize_table(images: Tensor) -> Tensor:
    """(B, C, 256): each channel's histogram made even."""
    counts = histogram(images)
    last = (counts * (torch.cumsum(counts, 2) == counts.sum(2, keepdim=True))).amax(2, keepdim=True)
    step = (counts.sum(2, keepdim=True) - last) // (LEVELS - 1)
    before = torch.cumsum(counts, 2) - counts
    table = ((step // 2 + before) // step.clamp_min(1)).clamp(0, 255)
    return torch.where(step > 0, table, _levels(images)).to(torch.uint8)


def invert_table(images: Tensor) -> Tensor:
    """(B, 1, 256)"""
    return (255 - _levels(images)).to(torch.uint8).view(1, 1, -1).expand(len(images), -1, -1)


def posterize_table(images: Tensor, bits: Tensor) -> Tensor:
    """(B, 1, 256): `bits` (B,) highest bits kept; 0 bits are black."""
    kept = (255 << (8 - bits.long())) & 255
    return (_levels(images) & kept.view(-1, 1, 1)).to(torch.uint8)


def solarize_table(images: Tensor, threshold: Tensor) -> Tensor:
    """(B, 1, 256): values from `threshold` (B,) on are inverted."""
    levels = _levels(images)
    return torch.where(levels < threshold.view(-1, 1, 1), levels, 255 - levels).to(torch.uint8)


def solarize_add_table(images: Tensor, amount: Tensor, threshold: int = 128) -> Tensor:
    """(B, 1, 256): `amount` (B,) added to the values below `threshold`."""
    levels = _levels(images)
    added = (levels + amount.long().view(-1, 1, 1)).clamp_max(255)
    return torch.where(levels < threshold, added, levels).to(torch.uint8)


def brightness_table(images: Tensor, factor: Tensor) -> Tensor:
    """(B, 1, 256): blended with black."""
    return blend(torch.zeros(1, device=images.device), _levels(images), factor.view(-1, 1, 1))


def contrast_table(images: Tensor, factor: Tensor) -> Tensor:
    """(B, 1, 256): blended with the image's mean luminance."""
    mean = (grey(images).flatten(1).double().mean(1) + 0.5).floor()
    return blend(mean.view(-1, 1, 1), _levels(images), factor.view(-1, 1, 1))


def saturation(images: Tensor, factor: Tensor) -> Tensor:
    """Blended with the grey image."""
    return blend(grey(images), images, factor.view(-1, 1, 1, 1))


def sharpness(images: Tensor, factor: Tensor) -> Tensor:
    """Blended with the smoothed image; the outermost pixels are not smoothed, as in Pillow."""
    pixels = images.float()
    across = pixels[..., :-2] + pixels[..., 1:-1] + pixels[..., 2:]
    # 13 is odd, so no sum lies halfway between two levels: rounding errors change no pixel.
    total = across[:, :, :-2] + across[:, :, 1:-1] + across[:, :, 2:] + 4 * pixels[:, :, 1:-1, 1:-1]
    smooth = pixels.clone()
    smooth[:, :, 1:-1, 1:-1] = (total / 13 + 0.5).floor_()
    return blend(smooth, pixels, factor.view(-1, 1, 1, 1))
