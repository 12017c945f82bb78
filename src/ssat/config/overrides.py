"""The overrides of a command line, checked before Hydra composes them, and what it finds wrong as one sentence."""

from __future__ import annotations

import re
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from hydra import compose, initialize_config_dir
from hydra._internal.utils import get_args_parser
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Override
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import MarkedYAMLError, YAMLError

from ssat.config.create import defaults_of
from ssat.config.groups import files, groups, options
from ssat.config.lightning_words import own_names
from ssat.config.loggers import expand_loggers
from ssat.config.own_files import check_file
from ssat.config.quoting import typed
from ssat.config.register import SECTIONS
from ssat.config.search import no_option, with_search
from ssat.config.words import CONF, FOLDERS, expand_tasks
from ssat.core.errors import UserError
from ssat.core.options import continued
from ssat.core.words import flatten, nearest
from ssat.encoders import ENCODERS
from ssat.tasks import TASKS

FAULTS = (HydraException, OmegaConfBaseException, YAMLError, RecursionError)  # of a wrong word or file
LISTS = "(--help lists them)"
LONGEST = 100  # characters of a word that a sentence repeats
PLACES = r"hydra\.(run|output_subdir|job\.chdir)\b"  # Hydra's own, which runs of ours do not read


def prepared(argv: Sequence[str], config_name: str) -> list[str]:
    """The command line as Hydra takes it: flags first, the overrides checked, the user's folders as its search path.

    Raises:
        UserError: a flag or an override is not possible.
    """
    flags, words = _flags_and_words(argv)
    paths = [word for word in words if word.startswith("hydra.searchpath=")]
    further = [place for word in paths for place in _further_places(word)]
    words = expand_tasks([word for word in words if word not in paths])
    if config_name == "train":
        words = with_search(flags, expand_loggers(own_names(words)))
    check(words, config_name)
    return [*flags, *words, *search_path(further)]


def search_path(further: Sequence[str] = ()) -> list[str]:
    """The user's folders, and `further` places, as an override; a sweep hands it on to its jobs."""
    found = [*further, *(f"file://{folder}" for folder in FOLDERS if folder != CONF)]
    return [f"hydra.searchpath=[{','.join(map(_quoted, found))}]"] if found else []


def _quoted(place: str) -> str:
    """As Hydra's grammar wants it."""
    return place if re.fullmatch(r"[\w:/.@%+-]+", place) else "'" + place.replace("'", r"\'") + "'"


def _further_places(word: str) -> list[str]:
    """The places of a hydra.searchpath=[...] that are not folders of files; those join the user's folders."""
    try:
        value = OverridesParser.create().parse_override(word).value()
    except HydraException:
        value = None
    if not isinstance(value, list):
        raise UserError(f"{word} is not understood: write --config-dir <folder>", key="hydra.searchpath")
    places = []
    for place in map(str, value):
        folder = Path(place.removeprefix("file://")).absolute()
        if "://" in place.removeprefix("file://") or not folder.is_dir():
            places.append(place)
        elif folder not in FOLDERS:
            FOLDERS.append(folder)
    return places


def _flags_and_words(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    parser = get_args_parser()

    def error(message: str) -> NoReturn:
        raise UserError(f"{message}: write key=value {LISTS}", key=message.rpartition(" ")[2])

    parser.error = error  # type: ignore[method-assign]
    found = parser.parse_intermixed_args(list(argv))
    if found.experimental_rerun is not None:
        what = "reads a pickle, which can run any code: begin the run again by its own words"
        raise UserError(f"--experimental-rerun={found.experimental_rerun} {what}", key="--experimental-rerun")
    words = found.overrides
    return [word for word in argv if word not in words], words


def check(words: Sequence[str], config_name: str) -> None:
    """Refuse overrides that Hydra would not understand, or would take for new keys.

    Raises:
        UserError: names the key.
    """
    parser = OverridesParser.create()
    for place, word in enumerate(words):
        sign, key, equals = re.match(r"(\+\+|\+|~)?([^=]*)(=)?", word).groups()  # type: ignore[union-attr]
        if not key.strip():
            raise UserError(f"{word!r} names no key: write key=value {LISTS}", key=key, value=word)
        if not equals and sign != "~":
            hint = continued(words[:place], word, typed)
            raise UserError(f"{word!r} has no value: write key=value {LISTS}{hint}", key=key)
        if key == "hydra" or (key.startswith("hydra/") and word.endswith("=null")):
            how = "write hydra.<key>=<value>, a word for each" if key == "hydra" else "leave it out"
            raise UserError(f"{word[:LONGEST]!r} is not possible: {how}", key=key)
        if re.match(PLACES, key):
            raise UserError(
                f"{key} is not used: runs_dir and experiment, or run_dir, say where a run lies", key=key, value=word
            )
        if sign:
            _check_sign(sign, key, words, config_name)
        try:
            override = parser.parse_override(word)
        except (HydraException, ValueError) as error:  # ValueError: thousands of digits
            raise _not_understood(key, word) from error
        _check_blanks(key, override, word)
        group = key.partition("@")[0]
        if group == "experiments" or (group in groups() and not sign):
            _check_choice(group, override, word)


def _not_understood(key: str, word: str) -> UserError:
    value, shown = word.partition("=")[2], repr(word[:LONGEST])
    why = f"{shown} is not understood: a value with blanks, commas, brackets, = or other letters than a to z is written"
    is_list = value.startswith("[")  # its parts are quoted, which is not known of one that is damaged
    form = f"in quotes, '{key}=\"...\"'" if is_list or len(value) > LONGEST else f"in quotes, {typed(key, value)}"
    if value.startswith("{"):
        form = f"in quotes, and a name in a dictionary without them: '{key}={{name:[\"seed=1\"]}}'"
    return UserError(f"{why} {form}", key=key, value=value)


def _check_blanks(key: str, override: Override, word: str) -> None:
    """Hydra drops blanks around a value, and a folder's name may begin with one."""
    value = word.partition("=")[2]
    if value.strip() and value != value.strip() and isinstance(override.value(), str) and key not in groups():
        raise UserError(
            f"{word!r} begins or ends with a blank: leave it out, or write {typed(key, value)} where it belongs to it",
            key=key,
            value=value,
        )


def _check_sign(sign: str, key: str, words: Sequence[str], config_name: str) -> None:
    """`+` adds a file, and a key where any key may be; nothing is deleted."""
    group, at, _ = key.partition("@")
    if key.startswith("hydra") or (sign != "~" and key.startswith("launcher.sbatch.")):
        return
    if sign != "~" and (key == "experiments" or (at and group in groups())):
        return
    known = known_keys(config_name, words)
    if key not in known:
        raise _no_key(key, known)
    if sign == "+":
        raise UserError(f"+{key} is there already: write {key}=... without the sign", key=key)
    if sign == "~":
        raise UserError(f"~{key} is not possible, every key is needed: give it another value, {key}=...", key=key)


def _no_key(key: str, known: list[str]) -> UserError:
    leaf = re.escape(key.removeprefix("mode."))
    others = {path.stem: path.read_text() for path in sorted((CONF / "mode").glob("*.yaml"))}
    having = [mode for mode, text in others.items() if re.search(rf"^{leaf}:", text, re.MULTILINE)]
    if key.startswith("mode.") and having:  # a phase's key of this name would do something else
        return UserError(
            f"there is no key {key!r} in every mode that you name, only in mode={','.join(having)}: give it with those"
            " alone",
            key=key,
        )
    parent = key.rpartition(".")[0]
    if parent == "recipe.augment" and parent in known and not any(name.startswith(f"{parent}.") for name in known):
        return UserError(
            f"there is no key {key!r}: this recipe does not augment images; of videos it is recipe.clip_augment",
            key=key,
        )
    return UserError(f"there is no key {key!r}{nearest(key, known) or ' ' + LISTS}", key=key)


def _check_choice(group: str, override: Override, word: str) -> None:
    """A group takes the name of one of its files."""
    value: Any = override.value()
    if isinstance(value, dict) or (override.is_sweep_override() and not isinstance(value, ChoiceSweep)):
        return
    for name in value.list if isinstance(value, ChoiceSweep) else [value]:
        name = getattr(name, "text", name)
        if not isinstance(name, str) or not name:
            given = word.partition("=")[2]
            raise UserError(
                f"{group}={given} is not possible: {group} can be: {', '.join(options(group))}", key=group, value=given
            )
        check_file(group, name)
        if name == "schema" or (name in files(group) and name not in options(group)):
            raise _no_option(group, name)


def _no_option(group: str, name: str) -> UserError:
    known = list(options(group))
    if name == "schema" and group not in SECTIONS:
        return UserError(
            f"a file of {group} has no schema in its defaults: take one of {', '.join(known)}, or leave defaults out",
            key=group,
            value=name,
        )
    return UserError(
        f"{group}={name} does not exist{nearest(name, known)}; {group} can be: {', '.join(known)}",
        key=group,
        value=name,
    )


def of_composition(error: ValueError) -> bool:
    """Whether OmegaConf has raised it while words were put together: one sets a key below a list."""
    return Path(traceback.extract_tb(error.__traceback__)[-1].filename).parent.name == "omegaconf"


def of_flags(error: ValueError) -> bool:
    """Whether Hydra has raised it over its own flags, such as --resolve without --cfg."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return "hydra" in Path(frame.filename).parts and frame.name in ("_run_hydra", "shell_completion")


def mistake(error: Exception, config_name: str, words: Sequence[str]) -> UserError:
    """What Hydra, OmegaConf or YAML found wrong in `words` or a file, as one sentence with the nearest right name."""
    if isinstance(error, MarkedYAMLError):
        # A key without its colon is noticed in the line after it.
        mark = error.context_mark if "simple key" in (error.context or "") else error.problem_mark
        place = f"{mark.name}, line {mark.line + 1}" if mark else "a configuration file"
        return UserError(f"{place} is not YAML: {error.problem or error.context}")
    if isinstance(error, (YAMLError, RecursionError)):
        reason = (
            str(error).splitlines()[0] if isinstance(error, YAMLError) else "it refers to itself or is nested too deep"
        )
        return UserError(f"a configuration file cannot be read: {reason}")
    text = " ".join(str(error).replace("ssl@ssl.tasks", "ssl").split())
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, name = str(error.missing_cfg_file).rpartition("/")
        if not group:
            return UserError(f"--config-name={name} does not exist: leave it out", key="--config-name", value=name)
        if options(group):
            found, inside = _no_option(group, name), re.search(r"In '(\w+)/(\w+)'", text)
            path = files(inside[1]).get(inside[2]) if inside else None
            return UserError(f"{found} (in {path})", key=found.key, value=name) if path else found
    match = re.search(r"Could not find '(hydra/\w+)/(.*?)' Available options in '[^']*': ([\w ]*?) Config search", text)
    if match:
        key, name, known = match[1], match[2], match[3].split()
        return UserError(f"{key}={name} does not exist; {key} can be: {', '.join(known)}", key=key, value=name)
    match = re.match(r"invalid literal for int\(\) with base 10: '(.*)'", text)
    if match:  # the key of a list that is no number
        keys = [word.partition("=")[0] for word in words]
        key = next((key for key in keys if f".{match[1]}" in key), match[1])
        return UserError(f"there is no key {key!r}: {key.partition(f'.{match[1]}')[0]} is a list", key=key)
    match = re.search(r"Could not (?:override|append|delete) .*?'([^']+)'", text)
    if match:
        key = getattr(error.__cause__, "full_key", None) or match[1]
        if key in ("experiments", "+experiments"):
            return UserError("experiments= adds a file: write +experiments=<name>", key="experiments")
        other = no_option(key, words) or _not_listed(key, config_name, words)
        return other or _no_key(key, known_keys(config_name, words))
    match = re.search(r"Ambiguous value for argument '([^=]+)=([^']*)'", text)
    if match:
        key, value = match[1], match[2]
        or_list = "" if key in groups() else f", or write '{key}=[{value}]' for a list"
        or_list = f", or write {typed(key, value)} for one with commas in it" if "/" in value else or_list
        return UserError(
            f"{key}={value} holds several values: put -m before them to run each{or_list}", key=key, value=value
        )
    match = re.match(r"Error merging override ([^=]+)=", text)
    cause = str(error.__cause__)
    if match and "list index out of range" in cause:
        return UserError(f"there is no {match[1]}: the list is shorter", key=match[1])
    if match and "Cannot merge DictConfig with" in cause:
        key, is_list = match[1], "with ListConfig" in cause
        own = f"holds keys of its own: set one of them, {key}.<key>=... (--help {key} lists them)"
        return UserError(f"{key} {f'is a list: write {key}=[...]' if is_list else own}", key=key)
    if "Cannot merge DictConfig with ListConfig" in text:
        return UserError(
            f"{text.partition(': ')[0]}: keys stand where a list must be, as in callbacks: [early_stopping]"
        )
    if error.__cause__ is not None:
        text += ": " + str(error.__cause__).partition("\n")[0]
    return UserError(text[:400], key=getattr(error, "full_key", None) or None)


def _not_listed(key: str, config_name: str, words: Sequence[str]) -> UserError | None:
    """For an argument of the chosen class that its configuration file does not list."""
    group, _, name = key.partition(".")
    table = {"encoder": ENCODERS, "ssl": TASKS}.get(group)
    kind = OmegaConf.select(_chosen(config_name, words), f"{group}.kind") if table else None
    if table is None or not isinstance(kind, str) or name not in defaults_of(table, kind, f"{group}.kind"):
        return None
    return UserError(
        f"{key} is not listed in the file of {group}, though {kind} takes it: add {name}: ... to that file", key=key
    )


def composed(words: Sequence[str], config_name: str = "train") -> DictConfig:
    """What Hydra composes of a command's words.

    Raises:
        UserError: names the word that is wrong.
    """
    overrides = prepared(words, config_name)
    try:
        return _compose(config_name, overrides)
    except UserError:
        raise
    except (*FAULTS, ValueError) as error:
        raise mistake(error, config_name, words) from error


def _compose(config_name: str, overrides: list[str]) -> DictConfig:
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose(config_name, overrides=overrides)


def known_keys(config_name: str, words: Sequence[str]) -> list[str]:
    """Every key and group of the configuration under the groups that `words` choose, as far as they exist."""
    keys = set(flatten(OmegaConf.to_container(_chosen(config_name, words), resolve=False)))
    for key in list(keys):
        while "." in key:
            key = key.rpartition(".")[0]
            keys.add(key)
    return sorted(keys | set(groups()))


def _chosen(config_name: str, words: Sequence[str]) -> DictConfig:
    """The configuration of the groups that `words` choose; without them where one of their files is wrong."""
    names = groups()
    parts = [(word, *word.partition("=")[::2]) for word in words]
    chosen = [word for word, group, name in parts if group in names and name in options(group)]
    try:
        return _compose(config_name, [*chosen, *search_path()])
    except FAULTS:
        return _compose(config_name, [])
