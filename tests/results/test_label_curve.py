"""The curve of accuracy against the share of labels."""

from typing import Any

from rich.console import Console

from ssat.results.label_curve import curve_table, label_curves
from ssat.results.page.html import render
from tests.results.records import load, make_record


def labelled(mode: str, fraction: float | None, accuracy: float, seed: int = 0) -> dict[str, Any]:
    """A run on a share of the labels; None: the record does not name one."""
    record = make_record(mode, accuracy=accuracy, seed=seed)
    if fraction is not None:
        record["config"]["data"]["label_fraction"] = fraction
        record["hash"] = f"{round(1000 * fraction):04x}{seed:02x}{mode[:2].encode().hex()[:2]}"
    return record


def test_runs_that_differ_in_their_labels_alone_make_a_curve(tmp_path):
    made = [labelled("scratch", 0.01, 20.0), labelled("scratch", 1.0, 80.0), labelled("ssat", 0.01, 40.0)]
    (curve,) = label_curves(load(tmp_path, *made))
    assert curve.fractions == [0.01, 1.0]
    found = {name: {f: arm.accuracy for f, arm in arms.items()} for name, arms in curve.lines.items()}
    assert found == {"scratch": {0.01: 20.0, 1.0: 80.0}, "SSAT": {0.01: 40.0}}


def test_one_share_of_labels_is_no_curve(tmp_path):
    assert label_curves(load(tmp_path, *[labelled("scratch", 0.1, 20.0), labelled("ssat", 0.1, 30.0)])) == []


def test_table_shows_the_deviation_over_seeds_and_leaves_gaps(tmp_path):
    made = [labelled("scratch", 0.05, 20.0), labelled("scratch", 0.05, 22.0, seed=1), labelled("ssat", 1.0, 81.5)]
    (curve,) = label_curves(load(tmp_path, *made))
    console = Console(width=100)
    with console.capture() as captured:
        console.print(curve_table(curve))
    text = captured.get()
    assert "5 %" in text and "100 %" in text
    assert "21.00 ± 1.41" in text and "81.50" in text


def test_page_draws_the_curve(tmp_path):
    records = load(tmp_path, *[labelled("scratch", 0.1, 20.0), labelled("scratch", 1.0, 80.0)])
    page = render(records)
    assert "Accuracy against labels" in page and "% of the labels" in page
    assert "Accuracy against labels" not in render(records[:1])
