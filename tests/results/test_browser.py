"""The page in a real browser: fits every window, loads nothing, sorts, filters, tells values by pointer and keys."""

from pathlib import Path

import pytest

from ssat.results.page.html import render
from ssat.results.paper.claims import ledger
from ssat.results.paper.paper import read_claims, read_paper, read_text_numbers
from ssat.results.paper.verdicts import judge
from ssat.runs.record import read_records
from tests.results.browser import Page, browser, find_browser
from tests.results.records import failed_record, make_record, noise_png, save

pytestmark = pytest.mark.skipif(find_browser() is None, reason="no Chromium here (SSAT_CHROMIUM names one)")


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    runs = tmp_path_factory.mktemp("runs")
    for mode, accuracy in (("scratch", 85.0), ("ssl_ft", 83.1), ("ssat", 81.9)):
        for seed in (0, 1):
            save(runs, make_record(mode, accuracy=accuracy + seed, seed=seed), picture=noise_png(64, 24))
    save(runs, failed_record("ssat", hash="deadbeef"))
    records, warnings = read_records(runs)
    judged = {name: judge(item, records) for name, item in read_paper().items()}
    claims = ledger(read_claims(), read_text_numbers(), judged, records)
    path = runs / "report.html"
    path.write_text(render(records, judged, claims, warnings=warnings, page=path), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def tab(tmp_path_factory):
    with browser(tmp_path_factory.mktemp("profile")) as page:
        yield page


@pytest.fixture
def page(tab: Page, written: Path) -> Page:
    tab.requests.clear()
    tab.errors.clear()
    tab.open(written, width=1400)
    return tab


def test_it_asks_for_no_other_file_and_logs_no_error(page: Page, written: Path):
    asked = [url for url in page.requests if not url.startswith("data:")]
    assert asked == [written.resolve().as_uri()] and page.errors == []


@pytest.mark.parametrize("width", [1400, 400])
def test_it_is_never_wider_than_the_window(tab: Page, written: Path, width: int):
    tab.open(written, width=width)
    tab.run("document.querySelectorAll('details').forEach((d) => d.open = true)")
    assert tab.run("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.parametrize(("dark", "colour"), [(False, "rgb(251, 250, 248)"), (True, "rgb(20, 23, 26)")])
def test_it_is_as_dark_as_the_reader_wants_it(tab: Page, written: Path, dark: bool, colour: str):
    tab.open(written, width=1400, dark=dark)
    assert tab.run("getComputedStyle(document.body).backgroundColor") == colour


def test_a_click_on_a_heading_sorts_and_a_second_one_turns_the_order_round(page: Page):
    page.run(
        "window.rows = () => [...document.querySelectorAll('#runs tbody tr')].filter((r) => !r.hidden);"
        "window.head = [...document.querySelectorAll('#runs thead button')].find((b) => b.textContent === 'acc1 %');"
        "window.column = () => rows().map((r) => r.cells[head.parentElement.cellIndex].textContent).filter(Boolean)"
    )
    up, down = page.run("(() => { head.click(); const up = column(); head.click(); return [up, column()] })()")
    assert up == sorted(up, key=float) and down == up[::-1] and len(up) == 6


def test_words_filter_the_table_of_runs(page: Page):
    shown = page.run(
        "(() => { const f = document.querySelector('[data-filter=text]'); f.value = 'ssat failed';"
        "f.dispatchEvent(new Event('input')); const rows = [...document.querySelectorAll('#runs tbody tr')];"
        "return rows.filter((r) => !r.hidden).map((r) => r.textContent) })()"
    )
    assert len(shown) == 1 and "failed" in shown[0]


def test_means_stay_hidden_in_a_sorted_table_whose_filter_is_cleared(page: Page):
    hidden = page.run(
        "(() => { const f = document.querySelector('[data-filter=text]');"
        "const means = () => [...document.querySelectorAll('#runs tr.mean')].map((r) => r.hidden);"
        "const type = (text) => { f.value = text; f.dispatchEvent(new Event('input')); return means() };"
        "const unsorted = [type('ssat'), type('')];"
        "document.querySelector('#runs thead button').click();"
        "return [...unsorted, means(), type('ssat'), type('')] })()"
    )
    assert hidden == [[True] * 3, [False] * 3, [True] * 3, [True] * 3, [True] * 3]


def test_a_verdict_filters_the_papers_cells(page: Page):
    sections = "[...document.querySelectorAll('section.item')].filter((s) => !s.hidden).length"
    before, after = page.run(
        f"(() => {{ const f = document.querySelector('[data-filter=verdict]'); const n = {sections};"
        f"f.value = 'not trained here'; f.dispatchEvent(new Event('change')); return [n, {sections}] }})()"
    )
    assert 0 < after < before


def test_a_measure_replaces_the_bars_of_every_comparison(page: Page):
    shown = page.run(
        "(() => { const f = document.querySelector('[data-filter=measure]');"
        "const bars = () => [...document.querySelectorAll('[data-measure]')].filter((b) => b.offsetHeight > 0);"
        "const first = bars().map((b) => b.dataset.measure); f.value = 'training time';"
        "f.dispatchEvent(new Event('change')); return [first, bars().map((b) => b.dataset.measure)] })()"
    )
    assert shown == [["accuracy"], ["training time"]]


@pytest.mark.parametrize("width", [1400, 400])
def test_the_text_of_charts_is_never_scaled(tab: Page, written: Path, width: int):
    tab.open(written, width=width)
    scales = tab.run(
        "[...document.querySelectorAll('.chart svg')].filter((s) => s.clientWidth)"
        ".map((s) => s.getBoundingClientRect().width / s.viewBox.baseVal.width)"
    )
    assert scales and {*scales} == {1}


def test_the_accuracy_is_seen_on_a_phone_without_scrolling(tab: Page, written: Path):
    tab.open(written, width=400)
    right = tab.run(
        "[...document.querySelectorAll('#runs tbody tr')].map((r) => r.cells[1].getBoundingClientRect().right)"
    )
    assert right and max(right) <= 400


def test_the_pointer_reads_values_off_a_curve(page: Page):
    box = page.run(
        "(() => { const s = document.querySelector('.chart svg[data-x]'); s.scrollIntoView({block: 'center'});"
        "const b = s.getBoundingClientRect(); return [b.left, b.top, b.width, b.height] })()"
    )
    page.move(box[0] + box[2] * 0.97, box[1] + box[3] / 2)
    tip = page.run("document.querySelector('.chart .tip').textContent")
    assert tip.startswith("epoch12") and "SSAT, seed 081.9" in tip


def test_keys_read_them_too(page: Page):
    page.run("document.querySelector('.chart svg[data-x]').focus()")
    page.key("ArrowRight")
    assert page.run("document.querySelector('.chart .tip').style.visibility") == "visible"
    page.key("Escape")
    assert page.run("document.querySelector('.chart .tip').style.visibility") == "hidden"


def test_a_screen_reader_finds_names_and_headings_in_order(page: Page):
    assert page.run("document.documentElement.lang") == "en"
    assert page.run("[...document.querySelectorAll('img, svg[role=img]')].every((e) => e.alt || e.ariaLabel)")
    assert page.run("[...document.querySelectorAll('input, select')].every((e) => e.labels.length)")
    assert page.run("[...document.querySelectorAll('thead th')].every((e) => e.scope === 'col')")
    levels = page.run("[...document.querySelectorAll('h1, h2, h3')].map((h) => +h.tagName[1])")
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(b - a <= 1 for a, b in zip(levels, levels[1:], strict=False))


def test_every_link_inside_the_page_leads_somewhere(page: Page):
    assert page.run("[...document.querySelectorAll('a[href^=\"#\"]')].every((a) => document.querySelector(a.hash))")
