"""The ledger says what is known of a sentence, and no more."""

import pytest

from src.results.claims import BY_EYE, CONTRADICTED, NEEDS, NO_EVIDENCE, SUPPORTED, UNDECIDED, derived, ledger
from src.results.paper import Cell, Experiment, Item
from src.results.verdicts import judge
from tests.results.test_cells import run

MODES = Experiment(
    "modes",
    rows={"scratch": ["mode=scratch"], "SSAT": ["mode=ssat"]},
    columns={"CIFAR-10": ["data=cifar10"], "CIFAR-100": ["data=cifar100"]},
    base=["encoder=vit_t"],
)
PRINTED = {"scratch": (80.0, 55.0), "SSAT": (90.0, 50.0)}
CELLS = {
    (row, column): Cell("modes", row, column, "acc1", "%", number, str(number))
    for row, numbers in PRINTED.items()
    for column, number in zip(MODES.columns, numbers, strict=True)
}
ITEM = Item("modes", "Modes", "Table 0", CELLS, MODES)
ABOVE = {"id": "a", "claim": "SSAT improves", "above": [["modes/SSAT", "modes/scratch"]], "modes": ["ssat", "scratch"]}


def entry(claim, records, text=()):
    return ledger([claim], text, {"modes": judge(ITEM, records)}, records)[0]


def pair(ssat: float, scratch: float, data: str = "cifar10", **more):
    return [
        run("encoder=vit_t", f"data={data}", "mode=ssat", accuracy=ssat, **more),
        run("encoder=vit_t", f"data={data}", "mode=scratch", accuracy=scratch, **more),
    ]


def test_without_runs_there_is_no_evidence_and_the_papers_numbers_are_weighed():
    found = entry(ABOVE, [])
    assert found.status == NO_EVIDENCE and found.paper == "1 of 2 comparisons of its own numbers agree"
    assert found.evidence == "0 of 2 measured" and found.small == ""


def test_one_of_two_comparisons_is_not_yet_support():
    found = entry(ABOVE, pair(90.0, 80.0))
    assert found.status == UNDECIDED and found.evidence == "1 of 2 measured: 1 above"


def test_all_comparisons_above_the_noise_support_the_claim():
    assert entry(ABOVE, pair(90.0, 80.0) + pair(60.0, 55.0, "cifar100")).status == SUPPORTED


def test_a_difference_within_the_noise_decides_nothing():
    found = entry(ABOVE, pair(80.2, 80.0) + pair(60.0, 55.0, "cifar100"))
    assert found.status == UNDECIDED and "1 within the noise" in found.evidence


def test_one_comparison_below_contradicts_the_claim():
    assert entry(ABOVE, pair(70.0, 80.0) + pair(60.0, 55.0, "cifar100")).status == CONTRADICTED


def test_small_runs_are_told_apart_and_never_decide():
    words = {"experiment": "modes", "faithful": False}
    small = [
        run("encoder=vit_micro", "data=digits", f"mode={mode}", "epochs=2", accuracy=accuracy, **words)
        for mode, accuracy in (("ssat", 60.0), ("scratch", 90.0))
    ]
    found = entry(ABOVE, small)
    assert found.status == NO_EVIDENCE
    assert found.small == "1 comparisons of smaller runs: 1 below; 1 comparisons of any runs made so far: 1 below"


def test_a_number_of_the_text_is_computed_from_our_cells_by_the_same_formula():
    text = [
        {"id": "gain", "text": "12.5% better", "where": "section 5", "value": 12.5, "unit": "%",
         "from": {"relative": ["modes/SSAT/CIFAR-10", "modes/scratch/CIFAR-10"]}}
    ]  # fmt: skip
    claim = {"id": "b", "number": "gain"}
    assert entry(claim, [], text).status == NO_EVIDENCE
    found = entry(claim, pair(88.0, 80.0), text)
    assert found.sentence == "12.5% better" and found.evidence == "ours: 10.0 %" and found.paper == "printed: 12.5 %"


def test_a_claim_without_a_measure_says_what_it_needs():
    assert entry({"id": "c", "claim": "x", "needs": "video data"}, []).status == NEEDS


def test_a_claim_on_a_figure_is_to_be_looked_at_once_its_analysis_was_made():
    claim = {"id": "d", "claim": "x", "needs": "analysis attention"}
    assert entry(claim, []).status == NO_EVIDENCE
    [made] = ledger([claim], (), {}, [], {"attention": ["vit_t on flowers"]})
    assert made.status == BY_EYE and "vit_t on flowers" in made.evidence


@pytest.mark.parametrize(
    ("kind", "values", "known"),
    [
        ("relative", (72.7, 65.0), 11.846),
        ("reduction", (88.0, 100.0), 12.0),
        ("difference", (104, 78), 26),
        ("mean", (1, 3), 2),
    ],
)
def test_derived_numbers(kind, values, known):
    assert derived(kind, values) == pytest.approx(known, abs=1e-3)
