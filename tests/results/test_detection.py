"""Runs of videos in the report: AUC beside the accuracy, splits and methods, ROC curves, and what does not count."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ssat.results.detection import measured_runs, roc_curves
from ssat.results.page.html import render
from ssat.results.tables import to_markdown
from ssat.runs.detection import VideoScore, detection_metrics, roc_curve, write_predictions_csv
from ssat.runs.record import Record, read_records
from ssat.runs.video_classes import ClassScore, class_metrics
from tests.results.records import make_record, save, write_json

HOSTILE = "<i>Deep&fakes"


def scores(method: str, probs: tuple[float, ...] = (0.1, 0.4, 0.35, 0.8)) -> list[VideoScore]:
    """Two originals and two fakes of a method."""
    return [
        VideoScore(f"{number}", int(number > 1), method if number > 1 else "original", prob, 2)
        for number, prob in enumerate(probs)
    ]


def measured(*parts: list[VideoScore]) -> dict[str, Any]:
    return json.loads(json.dumps(detection_metrics([score for part in parts for score in part])))


def video_record(mode: str = "ssat", seed: int = 0) -> dict[str, Any]:
    record = make_record(mode, seed=seed, accuracy=75.0, encoder="videomae_micro", data="ffpp")
    record["config"]["data"] = {"name": "ffpp", "frames": 16}
    record["data_fingerprint"]["passport"] = {"held_out": HOSTILE}
    record["metrics"]["test"] |= {"balanced_acc": {"last": 75.0}, "auc": {"last": 0.75}}
    last = record["phases"][-1]
    last["detection"] = measured(scores(HOSTILE))
    last["further_detection"] = {"in_domain": measured(scores("FaceSwap"))}
    return record


def write(runs: Path, record: dict[str, Any]) -> Path:
    folder = save(runs, record)
    (folder / record["phases"][-1]["name"]).mkdir(exist_ok=True)
    write_predictions_csv(folder / record["phases"][-1]["name"] / "predictions.csv", scores(HOSTILE))
    return folder


def evaluation(record: dict[str, Any], found: Any, **settings: Any) -> dict[str, Any]:
    chosen = {"data": "", "split": "test", "checkpoint": "last", "phase": "", "overrides": []} | settings
    return {"hash": record["hash"], "settings": chosen, "detection": found}


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A run of videos with evaluations, and one of images."""
    save(tmp_path, make_record("scratch"))
    record = video_record()
    evaluations = write(tmp_path, record) / "evaluations"
    write_json(evaluations / "last-test-clean.json", evaluation(record, record["phases"][-1]["detection"]))  # as known
    two = measured(scores("Face2Face"), [VideoScore("x", 1, "FaceSwap", None, 0, "no_face")])
    words = {"data": "dfdc", "checkpoint": "best", "overrides": ["data.root=/x", "data.max_clips=1"]}
    write_json(evaluations / "a.json", evaluation(record, two, **words))
    write_json(evaluations / "b.json", evaluation(record, two) | {"hash": "another"})
    (evaluations / "c.json").write_text("{")
    write_json(evaluations / "d.json", evaluation(record, two, overrides=5))
    write_json(evaluations / "knn.json", evaluation(record, None))
    return tmp_path


def read(runs: Path) -> list[Record]:
    records, warnings = read_records(runs)
    assert not warnings
    return records


def test_every_split_and_method_is_told_of_and_what_does_not_count_is_said(runs: Path) -> None:
    found, faults = measured_runs(read(runs))
    assert [(each.data, each.split, each.method, each.weights) for each in found] == [
        ("ffpp", "test", HOSTILE, "last"),
        ("ffpp", "in_domain", "FaceSwap", "last"),
        ("dfdc data.max_clips=1", "test", "all", "best"),
        ("dfdc data.max_clips=1", "test", "Face2Face", "best"),
        ("dfdc data.max_clips=1", "test", "FaceSwap", "best"),
    ]
    assert [each.number("n_failed") for each in found] == [0, 0, 1, 0, 1]
    assert found[0].number("auc") == 0.75 and found[-1].number("auc") is None
    assert len(faults) == 3 and faults[0].endswith("b.json does not count: it is of another run")
    assert "c.json" in faults[1] and faults[2].endswith("d.json does not count: settings.overrides is no list")


def test_more_classes_than_two_are_told_of_by_class_and_have_no_curve(tmp_path: Path) -> None:
    record = video_record()
    probs = [(0.6, 0.3, 0.1), (0.2, 0.5, 0.3), (0.1, 0.8, 0.1)]
    three = [ClassScore(f"v{n}", n, "abc"[n], each, 1) for n, each in enumerate(probs)]
    record["phases"][-1] |= {"detection": None, "further_detection": {}}
    record["phases"][-1]["classification"] = json.loads(json.dumps(class_metrics(three, list("abc"))))
    save(tmp_path, record)
    found, _ = measured_runs(read(tmp_path))
    assert [(each.method, each.number("accuracy"), each.number("auc")) for each in found] == [
        ("all", pytest.approx(200 / 3), None),
        ("a", 100, None),
        ("b", 100, None),
        ("c", 0, None),
    ]
    assert roc_curves(read(tmp_path)) == ([], [])
    assert '<section id="detection">' in render(read(tmp_path))


def test_the_roc_curve_has_the_corners_and_the_area_of_the_metrics() -> None:
    labels, probs = [0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8]
    corners = roc_curve(labels, probs)
    assert corners == [(0, 0), (0, 0.5), (0.5, 0.5), (0.5, 1), (1, 1)]
    area = sum((x2 - x1) * (y1 + y2) / 2 for (x1, y1), (x2, y2) in zip(corners, corners[1:], strict=False))
    assert area == measured(scores("x"))["auc"] == 0.75
    assert roc_curve([0, 1, 0, 1], [0.5] * 4) == [(0, 0), (1, 1)] and roc_curve([1, 1], [0.2, 0.3]) == []


def test_curves_of_one_test_set_are_together_and_damaged_predictions_are_named(tmp_path: Path) -> None:
    write(tmp_path, video_record())
    write(tmp_path, video_record("scratch"))
    damaged = write(tmp_path, video_record(seed=1)) / "joint" / "predictions.csv"
    damaged.write_text("video,label\n")
    found, faults = roc_curves(read(tmp_path))
    assert [(group.title, len(group.curves)) for group in found] == [(f"ffpp, test (held out: {HOSTILE})", 2)]
    assert len(faults) == 1 and str(damaged) in faults[0]


def test_the_page_has_a_section_and_no_name_becomes_markup(runs: Path) -> None:
    page = render(read(runs), page=runs / "report.html")
    section = page.partition('<section id="detection">')[2].partition("</section>")[0]
    assert "<i>" not in section and "&lt;i&gt;Deep&amp;fakes" in section
    assert section.count("<tr") == 6 and section.count("<svg ") == 2  # a chart, and the legend's
    # Three of four are right: the originals at 0.1 and 0.4, and the fake at 0.8.
    assert ">75.00<" in section and "30.1 to 95.4" in section and "does not count: it is of another run" in section
    assert "AUC" not in render(read_records(runs / "none")[0])


def test_the_table_of_runs_has_auc_where_a_run_is_of_videos(runs: Path) -> None:
    record = video_record(seed=1)
    record["metrics"]["test"]["auc"]["last"] = 0.85
    write(runs, record)
    heading, _, *rows = to_markdown(read(runs)).splitlines()
    place = [title.strip() for title in heading.split("|")].index("AUC")
    cells = {row.split("|")[place].strip() for row in rows}
    assert cells == {"", "0.7500", "0.8500", "0.8000 ± 0.0707"}
