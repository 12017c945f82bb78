"""Labels of runs, and how long runs have trained: what was run, not what was asked for."""

from __future__ import annotations

import copy
import re
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from ssat.config.resolve import resolve
from ssat.config.words import CONF
from ssat.results.comparisons import comparisons
from ssat.results.epochs import epochs_of_all, epochs_text
from ssat.results.labels import distinct_labels
from ssat.results.page.html import render
from ssat.results.paper.claims import ledger
from ssat.results.paper.paper import read_claims, read_paper, read_text_numbers
from ssat.results.paper.paper_tables import item_counts, total
from ssat.results.paper.verdicts import judge
from ssat.runs.own_phases import own_settings
from ssat.runs.record import Record
from tests.helpers import TINY, record_of, train
from tests.results.records import make_record


@pytest.mark.parametrize(
    ("groups", "labels"),
    [
        ([{"mode.lam": 0.1}, {"mode.lam": 0.5}], ["lam=0.1", "lam=0.5"]),
        (
            [{"epochs": 30, "mode.phases.0.epochs": 30}, {"epochs": 6, "mode.phases.0.epochs": 6}],
            ["epochs=30", "epochs=6"],
        ),
        # The encoder had 8 in both; what differs was read by nothing.
        (
            [
                {"data.patch_size": 2, "encoder.patch_size": 8, "epochs": 1},
                {"data.patch_size": 4, "encoder.patch_size": 8, "epochs": 2},
            ],
            ["epochs=1", "epochs=2"],
        ),
        (
            [{"data.patch_size": 2, "encoder.patch_size": 8}, {"data.patch_size": 8, "encoder.patch_size": 4}],
            ["patch_size=8", "patch_size=4"],
        ),
        (
            [{"data.source.root": f"/one/long/way/to/the/folder/of/images/{name}"} for name in ("cats", "dogs")],
            ["root=…ng/way/to/the/folder/of/images/cats", "root=…ng/way/to/the/folder/of/images/dogs"],
        ),
        # What is null is not what is not there, and a text is not a number.
        ([{"a": 1}, {"a": 1, "b.init_from": None}], ["", "init_from=null"]),
        ([{"a": 0.5}, {"a": "0.5"}, {"a": None}, {"a": "None"}, {"a": "null"}, {}], None),
        ([{"recipe.mixup": 0, "ssl.mixup": 1}, {"recipe.mixup": 1, "ssl.mixup": 0}], None),
        # The first three settings are the same in both of the first groups.
        ([{"a": 1, "b": 1, "c": 1, "d": 1}, {"a": 1, "b": 1, "c": 1, "d": 2}, {"a": 2, "b": 2, "c": 2, "d": 2}], None),
        ([{"data.patch_size": 2, "encoder.patch_size": 8}, {"data.patch_size": 4, "encoder.patch_size": 8}], None),
    ],
)
def test_labels_name_what_was_run_and_are_never_alike(groups: list[dict], labels: list[str] | None) -> None:
    found = distinct_labels(groups)
    assert len(set(found)) == len(groups)
    assert labels is None or found == labels


def test_two_image_folders_of_one_name_have_their_own_titles(tmp_path: Path) -> None:
    roots = [str(tmp_path / "a_very_long_name_of_a_folder_that_is_cut_off" / name) for name in ("cats", "dogs")]
    records = []
    for root in roots:
        values = make_record("ssat", data="image_folder")
        values["config"]["data"] = {"name": "image_folder", "patch_size": 2, "source": {"root": root}}
        values["config"]["encoder"] |= {"patch_size": 8}
        records.append(Record(tmp_path / "g" / root[-4:] / "result.json", "g", values))
    records.append(Record(tmp_path / "g" / "again" / "result.json", "g", copy.deepcopy(records[0].values)))
    records[-1].values["config"]["data"]["patch_size"] = (
        4  # which nothing reads beside the encoder's: the same run twice
    )
    titles = [comparison.title for comparison in comparisons(records)]
    assert [len(arm.records) for each in comparisons(records) for arm in each.arms] == [2, 1]
    assert len(set(titles)) == 2 and "patch_size=2" not in "".join(titles)
    assert all(title.endswith(root[-4:]) for title, root in zip(titles, roots, strict=True))


@pytest.fixture(scope="module")
def cut_runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Record]:
    """Three real runs: stopped by max_steps, shortened in one phase alone, and whole."""
    runs = tmp_path_factory.mktemp("runs")
    words = {
        "stopped": ["mode=ssl_ft", "epochs=30", "trainer.max_steps=15"],
        "override": ["mode=scratch", "epochs=30", "mode.phases.0.epochs=3"],
        "whole": ["mode=scratch", "epochs=2"],
    }
    found = {}
    for name, extra in words.items():
        folder = train(*extra, "reconstruct_every=0", runs=runs)
        found[name] = Record(folder / "result.json", "today", record_of(folder))
    return found


def test_the_report_says_the_epochs_that_were_run(cut_runs: dict[str, Record]) -> None:
    assert "data.samples_per_class=16" in TINY  # 160 images, ten steps an epoch
    texts = {name: epochs_text(record) for name, record in cut_runs.items()}
    assert texts == {
        "stopped": "2 of 30 epochs (15 steps) + 2 of 30 epochs (15 steps)",
        "override": "3 epochs",
        "whole": "2 epochs",
    }
    page = render([*cut_runs.values()]).partition("<h2>Notes")[0]  # a note is on the schedule that was asked for
    assert not re.search(r"(?<!of )30 epochs", page) and "2 of 30 epochs (15 steps)" in page
    stopped, whole = cut_runs["stopped"], cut_runs["whole"]
    named = epochs_of_all([("SSL+FT", stopped), ("scratch", whole), ("SSAT", whole)])
    assert named == f"{texts['stopped']} (SSL+FT), 2 epochs (scratch, SSAT)"


def test_an_override_of_one_phase_is_the_setting_that_was_run(cut_runs: dict[str, Record]) -> None:
    own = {name: own_settings(record.get("config"), record.mode) for name, record in cut_runs.items()}
    assert own == {"stopped": {}, "override": {"epochs": 3}, "whole": {}}
    assert (cut_runs["override"].settings["epochs"], cut_runs["whole"].settings["epochs"]) == (3, 2)


@pytest.mark.parametrize(
    ("mode", "word", "found"),
    [
        ("ssat", "mode.phases.0.lam=0.3", {"mode.lam": 0.3}),
        ("ssl_ft", "mode.phases.0.lam=0.5", {"mode.phases.0.lam": 0.5}),
        ("ssl_ft", "mode.phases.1.epochs=7", {"mode.ft_epochs": 7}),
        ("scratch", "mode.phases.0.frozen=true", {"mode.phases.0.frozen": True}),
        ("ssl_ft_50_50", "epochs=3", {}),
    ],
)
def test_what_a_phase_alone_was_told_stands_where_its_key_stands(mode: str, word: str, found: dict) -> None:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        run = resolve(compose("train", overrides=[*TINY, f"mode={mode}", "++" * (".frozen" in word) + word]))
    assert own_settings(run.values, run.mode.name) == found


def test_each_number_of_the_page_has_one_source() -> None:
    judged = {name: judge(item, []) for name, item in read_paper().items()}
    page = render([], judged, ledger(read_claims(), read_text_numbers(), judged, []))
    overview = dict(re.findall(r'<li><a href="#(\w+)">[^<]+</a>.*?<span>([^<]*)</span></li>', page, re.DOTALL))
    sections = dict(
        re.findall(r'<section id="(\w+)" class="item[^>]*><h2>[^<]+</h2><p class="facts">([^<]*)</p>', page)
    )
    assert overview.keys() == sections.keys() == judged.keys()
    for name, each in judged.items():
        assert overview[name] == item_counts(each)
        assert sections[name] == (f"{len(each.exact)} cells: {overview[name]}" if each.exact else "no numbers")
        assert sum(map(int, re.findall(r"\d+", overview[name]))) == len(each.exact)
    assert total(judged.values()).startswith(f"{sum(len(each.exact) for each in judged.values())} cells")
    assert total(judged.values()) in page


def test_without_a_run_nothing_is_green_or_red() -> None:
    judged = {name: judge(item, []) for name, item in read_paper().items()}
    page = render([], judged)
    style = page[page.index("<style>") : page.index("</style>")]
    coloured = [rule for rule in style.split("}") if re.search(r"var\(--(other|bad)\)", rule)]
    used = set(re.findall(r'class="(?:n )?(v-[\w-]+)"', page))
    assert {"v-as", "v-not"} <= used
    assert not [name for name in used for rule in coloured if re.search(rf"\.{name}[ ,{{]", rule)]
