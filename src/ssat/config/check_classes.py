"""Refuses what weights of classes, balanced epochs, the focal loss and folds do not go together with."""

from __future__ import annotations

from ssat.config.schema import Data, Phase, Recipe, Run
from ssat.core.errors import UserError


def weights_of(recipe: Recipe) -> str:
    """The key and value that weigh the classes, as the user types them; empty where they weigh alike."""
    if recipe.w is not None:
        return f"recipe.w={recipe.w}"
    if recipe.class_weights is None:
        return ""
    weights = recipe.class_weights
    return f"recipe.class_weights={weights if isinstance(weights, str) else _listed(weights)}"


def _listed(weights: tuple[float, ...]) -> str:
    return f"[{','.join(f'{weight:g}' for weight in weights)}]"


def check_classes(run: Run, phase: Phase) -> None:
    """What makes up for classes of unequal sizes, and the focal loss.

    Raises:
        UserError: two of them exclude each other; names both keys.
    """
    recipe, weights = phase.recipe, weights_of(phase.recipe)
    if run.data.multi_label:
        check_labels(run, recipe)
    if recipe.w is not None and recipe.class_weights is not None:
        raise UserError(
            f"{weights} and recipe.class_weights both weigh the classes: keep recipe.class_weights (recipe.w=null), or"
            " recipe.w, which is Eq. 3 of two classes",
            key="recipe.class_weights",
            value=recipe.class_weights,
        )
    if recipe.balance and weights:
        raise UserError(
            f"recipe.balance=true and {weights} both make up for classes of unequal sizes: set one of them"
            f" ({weights.partition('=')[0]}=null)",
            key="recipe.balance",
            value=True,
        )
    if recipe.balance and run.data.label_fraction < 1:
        raise UserError(
            f"recipe.balance=true chooses images by their labels, and data.label_fraction={run.data.label_fraction:g}"
            " takes labels away: use recipe.class_weights=balanced in its place",
            key="recipe.balance",
            value=True,
        )
    if recipe.focal_gamma and phase.lam > 0:
        _check_focal(recipe)
    if run.data.labelled_share is not None:
        _check_labelled_share(run, run.data.labelled_share)


def _check_labelled_share(run: Run, share: float) -> None:
    if run.data.label_fraction == 1:
        problem = "and every image has one: take labels away with data.label_fraction=0.1, or leave it out"
    elif share == 1:
        problem = "and leaves no place for the others: give less than 1, e.g. 0.5"
    else:
        return
    raise UserError(
        f"data.labelled_share={share:g} says how much of a batch has labels, {problem}",
        key="data.labelled_share",
        value=share,
    )


def check_labels(run: Run, recipe: Recipe) -> None:
    """What is of images with one class each, where data.labels gives them several labels.

    Raises:
        UserError: names the key, and what is meant.
    """
    probes = [f"monitor.{name}_every" for name in ("knn", "linear") if getattr(run.monitor, f"{name}_every")]
    found = {
        "recipe.w": (recipe.w, "use recipe.class_weights=balanced"),
        "recipe.balance": (recipe.balance or None, "use recipe.class_weights=balanced"),
        "data.samples_per_class": (run.data.samples_per_class, "use data.fraction"),
        **dict.fromkeys(probes, ("set", "leave it out, its probe knows one class of each image")),
    }
    for key, (value, cure) in found.items():
        if value is not None:
            raise UserError(
                f"{key} is of images with one class each, and data.labels gives them several labels: {cure}",
                key=key,
                value=value,
            )


def _check_focal(recipe: Recipe) -> None:
    """The focal loss is defined for one right class of each image (Lin et al. 2017, Eq. 4)."""
    soft = {key: getattr(recipe, key) for key in ("label_smoothing", "mixup", "cutmix")}
    told = [f"recipe.{key}={value:g}" for key, value in soft.items() if value]
    if told:
        zero = " ".join(f"{each.partition('=')[0]}=0" for each in told)
        raise UserError(
            f"recipe.focal_gamma={recipe.focal_gamma:g} is a loss of one right class, and {' and '.join(told)}"
            f" spread{'s' * (len(told) == 1)} the label over several: add {zero}",
            key="recipe.focal_gamma",
            value=recipe.focal_gamma,
        )


def check_folds(data: Data) -> None:
    """The number of parts, and which of them is the test.

    Raises:
        UserError: one is given without the other, there is no such part, or another key names the test as well.
    """
    if data.folds is None:
        if data.fold is not None:
            raise UserError(
                f"data.fold={data.fold} is one of several parts: say of how many, such as data.folds=5",
                key="data.fold",
                value=data.fold,
            )
        return
    every = ",".join(map(str, range(data.folds))) if data.folds <= 20 else f"0,1,...,{data.folds - 1}"
    if data.fold is None or data.fold >= data.folds:
        given = "needs the part that is the test" if data.fold is None else f"has no part {data.fold}"
        raise UserError(
            f"data.folds={data.folds} {given}: data.fold=0 to {data.folds - 1}, or all of them with"
            f" -m data.folds={data.folds} data.fold={every}",
            key="data.fold",
            value=data.fold,
        )
    if data.test_fraction:
        raise UserError(
            f"data.folds={data.folds} and data.test_fraction={data.test_fraction:g} both name the test images: keep one"
            " of them",
            key="data.folds",
            value=data.folds,
        )
