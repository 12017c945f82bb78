"""The page: what it shows, that it is one file, that nothing from a record becomes markup, and how large it gets."""

import base64
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from ssat.results.comparisons import finished_comparisons
from ssat.results.page.charts import bar_chart, line_chart, ticks
from ssat.results.page.classes import class_counts
from ssat.results.page.html import render
from ssat.results.page.measures import measured
from ssat.results.page.pictures import embeddable
from ssat.results.series import Bar, Series
from ssat.runs.record import read_records
from tests.results.records import failed_record, load, make_record, noise_png, save, write_json

VOID = {"meta", "img", "br", "wbr", "hr", "link", "input"}


class Outline(HTMLParser):
    """Checks that every element is closed in order; collects tags and text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(attrs) == len(dict(attrs)), f"an attribute twice in {tag}: {attrs}"
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        return "".join(self.texts)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    for mode, accuracy in (("scratch", 85.0), ("ssl_ft", 83.1), ("ssat", 81.9)):
        save(tmp_path, make_record(mode, accuracy=accuracy), picture=noise_png(64, 24))
    save(tmp_path, failed_record("ssat", hash="deadbeef"))
    return tmp_path


@pytest.fixture
def page(runs: Path) -> str:
    records, warnings = read_records(runs)
    return render(records, warnings=warnings, page=runs / "report.html")


def test_the_page_is_well_formed(page: str):
    outline = Outline(page)
    assert outline.open == [] and page.startswith("<!doctype html>")


def test_the_page_loads_nothing_from_outside(page: str):
    assert "http://" not in page and "https://" not in page and "@import" not in page
    outline = Outline(page)
    assert not outline.all("link") and not outline.all("iframe")
    assert all(not attributes.get("src") for attributes in outline.all("script"))
    assert all(attributes["src"].startswith("data:image/png;base64,") for attributes in outline.all("img"))
    [policy] = [a["content"] for a in outline.all("meta") if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none'")


def test_three_runs_make_less_than_a_megabyte(page: str):
    assert len(page.encode()) < 1_000_000


def test_every_run_is_in_the_table_with_a_link_to_its_record(page: str, runs: Path):
    links = [a["href"] for a in Outline(page).all("a") if not a["href"].startswith("#")]
    assert sorted((runs / link).resolve() for link in links) == sorted(
        path.resolve() for path in runs.rglob("result.json")
    )


def test_a_failed_run_is_listed_with_its_error(page: str):
    assert "vit_micro-digits-ssat-s0-deadbeef: UserError: the loss became nan at step 7" in Outline(page).text


def test_a_damaged_file_stands_in_the_list_of_skipped_files(runs: Path):
    damaged = write_json(runs / "bad" / "run" / "result.json", "{")
    records, warnings = read_records(runs)
    text = Outline(render(records, warnings=warnings)).text
    skipped = text.partition("Files that were skipped")[2].partition("Notes")[0]
    assert skipped.split("\n")[0] == f"{damaged}: damaged, not JSON"


def test_without_damaged_files_there_is_no_list_of_them(page: str):
    assert "Files that were skipped" not in page


def test_a_run_without_a_record_is_listed_as_unfinished(runs: Path):
    text = Outline(render(read_records(runs)[0], unfinished=["table1/begun"])).text
    assert "table1/begun: not finished (the same command continues it)" in text.partition("Runs that did not finish")[2]


def test_the_page_shows_verdict_bars_curves_and_reconstructions(page: str):
    text = Outline(page).text
    said = "SSAT reaches 81.9 % on 360 test images: 3.1 ± 8.3 points below scratch (within the noise, one seed only)"
    assert said in text
    assert "−3.1 points to scratch" in text and "codecarbon, modelled from CPU load, USA" in text
    assert "cannot be read as a cell" not in text and "hence it is optimistic" in text
    outline = Outline(page)
    assert sum(attributes.get("class") == "chart" for attributes in outline.all("figure")) == 4
    assert len(outline.all("img")) == 2  # scratch has none


def test_pictures_and_charts_say_what_they_show(page: str):
    outline = Outline(page)
    assert all(attributes.get("alt") for attributes in outline.all("img"))
    labels = [attributes["aria-label"] for attributes in outline.all("svg") if attributes.get("role") == "img"]
    assert "scratch ends at 85; SSL+FT ends at 83.1; SSAT ends at 81.9" in labels[0]


def test_fine_tuning_follows_pre_training_on_the_axis_of_seconds(page: str):
    outline = Outline(page)
    first_x = [float(a["points"].split(",")[0]) for a in outline.all("polyline") if a.get("data-name") == "SSL+FT"]
    by_epoch, by_seconds = first_x[:2]
    assert by_epoch < 80 and by_seconds > 165  # of 46 to 308: at epoch 1 of 12, at second 40 of 73


def test_text_from_a_record_cannot_become_markup(tmp_path: Path):
    evil = "<script>alert(1)</script>\"'&"
    record = make_record("ssat", hash="1", data=evil, encoder=evil, git_commit=evil, unfaithful_reasons=[evil])
    record["hardware"]["device"] = record["energy"]["source"] = record["phases"][0]["name"] = evil
    strange = make_record(evil, hash="2", data=evil)
    page = render(load(tmp_path, record, strange, failed_record(error=evil)), warnings=[evil], page=tmp_path / "r.html")
    assert page.count("<script>") == 1  # the page's own
    assert "&lt;script&gt;alert(1)" in page
    assert Outline(page).open == []


@pytest.mark.parametrize(
    "broken", [{"phases": None}, {"metrics": None}, {"config": None}, {"energy": 3}, {"seed": None}]
)
def test_a_record_with_parts_missing_is_still_shown(tmp_path: Path, broken: dict):
    records = load(tmp_path, make_record("scratch"), make_record("ssat", hash="x"))
    records[1].values.update(broken)
    outline = Outline(render(records, page=tmp_path / "report.html"))
    shown = outline.text.partition("All runs")[2]
    assert outline.open == [] and all(f"{record.group}/{record.folder.name}" in shown for record in records)


def test_a_history_with_holes_is_drawn_where_it_has_values(tmp_path: Path):
    record = make_record("scratch")
    record["phases"][0]["history"] = [
        {"epoch": 0, "test/acc1": None},
        {"epoch": 1, "test/acc1": 50.0},
        {"epoch": 2, "test/acc1": 51.0},
        None,
        {"epoch": "x"},
    ]
    outline = Outline(render(load(tmp_path, record)))
    lines = [a["points"].split() for a in outline.all("polyline") if a.get("data-name") == "scratch"]
    assert [len(points) for points in lines] == [2, 2]  # by epoch and by time


def test_no_records_make_a_page_too():
    outline = Outline(render([]))
    assert outline.open == [] and "There are no runs yet." in outline.text and not outline.all("table")


def test_a_large_picture_is_shrunk_below_the_limit(tmp_path: Path):
    (tmp_path / "a.png").write_bytes(noise_png(500, 400))
    small = embeddable(tmp_path, "a.png", 60_000)
    assert small is not None and small.startswith(b"\x89PNG") and len(small) <= 60_000


def test_pictures_beyond_the_budget_are_named_instead(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("ssat.results.page.space.PICTURES_BYTES", 8_000)
    for seed in range(2):
        save(tmp_path, make_record(seed=seed), picture=noise_png(50, 50))  # 7.6 kB
    page = render(read_records(tmp_path)[0])
    assert len(Outline(page).all("img")) == 1 and "see vit_micro-digits-ssat-s1" in page


@pytest.mark.parametrize("name", ["../secret.png", "missing.png", "text.png"])
def test_only_pictures_inside_the_runs_folder_are_taken(tmp_path: Path, name: str):
    (tmp_path / "secret.png").write_bytes(noise_png(4, 4))
    run = tmp_path / "run"
    run.mkdir()
    (run / "text.png").write_text("not a picture")
    assert embeddable(run, name, 10**6) is None


def test_embedded_pictures_are_the_runs_last_ones(tmp_path: Path):
    folder = save(tmp_path, make_record("ssat"), picture=noise_png(8, 8))
    [image] = Outline(render(read_records(tmp_path)[0])).all("img")
    png = (folder / "joint/reconstructions/epoch_0012.png").read_bytes()
    assert base64.b64decode(image["src"].partition(",")[2]) == png


@pytest.mark.parametrize(
    ("low", "high", "whole", "known"),
    [
        (23.1, 84.9, False, [20, 40, 60, 80, 100]),
        (0, 3, True, [0, 1, 2, 3]),
        (0, 0.5, False, [0, 0.1, 0.2, 0.3, 0.4, 0.5]),
        (5, 5, False, [5, 6]),
    ],
)
def test_ticks_are_round_and_span_the_values(low: float, high: float, whole: bool, known: list[float]):
    assert ticks(low, high, whole=whole) == known


def test_a_chart_places_points_where_its_scale_says():
    svg = line_chart("t", [Series("a", "ssat", [(0.0, 0.0), (10.0, 100.0)])], x_label="epoch", y_label="%")
    assert re.search(r'points="46[.0]*,180[.0]* 308[.0]*,12[.0]*"', svg)


def test_a_bar_is_as_high_as_its_value():
    svg = bar_chart("t", [Bar("group", "SSAT", "ssat", 50.0, 100.0)], y_label="%")
    heights = {a["class"].split()[1]: float(a["height"]) for a in Outline(svg).all("rect")}
    assert heights == {"fill": 84.0, "outline": 168.0}  # of an axis of 168 pixels


def test_text_in_a_chart_cannot_become_markup():
    evil = '<b onclick="x">&'
    line = line_chart(evil, [Series(evil, evil, [(0.0, 0.0), (1.0, 1.0)])], x_label=evil, y_label=evil)
    bars = bar_chart(evil, [Bar(evil, evil, evil, 1.0, 2.0)], y_label=evil)
    for chart in (line, bars):
        assert "<b " not in chart and "&lt;b onclick=&#34;x&#34;&gt;&amp;" in chart
        assert Outline(chart).open == []


@pytest.mark.slow
def test_five_hundred_runs_load_and_render(tmp_path: Path):
    for number in range(500):
        mode = ("scratch", "ssl_ft", "ssat")[number % 3]
        save(
            tmp_path, make_record(mode, seed=number // 30, encoder=f"vit_{number % 10}", epochs=5, hash=f"{number:08x}")
        )
    records, warnings = read_records(tmp_path)
    page = render(records, warnings=warnings)
    names = page.replace("<wbr>", "")  # where a narrow column may break them
    assert len(records) == 500 and all(f"{record.group}/{record.folder.name}" in names for record in records)
    assert len(page.encode()) < 2_000_000


@pytest.mark.slow
def test_five_hundred_settings_make_a_page_of_less_than_two_megabytes(tmp_path: Path):
    for number in range(500):
        record = make_record("ssat", epochs=20, hash=f"{number:08x}")
        record["config"]["recipe"] = record["config"]["recipe"] | {"base_lr": number}
        save(tmp_path, record)
    page = render(read_records(tmp_path)[0])
    assert "and 400 more comparisons: python -m src.report runs=&lt;a folder with fewer runs&gt;" in page
    assert page.count("base_lr=499") == 1  # in the table of all runs
    assert len(page.encode()) < 2_000_000


def counted_record(mode: str, **more: object) -> dict:
    record = make_record(mode, **more)
    record["phases"][-1]["data_check"] = {"counts": {"train": {"cat": 20, "dog": 5}, "test": {"cat": 4, "dog": 1}}}
    return record


def test_own_runs_come_first_with_name_and_accuracy(page: str):
    assert page.index('id="runs"') < page.index('class="finding"')
    headings = re.findall(r"<button type=\"button\">([^<]*)", page.partition('id="runs"')[2])
    assert headings[:3] == ["run", "acc1 %", "mode"]


def test_measures_are_means_over_seeds_and_costs_are_parts_of_the_dearest(tmp_path: Path):
    made = []
    for mode, seed, share, seconds in (("scratch", 0, 60.0, 10), ("scratch", 1, 64.0, 30), ("ssat", 0, 70.0, 80)):
        record = make_record(mode, seed=seed)
        record["metrics"]["test"]["balanced_acc"] = {"last": share}
        record["phases"][-1]["classification"] = {"ece": 0.05 if mode == "ssat" else None}
        made.append(record | {"seconds": seconds})
    (comparison,) = finished_comparisons(load(tmp_path, *made))
    found = measured(comparison.arms)
    shares = {(bar.name, round(bar.percent, 6), bar.value) for bar in found["balanced accuracy"]}
    assert shares == {("scratch", 62.0, "62.00 % ± 2.83 %"), ("SSAT", 70.0, "70.00 %")}
    assert [(bar.percent, bar.value) for bar in found["training time"]] == [(25.0, "20 s ± 14 s"), (100.0, "1m20s")]
    assert [bar.name for bar in found["calibration error (ECE, lower is better)"]] == ["SSAT"]
    assert "AUC" not in found  # of videos


def test_classes_are_counted_where_the_record_has_counts(tmp_path: Path):
    (old, new) = load(tmp_path, make_record("scratch"), counted_record("ssat", hash="x"))
    assert class_counts(old) is None
    counts = class_counts(new)
    assert counts and counts.splits == ["train", "test"] and counts.left_out == 0
    assert [(bar.count, bar.percent) for bar in counts.classes["dog"]] == [(5, 25.0), (1, 5.0)]
    new.phases[-1]["data_check"]["counts"] = {"train": {f"c{i}": i for i in range(100)}}
    counts = class_counts(new)
    assert counts and counts.left_out == 76 and {"c99", "c0"} <= counts.classes.keys() and "c50" not in counts.classes


@pytest.mark.parametrize("damage", [None, [], {"train": None}, {"train": {"a": "x", "b": True}}, {"train": {}}])
def test_damaged_counts_are_no_counts(tmp_path: Path, damage: object):
    record = make_record("scratch")
    record["phases"][-1]["data_check"] = {"counts": damage}
    assert class_counts(load(tmp_path, record)[0]) is None


@pytest.mark.parametrize("runs", [0, 1, 3, 60])
def test_a_page_of_any_number_of_runs_is_whole_and_small(tmp_path: Path, runs: int):
    made = [counted_record("ssat" if i % 2 else "scratch", seed=i // 2, hash=f"{i:08x}") for i in range(runs)]
    text = render(load(tmp_path, *made), page=tmp_path / "report.html")
    assert Outline(text).open == [] and len(text) < 2_000_000
    assert ('class="scroll tall"' in text) == (runs == 60)
