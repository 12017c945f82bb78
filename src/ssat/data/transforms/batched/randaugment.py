"""RandAugment on whole batches: every image its own operations and magnitudes, with the pixels of timm's version."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ssat.core.errors import UserError
from ssat.data.transforms.batched import colour
from ssat.data.transforms.batched.geometry import masked, picks, put_rows, rotate, shift_columns, shift_rows

OPERATIONS = (
    "AutoContrast",
    "Equalize",
    "Invert",
    "Rotate",
    "Posterize",
    "Solarize",
    "SolarizeAdd",
    "Color",
    "Contrast",
    "Brightness",
    "Sharpness",
    "ShearX",
    "ShearY",
    "TranslateXRel",
    "TranslateYRel",
)
DRAWS = 6  # uniform numbers per layer: which, whether, magnitude (2), sign, one spare
HIGHEST = 10.0


@dataclass(frozen=True)
class Policy:
    """What a string such as rand-m9-mstd0.5-inc1 says (timm's notation)."""

    magnitude: float = 10
    layers: int = 2
    probability: float = 0.5
    std: float = 0.0
    highest: float = HIGHEST
    increasing: bool = False

    @classmethod
    def parse(cls, text: str) -> Policy:
        """Raises: UserError for what only the PIL pipeline can do."""
        values: dict[str, float] = {}
        keys = {
            "m": "magnitude",
            "n": "layers",
            "p": "probability",
            "mstd": "std",
            "mmax": "highest",
            "inc": "increasing",
        }
        kind, *parts = str(text).split("-")
        for part in parts:
            match = re.fullmatch(r"(m|n|p|mstd|mmax|inc)(\d+(?:\.\d+)?)", part)
            if match:
                values[keys[match[1]]] = float(match[2])
            else:
                kind = ""
        if kind != "rand":
            raise UserError(
                f"recipe.augment.auto_augment={text!r} is not possible with data.pipeline=batched, which knows"
                " rand-m<magnitude>-n<layers>-p<probability>-mstd<deviation>-mmax<highest>-inc<0 or 1>:"
                " use data.pipeline=timm"
            )
        return cls(
            magnitude=values.get("magnitude", 10),
            layers=int(values.get("layers", 2)),
            probability=values.get("probability", 0.5),
            std=values.get("std", 0.0),
            highest=values.get("highest", HIGHEST) or HIGHEST,
            increasing=bool(values.get("increasing", 0)),
        )


def draw(policy: Policy, uniforms: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Operation number (-1 = none), magnitude and sign (-1 or 1) of one layer, each (B,), from (B, DRAWS) uniforms."""
    which = (uniforms[:, 0] * len(OPERATIONS)).long()
    which = torch.where(uniforms[:, 1] <= policy.probability, which, -1)
    if policy.std > 100:
        magnitude = uniforms[:, 2] * policy.magnitude
    else:
        normal = (-2 * torch.log1p(-uniforms[:, 2])).sqrt() * (2 * math.pi * uniforms[:, 3]).cos()
        magnitude = policy.magnitude + policy.std * normal
    sign = torch.where(uniforms[:, 4] > 0.5, -1.0, 1.0)
    return which, magnitude.clamp(0, policy.highest), sign


def apply(
    images: Tensor,
    which: Tensor,
    magnitude: Tensor,
    sign: Tensor,
    fill: Tensor,
    *,
    increasing: bool = True,
    interpolation: str = "bicubic",
) -> Tensor:
    """One operation on each of (B, 3, H, W) uint8 images.

    Args:
        which: (B,) numbers of `OPERATIONS`; -1 leaves the image as it is.
        magnitude: (B,) from 0 to 10.
        sign: (B,) -1 or 1, the direction of the operations that have one.
        fill: (3,) uint8 colour where a moved image leaves nothing.
        increasing: timm's `inc1`: a larger magnitude always changes more.
    """
    level = magnitude / HIGHEST
    images = images.clone()  # see `masked`

    def chosen(name: str) -> Tensor:
        return which == OPERATIONS.index(name)

    images = look_up_operations(images, which, level, sign, increasing)
    factor = (1 + sign * level * 0.9).clamp_min(0.1) if increasing else level * 1.8 + 0.1
    images = masked(images, chosen("Color"), colour.saturation, factor)
    images = masked(images, chosen("Sharpness"), colour.sharpness, factor)

    def moved(operation: Callable[..., Tensor], name: str, amount: Tensor) -> Tensor:
        def run(images: Tensor, amount: Tensor) -> Tensor:
            return operation(images, amount, fill, interpolation=interpolation)

        return masked(images, chosen(name), run, amount)

    height, width = images.shape[2:]
    y, x = (torch.arange(n, device=images.device, dtype=torch.float64) + 0.5 for n in (height, width))
    signed = (sign * level).double().unsqueeze(1)
    images = moved(shift_rows, "ShearX", signed * 0.3 * y)
    images = moved(shift_rows, "TranslateXRel", (signed * 0.45 * width).expand(-1, height))
    images = moved(shift_columns, "ShearY", signed * 0.3 * x)
    images = moved(shift_columns, "TranslateYRel", (signed * 0.45 * height).expand(-1, width))
    return moved(rotate, "Rotate", signed.squeeze(1) * 30)


def look_up_operations(images: Tensor, which: Tensor, level: Tensor, sign: Tensor, increasing: bool) -> Tensor:
    """Those of the operations that replace each value by another one: one look-up for all of them."""
    factor = (1 + sign * level * 0.9).clamp_min(0.1) if increasing else level * 1.8 + 0.1
    bits, threshold = (level * 4).floor(), (level * 256).floor().clamp_max(256)
    if increasing:
        bits, threshold = 4 - bits, 256 - threshold
    amount = (level * 110).floor().clamp_max(128)
    tables: dict[str, tuple[Callable[..., Tensor], tuple[Tensor, ...]]] = {
        "AutoContrast": (colour.autocontrast_table, ()),
        "Equalize": (colour.equalize_table, ()),
        "Invert": (colour.invert_table, ()),
        "Posterize": (colour.posterize_table, (bits,)),
        "Solarize": (colour.solarize_table, (threshold,)),
        "SolarizeAdd": (colour.solarize_add_table, (amount,)),
        "Contrast": (colour.contrast_table, (factor,)),
        "Brightness": (colour.brightness_table, (factor,)),
    }
    return _with_tables(images, which, tables)


def _with_tables(
    images: Tensor, which: Tensor, tables: dict[str, tuple[Callable[..., Tensor], tuple[Tensor, ...]]]
) -> Tensor:
    identity = torch.arange(colour.LEVELS, device=images.device, dtype=torch.uint8)
    table = identity.repeat(len(images), images.shape[1], 1)
    looked_up = torch.zeros_like(which, dtype=torch.bool)
    for name, (function, arguments) in tables.items():
        where = which == OPERATIONS.index(name)
        looked_up = looked_up | where
        if picks(images):
            rows = where.nonzero().flatten()
            if len(rows):
                new = function(*(values.index_select(0, rows) for values in (images, *arguments)))
                put_rows(table, rows, new)
        else:
            table = torch.where(where.view(-1, 1, 1), function(images, *arguments), table)
    return masked(images, looked_up, colour.look_up, table)
