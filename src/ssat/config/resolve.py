"""From what Hydra composes, or a file of a run holds, to a typed `Run`."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ssat.config.check import check, shown_key
from ssat.config.defaults import RESOLVERS
from ssat.config.extend import extended
from ssat.config.fields import parse
from ssat.config.own_files import naming_files
from ssat.config.register import register
from ssat.config.schema import Component, Data, Encoder, Run, Ssl
from ssat.config.upgrade import VERSION, upgrade
from ssat.core.errors import UserError
from ssat.core.words import flatten

register()
for resolver in RESOLVERS:
    OmegaConf.register_new_resolver(resolver.__name__, resolver, replace=True)


def resolve(cfg: DictConfig) -> Run:
    """`cfg` with every interpolation resolved and every value checked.

    Raises:
        UserError: a mandatory key is missing, an interpolation fails, or a value is not possible.
    """
    plain = OmegaConf.to_container(cfg, resolve=False)
    _refuse_rectangle(plain)
    missing = sorted(key for key, value in flatten(plain).items() if value == "???" and not key.startswith("hydra"))
    if missing:
        raise UserError(
            f"{', '.join(missing)} has no default: give it on the command line, e.g. {missing[0]}=...", key=missing[0]
        )
    try:
        config = OmegaConf.to_container(cfg, resolve=True)
    except OmegaConfBaseException as error:
        key = getattr(error, "full_key", None)
        where = f"{key} does not resolve" if key else "the configuration does not resolve"
        literal = "; for these very characters write \\${...} within quotes" if "Interpolation" in str(error) else ""
        raise UserError(f"{where}: {str(error).splitlines()[0]}{literal}", key=key) from error
    assert isinstance(config, dict)
    with naming_files():
        return build({str(key): value for key, value in config.items() if key != "hydra"} | {"version": VERSION})


def _refuse_rectangle(plain: Any) -> None:
    """Said before the defaults of encoders, which count with one side."""
    data = plain.get("data") if isinstance(plain, dict) else None
    size = data.get("img_size") if isinstance(data, dict) else None
    if isinstance(size, list) or (isinstance(size, str) and re.fullmatch(r"\s*\d+\s*[x×,]\s*\d+\s*", size)):
        sides = size if isinstance(size, list) else re.findall(r"\d+", size)
        one = max((int(side) for side in sides if str(side).isdigit()), default=224)
        raise UserError(
            f"data.img_size={size} is not possible, networks see squares: give one side, data.img_size={one}; images of"
            " another shape are cropped to it (docs/faq.md)",
            key="data.img_size",
            value=size,
        )


def build(values: Mapping[str, Any], where: str = "the configuration") -> Run:
    """The run that plain `values` of any version describe.

    Raises:
        UserError: an unknown key, a value that is not possible, or a newer version has written them.
    """
    plain = upgrade(values, where)
    given = {key: value for key, value in plain.items() if key != "version"}
    for group in ("encoder", "data", "ssl", "mode", "recipe", "trainer"):
        if not isinstance(given.get(group), Mapping):
            raise UserError(
                f"{group}={given.get(group)!r} is not possible: it must name a file of conf/{group}",
                key=group,
                value=given.get(group),
            )
    given["encoder"] = _encoder(given["encoder"])
    given["ssl"] = _ssl(given["ssl"])
    given["data"] = _data(given["data"])
    run = extended(parse(Run, given, "", shown_key))
    object.__setattr__(run, "values", _spelled_alike(plain, run))
    check(run)
    return run


def _spelled_alike(plain: Any, typed: Any) -> Any:
    """`plain` with text where text is meant: trainer.precision=32 and "32" are one value, also in records."""
    if dataclasses.is_dataclass(typed) and isinstance(plain, dict):
        return {
            key: _spelled_alike(value, getattr(typed, key)) if hasattr(typed, key) else value
            for key, value in plain.items()
        }
    return typed if isinstance(typed, str) and isinstance(plain, int) else plain


def _component(kind: type[Any], node: Any, where: str) -> Any:
    if not isinstance(node, Mapping):
        raise UserError(f"{where}={node!r} is not possible: it must name a class as `kind`", key=where, value=node)
    if "_target_" in node:
        raise UserError(
            f"{where}._target_={node['_target_']} is a path to code, which no configuration may hold: name a class by"
            f" `kind` in a file of your own under conf/ (docs/extend.md)",
            key=f"{where}._target_",
            value=node["_target_"],
        )
    own = [field.name for field in dataclasses.fields(kind) if field.name not in ("name", "options")]
    lacks = [key for key in own if key not in node and key == "kind"]
    if lacks:
        raise UserError(f"{where} has no kind: it names the class", key=f"{where}.kind")
    if not isinstance(node.get("name", ""), (str, int)):
        raise UserError(f"{where}.name={node['name']!r} is not a name", key=f"{where}.name", value=node["name"])
    options = {str(key): value for key, value in node.items() if key not in own and key != "name"}
    taken = {key: node[key] for key in own if key in node}
    return parse(kind, taken | {"name": str(node.get("name", node["kind"])), "options": options}, where, shown_key)


def _encoder(node: Mapping[str, Any]) -> Encoder:
    return _component(Encoder, node, "encoder")


def _ssl(node: Mapping[str, Any]) -> Ssl:
    if "tasks" not in node:
        task = _component(Component, node, "ssl")
        return Ssl(task.name, {task.name: task})
    if not isinstance(node["tasks"], Mapping) or not node["tasks"]:
        raise UserError("ssl.tasks holds no task: write ssl=[mae,guidance]", key="ssl.tasks", value=node["tasks"])
    tasks = {name: _component(Component, task, f"ssl.tasks.{name}") for name, task in node["tasks"].items()}
    weights = node.get("weights")
    if weights is not None and not isinstance(weights, Mapping):
        raise UserError(
            f"ssl.weights={weights!r} is not possible: it must give a weight to each task",
            key="ssl.weights",
            value=weights,
        )
    return Ssl(str(node.get("name", "several")), tasks, weights)


def _data(node: Mapping[str, Any]) -> dict[str, Any]:
    """The data's keys with those that only its reader takes put apart."""
    given = dict(node)
    source = _component(Component, given.get("source"), "data.source")
    known = {field.name for field in dataclasses.fields(Data)}
    extra = {key: given.pop(key) for key in list(given) if key not in known}
    unread = [key for key in extra if key not in source.options and not (key == "root" and extra[key] is None)]
    if extra.get("root") is not None and not isinstance(extra["root"], str):
        raise UserError(f"data.root={extra['root']} is not the name of a folder", key="data.root", value=extra["root"])
    if "root" in unread:
        raise UserError(
            f"data.root={extra['root']} is not read by data={given.get('name')}, which lies in no folder: leave it out,"
            " or choose another data set",
            key="data.root",
            value=extra["root"],
        )
    given["source"] = source
    return given | {key: node[key] for key in unread} | {"extra": {k: v for k, v in extra.items() if k not in unread}}
