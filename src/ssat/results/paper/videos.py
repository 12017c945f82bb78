"""What the records and evaluations of video runs say for Tables 8 and 13."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ssat.config.identity import config_hash
from ssat.config.resolve import build
from ssat.core.errors import UserError
from ssat.runs.record import Record, as_number, as_percentage, lookup, read_json

TOTAL = "Total"
COLUMNS = {"DeepFake": "Deepfakes", "Original": "original"}  # of Table 13, where they are not a method's name
LEVEL = "c23"  # assumed: the paper names none
TESTED = 280  # videos of a zero-shot test: 140 originals and 140 fakes of one method
MOST_LOST = 5  # of them without a score; more are a part of the set. The paper lost up to 3
# The settings of the command that measures a zero-shot cell of Table 8, but for its split.
ZERO_SHOT = {"checkpoint": "last", "phase": "", "probe": "", "data": "ffpp", "data.perturb": ""}
# Of a passport: what a network trained on one set of clips and tested on another must find the same.
SAME_CLIPS = ("detector", "margin", "size", "coding", "quality")


def is_of_videos(record: Record) -> bool:
    """Whether the run is of videos."""
    return record.get("config.data.frames") is not None


def is_whole_set(record: Record) -> bool:
    """Whether its videos are all those of the official set, at the level that is assumed of the paper."""
    last = record.phases[-1] if record.phases else {}
    level = record.get("data_fingerprint.passport.level")
    return lookup(last, "data_check.complete") is True and level in (None, "", LEVEL)


def official_videos(record: Record, row: str, column: str) -> float | None:
    """Usable videos of FaceForensics++ in a cell of Table 13, as the run has counted them; None where it has not."""
    last = record.phases[-1] if record.phases else {}
    counts = lookup(last, "data_check.official")
    if record.data != "ffpp" or not isinstance(counts, list) or not counts:
        return None
    split, method = row.lower(), COLUMNS.get(column, column)
    chosen = [
        as_number(count.get("found"))
        for count in counts
        if isinstance(count, dict)
        and (row == TOTAL or count.get("split") == split)
        and (column == TOTAL or count.get("method") == method)
    ]
    return sum(number for number in chosen if number is not None) if chosen else None


def detection(record: Record, column: str = "") -> Mapping[str, Any]:
    """What was measured of every test video; {} where the run has no such measures.

    Args:
        record: of the run.
        column: of a zero-shot cell, whose last word is a method: read from the file that `src.evaluate` has written.
    """
    if column:
        return _zero_shot(record, column.split()[-1])
    found = lookup(record.phases[-1], "detection") if record.phases else None
    return found if isinstance(found, Mapping) else {}


def _zero_shot(record: Record, method: str) -> Mapping[str, Any]:
    """Of this run, its last weights, all segments, and clips that were made as those it was trained on."""
    found, fault = _evaluation(record, method)
    return {} if fault else found


def why_not_zero_shot(record: Record, column: str) -> str:
    """Why the evaluation of a zero-shot cell does not count; empty where it counts or there is none."""
    method = column.split()[-1]
    fault = _evaluation(record, method)[1]
    return f"{_file(method)} of {record.folder.name} does not count: {fault}" if fault else ""


def _file(method: str) -> str:
    return f"last-ffpp-test_{method}-clean.json"


def _evaluation(record: Record, method: str) -> tuple[Mapping[str, Any], str]:
    """What `src.evaluate` has measured on the originals and one method, and why it does not count, if so."""
    path = record.folder / "evaluations" / _file(method)
    if not path.is_file():
        return {}, ""
    try:
        values = read_json(path)
    except ValueError as error:
        return {}, str(error)
    found = lookup(values, "detection")
    return (found, next(_faults(record, values, method), "")) if isinstance(found, dict) else ({}, "it has no scores")


def _faults(record: Record, values: Any, method: str) -> Iterator[str]:
    """What is wrong with an evaluation, in words."""
    settings = lookup(values, "settings")
    if not isinstance(settings, dict):
        yield "it does not say how it was made"
        return
    if lookup(values, "hash") not in (record.get("hash"), hash_now(record)):
        yield "it is of another run"
    for key, wanted in (ZERO_SHOT | {"split": f"test_{method}"}).items():
        if settings.get(key) != wanted:
            yield f"{key}={settings.get(key)}, not {wanted or 'empty'}"
    for override in settings.get("overrides") or []:
        if _changes_videos(override):
            yield f"it was made with {override}"
    ours, theirs = (lookup(each, "data_fingerprint.passport") or {} for each in (values, record.values))
    for key in SAME_CLIPS:
        if ours.get(key) != theirs.get(key):
            yield f"its clips have {key}={ours.get(key)}, and those it was trained on {theirs.get(key)}"
    if ours.get("level") != LEVEL:
        yield f"its level is {ours.get('level')}, not {LEVEL}"


def _changes_videos(override: Any) -> bool:
    return not isinstance(override, str) or (
        override.startswith("data.") and not override.startswith(("data.root=", "data.level=", "data.num_workers="))
    )


def zero_shot_accuracy(record: Record, column: str) -> float | None:
    """Accuracy in percent on the originals and the fakes of one method, of a network that has seen none of them."""
    return as_percentage(detection(record, column).get("accuracy"))


def scored(found: Mapping[str, Any]) -> int | None:
    """Videos with a score."""
    number = as_number(found.get("n_scored"))
    return int(number) if number else None


def is_whole_test(found: Mapping[str, Any]) -> bool:
    """Whether the test had all of its 280 videos, and hardly any without a score."""
    total, failed = as_number(found.get("n_total")), as_number(found.get("n_failed"))
    return total == TESTED and failed is not None and failed <= MOST_LOST


def remark(found: Mapping[str, Any]) -> str:
    """'277 of 280 videos scored, AUC 0.953'."""
    total, number, auc = found.get("n_total"), scored(found), as_number(found.get("auc"))
    parts = [f"{number:,} of {total:,} videos scored"] if number and isinstance(total, int) else []
    return ", ".join(parts + ([] if auc is None else [f"AUC {auc:.3f}"]))


def hash_now(record: Record) -> str | None:
    """The run's hash by today's rule, where an earlier version has written its record."""
    try:
        return config_hash(build(record.get("config"), str(record.path)))
    except (UserError, TypeError, AttributeError):
        return None
