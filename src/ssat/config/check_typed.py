"""Refuses keys that a user has typed and that nothing reads."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Sequence

from hydra.core.override_parser.overrides_parser import OverridesParser

from ssat.config.augmentation import Augment, ClipAugment
from ssat.config.check_classes import weights_of
from ssat.config.schema import Run
from ssat.core.errors import UserError

RECIPES = r"(recipe|mode\.(ssl_recipe|probe_recipe)|mode\.phases\.\d+\.recipe)"
# Of the augmentations, the keys that mean the same.
SAME = {"hflip": "hflip_prob", "color_jitter": "colour_prob"}


def _is_read(run: Run, name: str) -> bool:
    """Whether a phase has the run's value of a key of the recipe, or one that follows it."""
    own = getattr(run.recipe, name, None)
    return any(getattr(phase.recipe, name, None) == own for phase in run.mode.phases)


def _leaves(key: str, value: object) -> Iterator[tuple[str, str]]:
    """The keys that a value sets, each with its own: `{lam: 0.3}` of recipe sets recipe.lam."""
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from _leaves(f"{key}.{name}", inner)
    else:
        yield key, "null" if value is None else str(value)


def whole_keys(params: dict[str, object]) -> dict[str, str]:
    """{encoder: {depth: 1}} as {encoder.depth: 1}, which is an override."""
    return dict(leaf for key, value in params.items() for leaf in _leaves(key, value))


def _typed(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    """The keys that the words set, each with its value."""
    for word in words:
        key, _, value = word.lstrip("+").partition("=")
        is_nested = value.startswith("{")
        yield from _leaves(key, OverridesParser.create().parse_override(word).value() if is_nested else value)


def check_sweeper(words: Sequence[str]) -> None:
    """Refuse a typed hydra.sweeper.* where a single run starts, which has no use for it.

    Args:
        words: Hydra's own overrides of the command line.

    Raises:
        UserError: names the key.
    """
    for word in words:
        key, _, value = word.lstrip("+").partition("=")
        if re.match(r"hydra[./](sweeper|launcher)\b", key) and value != "null":
            raise UserError(f"{key} is of a sweep, and this is a single run: put -m before it", key=key, value=value)


def check_typed(run: Run, words: Sequence[str]) -> None:
    """Refuse keys that the user has typed, or an experiment has set, and that nothing reads.

    What a recipe's file sets is part of the recipe, also where the data are of the other kind.

    Args:
        run: the configuration.
        words: the overrides that it was composed of.

    Raises:
        UserError: names the key, and the one that is meant.
    """
    videos = run.data.frames is not None
    kinds = ("images", "videos") if videos else ("videos", "images")
    unread = rf"{RECIPES}\.clip_augment|data\.(frame_step|max_clips)"
    if videos:
        unread = rf"{RECIPES}\.(augment|eval_crop_pct)"
    for key, value in _typed(words):
        if re.fullmatch(rf"({unread})(\..+)?", key) and value != "null":
            raise UserError(
                f"{key} is of {kinds[0]}, and data={run.data.name} are {kinds[1]}: {_meant(key, videos=videos)}",
                key=key,
                value=value,
            )
        if re.fullmatch(rf"{RECIPES}\.lam", key):
            _check_lam(run, key, value)
        if key.startswith("recipe.") and not _is_read(run, key.split(".")[1]):
            places = ("ssl_recipe", "probe_recipe")
            place = next((name for name in places if getattr(run.mode, name)), "phases.0.recipe")
            meant = key.replace("recipe", f"mode.{place}", 1)
            raise UserError(
                f"{key} is read by no phase of mode={run.mode.name}: set {meant}={value}, or leave it out",
                key=key,
                value=value,
            )
        if key == "recipe.normalise_w" and run.data.multi_label:
            raise UserError(
                f"{key}={value} is of one class for each image: under data.labels the weights are torch's pos_weight,"
                " and L_cls is the mean over images and labels; leave it out",
                key=key,
                value=value,
            )
        if key == "recipe.normalise_w" and not any(weights_of(phase.recipe) for phase in run.mode.phases):
            raise UserError(
                f"{key}={value} is read only where classes are weighed: set recipe.w or recipe.class_weights as well,"
                " or leave it out",
                key=key,
                value=value,
            )


def _check_lam(run: Run, key: str, value: str) -> None:
    """Only the recipe's own weight is read, and only where joint training names no other."""
    own, used = run.mode.lam, [phase.lam for phase in run.mode.phases]
    if key != "recipe.lam":
        reason = "only recipe.lam and mode.lam are read"
    elif own is None:
        reason = f"mode={run.mode.name} does not read it"
    elif own != run.recipe.lam:
        reason = f"mode.lam={own:g} takes its place"
    elif own not in used:
        reason = f"mode.phases names another, {used[0]:g}"
    else:
        return
    raise UserError(
        f"{key}={value} is the weight of L_cls in mode=ssat, and {reason}: leave it out", key=key, value=value
    )


def _meant(key: str, *, videos: bool) -> str:
    start, _, leaf = re.sub(r"\b(clip_)?augment\b", "clip_augment" if videos else "augment", key).rpartition(".")
    other = (SAME if videos else {new: old for old, new in SAME.items()}).get(leaf, leaf)
    fields = {field.name for field in dataclasses.fields(ClipAugment if videos else Augment)}
    if "augment." not in f"{start}.{leaf}.":
        return "leave it out"
    if leaf.endswith("augment"):
        return f"set {start}.{leaf}"
    return f"set {start}.{other}" if other in fields else f"theirs is {start} (--help recipe lists its keys)"
