"""Jobs that are forked off a process which has imported what they need."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ssat.sweeps.warm import Forked, Warm, _elsewhere
from tests.helpers import ROOT, TINY

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="jobs are forked on Linux alone")
LONG = [*TINY, "epochs=1000"]
SWEEP = """
import os, sys, time
from pathlib import Path
from ssat.sweeps.warm import Warm
job = Warm().start(sys.argv[2:], Path(sys.argv[1]), os.environ, lambda: False)
print(job.pid, flush=True)
time.sleep(1000)
"""


@pytest.fixture(scope="module")
def warm():
    server = Warm()
    yield server
    server.close()


def started(warm: Warm, log: Path, *words: str) -> Forked | None:
    return warm.start(words, log, {**os.environ, "TERM": "dumb"}, lambda: False)


def code_of(job: Forked) -> int:
    deadline = time.monotonic() + 100
    while (code := job.poll()) is None and time.monotonic() < deadline:
        time.sleep(0.05)
    return code


def gone(pid: int) -> bool:
    """Whether a process has ended within some seconds; nobody may have asked for its exit code."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX":
                return True
        except OSError:
            return True
        time.sleep(0.05)
    return False


def test_a_job_is_a_process_of_its_own_with_its_own_output_and_exit_code(warm, tmp_path):
    jobs = [started(warm, tmp_path / f"{number}.log", f"encoder=vit_{number}") for number in range(2)]
    assert [code_of(job) for job in jobs] == [2, 2]
    assert len({os.getpid(), *(job.pid for job in jobs)}) == 3
    for number in range(2):
        assert f"encoder=vit_{number} does not exist" in (tmp_path / f"{number}.log").read_text()


def test_a_job_that_a_signal_ends_says_which(warm, tmp_path):
    job = started(warm, tmp_path / "job.log", *LONG, f"runs_dir={tmp_path}")
    os.kill(job.pid, signal.SIGKILL)
    assert code_of(job) == -signal.SIGKILL


def test_what_is_not_wanted_any_more_does_not_wait_for_the_imports(tmp_path):
    server = Warm()
    assert server.start(["encoder=vit_x"], tmp_path / "job.log", os.environ, lambda: True) is None
    assert not (tmp_path / "job.log").exists()
    server.close()


@pytest.mark.slow
def test_jobs_end_with_the_server_and_no_other_is_started(tmp_path):
    server = Warm()
    job = started(server, tmp_path / "job.log", *LONG, f"runs_dir={tmp_path}")
    os.kill(server.pid, signal.SIGKILL)
    assert code_of(job) == -signal.SIGKILL
    assert gone(job.pid)
    assert started(server, tmp_path / "job.log", "encoder=vit_x") is None
    server.close()


@pytest.mark.slow
def test_jobs_end_with_a_sweep_that_is_killed(tmp_path):
    line = [sys.executable, "-c", SWEEP, str(tmp_path / "job.log"), *LONG, f"runs_dir={tmp_path}"]
    with subprocess.Popen(line, cwd=ROOT, stdout=subprocess.PIPE, text=True) as sweep:
        pid = int(sweep.stdout.readline())
        sweep.kill()
    assert gone(pid)


def test_what_starts_threads_is_asked_elsewhere():
    receives, sends = os.pipe()
    asked = _elsewhere(lambda word: (word, os.getpid()), "watts", sends)
    word, pid = asked()
    assert word == "watts" and pid != os.getpid()
    os.write(sends, b"open")  # closed there alone
    assert os.read(receives, 4) == b"open"
    asked = _elsewhere(lambda _: os.kill(os.getpid(), signal.SIGKILL), "watts", sends)
    assert asked() is None
    for each in (receives, sends):
        os.close(each)
