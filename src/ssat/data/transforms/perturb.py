"""Perturbed test images: the paper's random perspective (Table 2) and the common corruptions of ImageNet-C."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as pil

from ssat.core.errors import UserError
from ssat.core.words import nearest
from ssat.data.transforms.corruptions import FAMILIES, corrupt

Perturb = Callable[[Image.Image, int], Image.Image]  # of the cropped image and its index

PERSPECTIVE, CORRUPTIONS = "perspective", "corruptions"
SEVERITIES = (1, 2, 3, 4, 5)


def perspective(image: Image.Image, index: int, *, seed: int, distortion_scale: float = 0.5) -> Image.Image:
    """A random perspective view of `image`; what is outside becomes black.

    Every corner moves inwards by up to `distortion_scale` / 2 of the side, as in torchvision's RandomPerspective, which
    the authors call with 0.5. The corners are a function of (seed, index), not of the order of the images.
    """
    rng = np.random.default_rng((seed, index))
    width, height = image.size
    x, y = (int(distortion_scale * (side // 2)) for side in (width, height))
    start = [[0, 0], [width - 1, 0], [width - 1, height - 1], [0, height - 1]]
    moves = [[int(rng.integers(0, x + 1)), int(rng.integers(0, y + 1))] for _ in start]
    signs = [(1, 1), (-1, 1), (-1, -1), (1, -1)]
    end = [[a + s * m for a, s, m in zip(*corner, strict=True)] for corner in zip(start, signs, moves, strict=True)]
    return pil.perspective(image, start, end, InterpolationMode.BILINEAR, fill=[0, 0, 0])


def perturbations(name: str, *, seeds: int, severities: tuple[int, ...]) -> dict[str, Perturb]:
    """The perturbed test sets that `name` means, by label: `perspective/0`, `gaussian_noise/1` ...

    Args:
        name: `perspective` (one set per seed), `corruptions` (every family at every severity) or one family.

    Raises:
        UserError: no such perturbation.
    """
    if name == PERSPECTIVE:
        return {f"{PERSPECTIVE}/{seed}": partial(perspective, seed=seed) for seed in range(seeds)}
    known = [PERSPECTIVE, CORRUPTIONS, *FAMILIES]
    if name not in known:
        raise UserError(f"data.perturb={name} does not exist{nearest(name, known)}; it can be: {', '.join(known)}")
    families = list(FAMILIES) if name == CORRUPTIONS else [name]
    return {
        f"{family}/{severity}": partial(corrupt, family=family, severity=severity)
        for family in families
        for severity in severities
    }
