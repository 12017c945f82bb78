"""A field of the configuration: default, type, range, help, and whether it belongs to the run's identity.

`parse` builds a dataclass of such fields from plain values; a wrong key or value is refused in one sentence.
"""

from __future__ import annotations

import dataclasses
import inspect
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from ssat.core.errors import UserError
from ssat.core.words import nearest

Section = TypeVar("Section")


def key(
    default: Any = dataclasses.MISSING,
    help: str = "",
    *,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    identity: bool = True,
) -> Any:
    """A field with its `default` (or an interpolation that gives it) and the range of its numbers.

    Args:
        default: none = must be given.
        help: one line, as `--help` shows it.
        low: the smallest number.
        high: the largest number.
        above: an open lower bound.
        identity: whether another value makes another run.
    """
    metadata = {"help": help, "low": low, "high": high, "above": above, "identity": identity}
    if isinstance(default, (dict, list)):
        return dataclasses.field(default_factory=lambda: default, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def default_of(field: dataclasses.Field[Any]) -> Any:
    """The field's default, or `dataclasses.MISSING`."""
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def defaults_in(section: type[Any]) -> dict[str, Any]:
    """The plain defaults of a section's keys, as Hydra composes them."""
    plain = {}
    for field in dataclasses.fields(section):
        default = default_of(field)
        if default is dataclasses.MISSING or field.name in ("extra", "values"):
            continue
        kind = hints(section)[field.name]
        nested = [option for option in (get_args(kind) or (kind,)) if dataclasses.is_dataclass(option)]
        if nested and isinstance(default, dict) and get_origin(kind) is not Mapping:
            default = defaults_in(nested[0]) | default  # type: ignore[arg-type]
        plain[field.name] = list(default) if isinstance(default, tuple) else default
    return plain


# The annotations of a dataclass or function, evaluated.
hints = cast("Callable[[Any], dict[str, Any]]", cache(get_type_hints))


def arguments(make: Callable[..., Any]) -> dict[str, Any]:
    """The annotations of a function's or a class's arguments."""
    return hints(make.__init__ if inspect.isclass(make) else make)


def _options(kind: Any) -> tuple[Any, ...]:
    """What a union is made of; of any other annotation that itself."""
    return get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)


def parse(section: type[Section], values: Any, where: str, show: Callable[[str], str] = str) -> Section:
    """`section` from plain `values`; what they lack keeps its default.

    Args:
        section: a dataclass of `key` fields.
        values: a mapping.
        where: dotted place of the section, "" for the top.
        show: the key as the user types it, from its dotted place.

    Raises:
        UserError: an unknown key, a missing one, or a value of another type or out of range.
    """
    if not isinstance(values, Mapping):
        raise UserError(f"{show(where)}={values!r} is not possible: it must hold keys", key=show(where), value=values)
    fields = {field.name: field for field in dataclasses.fields(section) if field.init}  # type: ignore[arg-type]
    prefix = f"{where}." if where else ""
    for name in values:
        if name not in fields:
            shown = show(f"{prefix}{name}")
            raise UserError(
                f"there is no key {shown!r}{nearest(str(name), list(fields))}", key=shown, value=values[name]
            )
    built = {}
    for name, field in fields.items():
        default = default_of(field)
        if name not in values and default is dataclasses.MISSING:
            shown = show(f"{prefix}{name}")
            raise UserError(f"{shown} has no default: give it, {shown}=...", key=shown)
        value = values.get(name, default)
        built[name] = convert(hints(section)[name], value, f"{prefix}{name}", field.metadata, show)
    return section(**built)


def convert(
    kind: Any, value: Any, where: str, limits: Mapping[str, Any] | None = None, show: Callable[[str], str] = str
) -> Any:
    """`value` as an object of the annotation `kind`: lists become tuples, whole numbers floats where those are meant.

    Raises:
        UserError: the value is of another type or out of its range.
    """
    options = _options(kind)
    for option in options:
        if dataclasses.is_dataclass(option) and isinstance(value, Mapping):
            return parse(option, value, where, show)  # type: ignore[arg-type]
        if isinstance(option, type) and dataclasses.is_dataclass(option) and isinstance(value, option):
            return value
    for option in options:
        fits, converted = _as(option, value, where, show, limits or {})
        if fits and _in_range(converted, limits or {}):
            return converted
    shown = show(where)
    choices = [str(choice) for option in options if get_origin(option) is Literal for choice in get_args(option)]
    wanted = described(kind, limits or {})
    raise UserError(
        f"{shown}={_plain(value)} is not possible: it must be {wanted}{nearest(str(value), choices)}",
        key=shown,
        value=value,
    )


def _as(kind: Any, value: Any, where: str, show: Callable[[str], str], limits: Mapping[str, Any]) -> tuple[bool, Any]:
    """Whether `value` fits `kind`, and what it is then."""
    origin = get_origin(kind)
    if kind is Any:
        return True, value
    if kind is None or kind is type(None):
        return value is None, None
    if origin is Literal:
        # 32 is the precision "32": whoever types it need not quote it.
        found = [choice for choice in get_args(kind) if str(choice) == str(value) and not isinstance(value, bool)]
        return bool(found), found[0] if found else None
    if kind is bool:
        return isinstance(value, bool), value
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool), value
    if kind is float:
        number = isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
        return number, float(value) if number else value
    if kind is str:
        return isinstance(value, (str, int)) and not isinstance(value, bool), str(value)
    if origin in (tuple, list, Sequence):
        return _as_sequence(kind, value, where, show, limits)
    if origin in (dict, Mapping) or kind in (dict, Mapping):
        if not isinstance(value, Mapping):
            return False, value
        of = get_args(kind)[1] if get_args(kind) else Any
        return True, {name: convert(of, item, f"{where}.{name}", None, show) for name, item in value.items()}
    return isinstance(kind, type) and isinstance(value, kind), value


def _as_sequence(
    kind: Any, value: Any, where: str, show: Callable[[str], str], limits: Mapping[str, Any]
) -> tuple[bool, Any]:
    kinds = get_args(kind) or (Any,)
    endless = get_origin(kind) is not tuple or kinds[-1] is Ellipsis
    if not isinstance(value, (list, tuple)) or not (endless or len(value) == len(kinds)):
        return False, value
    of = [kinds[0]] * len(value) if endless else kinds
    return True, tuple(
        convert(k, v, f"{where}.{i}", limits, show) for i, (k, v) in enumerate(zip(of, value, strict=True))
    )


def _in_range(value: Any, limits: Mapping[str, Any]) -> bool:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return True
    low, high, above = (limits.get(name) for name in ("low", "high", "above"))
    return (low is None or value >= low) and (high is None or value <= high) and (above is None or value > above)


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return "null" if value is None else repr(value)


def described(kind: Any, limits: Mapping[str, Any]) -> str:
    """What a field's value may be, in words: 'a whole number, at least 1, or null'."""
    return " or ".join(dict.fromkeys(_described(option, limits) for option in _options(kind)))


def _short(number: float) -> str:
    return str(int(number)) if float(number).is_integer() else f"{number:g}"


def _described(kind: Any, limits: Mapping[str, Any]) -> str:
    origin = get_origin(kind)
    if kind is type(None) or kind is None:
        return "null"
    if origin is Literal:
        choices = ", ".join(str(choice) for choice in get_args(kind))
        return f"one of {choices}" if len(get_args(kind)) > 1 else choices
    if kind in (int, float):
        noun = "a whole number" if kind is int else "a number"
        low, high, above = (limits.get(name) for name in ("low", "high", "above"))
        words = [f"at least {_short(low)}"] if low is not None else []
        words += [f"above {above:g}"] if above is not None else []
        words += [f"at most {_short(high)}"] if high is not None else []
        return " ".join([noun, " and ".join(words)]).strip()
    if kind is bool:
        return "true or false"
    if kind is str:
        return "text"
    if origin in (tuple, list, Sequence):
        kinds = get_args(kind)
        if origin is tuple and kinds and kinds[-1] is not Ellipsis:
            return f"a list of {len(kinds)}: [{', '.join(_described(k, {}) for k in kinds)}]"
        each = _described(kinds[0], {}) if kinds else ""
        return f"a list, each {each}" if each else "a list"
    return "keys with values" if dataclasses.is_dataclass(kind) or origin in (dict, Mapping) else "another value"
