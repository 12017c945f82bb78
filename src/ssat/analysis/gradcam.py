"""Grad-CAM on tokens and maps: which patches speak for a class (Figure 10; Selvaraju et al. 2017)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from ssat.analysis.attention import upsample
from ssat.analysis.models import Measured, Model, pixels
from ssat.analysis.plots import heat
from ssat.core.errors import UserError
from ssat.encoders.base import Encoder


def class_activation(activation: Tensor, gradient: Tensor) -> Tensor:
    """ReLU(sum_c alpha_c A_c), (B, h, w); maps A and a score's gradient (B, D, h, w), of which alpha is the mean."""
    return (activation * gradient.mean((2, 3), keepdim=True)).sum(1).relu()


def stretched(maps: Tensor) -> Tensor:
    """(B, h, w) to the range [0, 1] image by image; a flat map is 0 everywhere."""
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    return torch.where(high > low, (maps - low) / (high - low).clamp_min(torch.finfo(maps.dtype).tiny), 0.0)


def target_layer(encoder: Encoder) -> nn.Module:
    """The encoder's `evidence_layer`.

    Raises:
        UserError: it has none.
    """
    layer = encoder.evidence_layer()
    if layer is None:
        raise UserError(
            f"{type(encoder).__name__} has no layer whose places speak for a class, which Grad-CAM needs: take another"
            " encoder, or give yours an evidence_layer (docs/extend.md)"
        )
    return layer


class Scored(Protocol):
    """What Grad-CAM needs of a network."""

    @property
    def encoder(self) -> Encoder:
        """That of the tokens."""
        ...

    def logits(self, images: Tensor) -> Tensor:
        """(B, C, H, W) to (B, classes), with a graph."""
        ...


def _with_activation(model: Scored, images: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (B, classes), and what the encoder's `evidence_layer` gives."""
    kept: list[Tensor] = []
    hook = target_layer(model.encoder).register_forward_hook(lambda module, inputs, output: kept.append(output))
    try:
        logits = model.logits(images)
    finally:
        hook.remove()
    (activation,) = kept
    return logits, activation


def class_maps(model: Scored, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Logits (B, classes), and the maps (B, h, w) in [0, 1] of the predicted class and of `targets`."""
    # A frozen encoder has no graph of its own.
    logits, activation = _with_activation(model, images.clone().requires_grad_())
    maps = []
    for classes in (logits.argmax(1), targets):
        scores = logits.gather(1, classes.unsqueeze(1)).sum()
        (gradient,) = torch.autograd.grad(scores, activation, retain_graph=True)
        as_map = model.encoder.evidence_map
        maps.append(stretched(class_activation(as_map(activation.detach()), as_map(gradient))))
    return logits.detach(), maps[0], maps[1]


def gradcam(model: Model, indices: Sequence[int], *, batch_size: int) -> Measured:
    """Figure 10: a heat map of the predicted class over each image; of the true one too where an image is misread.

    Raises:
        UserError: the run has learned no labels, or its encoder has no `evidence_layer` or no two places.
    """
    check(model)
    found: list[dict[str, Any]] = []
    seen, predicted, true = [], [], []
    for batch in model.batches(indices, batch_size):
        assert batch.targets is not None and batch.indices is not None
        logits, of_predicted, of_true = class_maps(model, batch.images, batch.targets)
        shown = pixels(batch.images, model.data)
        size = shown.shape[1:3]
        seen.append(shown)
        predicted.append(heat(shown, upsample(of_predicted, size, "bilinear").cpu().numpy()))
        true.append(heat(shown, upsample(of_true, size, "bilinear").cpu().numpy()))
        found += _described(model, batch.indices, batch.targets, logits, of_predicted, of_true)
    images, of_prediction = np.concatenate(seen), np.concatenate(predicted)
    captions = ["" if row["correct"] else f"taken for {row['predicted']}" for row in found]
    details = None
    if any(captions):
        details = {"true": {"image": images, "predicted class": of_prediction, "true class": np.concatenate(true)}}
    return Measured(
        {},
        {"images": found},
        {"right, %": 100 * captions.count("") / len(captions)},
        {"image": images, model.name: of_prediction},
        {model.name: captions, "predicted class": captions},
        details,
    )


def check(model: Model) -> None:
    """Raises: UserError: the model has no class scores, or no two places to draw."""
    if model.head is None:
        raise UserError(f"run {model.facts['run']} has learned no labels: Grad-CAM explains the score of a class")
    (batch,) = model.batches([0], 1)
    with torch.no_grad():
        _, activation = _with_activation(model, batch.images)
    if model.encoder.evidence_map(activation).shape[2:].numel() < 2:
        side = " x ".join(map(str, model.encoder.img_size))
        raise UserError(
            f"Grad-CAM compares places, and of an input of {side} the encoder has one alone: train with a larger"
            " data.img_size, or leave it out"
        )


def _described(
    model: Model, indices: Tensor, targets: Tensor, logits: Tensor, of_predicted: Tensor, of_true: Tensor
) -> list[dict[str, Any]]:
    names, probabilities = model.data.class_names, logits.softmax(1)
    rows = []
    for i, (index, target) in enumerate(zip(indices.tolist(), targets.tolist(), strict=True)):
        best = int(logits[i].argmax())
        rows.append(
            {
                "index": index,
                "true": names[target],
                "predicted": names[best],
                "probability": float(probabilities[i, best]),
                "correct": best == target,
                "map_predicted": _rounded(of_predicted[i]),
                "map_true": _rounded(of_true[i]),
            }
        )
    return rows


def _rounded(image: Tensor) -> list[list[float]]:
    return [[round(value, 4) for value in row] for row in image.tolist()]
