"""The paper's tables as text: what is escaped, and how many other settings are shown."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable
from html import unescape
from pathlib import Path

import pytest
from rich.console import Console

from ssat.core.words import markdown_text
from ssat.results.page.html import render
from ssat.results.page.paper import figure_charts
from ssat.results.paper.matching import Block
from ssat.results.paper.paper import Cell, read_paper
from ssat.results.paper.paper_tables import csv_rows, latex, left_out, markdown
from ssat.results.paper.verdicts import PARTIAL, CellResult, Judged, Part, judge
from ssat.results.plots import save_figures
from ssat.results.terminal import show_item
from ssat.runs.record import Record


def search(name: str, settings: int, *, many: int | None = None) -> Judged:
    """A table with one block for each of many settings, of which that numbered `many` has two runs."""
    judged = judge(read_paper()[name], [])
    row, column = next(iter(judged.item.cells))
    parts = list(judged.parts)
    for number in range(settings):
        runs = [Record(Path(f"runs/{number}/{seed}/result.json"), "", {}) for seed in range(1 + (number == many))]
        block = Block(f"base_lr={number}", defaultdict(list, {(row, column): runs}))
        values = tuple(80.0 for _ in runs)
        result = CellResult(Cell(name, row, column, "acc1", "%"), PARTIAL, tuple(runs), values)
        parts.append(Part(block, [result]))
    return Judged(judged.item, parts, [])


def test_all_settings_are_shown_where_they_are_few():
    judged = search("table10", 20)
    assert len(judged.shown_parts) == 21 and left_out(judged) == ""


def test_of_many_settings_those_with_most_runs_are_shown_in_their_order():
    judged = search("table10", 30, many=27)
    titles = [block.title for block, _ in judged.shown_parts]
    assert titles == ["", *(f"base_lr={number}" for number in (*range(19), 27))]
    assert left_out(judged) == "and 10 more settings: python -m src.report runs=<a folder with fewer runs>"


@pytest.mark.parametrize(
    "show",
    [
        lambda judged: unescape(markdown(judged)),
        lambda judged: latex(judged).replace("\\_", "_"),
        lambda judged: unescape(render([], {judged.item.name: judged})),
    ],
    ids=["markdown", "latex", "page"],
)
def test_every_form_says_how_many_settings_it_leaves_out(show: Callable[[Judged], str]):
    text = show(search("table10", 500))
    assert "and 480 more settings: python -m src.report runs=<a folder with fewer runs>" in text
    assert len(set(re.findall("base_lr=[0-9]+", text))) == 20


def test_the_terminal_says_it_too(capsys):
    show_item(Console(width=200), search("table10", 500), commands=False)
    out = capsys.readouterr().out
    assert out.count("partial data: base_lr=") == 20
    assert "and 480 more settings: python -m src.report runs=<a folder with fewer runs>" in out


def test_csv_has_every_setting():
    settings = {row[5] for row in csv_rows(search("table10", 50))}
    assert len(settings - {""}) == 50


@pytest.mark.slow
def test_a_figure_of_many_settings_can_be_drawn(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("ssat.results.plots.DPI", 60)
    judged = search("figure3", 500)
    assert len(figure_charts(judged)) == 21
    assert (tmp_path / "figure3.png") in list(save_figures([judged], tmp_path))


@pytest.mark.parametrize("name", read_paper())
def test_latex_has_no_letter_that_pdflatex_refuses(name: str):
    text = latex(judge(read_paper()[name], []))
    assert [character for character in text if ord(character) > 0xFF] == []


def test_greek_letters_are_latex_symbols():
    text = latex(judge(read_paper()["table14"], []))
    assert "$\\beta$" in text and "β" not in text


def test_a_title_is_no_markdown():
    judged = search("table10", 1)
    judged.parts[1][0].title = "a|b *c* `d` <e> \\"
    assert "**partial data: a\\|b \\*c\\* \\`d\\` &lt;e&gt; \\\\**" in markdown(judged)


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("a|b", "a\\|b"),
        ("<script>", "&lt;script&gt;"),
        ("*`", "\\*\\`"),
        ("\\", "\\\\"),
        ("a\nb", "a b"),
        ("ru_n", "ru_n"),
    ],
)
def test_markdown_text(text: str, escaped: str):
    assert markdown_text(text) == escaped
