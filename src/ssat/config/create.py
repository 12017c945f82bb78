"""Objects from configuration nodes: a short name from a visible table, or a class of the user's own."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from ssat.config.fields import arguments, convert
from ssat.core import libraries
from ssat.core.errors import UserError
from ssat.core.words import nearest


def load(table: Mapping[str, str], kind: str, key: str) -> Callable[..., Any]:
    """The class or function called `kind`: a name of `table`, or the user's own as `module:Class`.

    Raises:
        UserError: `key`=`kind` is neither, or the module has no such class.
    """
    path = table.get(kind, kind)
    if ":" not in path:
        raise UserError(
            f"{key}={kind} is not one of {', '.join(table)}{nearest(kind, list(table))}; a class of your own is"
            " named as module:Class",
            key=key,
            value=kind,
        )
    module, _, name = path.partition(":")
    libraries.load("timm")
    try:
        return getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        if error.name is None or not (module + ".").startswith(error.name + "."):
            raise
        raise UserError(
            f"{key}={kind}: there is no module {error.name} on Python's path", key=key, value=kind
        ) from error
    except AttributeError as error:
        raise UserError(f"{key}={kind}: the module {module} has no {name}", key=key, value=kind) from error


def create(table: Mapping[str, str], kind: str, options: Mapping[str, Any], key: str, **given: Any) -> Any:
    """The object that `kind` and `options` describe; of `given` it gets what its class takes.

    A mistake in the options is a sentence; an exception inside the constructor is a bug and keeps its traceback.

    Raises:
        UserError: `kind` is unknown, or does not take the options.
    """
    make = load(table, kind, f"{key}.kind")
    parameters = inspect.signature(make).parameters
    open_ended = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    values = checked_options(table, kind, options, key)
    return make(**values | {name: value for name, value in given.items() if open_ended or name in parameters})


def checked_options(table: Mapping[str, str], kind: str, options: Mapping[str, Any], key: str) -> dict[str, Any]:
    """`options` as the class called `kind` takes them: each has its type, and none is unknown.

    Raises:
        UserError: names the option.
    """
    make = load(table, kind, f"{key}.kind")
    parameters = inspect.signature(make).parameters
    annotations = arguments(make)
    known = [name for name, p in parameters.items() if p.kind is not inspect.Parameter.VAR_KEYWORD]
    open_ended = len(known) < len(parameters)
    values = {}
    for name, value in options.items():
        if name not in known and not open_ended:
            raise UserError(
                f"there is no key {key}.{name}: {kind} does not take it{nearest(name, known)}",
                key=f"{key}.{name}",
                value=value,
            )
        limits = {"low": 1} if _is_size(parameters[name].default if name in known else None) else None
        values[name] = convert(annotations.get(name, Any), value, f"{key}.{name}", limits)
    return values


def _is_size(default: Any) -> bool:
    """Whether an argument with this default is a size or a count, which is at least 1: no class has one of 0."""
    sizes = default if isinstance(default, tuple) else (default,)
    return bool(sizes) and all(isinstance(size, int) and not isinstance(size, bool) and size >= 1 for size in sizes)


def defaults_of(table: Mapping[str, str], kind: str, key: str) -> dict[str, Any]:
    """The defaults that the class called `kind` states for its arguments."""
    parameters = inspect.signature(load(table, kind, key)).parameters
    return {name: p.default for name, p in parameters.items() if p.default is not inspect.Parameter.empty}
