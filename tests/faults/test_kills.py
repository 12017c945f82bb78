"""Commands that are killed at random moments leave what an uninterrupted one leaves; `benchmarks.kills` has more of it.

SSAT_KILLS, SSAT_KILLS_SEED and SSAT_KILLS_WHAT choose number, seed and targets of the long test.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.faults.harness import TARGETS, campaign, unequal


@pytest.mark.parametrize(("what", "kills"), [("prepare", 4), pytest.param("scratch", 1, marks=pytest.mark.slow)])
def test_killed_commands_leave_what_an_uninterrupted_one_leaves(tmp_path: Path, what: str, kills: int) -> None:
    said: list[str] = []
    tally = campaign([what], kills, 0, tmp_path, said.append)
    assert not tally.faults, said


@pytest.mark.slow
def test_many_kills(tmp_path: Path) -> None:
    names = os.environ.get("SSAT_KILLS_WHAT", ",".join(TARGETS)).split(",")
    kills, seed = int(os.environ.get("SSAT_KILLS", "200")), int(os.environ.get("SSAT_KILLS_SEED", "0"))
    said: list[str] = []
    tally = campaign(names, kills, seed, tmp_path, said.append)
    assert len(tally.kills) >= kills
    assert not tally.faults, said


def test_what_differs_is_named() -> None:
    wanted = {"weights": [1.0, 2.0], "steps": 3, "row": {"loss": 0.5}}
    assert unequal(wanted, wanted, 0) == []
    assert unequal({**wanted, "weights": [1.0, 2.0 + 1e-9]}, wanted, 0) == ["weights"]
    assert unequal({**wanted, "weights": [1.0, 2.0 + 1e-9]}, wanted, 1e-6) == []
    assert unequal({"weights": [1.0], "row": {"loss": 0.5}, "more": 1}, wanted, 1e-6) == ["more", "steps", "weights"]
