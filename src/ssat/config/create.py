"""Objects from configuration nodes: a short name from a visible table, or a class of the user's own."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any

from ssat.config.fields import arguments, convert
from ssat.core import libraries
from ssat.core.errors import UserError
from ssat.core.words import nearest


def load(table: Mapping[str, str], kind: str, key: str, of: type | None = None) -> Callable[..., Any]:
    """The class or function called `kind`: a name of `table`, or the user's own as `module:Class`.

    Args:
        table: short names, and what they stand for.
        kind: the name.
        key: of the configuration, for messages.
        of: what it must derive from; None = it may be a function.

    Raises:
        UserError: `key`=`kind` is neither, the module has no such class, or it does not derive from `of`.
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
    if not re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", path):
        raise UserError(f"{key}={kind} is not written as module:Class", key=key, value=kind)
    try:
        found = getattr(importlib.import_module(module), name)
        if of is not None:
            _check_derives(found, of, kind, key)
        inspect.signature(found)
        return found
    except (SystemExit, SyntaxError) as error:
        raise UserError(
            f"{key}={kind}: the module {module} cannot be imported ({error!r})", key=key, value=kind
        ) from error
    except (TypeError, ValueError, NameError) as error:
        if isinstance(error, UserError) or _inside(error, module):
            raise
        raise UserError(
            f"{key}={kind} is no class or function whose arguments can be read", key=key, value=kind
        ) from error
    except ModuleNotFoundError as error:
        if error.name is None or not (module + ".").startswith(error.name + "."):
            raise
        raise UserError(
            f"{key}={kind}: there is no module {error.name} on Python's path: start the command in the folder"
            " that holds it, or name that folder in PYTHONPATH",
            key=key,
            value=kind,
        ) from error
    except AttributeError as error:
        raise UserError(f"{key}={kind}: the module {module} has no {name}", key=key, value=kind) from error


def _check_derives(found: Any, of: type, kind: str, key: str) -> None:
    """Before anything is called: a function may do something else than make an object."""
    if inspect.isclass(found) and issubclass(found, of):
        return
    what = "a class of another kind" if inspect.isclass(found) else "no class"
    of_list = key.partition(".")[0]  # such as callbacks
    raise UserError(
        f"{of_list}: {kind} is {what}: name a class that derives from lightning.pytorch's {of.__name__}",
        key=of_list,
        value=kind,
    )


def _inside(error: BaseException, module: str) -> bool:
    """Whether the code of `module` has raised `error`, rather than the look at it."""
    frame = error.__traceback__
    while frame is not None:
        if frame.tb_frame.f_globals.get("__name__") == module:
            return True
        frame = frame.tb_next
    return False


def create(
    table: Mapping[str, str], kind: str, options: Mapping[str, Any], key: str, *, of: type | None = None, **given: Any
) -> Any:
    """The object that `kind` and `options` describe; of `given` it gets what its class takes.

    A mistake in the options is a sentence; an exception inside the constructor is a bug and keeps its traceback.

    Raises:
        UserError: `kind` is unknown, does not derive from `of`, or does not take the options.
    """
    make = load(table, kind, _key_of(key, kind), of)
    parameters = inspect.signature(make).parameters
    open_ended = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    values = checked_options(table, kind, options, key)
    try:
        return make(**values | {name: value for name, value in given.items() if open_ended or name in parameters})
    except UserError as error:
        if error.key is not None and error.key not in options:
            raise
        # A class names its arguments; the user knows them as keys.
        named = [name for name in options if re.search(rf"(?<![\w.]){name}=", str(error))]
        text = re.sub(rf"(?<![\w.])(?=({'|'.join(map(re.escape, named))})=)", f"{key}.", str(error)) if named else error
        raise UserError(str(text), key=f"{key}.{named[0]}" if named else key, value=error.value) from error


def _key_of(key: str, kind: str) -> str:
    """The key that names `kind`; an object of a list is known by its kind, which is then said once."""
    return key.removesuffix(f".{kind}") if key.endswith(f".{kind}") else f"{key}.kind"


def checked_options(
    table: Mapping[str, str], kind: str, options: Mapping[str, Any], key: str, *, of: type | None = None
) -> dict[str, Any]:
    """`options` as the class called `kind` takes them: each has its type, and none is unknown.

    Raises:
        UserError: names the option, or the class that does not derive from `of`.
    """
    make = load(table, kind, _key_of(key, kind), of)
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
        limits = _limits(name, parameters[name].default if name in known else None)
        values[name] = convert(annotations.get(name, Any), value, f"{key}.{name}", limits)
    return values


# By what the field calls an argument, at its name's end.
LIMITS = {
    **dict.fromkeys(("drop", "dropout", "drop_path", "drop_rate", "momentum"), {"low": 0, "high": 1}),
    **dict.fromkeys(("mlp_ratio", "eps", "temp", "temperature"), {"above": 0}),
    **dict.fromkeys(("weight", "beta", "share"), {"low": 0}),
    # Far beyond any network: a stranger's file must not keep the machine busy before its weights are compared.
    **dict.fromkeys(("depth", "depths", "blocks"), {"high": 1_000}),
    **dict.fromkeys(
        ("dim", "dims", "heads", "chans", "patch_size", "window_size", "tubelet_size"), {"high": 1_000_000}
    ),
}


def _limits(name: str, default: Any) -> Mapping[str, float]:
    """What the value of an argument can be, from its default and its name."""
    size = {"low": 1} if _is_size(default) else {}
    return size | next((limits for term, limits in LIMITS.items() if name == term or name.endswith(f"_{term}")), {})


def _is_size(default: Any) -> bool:
    """Whether an argument with this default is a size or a count, which is at least 1: no class has one of 0."""
    sizes = default if isinstance(default, tuple) else (default,)
    return bool(sizes) and all(isinstance(size, int) and not isinstance(size, bool) and size >= 1 for size in sizes)


def defaults_of(table: Mapping[str, str], kind: str, key: str) -> dict[str, Any]:
    """The defaults that the class called `kind` states for its arguments."""
    parameters = inspect.signature(load(table, kind, key)).parameters
    return {name: p.default for name, p in parameters.items() if p.default is not inspect.Parameter.empty}
