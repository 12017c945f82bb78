"""The advice: time as it is typed, rounds of pilots within their time, curves whose end is known, and what is said."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from ssat.advise.advice import Advice, Row, decide
from ssat.advise.budget import Round, plan_rounds, read_pilots, read_time
from ssat.advise.candidates import Candidate, grid, refuse_ours
from ssat.advise.expect import BEND, OWN_BEND, OWN_SLOPE, SLOPE, SLOPE_SPREAD, Expected, Point, expect, points_of
from ssat.advise.pilots import configured
from ssat.advise.plan import Asked, folder_name
from ssat.advise.prices import Price, epochs_in, evened, seconds_of
from ssat.advise.show import sentence
from ssat.commands.advise import parse
from ssat.core.errors import UserError

# ---- time ----


@pytest.mark.parametrize(
    ("text", "seconds"), [("2h", 7200), ("30m", 1800), ("90s", 90), ("1h30m", 5400), ("1.5h", 5400), ("2m5s", 125)]
)
def test_a_time_is_read_in_seconds(text: str, seconds: float) -> None:
    assert read_time("budget", text) == seconds


@pytest.mark.parametrize("text", ["", "2", "h", "-1h", "0s", "2d", "2h30", "1e400s", "nan", "30m2h"])
def test_what_is_no_time_is_refused_in_a_sentence(text: str) -> None:
    with pytest.raises(UserError, match=f"budget={text} is not a time: write hours, minutes or seconds"):
        read_time("budget", text)


@pytest.mark.parametrize(("text", "seconds"), [("0.2", 20), ("50%", 50), ("1", 100), ("1m", 60)])
def test_pilots_take_a_share_of_the_budget_or_a_time(text: str, seconds: float) -> None:
    assert read_pilots(text, 100) == pytest.approx(seconds)


def test_phases_share_the_time_and_have_whole_epochs() -> None:
    prices = [Price(fixed=1, epoch=2), Price(fixed=2, epoch=3)]
    assert epochs_in(prices, 20) == [4, 2]
    assert seconds_of(prices, [4, 2]) == 17
    assert epochs_in(prices, 2) == [1, 1]  # never none


def test_a_candidate_that_was_timed_in_a_busy_moment_is_not_dearer() -> None:
    busy, idle = Price(fixed=4, epoch=2), Price(fixed=2, epoch=1)  # the same work, with half the CPU and with all of it
    first, second = evened([busy, idle], [0.5, 1.0])
    assert first == second == Price(pytest.approx(2 / 0.75), pytest.approx(1 / 0.75))


# ---- rounds ----


def cost_of(rounds: list[Round], budget: float) -> float:
    return sum(each.share * budget * each.entrants * each.seeds for each in rounds)


@pytest.mark.parametrize("candidates", [2, 4, 5, 9])
@pytest.mark.parametrize("share", [0.05, 0.2, 0.5, 1.0])
def test_rounds_take_no_more_than_the_time_of_the_pilots(candidates: int, share: float) -> None:
    rounds = plan_rounds(candidates, budget=7200, pilots=7200 * share, shortest=5)
    assert cost_of(rounds, 7200) <= 7200 * share * (1 + 1e-9)
    assert all(each.share <= 1 for each in rounds)


def test_each_round_has_half_the_others_and_pilots_of_twice_the_length() -> None:
    rounds = plan_rounds(5, budget=7200, pilots=3600, shortest=5)
    assert [each.entrants for each in rounds] == [5, 3, 2]
    assert [each.share / rounds[0].share for each in rounds] == pytest.approx([1, 2, 4])
    assert cost_of(rounds, 7200) == pytest.approx(3600)


def test_the_last_round_has_two_seeds_where_its_pilots_are_long() -> None:
    seeds = [
        [each.seeds for each in plan_rounds(4, budget=7200, pilots=7200 * share, shortest=5)] for share in (0.5, 1)
    ]
    assert seeds == [[1, 1, 1], [1, 1, 2]]


def test_little_time_makes_fewer_rounds() -> None:
    counts = [len(plan_rounds(4, budget=100, pilots=50, shortest=shortest)) for shortest in (1, 2, 5)]
    assert counts == [3, 2, 1]
    assert plan_rounds(4, budget=100, pilots=50, shortest=12) == [Round(0.125, 4, 1)]


def test_pilots_are_never_longer_than_the_training() -> None:
    assert plan_rounds(2, budget=10, pilots=1000, shortest=0.1)[-1].share == 1


def test_a_budget_that_fits_no_pilot_says_how_long_it_needs() -> None:
    with pytest.raises(UserError, match="budget=10 s is too small for a single pilot.* it needs at least 13s"):
        plan_rounds(4, budget=10, pilots=5, shortest=12.5)
    with pytest.raises(UserError, match="pilots=20 s is too small for 4 candidates.* at least pilots=52s"):
        plan_rounds(4, budget=100, pilots=20, shortest=12.5)


# ---- what is expected ----


def at(odds: float) -> float:
    return 100 / (1 + math.exp(-odds))


def test_curves_that_are_straight_in_log_odds_are_continued_exactly() -> None:
    levels, slopes = (1.5, 2.0), (0.35, 0.30)
    points = [
        Point(number, share, at(levels[number] + slopes[number] * math.log2(share)), 1e-6)
        for number in (0, 1)
        for share in (0.125, 0.25, 0.5)
    ]
    found = expect(points)
    assert found[0].accuracy == pytest.approx(at(1.5), abs=0.05)
    assert found[1].gain == pytest.approx(at(2.0) - at(1.5), abs=0.1)
    assert found[1].gain_low < found[1].gain < found[1].gain_high


def test_pilots_of_the_whole_budget_are_not_extrapolated() -> None:
    found = expect([Point(0, 1.0, 80.0, 1.0), Point(1, 1.0, 84.0, 1.0)])
    assert found[1].gain == pytest.approx(4.0, abs=0.1)
    half = 1.96 * math.sqrt(2)
    assert found[1].gain_high - found[1].gain_low == pytest.approx(2 * half, rel=0.05)


def test_intervals_widen_with_every_doubling_beyond_the_pilots() -> None:
    widths = []
    for longest in (1.0, 0.5, 0.125):
        points = [Point(number, longest * part, 80.0, 1.0) for number in (0, 1) for part in (0.5, 1.0)]
        found = expect(points)[1]
        widths.append(found.gain_high - found.gain_low)
    assert widths == sorted(widths) and widths[0] * 2 < widths[-1]


def test_scratch_gains_nothing_over_itself() -> None:
    found = expect([Point(0, 0.1, 50.0, 4.0), Point(1, 0.1, 55.0, 4.0)])[0]
    assert (found.gain, found.gain_low, found.gain_high) == (0, 0, 0)


def test_the_interval_holds_the_gain_of_19_in_20_simulated_searches() -> None:
    """Levels, slopes, bends and noise are drawn as the model has them; the truth is the curve's end."""
    random, covered, searches, deviation = np.random.default_rng(7), 0, 200, 2.0
    for _ in range(searches):
        common = random.normal(SLOPE, SLOPE_SPREAD)
        slopes = common + random.normal(0, OWN_SLOPE, 2)
        levels, points = random.uniform(0.0, 2.0, 2), []
        for number in (0, 1):
            for share in (0.05, 0.1):
                right = at(levels[number] + slopes[number] * math.log2(share))
                points.append(Point(number, share, float(right + random.normal(0, deviation)), deviation**2))
        beyond = math.log2(10)
        bend = random.normal(0, BEND) + random.normal(0, OWN_BEND, 2)
        gain = at(levels[1] + bend[1] * beyond) - at(levels[0] + bend[0] * beyond)
        covered += expect(points)[1].gain_low <= gain <= expect(points)[1].gain_high
    assert covered >= 0.9 * searches  # four deviations of a binomial below 95 %


def test_the_variance_of_a_point_is_that_of_seeds_and_images() -> None:
    points, freedom = points_of({(0, 0.5): [80.0, 82.0], (1, 0.5): [70.0]}, images=400)
    # The default deviation of 2 points counts as three degrees of freedom; the two seeds add one of variance 2.
    of_seeds = (3 * 4 + 2) / 4
    assert freedom == 4
    of_images = 1e4 * (0.7 * 400 + 1) / 402 * (1 - (0.7 * 400 + 1) / 402) / 402
    assert points[0].variance < points[1].variance == pytest.approx(of_seeds + of_images)


# ---- the advice ----


def expected(accuracy: float, gain: float, low: float, high: float) -> Expected:
    return Expected(accuracy, accuracy - 5, accuracy + 5, gain, low, high)


def advice(**by_name: Expected) -> Advice:
    rows = [Row(Candidate(name, ()), [], [1], 1.0, value, f"train {name}") for name, value in by_name.items()]
    likely, advised, is_decided = decide(dict(enumerate(by_name.values())), range(len(rows)))
    return Advice(Path("."), rows, advised, likely, is_decided)


SCRATCH = expected(80.0, 0.0, 0.0, 0.0)


def test_a_gain_above_the_noise_is_advised_with_its_interval() -> None:
    found = advice(scratch=SCRATCH, SSAT=expected(82.1, 2.1, 0.3, 4.0))
    assert sentence(found) == "SSAT is expected to gain 2.1 points over scratch (0.3 to 4.0): train with"
    assert found.rows[found.advised].command == "train SSAT"


def test_a_gain_within_the_noise_is_undecided_and_advises_scratch() -> None:
    found = advice(scratch=SCRATCH, SSAT=expected(81.0, 1.0, -2.0, 4.0))
    assert sentence(found) == (
        "undecided: the pilots differ by less than what is not known of them; SSAT is the best guess with +1.0 points"
        " (-2.0 to 4.0), and scratch has the fewest parts: train with"
    )
    assert found.rows[found.advised].command == "train scratch" and not found.is_decided


def test_scratch_is_decided_only_where_all_others_are_below_it() -> None:
    below = expected(75.0, -5.0, -9.0, -1.0)
    assert sentence(advice(scratch=SCRATCH, SSAT=below)) == (
        "scratch is expected to be ahead of the others by at least 5.0 points: train with"
    )
    found = advice(scratch=SCRATCH, SSAT=below, both=expected(79.0, -1.0, -4.0, 2.0))
    assert not found.is_decided and "scratch is also expected to be highest" in sentence(found)


# ---- candidates and words ----


def test_few_labels_add_batches_that_are_half_labelled() -> None:
    names = [candidate.name for candidate in grid(["0.1", "0.5"], label_fraction=1.0)]
    assert names == ["scratch", "SSL+FT", "SSAT, lambda 0.1", "SSAT, lambda 0.5"]
    few = grid(["0.1", "0.5"], label_fraction=0.05)
    assert [candidate.words[2:] for candidate in few if "mode=ssat" in candidate.words] == [
        ("data.labelled_share=0.5",),
        (),
        ("data.labelled_share=0.5",),
    ]
    own = grid(["0.1"], label_fraction=0.05, share="data.labelled_share=0.25")
    assert [candidate.words[2:] for candidate in own[2:]] == [("data.labelled_share=0.25",)]


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ([], "say how long the final training may take: budget=2h, 30m or 90s"),
        (["budget=soon"], "budget=soon is not a time"),
        (["budget=1h", "pilots=twice"], "pilots=twice is not a time"),
        (["budget=1h", "lam=2"], "lam=2 is not possible: give different weights between 0 and 1"),
        (["budget=1h", "mode=ssat"], "mode is not possible here, advise tries the modes itself: leave it out"),
        (["budget=1h", "mode.lam=0.3"], "mode.lam is not possible here"),
        (["budget=1h", "recipe.lam=0.3"], "recipe.lam is not possible here, lam= lists the weights that it tries"),
        (["budget=1h", "epochs=3"], "epochs is not possible here, budget= says how long the training is"),
        (["budget=1h", "-m"], "-m is no key of advise"),
    ],
)
def test_a_wrong_word_is_refused_in_a_sentence(words: list[str], problem: str) -> None:
    with pytest.raises(UserError) as error:
        parse(words)
    assert str(error.value).startswith(problem)


def test_the_words_of_an_experiment_file_are_refused() -> None:
    with pytest.raises(UserError, match="experiments is not possible here, the rows and columns"):
        refuse_ours(["+experiments=evidence"])


def test_equal_weights_in_other_words_are_refused() -> None:
    with pytest.raises(UserError, match="give different weights"):
        parse(["budget=1h", "lam=0.1,0.10"])
    assert parse(["budget=1h", "lam=0.10,5e-1"]).lams == ("0.1", "0.5")


def test_the_last_of_a_repeated_key_decides_where_the_pilots_lie() -> None:
    config = configured(["encoder=vit_micro", "data=digits", "mode=scratch"])
    small, large = "recipe.batch_size=16", "recipe.batch_size=32"
    first, second, alone = (
        folder_name(config, Asked(words, 60.0, 30.0, ("0.1",))) for words in ((small, large), (large, small), (large,))
    )
    assert first == alone != second
