"""Odd records: whatever a field holds, the report is written, and the record is shown or named as skipped."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ssat.results.analyses import read_analyses
from ssat.results.label_curve import label_curves
from ssat.results.page.analyses import analysis_panels
from ssat.results.page.html import render
from ssat.results.page.space import PageSpace
from ssat.results.tables import runs_table, to_markdown
from ssat.results.terminal import comparison_lines
from ssat.runs.record import Record, read_records, write_text
from tests.results.records import failed_record, make_record, save, write_json

ODD: list[Any] = [None, -1, float("inf"), float("nan"), 1e300, 5e-324, 10**400, "x", "\ud800", True]
ODD += [[], {}, [1], {"0": 1, "a": [2]}]
ANALYSIS = {
    "schema": 1,
    "kind": "analysis",
    "analysis": "distance",
    "encoder": "vit_t",
    "data": "cifar100",
    "images": 10,
    "panels": [{"name": "distance", "x_label": "block", "y_label": "pixels", "x_scale": "log"}],
    "pictures": ["distance.png"],
    "models": [
        {"name": "S", "mode": "ssat", "series": {"distance": {"x": [1, 2], "y": [3, 4]}}, "summary": {"mean": 1.0}}
    ],
}


def paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where a value stands inside nested dictionaries and lists; of a list the first item alone."""
    if path:
        yield path
    items = value.items() if isinstance(value, dict) else enumerate(value[:1]) if isinstance(value, list) else ()
    for key, item in items:
        yield from paths(item, (*path, key))


def changed(values: dict[str, Any], path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    """A copy in which the place `path` holds `value`."""
    new = copy.deepcopy(values)
    holder: Any = new
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] = value
    return new


def base() -> dict[str, Any]:
    record = make_record("ssat", epochs=3, hash="0")
    record["config"]["data"] |= {"label_fraction": 0.5, "val_fraction": None}
    return record


def show_all(records: list[Record], warnings: list[str], page: Path) -> str:
    text = render(records, warnings=warnings, page=page)
    write_text(page, text)
    runs_table(records)
    to_markdown(records)
    list(comparison_lines(records))
    label_curves(records)
    return text


@pytest.mark.sampled
@pytest.mark.parametrize("value", ODD, ids=lambda value: repr(value)[:20])
def test_no_value_of_any_field_stops_the_report(tmp_path: Path, value: Any):
    places = list(paths(base()))
    for seed, place in enumerate(places):
        write_json(tmp_path / "odd" / f"{seed:03d}" / "result.json", changed(base() | {"seed": seed}, place, value))
    records, warnings = read_records(tmp_path)
    text = show_all(records, warnings, tmp_path / "report.html")
    assert len(records) + len(warnings) == len(places) > 100
    assert [place for seed, place in enumerate(places) if f"odd/{seed:03d}" not in text] == []


@pytest.mark.parametrize("value", ODD, ids=lambda value: repr(value)[:20])
def test_no_value_of_an_analysis_stops_the_report(tmp_path: Path, value: Any):
    places = list(paths(ANALYSIS))
    for number, place in enumerate(places):
        write_json(tmp_path / "analyses" / "vit_t" / f"{number}.json", changed(ANALYSIS, place, value))
    analyses, warnings = read_analyses(tmp_path)
    assert len(analyses) + len(warnings) == len(places)
    panels = analysis_panels("distance", analyses, PageSpace(10**6))
    assert len(panels) == sum(analysis.name == "distance" for analysis in analyses) > len(places) / 2


@pytest.mark.parametrize(
    "content", ["[" * 100_000, "{", "\\xff", "[1]", '{"kind": "analysis"}', '{"a": 1' + "0" * 5000 + "}"]
)
def test_a_damaged_analysis_is_named(tmp_path: Path, content: str):
    path = write_json(tmp_path / "analyses" / "vit_t" / "distance.json", content)
    analyses, [warning] = read_analyses(tmp_path)
    assert analyses == [] and warning.startswith(f"{path}: ")


@pytest.mark.parametrize(
    ("place", "value", "wrong"),
    [
        ("metrics.test.acc1.last", 150, "metrics.test.acc1.last"),
        ("metrics.test.acc1.last", -5, "metrics.test.acc1.last"),
        ("metrics.test.acc1.best", "x", "metrics.test.acc1.best"),
        ("metrics.test.acc1.best", 10**400, "metrics.test.acc1.best"),
        ("seed", [1], "seed"),
        ("seed", {}, "seed"),
        ("seed", -1, "seed"),
        ("seed", True, "seed"),
        ("config", 5, "config"),
        ("config", [], "config"),
        ("config.data", None, "config"),
        ("config.data", 3, "config"),
        ("config.data", "x", "config"),
        ("config.data", ["x"], "config"),
        ("config.data.name", ["x"], "config"),
        ("config.data.name", {}, "config"),
        ("data_fingerprint.splits.test", -2, "data_fingerprint.splits.test"),
        ("data_fingerprint.splits.test", 0.5, "data_fingerprint.splits.test"),
        ("status", "running", "status"),
    ],
)
def test_an_impossible_value_is_named_and_the_record_skipped(tmp_path: Path, place: str, value: Any, wrong: str):
    path = tmp_path / "odd" / "run" / "result.json"
    write_json(path, changed(base(), tuple(place.split(".")), value))
    assert read_records(tmp_path) == ([], [f"{path}: {wrong} missing or wrong"])


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("seed", None),
        ("config", None),
        ("metrics.test.acc1.last", None),
        ("metrics.test.acc1.last", 100),
        ("metrics", {}),
        ("data_fingerprint", None),
        ("data_fingerprint.splits.test", None),
        ("seconds", 10**400),
    ],
)
def test_a_value_that_may_be_missing_is_read(tmp_path: Path, place: str, value: Any):
    write_json(tmp_path / "odd" / "run" / "result.json", changed(base(), tuple(place.split(".")), value))
    records, warnings = read_records(tmp_path)
    assert len(records) == 1 and warnings == []


@pytest.mark.parametrize("listed", [5, True, {"a": 1}, ["a\0b"], [["x"]], ["x" * 5000]])
def test_odd_reconstructions_are_no_pictures(tmp_path: Path, listed: Any):
    record = make_record("ssat")
    record["phases"][0]["reconstructions"] = listed
    write_json(tmp_path / "odd" / "run" / "result.json", record)
    assert "<img" not in render(read_records(tmp_path)[0], page=tmp_path / "report.html")


@pytest.mark.parametrize("fraction", [None, "x", [], -1, 2, True])
def test_an_odd_share_of_labels_is_on_no_curve(tmp_path: Path, fraction: Any):
    for share in (fraction, 0.5, 1.0):
        record = make_record("ssat", hash=str(share))
        record["config"]["data"]["label_fraction"] = share
        write_json(tmp_path / "g" / f"run{share}" / "result.json", record)
    [curve] = label_curves(read_records(tmp_path)[0])
    assert curve.fractions == [0.5, 1.0]


def test_a_lone_surrogate_becomes_a_question_mark(tmp_path: Path):
    write_json(tmp_path / "g" / "run" / "result.json", make_record(data="a\ud800b"))
    [record] = read_records(tmp_path)[0]
    assert record.data == "a?b"


def test_a_folder_whose_name_is_no_utf_8_is_linked_by_its_bytes(tmp_path: Path):
    record = save(tmp_path, failed_record()) / "result.json"
    folder = tmp_path / "quickstart" / "caf\udce9"
    record.parent.rename(folder)
    page = tmp_path / "report.html"
    write_text(page, render(read_records(tmp_path)[0], page=page))
    text = page.read_text(encoding="utf-8")
    assert 'href="./quickstart/caf%E9/result.json"' in text and "quickstart/caf?" in text
