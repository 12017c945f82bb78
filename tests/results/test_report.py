import os
import subprocess
import sys
from pathlib import Path

import pytest

from src.report import main
from tests.results.records import failed_record, make_record, save

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    for mode in ("scratch", "ssat"):
        save(tmp_path / "runs", make_record(mode))
    return tmp_path / "runs"


def call(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    monkeypatch.setattr(sys, "argv", ["report", *map(str, words)])
    try:
        main()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def test_the_command_prints_table_and_verdict_and_writes_the_page(runs: Path):
    command = [sys.executable, "-m", "src.report"]
    done = subprocess.run(
        command, cwd=runs.parent, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert done.returncode == 0 and done.stderr == ""
    assert "vit_micro on digits: SSAT reaches 80.0 % on 360 test images" in done.stdout
    assert done.stdout.count("± is the 95 % interval") == 1
    assert done.stdout.endswith("wrote runs/report.html\n") and (runs / "report.html").stat().st_size > 10_000


def test_out_names_another_page(runs: Path, monkeypatch):
    out = runs.parent / "pages" / "mine.html"
    assert call(monkeypatch, f"runs={runs}", f"out={out}") == 0
    assert out.exists() and not (runs / "report.html").exists()


def test_markdown_is_printed_on_request(runs: Path, monkeypatch, capsys):
    assert call(monkeypatch, f"runs={runs}", "--markdown") == 0
    assert "| --- |" in capsys.readouterr().out


def test_help_says_how(monkeypatch, capsys):
    assert call(monkeypatch, "--help") == 0
    assert "python -m src.report [runs=<folder>]" in capsys.readouterr().out


def test_failed_runs_and_skipped_files_are_named(runs: Path, monkeypatch, capsys):
    save(runs, failed_record(hash="0"))
    for number in range(7):
        (runs / f"bad{number}").mkdir()
        (runs / f"bad{number}" / "result.json").write_text("{")
    assert call(monkeypatch, f"runs={runs}") == 0
    out, err = capsys.readouterr()
    assert "failed: quickstart/vit_micro-digits-ssat-s0-0: UserError: the loss became nan" in out
    assert err.count("damaged") == 5 and "skipped 7 files in all" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run=x"], "error: there is no option 'run=x' (did you mean runs?)"),
        (["--markdwn"], "(did you mean --markdown?)"),
        (["runs="], "error: runs needs a value: runs=<folder>"),
        (["runs=nowhere"], "error: there are no runs in nowhere: `make run` or"),
        (["runs=pyproject.toml"], "error: runs=pyproject.toml is not a folder"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(monkeypatch, capsys, words: list[str], message: str):
    monkeypatch.chdir(ROOT)
    assert call(monkeypatch, *words) == 2
    out, err = capsys.readouterr()
    assert message in err and err.count("\n") == 1 and out == ""


def test_a_page_that_cannot_be_written_is_one_sentence(runs: Path, monkeypatch, capsys):
    (runs.parent / "file").write_text("")
    assert call(monkeypatch, f"runs={runs}", f"out={runs.parent}/file/report.html") == 2
    err = capsys.readouterr().err
    assert err.startswith("error: cannot write ") and "out=<file.html>" in err and err.count("\n") == 1


def test_a_folder_as_page_is_one_sentence_and_leaves_nothing(runs: Path, monkeypatch, capsys):
    assert call(monkeypatch, f"runs={runs}", f"out={runs}") == 2
    assert "is a directory" in capsys.readouterr().err.lower()
    assert not [path for path in runs.parent.iterdir() if path.name.startswith(".")]


def test_only_damaged_files_say_so(tmp_path: Path, monkeypatch, capsys):
    (tmp_path / "result.json").write_text("{")
    assert call(monkeypatch, f"runs={tmp_path}") == 2
    assert "1 unreadable" in capsys.readouterr().err
