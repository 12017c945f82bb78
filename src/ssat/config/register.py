"""The schema's defaults as Hydra's structured defaults: `defaults: [schema, _self_]` in a group of conf/."""

from __future__ import annotations

from hydra.core.config_store import ConfigStore

from ssat.config.fields import defaults_in
from ssat.config.schema import Data, Launcher, Logger, Recipe, Run, Trainer

SECTIONS = {"data": Data, "recipe": Recipe, "trainer": Trainer, "logger": Logger, "launcher": Launcher}
CHOSEN = (*SECTIONS, "encoder", "ssl", "mode")  # by a file of conf/<group>


def register() -> None:
    """Store every section once; Hydra finds them beside the files of conf/."""
    store = ConfigStore.instance()
    for group, section in SECTIONS.items():
        store.store(group=group, name="schema", node=defaults_in(section), provider="ssat")
    top = {key: value for key, value in defaults_in(Run).items() if key not in CHOSEN}
    store.store(name="run_schema", node=top, provider="ssat")
