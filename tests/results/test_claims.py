"""The ledger says what is known of a sentence, and no more."""

import re
from itertools import product

import pytest

from ssat.results.paper.claims import (
    BY_EYE,
    CONTRADICTED,
    NEEDS,
    NO_EVIDENCE,
    SINGLE,
    SUPPORTED,
    UNDECIDED,
    derived,
    ledger,
)
from ssat.results.paper.measures import PERSPECTIVE, measure, why_not
from ssat.results.paper.paper import Cell, Experiment, Item, read_claims, read_experiment
from ssat.results.paper.paper_tables import judgement, markdown
from ssat.results.paper.settings import cell_words
from ssat.results.paper.verdicts import judge
from ssat.runs.record import Record
from tests.helpers import ROOT
from tests.results.records import run_of, write_json

PERSPECTIVE_CELL = Cell("t", "r", "c", "perspective", "%")
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


def pair(ssat: float, scratch: float, data: str = "cifar10", seeds: int = 3, **more):
    """Runs of both modes with these means, 0.1 points apart from seed to seed."""
    return [
        run_of(
            *("encoder=vit_t", f"data={data}", f"mode={mode}"),
            accuracy=mean + 0.1 * (seed - (seeds - 1) / 2),
            seed=seed,
            **more,
        )
        for mode, mean in (("ssat", ssat), ("scratch", scratch))
        for seed in range(seeds)
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


def test_a_single_seed_neither_supports_nor_contradicts():
    for ssat in (90.0, 70.0):
        found = entry(ABOVE, pair(ssat, 80.0, seeds=1) + pair(60.0, 55.0, "cifar100"))
        assert found.status == SINGLE and "1 one seed only" in found.evidence


def test_small_runs_are_told_apart_and_never_decide():
    words = {"experiment": "modes", "faithful": False}
    small = [
        run_of("encoder=vit_micro", "data=digits", f"mode={mode}", "epochs=2", accuracy=accuracy, seed=seed, **words)
        for mode, accuracy in (("ssat", 60.0), ("scratch", 90.0))
        for seed in (0, 1)
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
    assert found.sentence == "12.5% better" and found.paper == "printed: 12.5 %"
    # Each cell is known to 4.65 points, of which 0.7 and 0.9 are the images': 5.8 % and 6.0 % of the gain.
    assert found.evidence == "ours: 10.0 ± 8.4 %"


def test_a_number_is_supported_where_its_cells_are_reproduced():
    text = [{"id": "gain", "text": "x", "where": "y", "value": 12.5, "unit": "%",
             "from": {"relative": ["modes/SSAT/CIFAR-10", "modes/scratch/CIFAR-10"]}}]  # fmt: skip
    claim = {"id": "b", "number": "gain"}
    assert entry(claim, pair(90.2, 80.0), text).status == SUPPORTED
    assert entry(claim, pair(82.0, 80.0), text).status == CONTRADICTED
    assert entry(claim, pair(70.0, 80.0), text).status == CONTRADICTED
    assert entry(claim, pair(90.2, 80.0, seeds=1), text).status == SINGLE


def hours(row: str, number: float) -> Cell:
    return Cell("modes", row, "Train time", "hours", "GPU h", number, str(number))


@pytest.mark.parametrize(
    ("device", "ours", "seeds", "printed", "status"),
    [
        ("NVIDIA RTX A5000", (78.0, 82.0), 3, 4, CONTRADICTED),  # as the table prints: 4 hours less, the text says more
        ("NVIDIA RTX A5000", (86.0, 82.0), 3, 4, SUPPORTED),  # 4.0 ± 1.4
        ("NVIDIA RTX A5000", (86.0, 82.0), 1, 4, SINGLE),
        ("NVIDIA RTX A5000", (78.0, 82.0), 1, 4, SINGLE),
        ("NVIDIA RTX A5000", (82.0, 82.0), 3, 0.6, UNDECIDED),  # 0.0 holds 0.6, and the other sign as well
        ("NVIDIA RTX A5000", (84.0, 82.0), 3, 4, CONTRADICTED),
        ("NVIDIA H100", (78.0, 82.0), 3, 4, UNDECIDED),  # hours of another machine
    ],
)
def test_a_number_of_the_text_is_compared_with_its_sign(device, ours, seeds, printed, status):
    cells = {(row, "Train time"): hours(row, number) for row, number in (("SSAT", 78.0), ("scratch", 82.0))}
    item = Item(
        "modes", "t", "Table 0", cells, Experiment("modes", MODES.rows, {"Train time": ["data=cifar10"]}, MODES.base)
    )
    text = [
        {
            "id": "more",
            "value": printed,
            "unit": "GPU h",
            "from": {"difference": [f"modes/{row}/Train time" for row in MODES.rows][::-1]},
        }
    ]
    records = pair(90.0, 80.0, seeds=seeds, hardware={"device": device, "accelerator": "cuda", "processes": 1})
    for record, time in zip(records, [time for time in ours for _ in range(seeds)], strict=True):
        record.values["seconds"] = 3600 * (time + 0.1 * record.get("seed") - 0.05 * (seeds - 1))
    found = ledger([{"id": "g", "number": "more"}], text, {"modes": judge(item, records)}, records)[0]
    assert found.status == status


@pytest.mark.parametrize(("macs", "status"), [(1e9, UNDECIDED), (2e9, CONTRADICTED)])
def test_networks_are_the_same_at_inference_by_size_and_operations(macs, status):
    claim = {"id": "e", "claim": "x", "same": [["modes/SSAT", "modes/scratch"]]}
    first, second = pair(90.0, 80.0, seeds=1, params={"inference": 5_000_000})
    second.values["phases"] = [{"lam": 1.0, "macs": {"full": macs}}]
    assert entry(claim, [first]).status == NO_EVIDENCE
    found = entry(claim, [first, second])
    assert found.status == status and found.evidence.startswith("1 of 2 measured")
    both = [first, second, *pair(60.0, 55.0, "cifar100", seeds=1, params={"inference": 5_000_000})]
    assert entry(claim, both).status == (SUPPORTED if status == UNDECIDED else CONTRADICTED)


def evaluation_of(record: Record, accuracy: float, **more):
    """What src.evaluate writes of a run's test images in random perspective."""
    return {
        "hash": record.get("hash"),
        "settings": PERSPECTIVE | {"overrides": []},
        "data_fingerprint": record.get("data_fingerprint"),
        "summary": {"acc1_mean": accuracy},
    } | more


def test_perspective_accuracies_are_compared_above_the_noise(tmp_path):
    cells = {
        (row, "p"): Cell("table2", row, "p", "perspective", "%", number, str(number))
        for row, number in (("SSAT", 40.0), ("scratch", 30.0))
    }
    item = Item("table2", "t", "Table 2", cells, Experiment("modes", MODES.rows, {"p": ["data=cifar10"]}, MODES.base))
    claim = {"id": "f", "claim": "x", "above": [["table2/SSAT", "table2/scratch"]]}
    for ssat, status in ((37.61, UNDECIDED), (39.61, UNDECIDED), (43.61, SUPPORTED), (31.61, CONTRADICTED)):
        records = []
        for record, accuracy in zip(pair(90.0, 80.0, seeds=2), (ssat, ssat + 0.1, 37.60, 37.7), strict=True):
            folder = tmp_path / f"{record.mode}-{ssat}-{record.get('seed')}"
            evaluation = folder / "evaluations" / "last-test-perspective.json"
            write_json(evaluation, evaluation_of(record, accuracy))
            records.append(Record(folder / "result.json", "depths", record.values))
        assert ledger([claim], (), {"table2": judge(item, records)}, records)[0].status == status


@pytest.mark.parametrize(
    "foreign",
    [
        {"hash": "0badf00d"},
        {"settings": PERSPECTIVE | {"checkpoint": "best", "overrides": []}},
        {"settings": PERSPECTIVE | {"seeds": "1", "overrides": []}},
        {"settings": PERSPECTIVE | {"overrides": ["data.fraction=0.1"]}},
        {"data_fingerprint": {"splits": {"test": 10}, "sha256": {}}},
        {"settings": None},
        {"summary": {"acc1_mean": 400}},
    ],
    ids=str,
)
def test_a_perspective_accuracy_of_something_else_is_not_the_runs(tmp_path, foreign):
    run = Record(tmp_path / "result.json", "depths", run_of("encoder=vit_t", "data=cifar10").values | {"hash": "abcd"})
    path = tmp_path / "evaluations" / "last-test-perspective.json"
    write_json(path, evaluation_of(run, 40.0))
    assert measure(PERSPECTIVE_CELL, run) == 40.0
    write_json(path, evaluation_of(run, 40.0, **foreign))
    assert measure(PERSPECTIVE_CELL, run) is None and "last-test-perspective.json" in why_not(PERSPECTIVE_CELL, run)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ({"hash": "0badf00d"}, "it is of another run"),
        ({"settings": PERSPECTIVE | {"checkpoint": "best"}}, "checkpoint=best, not last"),
        *(
            ({"settings": PERSPECTIVE | {"overrides": odd}}, "settings.overrides is no list")
            for odd in (5, True, "seeds=5", {"data.fraction": 0.1})
        ),
        *(
            ({"settings": PERSPECTIVE | {"overrides": [odd]}}, f"it was made with {odd}")
            for odd in (None, 5, ["data.fraction=0.1"], {"a": {"b": 1}})
        ),
        ({"data_fingerprint": {"splits": {"test": 10}, "sha256": {}}}, "it is of 10 images"),
        ({"clean": {"acc1": 50.0}}, "its accuracy on clean images is 50.00 %, and the run's 90.00 %"),
        ({"perturbed": {f"seed {n}": {"acc1": 30.0} for n in range(5)}}, "its mean is 40.00 %"),
        ({"perturbed": {"seed 0": {"acc1": 40.0}}}, "it has 1 accuracies, not 5"),
        ("{", "damaged, not JSON"),
        ([], "it does not say how it was made"),
    ],
    ids=str,
)
def test_a_cell_says_why_an_evaluation_does_not_count(tmp_path, content, why):
    cell = Cell("table2", "SSAT", "p", "perspective", "%", 40.0, "40.0")
    experiment = Experiment("m", {"SSAT": ["mode=ssat"]}, {"p": ["data=cifar10"]}, MODES.base)
    item = Item("table2", "t", "Table 2", {("SSAT", "p"): cell}, experiment)
    values = run_of("encoder=vit_t", "data=cifar10").values | {"hash": "abcd"}
    run = Record(tmp_path / "result.json", "depths", values)
    path = tmp_path / "evaluations" / "last-test-perspective.json"
    whole = {"clean": {"acc1": 90.1}, "perturbed": {f"seed {n}": {"acc1": 38.0 + n} for n in range(5)}}
    assert judgement(judge(item, [run]).exact[0]) == "not run"
    write_json(path, evaluation_of(run, 40.0, **whole))
    assert judge(item, [run]).exact[0].ours == 40.0
    write_json(path, evaluation_of(run, 40.0, **(whole | content)) if isinstance(content, dict) else content)
    found = judge(item, [run]).exact[0]
    assert found.ours is None and why in judgement(found) and judgement(found) in markdown(judge(item, [run]))


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
    [(90.2, 80.0, SUPPORTED), (82.0, 80.0, CONTRADICTED), (70.0, 80.0, CONTRADICTED)],
)
def test_a_claim_that_says_two_things_needs_both(ssat, scratch, status):
    text = [{"id": "gain", "text": "x", "where": "y", "value": 12.5, "unit": "%",
             "from": {"relative": ["modes/SSAT/CIFAR-10", "modes/scratch/CIFAR-10"]}}]  # fmt: skip
    pairs = [["modes/SSAT/CIFAR-10", "modes/scratch/CIFAR-10"]]
    claim = {"id": "b", "claim": "x", "number": "gain", "above": pairs}
    assert entry(claim, [], text).status == NO_EVIDENCE
    found = entry(claim, pair(ssat, scratch), text)
    assert found.status == status and "ours:" in found.evidence and "1 of 1 measured" in found.evidence


def test_no_count_of_the_documentation_is_out_of_date():
    """Every number of claims, and of the runs of a table or figure, is that of the files."""
    pages = {path: path.read_text(encoding="utf-8") for path in (ROOT / "README.md", *(ROOT / "docs").glob("*.md"))}
    for path, text in pages.items():
        for count in re.findall(r"(?<!\w)(\d+) (?:of (?:its|the paper's) )?claims", text):
            assert int(count) == len(read_claims()), path
    rows = re.findall(
        r"^\| ((?:`\w+`(?:, )?)+) \| [^|]* \| ([\d, ]+) \|", pages[ROOT / "docs/reproduce.md"], re.MULTILINE
    )
    counts = {}
    for names, numbers in rows:
        found, listed = re.findall(r"`(\w+)`", names), [int(number) for number in numbers.split(",")]
        counts |= dict(zip(found, listed if len(listed) > 1 else listed * len(found), strict=True))
    assert len(counts) >= 15
    for name, count in counts.items():
        experiment = read_experiment(name)
        places = {*product(experiment.rows, experiment.columns)} - experiment.skip
        assert count == len({cell_words(experiment, *place) for place in places}), name


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
