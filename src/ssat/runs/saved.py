"""The configuration that a run's folder holds, with changes of the user's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ssat.config.fields import defaults_in
from ssat.config.overrides import composed
from ssat.config.resolve import build
from ssat.config.schema import Data, Run
from ssat.config.trust import trusted
from ssat.config.upgrade import upgrade
from ssat.core.errors import UserError
from ssat.core.read import check_plain
from ssat.core.words import flatten, nearest
from ssat.runs.folder import read_config

COPY = "copy the run again"  # what to do about a run folder with a damaged file


# What the network was trained for stays; the rest is the other set's.
OF_THE_NETWORK = ("img_size", "patch_size", "channels", "statistics", "frames", "frame_step", "average", "value_range")


def _other_data(trained: Mapping[str, Any], name: str, words: Sequence[str]) -> dict[str, Any]:
    """The data that the words `data=<name> data.<key>=...` name, else in the sizes of those a run was trained on."""
    typed = {word.partition("=")[0].split(".")[1] for word in words}
    composed_data: Any = OmegaConf.to_container(composed([name, *words]), resolve=True)
    return {
        **composed_data["data"],
        **{key: trained[key] for key in OF_THE_NETWORK if key in trained and key not in typed},
    }


def saved_configuration(run: Path, overrides: list[str]) -> Run:
    """The run's configuration with the overrides, which must name keys that it has; `data=<name>` names other data.

    Raises:
        UserError: there is no run, its configuration is damaged, or there is no such key.
    """
    path = run / "config.yaml"
    if not path.is_file():
        raise UserError(f"run={run} is no run folder: {path} does not exist")
    values = _in_todays_form(read_config(path, COPY), str(path))
    if named := [word for word in overrides if word.startswith("data=")]:
        others = [word for word in overrides if word.startswith("data.")]
        values["data"] = _other_data(values["data"], named[-1], others)
        overrides = [word for word in overrides if word not in (*named, *others)]
    keys = list(flatten(values))
    known = {*keys, *(key.rpartition(".")[0] for key in keys if key.rpartition(".")[2].isdigit())}  # and whole lists
    for word in overrides:
        key = word.split("=")[0]
        if key not in known:
            raise UserError(f"the run has no key {key!r}{nearest(key, keys)}", key=key)
    try:
        changed: Any = OmegaConf.to_container(OmegaConf.merge(values, OmegaConf.from_dotlist(overrides)))
    except OmegaConfBaseException as error:
        raise UserError(f"{' '.join(overrides)} is not understood: {str(error).splitlines()[0]}") from error
    return _built(changed, str(path))


def stored_configuration(values: Mapping[str, Any], where: str) -> Run:
    """The configuration of plain values that a checkpoint or an exported folder holds; `where` names the file.

    Raises:
        UserError: it is damaged, of a newer version, or names code that is not the user's own.
    """
    try:
        check_plain(values)
    except ValueError as error:
        raise UserError(f"{where} is damaged, of its configuration {error}: {COPY}") from error
    return _built(_in_todays_form(values, where), where)


def _in_todays_form(values: Mapping[str, Any], where: str) -> dict[str, Any]:
    today = upgrade(values, where)
    if not isinstance(today.get("data"), dict) or not isinstance(today["data"].get("source"), dict):
        raise UserError(f"{where} is damaged: {COPY}")
    # A run of an earlier version lacks the keys that have come since.
    return today | {"data": defaults_in(Data) | today["data"]}


def _built(values: dict[str, Any], where: str) -> Run:
    # The saved configuration is resolved: the reader's arguments are copies of the keys above them.
    data = values["data"]
    source = {key: data.get(key, value) for key, value in data["source"].items()}
    return trusted(build({**values, "data": {**data, "source": source}}, where))
