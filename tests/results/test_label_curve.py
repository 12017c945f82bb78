"""The curve of accuracy against the share of labels."""

import re
from typing import Any

from rich.console import Console

from ssat.results.label_curve import curve_table, label_curves, next_labels
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
    table = page.partition('aria-label="Table of labels"')[2].partition("</table>")[0]
    assert re.findall(r"<t[hd](?: [^>]*)?>([^<]*)<", table) == ["labels", "10 %", "100 %", "scratch", "20.00", "80.00"]
    assert 'class="mode m-scratch"' in table
    assert "Accuracy against labels" not in render(records[:1])


def curve_of(tmp_path, accuracies: dict[float, tuple[float, ...]], mode: str = "ssat"):
    """The curve of runs with these accuracies, one for each seed, by their share of the labels."""
    made = [labelled(mode, f, a, seed) for f, found in accuracies.items() for seed, a in enumerate(found)]
    (curve,) = label_curves(load(tmp_path, *made))
    return curve


def test_the_next_labels_are_told_with_their_number_and_an_interval(tmp_path):
    curve = curve_of(tmp_path, {0.25: (60.0, 61.0), 0.5: (70.0, 71.0), 1.0: (77.5, 78.5)})
    twice, five, told = next_labels(curve)
    assert twice.startswith("With twice the labels (2 x 1,437, more than the training set has): SSAT 8")
    assert re.search(r"SSAT \d\d\.\d % \(\d\d\.\d to \d\d\.\d\)$", twice)
    assert five.startswith("With five times the labels (5 x 1,437, more than the training set has): SSAT ")
    assert "90 %" in told


def test_labels_that_the_set_still_has_are_not_called_more(tmp_path):
    twice, five, _ = next_labels(curve_of(tmp_path, {0.1: (60.0,), 0.2: (70.0,), 0.4: (77.0,)}))
    assert "(2 x 40 %)" in twice and "(5 x 40 %, more than the training set has)" in five


def test_two_shares_are_left_out_with_the_reason(tmp_path):
    curve = curve_of(tmp_path, {0.5: (70.0,), 1.0: (78.0,)})
    assert next_labels(curve) == ["SSAT is not extrapolated: 2 of at least 3 shares of the labels are measured"]
    assert [line.name for line in curve.series] == ["SSAT"]


def test_the_page_draws_the_extrapolation_pale_and_says_it(tmp_path):
    made = [labelled("ssat", f, a) for f, a in ((0.25, 60.0), (0.5, 70.0), (1.0, 77.0))]
    page = render(load(tmp_path, *made))
    assert 'class="band m-ssat"' in page and 'data-name="SSAT, extrapolated"' in page
    assert "With twice the labels (2 x 1,437, more than the training set has): SSAT" in page
