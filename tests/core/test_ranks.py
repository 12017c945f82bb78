"""The ranks of a run end together, whatever ends one of them or the process that has started them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ssat.core import ranks
from ssat.core.errors import UserError
from ssat.core.ranks import RankCrashed, run_ranks
from tests.core import rank_jobs
from tests.helpers import ROOT

CODE = """import sys, pathlib
from ssat.core import ranks
from tests.core import rank_jobs
folder = pathlib.Path(sys.argv[1])
ranks.TO_CLOSE = 2.0
ranks.run_ranks(rank_jobs.{job}, ({arguments},), 2)
"""


def started(folder: Path, job: str, arguments: str = "folder") -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", CODE.format(job=job, arguments=arguments), str(folder)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def found(folder: Path, pattern: str, count: int = 2) -> list[Path]:
    deadline = time.monotonic() + 60
    while len(paths := sorted(folder.glob(pattern))) < count:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return paths


def pids(folder: Path) -> list[int]:
    return [int(path.read_text()) for path in found(folder, "*.pid")]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def all_end(processes: list[int], seconds: float = 20) -> bool:
    deadline = time.monotonic() + seconds
    while any(map(alive, processes)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not any(map(alive, processes))


def test_ranks_end_with_a_killed_parent(tmp_path: Path) -> None:
    parent = started(tmp_path, "sleep")
    running = pids(tmp_path)
    parent.kill()
    parent.wait()
    assert all_end(running)


def test_ranks_that_still_import_end_with_a_killed_parent(tmp_path: Path) -> None:
    parent = started(tmp_path, "nothing", "rank_jobs.SlowToImport(folder)")
    running = [int(path.name.partition("_")[2]) for path in found(tmp_path, "reading_*")]
    parent.kill()
    parent.wait()
    assert all_end(running)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_to_the_parent_alone_ends_all(tmp_path: Path, number: signal.Signals) -> None:
    parent = started(tmp_path, "sleep")
    running = pids(tmp_path)
    parent.send_signal(number)
    _, said = parent.communicate(timeout=30)
    assert (parent.returncode, said) == (128 + number, "")
    assert not any(map(alive, running))


def test_ctrl_c_of_a_terminal_reaches_all_and_is_no_traceback_of_a_rank(tmp_path: Path) -> None:
    parent = started(tmp_path, "sleep")
    running = pids(tmp_path)
    os.killpg(parent.pid, signal.SIGINT)
    _, said = parent.communicate(timeout=30)
    assert said.count("Traceback") == 1  # the parent's own, which commands catch
    assert not any(map(alive, running))


def test_a_rank_that_hears_no_signal_is_killed_when_the_other_has_stopped(tmp_path: Path) -> None:
    parent = started(tmp_path, "deaf")
    running = pids(tmp_path)
    parent.send_signal(signal.SIGTERM)
    assert parent.wait(timeout=30) == 143
    assert not any(map(alive, running))


def test_a_second_ctrl_c_kills(tmp_path: Path) -> None:
    parent = started(tmp_path, "deaf")
    running = pids(tmp_path)
    parent.send_signal(signal.SIGINT)
    time.sleep(0.2)
    parent.send_signal(signal.SIGINT)
    parent.communicate(timeout=30)
    assert not any(map(alive, running))


@pytest.fixture
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks, "GRACE", 0.5)
    monkeypatch.setattr(ranks, "TO_CLOSE", 0.5)


@pytest.mark.parametrize(("rank", "name", "why"), [(1, "SIGKILL", "memory has run out"), (0, "SIGSEGV", "")])
def test_a_killed_rank_ends_the_others_in_a_sentence_that_names_it(
    tmp_path: Path, quickly: None, rank: int, name: str, why: str
) -> None:
    with pytest.raises(UserError, match=rf"^rank {rank} of 2 was killed \({name}\).*{why}") as refused:
        run_ranks(rank_jobs.ends, (tmp_path, rank, -getattr(signal, name)), 2)
    assert str(refused.value).endswith("the same command goes on from the last checkpoint")
    assert not any(map(alive, pids(tmp_path)))


@pytest.mark.parametrize(
    ("how", "raised", "code"),
    [
        (-signal.SIGTERM, SystemExit, 143),
        (-signal.SIGUSR1, SystemExit, 138),
        (-signal.SIGINT, KeyboardInterrupt, None),
    ],
    ids=["SIGTERM", "SIGUSR1", "SIGINT"],
)
def test_a_signal_to_one_rank_stops_all(
    tmp_path: Path, quickly: None, how: int, raised: type[BaseException], code: int | None
) -> None:
    with pytest.raises(raised) as stopped:
        run_ranks(rank_jobs.ends, (tmp_path, 1, how), 2)
    assert getattr(stopped.value, "code", None) == code
    assert not any(map(alive, pids(tmp_path)))


def test_a_rank_that_ends_without_a_word_is_named(tmp_path: Path, quickly: None) -> None:
    with pytest.raises(RankCrashed, match="^rank 1 of 2 ended with exit code 7$"):
        run_ranks(rank_jobs.ends, (tmp_path, 1, 7), 2)
