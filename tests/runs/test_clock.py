"""A clock that goes back while runs train: their durations, and that none of them is lost."""

import time
from datetime import datetime, timedelta

import pytest

from ssat.commands.train import set_aside
from ssat.runs.record import read_records
from tests.helpers import record_of, train

USERS = ("ssat.training.phases", "ssat.training.record", "ssat.runs.folder", "ssat.commands.train")


@pytest.fixture
def back(monkeypatch):
    """Every look at the clock is a day before the last one."""
    looks, now = [0], time.time

    def days() -> int:
        looks[0] += 1
        return looks[0]

    class Back(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime.now(tz) - timedelta(days=days())

    monkeypatch.setattr(time, "time", lambda: now() - 86400 * days())
    for module in USERS:
        monkeypatch.setattr(f"{module}.datetime", Back)


def test_durations_do_not_follow_the_clock_and_every_run_is_found(tmp_path, back):
    began = time.monotonic()
    runs = [
        train("mode=scratch", "epochs=2", "footprint.energy=true", "reconstruct_every=0", f"seed={seed}", runs=tmp_path)
        for seed in (0, 1)
    ]
    passed = time.monotonic() - began
    for run in runs:
        record = record_of(run)
        (phase,) = record["phases"]
        assert 0 < sum(row["seconds"] for row in phase["history"]) <= passed and 0 < record["seconds"] <= passed
        assert record["energy"]["kwh"] is None or 0 <= record["energy"]["kwh"] < 1
    assert len({run.parent for run in runs}) == 2  # folders of two days, the second before the first
    found, problems = read_records(tmp_path)
    assert problems == [] and {record.path.parent for record in found} == set(runs)
    before = [(run / "result.json").read_bytes() for run in runs]
    again = [
        train("mode=scratch", "epochs=2", "footprint.energy=true", "reconstruct_every=0", f"seed={seed}", runs=tmp_path)
        for seed in (0, 1)
    ]
    assert again == runs and [(run / "result.json").read_bytes() for run in runs] == before  # finished, not begun anew


def test_runs_replaced_in_the_same_second_are_all_kept(tmp_path, monkeypatch):
    class Still(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime(2026, 1, 1, tzinfo=tz)

    monkeypatch.setattr("ssat.commands.train.datetime", Still)
    for number in range(3):
        run = tmp_path / "2026-01-01" / "run"
        run.mkdir(parents=True)
        (run / "config.yaml").write_text(str(number))
        set_aside(run, tmp_path)
    kept = [path.read_text() for path in sorted((tmp_path / ".replaced").glob("*/config.yaml"))]
    assert sorted(kept) == ["0", "1", "2"]
