"""The analyses by name: which figure of the paper, what is refused, how a model is measured, and the axes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ssat.analysis.attention import PLACES, attention, attention_blocks, clip_attention
from ssat.analysis.evidence import check as check_evidence
from ssat.analysis.evidence import class_evidence
from ssat.analysis.gradcam import check as check_gradcam
from ssat.analysis.gradcam import gradcam
from ssat.analysis.hessian import Settings, classifier_parameters, hessian
from ssat.analysis.maps import check as check_maps
from ssat.analysis.maps import maps
from ssat.analysis.models import Measured, Model
from ssat.analysis.plots import Panel
from ssat.analysis.tokens import check_both_axes, check_several_tokens, distances, variances
from ssat.core.errors import UserError

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
        strip: axes of the curve below each film strip, where the result is film strips.
    """

    figure: int
    title: str
    check: Callable[[Model], object]
    measure: Callable[[Model, list[int]], Measured]
    panels: Sequence[Panel] = ()
    strip: Panel | None = None


def _attention(o: Values) -> Analysis:
    profiles = [
        Panel(f"{place} block", "token (0 = class token)", "attention received, 1 = uniform", markers=False)
        for place in PLACES
    ]
    return Analysis(
        6,
        "Attention that each token receives",
        lambda model: attention_blocks(model.encoder),
        lambda model, chosen: attention(model, chosen, batch_size=o["batch_size"]),
        [*profiles, *_histograms()],
    )


def _histograms() -> list[Panel]:
    return [
        Panel(f"{place} block, histogram", "attention received", "share of tokens", "log", markers=False)
        for place in PLACES
    ]


def _clip_attention(o: Values) -> Analysis:
    received = "attention received, 1 = uniform"
    slots = [Panel(f"{place} block, over time", "time slot", received) for place in PLACES]
    patches = [Panel(f"{place} block, by patch", "patch, row by row", received, markers=False) for place in PLACES]
    return Analysis(
        6,
        "Attention that time slots and patches receive, mean over all queries",
        lambda model: attention_blocks(model.encoder),
        lambda model, chosen: clip_attention(model, chosen, batch_size=o["batch_size"]),
        [*slots, *patches, *_histograms()],
    )


def _distance(o: Values) -> Analysis:
    with_cls = o["distance.with_cls"]
    return Analysis(
        7,
        "Distance between tokens",
        lambda model: check_several_tokens(model, with_cls=with_cls),
        lambda model, chosen: distances(model, chosen, batch_size=o["batch_size"], with_cls=with_cls),
        [
            Panel("distance", "block (0 = embedding)", "mean distance of tokens"),
            Panel("relative distance", "block (0 = embedding)", "distance / token length"),
        ],
    )


def _clip_distance(o: Values) -> Analysis:
    whole = _distance(o)
    apart = [
        Panel(f"distance in {where}", "block (0 = embedding)", f"mean distance {which}")
        for where, which in (("space", "within a time slot"), ("time", "of a patch from slot to slot"))
    ]
    return replace(whole, check=check_both_axes, panels=[*whole.panels, *apart])


def _variance(o: Values) -> Analysis:
    return Analysis(
        8,
        "Variance of the feature map",
        check_several_tokens,
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


def _evidence(o: Values) -> Analysis:
    return Analysis(
        10,
        "Evidence for the true class over time",
        check_evidence,
        lambda model, chosen: class_evidence(model, chosen, batch_size=o["batch_size"]),
        strip=Panel("", "seconds", "evidence (mean = log-odds)"),
    )


ANALYSES: dict[str, Callable[[Values], Analysis]] = {
    "attention": _attention,
    "distance": _distance,
    "variance": _variance,
    "hessian": _hessian,
    "gradcam": _gradcam,
    "maps": _maps,
}
OF_CLIPS: dict[str, Callable[[Values], Analysis]] = {
    "attention": _clip_attention,
    "distance": _clip_distance,
    "variance": _variance,
    "hessian": _hessian,
    "gradcam": _evidence,
}


def analysis_of(name: str, options: Values, *, clips: bool = False) -> Analysis:
    """The analysis `name` under the command's options, of images or of clips.

    Raises:
        UserError: there is no such analysis of clips.
    """
    known = OF_CLIPS if clips else ANALYSES
    if name not in known:
        why = " (it shows where the class token looks, and encoders of clips have none)" if name == "maps" else ""
        raise UserError(f"analysis={name} is of images alone{why}: of videos there are {', '.join(known)}")
    return known[name](options)
