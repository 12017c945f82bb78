"""What flows from the data to the training step."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

NO_LABEL = -1  # the target of a training image whose label is not used


class Batch(NamedTuple):
    """One batch of normalised images; a named tuple, so that every loader and device transfer understands it.

    Attributes:
        images: (B, C, H, W) float, normalised; of clips (B, C, T, H, W).
        targets: (B,) int64 class indices, NO_LABEL where there is none; or (B, K) float when mixed; of
            several labels (B, K) float, 1 for each that an image has, a row of NO_LABEL where they are not used.
        views: extra views of the same images, each (B, C, h, w), for the SSL tasks that ask for them.
        indices: (B,) int64 position of each image in its data set; keys the per-sample random masks.
        unmixed: the images as they were before mixup or cutmix; None where nothing was mixed.
        videos: (B,) int64 number of the video that each clip is from, over whose clips evaluation averages; None of
            images.
        classified: (R,) int64 places of the images that the classifier reads, to which `targets` belong then; None =
            all of them.
    """

    images: Tensor
    targets: Tensor | None = None
    views: tuple[Tensor, ...] = ()
    indices: Tensor | None = None
    unmixed: Tensor | None = None
    videos: Tensor | None = None
    classified: Tensor | None = None

    def is_on(self, device: torch.device) -> bool:
        """Whether all its tensors are on the device."""
        return all(part.device == device for part in (*self, *self.views) if isinstance(part, Tensor))
