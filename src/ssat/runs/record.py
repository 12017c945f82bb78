"""`result.json`: one record per run, the only thing that reports read."""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from ssat.core.files import write_text
from ssat.core.read import parse_json, read_text
from ssat.runs.settings import OF_MODE, read_settings, settings_of, with_start

SCHEMA = 1
MODES = ("scratch", "ssl_ft", "ssat", "finetune", "ssl", "linear")  # the order in which reports show them
STATES = ("finished", "failed")
MEASURED_ENERGY = ("energy.kwh", "energy.co2_kg")
LARGEST = 1e30  # nothing that a run measures is larger; its square and its sums are finite


def write_record(folder: Path, record: dict[str, Any], *, name: str = "result.json") -> Path:
    """Write `record` to `folder`/`name` atomically; a number that is not finite becomes null."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(_finite(record), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    return write_text(folder / name, text)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@dataclass(frozen=True, eq=False)
class Record:
    """One run's record and where it lies; every value but the five below may be missing."""

    path: Path
    group: str
    values: dict[str, Any]

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return self.path.parent

    @property
    def name(self) -> str:
        """The run's name."""
        return self.values["name"]

    @property
    def encoder(self) -> str:
        """The encoder's name."""
        return self.values["encoder"]

    @property
    def data(self) -> str:
        """The data set's name."""
        return self.values["data"]

    @property
    def mode(self) -> str:
        """The mode's name."""
        return self.values["mode"]

    @property
    def status(self) -> str:
        """finished or failed."""
        return self.values["status"]

    @property
    def finished(self) -> bool:
        """Whether the run ended well."""
        return self.status == "finished"

    def get(self, key: str) -> Any:
        """The value at a dotted key such as `energy.kwh`; None where it is missing."""
        return lookup(self.values, key)

    def number(self, key: str) -> float | None:
        """The finite number at a dotted key; None for anything else, and for measured energy that is not its own."""
        return None if key in MEASURED_ENERGY and self.shares_energy else as_number(self.get(key))

    @property
    def shares_energy(self) -> bool:
        """Whether its measured energy is the whole machine's, on which another training ran at the same time."""
        return self.get("energy.shared") is True

    def text(self, key: str) -> str:
        """The value at a dotted key as text; empty where it is missing."""
        value = self.get(key)
        return "" if value is None else str(value)

    def items(self, key: str) -> list[Any]:
        """The list at a dotted key; empty where it is missing."""
        value = self.get(key)
        return value if isinstance(value, list) else []

    @property
    def phases(self) -> list[dict[str, Any]]:
        """The records of its phases."""
        return [phase for phase in self.items("phases") if isinstance(phase, dict)]

    @property
    def multi_label(self) -> bool:
        """Whether its images have several labels each: then it has a mAP and no accuracy."""
        return self.get("config.data.labels") is not None

    @property
    def split(self) -> str:
        """The split the accuracy is measured on: `test`, or `val` for data without a test set."""
        tested = any(self.number(f"metrics.test.{name}.last") is not None for name in ("acc1", "map"))
        return "val" if not tested and self.get("metrics.val") else "test"

    @property
    def split_size(self) -> int | None:
        """Images of that split."""
        count = self.number(f"data_fingerprint.splits.{self.split}")
        return int(count) if count else None

    @property
    def classes(self) -> int | None:
        """Number of classes, as far as the record names them."""
        names = self.phases[-1].get("class_names") if self.phases else None
        return len(names) if isinstance(names, list) and names else None

    @cached_property
    def settings(self) -> dict[str, Any]:
        """What the run computes, but for its seed (`settings_of`), and what the run that it starts from does."""
        config = self.get("config")
        settings = settings_of(config, self.mode) if isinstance(config, dict) else {}
        start = self.get("inputs.start.config")
        return with_start(settings, settings_of(start, self.text("inputs.start.mode"))) if start else settings

    @cached_property
    def settings_key(self) -> str:
        """The settings as one string: equal for runs that differ in nothing but the seed."""
        return json.dumps(self.settings, sort_keys=True, default=str)

    @cached_property
    def computed_key(self) -> str:
        """The settings without those that nothing reads: equal for runs that compute the same, but for the seed."""
        return json.dumps(read_settings(self.settings), sort_keys=True, default=str)

    @cached_property
    def shared_key(self) -> str:
        """The same but for the settings of mode and SSL task: equal for runs that may be compared."""
        shared = {key: value for key, value in read_settings(self.settings).items() if not key.startswith(OF_MODE)}
        return json.dumps(shared, sort_keys=True, default=str)

    @property
    def fold(self) -> int | None:
        """The part of a cross-validation that is its test; None where it is none."""
        fold = self.number("config.data.fold")
        return None if fold is None or not self.get("config.data.folds") else int(fold)

    @property
    def accuracy(self) -> float | None:
        """THE top-1 accuracy in percent: the last epoch's, or the best one's under `recipe.report=max`."""
        return self.number(f"metrics.{self.split}.acc1.{'best' if self.get('selection') == 'max' else 'last'}")


def lookup(values: Any, key: str, default: Any = None) -> Any:
    """The value at a dotted `key` in nested dictionaries; `default` where there is none."""
    for part in key.split("."):
        values = values.get(part, default) if isinstance(values, dict) else default
    return values


def as_number(value: Any) -> float | None:
    """The value, where it is a number that something measured can be; None for anything else."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return None
    return value if abs(value) <= LARGEST else None


def as_percentage(value: Any) -> float | None:
    """The value, where it is a number from 0 to 100; None for anything else."""
    number = as_number(value)
    return number if number is not None and 0 <= number <= 100 else None


def read_json(path: Path) -> Any:
    """A file's content, without the lone surrogates that JSON can hold and no page can.

    Raises:
        ValueError: why it cannot be had, in a few words.
    """
    try:
        text = read_text(path)
        values = parse_json(text)
        if "\\ud" not in text and "\\uD" not in text:  # only an escape can be a surrogate
            return values
        return json.loads(json.dumps(values, ensure_ascii=False).encode("utf-8", "replace"))
    except OSError as error:
        raise ValueError(f"cannot be read ({error.strerror})") from error
    except ValueError as error:
        # What json says is of the JSON's letters.
        reason = "not JSON" if isinstance(error, (json.JSONDecodeError, UnicodeDecodeError)) else error
        raise ValueError(f"damaged, {reason}") from error


def read_records(runs: Path, tree: Tree | None = None) -> tuple[list[Record], list[str]]:
    """Every record below `runs`, in the order of reports, and a line for each file or folder that cannot be read.

    `tree`: what `folders` has found there, if it is known.
    """
    tree = tree or folders(runs)
    records, warnings = [], list(tree.unreadable)
    for path in (folder / "result.json" for folder, files in tree.folders if "result.json" in files):
        try:
            values = read_json(path)
        except ValueError as error:
            warnings.append(f"{path}: {error}")
            continue
        problem = _problem(values)
        if problem:
            warnings.append(f"{path}: {problem}")
        else:
            records.append(Record(path, _group(path, runs), values))
    return sorted(records, key=_order), warnings


def read_unfinished(runs: Path, tree: Tree | None = None) -> list[str]:
    """<group>/<name> of each run that was begun and has no record yet: interrupted, or still training."""
    names: list[str] = []
    known: set[Path] = set()
    for folder, files in (tree or folders(runs)).folders:
        # Loggers keep a config.yaml of their own inside a run's folder.
        if "config.yaml" not in files or known.intersection(folder.parents):
            continue
        known.add(folder)
        if "result.json" not in files:
            names.append(f"{_group(folder / 'config.yaml', runs)}/{folder.name}")
    return names


class Tree(NamedTuple):
    """Folders with the names of their files, and a line for each folder that cannot be read."""

    folders: list[tuple[Path, list[str]]]
    unreadable: list[str]


def folders(runs: Path) -> Tree:
    """Every folder below `runs`.

    Links to other places are followed, no folder is visited twice; one whose name starts with a dot is left alone.
    """
    root = Path(os.path.realpath(runs))
    tree = Tree([], [])
    visited: set[Path] = set()

    def warn(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):  # before the first run there is no folder
            tree.unreadable.append(f"{error.filename}: cannot be read ({error.strerror})")

    for name, subfolders, files in os.walk(runs, onerror=warn, followlinks=True):
        real = Path(os.path.realpath(name))
        # What a link repeats is found at its own place.
        is_repeat = os.path.islink(name) and (visited.intersection(real.parents) or real in root.parents)
        if (is_repeat and real != root) or real in visited:
            subfolders.clear()
            continue
        visited.add(real)
        subfolders[:] = sorted(subfolder for subfolder in subfolders if not subfolder.startswith("."))
        tree.folders.append((Path(name), sorted(files)))
    return tree


def _problem(values: Any) -> str:
    """Why this is not a record that we can read; empty when it is one."""
    if not isinstance(values, dict) or "schema" not in values:
        return "not a record of a run"
    if values["schema"] != SCHEMA:
        return f"schema {str(values['schema'])[:20]!r}, this version reads {SCHEMA}"
    wrong = [key for key in ("name", "encoder", "data", "mode") if not isinstance(values.get(key), str)]
    splits = lookup(values, "data_fingerprint.splits")
    accuracies = [f"metrics.{split}.acc1.{key}" for split in ("test", "val") for key in ("last", "best")]
    possible = {
        "status": values.get("status") in STATES,
        "seed": _is_count(values.get("seed")),
        "phases": _is_list_of_phases(values.get("phases")),
        "config": values.get("config") is None or isinstance(lookup(values, "config.data.name"), str),
        **{key: (found := lookup(values, key)) is None or as_percentage(found) is not None for key in accuracies},
    }
    if isinstance(splits, dict):
        possible |= {f"data_fingerprint.splits.{key}": _is_count(count) for key, count in splits.items()}
    wrong += [key for key, is_possible in possible.items() if not is_possible]
    return f"{', '.join(wrong)} missing or wrong" if wrong else ""


def _is_list_of_phases(value: Any) -> bool:
    return value is None or (isinstance(value, list) and all(isinstance(phase, dict) for phase in value))


def _is_count(value: Any) -> bool:
    """Whether it is a whole number from 0 on, or missing."""
    return value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 0)


def _group(path: Path, runs: Path) -> str:
    """The folder that holds the run's folder, below `runs`."""
    parent = path.parent.parent
    name = parent.relative_to(runs).as_posix() if parent.is_relative_to(runs) else "."
    return parent.resolve().name if name == "." else name


def _order(record: Record) -> tuple[Any, ...]:
    rank = MODES.index(record.mode) if record.mode in MODES else len(MODES)
    return record.group, record.data, record.encoder, rank, record.mode, record.number("seed") or 0, record.name
