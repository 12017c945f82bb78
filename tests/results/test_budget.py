from pathlib import Path

import pytest

from ssat.results.comparisons import comparisons
from ssat.results.page.budget import at_equal_budget, budget_sentence, history_split, metric_points
from ssat.results.page.comparison import comparison_panel
from ssat.results.page.space import PageSpace
from tests.results.records import load, make_record


def spent(mode: str, seconds: list[float], accuracies: list[list[float]], kwh: float = 0.001) -> dict:
    """A run whose phases took `seconds`, each with evaluations evenly spread over it."""
    record = make_record(mode, epochs=4)
    for phase, total, values in zip(record["phases"], seconds, accuracies, strict=True):
        phase["seconds"], phase["energy"] = total, {"kwh": kwh}
        step = total / max(1, len(values))
        phase["history"] = [{"epoch": i, "seconds": step, "test/acc1": value} for i, value in enumerate(values)]
    record["metrics"]["test"]["acc1"]["last"] = accuracies[-1][-1]
    return record


def test_time_and_energy_of_earlier_phases_are_counted(tmp_path: Path):
    [record] = load(tmp_path, spent("ssl_ft", [100.0, 40.0], [[], [50.0, 60.0]]))
    assert list(metric_points(record, "test/acc1", "seconds")) == [(120.0, 50.0), (140.0, 60.0)]
    assert list(metric_points(record, "test/acc1", "wh")) == [(1.5, 50.0), (2.0, 60.0)]
    assert list(metric_points(record, "test/acc1", "epoch")) == [(1, 50.0), (2, 60.0)]


def test_seconds_are_those_of_all_gpus(tmp_path: Path):
    values = spent("scratch", [10.0], [[50.0, 60.0]]) | {"hardware": {"accelerator": "cuda", "processes": 8}}
    [record] = load(tmp_path, values)
    assert list(metric_points(record, "test/acc1", "seconds")) == [(40.0, 50.0), (80.0, 60.0)]


def test_modes_are_compared_at_the_budget_of_the_cheapest(tmp_path: Path):
    runs = [
        spent("scratch", [100.0], [[30.0, 40.0]]),
        spent("ssat", [160.0], [[20.0, 35.0, 45.0, 55.0]]),
        spent("ssl_ft", [100.0, 100.0], [[], [60.0, 70.0]]),
    ]
    [comparison] = comparisons(load(tmp_path, *runs))
    found = at_equal_budget(comparison, "seconds")
    assert (found.cheapest.mode, found.spent) == ("scratch", pytest.approx(100.0))
    assert {arm.mode: y for arm, y in found.reached} == {"scratch": 40.0, "ssat": 35.0, "ssl_ft": None}
    assert budget_sentence(comparison, "seconds") == (
        "With what scratch took (1m40s): scratch 40.0 %, SSL+FT none yet, SSAT 35.0 %."
    )


def validated(mode: str, seconds: list[float], accuracies: list[list[float]]) -> dict:
    """A run under data.val_fraction: the epochs are measured on validation images, the test images at the end."""
    record = spent(mode, seconds, accuracies)
    for phase in record["phases"]:
        phase["history"] = [
            {key.replace("test/", "val/"): value for key, value in row.items()} for row in phase["history"]
        ]
    return record


def test_epochs_measured_on_validation_images_are_compared_and_named(tmp_path: Path):
    runs = [validated("scratch", [100.0], [[30.0, 40.0]]), validated("ssat", [160.0], [[20.0, 35.0, 45.0, 55.0]])]
    [comparison] = comparisons(load(tmp_path, *runs))
    assert [record.split for record in comparison.records] == ["test", "test"]
    assert [history_split(record) for record in comparison.records] == ["val", "val"]
    assert budget_sentence(comparison, "seconds") == (
        "With what scratch took (1m40s), on validation images: scratch 40.0 %, SSAT 35.0 %."
    )
    charts = "".join(comparison_panel(comparison, PageSpace(0), is_open=True).charts)
    assert "Validation accuracy by epoch" in charts and "Validation accuracy by time" in charts
    assert "Test accuracy" not in charts


def test_curves_of_test_images_are_named_so(tmp_path: Path):
    [comparison] = comparisons(load(tmp_path, spent("scratch", [100.0], [[30.0, 40.0]])))
    charts = "".join(comparison_panel(comparison, PageSpace(0), is_open=True).charts)
    assert "Test accuracy by epoch" in charts and "Validation" not in charts


def test_one_mode_has_nothing_to_be_compared_with(tmp_path: Path):
    [comparison] = comparisons(load(tmp_path, spent("scratch", [100.0], [[30.0, 40.0]])))
    assert at_equal_budget(comparison, "wh") is None and budget_sentence(comparison, "wh") == ""
