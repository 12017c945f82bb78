"""What an encoder lacks of the contract, said when it is built and not in the middle of the first step."""

from __future__ import annotations

from typing import get_args

import torch

from ssat.core.errors import UserError
from ssat.encoders.base import Encoder, MaskStyle

ALWAYS = {
    "num_features": "the width of forward_features",
    "img_size": "(height, width) of its images, or (frames, height, width) of its clips",
    "in_chans": "the channels of its images",
}
MASKED = {
    "mask_grid": "(rows, cols) of the mask, or (slots, rows, cols)",
    "mask_cell_px": "the pixels per mask cell and side",
    "latent_dims": "the channels of each latent map",
    "latent_scales": "the pixels per position of each latent map",
}


def check_contract(encoder: object, kind: str) -> None:
    """Refuse an object that is no complete `Encoder`; called once, when an encoder has been built.

    Args:
        encoder: what `encoder.kind` made.
        kind: the value of `encoder.kind`.

    Raises:
        UserError: names the first attribute or method that is missing or wrong.
    """
    name = type(encoder).__name__
    if not isinstance(encoder, Encoder):
        problem = "is not an Encoder: derive it from ssat.encoders.base.Encoder"
    else:
        problem = _first_problem(encoder) or (_wrong_features(encoder) if ":" in kind else "")
    if problem:
        raise UserError(f"encoder.kind={kind}: {name} {problem}", key="encoder.kind", value=kind)


def _first_problem(encoder: Encoder) -> str:
    if not encoder.implements("forward_features"):
        return "has no method forward_features(images), which gives the features (B, num_features)"
    if encoder.mask_style is not None and encoder.mask_style not in get_args(MaskStyle):
        return f"states mask_style={encoder.mask_style!r}, which is not one of {', '.join(get_args(MaskStyle))}"
    if encoder.mask_style is not None and not encoder.implements("forward_masked"):
        return f"states mask_style={encoder.mask_style!r} and has no method forward_masked(images, mask)"
    for name, meaning in _needed(encoder).items():
        if not hasattr(encoder, name):
            return f"does not state {name}, {meaning}: set it in the constructor"
    if encoder.flat_tokens and (encoder.depth < 1 or not encoder.implements("forward_blocks")):
        return "states flat_tokens, so it must state its depth and have the method forward_blocks(images)"
    if encoder.mask_style is None:
        return ""
    if len(encoder.latent_dims) != len(encoder.latent_scales):
        return f"states latent_dims={encoder.latent_dims} and latent_scales={encoder.latent_scales} of other length"
    if len(encoder.mask_grid) != len(encoder.img_size):
        return f"states mask_grid={tuple(encoder.mask_grid)} and img_size={tuple(encoder.img_size)} of other length"
    covered = tuple(cells * encoder.mask_cell_px for cells in encoder.mask_grid[-2:])
    if covered != tuple(encoder.img_size[-2:]):
        return (
            f"states mask_grid={tuple(encoder.mask_grid)} with mask_cell_px={encoder.mask_cell_px}, which covers"
            f" {covered} pixels and not img_size={tuple(encoder.img_size)}"
        )
    return ""


@torch.no_grad()
def _wrong_features(encoder: Encoder) -> str:
    """What is wrong with the shape of the features of two blank images; a user's own class is asked once."""
    was_training = encoder.training
    encoder.eval()
    with torch.random.fork_rng(devices=[]):
        features = encoder.forward_features(torch.zeros(2, encoder.in_chans, *encoder.img_size))
    encoder.train(was_training)
    shape = tuple(getattr(features, "shape", ()))
    if shape == (2, encoder.num_features):
        return ""
    return (
        f"gives features {shape} for a batch of 2, and the contract asks for (2, {encoder.num_features}):"
        " return one vector of num_features per image from forward_features"
    )


def _needed(encoder: Encoder) -> dict[str, str]:
    """The attributes that this encoder must state, and what they mean."""
    if encoder.mask_style is not None:
        return ALWAYS | MASKED
    return ALWAYS | ({"mask_grid": MASKED["mask_grid"]} if encoder.flat_tokens else {})
