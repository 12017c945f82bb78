"""Records and configurations with one value missing or of another type: one sentence, or the value is not read."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import ssat
from ssat.commands.report import FORMATS, report
from ssat.core.errors import UserError
from tests.fuzz.fields import MODE, WRONG, Place, cases, drawn, read, replaced, write
from tests.fuzz.forked import Server
from tests.helpers import TINY

SEED = int(os.environ.get("SSAT_FUZZ_SEED", "1"))
PATIENCE = 10.0
TOGETHER = 40  # records that one report reads, each with one wrong value


def commands(run: Path, photo: Path) -> list[list[str]]:
    """What reads the files of a finished run; `ssat load` is `ssat.load`."""
    out = run.parents[1]
    return [
        ["evaluate", f"run={run}", "force=true"],
        ["predict", f"run={run}", f"input={photo}", f"out={out / 'predicted'}", "force=true"],
        ["export", f"run={run}", "format=safetensors", f"out={out / 'exported'}", "force=true"],
        ["embed", f"run={run}", f"input={photo}", f"out={out / 'features.npz'}"],
        ["analyze", f"runs=[{run}]", "analysis=attention", "images=4", f"out={out / 'analyses'}", "force=true"],
        ["report", f"runs={out}"],
        ["load", str(run)],
    ]


def reported(record: dict[str, Any], wrong: Sequence[tuple[Place, str]], folder: Path, form: str) -> None:
    """A report on as many runs of other seeds."""
    shutil.rmtree(folder, ignore_errors=True)
    for number, (place, name) in enumerate(wrong):
        run = folder / "experiment" / f"run{number}"
        run.mkdir(parents=True)
        write(run / "result.json", replaced(record | {"hash": f"{number:08x}", "seed": number}, place, WRONG[name]))
    report([f"runs={folder}", f"format={form}"])


@pytest.mark.parametrize(("seed", "count"), [(0, TOGETHER), pytest.param(SEED, 100 * TOGETHER, marks=pytest.mark.slow)])
def test_a_report_shows_or_leaves_out_every_record_with_a_wrong_value(
    seed: int, count: int, finished: Path, tmp_path: Path
) -> None:
    record = read(finished / "result.json")
    chosen = random.Random(seed).sample(cases(record), count)
    for start in range(0, count, TOGETHER):
        reported(record, chosen[start : start + TOGETHER], tmp_path / "runs", FORMATS[start // TOGETHER % len(FORMATS)])


def changed_run(finished: Path, folder: Path, name: str, draw: random.Random) -> tuple[Path, str]:
    """A copy of a run with one wrong value in a file, and what that is."""
    shutil.rmtree(folder, ignore_errors=True)
    run = folder / "experiment" / finished.name
    shutil.copytree(finished, run)
    values = read(run / name)
    place, wrong = drawn(values, draw)
    write(run / name, replaced(values, place, WRONG[wrong]))
    return run, f"{name}: {'.'.join(map(str, place))}: {wrong}"


@pytest.mark.parametrize(("seed", "count"), [(0, 3), pytest.param(SEED, 300, marks=pytest.mark.slow)])
def test_no_command_ends_in_a_traceback_where_a_value_is_wrong(
    seed: int, count: int, finished: Path, server: Server, photo: Path
) -> None:
    found = faults(seed, count, finished, server, photo)
    assert not found, f"{len(found)} of {count}\n" + "\n".join(found[:5])


def faults(seed: int, count: int, finished: Path, server: Server, photo: Path) -> list[str]:
    """Faults of the commands on a finished run, and of a training that goes on with one."""
    draw, found = random.Random(seed), []
    folder = photo.parent
    for number in range(count):
        goes_on = number % 3 == 0
        names = ["config.yaml", "inputs.json", "pretrain/phase.json", "finetune/phase.json"]
        names += [] if goes_on else ["config.yaml", "result.json"]
        run, wrong = changed_run(finished, folder / "runs", draw.choice(names), draw)
        if goes_on:
            (run / "result.json").unlink()
            words = ["train", *TINY, *MODE, f"run_dir={run}"]
        else:
            words = draw.choice(commands(run, photo))
        ended = server.run(words, folder)
        found += [f"{number}: {fault}: {wrong}: {words[0]}\n{ended.out[-900:]}" for fault in ended.faults(PATIENCE)]
    return found


GROUPS = ("encoder", "data", "mode", "ssl", "recipe", "trainer", "logger", "launcher", "monitor", "footprint")


@pytest.mark.sampled
@pytest.mark.parametrize("wrong", ["missing", "null", "list", "text"])
@pytest.mark.parametrize("group", GROUPS)
def test_a_configuration_with_a_group_that_is_none_is_one_sentence(
    group: str, wrong: str, finished: Path, tmp_path: Path
) -> None:
    shutil.copytree(finished, tmp_path / "run")
    path = tmp_path / "run/config.yaml"
    write(path, replaced(read(path), (group,), WRONG[wrong]))
    said = ""
    try:
        ssat.load(str(path.parent))
    except UserError as error:
        said = str(error)
    assert "\n" not in said and (said or group not in ("encoder", "data", "mode", "recipe"))
