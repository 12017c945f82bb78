"""Learning curves with more labels than were measured: known laws, coverage of simulated curves, refusals."""

import numpy as np
import pytest

from benchmarks.label_curve import compare, run_curves
from ssat.results.extrapolation import Point, extrapolate
from tests.results.records import load, make_record

SHARES = (0.02, 0.04, 0.08, 0.16, 0.32)


def accuracy(share: float, *, a: float = 0.1, b: float = 0.4, c: float = 0.0) -> float:
    """In percent, of the law error = a * share^-b + c."""
    return 100 * (1 - a * share**-b - c)


@pytest.mark.parametrize(("b", "c"), [(0.3, 0.0), (0.5, 0.0), (0.5, 0.1), (1.0, 0.05)])
def test_points_of_an_exact_power_law_are_continued(b, c):
    a = 0.3 * 0.02**b
    points = [Point(share, [accuracy(share, a=a, b=b, c=c)] * 8, 100_000) for share in SHARES]
    for found in extrapolate(points, [0.64, 1.6]):
        truth = accuracy(found.labels, a=a, b=b, c=c)
        assert found.low < truth < found.high
        assert found.accuracy == pytest.approx(truth, abs=1.5)


@pytest.mark.parametrize("law", ["power", "floor", "logarithm"])
def test_the_interval_holds_later_runs_of_simulated_curves(law):
    generator = np.random.default_rng(0)
    hits = []
    for _ in range(60):
        a, b = generator.uniform(0.03, 0.12), generator.uniform(0.2, 0.6)
        c = generator.uniform(0, 0.2) if law == "floor" else 0.0
        curve = {}
        for share in (*SHARES, 0.64):
            truth = 60 + 100 * a * np.log(share / 0.02) if law == "logarithm" else accuracy(share, a=a, b=b, c=c)
            curve[share] = np.clip(truth + generator.normal(size=3), 0, 100).tolist()
        hits += [inside for times, inside, _, _ in compare(curve, 1000) if times < 2.1]
    assert len(hits) == 60 * 3 * 3
    assert np.mean(hits) > 0.85


def test_the_interval_is_wider_further_out_and_with_fewer_seeds():
    three = [Point(share, [accuracy(share) + d for d in (-1, 0, 1)], 1000) for share in SHARES]
    one = [Point(share, [accuracy(share)], 1000) for share in SHARES]
    near, far = extrapolate(three, [0.64, 1.6])
    alone, _ = extrapolate(one, [0.64, 1.6])
    assert far.high - far.low > near.high - near.low
    assert alone.high - alone.low > near.high - near.low


def test_accuracies_stay_between_0_and_100_and_repeat_exactly():
    points = [Point(share, [value], 50) for share, value in ((0.1, 90.0), (0.2, 98.0), (0.4, 100.0))]
    found = extrapolate(points, [0.8, 2.0])
    assert all(0 <= each.low <= each.accuracy <= each.high <= 100 for each in found)
    assert extrapolate(points[::-1], [0.8, 2.0]) == found


def test_accuracy_that_falls_with_labels_is_continued_as_a_constant():
    points = [Point(share, [value] * 3, 10_000) for share, value in ((0.1, 62.0), (0.2, 61.0), (0.4, 60.0))]
    (found,) = extrapolate(points, [0.8])
    assert found.low < 61 < found.high and found.accuracy == pytest.approx(61, abs=1)


def test_accuracy_that_falls_far_is_not_extrapolated():
    points = [Point(share, [value] * 3, 10_000) for share, value in ((0.1, 90.0), (0.2, 60.0), (0.4, 30.0))]
    with pytest.raises(ValueError, match="its accuracy falls with more labels"):
        extrapolate(points, [0.8])


def test_unknown_test_images_are_no_obstacle():
    (found,) = extrapolate([Point(share, [accuracy(share)]) for share in SHARES], [0.64])
    assert found.low < accuracy(0.64) < found.high


def test_fewer_than_three_counts_are_refused():
    points = [Point(0.1, [50.0]), Point(0.2, [60.0]), Point(0.2, [61.0])]
    with pytest.raises(ValueError, match="2 of at least 3 shares of the labels are measured"):
        extrapolate(points, [0.4])


def test_the_benchmark_reads_the_runs_of_a_folder_whatever_their_epochs(tmp_path):
    made = []
    for number, share in enumerate(SHARES):
        record = make_record("scratch", accuracy=accuracy(share), epochs=10 - number)
        record["config"]["data"]["label_fraction"] = share
        made.append(record | {"hash": f"{number:08d}"})
    load(tmp_path, *made)
    ((name, curve, images),) = run_curves(tmp_path)
    assert (name, images) == ("vit_micro on digits, scratch", 360)
    assert curve == {share: [pytest.approx(accuracy(share))] for share in SHARES}
    assert [round(times) for times, *_ in compare(curve, images)] == [2, 4, 2]
