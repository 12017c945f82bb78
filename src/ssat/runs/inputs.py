"""The content of what a run reads: compared before a run is skipped, continued or evaluated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ssat.config.schema import Run
from ssat.core.errors import UserError
from ssat.core.files import file_sha256
from ssat.core.read import read_json
from ssat.runs.record import lookup

FILE = "inputs.json"
DATA_KEYS = ("splits", "sha256", "content")  # of a fingerprint; earlier records have no content
GROUP_KEYS = ("groups", "group_sha256")  # of a fingerprint of data with data.group
PASSPORT = "passport"  # of a fingerprint of videos: how their clips were made
PARTS = {
    "data": dict,
    "weights": dict,
    **{f"data.{key}": dict for key in (*DATA_KEYS, *GROUP_KEYS, PASSPORT)},
    "data.classes": list,
}
SHOWN = 5  # differences in one sentence


def inputs_of(run: Run, fingerprint: Mapping[str, Any], classes: Sequence[str]) -> dict[str, Any]:
    """What `run` reads, by content.

    Args:
        run: names the weight files.
        fingerprint: of the data module.
        classes: names in the order of the labels.

    Returns:
        `data` (splits, sha256, content, classes), `weights` (the SHA-256 of each file by its key), and `start` where it
        starts from a finished run.
    """
    weights = {key: file_sha256(path) for key, path in weight_files(run).items()}
    inputs = {"data": data_inputs(fingerprint, classes), "weights": weights}
    start = start_run(run)
    return inputs | {"start": start} if start else inputs


def start_run(run: Run) -> dict[str, Any] | None:
    """What the finished run in the folder `mode.init_from` is; None where there is none.

    Returns:
        `run` (its folder), `hash`, `mode`, `seed` and `config`, and `complete`: whether its videos were the whole set.
    """
    source = run.mode.phases[0].init_from
    if not source or source == "previous" or not Path(source).is_dir():
        return None
    try:
        record = read_json(Path(source) / "result.json")
    except (OSError, ValueError):
        return None
    if not isinstance(record, dict) or record.get("status") != "finished" or not isinstance(record.get("config"), dict):
        return None
    phases = record.get("phases")
    last = phases[-1] if isinstance(phases, list) and phases else {}
    kept = {key: record.get(key) for key in ("hash", "mode", "seed", "config")}
    return {"run": str(source), **kept, "complete": lookup(last, "data_check.complete")}


def data_inputs(fingerprint: Mapping[str, Any], classes: Sequence[str]) -> dict[str, Any]:
    """Images per split, SHA-256 of each, the class names in the order of the labels, and groups if there are any."""
    keys = [*DATA_KEYS, *(key for key in (*GROUP_KEYS, PASSPORT) if key in fingerprint)]
    return {key: dict(fingerprint[key]) for key in keys} | {"classes": list(classes)}


def weight_files(run: Run) -> dict[str, Path]:
    """The files of start, teacher and pretrained weights, by the key that names them.

    Raises:
        UserError: one does not exist.
    """
    from ssat.core.checkpoints import checkpoint_of  # Lightning's and torch's

    files = {}
    source = run.mode.phases[0].init_from
    if source and source != "previous":
        files["mode.init_from"] = checkpoint_of(Path(source))
    if isinstance(run.encoder.pretrained, str):
        files["encoder.pretrained"] = Path(run.encoder.pretrained)
    for task in run.ssl.tasks.values():
        teacher = task.options.get("teacher")
        if teacher and any(phase.lam < 1 for phase in run.mode.phases):
            files["ssl.teacher"] = checkpoint_of(Path(str(teacher)), key="ssl.teacher")
    return {key: path for key, path in files.items() if path.is_file()}


def recorded(record: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs that a run's or a phase's record holds, also that of an earlier version; {} where it has none."""
    if record.get("inputs"):
        return record["inputs"]
    phases = record.get("phases")
    last = phases[-1] if isinstance(phases, list) and phases and isinstance(phases[-1], dict) else record
    fingerprint = last.get("data_fingerprint")
    if not isinstance(fingerprint, dict):
        return {}
    return {"data": {key: fingerprint.get(key) for key in DATA_KEYS} | {"classes": last.get("class_names")}}


def read_inputs(folder: Path, cure: str) -> dict[str, Any]:
    """The inputs that a run has written to its folder; {} in one of the time before they were.

    Raises:
        UserError: the file is damaged; `cure` says what to do then.
    """
    path = folder / FILE
    try:
        values = read_json(path)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is damaged: {cure}") from error
    return _sound(values, path, cure)


def _sound(inputs: Any, where: Path, cure: str) -> dict[str, Any]:
    """`inputs`, whose parts have the types that are compared; a part may be absent."""
    if not isinstance(inputs, dict) or not all(
        isinstance(lookup(inputs, key), (kind, type(None))) for key, kind in PARTS.items()
    ):
        raise UserError(f"{where} is damaged, what the run has read is not understood: {cure}")
    return inputs


def changes(now: Mapping[str, Any], then: Mapping[str, Any]) -> list[str]:
    """What the run would read now and has read then, as sentences: 'train 72 -> 5,048 images'."""
    return _data_changes(now, then) + _weight_changes(now, then)


def _weight_changes(now: Mapping[str, Any], then: Mapping[str, Any]) -> list[str]:
    ours, theirs = _part(now, "weights"), _part(then, "weights")
    changed = [key for key in theirs if key in ours and ours[key] != theirs[key]]
    return [f"the file of {key} has other content" for key in changed]


def _part(inputs: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = inputs.get(name)
    return part if isinstance(part, Mapping) else {}


def _data_changes(now: Mapping[str, Any], then: Mapping[str, Any]) -> list[str]:
    now, then, found = _part(now, "data"), _part(then, "data"), []
    noun = "videos" if _part(now, PASSPORT) or _part(then, PASSPORT) else "images"
    ours, theirs = _part(now, "splits"), _part(then, "splits")
    for split in dict.fromkeys([*theirs, *ours] if theirs else []):
        if ours.get(split) != theirs.get(split):
            found.append(f"{split} {_count(theirs.get(split))} -> {_count(ours.get(split))} {noun}")
    classes, before = list(now.get("classes") or ()), list(then.get("classes") or ())
    if before and classes != before:
        if len(classes) != len(before):
            found.append(f"{len(before)} -> {len(classes)} classes")
        moved = [i for i, (a, b) in enumerate(zip(before, classes, strict=False)) if a != b]
        found += [f"class {moved[0]} was {before[moved[0]]}, is {classes[moved[0]]}"] if moved else []
    if not found:
        kind = "content" if _part(then, "content") else "sha256"
        ours, theirs = _part(now, kind), _part(then, kind)
        found = [
            f"other {split} {noun} or labels" for split in theirs if split in ours and ours[split] != theirs[split]
        ]
    if found:
        found += [f"clips were made with {change}" for change in passport_changes(now, then, leave_out=("held_out",))]
    if not found:
        ours, theirs = _part(now, "group_sha256"), _part(then, "group_sha256")
        found = [
            f"other groups of the {split} images" for split in theirs if ours.get(split, theirs[split]) != theirs[split]
        ]
    return found


def passport_changes(now: Mapping[str, Any], then: Mapping[str, Any], *, leave_out: Sequence[str] = ()) -> list[str]:
    """How the clips of two data differ, in what is known of both: 'detector=none, were with mtcnn'.

    Args:
        now, then: of `inputs_of`, their `data`.
        leave_out: keys that are not compared.
    """
    ours, theirs = _part(now, PASSPORT), _part(then, PASSPORT)
    shared = [key for key in theirs if key in ours and key not in leave_out]
    return [f"{key}={ours[key]}, were with {theirs[key]}" for key in shared if ours[key] != theirs[key]]


def _count(images: Any) -> str:
    return f"{images:,}" if isinstance(images, int) else "no"


def refuse_changes(now: Mapping[str, Any], then: Mapping[str, Any], where: Path, cure: str) -> None:
    """Refuse to take `where` for this run's when its inputs have changed.

    Raises:
        UserError: names the differences, or `then` is damaged.
    """
    found = changes(now, _sound(then, where, "move it away") if then else then)
    if not found:
        return
    listed = "; ".join(found[:SHOWN]) + (f"; and {len(found) - SHOWN} more" if len(found) > SHOWN else "")
    of_data = bool(_data_changes(now, then))
    what, key = ("data", "data.root") if of_data else ("weights", None)
    raise UserError(f"{what} changed since {where} was written: {listed}; {cure}", key=key)
