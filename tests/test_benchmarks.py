"""The scripts of benchmarks/ that run others: stages, limits, a stop in the middle, tables; nothing is timed here."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import all as everything
from benchmarks import ddp, epoch, gpu, inference, input_pipeline, parity, startup, step
from benchmarks.device import told
from ssat.runs.footprint import count_step_macs
from tests.helpers import ROOT, wait_for

# Real processes that end, fail, do not end, and write figures before they do not end.
SCRIPT = """
import sys
from benchmarks.gpu import Stage, main
python = lambda code: lambda place: [sys.executable, "-c", code]
figures = "import json, os, time; open(os.environ['SSAT_FIGURES'], 'w').write(json.dumps({'key': 'half'}));"
ignores = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
stages = (
    Stage("good", 1, python("print('7 images/s')")),
    Stage("bad", 1, python("import sys; print('no luck'); sys.exit(3)")),
    Stage("absent", 1, python("1"), ("no_such_package",)),
    Stage("endless", 1, python(figures + "time.sleep(600)")),
    Stage("deaf", 1, python(ignores + figures + "time.sleep(600)")),
    Stage("last", 1, python("print('done')")),
)
raise SystemExit(main(sys.argv[1:], stages))
"""


def started(*words: str, out: Path) -> subprocess.Popen:
    command = [sys.executable, "-c", SCRIPT, "device=cpu", f"out={out}", *words]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def stages_of(out: Path) -> dict[str, dict]:
    return {stage["stage"]: stage for stage in json.loads((out / "gpu.json").read_text())["stages"]}


def test_a_failing_stage_and_one_past_its_limit_do_not_stop_the_next(tmp_path: Path) -> None:
    process = started("limit=5", "only=good,bad,absent,endless,last", out=tmp_path)
    printed, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    stages = stages_of(tmp_path)
    assert {name: stage["outcome"] for name, stage in stages.items()} == {
        "good": "ok",
        "bad": "failed: exit code 3",
        "absent": "skipped: no package no_such_package",
        "endless": "past its limit",
        "last": "ok",
    }
    assert stages["good"]["key"] == "7 images/s" and stages["endless"]["key"] == "half"
    assert stages["bad"]["log"] == "no luck\n" == (tmp_path / "bad.log").read_text()
    # Of 5 s a fifth each; what the first three left over the fourth may use half of.
    assert stages["good"]["limit"] == pytest.approx(1, abs=0.2)
    assert stages["endless"]["limit"] > 1.5
    rows = [line.split()[0] for line in printed.splitlines()]
    assert rows[:6] == ["stage", "good", "bad", "absent", "endless", "last"]


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_stop_in_the_middle_writes_what_was_measured_and_leaves_no_process(tmp_path: Path, number: int) -> None:
    process = started("limit=100", "only=good,endless,last", out=tmp_path)
    wait_for(lambda: (tmp_path / "endless.json").exists(), process)
    process.send_signal(number)
    printed, said = process.communicate(timeout=30)
    assert process.returncode == 128 + number and "Traceback" not in said
    outcomes = {name: stage["outcome"] for name, stage in stages_of(tmp_path).items()}
    assert outcomes == {"good": "ok", "endless": "stopped", "last": "not begun"}
    assert "7 images/s" in printed


@pytest.mark.slow
def test_a_stage_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    start = time.monotonic()
    process = started("limit=1", "only=deaf", out=tmp_path)
    process.communicate(timeout=60)
    assert stages_of(tmp_path)["deaf"]["outcome"] == "past its limit"
    assert time.monotonic() - start < 60  # not the 600 s that it would sleep


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("limit=soon", "error: limit=soon is not a number of seconds above 0: give e.g. limit=480"),
        ("limit=nan", "error: limit=nan is not a number of seconds above 0: give e.g. limit=480"),
        ("limit=-3", "error: limit=-3 is not a number of seconds above 0: give e.g. limit=480"),
        ("device=tpu", "error: device=tpu is not one of cpu, cuda"),
        ("limits=4", "error: 'limits' is not an option; options: limit, device, out, only, images"),
        ("only=env,stepp", "error: only=stepp is not a stage; stages: env, input, step_64"),
        ("images=nowhere", "error: images=nowhere has no folder train"),
        ("out=/proc/none", "error: out=/proc/none cannot be written"),
    ],
)
def test_a_mistake_in_the_command_is_one_sentence(word: str, sentence: str, capsys, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="2"):
        gpu.main(["device=cpu", f"out={tmp_path}", word])
    said = capsys.readouterr().err
    assert said.startswith(sentence) and said.count("\n") == 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
@pytest.mark.parametrize(
    ("command", "words"),
    [
        (gpu.main, ["device=cuda"]),
        (step.parse, ["--device", "cuda"]),
        (input_pipeline.main, ["small=here", "device=cuda"]),
    ],
)
def test_an_absent_device_is_refused(command, words: list[str], capsys, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(gpu.DEFAULTS, "out", str(tmp_path))
    with pytest.raises(SystemExit, match="2"):
        command(words)
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1
    assert "sees no CUDA device here" in said


@pytest.mark.parametrize(
    ("main", "words", "sentence"),
    [
        (step.main, ["--pairs", "-1"], "-1 is not a whole number at least 0"),
        (step.main, ["--variants", "fast"], "--variants 'fast' is not one of vit_t's: two-pass sdpa, packed"),
        (step.main, ["--encoder", "vitt"], "--encoder vitt is not one of"),
        (inference.main, ["--sizes", "32"], "32 is not image/patch in pixels, as 32/2"),
        (inference.main, ["--sizes", "32/5"], "img_size=32 is not a multiple of patch_size=5"),
        (inference.main, ["--encoder", "cvt_13"], "--encoder cvt_13 is no plain ViT"),
        (startup.main, ["--repeats", "0"], "0 is not a whole number at least 1"),
        (startup.main, ["--imports", "nope"], "invalid choice: 'nope'"),
        (epoch.main, ["authors"], "authors reads images: give --root"),
        (epoch.main, ["authors", "--root", "nowhere"], "there is no folder nowhere"),
        (ddp.main, ["--patch-size", "5"], "img_size=32 is not a multiple of patch_size=5"),
    ],
    ids=lambda value: "_".join(value) if isinstance(value, list) else None,
)
def test_a_mistake_in_the_words_of_a_script_is_one_sentence(
    main, words: list[str], sentence: str, capfd, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["script", *words, "--json", str(tmp_path / "figures.json")])
    with pytest.raises(SystemExit) as ended:
        told(main)
    assert ended.value.code == 2
    assert sentence in capfd.readouterr().err
    assert not [*tmp_path.glob("*.json")]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "images= has no folder train: give a folder with train/<class>/* and test/<class>/*"),
        (["steps=none"], "steps=none is not a number of steps: give e.g. steps=300"),
        (["step=3"], "'step' is not an option; options: authors, images, steps, json"),
        (["images={here}", "authors={here}"], "authors={here} has no model_mae_image_loss.py: give a checkout"),
    ],
    ids=["no images", "no number", "no option", "no code"],
)
def test_a_parity_without_the_authors_code_is_one_sentence(
    words: list[str], sentence: str, tmp_path: Path, capsys: Any
) -> None:
    (tmp_path / "train").mkdir()
    with pytest.raises(SystemExit, match="2"):
        parity.main([word.format(here=tmp_path) for word in words])
    assert sentence.format(here=tmp_path) in capsys.readouterr().err


def test_the_largest_difference_of_two_trainings_is_found_with_its_step() -> None:
    kept = {"steps": [{"parts": dict.fromkeys(parity.PARTS, 2.0)}] * 3, "last": {"a": torch.tensor([3.0, 4.0])}}
    told = [dict.fromkeys(parity.PARTS, value) for value in (2.0, 1.6, 2.0)]
    found = parity.apart(kept, told, {"a": torch.tensor([3.0, 3.0])})
    assert found["loss"] == {"largest": pytest.approx(0.25), "step": 1, "first": 0.0, "last": 0.0}
    assert found["weights"] == pytest.approx(1 / 18**0.5)


def test_figures_that_cannot_be_written_are_told_before_anything_is_measured(
    tmp_path: Path, capsys, monkeypatch
) -> None:
    (tmp_path / "file").touch()
    for target, why in ((tmp_path, "is a folder"), (tmp_path / "file" / "figures.json", "cannot be written")):
        monkeypatch.setattr(sys, "argv", ["inference", "--json", str(target)])
        with pytest.raises(SystemExit, match="2"):
            inference.main()
        assert f"{target} {why}" in capsys.readouterr().err


def test_the_help_of_a_script_shows_the_defaults(capsys, monkeypatch) -> None:
    monkeypatch.setattr(sys, "argv", ["inference", "--help"])
    with pytest.raises(SystemExit, match="0"):
        inference.main()
    said = capsys.readouterr().out
    assert "--pairs PAIRS" in said and "(default: 9)" in said and "(default: 1, 64)" in said


def test_the_command_imports_the_standard_library_alone() -> None:
    code = "import sys, benchmarks.gpu; print([m for m in ('torch', 'numpy', 'ssat', 'omegaconf') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# ---- one table of all ----


def times(wall: float, cpu: float, load: float) -> dict[str, float]:
    return {"wall": wall, "cpu": cpu, "load": load}


PAIRS = [{"variant": times(1, 2, load), "wall_ratio": 9.0, "cpu_ratio": cpu} for load, cpu in ((0.5, 1.1), (1.5, 1.3))]
MEASURED = {  # what each script writes, as far as the table reads it, and the cells of its rows but the command
    "step": (
        {
            "settings": {
                **{"encoder": "vit_t", "img_size": 32, "patch_size": 2},
                **{"batch": 16, "device": "cpu", "threads": 1},
            },
            "baseline": "two-pass",
            "pairs": {"packed": PAIRS},
            "roofline": {"packed": {"macs": 1, "flops": 5e10, "share": 0.625}},
            "memory_bytes": {"32": {"two-pass": 100, "packed": 64}},
        },
        [
            ("step vit_t 32/2, batch 16, cpu: packed", "two-pass", "1.20", "1.10 to 1.30", "2", "0.5 to 1.5"),
            (
                *("FLOP/s of the step vit_t 32/2, batch 16, cpu: packed, 50 GFLOP/s", "matmul peak", "0.62"),
                *("fastest step", "2", "0.5 to 1.5"),
            ),
            ("peak memory of the step vit_t 32/2, batch 32: packed", "two-pass", "0.64", "one step each", "1", ""),
        ],
    ),
    "input_pipeline": (
        {
            "results": {
                "small, in memory": {"batched": 6000.4, "ratio": 3.5, "range": [3.1, 4], "rounds": 7, "load": 0.2},
                "small, on the GPU": {"batched": 70000, "range": [1, 2], "rounds": 7},  # compared with nothing
            }
        },
        [("input, small, in memory: batched, 6,000 images/s", "PIL + timm", "3.50", "3.10 to 4.00", "7", "0.2")],
    ),
    "inference": (
        {"rows": [{"size": "32/2", "batch": 1, "ratios": [0.9, 1.2, 1.1], "load": 1}]},
        [("inference, 32/2, batch 1", "timm", "1.10", "0.90 to 1.20 (undecided)", "3", "1.0")],
    ),
    "epoch": (
        {
            "rows": {"everything": {"more_ms": {"median": 0.5, "min": -0.1, "max": 0.7}}},
            "rounds": {"everything": [{"load": 1}, {"load": 2}]},
        },
        [("training loop a step: everything", "bare loop", "+0.50 ms", "-0.10 to +0.70 ms", "2", "1.0 to 2.0")],
    ),
}


def measured(folder: Path) -> Path:
    jobs = {}
    for script, (report, _) in MEASURED.items():
        (folder / f"{script}.json").write_text(json.dumps(report))
        jobs[script] = {"script": script, "file": f"{script}.json", "command": f"python -m benchmarks.{script}"}
        jobs[script]["exit"] = 0
    jobs["ddp"] = {"script": "ddp", "file": "ddp.json", "command": "python -m benchmarks.ddp", "exit": 1}
    (folder / "all.json").write_text(json.dumps({"jobs": jobs}))
    return folder


def test_the_table_holds_what_was_measured_and_nothing_else(tmp_path: Path) -> None:
    lines = everything.markdown(everything.rows_of(measured(tmp_path))).splitlines()
    found = [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in lines]
    expected = [
        (*cells, f"`python -m benchmarks.{script}`") for script, (_, rows) in MEASURED.items() for cells in rows
    ]
    assert found[0] == everything.HEADINGS
    assert found[2:] == expected


def test_rendering_replaces_only_what_is_between_the_marks(tmp_path: Path, capsys) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{everything.BEGIN}\nold\n{everything.END}\nafter\n")
    for _ in range(2):  # a second time changes nothing
        everything.render(measured(tmp_path), page)
        before, _, rest = page.read_text().partition(everything.BEGIN)
        table, _, after = rest.partition(everything.END)
        assert before == "before\n" and after == "\nafter\n"
        assert table.strip() == everything.markdown(everything.rows_of(tmp_path))
    page.write_text("no marks")
    with pytest.raises(SystemExit, match="2"):
        everything.render(tmp_path, page)
    assert page.read_text() == "no marks"
    with pytest.raises(SystemExit, match="2"):
        everything.render(tmp_path / "empty", page)
    assert "nothing is measured in" in capsys.readouterr().err


def test_the_page_has_the_marks_that_the_table_is_written_between() -> None:
    assert everything.replaced(everything.PAGE.read_text(), "x").count(f"{everything.BEGIN}\nx\n{everything.END}") == 1


def test_a_script_that_fails_or_is_not_here_does_not_stop_the_next_and_gives_no_row(tmp_path: Path, capfd) -> None:
    jobs = [
        everything.Job("no_such_script", "none.json", ()),
        everything.Job("input_pipeline", "large/input_pipeline.json", ("large={large}",)),
        everything.Job("gpu", "refused.json", ("limit=soon",)),
        everything.Job("device", "first.json", ("{images}",)),  # a module that does nothing
    ]
    assert everything.run(jobs, tmp_path, {"images": "/made/up", "large": ""}) == 1
    printed = capfd.readouterr().out
    assert "no_such_script (none.json) is left out: there is no such script here" in printed
    assert "is left out: it needs large=<folder of photographs>" in printed
    noted = json.loads((tmp_path / "all.json").read_text())["jobs"]
    assert {file: job["exit"] for file, job in noted.items()} == {"refused.json": 2, "first.json": 0}
    assert noted["first.json"]["command"].startswith("python -m benchmarks.device <images> --json ")
    assert everything.rows_of(tmp_path) == []


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("imags=x", "error: 'imags' is not an option; words: full, render, images=, large=, only="),
        ("images=nowhere", "error: images=nowhere has no folder train"),
        ("large=nowhere", "error: large=nowhere is not a folder"),
        ("only=stepp", "error: only=stepp is not a script; scripts, and parts of them: step"),
    ],
)
def test_a_mistake_in_the_words_of_all_is_one_sentence(word: str, sentence: str, capsys) -> None:
    with pytest.raises(SystemExit, match="2"):
        everything.main([word])
    said = capsys.readouterr().err
    assert said.startswith(sentence) and said.count("\n") == 1


def test_the_share_of_the_matmul_peak_is_counted_flops_over_seconds() -> None:
    args = step.parse(["--encoder", "vit_micro", "--patch-size", "8", "--batch", "4", "--variants", "packed"])
    encoder, task, head = (getattr(step.build(args, "packed"), name) for name in ("encoder", "task", "head"))
    counted = count_step_macs(encoder, task, (3, 32, 32), head=head)
    pairs = {"packed": [{"variant": times(9, 0.5, 0), "baseline": [times(9, 2, 0), times(9, 1, 0)]}]}
    found = step.roofline(args, pairs, {"fp32": 1e9, "bf16": 1.0})
    assert found["packed"]["macs"] == counted
    assert found["packed"]["flops"] == 2 * counted * 4 / 0.5
    assert found["packed"]["share"] == found["packed"]["flops"] / 1e9
    assert found["two-pass"]["flops"] == 2 * found["two-pass"]["macs"] * 4 / 1


@pytest.mark.slow
def test_a_variant_without_memory_says_so_in_one_line() -> None:
    args = step.parse(["--encoder", "vit_micro", "--patch-size", "8", "--batch", str(10**10)])
    with step.serving(args, "packed") as ask, pytest.raises(step.Unable, match="memory|Storage size") as said:
        ask()
    assert "\n" not in str(said.value)


@pytest.mark.slow
def test_every_stage_runs_in_its_tiny_form(tmp_path: Path) -> None:
    assert gpu.main(["device=cpu", "limit=900", f"out={tmp_path}"]) == 0
    stages = stages_of(tmp_path)
    assert list(stages) == [stage.name for stage in gpu.STAGES]
    outcomes = {name: stage["outcome"] for name, stage in stages.items()}
    assert outcomes.pop("train_graph") == "skipped: needs a GPU"
    assert {*outcomes.values()} == {"ok"}
    assert stages["step_64"]["key"].startswith("over two-pass: packed ")
    assert stages["predict"]["figures"]["images"] == 80
