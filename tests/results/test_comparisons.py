import math
from pathlib import Path

import pytest

from ssat.results.comparisons import arm_difference, comparisons, finding
from ssat.results.intervals import ABOVE, NOISE, Difference
from ssat.results.page.comparison import comparison_panel
from ssat.results.page.space import PageSpace
from ssat.runs.record import read_records
from tests.results.records import failed_record, load, make_record, save

LARGE = {"name": "digits", "splits": {"train": 5000, "test": 10_000}, "sha256": {"test": "aa"}}


def arms_of(records: list) -> dict:
    [comparison] = comparisons(records)
    return {arm.mode: arm for arm in comparison.arms}


def test_a_win_beyond_the_noise_is_called_without_excuses(tmp_path: Path):
    runs = [
        make_record(mode, accuracy=accuracy + 0.1 * seed, seed=seed, data_fingerprint=LARGE)
        for mode, accuracy in (("scratch", 69.9), ("ssl_ft", 71.9), ("ssat", 75.9))
        for seed in range(3)
    ]
    assert finding(load(tmp_path, *runs)) == (
        "SSAT reaches 76.0 % on 10,000 test images: 6.0 ± 2.8 points above scratch and 4.0 ± 2.8 points above SSL+FT."
    )


def test_a_loss_on_a_short_run_says_what_sets_it_apart_from_the_paper(tmp_path: Path):
    runs = [
        make_record(mode, accuracy=accuracy, data_fingerprint=LARGE)
        for mode, accuracy in (("scratch", 76.0), ("ssat", 70.0))
    ]
    assert finding(load(tmp_path, *runs)) == (
        "SSAT reaches 70.0 % on 10,000 test images: 6.0 ± 6.4 points below scratch (within the noise, one seed only). "
        "Keep in mind: it trained 12 epochs on 5,000 images (the paper: 100 epochs), the classification loss has a "
        "weight of only 0.1 and there is a single seed."
    )


@pytest.mark.parametrize("accuracy", [78.0, 82.0, 80.0])
def test_a_difference_within_the_noise_is_no_win_and_no_loss(tmp_path: Path, accuracy: float):
    text = finding(load(tmp_path, make_record("scratch", accuracy=80.0), make_record("ssat", accuracy=accuracy)))
    assert "(within the noise, one seed only)" in text and "Keep in mind" in text


def test_an_accuracy_at_chance_is_called_guessing(tmp_path: Path):
    text = finding(load(tmp_path, make_record("scratch", accuracy=40.0), make_record("ssat", accuracy=11.0)))
    assert "Keep in mind: this is no better than guessing one of 10 classes (10 %)" in text


def test_the_paper_length_is_not_called_short(tmp_path: Path):
    runs = [make_record("scratch", epochs=100, accuracy=90), make_record("ssat", epochs=100, accuracy=50)]
    assert "it trained" not in finding(load(tmp_path, *runs))


@pytest.mark.parametrize(
    ("modes", "expected"),
    [
        (["ssat"], "there is no finished scratch or SSL+FT run"),
        (["scratch", "ssl_ft"], "No finished SSAT run to compare with scratch 80.0 %, SSL+FT 80.0 %."),
        ([], "No finished run with an accuracy"),
    ],
)
def test_missing_modes_are_said_to_be_missing(tmp_path: Path, modes: list[str], expected: str):
    records = load(tmp_path, *(make_record(mode) for mode in modes), failed_record("ssat", hash="0"))
    assert expected in finding(records)


def test_the_uncertainty_of_a_difference_of_single_seeds_is_binomial_and_the_assumed_one(tmp_path: Path):
    arms = arms_of(load(tmp_path, make_record("scratch", accuracy=50.0), make_record("ssat", accuracy=75.0)))
    p, q = 181 / 362, 271 / 362  # 180 and 270 of 360 images right, one right and one wrong added
    by_hand = 196 * math.sqrt(p * (1 - p) / 362 + q * (1 - q) / 362)
    gap = arm_difference(arms["ssat"], arms["scratch"])
    of_seeds = 2.2281 * 2 * math.sqrt(2)  # t of 10 degrees of freedom, a deviation of 2 on both sides
    assert gap.points == 25.0 and gap.uncertainty == pytest.approx(math.hypot(by_hand, of_seeds), rel=1e-3)
    assert not gap.is_noise and gap.sign == "one seed only"


def test_the_seeds_variation_widens_the_uncertainty(tmp_path: Path):
    runs = [make_record("scratch"), *(make_record("ssat", seed=seed, accuracy=70.0 + 10 * seed) for seed in range(3))]
    arms = arms_of(load(tmp_path, *runs))
    gap = arm_difference(arms["ssat"], arms["scratch"])
    p = 289 / 362  # both 80 %
    of_images = 196 * math.sqrt(2 * p * (1 - p) / 362)
    # Two squares of SSAT's seeds, each 10 * 10, beside three assumed ones of 2 * 2: t of 5 degrees of freedom.
    of_seeds = 2.5706 * math.sqrt((3 * 4 + 2 * 100) / 5 * (1 / 3 + 1))
    assert gap.uncertainty == pytest.approx(math.hypot(of_images, of_seeds), rel=1e-3)
    assert gap.one_seed and gap.sign == "within the noise"
    more = [make_record("scratch", seed=seed, accuracy=79.0 + seed, hash=f"{seed}") for seed in (1, 2)]
    both = arm_difference(*(arms_of(load(tmp_path, *runs, *more))[mode] for mode in ("ssat", "scratch")))
    pooled = 2.3646 * math.sqrt((3 * 4 + 2 * 100 + 2 * 1) / 7 * (1 / 3 + 1 / 3))
    assert not both.one_seed and both.uncertainty == pytest.approx(math.hypot(of_images, pooled), rel=5e-3)


def test_without_a_known_number_of_images_no_uncertainty_is_made_up(tmp_path: Path):
    runs = [make_record(mode, data_fingerprint=None, accuracy=80.0 + len(mode)) for mode in ("scratch", "ssat")]
    text = finding(load(tmp_path, *runs))
    assert "3.0 points below scratch." in text and "±" not in text


def test_the_interval_of_an_accuracy_is_wilsons(tmp_path: Path):
    arm = arms_of(load(tmp_path, make_record(accuracy=100.0)))["ssat"]
    low, high = arm.interval
    assert high == pytest.approx(100.0)
    assert low == pytest.approx(100 * 360 / (360 + 1.96**2), rel=1e-4)  # n / (n + z^2) when all are right


def test_the_same_run_in_two_groups_counts_once(tmp_path: Path):
    for group in ("a", "b"):
        save(tmp_path, make_record(), group=group)
    [comparison] = comparisons(read_records(tmp_path)[0])
    assert comparison.arms[0].accuracies == [80.0] and len(comparison.arms[0].records) == 2


def test_two_runs_of_a_seed_are_said_and_count_by_their_mean_in_any_order(tmp_path: Path):
    runs = [
        make_record("scratch", accuracy=60.0),
        *(make_record(accuracy=a, hash=h) for a, h in ((79.5, "a"), (30.0, "b"))),
    ]
    records = load(tmp_path, *runs)
    for found in (records, records[::-1]):
        [comparison] = comparisons(found)
        [arm] = comparison.scored_arms("ssat")
        assert arm.accuracies == [54.75] and [record.accuracy for record in arm.scored] == [79.5, 30.0]
        assert "Counted by their mean: SSAT, 2 runs of seed 0: 79.5, 30.0." in finding(found)
        panel = comparison_panel(comparison, PageSpace(0), is_open=True)
        folders = ", ".join(f"quickstart/vit_micro-digits-ssat-s0-{name}" for name in "ab")
        assert panel.repeats == [f"SSAT, 2 runs of seed 0: 79.5, 30.0 ({folders})"]


def test_runs_of_different_recipes_are_not_compared(tmp_path: Path):
    scratch, ssat = make_record("scratch"), make_record("ssat")
    ssat["config"]["recipe"] = ssat["config"]["recipe"] | {"base_lr": 0.01}
    titles = [comparison.title for comparison in comparisons(load(tmp_path, scratch, ssat))]
    assert titles == ["vit_micro on digits, base_lr=0.001", "vit_micro on digits, base_lr=0.01"]


def test_a_list_among_the_settings_is_shown_whole(tmp_path: Path):
    scratch, ssat = make_record("scratch"), make_record("ssat")
    for record, betas in ((scratch, [0.9, 0.999]), (ssat, [0.9, 0.95])):
        record["config"]["recipe"] = record["config"]["recipe"] | {"betas": betas}
    titles = [comparison.title for comparison in comparisons(load(tmp_path, scratch, ssat))]
    assert titles == ["vit_micro on digits, betas=[0.9, 0.999]", "vit_micro on digits, betas=[0.9, 0.95]"]


def test_runs_on_other_images_are_not_compared(tmp_path: Path):
    records = load(tmp_path, make_record("scratch"), make_record("ssat", data_fingerprint=LARGE))
    assert len(comparisons(records)) == 2


def test_a_failed_run_stands_beside_the_runs_of_its_settings(tmp_path: Path):
    [comparison] = comparisons(load(tmp_path, make_record("scratch"), failed_record("ssat")))
    assert [arm.mode for arm in comparison.arms] == ["scratch", "ssat"]


def test_the_best_of_several_settings_is_not_called_the_result(tmp_path: Path):
    runs = [make_record("scratch", accuracy=78.0)]
    for lam, accuracy in ((0.1, 75.0), (0.5, 81.0)):
        run = make_record("ssat", accuracy=accuracy, hash=str(lam))
        run["config"]["mode"]["lam"] = lam
        runs.append(run)
    records = load(tmp_path, *runs)
    said = finding(records)
    assert "2 settings of SSAT end between 75.0 and 81.0 %, beside scratch 78.0 %" in said
    assert "SSAT (lam=0.1): 3.0 ± " in said and "points below scratch" in said and "SSAT (lam=0.5): 3.0 ± " in said
    assert [arm.name for arm in comparisons(records)[0].arms] == ["scratch", "SSAT (lam=0.1)", "SSAT (lam=0.5)"]


def test_seeds_that_draw_the_labels_of_both_sides_are_matched(tmp_path: Path):
    """Draws that are easy or hard for both modes say little of the difference."""
    for fraction, uncertainty in ((1.0, 16.14), (0.01, 7.88)):
        runs = []
        for seed, (scratch, ssat) in enumerate(((40.0, 55.0), (60.0, 74.0), (50.0, 66.0))):
            for mode, accuracy in (("scratch", scratch), ("ssat", ssat)):
                run = make_record(mode, seed=seed, accuracy=accuracy)
                run["config"]["data"]["label_fraction"] = fraction
                runs.append(run)
        [comparison] = comparisons(load(tmp_path / str(fraction), *runs))
        difference = arm_difference(comparison.arms[1], comparison.arms[0])
        assert difference.points == pytest.approx(15)
        assert difference.uncertainty == pytest.approx(uncertainty, abs=0.01)


def test_few_labels_and_epochs_of_another_size_are_said(tmp_path: Path):
    scratch, ssat = make_record("scratch", accuracy=50.0), make_record("ssat", accuracy=50.0)
    for run in (scratch, ssat):
        run["config"]["data"] |= {"label_fraction": 0.01, "epoch_size": 704}
        run["phases"][-1]["data_check"] = {"labelled": {"images": 14}}
        run["data_fingerprint"]["splits"]["train"] = 1437
    said = finding(load(tmp_path, scratch, ssat))
    assert "test images, with labels of 14 of 1,437 training images: " in said and " of 704 images (the paper" in said


def test_a_difference_that_is_printed_as_wide_as_its_interval_is_within_the_noise() -> None:
    assert Difference(8.24, 8.16).sign == NOISE and str(Difference(8.24, 8.16)) == "8.2 ± 8.2 points above"
    assert Difference(8.26, 8.16).sign == ABOVE
