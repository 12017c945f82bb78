"""Where a run lies, and whether it is already finished there or in the folder of another experiment."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from glob import escape
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from ssat.config.identity import config_hash, differences
from ssat.config.resolve import build
from ssat.config.schema import Run
from ssat.config.trust import trusted
from ssat.config.upgrade import VERSION
from ssat.config.words import command_line
from ssat.core.errors import UserError
from ssat.core.interrupts import AGAIN, LEFT
from ssat.core.read import plain_yaml, read_json, read_text
from ssat.runs.class_counts import unequal_classes
from ssat.runs.names import ends_of, is_automatic
from ssat.runs.record import as_number, lookup

DEFAULT_RUNS = "runs"  # where src.report looks by itself
LOG = "log.txt"  # in a run's folder: what was said of it, of all commands that went on with it
AFRESH = "move the run folder away, or force=true to start afresh"
# What the record of a run reads of every phase's own: numbers, what is null where it was not measured, and the rest.
PHASE_NUMBERS = (
    *("epochs", "seconds", "steps", "peak_memory_bytes", "params.inference", "params.training"),
    "lam",
)
PHASE_FIGURES = (
    *("images_per_s", "data_wait", "macs.full", "macs.auxiliary", "macs.both", "macs.step"),
    *("energy.kwh", "energy.co2_kg", "energy.co2_kg_lacoste", "energy.tdp_watts"),
)
OF_VIDEOS = ("acc1", "balanced_acc", "auc")  # what a line says of a run of videos
PHASE_KEYS = {
    **{"name": str, "metrics": dict, "data_fingerprint.splits": dict, "checkpoints": dict},
    **dict.fromkeys(("skipped_images", "class_names", "history", "reconstructions"), list),
}


@contextmanager
def usable(config: Run, verb: str, *, key: str | None = None) -> Iterator[None]:
    """Turns a folder that the system refuses into a sentence; `verb` is what is tried: read or written.

    Raises:
        UserError: names `key`, by default the one that says where the run lies.
    """
    try:
        yield
    except OSError as error:
        key = key or ("run_dir" if config.run_dir else "runs_dir")
        raise UserError(f"{key}={getattr(config, key)} cannot be {verb} ({error.strerror}): name another") from error


def compare_line(runs_dir: str) -> str:
    """The line that names the command which sets all runs of a folder side by side."""
    runs = [] if runs_dir == DEFAULT_RUNS else [f"runs={runs_dir}"]
    return f"compare: {command_line('report', runs)}"


def where_it_continues(run_dir: Path) -> str:
    """What becomes of an interrupted run in this folder, as a sentence."""
    kept = [*run_dir.glob("*/phase.json"), *run_dir.glob("*/checkpoints/last.ckpt")]
    return LEFT if kept else AGAIN


def run_name(config: Run) -> str:
    """The name of the run's folder: <name>-<hash of what it computes>."""
    return f"{config.name}-{config_hash(config)}"


def find_run_dir(config: Run) -> Path:
    """The folder of this very run: `run_dir` if given, else runs_dir/<experiment or date>/<name>-<hash>.

    A name that nobody chose may hold keys of the sweep that began the run: the hash alone tells whose folder it is.
    Without an experiment the folder's date is that of the first start, so that the command finds it on any later day.
    """
    if config.run_dir:
        return Path(config.run_dir)
    runs, leaf = Path(config.runs_dir), run_name(config)
    parents = escape(config.experiment) if config.experiment else "[0-9]*-[0-9]*-[0-9]*"
    with usable(config, "read"):
        found = same_named(config, parents)
        known = next((path for path in found if _is_of_hash(path, config) or is_same_older(config, path)), None)
    return known or runs / (config.experiment or datetime.now().strftime("%Y-%m-%d")) / leaf


def same_named(config: Run, parents: str) -> list[Path]:
    """Run folders of this name below `parents` (a pattern), first those of this very name, then of this very hash."""
    leaf, of = run_name(config), ends_of(config)
    automatic = is_automatic(config.name, of)
    pattern = f"{escape(of[0])}*{escape(of[1])}-*" if automatic else f"{escape(config.name)}-*"
    folders = [
        path
        for path in Path(config.runs_dir).glob(f"{parents}/{pattern}")
        if path.is_dir() and (not automatic or is_automatic(path.name.rpartition("-")[0], of))
    ]
    return sorted(folders, key=lambda path: (path.name != leaf, not _is_of_hash(path, config), path))


def _is_of_hash(folder: Path, config: Run) -> bool:
    return folder.name.rpartition("-")[2] == config_hash(config)


def is_same_older(config: Run, folder: Path) -> bool:
    """Whether an earlier version, whose hash was another, has begun this very run in `folder`."""
    path = folder / "config.yaml"
    try:
        # Most are of today's version: a look at the text spares the parser, for a sweep has many of one name.
        if re.search(rf"^version: {VERSION}$", read_text(path), re.MULTILINE):
            return False
        return not differences(config, trusted(build(read_config(path, AFRESH)), like=config))
    except (UserError, OSError, ValueError):
        return False


def read_record(path: Path, cure: str) -> dict[str, Any]:
    """The record in `path`.

    Raises:
        UserError: it is damaged; `cure` says what to do then.
        OSError: it is missing or cannot be read.
    """
    try:
        record = read_json(path)
    except (ValueError, IsADirectoryError) as error:
        raise UserError(f"{path} is damaged: {cure}") from error
    if not isinstance(record, dict):
        raise UserError(f"{path} is damaged: {cure}")
    return record


def read_phase(path: Path, config: Run) -> dict[str, Any]:
    """The record of a phase that the run `config` has finished.

    Raises:
        UserError: it is damaged, cannot be read, or is another run's.
    """
    try:
        record = read_record(path, AFRESH)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): {AFRESH}") from error
    wrong = [key for key in PHASE_NUMBERS if as_number(lookup(record, key)) is None]
    missing = object()
    figures = {key: lookup(record, key, missing) for key in PHASE_FIGURES}
    wrong += [key for key, value in figures.items() if value is not None and as_number(value) is None]
    wrong += [key for key, kind in PHASE_KEYS.items() if not isinstance(lookup(record, key), kind)]
    if wrong:
        raise UserError(f"{path} is damaged, its {wrong[0]} is {lookup(record, wrong[0])!r:.40}: {AFRESH}")
    # Records of the time before phases had a hash are taken for this run's, whose folder they lie in.
    if record.get("hash") not in (None, config_hash(config)) and not is_same_older(config, path.parents[1]):
        raise UserError(f"{path} is of another run: {AFRESH}")
    return record


def read_config(path: Path, cure: str) -> dict[str, Any]:
    """The plain values of the configuration that a run has written to `path`.

    Raises:
        UserError: it is none; `cure` says what to do then.
    """
    try:
        config: Any = OmegaConf.to_container(OmegaConf.create(plain_yaml(path)))
    except PermissionError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})") from error
    except (OSError, ValueError, OmegaConfBaseException, YAMLError):
        config = None
    if not config or not isinstance(config, dict):
        raise UserError(f"{path} is missing or damaged: {cure}")
    return config


def finished(run_dir: Path, config: Run) -> dict[str, Any] | None:
    """The record of a finished run of this configuration in `run_dir`, or None.

    Raises:
        UserError: the folder holds a finished run of another configuration, or a damaged record, or cannot be read.
    """
    path = run_dir / "result.json"
    with usable(config, "read"):
        try:
            record = read_record(path, "move it away, or force=true to start afresh")
        except FileNotFoundError:
            return None
    if record.get("status") != "finished":
        return None
    if record.get("hash") != config_hash(config) and not is_same_older(config, run_dir):
        raise UserError(f"{run_dir} holds a finished run of another configuration: use another run_dir, or force=true")
    parts = {"config": dict, "metrics": dict, "phases": list, "data_fingerprint": dict, "inputs": dict}
    wrong = [key for key, kind in parts.items() if not isinstance(record.get(key, kind()), kind)]
    if wrong:
        raise UserError(f"{path} is damaged, its {wrong[0]} is {record[wrong[0]]!r:.40}: {AFRESH}")
    return record


def find_finished(config: Run) -> tuple[Path, dict] | None:
    """Folder and record of this very run where it is finished: in its own folder, else in another experiment's.

    A `run_dir` of the user's is looked at alone.

    Raises:
        UserError: its own folder holds a finished run of another configuration or a damaged record, or cannot be read.
    """
    own = find_run_dir(config)
    record = finished(own, config)
    if record:
        return own, record
    if config.run_dir:
        return None
    for folder in same_named(config, "[!.]*"):
        if not _is_of_hash(folder, config) and not is_same_older(config, folder):
            continue
        try:
            record = finished(folder, config)
        except UserError:
            continue  # another experiment's damaged record is not this run's matter
        if record:
            return folder, record
    return None


def describe(record: dict[str, Any]) -> str:
    """One line: name, accuracies and seconds of a finished run, as far as its record has them.

    Of videos also the balanced accuracy and, with two classes, the AUC. Of images also the balanced accuracy where the
    classes are of unequal sizes, and what `monitor.select` names. Of several labels of an image mAP and two more.
    """
    split = "val" if lookup(record, "metrics.test") is None else "test"
    metrics, seconds = lookup(record, f"metrics.{split}"), as_number(record.get("seconds"))
    of_images = lookup(metrics, "macro_f1") is not None
    select = str(lookup(record, "config.monitor.select") or "acc1")
    if lookup(metrics, "balanced_acc") is not None and not of_images:
        values = _several(record, split, OF_VIDEOS, "auc" if lookup(record, "metrics.val.auc") else "balanced_acc")
    elif lookup(metrics, "map") is not None:
        select = str(lookup(record, "config.monitor.select") or "map")
        values = _several(record, split, tuple(dict.fromkeys(("map", "macro_f1", "exact_match", select))), select)
    elif of_images and (select != "acc1" or unequal_classes(record, split)):
        more = ("balanced_acc",) if unequal_classes(record, split) else ()
        values = _several(record, split, tuple(dict.fromkeys(("acc1", *more, select))), select)
    elif accuracy := lookup(metrics, "acc1"):
        shown = _last_and_best(accuracy, "{:.2f} %", "best")
        values = f"{split}/acc1 {shown}" if shown else ""
    else:
        others = metrics.items() if isinstance(metrics, dict) else ()
        last = {name: as_number(lookup(value, "last")) for name, value in others}
        values = ", ".join(f"{split}/{name} last {value:.4g}" for name, value in last.items() if value is not None)
    took = "" if seconds is None else f"in {seconds:.0f} s"
    return " ".join(part for part in (f"{record.get('name')}:", values, took) if part)


def _several(record: dict[str, Any], split: str, names: Sequence[str], by: str) -> str:
    """Several measures; `by` = the one whose highest value on val has chosen the best epoch."""
    metrics, best = lookup(record, f"metrics.{split}"), "best"  # of each measure, over the epochs
    if split == "test" and lookup(record, "metrics.val") is not None:  # of the one epoch that val has chosen
        best = f"best (by val/{by})"
    forms = {name: "{:.4f}" if name.startswith(("au", "map")) else "{:.2f} %" for name in names}
    shown = {name: _last_and_best(lookup(metrics, name), form, best) for name, form in forms.items()}
    first, *rest = [f"{split}/{name} {text}" for name, text in shown.items() if text] or [""]
    return "; ".join(
        [first, *(text.replace(f", {best} ", ", best ") for text in rest)]
    )  # how it is chosen is said once


def _last_and_best(values: Any, form: str, best: str) -> str:
    numbers = {best if key == "best" else key: as_number(lookup(values, key)) for key in ("last", "best")}
    return ", ".join(f"{key} {form.format(value)}" for key, value in numbers.items() if value is not None)
