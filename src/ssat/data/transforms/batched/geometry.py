"""Crops and affine operations on whole batches, with Pillow's filters: the same pixels as the PIL pipeline."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import torch
from PIL import Image
from torch import Tensor

TABLE_BYTES = 2**23  # of the weights of every crop of an axis; those of 32 pixels take 4.5 MB
ATTEMPTS = 10  # draws of timm's random crop and random erasing before they give up


def picks(images: Tensor) -> bool:
    """Whether to compute only the samples that an operation is meant for: elsewhere than on a CPU, asking which those
    are would wait for the device."""
    return images.device.type == "cpu"


def masked(images: Tensor, where: Tensor, operation: Callable[..., Tensor], *arguments: Tensor) -> Tensor:
    """`operation(images, *arguments)` for the samples `where` (B,) is true, the others unchanged.

    On a CPU `images` is changed itself: a copy of the batch for each of a dozen operations costs more than they do.
    """
    if not picks(images):
        return torch.where(where.view(-1, 1, 1, 1), operation(images, *arguments), images)
    rows = where.nonzero().flatten()
    if len(rows):
        put_rows(images, rows, operation(*(values.index_select(0, rows) for values in (images, *arguments))))
    return images


def put_rows(values: Tensor, rows: Tensor, new: Tensor) -> None:
    """`values[rows] = new` on a CPU; PyTorch's own takes as long as a dozen passes over the rows."""
    values.numpy()[rows.numpy()] = new.numpy()


def mirrored(images: Tensor) -> Tensor:
    """(B, C, H, W) with left and right exchanged."""
    return images.flip(3)


def first_valid(valid: Tensor, *values: Tensor) -> tuple[Tensor, ...]:
    """The first valid of (B, attempts) `values` of each row; of a row without one, any. First comes whether it has."""
    choice = valid.int().argmax(1, keepdim=True)
    return valid.any(1), *(value.gather(1, choice).squeeze(1) for value in values)


def random_integer(uniform: Tensor, low: Tensor | int, high: Tensor) -> Tensor:
    """Integers from `low` to `high`, both included."""
    return (low + (uniform * (high - low + 1)).floor()).minimum(high)


def crop_boxes(
    uniforms: Tensor, height: Tensor, width: Tensor, *, scale: tuple[float, float], ratio: tuple[float, float]
) -> Tensor:
    """(B, 4) top, left, height, width of random resized crops, by the rules of torchvision and timm.

    Args:
        uniforms: (B, 2 * ATTEMPTS + 2) in [0, 1).
        height, width: (B,) of the images.
        scale: range of the crop's share of the area.
        ratio: range of its width / height, drawn evenly on a logarithmic scale.
    """
    high, wide = height.unsqueeze(1), width.unsqueeze(1)
    area = (scale[0] + uniforms[:, :ATTEMPTS] * (scale[1] - scale[0])) * (high * wide)
    bounds = math.log(ratio[0]), math.log(ratio[1])
    aspect = (bounds[0] + uniforms[:, ATTEMPTS : 2 * ATTEMPTS] * (bounds[1] - bounds[0])).exp()
    w, h = (area * aspect).sqrt().round(), (area / aspect).sqrt().round()
    found, w, h = first_valid((w <= wide) & (h <= high) & (w > 0) & (h > 0), w, h)
    # Without a valid draw: the largest box in the middle that keeps to the ratios.
    w = torch.where(found, w, width.minimum((height * ratio[1]).round()))
    h = torch.where(found, h, height.minimum((width / ratio[0]).round()))
    top = torch.where(found, random_integer(uniforms[:, -2], 0, height - h), ((height - h) / 2).floor())
    left = torch.where(found, random_integer(uniforms[:, -1], 0, width - w), ((width - w) / 2).floor())
    return torch.stack([top, left, h, w], 1).long()


def _bicubic(x: float) -> float:
    x = abs(x)
    if x < 1:
        return (1.5 * x - 2.5) * x * x + 1
    return ((-0.5 * x + 2.5) * x - 4) * x + 2 if x < 2 else 0.0


def _bilinear(x: float) -> float:
    return max(0.0, 1 - abs(x))


FILTERS: dict[str, tuple[Callable[[float], float], float]] = {"bicubic": (_bicubic, 2.0), "bilinear": (_bilinear, 1.0)}


def resize_weights(size_in: int, size_out: int, interpolation: str) -> Tensor:
    """(size_out, size_in) weights of Pillow's antialiased resize of one axis."""
    function, support = FILTERS[interpolation]
    scale = size_in / size_out
    stretch = max(scale, 1.0)
    weights = torch.zeros(size_out, size_in, dtype=torch.float64)
    for out in range(size_out):
        centre = (out + 0.5) * scale
        first = max(0, int(centre - support * stretch + 0.5))
        last = min(size_in, int(centre + support * stretch + 0.5))
        row = [function((place - centre + 0.5) / stretch) for place in range(first, last)]
        weights[out, first:last] = torch.tensor(row, dtype=torch.float64) / sum(row)
    return weights.float()


@lru_cache(maxsize=8)
def crop_weights(size_in: int, size_out: int, interpolation: str, device: torch.device) -> Tensor:
    """(size_in + 1, size_out, size_in): `resize_weights` of a crop of every length, at the left end of the axis."""
    table = torch.zeros(size_in + 1, size_out, size_in)
    for length in range(1, size_in + 1):
        table[length, :, :length] = resize_weights(length, size_out, interpolation)
    return table.to(device)


@lru_cache(maxsize=4)
def placed_weights(size_in: int, size_out: int, interpolation: str, device: torch.device) -> Tensor:
    """((size_in + 1)^2, size_out, size_in): `crop_weights` of every length at every start, by length, then start."""
    lengths = torch.arange(size_in + 1, device=device).repeat_interleave(size_in + 1)
    starts = torch.arange(size_in + 1, device=device).repeat(size_in + 1)
    return _at(crop_weights(size_in, size_out, interpolation, device), starts, lengths)


def _at(table: Tensor, start: Tensor, length: Tensor) -> Tensor:
    """(B, size_out, size_in) weights of the crops that begin at `start` (B,) and are `length` (B,) long."""
    place = torch.arange(table.shape[2], device=table.device) - start.unsqueeze(1)
    index = place.clamp_min(0).unsqueeze(1).expand(-1, table.shape[1], -1)
    return table[length].gather(2, index) * (place >= 0).unsqueeze(1)


def _weights_of(start: Tensor, length: Tensor, size_in: int, size_out: int, interpolation: str) -> Tensor:
    """`_at` of the crop weights: looked up whole where a table of all of them is small."""
    if 4 * (size_in + 1) ** 2 * size_in * size_out <= TABLE_BYTES:
        table = placed_weights(size_in, size_out, interpolation, start.device)
        return table.index_select(0, length * (size_in + 1) + start)
    return _at(crop_weights(size_in, size_out, interpolation, start.device), start, length)


def _round(values: Tensor) -> Tensor:
    # Halves go up, and what is a half in Pillow's fixed point must not fall below it here.
    return values.add_(0.5 + 1e-4).floor_().clamp_(0, 255)


def resample(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """(B, C, H, W) uint8 -> (B, C, h, w) uint8 by (B or 1, h, H) and (B or 1, w, W) weights, columns first."""
    b, c, height, width = images.shape
    # The channels between rows and columns, so that one product of matrices an image does all of them.
    pixels = torch.empty((b, height, c, width), device=images.device).copy_(images.transpose(1, 2))
    across = _round(pixels.view(b, height * c, width) @ columns.transpose(1, 2))
    down = _round(rows @ across.view(b, height, -1)).view(b, rows.shape[1], c, -1).transpose(1, 2)
    return torch.empty(down.shape, dtype=torch.uint8, device=images.device).copy_(down)


def resized_crop(images: Tensor, boxes: Tensor, flip: Tensor, size: int, *, interpolation: str = "bicubic") -> Tensor:
    """Crop each of (B, C, H, W) uint8 images to its box (B, 4), resize it to `size`, mirror it where `flip` (B,)."""
    top, left, height, width = boxes.unbind(1)
    rows = _weights_of(top, height, images.shape[2], size, interpolation)
    columns = _weights_of(left, width, images.shape[3], size, interpolation)
    columns = torch.where(flip.view(-1, 1, 1), columns.flip(1), columns)
    cropped = resample(images, rows, columns)
    if images.shape[2] > size:
        # Since version 12 Pillow does the rows first where they shrink much more than the columns.
        other = resample(images.transpose(2, 3), columns, rows).transpose(2, 3)
        rows_first = (height > size) & (height - size > 2 * (width - size))
        cropped = torch.where(rows_first.view(-1, 1, 1, 1), other, cropped)
    return cropped


@lru_cache(maxsize=16)
def centre_crop_weights(length: int, size: int, resized: int, interpolation: str, device: torch.device) -> Tensor:
    """(1, size, length) weights of a resize of one axis to `resized` and a centre crop to `size`."""
    weights = resize_weights(length, resized, interpolation)
    start = round((resized - size) / 2)
    return weights[start : start + size].unsqueeze(0).to(device)


def _taps(fraction: Tensor, interpolation: str) -> tuple[Tensor, ...]:
    """The four weights around a place between two pixels; Pillow's affine bicubic has the coefficient -1, not -1/2."""
    d = fraction
    if interpolation == "bilinear":
        return torch.zeros_like(d), 1 - d, d, torch.zeros_like(d)
    return (
        ((2 - d) * d - 1) * d,
        (d - 2) * d * d + 1,
        ((1 - d) * d + 1) * d,
        (d - 1) * d * d,
    )


def _to_pixel(values: Tensor) -> Tensor:
    return values.clamp_(0, 255).to(torch.uint8)  # Pillow cuts the fraction off here


def shift_rows(images: Tensor, shift: Tensor, fill: Tensor, *, interpolation: str = "bicubic") -> Tensor:
    """Move row y of image b by `shift` (B, H) pixels to the left: horizontal shear and translation.

    Args:
        images: (B, C, H, W) uint8.
        fill: (C,) uint8 where there is no image.
    """
    width = images.shape[3]
    x = torch.arange(width, device=images.device) + 0.5
    source = x + shift.unsqueeze(2)  # (B, H, W)
    inside = (source >= 0) & (source < width)
    # The fraction is that of the shift: the same for a whole row, and exactly 0 where nothing moves.
    whole = shift.floor()
    taps = _taps((shift - whole).unsqueeze(2).unsqueeze(1), interpolation)
    index = torch.arange(-1, width + 2, device=images.device) + whole.long().unsqueeze(2)
    index = index.clamp_(0, width - 1).unsqueeze(1).expand(-1, images.shape[1], -1, -1)
    near = images.float().gather(3, index)  # all that the four taps see
    moved = taps[0].float() * near[..., :width]
    for k in (1, 2, 3):
        moved += taps[k].float() * near[..., k : k + width]
    return torch.where(inside.unsqueeze(1), _to_pixel(moved), fill.view(1, -1, 1, 1))


def shift_columns(images: Tensor, shift: Tensor, fill: Tensor, *, interpolation: str = "bicubic") -> Tensor:
    """Move column x of image b by `shift` (B, W) pixels up: vertical shear and translation."""
    return shift_rows(images.transpose(2, 3).contiguous(), shift, fill, interpolation=interpolation).transpose(2, 3)


def rotate(images: Tensor, degrees: Tensor, fill: Tensor, *, interpolation: str = "bicubic") -> Tensor:
    """Rotate each of (B, C, H, W) uint8 images by `degrees` (B,) counter-clockwise around its centre."""
    return (_rotated_by_pillow if picks(images) else _rotated)(images, degrees, fill, interpolation)


def _rotated_by_pillow(images: Tensor, degrees: Tensor, fill: Tensor, interpolation: str) -> Tensor:
    """Channel by channel on a CPU: three times as fast there as gathering sixteen taps."""
    method, turned = Image.Resampling[interpolation.upper()], torch.empty_like(images)
    for image, out, angle in zip(images.numpy(), turned.numpy(), degrees.tolist(), strict=True):
        for channel, value in enumerate(fill.tolist()):
            out[channel] = Image.fromarray(image[channel]).rotate(angle, method, fillcolor=value)
    return turned


def _rotated(images: Tensor, degrees: Tensor, fill: Tensor, interpolation: str) -> Tensor:
    """All at once on any device."""
    b, c, height, width = images.shape
    angle = -torch.deg2rad(degrees.double()).view(-1, 1, 1)
    cos, sin = angle.cos(), angle.sin()
    y, x = torch.meshgrid(
        torch.arange(height, device=images.device, dtype=torch.float64) + (0.5 - height / 2),
        torch.arange(width, device=images.device, dtype=torch.float64) + (0.5 - width / 2),
        indexing="ij",
    )
    xs = cos * x + sin * y + width / 2
    ys = -sin * x + cos * y + height / 2
    inside = (xs >= 0) & (xs < width) & (ys >= 0) & (ys < height)
    xs, ys = xs - 0.5, ys - 0.5
    x0, y0 = xs.floor(), ys.floor()
    x_taps, y_taps = _taps((xs - x0).float(), interpolation), _taps((ys - y0).float(), interpolation)
    columns = [(x0.long() + k).clamp_(0, width - 1) for k in (-1, 0, 1, 2)]
    flat, turned = images.float().flatten(2), torch.zeros(b, c, y.numel(), device=images.device)
    for k, y_tap in zip((-1, 0, 1, 2), y_taps, strict=True):
        row = (y0.long() + k).clamp_(0, height - 1) * width
        for column, x_tap in zip(columns, x_taps, strict=True):
            index = (row + column).flatten(1).unsqueeze(1).expand(-1, c, -1)
            turned += (y_tap * x_tap).flatten(1).unsqueeze(1) * flat.gather(2, index)
    return torch.where(inside.unsqueeze(1), _to_pixel(turned.view(b, c, *y.shape)), fill.view(1, -1, 1, 1))
