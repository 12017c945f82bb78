"""Damaged files, drawn by a seed: a reader takes them or says in its own words why not, in bounded time and memory."""

from __future__ import annotations

import os
import random
import resource
import shutil
import time
import traceback
from pathlib import Path

import pytest

from tests.fuzz.forked import Server
from tests.fuzz.mutate import mutated
from tests.fuzz.readers import READERS, refused
from tests.fuzz.samples import SAMPLES

SEED = int(os.environ.get("SSAT_FUZZ_SEED", "1"))
PATIENCE, MEMORY = 10.0, 2 << 20  # seconds of a file; KB that a reader may add to the process's peak
OFTEN = pytest.param(SEED, 1000, marks=pytest.mark.slow)


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@pytest.mark.parametrize("reader", READERS)
def test_a_sample_as_it_should_be_is_read(reader: str) -> None:
    for make in SAMPLES[reader]:
        assert refused(reader, make()) is None


@pytest.mark.parametrize(("seed", "count"), [(0, 30), OFTEN])
@pytest.mark.parametrize("reader", READERS)
def test_damaged_bytes_are_read_or_refused_in_the_readers_own_words(reader: str, seed: int, count: int) -> None:
    draw, found = random.Random(f"{seed} {reader}"), []
    samples = [make() for make in SAMPLES[reader]]
    before = peak()
    for number in range(count):
        data = mutated(draw.choice(samples), draw)
        start = time.perf_counter()
        try:
            said = refused(reader, data)
            if said is not None and ("\n" in said.strip() or not said):
                found.append(f"{number}: not one sentence: {said!r}")
        except Exception:
            found.append(f"{number}: {traceback.format_exc(limit=-3)}")
        if time.perf_counter() - start > PATIENCE:
            found.append(f"{number}: more than {PATIENCE:.0f} s")
    assert not found, f"{len(found)} of {count}, seed {seed}\n" + "\n".join(found[:5])
    assert peak() - before < MEMORY


def commands(run: Path, photo: Path) -> list[list[str]]:
    """What reads a run folder."""
    return [
        ["report", f"runs={run.parents[1]}"],
        ["evaluate", f"run={run}", "force=true"],
        ["predict", f"run={run}", f"input={photo}", f"out={run.parent / 'predicted'}", "force=true"],
        ["export", f"run={run}", "format=safetensors", f"out={run.parent / 'exported'}", "force=true"],
        ["embed", f"run={run}", f"input={photo}", f"out={run.parent / 'features.npz'}"],
    ]


@pytest.mark.parametrize(("seed", "count"), [(0, 4), pytest.param(SEED, 300, marks=pytest.mark.slow)])
def test_a_run_folder_with_a_damaged_file_never_ends_a_command_in_a_traceback(
    seed: int, count: int, finished: Path, server: Server, photo: Path
) -> None:
    """A damaged file may be read where nothing of it is wrong; a command that refuses says why."""
    draw, found = random.Random(seed), []
    names = sorted(path.relative_to(finished) for path in finished.rglob("*") if path.is_file() and path.stat().st_size)
    folder = photo.parent
    run = folder / "runs" / "experiment" / finished.name
    for number in range(count):
        shutil.rmtree(folder / "runs", ignore_errors=True)
        shutil.copytree(finished, run)
        victim = run / draw.choice(names)
        victim.write_bytes(mutated(victim.read_bytes(), draw))
        words = draw.choice(commands(run, photo))
        ended = server.run(words, folder)
        found += [
            f"{number}: {fault}: {victim.name}: {words}\n{ended.out[-800:]}" for fault in ended.faults(3 * PATIENCE)
        ]
    assert not found, f"{len(found)} of {count}, seed {seed}\n" + "\n".join(found[:5])
