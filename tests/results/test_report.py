import csv
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ssat.commands.report import main
from ssat.results.paper.paper import Item, read_paper
from ssat.results.terminal import comparison_lines
from ssat.runs.faithful import is_of_the_paper
from tests.results.records import failed_record, load, make_record, save

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


def folder_of(record: dict) -> str:
    return f"{record['name']}-{record['hash']}"


def test_the_command_prints_table_and_verdict_and_writes_the_page(runs: Path):
    command = [sys.executable, "-m", "src.report"]
    done = subprocess.run(
        command, cwd=runs.parent, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert done.returncode == 0 and done.stderr == ""
    assert "vit_micro on digits: SSAT reaches 80.0 % on 360 test images" in done.stdout
    assert done.stdout.count("± of points is the 95 % interval of a difference") == 1
    assert done.stdout.endswith("wrote runs/report.html\n") and (runs / "report.html").stat().st_size > 10_000


def test_out_names_another_page(runs: Path, monkeypatch):
    out = runs.parent / "pages" / "mine.html"
    assert call(monkeypatch, f"runs={runs}", f"out={out}") == 0
    assert out.exists() and not (runs / "report.html").exists()


def test_markdown_has_the_runs_the_papers_tables_and_its_claims(runs: Path, monkeypatch, capsys):
    assert call(monkeypatch, f"runs={runs}", "format=markdown") == 0
    out = capsys.readouterr().out
    assert "| --- |" in out and "## Table 10: " in out and "## Claims of the paper" in out


def test_a_copied_run_is_one_row_and_the_other_places_are_named(runs: Path, monkeypatch, capsys):
    save(runs, make_record("ssat"), group="copied")
    (runs / "quickstart" / folder_of(make_record("ssat")) / "log.txt").touch()  # the place with more of it is shown
    again = {"started": "2026-11-23T11:00:00+00:00", "finished": "2026-11-23T11:01:00+00:00"}
    save(runs, make_record("scratch", **again), group="elsewhere")
    assert call(monkeypatch, f"runs={runs}", "format=markdown") == 0
    out, err = capsys.readouterr()
    names = [line.split(" | ")[0] for line in out.splitlines() if line.startswith(("| quick", "| copied", "| else"))]
    scratch, ssat = (folder_of(make_record(mode)) for mode in ("scratch", "ssat"))
    assert sorted(names) == [f"| elsewhere/{scratch}", f"| quickstart/{scratch}", f"| quickstart/{ssat}"]
    said = f"quickstart/{ssat} is shown once; the same run is also in copied/{ssat}"
    assert said in err and said in (runs / "report.html").read_text()
    assert call(monkeypatch, f"runs={runs}") == 0
    assert capsys.readouterr().out.count(said) == 1


def test_a_named_table_is_printed_alone(runs: Path, monkeypatch, capsys):
    assert call(monkeypatch, f"runs={runs}", "format=latex", "table10") == 0
    out = capsys.readouterr().out
    assert out.count("\\begin{table}") == 1 and "91.65" in out and "\\bottomrule" in out


def test_csv_is_one_line_a_cell_with_its_command_and_nothing_else_on_stdout(runs: Path, monkeypatch, capsys):
    assert call(monkeypatch, f"runs={runs}", "format=csv", "table12") == 0
    lines = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert len(lines) == 10 and {line["verdict"] for line in lines} == {"not run"}
    heads = [line for line in lines if (line["row"], line["column"]) == ("8", "CIFAR-100")]
    assert heads[0]["paper"] == "69.52" and heads[0]["ours"] == "" and "ssl.decoder_heads=8" in heads[0]["command"]


def test_without_runs_the_report_says_what_to_do_in_a_few_lines(tmp_path: Path, monkeypatch, capsys):
    assert call(monkeypatch, f"runs={tmp_path}") == 0
    out = capsys.readouterr().out
    assert out.startswith("No run is finished yet: python -m src.train encoder=vit_micro data=digits mode=ssat")
    assert "Without runs yet: Table 1," in out and len(out.splitlines()) < 12


def test_a_folder_of_other_files_is_refused_and_left_alone(tmp_path: Path, monkeypatch, capsys):
    (tmp_path / "images").mkdir()
    assert call(monkeypatch, f"runs={tmp_path}", f"save={tmp_path / 'tables'}", f"out={tmp_path / 'x.html'}") == 0
    assert call(monkeypatch, f"runs={tmp_path}", f"out={tmp_path / 'y.html'}") == 0  # its own files are no others
    shutil.rmtree(tmp_path / "tables")
    (tmp_path / "x.html").unlink()
    (tmp_path / "y.html").unlink()
    (tmp_path / "images" / "1.jpg").touch()
    capsys.readouterr()
    assert call(monkeypatch, f"runs={tmp_path}") == 2
    assert "holds files but no run: name the folder that holds the runs" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["images"]


def test_without_runs_every_cell_is_listed_as_not_run_with_its_command(tmp_path: Path, monkeypatch, capsys):
    assert call(monkeypatch, f"runs={tmp_path}", *read_paper()) == 0
    out = capsys.readouterr().out
    for item in read_paper().values():
        for cell in item.cells.values():
            if cell.measure != "setting":
                [line] = [
                    s for s in out.splitlines() if s.startswith(f"  {cell.row}, {cell.column}") and told(item, s)
                ][:1]
                assert "not run" in line or "not trained here" in line
    assert not any(item in out for item in ("reproduced", "partial data:"))


def told(item: Item, line: str) -> bool:
    nothing = item.experiment.trains_nothing
    return f"experiment={item.name}" in line or bool(nothing) and nothing in line or "not trained here" in line


def test_save_writes_every_table_in_every_form(runs: Path, monkeypatch):
    folder = runs.parent / "tables"
    assert call(monkeypatch, f"runs={runs}", f"save={folder}") == 0
    names = {path.name for path in folder.iterdir()}
    assert {"table1.md", "table1.tex", "figure3.md", "cells.csv", "claims.md"} <= names
    assert {name for name in names if name.endswith(("pdf", "png"))} == {
        f"figure{number}.{form}" for number in (1, 3, 4, 5) for form in ("pdf", "png")
    }  # those of which a point is known
    assert (folder / "figure1.pdf").read_bytes().startswith(b"%PDF")
    assert not any(name.startswith(".") for name in names)


def test_the_claims_are_a_table_of_their_own(runs: Path, monkeypatch, capsys):
    assert call(monkeypatch, f"runs={runs}", "claims") == 0
    out = capsys.readouterr().out
    assert "Claims of the paper" in out and "Table 1:" not in out


def test_help_says_how(monkeypatch, capsys):
    assert call(monkeypatch, "--help") == 0
    assert "python -m src.report [table1 figure3 claims ...]" in capsys.readouterr().out


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
        (["tabel3"], "(did you mean table3?)"),
        (["table15"], "error: there is no option 'table15'"),
        (["runs="], "error: runs needs a value: runs=<folder>"),
        (
            ["format=markdwn"],
            "error: format=markdwn is not one of terminal, markdown, latex, csv (did you mean markdown?)",
        ),
        (["runs=nowhere"], "error: runs=nowhere does not exist: name the folder that holds the runs"),
        (["runs=pyproject.toml"], "error: runs=pyproject.toml is not a folder"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(monkeypatch, capsys, words: list[str], message: str):
    monkeypatch.chdir(ROOT)
    assert call(monkeypatch, *words) == 2
    out, err = capsys.readouterr()
    assert message in err and err.count("\n") == 1 and out == ""


def test_a_page_that_cannot_be_written_is_one_sentence_after_the_tables(runs: Path, monkeypatch, capsys):
    (runs.parent / "file").write_text("")
    assert call(monkeypatch, f"runs={runs}", f"out={runs.parent}/file/report.html") == 2
    out, err = capsys.readouterr()
    assert "SSAT reaches 80.0 %" in out and "table1 lists its cells" in " ".join(out.split()) and "wrote" not in out
    assert err.startswith("error: cannot write ") and "out=<file.html>" in err and err.count("\n") == 1


def test_a_folder_as_page_is_one_sentence_and_leaves_nothing(runs: Path, monkeypatch, capsys):
    assert call(monkeypatch, f"runs={runs}", f"out={runs}") == 2
    assert "is a directory" in capsys.readouterr().err.lower()
    assert not [path for path in runs.parent.iterdir() if path.name.startswith(".")]


def test_damaged_foreign_and_newer_records_are_named_and_counted(tmp_path: Path, monkeypatch, capsys):
    for name, text in (("a", "{"), ("b", '{"acc": 3}'), ("c", json.dumps(make_record() | {"schema": 99}))):
        (tmp_path / name).mkdir()
        (tmp_path / name / "result.json").write_text(text)
    assert call(monkeypatch, f"runs={tmp_path}") == 0
    err = capsys.readouterr().err
    assert "a/result.json: damaged" in err and "b/result.json: not a record of a run" in err
    assert "c/result.json: schema '99', this version reads 1" in err and "skipped 3 files in all" in err


@pytest.mark.parametrize("out", [".", "/", "..", "runs"])
def test_a_page_needs_a_file_name(runs: Path, monkeypatch, capsys, out: str):
    monkeypatch.chdir(runs.parent)
    assert call(monkeypatch, f"out={out}") == 2
    printed, err = capsys.readouterr()
    assert err.startswith(f"error: out={out} is a directory: name a file in it") and err.count("\n") == 1
    assert printed == ""


def test_runs_that_the_system_refuses_are_one_sentence(monkeypatch, capsys):
    assert call(monkeypatch, f"runs={'a' * 300}") == 2
    out, err = capsys.readouterr()
    assert "cannot be read (File name too long)" in err and err.count("\n") == 1 and out == ""


def test_ctrl_c_is_one_sentence_and_exit_code_130(runs: Path, monkeypatch, capsys):
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("ssat.commands.report.read_analyses", interrupt)
    assert call(monkeypatch, f"runs={runs}") == 130
    assert capsys.readouterr().err == "\ninterrupted: the page may be the one from before\n"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
@pytest.mark.parametrize("form", ["terminal", "markdown"])
def test_a_terminal_without_the_symbols_shows_question_marks(runs: Path, monkeypatch, encoding: str, form: str):
    save(runs, make_record(data="cifar10", hash="c"))
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", stream)
    assert call(monkeypatch, f"runs={runs}", f"format={form}") == 0
    stream.flush()
    assert b"SSAT" in stream.buffer.getvalue() and b"?" in stream.buffer.getvalue()


@pytest.mark.slow
def test_a_closed_pipe_still_gets_its_page(runs: Path):
    command = f"{sys.executable} -m src.report | head -n 1"
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(["bash", "-c", command], cwd=runs.parent, env=env, capture_output=True, text=True)
    assert done.stderr == "" and done.stdout.count("\n") == 1 and (runs / "report.html").exists()


@pytest.mark.parametrize(("count", "named", "total"), [(1, 1, ""), (5, 5, ""), (7, 5, "not finished: 7 runs in all")])
def test_interrupted_runs_are_listed(runs: Path, monkeypatch, capsys, count: int, named: int, total: str):
    for number in range(count):
        (runs / "table1" / f"run{number}").mkdir(parents=True)
        (runs / "table1" / f"run{number}" / "config.yaml").write_text("seed: 0\n")
    assert call(monkeypatch, f"runs={runs}") == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("not finished: ")]
    assert lines[0] == "not finished: table1/run0 (the same command continues it)"
    assert sum("continues it" in line for line in lines) == named and total in lines[-1]
    page = (runs / "report.html").read_text()
    assert page.count(": not finished (the same command continues it)") == count


def test_a_table_of_settings_waits_for_no_runs(runs: Path, monkeypatch, capsys):
    save(runs, make_record(data="cifar10", hash="c"))
    assert call(monkeypatch, f"runs={runs}") == 0
    out = " ".join(capsys.readouterr().out.split())
    listed = out.partition("Without runs yet: ")[2].partition(" of the paper")[0].split(", ")
    assert {"Table 13", "Figure 3", "Figure 6"} <= {*listed} and "Table 14" not in listed


def test_runs_of_own_data_leave_the_paper_out_of_the_terminal_and_folded_on_the_page(runs: Path, monkeypatch, capsys):
    assert call(monkeypatch, f"runs={runs}") == 0
    out = " ".join(capsys.readouterr().out.split())
    assert out.count("of the paper") == 1 and "†" not in out and "claims of" not in out
    assert "None of these runs is of a data set of the paper, so its tables and claims are left out (python" in out
    page = (runs / "report.html").read_text()
    assert '<details class="apart"><summary>The paper' in page and "cannot be read as a cell" not in page
    save(runs, make_record(data="cifar10", hash="c"))
    assert call(monkeypatch, f"runs={runs}") == 0
    out = capsys.readouterr().out
    assert out.count("†") == 2 and "Without runs yet: Table 1" in out and "61 claims of the paper" in out
    page = (runs / "report.html").read_text()
    assert 'class="apart"' not in page and "(1 of 3 runs)" in page


def test_a_folder_that_bears_the_name_of_a_set_of_the_paper_is_not_that_set():
    record = make_record(data="cifar10")
    assert is_of_the_paper(record)
    record["config"]["data"]["source"] = {"kind": "image_folder"}
    assert not is_of_the_paper(record)
    record["config"]["data"]["source"] = {"kind": "domainnet", "domain": "sketch"}
    assert is_of_the_paper(record)


def test_a_damaged_map_of_features_is_named(runs: Path, monkeypatch, capsys):
    [folder] = [path.parent for path in runs.glob("*/*ssat*/result.json")]
    (folder / "embeddings").mkdir()
    for name, text in (("a", "{"), ("b", '{"map": "pca"}'), ("c", '{"map": null}'), ("d", '{"map": ["pca"]}')):
        (folder / "embeddings" / f"{name}.json").write_text(text)
    assert call(monkeypatch, f"runs={runs}") == 0
    err = capsys.readouterr().err
    assert "a.json: damaged, not JSON" in err and "b.json: its picture b.png is not there" in err
    assert "c.json" not in err and "d.json: no map" in err and "skipped 3 files in all" in err
    assert "a.json: damaged" in (runs / "report.html").read_text()


def test_many_comparisons_are_cut_short_on_the_terminal(tmp_path: Path):
    records = []
    for number in range(25):
        for seed in range(1 + (number == 24)):
            record = make_record(seed=seed, hash=f"{number}{seed}")
            record["config"]["recipe"] = record["config"]["recipe"] | {"base_lr": number}
            records.append(record)
    lines = list(comparison_lines(load(tmp_path, *records)))
    assert sum("SSAT reaches" in line for line in lines) == 20 and "base_lr=24: " in "".join(lines)
    assert "and 5 more comparisons: python -m src.report runs=<a folder with fewer runs>\n" in lines


def test_damaged_records_of_every_kind_leave_the_rest_shown(runs: Path, monkeypatch, capsys):
    for name, odd in (
        ("a", {"seed": [1]}),
        ("b", {"config": {"data": None}}),
        ("c", {"metrics": {"test": {"acc1": {"last": 150}}}}),
    ):
        (runs / name / "run").mkdir(parents=True)
        (runs / name / "run" / "result.json").write_text(json.dumps(make_record() | odd))
    assert call(monkeypatch, f"runs={runs}") == 0
    out, err = capsys.readouterr()
    assert "SSAT reaches 80.0 %" in out and err.count(" missing or wrong\n") == 3 and "skipped 3 files" in err
