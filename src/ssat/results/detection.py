"""How well runs of videos tell deepfakes from originals: numbers by split and method, and ROC curves."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from ssat.core.errors import UserError
from ssat.results.content import is_of_videos
from ssat.results.paper.evaluations import read_evaluation, settings_faults
from ssat.runs.detection import PREDICTIONS, read_predictions_csv, roc_curve
from ssat.runs.record import Record, as_number, lookup

ALL = "all"
SAME = ("data.root=", "data.num_workers=")  # keys of an evaluation that say where, and not what
Points = list[tuple[float, float]]


@dataclass(frozen=True)
class Measured:
    """What was measured of the videos of a split, or of those of one manipulation in it and all originals.

    Attributes:
        record: of the run.
        data: name of the data, which need not be those it was trained on, and what of them the evaluation has changed.
        split: test, in_domain, test_Deepfakes ...
        method: of the manipulation, or all; of more than two classes one of them.
        weights: last, best, or the name of a checkpoint; with the phase, where the evaluation names one.
        values: of `detection_metrics`, or of more than two classes `class_metrics`.
    """

    record: Record
    data: str
    split: str
    method: str
    weights: str
    values: Mapping[str, Any]

    def number(self, key: str) -> float | None:
        """A finite number of the values; None for anything else."""
        return as_number(self.values.get(key))


def measured_runs(records: Sequence[Record]) -> tuple[list[Measured], list[str]]:
    """Every number on the detection of the runs of videos: of their trainings, then of `src.evaluate`.

    An evaluation that only repeats what the training has measured is left out.

    Returns:
        the numbers in the order of the runs, and a sentence for each evaluation that does not count.
    """
    found: list[Measured] = []
    faults: list[str] = []
    for record in records:
        if not is_of_videos(record) or not record.finished or not record.phases:
            continue
        own = dict(_of_training(record))
        for split, values in own.items():
            found += _by_method(record, record.data, split, "last", values)
        for path in sorted((record.folder / "evaluations").glob("*.json")):
            content, fault = read_evaluation(record, path.name, partial(_faults, record))
            values = _measures(content)
            if fault:
                faults.append(f"{record.folder.name}/evaluations/{path.name} does not count: {fault}")
            elif isinstance(values, dict):
                data, split, weights = _described(record, content)
                if values != own.get(split):
                    found += _by_method(record, data, split, weights, values)
    return found, faults


def _of_training(record: Record) -> Iterator[tuple[str, dict[str, Any]]]:
    last = record.phases[-1]
    further = lookup(last, "further_detection")
    splits = {"test": _measures(last), **(further if isinstance(further, dict) else {})}
    yield from ((str(split), values) for split, values in splits.items() if isinstance(values, dict))


def _measures(values: Any) -> Any:
    """Of two classes, or of more."""
    return lookup(values, "detection") or lookup(values, "classification")


def _faults(record: Record, content: Any) -> Iterator[str]:
    """Of an evaluation with scores of videos; another one is none of ours."""
    if isinstance(_measures(content), dict):
        yield from settings_faults(record, content, {}, ("data.",))


def _described(record: Record, content: Any) -> tuple[str, str, str]:
    """Data, split and weights of an evaluation."""
    settings = {key: str(lookup(content, f"settings.{key}") or "") for key in ("data", "split", "checkpoint", "phase")}
    weights = " of ".join(filter(None, (settings["checkpoint"], settings["phase"])))
    overrides = lookup(content, "settings.overrides") or []
    changed = [str(word) for word in overrides if str(word).startswith("data.") and not str(word).startswith(SAME)]
    return " ".join([settings["data"] or record.data, *changed]), settings["split"], weights


def _by_method(record: Record, data: str, split: str, weights: str, values: Mapping[str, Any]) -> Iterator[Measured]:
    """All videos, and each method or class where there are several."""
    listed = values.get("methods") or values.get("classes")
    methods = {str(name): each for name, each in listed.items()} if isinstance(listed, dict) else {}
    whole = next(iter(methods)) if len(methods) == 1 else ALL
    yield Measured(record, data, split, whole, weights, values)
    if len(methods) > 1:
        for name, each in methods.items():
            if isinstance(each, dict):
                yield Measured(record, data, split, name, weights, each)


@dataclass(frozen=True)
class RocCurves:
    """ROC curves of runs on the same test videos.

    Attributes:
        title: of the data, and the method that was held out.
        curves: run, its AUC and the points (share of originals called fake, share of fakes called fake).
    """

    title: str
    curves: list[tuple[Record, float, Points]]


def roc_curves(records: Sequence[Record]) -> tuple[list[RocCurves], list[str]]:
    """The curves on test of the runs of two classes, those of one test set together, the highest AUC first.

    Returns:
        the curves, and a sentence for each file of predictions that cannot be used.
    """
    together: dict[tuple[str, str], list[tuple[Record, float, Points]]] = defaultdict(list)
    faults = []
    for record in records:
        phase = record.phases[-1] if record.phases and record.finished and is_of_videos(record) else {}
        auc, name = as_number(lookup(phase, "detection.auc")), str(lookup(phase, "name"))
        path = record.folder / name / PREDICTIONS
        if auc is None or "/" in name or not path.is_file():
            continue
        try:
            scores = [(score.label, score.prob) for score in read_predictions_csv(path) if score.prob is not None]
            points = roc_curve([label for label, _ in scores], [prob for _, prob in scores])
        except UserError as error:
            faults.append(str(error))
            continue
        held_out = record.text("data_fingerprint.passport.held_out")
        title = f"{record.data}, test" + (f" (held out: {held_out})" if held_out else "")
        if points:
            together[title, record.text("data_fingerprint.sha256.test")].append((record, auc, points))
    found = [RocCurves(title, sorted(curves, key=lambda curve: -curve[1])) for (title, _), curves in together.items()]
    return found, faults
