"""Command lines drawn by a seed: a sentence or a result; no traceback, no hang, no flood of memory, no code runs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.fuzz.forked import Server
from tests.fuzz.lines import lines

PATIENCE = 10.0


@pytest.mark.parametrize(
    ("seed", "count"), [(0, 30), pytest.param(int(os.environ.get("SSAT_FUZZ_SEED", "1")), 500, marks=pytest.mark.slow)]
)
def test_no_command_line_ends_in_a_traceback_a_hang_or_a_flood_of_memory(
    seed: int, count: int, finished: Path, server: Server, photo: Path
) -> None:
    found = []
    for number, words in enumerate(lines(seed, count, finished, photo)):
        if any("\0" in word for word in words):
            continue
        ended = server.run(words, photo.parent)
        found += [f"line {number}: {fault}: {words}\n{ended.out[-600:]}" for fault in ended.faults(PATIENCE)]
    assert not found, f"seed {seed}\n" + "\n".join(found)
    assert not (photo.parent / "CANARY").exists()
