"""The batched pipeline: 8-bit batches to normalised ones, on any device, with the PIL pipeline's pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ssat.core.errors import UserError
from ssat.core.noise import sample_noise
from ssat.data.transforms.batched import randaugment
from ssat.data.transforms.batched.colour import grey
from ssat.data.transforms.batched.geometry import (
    ATTEMPTS,
    FILTERS,
    centre_crop_weights,
    crop_boxes,
    first_valid,
    masked,
    mirrored,
    random_integer,
    resample,
    resized_crop,
)
from ssat.data.transforms.timm_transforms import POLICIES, check_colours, check_keys

NOISE = 2**20  # normal numbers to fill erased rectangles from, each at a place of its own
CROP_DRAWS, ERASE_DRAWS = 2 * ATTEMPTS + 2, 2 * ATTEMPTS + 4
STREAM = 0x5EED  # keeps these random numbers apart from those of the masks


class Normalise(nn.Module):
    """(B, C, H, W) uint8 -> (B, channels, H, W) float of zero mean; channels 1 = the luminance of three, else C."""

    scale: Tensor
    shift: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        scale = 1 / (255 * torch.tensor(std))
        self.channels = len(mean)
        self.register_buffer("scale", scale.view(-1, 1, 1), persistent=False)
        self.register_buffer("shift", (-torch.tensor(mean) / torch.tensor(std)).view(-1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """uint8 images (B, C, H, W) as normalised floats."""
        if self.channels == 1:
            images = grey(images)
        return images.to(torch.float32, copy=True).mul_(self.scale).add_(self.shift)


class EvalTransform(nn.Module):
    """(B, C, H, W) uint8 -> normalised (B, channels, size, size): resize to int(size / crop_pct), centre crop."""

    def __init__(
        self,
        size: int,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        crop_pct: float = 0.875,
        interpolation: str = "bicubic",
    ) -> None:
        super().__init__()
        self.size, self.interpolation = size, interpolation
        self.resized = resized_side(size, crop_pct)
        self.normalise = Normalise(mean, std)

    def forward(self, images: Tensor) -> Tensor:
        """uint8 images (B, C, H, W) resized, cropped and normalised."""
        height, width = images.shape[2:]
        short = min(height, width)
        sides = [self.resized * side // short for side in (height, width)]
        rows, columns = (
            centre_crop_weights(length, self.size, resized, self.interpolation, images.device)
            for length, resized in zip((height, width), sides, strict=True)
        )
        return self.normalise(resample(images, rows, columns))


def resized_side(size: int, crop_pct: float) -> int:
    """Short side in pixels before the centre crop; above 224 px nothing is cropped away (the authors' rule)."""
    return int(size / crop_pct) if size <= 224 else size


class TrainTransform(nn.Module):
    """(B, C, H, W) uint8 -> normalised (B, channels, size, size): crop, flip, RandAugment, normalise, erase.

    Every image has its own random numbers. They are a function of (seed, epoch, index) alone, or come from a generator.

    Args:
        size: side in pixels of the result.
        augment: the keys of `timm_transforms.AUGMENT`, all of them.
        crop: False for images that are cropped to `size` already; they are only flipped.
        number: of the extra view that this is; each has random numbers of its own.

    Raises:
        UserError: a value that only the PIL pipeline can do.
    """

    fill: Tensor
    noise: Tensor

    def __init__(
        self,
        size: int,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        augment: dict[str, Any],
        seed: int = 0,
        crop: bool = True,
        number: int = -1,
    ) -> None:
        super().__init__()
        augment = check_keys(augment)
        check_possible(augment)
        check_colours(augment, len(mean))
        self.re_area, self.re_ratio = tuple(augment["re_area"]), tuple(augment["re_ratio"])
        self.size, self.crop = size, crop
        self.stream = seed + STREAM * (number + 2)
        self.scale, self.ratio = tuple(augment["crop_scale"]), tuple(augment["crop_ratio"])
        self.interpolation = augment["interpolation"]
        self.hflip, self.re_prob, self.re_mode = augment["hflip"], augment["re_prob"], augment["re_mode"]
        policy = augment["auto_augment"]
        self.policy = randaugment.Policy.parse(policy) if policy else None
        self.normalise = Normalise(mean, std)
        fill = [min(255, round(255 * value)) for value in mean] * (3 if len(mean) == 1 else 1)
        self.register_buffer("fill", torch.tensor(fill, dtype=torch.uint8), persistent=False)
        noise = torch.randn(NOISE + max(3, len(mean)) * size * size, generator=torch.Generator().manual_seed(0))
        self.register_buffer("noise", noise if self.re_mode == "pixel" else noise[:NOISE], persistent=False)

    @property
    def draws(self) -> int:
        """Uniform random numbers that one image takes."""
        layers = self.policy.layers if self.policy else 0
        return CROP_DRAWS + 1 + layers * randaugment.DRAWS + ERASE_DRAWS

    def uniforms(self, indices: Tensor, draw: int | Tensor) -> Tensor:
        """(B, draws) in [0, 1), a function of (seed, draw, index); a draw for all or (B,) of them."""
        return sample_noise(indices, self.draws, seed=self.stream, draw=draw)

    def forward(
        self, images: Tensor, uniforms: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """`uniforms` (B, draws) decide; without them `generator` is asked for some."""
        if uniforms is None:
            uniforms = torch.rand(len(images), self.draws, generator=generator, device=images.device)
        layers = [randaugment.DRAWS] * self.policy.layers if self.policy else []
        crop, flip, *operations, erase = uniforms.split([CROP_DRAWS, 1, *layers, ERASE_DRAWS], dim=1)
        images = self._crop(images, crop, flip.squeeze(1) < self.hflip)
        for layer in operations:
            assert self.policy is not None
            which, magnitude, sign = randaugment.draw(self.policy, layer)
            images = randaugment.apply(
                images,
                which,
                magnitude,
                sign,
                self.fill,
                increasing=self.policy.increasing,
                interpolation=self.interpolation,
            )
        return self._erase(self.normalise(images), erase)

    def _crop(self, images: Tensor, uniforms: Tensor, flip: Tensor) -> Tensor:
        if not self.crop:
            return masked(images.clone(memory_format=torch.contiguous_format), flip, mirrored)
        height, width = (torch.full((len(images),), side, device=images.device) for side in images.shape[2:])
        boxes = crop_boxes(uniforms, height, width, scale=self.scale, ratio=self.ratio)
        return resized_crop(images, boxes, flip, self.size, interpolation=self.interpolation)

    def _erase(self, images: Tensor, uniforms: Tensor) -> Tensor:
        if not self.re_prob:
            return images
        where, boxes = erase_boxes(uniforms[:, 2:], self.size, area=self.re_area, ratio=self.re_ratio)
        start = (uniforms[:, 1] * NOISE).long()
        return masked(images, where & (uniforms[:, 0] <= self.re_prob), self._fill_box, boxes, start)

    def _fill_box(self, images: Tensor, boxes: Tensor, start: Tensor) -> Tensor:
        top, left, height, width = boxes.view(-1, 4, 1).unbind(1)
        place = torch.arange(self.size, device=images.device)
        rows, columns = (place >= top) & (place < top + height), (place >= left) & (place < left + width)
        box = (rows.unsqueeze(2) & columns.unsqueeze(1)).unsqueeze(1)
        channels = images.shape[1]
        if self.re_mode == "pixel":
            pixels = self.noise.unfold(0, channels * self.size**2, 1)[start].view(images.shape)
        elif self.re_mode == "rand":
            pixels = self.noise[(start.unsqueeze(1) + torch.arange(channels, device=start.device)) % NOISE]
            pixels = pixels.view(-1, channels, 1, 1)
        else:
            pixels = torch.zeros((), device=images.device)
        return torch.where(box, pixels, images)


def erase_boxes(
    uniforms: Tensor, size: int, *, area: tuple[float, float], ratio: tuple[float, float]
) -> tuple[Tensor, Tensor]:
    """Whether a rectangle was found (B,), and its top, left, height, width (B, 4), by timm's rules, from (B, 22)."""
    covered = (area[0] + uniforms[:, :ATTEMPTS] * (area[1] - area[0])) * size**2
    low, high = (math.log(bound) for bound in ratio)
    aspect = (low + uniforms[:, ATTEMPTS : 2 * ATTEMPTS] * (high - low)).exp()
    h, w = (covered * aspect).sqrt().round(), (covered / aspect).sqrt().round()
    found, h, w = first_valid((h < size) & (w < size), h, w)
    top, left = random_integer(uniforms[:, -2], 0, size - h), random_integer(uniforms[:, -1], 0, size - w)
    return found, torch.stack([top, left, h, w], 1)


def check_possible(augment: dict[str, Any]) -> None:
    """Raises: UserError: a value, of all keys of an augmentation, that only the PIL pipeline can do."""
    possible: dict[str, tuple[Any, ...]] = {
        "interpolation": tuple(FILTERS),
        "re_mode": ("pixel", "rand", "const"),
        "re_count": (1,),
        "crop_pad": (None,),
    }
    if augment["auto_augment"] in POLICIES:
        possible["auto_augment"] = ("null", "rand-m9-mstd0.5-inc1 and the like")
    for key, values in possible.items():
        if augment[key] not in values:
            listed = ", ".join("null" if value is None else str(value) for value in values)
            raise UserError(
                f"recipe.augment.{key}={augment[key]!r} is not possible with data.pipeline=batched, which can do"
                f" {listed}: change it, or use data.pipeline=timm"
            )
    if augment["auto_augment"]:
        randaugment.Policy.parse(augment["auto_augment"])
    elif augment["color_jitter"]:
        raise UserError(
            f"recipe.augment.color_jitter={augment['color_jitter']} is not possible with data.pipeline=batched:"
            " set it to null, or use data.pipeline=timm"
        )
