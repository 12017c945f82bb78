"""Extra views of the training images for the SSL tasks that compare views: SimCLR's pair, DINO's multi-crop."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor, nn

from ssat.core.errors import UserError
from ssat.core.noise import sample_noise
from ssat.core.views import View
from ssat.data.transforms.augment import CROP_DRAWS, STREAM, Normalise
from ssat.data.transforms.batched import colour
from ssat.data.transforms.batched.geometry import crop_boxes, masked, mirrored, resample, resized_crop

ORDERS = list(itertools.permutations(range(4)))
JITTER_DRAWS = 6  # whether, order, four factors
DRAWS = CROP_DRAWS + 1 + JITTER_DRAWS + 4  # flip; grey, blur twice, solarize


class ViewTransform(nn.Module):
    """(B, C, H, W) uint8 -> one normalised view (B, channels, size, size).

    Args:
        number: of the view; each has random numbers of its own.
        crop: False for images that are cropped already.

    Raises:
        UserError: it changes colours, and there are other than one or three channels.
    """

    def __init__(
        self, view: View, *, mean: Sequence[float], std: Sequence[float], seed: int, number: int, crop: bool = True
    ) -> None:
        super().__init__()
        if len(mean) not in (1, 3) and (view.grey_prob or (view.jitter_prob and any(view.jitter))):
            raise UserError(
                f"the extra views of this SSL task change colours, and the {len(mean)} channels of data.channels are no"
                " colours: set ssl.view_augment=same, or choose a task without such views, e.g. ssl=mae",
                key="ssl.view_augment",
            )
        self.view, self.crop = view, crop
        self.size, self.interpolation = view.size, "bicubic"
        self.scale, self.ratio, self.draws = view.crop_scale, view.crop_ratio, DRAWS
        self.stream = seed + STREAM * (number + 2)
        self.normalise = Normalise(mean, std)

    def uniforms(self, indices: Tensor, draw: int | Tensor) -> Tensor:
        """(B, DRAWS) in [0, 1), a function of (seed, view, draw, index); a draw for all or (B,) of them."""
        return sample_noise(indices, DRAWS, seed=self.stream, draw=draw)

    def forward(self, images: Tensor, uniforms: Tensor) -> Tensor:
        """Views (B, C, size, size) of uint8 images (B, C', H, W), normalised."""
        view = self.view
        crop, flip, jitter, rest = uniforms.split([CROP_DRAWS, 1, JITTER_DRAWS, 4], dim=1)
        flip = flip.squeeze(1) < view.hflip
        if self.crop:
            height, width = (torch.full((len(images),), side, device=images.device) for side in images.shape[2:])
            boxes = crop_boxes(crop, height, width, scale=view.crop_scale, ratio=view.crop_ratio)
            images = resized_crop(images, boxes, flip, view.size)
        else:
            images = masked(images.clone(memory_format=torch.contiguous_format), flip, mirrored)
        images = color_jitter(images, jitter, view.jitter, view.jitter_prob)
        images = masked(images, rest[:, 0] < view.grey_prob, grey)
        low, high = view.blur_sigma
        if view.blur_prob:
            images = masked(images, rest[:, 1] < view.blur_prob, gaussian_blur, low + rest[:, 2] * (high - low))
        if view.solarize_prob:
            images = masked(images, rest[:, 3] < view.solarize_prob, solarize)
        return self.normalise(images)


@lru_cache(maxsize=4)
def _orders(device: torch.device) -> Tensor:
    return torch.tensor(ORDERS, device=device)


def grey(images: Tensor) -> Tensor:
    """(B, 3, H, W) uint8 without colour."""
    return colour.grey(images).to(torch.uint8).expand(-1, 3, -1, -1)


def solarize(images: Tensor, threshold: int = 128) -> Tensor:
    """Values from `threshold` on inverted."""
    return torch.where(images < threshold, images, 255 - images)


def color_jitter(
    images: Tensor, uniforms: Tensor, strengths: tuple[float, float, float, float], probability: float
) -> Tensor:
    """torchvision's ColorJitter with an order and factors for each image, from (B, JITTER_DRAWS) uniforms."""
    images = images.clone()  # see `masked`
    chosen = uniforms[:, 0] < probability
    order = _orders(images.device)[(uniforms[:, 1] * len(ORDERS)).long()]  # (B, 4)
    lows = [max(0.0, 1 - strength) for strength in strengths[:3]]
    factors = [low + uniforms[:, 2 + k] * (1 + strengths[k] - low) for k, low in enumerate(lows)]
    hue = (2 * uniforms[:, 5] - 1) * strengths[3]
    operations = [
        (brightness, factors[0]),
        (contrast, factors[1]),
        (colour.saturation, factors[2]),
        (shift_hue, hue),
    ]
    for place in range(4):
        for number, (operation, amount) in enumerate(operations):
            if strengths[number]:
                images = masked(images, chosen & (order[:, place] == number), operation, amount)
    return images


def brightness(images: Tensor, factor: Tensor) -> Tensor:
    """Blended with black."""
    return colour.look_up(images, colour.brightness_table(images, factor))


def contrast(images: Tensor, factor: Tensor) -> Tensor:
    """Blended with the image's mean luminance."""
    return colour.look_up(images, colour.contrast_table(images, factor))


def shift_hue(images: Tensor, amount: Tensor) -> Tensor:
    """Turn the hue by `amount` (B,) of a full circle, through HSV."""
    r, g, b = (images.float() / 255).unbind(1)
    high, low = torch.stack([r, g, b]).amax(0), torch.stack([r, g, b]).amin(0)
    span = high - low
    safe = torch.where(span > 0, span, torch.ones_like(span))
    sector = torch.where(high == r, (g - b) / safe % 6, torch.where(high == g, (b - r) / safe + 2, (r - g) / safe + 4))
    hue = (sector / 6 + amount.view(-1, 1, 1)) % 1 * 6
    # The classical formula f(n) = V - V S max(0, min(k, 4 - k, 1)), k = (n + H) mod 6, for n = 5, 3, 1.
    channels = []
    for n in (5, 3, 1):
        k = (n + hue) % 6
        channels.append(high - span * torch.minimum(k, 4 - k).clamp(0, 1))
    return (torch.stack(channels, 1) * 255).round().clamp(0, 255).to(torch.uint8)


def gaussian_blur(images: Tensor, sigma: Tensor) -> Tensor:
    """Blur each of (B, C, H, W) uint8 images by its `sigma` (B,) in pixels; the edges are repeated."""

    def weights(length: int) -> Tensor:
        place = torch.arange(length, device=images.device)
        radius = length  # every source, inside or beyond the edge, that the Gaussian reaches
        reach = torch.arange(-radius, length + radius, device=images.device)
        kernel = (-0.5 * ((place.view(1, -1, 1) - reach) / sigma.view(-1, 1, 1)) ** 2).exp()
        kernel = kernel / kernel.sum(2, keepdim=True)
        result = torch.zeros(len(sigma), length, length, device=images.device)
        return result.index_add_(2, reach.clamp(0, length - 1), kernel)

    return resample(images, weights(images.shape[2]), weights(images.shape[3]))
