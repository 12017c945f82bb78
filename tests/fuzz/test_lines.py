"""Command lines drawn by a seed: a sentence or a result; no traceback, no hang, no flood of memory, no code runs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from PIL import Image

from tests.fuzz.forked import Server
from tests.fuzz.lines import lines
from tests.helpers import train

PATIENCE = 10.0


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train("mode=scratch", "epochs=1", runs=tmp_path_factory.mktemp("runs"))


def faults(seed: int, count: int, run: Path, folder: Path) -> list[str]:
    Image.new("RGB", (40, 30), (200, 90, 10)).save(folder / "photo.png")
    found = []
    with Server(folder) as server:
        for number, words in enumerate(lines(seed, count, run, folder / "photo.png")):
            if any("\0" in word for word in words):
                continue
            ended = server.run(words)
            found += [
                f"seed {seed}, line {number}: {fault}: {words}\n{ended.out[-600:]}" for fault in ended.faults(PATIENCE)
            ]
    assert not (folder / "CANARY").exists()
    return found


@pytest.mark.parametrize(
    ("seed", "count"), [(0, 40), pytest.param(int(os.environ.get("SSAT_FUZZ_SEED", "1")), 500, marks=pytest.mark.slow)]
)
def test_no_command_line_ends_in_a_traceback_a_hang_or_a_flood_of_memory(
    seed: int, count: int, finished: Path, tmp_path: Path
) -> None:
    found = faults(seed, count, finished, tmp_path)
    assert not found, "\n".join(found)
