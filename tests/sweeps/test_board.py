"""What is seen of runs that go on at the same time, on a terminal and in a file; a real run says how far it is."""

from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from ssat.core.standing import VARIABLE, Standing, read_standing, standing_file, write_standing
from ssat.sweeps.board import LINE_EVERY, Board, Running
from tests.helpers import train

JOINT = Standing("joint", 5, 12, share=0.4, measured="test/acc1 93.61", left=45)


class Clock:
    """Seconds that a test sets."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def running(folder: Path, name: str = "vit_micro-digits-ssat-s0-0dca11bb") -> Running:
    return Running(name, folder / f"{name}.json")


def test_a_standing_is_read_as_it_was_written(tmp_path):
    path = tmp_path / "run.json"
    assert read_standing(path) is None
    write_standing(path, JOINT)
    assert read_standing(path) == JOINT
    assert str(JOINT) == "joint 5/12  test/acc1 93.61  45 s left"
    assert [each.name for each in tmp_path.iterdir()] == ["run.json"]


@pytest.mark.parametrize("text", ["", "[]", "{", '{"phase": "joint"}', '{"later": 1}'])
def test_a_file_that_is_no_standing_is_as_good_as_none(tmp_path, text):
    (tmp_path / "run.json").write_text(text)
    assert read_standing(tmp_path / "run.json") is None


def test_a_standing_that_cannot_be_written_stops_no_training(tmp_path):
    write_standing(tmp_path / "absent" / "run.json", JOINT)


def test_without_a_sweep_nobody_asks_how_far_a_run_is():
    assert standing_file({}) is None
    assert standing_file({VARIABLE: "a.json"}) == Path("a.json")


def test_without_a_terminal_a_run_has_a_line_at_its_start_and_one_now_and_then(tmp_path, capsys):
    clock = Clock()
    board, run = Board(Console(file=StringIO()), clock), running(tmp_path, "r")
    board.show([run])
    clock.now = LINE_EVERY
    board.show([run])  # it has said nothing yet
    write_standing(run.standing, JOINT)
    board.show([run])
    clock.now += LINE_EVERY - 1
    board.show([run], "stopping")
    board.show([run], "stopping")
    assert capsys.readouterr().out.splitlines() == ["started: r", f"r: {JOINT}", "stopping"]


def test_a_terminal_of_80_columns_shows_a_line_a_run_and_nothing_of_it_stays(tmp_path):
    out = StringIO()
    console = Console(file=out, force_terminal=True, width=80, color_system=None)
    board, run = Board(console), running(tmp_path)
    write_standing(run.standing, JOINT)
    board.show([run, running(tmp_path, "other")])
    first, second = out.getvalue().splitlines()[-2:]
    for words in ("vit_micro-digits-ssat-s0", "joint 5/12", "test/acc1 93.61", "45 s left"):
        assert words in first
    assert "other" in second
    assert "starting" in second
    board.clear()
    assert out.getvalue().endswith("\x1b[1A\x1b[2K" * 2)  # up and erase, for each of both lines
    drawn = out.getvalue()
    board.clear()
    assert out.getvalue() == drawn


def test_a_dumb_terminal_gets_lines(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    Board(Console(file=StringIO(), force_terminal=True)).show([running(tmp_path, "r")])
    assert capsys.readouterr().out == "started: r\n"


def test_a_run_says_how_far_it_is_over_all_its_phases(tmp_path, monkeypatch):
    monkeypatch.setenv(VARIABLE, str(tmp_path / "run.json"))
    train("mode=ssl_ft", "epochs=3", "trainer.max_steps=1", "experiment=told", runs=tmp_path)
    standing = read_standing(tmp_path / "run.json")
    assert standing is not None
    assert (standing.phase, standing.epoch, standing.epochs) == ("finetune", 1, 3)
    assert 0.5 < standing.share < 1  # of six epochs: three, and one batch
    assert standing.left == 0  # max_steps ends it
