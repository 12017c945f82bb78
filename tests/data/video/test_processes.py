from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.data.video.prepare_here import prepare_here
from tests.data.video.synthetic import scene, write_video
from tests.data.video.test_preparation import tree
from tests.helpers import ROOT, wait_for


def start(raw: Path, out: Path, workers: int) -> subprocess.Popen:
    words = [sys.executable, "-m", "tests.data.video.prepare_here", str(raw), str(out), str(workers)]
    return subprocess.Popen(words, cwd=ROOT, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen) -> None:
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err


def lines(out: Path) -> int:
    return sum(path.read_bytes().count(b"\n") for path in out.glob("journal/*.jsonl"))


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    for number in range(6):
        write_video(tmp_path / f"raw/real/{number}.mp4", scene(150, seed=number))
    return tmp_path / "raw"


@pytest.mark.slow
def test_killed_and_repeated_makes_the_same_store_and_two_workers_too(raw: Path, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    prepare_here(raw, whole, 0)
    process = start(raw, killed, 2)
    wait_for(lambda: lines(killed) >= 2, process)
    workers = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (killed / "manifest.csv").exists(), "it was killed too late to show anything"
    psutil.wait_procs(workers, timeout=30)
    assert not any(worker.is_running() for worker in workers), "a worker outlives its command"
    before = lines(killed)
    assert before >= 2
    finish(start(raw, killed, 2))
    assert tree(killed) == tree(whole)
    assert lines(killed) <= 6 + 1  # what had a line was kept; a killed command may have left a torn one


@pytest.mark.slow
def test_an_interrupted_command_writes_its_manifest(raw: Path, tmp_path: Path) -> None:
    process = start(raw, tmp_path / "out", 1)
    wait_for(lambda: lines(tmp_path / "out") >= 1, process)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode != 0 and "KeyboardInterrupt" in err
    assert 1 <= (tmp_path / "out/manifest.csv").read_text().count("\n") - 1 < 6
    assert "have not been prepared yet" in (tmp_path / "out/report.md").read_text()


@pytest.mark.skipif(sys.platform != "linux", reason="the bound of a file's size stands for a full disk")
def test_a_full_disk_is_one_sentence(raw: Path, tmp_path: Path) -> None:
    code = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        " resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)); import runpy;"
        " runpy.run_module('tests.data.video.prepare_here', run_name='__main__')"
    )
    words = [sys.executable, "-c", code, str(raw), str(tmp_path / "out"), "0"]
    result = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert "cannot be written (File too large): free space there and repeat the command" in result.stderr
    assert not list((tmp_path / "out").rglob("*.zip")) and not list((tmp_path / "out").rglob("*.partial"))
