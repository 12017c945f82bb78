"""What the records and evaluations of video runs say for Tables 8 and 13."""

from __future__ import annotations

from collections.abc import Mapping
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
    split = f"test_{method}"
    try:
        values = read_json(record.folder / "evaluations" / f"last-ffpp-{split}-clean.json")
    except ValueError:
        return {}
    settings = lookup(values, "settings")
    settings = settings if isinstance(settings, dict) else {}
    said = {key: settings.get(key) for key in ZERO_SHOT}
    ours, theirs = (lookup(each, "data_fingerprint.passport") or {} for each in (values, record.values))
    is_own = lookup(values, "hash") in (record.get("hash"), hash_now(record))
    is_right = is_own and said == ZERO_SHOT and settings.get("split") == split
    same_clips = all(ours.get(key) == theirs.get(key) for key in SAME_CLIPS) and ours.get("level") == LEVEL
    changed = [word for word in settings.get("overrides") or [] if _changes_videos(word)]
    found = lookup(values, "detection")
    return found if is_right and same_clips and not changed and isinstance(found, dict) else {}


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
