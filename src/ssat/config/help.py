"""`--help` of train: the groups with their options, and every key with its default, what it does and what it may be."""

from __future__ import annotations

import dataclasses
import inspect
import re
import shutil
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import Any, get_args, get_origin

import yaml

from ssat.config import schema
from ssat.config.augmentation import Augment
from ssat.config.create import load
from ssat.config.fields import arguments, default_of, described, hints
from ssat.config.groups import comments, files, groups, header, options
from ssat.config.recipe import DecoderSize, Recipe
from ssat.config.words import CONF, as_typed_here, command_line
from ssat.core.errors import UserError
from ssat.core.words import nearest
from ssat.encoders import ENCODERS
from ssat.tasks import TASKS

ABOUT = {  # what a group decides, in the order of the help
    "encoder": "the network",
    "data": "the images or videos",
    "input": "the size of the images or frames",
    "mode": "what is trained: a list of phases",
    "ssl": "the self-supervised task; several at once: ssl=[mae,guidance]",
    "recipe": "how it is trained",
    "trainer": "where it is computed",
    "logger": "where the curves go, beside a CSV file",
    "launcher": "where a sweep's runs go",
    "experiments": "the paper's tables and figures, +experiments=<name>",
}
SECTIONS: dict[str, tuple[str, type[Any]]] = {  # what has keys in the schema, and where they lie
    "encoder": ("encoder", schema.Encoder),
    "data": ("data", schema.Data),
    "mode": ("mode", schema.Mode),
    "recipe": ("recipe", Recipe),
    "augment": ("recipe.augment", Augment),
    "decoder": ("recipe.decoder.default", DecoderSize),
    "statistics": ("data.statistics", schema.Statistics),
    "trainer": ("trainer", schema.Trainer),
    "monitor": ("monitor", schema.Monitor),
    "footprint": ("footprint", schema.Footprint),
    "logger": ("logger", schema.Logger),
    "launcher": ("launcher", schema.Launcher),
}
CLASSES = {"encoder": ENCODERS, "ssl": TASKS}  # groups whose keys are arguments of the class behind `kind`
PLACES = {"input": "data"}  # where the keys of a group lie, if not under its name
OF_CLIPS = ("frame_step", "max_clips", "average")  # keys of data that a set of videos reads beside those of its file
HIDDEN = ("source", "extra", "values", "kind", "options", "phases")  # what files set, and users do not
WHOLE: dict[str, Any] = {"break_long_words": False, "break_on_hyphens": False}  # a word can be copied


@dataclass(frozen=True)
class Key:
    """One key as the help shows it."""

    place: str
    default: Any = MISSING
    help: str = ""
    kind: Any = Any
    limits: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def row(self) -> tuple[str, str]:
        """What is typed, and what it means."""
        shown, note = _shown(self.default)
        wanted = "" if self.kind is Any else described(self.kind, self.limits).replace("another value", "")
        if self.default is None and wanted and not wanted.endswith("null"):
            wanted += " or null"  # the class takes none, whoever builds it fills it in
        notes = [part for part in (wanted, note) if part]
        return f"{self.place}={shown}", f"{self.help} ({'; '.join(notes)})".strip() if notes else self.help


def show_help(config_name: str, topics: Sequence[str]) -> None:
    """Print what `--help` says of each topic: a group, section, key or group=option; without one, of everything.

    Raises:
        UserError: a topic is none of these; names the nearest.
    """
    width = min(max(shutil.get_terminal_size((100, 24)).columns, 40), 130)
    told = [_topic(topic, width) for topic in topics] or [_overview(config_name, width)]
    print(as_typed_here("\n\n".join("\n".join(lines) for lines in told)), flush=True)


def _overview(command: str, width: int) -> list[str]:
    typed, chosen = command_line(command), _chosen(command)
    examples = [
        ("encoder=vit_t data=cifar10 mode=ssat", "one run"),
        ("-m mode=scratch,ssl_ft,ssat seed=0,1,2", "a sweep: every combination is a run"),
    ]
    lines = _wrapped(f"usage: {typed} [-m] group=option ... key=value ...", width)
    lines += ["", *_rows([(f"{typed} {words}", what) for words, what in examples], width)]
    for group in _all_groups():
        lines += ["", *_group_lines(group, width, chosen.get(group))]
    lines += ["", f"experiments: {ABOUT['experiments']}", *_wrapped(", ".join(options("experiments")), width, "  ")]
    keys = [key.row() for key in keys_of(schema.Run, "", deep=False)]
    keys += [(f"{name}.<key>=", f"{_doc(SECTIONS[name][1])} (--help {name})") for name in ("monitor", "footprint")]
    lines += ["", "keys without a group:", *_rows(keys, width)]
    more = f"{typed} --help <group or section> explains its keys: {', '.join([*SECTIONS, 'ssl', 'experiments'])}"
    return [*lines, "", *_wrapped(more, width), *_wrapped(f"{typed} --help encoder=vit_t explains one option", width)]


def _topic(topic: str, width: int) -> list[str]:
    """One group, section, option or key; what follows the `=` of a key does not matter."""
    group, equals, name = topic.lstrip("+").partition("=")
    if equals and group in (*_all_groups(), "experiments"):
        if name not in options(group):
            raise UserError(
                f"--help {topic}: there is no such option{nearest(name, list(options(group)))}; {group} can be:"
                f" {', '.join(options(group))}",
                key=group,
                value=name,
            )
        return _experiment(name, width) if group == "experiments" else _option(group, name, width)
    topic = {place: name for name, (place, _) in SECTIONS.items()}.get(group, group)
    if topic in (*_all_groups(), *SECTIONS, "experiments"):
        return _group(topic, width)
    keys = {key.place: key for key in (*keys_of(schema.Run, "", deep=False), *_section_keys())}
    if topic in keys:
        return _rows([keys[topic].row()], width)
    of_options = _keys_of_options()
    if topic in of_options:
        return _key_of_options(topic, of_options[topic], width)
    known = list(dict.fromkeys([*_all_groups(), "experiments", *SECTIONS]))
    close = ("" if "." in topic else nearest(topic, known)) or nearest(topic, [*keys, *of_options])
    raise UserError(f"there is no group or key {topic!r}{close}; there are: {', '.join(known)}", key=topic)


def _keys_of_options() -> dict[str, list[tuple[str, str]]]:
    """The keys that the files of options set, such as data.held_out, each with these groups and options."""
    found: dict[str, list[tuple[str, str]]] = {}
    for group in _all_groups():
        for name, path in options(group).items():
            for leaf in _from_files(group, path):
                if leaf.partition(".")[0] not in HIDDEN:
                    found.setdefault(f"{PLACES.get(group, group)}.{leaf}", []).append((group, name))
    return found


def _key_of_options(place: str, owners: Sequence[tuple[str, str]], width: int) -> list[str]:
    """A key that only options have: what it means in each."""
    rows: dict[tuple[str, str], list[str]] = {}
    for group, name in owners:
        for key in _option_keys(group, name)[0]:
            if key.place == place:
                rows.setdefault(key.row(), []).append(f"{group}={name}")
    lines = []
    for row, of in rows.items():
        told = f"a key of {', '.join(of)}; {command_line('train', ['--help', of[0]])} shows its others"
        lines += [*_rows([row], width), *_wrapped(told, width, "      ")]
    return lines


def _experiment(name: str, width: int) -> list[str]:
    """What an experiment is for, and its file."""
    path = options("experiments")[name]
    said = comments(path)
    body = path.read_text(encoding="utf-8", errors="replace").splitlines()
    first = next((row for row, line in enumerate(body) if line and not line.startswith("#")), len(body))
    told = [line for comment in said for line in _wrapped(comment, width)]
    return [f"+experiments={name} ({path})", *told, "", *(f"  {line}" for line in body[first:])]


def _group(group: str, width: int) -> list[str]:
    """The options of a group and the keys of its section, as far as it has them."""
    lines = [] if group in SECTIONS and group not in _all_groups() else _group_lines(group, width)
    if group in SECTIONS:
        place, section = SECTIONS[group]
        title = _wrapped(f"{place}.<key>: {_doc(section)}", width)
        lines += [*[""] * bool(lines), *title, *_rows([key.row() for key in keys_of(section, place)], width)]
    if group in CLASSES:
        example = command_line("train", ["--help", f"{group}={next(iter(options(group)))}"])
        lines += ["", *_wrapped(f"Each option has keys of its own: {example} shows those of one", width)]
    elif group in _all_groups():
        lines += ["", *_wrapped(f"{command_line('train')} --help {group}=<option> shows what one option sets", width)]
    return lines


def _group_lines(group: str, width: int, chosen: str | None = None) -> list[str]:
    default = f" (default: {chosen})" if chosen else ""
    rows = [(name, header(path)) for name, path in options(group).items()]
    return [*_wrapped(f"{group}: {ABOUT.get(group, '')}{default}", width), *_rows(rows, width)]


def _option(group: str, name: str, width: int) -> list[str]:
    """What an option is for, and its keys: those that its files set, and those that its class takes beside them."""
    keys, others = _option_keys(group, name)
    said = comments(options(group)[name])
    lines = [f"{group}={name}", *(line for comment in said for line in _wrapped(comment, width)), ""]
    lines += _rows([key.row() for key in keys], width)
    if others:
        listed = ", ".join(f"{key.place}={_shown(key.default)[0]}" for key in others)
        lines += ["", *_wrapped(f"A file of your own under {group}/ can also give this class: {listed}", width)]
    return lines


def _option_keys(group: str, name: str) -> tuple[list[Key], list[Key]]:
    """The keys that an option's files set or a set of videos reads, and what its class takes beside them."""
    path, place = options(group)[name], PLACES.get(group, group)
    said = _from_files(group, path)
    known = {key.place: key for key in _section_keys()}
    taken = {}
    if group in CLASSES and "kind" in said:
        taken = {f"{place}.{key.place}": key for key in _arguments(CLASSES[group], said["kind"].default, group)}
    keys: list[Key] = []
    for leaf, key in said.items():
        full = f"{place}.{leaf}"
        if leaf.partition(".")[0] in HIDDEN or (leaf == "name" and key.default != "???"):
            continue
        of = taken.pop(full, known.get(full, key))
        keys.append(dataclasses.replace(of, place=full, default=key.default, help=key.help or of.help))
    if group == "data" and "frames" in said:
        keys += [known[full] for leaf in OF_CLIPS if leaf not in said and (full := f"{place}.{leaf}") in known]
    return keys, list(taken.values())


def _from_files(group: str, path: Path) -> dict[str, Key]:
    """The keys that an option's file and those that it builds on set, with their comments; the nearest file counts."""
    text = path.read_text(encoding="utf-8", errors="replace")
    node, others = yaml.safe_load(text), files(group)
    if not isinstance(node, dict):
        return {}
    found: dict[str, Key] = {}
    for entry in node.pop("defaults", None) or []:
        if isinstance(entry, str) and others.get(entry, path) != path:
            found |= _from_files(group, others[entry])
    if text.startswith("# @package _global_"):
        node = node.get(group, {})
    said = dict(re.findall(r"^ *(\w+):.*?[ \t]#[ \t]+(.*)$", text, re.MULTILINE))
    for leaf, value in _flat(node).items():
        comment = said.get(leaf.rpartition(".")[2], "") or (found[leaf].help if leaf in found else "")
        found[leaf] = Key(leaf, value, comment)
    return found


def _flat(node: Mapping[str, Any]) -> dict[str, Any]:
    """Nested keys as dotted ones; lists stay whole."""
    flat: dict[str, Any] = {}
    for key, value in node.items():
        if isinstance(value, dict) and value:
            flat |= {f"{key}.{leaf}": item for leaf, item in _flat(value).items()}
        else:
            flat[str(key)] = value
    return flat


def _arguments(table: Mapping[str, str], kind: str, group: str) -> Iterator[Key]:
    """What the class called `kind` takes by name."""
    make = load(table, kind, f"{group}.kind")
    annotations = arguments(make)
    for name, parameter in inspect.signature(make).parameters.items():
        if parameter.default is not inspect.Parameter.empty:
            yield Key(name, parameter.default, kind=annotations.get(name, Any))


def _section_keys() -> Iterator[Key]:
    for place, section in SECTIONS.values():
        yield from keys_of(section, place)


def keys_of(
    section: type[Any], place: str, given: Mapping[str, Any] | None = None, *, deep: bool = True
) -> Iterator[Key]:
    """The keys of a section of the schema, with those of the sections in it if `deep`.

    Args:
        section: a dataclass.
        place: dotted, "" for the top.
        given: defaults in place of the schema's own.
        deep: whether sections in it are followed.
    """
    for field in dataclasses.fields(section):
        full, kind = f"{place}.{field.name}".lstrip("."), hints(section)[field.name]
        default = (given or {}).get(field.name, default_of(field))
        if field.name in HIDDEN or (field.name == "name" and place):
            continue
        inner = [option for option in (get_args(kind) or (kind,)) if dataclasses.is_dataclass(option)]
        if inner and not isinstance(default, dict):
            if deep:
                yield Key(full, default, field.metadata["help"])
        elif inner and get_origin(kind) is Mapping:
            for name, values in default.items():
                yield from keys_of(inner[0], f"{full}.{name}", values)  # type: ignore[arg-type]
        elif inner:
            if deep:
                yield from keys_of(inner[0], full, default)  # type: ignore[arg-type]
        else:
            yield Key(full, default, field.metadata["help"], kind, field.metadata)


def _shown(default: Any) -> tuple[str, str]:
    """A default as it is typed, and a note on it where it is not a value."""
    if default is MISSING or default == "???":
        return "...", "must be given"
    if isinstance(default, str) and "${" in default:
        sources = re.findall(r"\$\{([\w.]+)\}", default)
        return "...", f"default: follows {', '.join(dict.fromkeys(sources))}"
    if default is None:
        return "null", ""
    if isinstance(default, bool):
        return str(default).lower(), ""
    if isinstance(default, (list, tuple)):
        return "[" + ",".join(_shown(item)[0] for item in default) + "]", ""
    return str(default), ""


def _doc(section: type[Any]) -> str:
    return (section.__doc__ or "").partition("\n")[0]


def _all_groups() -> list[str]:
    return [name for name in dict.fromkeys([*ABOUT, *groups()]) if name != "experiments"]


def _chosen(command: str) -> dict[str, str]:
    """The option of each group that is taken if none is named."""
    entries = yaml.safe_load((CONF / f"{command}.yaml").read_text(encoding="utf-8"))["defaults"]
    return {key: value for entry in entries if isinstance(entry, dict) for key, value in entry.items()}


def _wrapped(text: str, width: int, indent: str = "") -> list[str]:
    return textwrap.wrap(text, width, initial_indent=indent, subsequent_indent=indent or "  ", **WHOLE)


def _rows(rows: Iterable[tuple[str, str]], width: int) -> list[str]:
    """Two columns; on a narrow terminal, and beside a long left side, the right one comes below."""
    rows = list(rows)
    fitting = [len(left) for left, _ in rows if len(left) <= 0.45 * width]
    column = max(fitting, default=0) if width >= 60 else 0
    indent = " " * (column + 4 if column else 6)
    lines = []
    for left, right in rows:
        below = textwrap.wrap(right, width, initial_indent=indent, subsequent_indent=indent, **WHOLE)
        if len(left) <= column and below:
            below[0] = f"  {left:<{column}}" + below[0][column + 2 :]
            lines += below
        else:
            lines += [f"  {left}", *below]
    return lines
