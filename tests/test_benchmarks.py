"""The scripts of benchmarks/ that run others: stages, limits, a stop in the middle, tables; nothing is timed here."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from benchmarks import gpu, input_pipeline, step
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


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_in_the_middle_writes_what_was_measured_and_leaves_no_process(tmp_path: Path, number: int) -> None:
    process = started("limit=100", "only=good,endless,last", out=tmp_path)
    wait_for(lambda: (tmp_path / "endless.json").exists(), process)
    process.send_signal(number)
    printed, said = process.communicate(timeout=30)
    assert process.returncode == 128 + number and "Traceback" not in said
    outcomes = {name: stage["outcome"] for name, stage in stages_of(tmp_path).items()}
    assert outcomes == {"good": "ok", "endless": "stopped", "last": "not begun"}
    assert "7 images/s" in printed


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
        ("only=env,stepp", "error: only=stepp is not a stage; stages: env, tests, step_64"),
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


def test_the_command_imports_the_standard_library_alone() -> None:
    code = "import sys, benchmarks.gpu; print([m for m in ('torch', 'numpy', 'ssat', 'omegaconf') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.slow
def test_every_stage_runs_in_its_tiny_form(tmp_path: Path) -> None:
    assert gpu.main(["device=cpu", "limit=900", f"out={tmp_path}"]) == 0
    stages = stages_of(tmp_path)
    assert list(stages) == [stage.name for stage in gpu.STAGES]
    assert all(stage["outcome"] == "ok" or "no key trainer.cuda_graph" in stage["outcome"] for stage in stages.values())
    assert stages["step_64"]["key"].startswith("over two-pass: packed ")
    assert stages["export"]["figures"]["images"] == 80
