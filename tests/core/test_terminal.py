"""What files say cannot steer a terminal, nor be more than text in Markdown."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from rich.table import Table

from ssat.core.terminal import Console, tell
from ssat.core.words import markdown_text
from ssat.results.tables import to_markdown
from ssat.runs.record import read_records
from tests.results.records import make_record, write_json

SOURCES = sorted((Path(__file__).resolve().parents[2] / "src/ssat").rglob("*.py"))
EVIL = {
    "colour": "\x1b[31mred",
    "title": "\x1b]0;owned\x07",
    "link": "\x1b]8;;http://evil\x1b\\here",
    "return": "harmless\rerased",
    "backspace": "a\b\bb",
    "c1": "\x9b2J",
    "right to left": "photo\u202egnp.exe",
    "isolate": "\u2066a\u2069",
    "surrogate": "\udcff",
}


@pytest.mark.parametrize("name", EVIL)
def test_control_characters_are_written_out(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    tell(EVIL[name])
    said = capsys.readouterr().out
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, color_system=None, width=200)
    console.print(EVIL[name], markup=False)
    table = Table(title=EVIL[name])
    table.add_column(EVIL[name])
    table.add_row(EVIL[name])
    console.print(table)
    for text in (said, file.getvalue()):
        assert text and all(char.isprintable() or char == "\n" for char in text)


def test_the_consoles_own_colours_stay() -> None:
    file = io.StringIO()
    Console(file=file, force_terminal=True, color_system="standard", width=80, highlight=False).print(
        "[red]a[/red]\x1b[31m"
    )
    assert file.getvalue() == "\x1b[31ma\x1b[0m\\x1b[31m\n"


def test_text_reaches_the_terminal_through_one_console() -> None:
    own = [path for path in SOURCES if path.name != "terminal.py" or path.parent.name != "core"]
    assert [
        path.name for path in own if re.search(r"rich\.console import .*Console|rich\.get_console", path.read_text())
    ] == []


HOSTILE = "<script>alert(1)</script> | a ` b [x](javascript:1) ![i](//e) **b** &lt; \\ \n# h \x1b[0m"


def test_markdown_shows_names_as_they_are() -> None:
    said = markdown_text(HOSTILE)
    assert not re.search(r"(?<!\\)([|`*]|\]\()|[<>\n\x1b]", said)
    assert said.startswith("&lt;script&gt;alert(1)&lt;/script&gt; \\| a \\` b [x\\](javascript:1)")
    assert "&amp;lt; \\\\" in said


def test_a_table_of_runs_in_markdown_has_no_tag_of_a_record(tmp_path: Path) -> None:
    record = make_record("ssat", data=HOSTILE) | {"name": HOSTILE, "encoder": HOSTILE}
    write_json(tmp_path / "g" / "run" / "result.json", record)
    [read], _ = read_records(tmp_path)
    lines = to_markdown([read]).strip().splitlines()
    assert len(lines) == 3 and "<" not in lines[2]
    assert len(re.findall(r"(?<!\\)\|", lines[2])) == len(re.findall(r"\|", lines[0]))


# What these print by Python's own `print` is fixed text, numbers and words of the command line, or `printable`.
PLAIN = ("terminal", "launch", "interrupts", "command_line", "help", "command", "check_data", "prepare")
PLAIN += ("slurm", "packed", "energy", "__main__", "report", "prepare_videos")


def test_text_of_files_is_printed_by_tell() -> None:
    printing = [path for path in SOURCES if re.search(r"^\s*print\(", path.read_text(), re.MULTILINE)]
    assert {path.stem for path in printing} <= {*PLAIN}
