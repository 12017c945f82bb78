"""`hydra/sweeper=optuna`: what a search for the best values needs beside the words that the user types."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Override

from ssat.config.groups import options
from ssat.core.errors import UserError
from ssat.core.read import read_yaml
from ssat.core.words import nearest

WORD = "hydra/sweeper=optuna"
PACKAGES = {"hydra_plugins.hydra_optuna_sweeper": "hydra-optuna-sweeper", "optuna": "optuna"}
TARGET = "hydra.sweeper._target_=hydra_plugins.ssat_search.Search"
# What `hydra.sweeper` holds with Optuna's sweeper alone.
OPTIONS = ("sampler", "direction", "storage", "study_name", "n_trials", "n_jobs", "max_failure_rate") + (
    "search_space",
    "custom_search_space",
    "params",
)
DIRECTIONS = ("minimize", "maximize")


def with_search(flags: Sequence[str], words: Sequence[str]) -> list[str]:
    """`words`, and where they or their experiment file choose Optuna what is usual here: the accuracy is maximised, one
    trial after the other, and a trial that fails does not end the search.

    Raises:
        UserError: Optuna or its plugin is not installed, -m is missing, or another launcher is asked for.
    """
    chosen, sweeper = _experiments(words)
    typed = {word.lstrip("+").partition("=")[0]: word.partition("=")[2] for word in words}
    choices = chosen | typed
    if choices.get("hydra/sweeper") != "optuna":
        return [*words]
    for package, name in PACKAGES.items():
        if find_spec(package) is None:
            raise UserError(
                f"{WORD} needs the package {name}: pip install {name}, or the extra `sweep`",
                key="hydra/sweeper",
                value="optuna",
            )
    if not {"-m", "--multirun"} & {*flags} and "hydra.mode" not in choices:
        raise UserError(f"{WORD} tries several values: put -m before it", key="hydra/sweeper", value="optuna")
    if (launcher := choices.get("launcher", "local")) != "local":
        raise UserError(
            f"launcher={launcher} is not used by {WORD}, whose trials run one after the other in this process: leave it"
            " out",
            key="launcher",
        )
    direction = "minimize" if choices.get("mode") == "ssl" else "maximize"  # a loss, where no labels are learned
    usual = {"direction": direction, "n_jobs": "1", "max_failure_rate": "1.0"}
    given = {*typed, *(f"hydra.sweeper.{key}" for key in sweeper)}
    usual = {f"hydra.sweeper.{key}": value for key, value in usual.items()}
    # train.yaml chooses a sweeper, too, and Hydra prefers it to an experiment's choice, but not to a word.
    first = [] if WORD in words else [WORD]
    return [*first, *words, *(f"{key}={value}" for key, value in usual.items() if key not in given), TARGET]


def _experiments(words: Sequence[str]) -> tuple[dict[str, str], Mapping[str, Any]]:
    """What the files of +experiments= choose (of groups, and `hydra.mode`), and what they set of `hydra.sweeper`."""
    choices: dict[str, str] = {}
    sweeper: dict[str, Any] = {}
    for word in words:
        if not word.startswith("+experiments="):
            continue
        for name in word.partition("=")[2].strip("[]").split(","):
            content = _content(options("experiments").get(name.strip()))
            defaults = content.get("defaults")
            for each in defaults if isinstance(defaults, list) else []:
                if isinstance(each, dict):
                    choices |= {
                        str(key).removeprefix("override ").strip(" /"): str(value) for key, value in each.items()
                    }
            hydra = content.get("hydra")
            if isinstance(hydra, dict):
                sweeper |= hydra["sweeper"] if isinstance(hydra.get("sweeper"), dict) else {}
                choices |= {"hydra.mode": str(hydra["mode"])} if "mode" in hydra else {}
    return choices, sweeper


def _content(path: Path | None) -> dict[str, Any]:
    """A file as it is written; {} where it cannot be read, which Hydra says in its place."""
    try:
        content = None if path is None else read_yaml(path)
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def no_option(key: str, words: Sequence[str]) -> UserError | None:
    """For a key under `hydra.sweeper` that is misspelt, or of Optuna where another sweeper is chosen."""
    name = key.removeprefix("hydra.sweeper.").partition(".")[0]
    if name == key or not nearest(name, list(OPTIONS)):
        return None
    if name == "params":
        swept = key.removeprefix("hydra.sweeper.params.")
        return UserError(f"{key} is not there yet: write +{key}=..., or {swept}=... after -m", key=key)
    if name in OPTIONS and WORD not in words:
        return UserError(f"{key} is of Optuna's search: write {WORD} with it", key=key)
    if name in OPTIONS:
        return None
    options = [f"hydra.sweeper.{option}" for option in OPTIONS]
    return UserError(f"there is no key {key!r}{nearest(key, options)}", key=key)


def check_options(options: Mapping[str, Any]) -> None:
    """Refuse values under `hydra.sweeper` that Optuna's sweeper would crash at, or run nothing with.

    Raises:
        UserError: names the key.
    """
    for name in ("n_trials", "n_jobs"):
        if options[name] < 1:
            raise UserError(
                f"hydra.sweeper.{name}={options[name]} is not possible: it is at least 1",
                key=f"hydra.sweeper.{name}",
                value=options[name],
            )
    rate = options["max_failure_rate"]
    if not 0 <= rate <= 1:
        raise UserError(
            f"hydra.sweeper.max_failure_rate={rate} is not possible: it is from 0 (the first trial that fails ends the"
            " search) to 1 (none does)",
            key="hydra.sweeper.max_failure_rate",
            value=rate,
        )
    direction = options["direction"]
    given = [direction] if isinstance(direction, str) or not isinstance(direction, Sequence) else [*direction]
    names = [str(getattr(each, "name", each)) for each in given]
    if len(names) != 1 or names[0] not in DIRECTIONS:
        why = "it is maximize or minimize" if len(names) == 1 else "a run has one number, so give one of the two"
        shown = names[0] if len(names) == 1 else f"[{','.join(names)}]"
        raise UserError(
            f"hydra.sweeper.direction={shown} is not possible: {why}{nearest(shown, list(DIRECTIONS))}",
            key="hydra.sweeper.direction",
            value=shown,
        )


def check_space(overrides: Sequence[Override], options: Mapping[str, Any]) -> None:
    """Refuse a search that varies nothing, or whose grid has a range without steps.

    Raises:
        UserError: says how values to choose from are written.
    """
    varied = [each for each in overrides if each.is_sweep_override()]
    if not varied and not options.get("search_space") and not options.get("custom_search_space"):
        raise UserError(
            f"{WORD} has nothing to search, as no key is varied: write a range such as"
            " 'recipe.base_lr=interval(1e-4,1e-2)' or 'mode.lam=choice(0.1,0.3)'",
            key="hydra/sweeper",
            value="optuna",
        )
    sampler = getattr(options.get("sampler"), "func", None)  # Hydra makes it with `_partial_`
    for each in varied:
        if getattr(sampler, "__name__", "") == "GridSampler" and each.is_interval_sweep():
            raise UserError(
                f"{each.input_line}: hydra/sweeper/sampler=grid tries each value of a list, and an interval has none:"
                f" write {each.get_key_element()}=choice(...) or range(...), or leave the sampler out",
                key=each.get_key_element(),
            )
