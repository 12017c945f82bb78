"""The paper's numbers, its claims and the experiment files: against its text, against each other, and composed."""

import math
import os
import re
from functools import cache
from itertools import product
from pathlib import Path

import pytest
import yaml
from hydra import compose, initialize_config_dir

from ssat.config.identity import config_hash
from ssat.config.resolve import resolve
from ssat.config.schema import Run
from ssat.config.words import CONF, words_of_cell
from ssat.core.words import flatten
from ssat.data.sets.catalog import CATALOG
from ssat.runs.footprint import lacoste_co2

EXPERIMENTS = CONF.parent / "experiments"
SHARED = Path(os.environ.get("SSAT_SHARED", Path(__file__).resolve().parents[3] / "shared"))
NUMBERS = yaml.safe_load((EXPERIMENTS / "paper_numbers.yaml").read_text(encoding="utf-8"))
CLAIMS = yaml.safe_load((EXPERIMENTS / "claims.yaml").read_text(encoding="utf-8"))
TEXT = NUMBERS.pop("text")
TABLES = [f"table{number}" for number in range(1, 15)]
FIGURES = [f"figure{number}" for number in (1, 3, 4, 5, 6, 7, 8, 9, 10, 12)]
MEASURES = {
    "acc1", "params_inference", "params_training", "gflops", "hours", "co2_kg_lacoste", "perspective",
    "train_images", "test_images", "classes", "img_size", "videos", "zero_shot", "setting",
}  # fmt: skip
ACCURACIES = ("acc1", "perspective", "zero_shot")
OTHERS = {"table8": ["Cross-efficient-vit", "DFDC winner"]}  # rows of other people's networks

# Counted by hand in the paper; a cell that spans several rows (Tables 7 and 9) counts in each of them.
CELLS = {
    "table1": 9 * 5, "table2": 4 * 3, "table3": 6 * 6, "table4": 3 * 2, "table5": 6 * 2, "table6": 5 * 3,
    "table7": 8 * 4 - 2, "table8": 2 * 4 + 5 * 8, "table9": 10 * 4, "table10": 5 * 2, "table11": 4 * 2,
    "table12": 5 * 2, "table13": 4 * 6, "table14": 41,
}  # fmt: skip
RUNS = {
    "table1": 36, "table2": 8, "table3": 18, "table4": 6, "table5": 12, "table6": 15, "table7": 14, "table8": 24,
    "table9": 10, "table10": 10, "table11": 8, "table12": 10, "table13": 0, "table14": 0, "figure1": 24,
    "figure3": 12, "figure4": 8, "figure5": 10, "figure6": 6, "figure7": 6, "figure8": 6, "figure9": 3,
    "figure10": 3, "figure12": 6,
}  # fmt: skip


@cache
def experiment(name: str) -> dict:
    content = yaml.safe_load((EXPERIMENTS / f"{name}.yaml").read_text(encoding="utf-8"))
    base = [
        f"{group.removeprefix('override /')}={option}"
        for entry in content.get("defaults", [])
        for group, option in entry.items()
    ]
    base += [f"{key}={value}" for key, value in flatten(content).items() if key.startswith("trainer.")]
    return content["hydra"]["sweeper"] | {"base": base, "experiment": content["experiment"]}


def words(name: str, row: str, column: str) -> list[str]:
    """The overrides of one cell."""
    each = experiment(name)
    of_cell = words_of_cell(each.get("cells"), row, column)
    return [*each["base"], *each["rows"][row], *each["columns"][column], *of_cell]


def jobs(name: str) -> dict[frozenset, tuple[str, str]]:
    """The different override lists that the experiment runs, each with a cell that it serves."""
    each = experiment(name)
    if each.get("trains_nothing"):
        return {}
    places = [place for place in product(each["rows"], each["columns"]) if " / ".join(place) not in each["skip"]]
    return {frozenset(words(name, *place)): place for place in reversed(places)}


def composed(overrides: list[str] | frozenset) -> Run:
    """The run that the overrides of a cell give, in any order."""
    return _composed(frozenset(overrides))


@cache
def _composed(overrides: frozenset) -> Run:
    ordered = sorted(
        overrides, key=lambda word: ("." in word.split("=")[0], word)
    )  # groups decide which keys there are
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return resolve(compose("train", overrides=ordered))


def cell(reference: str) -> dict:
    """The cell that table/row/column names, as {value, shown, ...}; empty where the paper prints nothing."""
    name, row, column = reference.split("/")
    value = (NUMBERS[name]["rows"][row] or {}).get(column)
    return value if isinstance(value, dict) else {"value": value} if value is not None else {}


def shown(value) -> str:
    """A cell as printed."""
    if isinstance(value, dict):
        return str(value["shown"]) if "shown" in value else str(value["value"])
    return "-" if value is None else str(value)


def measure(name: str, column: str) -> str:
    return (NUMBERS[name]["columns"][column] or {}).get("measure", "acc1")


def derived(kind: str, references: list[str]) -> float:
    a, b = (cell(reference)["value"] for reference in references)
    return {
        "relative": 100 * (a / b - 1), "reduction": 100 * (1 - a / b), "difference": a - b, "mean": (a + b) / 2
    }[kind]  # fmt: skip


def decimals(value: float) -> int:
    return len(str(value).partition(".")[2])


# The files agree with each other


def test_every_table_and_every_figure_with_data_has_numbers_and_an_experiment() -> None:
    assert list(NUMBERS) == [*TABLES, *FIGURES]
    assert all((EXPERIMENTS / f"{name}.yaml").is_file() for name in NUMBERS)
    assert all(experiment(name)["experiment"] == name for name in NUMBERS)


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_and_experiment_name_the_same_rows_and_columns(name: str) -> None:
    ours = [str(row) for row in NUMBERS[name]["rows"] if row not in OTHERS.get(name, ())]
    assert ours == [str(row) for row in experiment(name)["rows"]]
    assert list(NUMBERS[name]["columns"]) == list(experiment(name)["columns"])
    used = {column for row in NUMBERS[name]["rows"].values() for column in row or {}} - {"key"}
    assert used <= set(NUMBERS[name]["columns"])
    assert not [row for row in NUMBERS[name]["rows"] if "/" in row]


@pytest.mark.parametrize("name", NUMBERS)
def test_skip_and_notes_name_existing_cells(name: str) -> None:
    rows, columns = experiment(name)["rows"], experiment(name)["columns"]
    assert set(experiment(name)["skip"]) <= {" / ".join(place) for place in product(rows, columns)}
    for note in NUMBERS[name].get("notes", []):
        assert note["text"]
        assert note.get("row", next(iter(rows))) in [*rows, *OTHERS.get(name, ())]
        assert note.get("column", next(iter(columns))) in columns


@pytest.mark.parametrize("name", NUMBERS)
def test_no_printed_cell_is_skipped_and_no_empty_one_of_a_table_is_run(name: str) -> None:
    each = experiment(name)
    for row, column in product(each["rows"], each["columns"]):
        is_printed = bool(cell(f"{name}/{row}/{column}"))
        if f"{row} / {column}" in each["skip"]:
            assert not is_printed
        elif name in TABLES and not each.get("trains_nothing"):
            assert is_printed


def test_measures_are_known() -> None:
    assert {measure(name, column) for name in NUMBERS for column in NUMBERS[name]["columns"]} <= MEASURES


@pytest.mark.parametrize("name", NUMBERS)
def test_two_rows_or_two_accuracy_columns_never_run_the_same(name: str) -> None:
    each = experiment(name)
    if each.get("trains_nothing"):
        return
    rows = [frozenset(row) for row in each["rows"].values()]
    assert len(set(rows)) == len(rows)
    # A clean and a perturbed accuracy come from the same run.
    for kind in ("acc1", "perspective"):
        columns = [frozenset(words) for column, words in each["columns"].items() if measure(name, column) == kind]
        assert len(set(columns)) == len(columns)


# The headers


@pytest.mark.parametrize("name", NUMBERS)
def test_the_header_says_the_number_of_runs_and_the_commands(name: str) -> None:
    header = "".join(
        line for line in (EXPERIMENTS / f"{name}.yaml").read_text().splitlines(True) if line.startswith("#")
    )
    assert len(jobs(name)) == RUNS[name]
    kind, number = re.fullmatch(r"(table|figure)(\d+)", name).groups()
    assert header.startswith(f"# @package _global_\n# {kind.title()} {number}: ")
    if experiment(name).get("trains_nothing"):
        assert "Nothing is run" in header
        return
    assert f"= {RUNS[name]} runs of " in header
    assert f"python -m src.train +experiments={name}\n" in header or f"+experiments={name} " in header
    assert f"# Cost: python -m src.train +experiments={name} estimate=true\n" in header
    assert f"python -m src.report {name}\n" in header
    for data in {word.split("=")[1] for job in jobs(name) for word in job if word.startswith("data=")}:
        assert data in header or name == "table9"


# The experiments compose


@cache
def few_jobs() -> list[frozenset]:
    """Jobs in which every override of every experiment, and every row of four and more of them, occurs."""
    covers: dict[frozenset, set] = {}
    for name in NUMBERS:
        for overrides, (row, _) in jobs(name).items():
            row_words = experiment(name)["rows"][row]
            whole_row = {frozenset(row_words)} if len(row_words) > 3 else set()
            covers[overrides] = covers.get(overrides, set()) | overrides | whole_row
    chosen, missing = [], set().union(*covers.values())
    in_order = sorted(covers, key=sorted)
    while missing:
        best = max(in_order, key=lambda overrides: len(covers[overrides] & missing))
        missing -= covers[best]
        chosen.append(best)
    return chosen


@pytest.mark.parametrize("third", [0, *(pytest.param(third, marks=pytest.mark.slow) for third in (1, 2))])
def test_every_override_of_every_experiment_composes_and_passes_the_checks(third: int) -> None:
    chosen = few_jobs()[third::3]  # the first ones have most of the overrides each
    assert len({config_hash(composed(overrides)) for overrides in chosen}) > 12


@pytest.mark.slow
def test_every_run_of_every_experiment_composes_and_no_two_runs_of_one_compute_the_same() -> None:
    hashes: dict[frozenset, str] = {}
    for name in NUMBERS:
        for overrides in jobs(name):
            hashes[overrides] = hashes.get(overrides) or config_hash(composed(overrides))
        own = [hashes[overrides] for overrides in jobs(name)]
        assert len(set(own)) == len(own), name


@pytest.mark.parametrize("name", ["table3", "table5", "table6", "table7", "table10", "figure3", "figure5"])
def test_every_row_states_every_key_that_a_row_varies(name: str) -> None:
    rows, column = experiment(name)["rows"], list(experiment(name)["columns"])[-1]
    keys = {word.split("=")[0] for row in rows.values() for word in row} - {"encoder.name"}  # said by encoder=
    for row, overrides in rows.items():
        unsaid = keys - {word.split("=")[0] for word in overrides}
        known = flatten(dict(composed(words(name, row, column)).values)) if unsaid else {}
        assert not {key for key in unsaid if "." not in key or key in known}, f"{name}: {row}"


def test_the_same_network_is_trained_once_for_several_tables() -> None:
    same = [
        [("table1", "ViT-T + SSAT", "CIFAR-10"), ("table3", "Ours", "CIFAR-10"), ("table4", "MAE", "CIFAR-10"),
         ("table9", "CIFAR-10", "Train Size"), ("table10", "2", "CIFAR-10"), ("table11", "128", "CIFAR-10"),
         ("table12", "16", "CIFAR-10"), ("figure1", "ViT-T on CIFAR-10", "SSAT"), ("figure3", "0.1", "CIFAR-10")],
        [("table1", "CVT-13 + SSAT", "CIFAR-100"), ("table7", "CVT-13 + SSAT", "CIFAR-100")],
        [("table2", "ViT-T", "IN-1K"), ("figure5", "100", "Scratch"), ("figure12", "IN-1K", "Scratch")],
        [("table1", "ViT-T + SSAT", "CIFAR-100"), ("figure4", "100", "SSAT"), ("figure8", "CIFAR-100", "SSAT")],
        [("table5", "ViT-T Scratch + SSAT", "PMNIST"), ("table9", "PMNIST", "Dimensions")],
    ]  # fmt: skip
    for cells in same:
        assert len({config_hash(composed(words(*place))) for place in cells}) == 1, cells


def test_settings_of_table_14_are_those_of_the_recipe_or_have_a_note() -> None:
    noted = {note["row"] for note in NUMBERS["table14"]["notes"]}
    differing = set()
    for row, values in NUMBERS["table14"]["rows"].items():
        if "key" not in values:
            assert row in noted
            continue
        value: object = composed([*experiment("table14")["base"], *experiment("table14")["rows"][row]]).values
        for part in values["key"].split("."):
            value = value[part]
        printed = values["Value"]
        if value != (printed["value"] if isinstance(printed, dict) else printed):
            differing.add(row)
    assert differing == {"layer-wise lr decay"}
    assert differing <= noted


@pytest.mark.parametrize(
    ("row", "names"),
    [
        ("CIFAR10, CIFAR100, SVHN", ("cifar10", "cifar100", "svhn")),
        ("Flowers, ImageNet-1K, ClipArt, Infograph, Sketch", ("flowers", "imagenet", "clipart", "infograph", "sketch")),
    ],
)
def test_data_sets_that_share_a_row_of_table_14_have_the_same_size(row: str, names: tuple[str, ...]) -> None:
    size = NUMBERS["table14"]["rows"][f"Input Size, {row}"]["Value"]["value"]
    assert {CATALOG[name].img_size for name in names} == {size}


# The numbers agree with the paper


@pytest.mark.parametrize("name", CELLS)
def test_a_table_has_as_many_cells_as_the_paper_prints(name: str) -> None:
    cells = [(row, c) for row, values in NUMBERS[name]["rows"].items() for c in values if cell(f"{name}/{row}/{c}")]
    assert len([place for place in cells if place[1] != "key"]) == CELLS[name]


@cache
def paper() -> str:
    path = SHARED / "paper" / "paper.txt"
    if not path.is_file():
        pytest.skip(f"needs {path} (set SSAT_SHARED to the folder that holds paper/)")
    text = re.sub(r"\\mathcal\{L\}_\{(\w+)\}", r"L_\1", path.read_text(encoding="utf-8"))
    for latex, letter in ((r"\beta", "β"), (r"\lambda", "λ"), ("$", "")):
        text = text.replace(latex, letter)
    return text


def printed_lines(number: int) -> list[list[str]]:
    """The lines of a table in the paper's text, split at the tabs."""
    lines = paper().splitlines()
    start = next(index for index, line in enumerate(lines) if line.startswith(f"Table {number}. "))
    block = []
    for line in lines[start + 1 :]:
        if "\t" in line:
            block.append(line.split("\t"))
        elif line.strip():
            break
    return block


@pytest.mark.parametrize("number", range(1, 14))
def test_every_cell_is_printed_in_its_row_and_column(number: int) -> None:
    name, width = f"table{number}", len(NUMBERS[f"table{number}"]["columns"])
    tails = [line[-width:] for line in printed_lines(number)]
    number_or_gap = re.compile(r"(-|[\d.,×+]*M?( \(\+[\d.]+\))?)")
    lines = [tail for tail in tails if any(tail) and all(number_or_gap.fullmatch(field) for field in tail)]
    rows = list(NUMBERS[name]["rows"].values())
    assert len(lines) == len(rows)
    for row, fields in zip(rows, lines, strict=True):
        ours = [shown(row.get(column)) for column in NUMBERS[name]["columns"]]
        theirs = [field.split(" ")[0] for field in fields]
        # An empty field belongs to a cell that spans several lines.
        assert [a for a, b in zip(ours, theirs, strict=True) if b] == [b for b in theirs if b]


def test_the_gains_of_table_1_are_printed_there() -> None:
    gains = re.findall(r"\(\+([\d.]+)\)", "\n".join("\t".join(line) for line in printed_lines(1)))
    assert [float(gain) for gain in gains] == [each["value"] for each in TEXT if each["id"].startswith("gain-")]


def test_every_setting_is_printed_in_table_14() -> None:
    block = " ".join(" ".join(line) for line in printed_lines(14))
    assert not [row for row, values in NUMBERS["table14"]["rows"].items() if shown(values["Value"]) not in block]


def is_quoted(sentence: str) -> bool:
    """Whether the paper has it, whole or as two parts that a figure or a page break divides."""
    text, found = " ".join(paper().split()), sentence.split()
    return any(
        " ".join(found[:split]) in text and " ".join(found[split:]) in text for split in range(len(found), 0, -1)
    )


def test_the_numbers_of_the_text_stand_in_the_sentences_quoted() -> None:
    for each in TEXT:
        assert is_quoted(each["text"]), each["id"]
        number = str(each.get("shown", each["value"]))
        for part in number.split(" + "):
            assert part in each["text"], each["id"]


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim["id"])
def test_claims_are_quoted(claim: dict) -> None:
    assert all(is_quoted(part) for part in claim["claim"].split("[...]"))


# The numbers agree with each other, or a note says that they do not


@pytest.mark.parametrize("each", [each for each in TEXT if "from" in each], ids=lambda each: each["id"])
def test_a_number_of_the_text_follows_from_the_tables_or_has_a_note(each: dict) -> None:
    ((kind, references),) = each["from"].items()
    ours = derived(kind, references)
    follows = abs(ours - each["value"]) <= 0.5 * 10 ** -decimals(each["value"]) + 1e-9
    assert follows or each.get("note"), f"{each['id']}: {ours}"


def test_exactly_three_numbers_of_the_text_do_not_follow_from_the_tables() -> None:
    wrong = {
        each["id"]
        for each in TEXT
        if "from" in each
        for kind, references in each["from"].items()
        if round(derived(kind, references), decimals(each["value"])) != each["value"]
    }
    assert wrong == {"relative-vit-s-imagenet", "additional-hours", "additional-co2"}


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_takes_its_numbers_from_the_tables(name: str) -> None:
    table_numbers = {
        f"Table {name.removeprefix('table')}": {
            cell(f"{name}/{row}/{column}").get("value") for row, values in NUMBERS[name]["rows"].items()
            for column in values if measure(name, column) == "acc1"
        }
        for name in ("table1", "table2", "table3")
    }  # fmt: skip
    for row, values in NUMBERS[name]["rows"].items():
        for column, value in values.items():
            assert value["value"] in table_numbers[value["from"]], (row, column)


def test_lacostes_formula_gives_table_3_but_for_the_noted_cell() -> None:
    def kilograms(hours: float) -> float:
        return lacoste_co2(hours, devices=1, tdp_watts=230, intensity=0.432)

    rows = NUMBERS["table3"]["rows"]
    wrong = [
        row for row, v in rows.items() if not math.isclose(kilograms(v["Train time"]), v["Kg CO2 eq."], abs_tol=0.0051)
    ]
    assert wrong == ["Ours"]
    assert any(n.get("row") == "Ours" and n.get("column") == "Kg CO2 eq." for n in NUMBERS["table3"]["notes"])


def test_table_13_adds_up() -> None:
    rows = NUMBERS["table13"]["rows"]
    for row in rows.values():
        assert sum(row.values()) == 2 * row["Total"]
    for column, total in rows["Total"].items():
        assert sum(rows[split][column] for split in ("Train", "Val", "Test")) == total


def test_sizes_of_table_9_are_the_official_ones_or_have_a_note() -> None:
    noted = {(note["row"], note["column"]) for note in NUMBERS["table9"]["notes"]}
    for row, overrides in experiment("table9")["rows"].items():
        card = CATALOG[overrides[0].removeprefix("data=")]
        train = card.train + ((card.val or 0) if card.trains_on_val else 0)
        official = {"Train Size": train, "Test Size": card.test, "Dimensions": card.img_size, "# Classes": card.classes}
        wrong = {column for column in official if cell(f"table9/{row}/{column}")["value"] != official[column]}
        assert {(row, column) for column in wrong} <= noted
        assert wrong == {"ImageNet-1K": {"Test Size"}, "Sketch": {"Train Size", "Test Size"}}.get(row, set())


# The claims


def pairs(claim: dict) -> list[tuple[str, str]]:
    """The cells that a claim compares, the first to be the higher."""
    found = []
    for higher, lower in claim.get("above") or claim["most"]:
        name, row, *column = higher.split("/")
        columns = column or [c for c in NUMBERS[name]["columns"] if measure(name, c) in ACCURACIES]
        other = lower.split("/")
        for each in columns:
            pair = f"{name}/{row}/{each}", "/".join([*other[:2], *(other[2:] or [each])])
            if name not in TABLES or all(map(cell, pair)):
                found.append(pair)
    return found


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim["id"])
def test_a_claim_names_one_kind_of_evidence_and_it_exists(claim: dict) -> None:
    kinds = {"above", "most", "gains", "same", "number", "needs"}
    assert set(claim) <= {"id", "claim", "where", "modes", "note", *kinds}
    assert kinds & set(claim) in [*({kind} for kind in kinds), {"above", "number"}]
    assert claim["claim"] and claim["where"]
    if "number" in claim:
        assert claim["number"] in {each["id"] for each in TEXT if "from" in each}
    compared = [pair for kind in ("above", "most", "gains", "same") for pair in claim.get(kind, [])]
    if compared:
        for pair in compared:
            for name, row, *column in (reference.split("/") for reference in pair):
                assert row in NUMBERS[name]["rows"], pair
                assert set(column) <= set(NUMBERS[name]["columns"]), pair
        assert not {"same", "gains"}.isdisjoint(claim) or len(pairs(claim)) >= len(compared)
    assert all(len(four) == 4 and all(map(cell, four)) for four in claim.get("gains", []))


@pytest.mark.parametrize("claim", [c for c in CLAIMS if {"above", "most"} & {*c}], ids=lambda claim: claim["id"])
def test_a_claim_that_the_papers_own_numbers_contradict_has_a_note(claim: dict) -> None:
    known = [(cell(a), cell(b)) for a, b in pairs(claim) if cell(a) and cell(b)]
    against = [pair for pair in known if pair[0]["value"] <= pair[1]["value"]]
    assert not against or claim.get("note")


def test_the_papers_own_numbers_contradict_four_of_its_comparisons() -> None:
    against = {
        claim["id"]: len([1 for a, b in pairs(claim) if cell(a) and cell(b) and cell(a)["value"] <= cell(b)["value"]])
        for claim in CLAIMS
        if {"above", "most"} & {*claim}
    }
    assert {key: count for key, count in against.items() if count} == {
        "cvt-is-best": 2,
        "resnet-below-most": 3,
        "best-heads": 1,
        "video-generalises": 3,
    }


def test_ids_are_unique() -> None:
    for entries in (CLAIMS, TEXT):
        ids = [each["id"] for each in entries]
        assert len(set(ids)) == len(ids)
