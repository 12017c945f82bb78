"""The ledger says what is known of a sentence, and no more."""

import pytest

from ssat.results.paper.claims import BY_EYE, CONTRADICTED, NEEDS, NO_EVIDENCE, SUPPORTED, UNDECIDED, derived, ledger
from ssat.results.paper.paper import Cell, Experiment, Item
from ssat.results.paper.verdicts import judge
from ssat.runs.record import Record
from tests.results.records import run_of, write_json

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
        run_of("encoder=vit_t", f"data={data}", "mode=ssat", accuracy=ssat, **more),
        run_of("encoder=vit_t", f"data={data}", "mode=scratch", accuracy=scratch, **more),
    ]


def test_without_runs_there_is_no_evidence_and_the_papers_numbers_are_weighed():
    found = entry(ABOVE, [])
    assert found.status == NO_EVIDENCE and found.paper == "1 of 2 comparisons of its own numbers agree"
    assert found.evidence == "0 of 2 measured" and found.other_runs == ""


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
        run_of("encoder=vit_micro", "data=digits", f"mode={mode}", "epochs=2", accuracy=accuracy, **words)
        for mode, accuracy in (("ssat", 60.0), ("scratch", 90.0))
    ]
    found = entry(ABOVE, small)
    assert found.status == NO_EVIDENCE
    assert found.other_runs == "1 comparison of smaller runs: 1 below; 1 comparison of any runs made so far: 1 below"


def test_a_number_of_the_text_is_computed_from_our_cells_by_the_same_formula():
    text = [
        {"id": "gain", "text": "12.5% better", "where": "section 5", "value": 12.5, "unit": "%",
         "from": {"relative": ["modes/SSAT/CIFAR-10", "modes/scratch/CIFAR-10"]}}
    ]  # fmt: skip
    claim = {"id": "b", "number": "gain"}
    assert entry(claim, [], text).status == NO_EVIDENCE
    found = entry(claim, pair(88.0, 80.0), text)
    assert found.sentence == "12.5% better" and found.evidence == "ours: 10.0 %" and found.paper == "printed: 12.5 %"


def test_a_number_is_supported_where_its_cells_are_reproduced():
    text = [{"id": "gain", "text": "x", "where": "y", "value": 12.5, "unit": "%",
             "from": {"relative": ["modes/SSAT/CIFAR-10", "modes/scratch/CIFAR-10"]}}]  # fmt: skip
    assert entry({"id": "b", "number": "gain"}, pair(90.2, 80.0), text).status == SUPPORTED
    assert entry({"id": "b", "number": "gain"}, pair(88.0, 80.0), text).status == UNDECIDED


@pytest.mark.parametrize(("macs", "status"), [(1e9, UNDECIDED), (2e9, CONTRADICTED)])
def test_networks_are_the_same_at_inference_by_size_and_operations(macs, status):
    claim = {"id": "e", "claim": "x", "same": [["modes/SSAT", "modes/scratch"]]}
    first, second = pair(90.0, 80.0, params={"inference": 5_000_000})
    second.values["phases"] = [{"lam": 1.0, "macs": {"full": macs}}]
    assert entry(claim, [first]).status == NO_EVIDENCE
    found = entry(claim, [first, second])
    assert found.status == status and found.evidence.startswith("1 of 2 measured")
    both = [first, second, *pair(60.0, 55.0, "cifar100", params={"inference": 5_000_000})]
    assert entry(claim, both).status == (SUPPORTED if status == UNDECIDED else CONTRADICTED)


def test_perspective_accuracies_are_compared_above_the_noise(tmp_path):
    cells = {
        (row, "p"): Cell("table2", row, "p", "perspective", "%", number, str(number))
        for row, number in (("SSAT", 40.0), ("scratch", 30.0))
    }
    item = Item("table2", "t", "Table 2", cells, Experiment("modes", MODES.rows, {"p": ["data=cifar10"]}, MODES.base))
    claim = {"id": "f", "claim": "x", "above": [["table2/SSAT", "table2/scratch"]]}
    for ssat, status in ((37.61, UNDECIDED), (39.61, SUPPORTED)):
        records = []
        for record, accuracy in zip(pair(90.0, 80.0), (ssat, 37.60), strict=True):
            folder = tmp_path / f"{record.mode}-{ssat}"
            evaluation = folder / "evaluations" / "last-test-perspective.json"
            write_json(evaluation, {"summary": {"acc1_mean": accuracy}})
            records.append(Record(folder / "result.json", "depths", record.values))
        assert ledger([claim], (), {"table2": judge(item, records)}, records)[0].status == status


def test_more_than_half_of_the_comparisons_decide_a_claim_about_most():
    claim = {"id": "m", "claim": "x", "most": [["modes/SSAT/CIFAR-10", "modes/scratch/CIFAR-10"]] * 2 + [
        ["modes/SSAT/CIFAR-100", "modes/scratch/CIFAR-100"]
    ]}  # fmt: skip
    assert entry(claim, []).status == NO_EVIDENCE
    assert entry(claim, pair(60.0, 50.0, "cifar100")).status == UNDECIDED
    assert entry(claim, pair(90.0, 80.0)).status == SUPPORTED
    mixed = entry(claim, pair(90.0, 80.0) + pair(40.0, 50.0, "cifar100"))
    assert mixed.status == SUPPORTED and mixed.evidence == "3 of 3 measured: 2 above, 1 below"
    assert entry(claim, pair(70.0, 80.0) + pair(60.0, 50.0, "cifar100")).status == CONTRADICTED


def test_a_claim_about_a_gain_compares_differences():
    four = [f"modes/{row}/{column}" for column in MODES.columns for row in ("SSAT", "scratch")]
    claim = {"id": "g", "claim": "x", "gains": [four]}
    found = entry(claim, pair(90.0, 80.0))
    assert found.status == NO_EVIDENCE and found.paper == "1 of 1 comparisons of its own gains agree"
    assert entry(claim, pair(90.0, 70.0) + pair(60.0, 55.0, "cifar100")).status == SUPPORTED
    assert entry(claim, pair(90.0, 80.0) + pair(60.0, 50.2, "cifar100")).status == UNDECIDED
    assert entry(claim, pair(90.0, 85.0) + pair(60.0, 40.0, "cifar100")).status == CONTRADICTED


@pytest.mark.parametrize(
    ("ssat", "scratch", "status"),
    [(90.2, 80.0, SUPPORTED), (88.0, 80.0, UNDECIDED), (70.0, 80.0, CONTRADICTED)],
)
def test_a_claim_that_says_two_things_needs_both(ssat, scratch, status):
    text = [{"id": "gain", "text": "x", "where": "y", "value": 12.5, "unit": "%",
             "from": {"relative": ["modes/SSAT/CIFAR-10", "modes/scratch/CIFAR-10"]}}]  # fmt: skip
    pairs = [["modes/SSAT/CIFAR-10", "modes/scratch/CIFAR-10"]]
    claim = {"id": "b", "claim": "x", "number": "gain", "above": pairs}
    assert entry(claim, [], text).status == NO_EVIDENCE
    found = entry(claim, pair(ssat, scratch), text)
    assert found.status == status and "ours:" in found.evidence and "1 of 1 measured" in found.evidence


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
        ("relative", (72.7, 0.0), float("inf")),
        ("reduction", (88.0, 100.0), 12.0),
        ("difference", (104, 78), 26),
        ("mean", (1, 3), 2),
    ],
)
def test_derived_numbers(kind, values, known):
    assert derived(kind, values) == pytest.approx(known, abs=1e-3)
