"""The analyses by name: which figure of the paper, what is refused, how a model is measured, and the axes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ssat.analysis.attention import PLACES, attention, attention_blocks
from ssat.analysis.gradcam import check as check_gradcam
from ssat.analysis.gradcam import gradcam
from ssat.analysis.hessian import Settings, classifier_parameters, hessian
from ssat.analysis.maps import check as check_maps
from ssat.analysis.maps import maps
from ssat.analysis.models import Measured, Model
from ssat.analysis.plots import Panel
from ssat.analysis.tokens import blocks_of, distances, variances

Values = dict[str, Any]  # of the command's options


@dataclass(frozen=True)
class Analysis:
    """One analysis.

    Attributes:
        figure: of the paper.
        title: of our figure.
        check: raises UserError for a model that cannot be analysed.
        measure: of a model and the indices of images; the Hessian chooses its own.
        panels: axes of the curves, none where the result is pictures.
    """

    figure: int
    title: str
    check: Callable[[Model], object]
    measure: Callable[[Model, list[int]], Measured]
    panels: Sequence[Panel] = ()


def _attention(o: Values) -> Analysis:
    profiles = [
        Panel(f"{place} block", "token (0 = class token)", "attention received, 1 = uniform", markers=False)
        for place in PLACES
    ]
    shares = [
        Panel(f"{place} block, histogram", "attention received", "share of tokens", "log", markers=False)
        for place in PLACES
    ]
    return Analysis(
        6,
        "Attention that each token receives",
        lambda model: attention_blocks(model.encoder),
        lambda model, chosen: attention(model, chosen, batch_size=o["batch_size"]),
        [*profiles, *shares],
    )


def _distance(o: Values) -> Analysis:
    with_cls = o["distance.with_cls"]
    return Analysis(
        7,
        "Distance between tokens",
        lambda model: blocks_of(model.encoder),
        lambda model, chosen: distances(model, chosen, batch_size=o["batch_size"], with_cls=with_cls),
        [
            Panel("distance", "block (0 = embedding)", "mean distance of tokens"),
            Panel("relative distance", "block (0 = embedding)", "distance / token length"),
        ],
    )


def _variance(o: Values) -> Analysis:
    return Analysis(
        8,
        "Variance of the feature map",
        lambda model: blocks_of(model.encoder),
        lambda model, chosen: variances(model, chosen, batch_size=o["batch_size"]),
        [Panel("variance", "depth (a point after each attention and each MLP)", "variance over tokens")],
    )


def _hessian(o: Values) -> Analysis:
    settings = Settings(**{key.partition(".")[2]: value for key, value in o.items() if key.startswith("hessian.")})
    return Analysis(
        9,
        "Largest Hessian eigenvalues of mini-batches",
        classifier_parameters,
        lambda model, _: hessian(model, settings=settings, seed=o["seed"]),
        [Panel("density", "eigenvalue", "density", markers=False)],
    )


def _gradcam(o: Values) -> Analysis:
    return Analysis(
        10,
        "Grad-CAM of the predicted class",
        check_gradcam,
        lambda model, chosen: gradcam(model, chosen, batch_size=o["batch_size"]),
    )


def _maps(o: Values) -> Analysis:
    settings = {"batch_size": o["batch_size"], "mass": o["maps.mass"], "through_all": o["maps.rollout"]}
    where = "rolled out through all blocks" if o["maps.rollout"] else "last block"
    return Analysis(
        12,
        f"Attention of the class token, {where}",
        check_maps,
        lambda model, chosen: maps(model, chosen, **settings),
    )


ANALYSES: dict[str, Callable[[Values], Analysis]] = {
    "attention": _attention,
    "distance": _distance,
    "variance": _variance,
    "hessian": _hessian,
    "gradcam": _gradcam,
    "maps": _maps,
}


def analysis_of(name: str, options: Values) -> Analysis:
    """The analysis `name` under the command's options."""
    return ANALYSES[name](options)
