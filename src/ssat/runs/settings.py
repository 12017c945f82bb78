"""What a record's configuration computes: its settings, the same for runs that may be pooled."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ssat.config.augmentation import ClipAugment
from ssat.config.fields import defaults_in
from ssat.config.identity import flat_settings
from ssat.config.schema import Data, Recipe
from ssat.config.upgrade import upgrade
from ssat.core.errors import UserError
from ssat.runs.own_phases import PHASES, own_settings, uses_labels_alone

START, INIT_FROM = "start.", "mode.init_from"  # settings of the run that a run starts from, and the key that names it
SHARE = "data.labelled_share"  # of a batch: nothing for modes that learn from labels alone
OF_MODE = ("mode.", "ssl.", "recipe.lam", START, SHARE)  # runs that differ in these are compared
# Keys that records of earlier versions lack: their default is no setting, so that old runs and new ones are pooled.
ADDED = {
    f"{group}.{name}": defaults_in(section)[name]
    for group, section, names in (
        ("data", Data, ("test_fraction", "max_test", "use_test", "folds", "fold", "average", "labelled_share")),
        ("data", Data, ("epoch_size",)),
        ("recipe", Recipe, ("class_weights", "focal_gamma", "lam")),
        ("recipe.clip_augment", ClipAugment, ("backend",)),
    )
    for name in names
} | dict.fromkeys(
    ("extend", *(f"data.{part}{name}" for part in ("", "source.") for name in ("labels", "label_columns"))), None
)


def settings_of(config: Mapping[str, Any], mode: str) -> dict[str, Any]:
    """What a configuration computes, but for its seed and fold: flat keys, a list as one value.

    Phases repeat the other keys, and only what was set for one phase alone is listed; where no SSL task takes part its
    settings are left out.
    """
    own = own_settings(config := upgraded(config), mode)
    unused = ("ssl.", PHASES, SHARE) if uses_labels_alone(config, mode) else (PHASES,)
    settings: dict[str, Any] = {}
    for key, value in (flat_settings(config) | own).items():
        if (key.startswith(unused) and key not in own) or key in ("seed", "name", "data.fold"):
            continue
        added = re.sub(r"^mode\.(ssl|probe)_recipe\.", "recipe.", key)
        if added in ADDED and value == ADDED[added]:
            continue
        parent, _, leaf = key.rpartition(".")
        if leaf.isdigit() and isinstance(listed := settings.setdefault(parent, []), list):
            listed.append(value)
        else:
            settings[key] = value
    return settings


def with_start(settings: Mapping[str, Any], start: Mapping[str, Any]) -> dict[str, Any]:
    """`settings` with those of the run that it starts from, below `start.`, in place of its folder.

    So runs of several seeds that each start from a run of their own seed are runs of one configuration.
    """
    own = {key: value for key, value in settings.items() if key != INIT_FROM}
    return own | {START + key: value for key, value in start.items()}


def read_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings but for data.patch_size where the encoder has said its own: nothing else reads it."""
    unread = "data.patch_size" if "encoder.patch_size" in settings else ""
    return {key: value for key, value in settings.items() if key != unread}


def upgraded(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """A record's configuration in today's form; as it is where no version of the framework can have written it."""
    try:
        return upgrade(config)
    except UserError:
        return config
