"""What the records and evaluations of video runs say for Tables 8 and 13."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from ssat.results.paper.evaluations import does_not_count, read_evaluation, settings_faults
from ssat.runs.record import Record, as_number, as_percentage, lookup

TOTAL = "Total"
COLUMNS = {"DeepFake": "Deepfakes", "Original": "original"}  # of Table 13, where they are not a method's name
LEVEL = "c23"  # assumed: the paper names none
TESTED = 280  # videos of a zero-shot test: 140 originals and 140 fakes of one method
MOST_LOST = 5  # of them without a score; more are a part of the set. The paper lost up to 3
# The settings of the command that measures a zero-shot cell of Table 8, but for its split.
ZERO_SHOT = {"checkpoint": "last", "phase": "", "probe": "", "data": "ffpp", "data.perturb": ""}
# Of a passport: what a network trained on one set of clips and tested on another must find the same.
SAME_CLIPS = ("detector", "margin", "size", "coding", "quality")


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
    return does_not_count(record, _file(method), fault)


def _file(method: str) -> str:
    return f"last-ffpp-test_{method}-clean.json"


def _evaluation(record: Record, method: str) -> tuple[Mapping[str, Any], str]:
    """What `src.evaluate` has measured on the originals and one method, and why it does not count, if so."""
    values, fault = read_evaluation(record, _file(method), partial(_faults, record, method))
    found = lookup(values, "detection")
    return (found if isinstance(found, dict) else {}), fault


def _faults(record: Record, method: str, values: Any) -> Iterator[str]:
    """What is wrong with an evaluation, in words."""
    if not isinstance(lookup(values, "detection"), dict):
        yield "it has no scores"
    wanted = ZERO_SHOT | {"split": f"test_{method}"}
    yield from settings_faults(record, values, wanted, ("data.root=", "data.level=", "data.num_workers="))
    passports = (lookup(each, "data_fingerprint.passport") for each in (values, record.values))
    ours, theirs = (each if isinstance(each, dict) else {} for each in passports)
    for key in SAME_CLIPS:
        if ours.get(key) != theirs.get(key):
            yield f"its clips have {key}={ours.get(key)}, and those it was trained on {theirs.get(key)}"
    if ours.get("level") != LEVEL:
        yield f"its level is {ours.get('level')}, not {LEVEL}"


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
