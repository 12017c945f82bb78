"""`python -m src.advise` on the embedded digits: its pilots, what it writes, how it goes on, and what it refuses."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ssat.advise import plan
from ssat.advise.advice import advise
from ssat.advise.pilots import configured
from ssat.advise.prices import Price
from ssat.commands.advise import parse, run
from ssat.commands.train import train
from ssat.core.errors import UserError
from tests.helpers import ROOT, TINY, wait_for

WORDS = [word for word in TINY if not word.startswith(("epochs=", "reconstruct_every="))]


@pytest.fixture
def known_prices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten seconds an epoch, whatever else the machine does: the pilots are the same everywhere."""

    def prices(pilot: Any, final: Any, *, window: float) -> tuple[list[Price], list[Price], list[float]]:
        found = [Price(0.0, 10.0) for _ in final.mode.phases]
        return found, found, [1.0 for _ in found]

    monkeypatch.setattr(plan, "prices_of", prices)


@pytest.mark.slow
@pytest.mark.usefixtures("known_prices")
def test_pilots_leave_the_test_images_alone_and_the_same_command_reads_them_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*WORDS, f"runs_dir={tmp_path}", "budget=80s", "pilots=440s", "lam=0.1"]
    run(words)
    printed = capsys.readouterr().out
    (folder,) = tmp_path.glob("advise-vit_micro-digits-*")
    found = json.loads((folder / "advice.json").read_text())
    assert [each["share"] for each in found["rounds"]] == [0.5, 1.0]
    assert [each["epochs"] for each in found["candidates"]] == [[8], [4, 4], [8]]
    # Scratch and the better one of the others go on, each with two seeds.
    pilots = [len(each["pilots"]) for each in found["candidates"]]
    assert pilots[0] == 3 and sorted(pilots[1:]) == [1, 3]
    records = [json.loads(path.read_text()) for path in folder.glob("*/result.json")]
    assert len(records) == 7
    for record in records:
        assert set(record["metrics"]) == {"val"}
        assert record["data_fingerprint"]["splits"] == {"train": 128, "val": 32}
        assert "data.use_test=false: the test images were left alone" in record["unfaithful_reasons"]
    assert found["sentence"] in printed and found["command"] in printed
    advised = configured(shlex.split(found["command"])[3:])
    assert advised.data.use_test and advised.data.val_fraction == 0
    assert [phase.epochs for phase in advised.mode.phases] in ([8], [4, 4])

    def refuse(config: Any) -> None:
        raise AssertionError("a finished pilot is trained again")

    again = advise(parse(words), refuse)
    assert json.loads((folder / "advice.json").read_text()) == found
    assert again.rows[again.advised].command == found["command"]


@pytest.mark.usefixtures("known_prices")
def test_a_candidate_that_cannot_be_trained_is_left_out_and_named(tmp_path: Path) -> None:
    words = [*WORDS, f"runs_dir={tmp_path}", "budget=20s", "pilots=60s", "lam=0.1"]

    def fails(config: Any) -> object:
        if config.mode.name == "ssat":
            raise UserError("the loss is not finite")
        return train(config)

    found = advise(parse(words), fails)
    assert found.rows[2].expected is None and found.rows[1].expected is not None
    assert "SSAT, lambda 0.1 was left out: the loss is not finite" in found.notes
    records = [json.loads(path.read_text()) for path in found.folder.glob("*/result.json")]
    assert [{*record["metrics"]} for record in records] == [{"val"}, {"val"}]


@pytest.mark.slow
@pytest.mark.usefixtures("known_prices")
def test_pilots_in_processes_of_their_own_show_the_same(tmp_path: Path) -> None:
    words = [*WORDS, "budget=20s", "pilots=60s", "lam=0.1"]
    here = advise(parse([*words, f"runs_dir={tmp_path}/here"]), train)
    apart = advise(parse([*words, f"runs_dir={tmp_path}/apart", "launcher=processes"]), train)
    assert [row.expected for row in here.rows] == [row.expected for row in apart.rows]
    assert "launcher" not in apart.rows[0].command


@pytest.mark.slow
def test_a_killed_command_is_continued_by_the_same_command(tmp_path: Path) -> None:
    words = [*WORDS, f"runs_dir={tmp_path}", "budget=100s", "pilots=60s", "lam=0.1"]
    line = [sys.executable, "-m", "src.advise", *words]
    process = subprocess.Popen(line, cwd=ROOT, stdout=subprocess.DEVNULL, env=os.environ | {"PYTHONPATH": "src"})
    wait_for(lambda: any(tmp_path.glob("*/*/result.json")), process=process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    (plan_file,) = tmp_path.glob("*/plan.json")
    before = {path: path.read_bytes() for path in [plan_file, *tmp_path.glob("*/*/result.json")]}
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": "src"})
    assert done.returncode == 0, done.stderr
    assert "calibrating" not in done.stdout and "train with" in done.stdout
    assert all(path.read_bytes() == content for path, content in before.items())


# ---- what is refused ----


def refusal(*words: str) -> str:
    with pytest.raises(UserError) as error:
        run([*words, "budget=1h"])
    return str(error.value)


def test_data_and_encoders_that_cannot_be_compared_are_refused_in_a_sentence(tmp_path: Path) -> None:
    runs = f"runs_dir={tmp_path}"
    videos = refusal("encoder=videomae_micro", "data=ffpp", "data.root=x", runs)
    assert videos.startswith("data=ffpp are videos, and advise compares accuracies of images")
    other = refusal(*WORDS, runs, "launcher=slurm")
    assert other.startswith("launcher=slurm is not possible here")
    convolutions = refusal("encoder=resnet_50", "data=digits", runs)
    assert convolutions.startswith("encoder=resnet_50 leaves nothing to advise, only scratch can be trained here")
    assert "no masked pass" in convolutions
    assert not any(tmp_path.iterdir())


def folder_of(root: Path, classes: int, each: int) -> Path:
    for name in range(classes):
        for split in ("train", "test"):
            place = root / split / f"class_{name}"
            place.mkdir(parents=True)
            for number in range(each):
                pixels = np.random.default_rng((name, number)).integers(0, 255, (16, 16, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(place / f"{split}_{number}.png")
    return root


@pytest.mark.parametrize(
    ("classes", "each", "problem"),
    [
        (1, 200, "has one class only"),
        (2, 20, "data=image_folder leaves 8 validation images, and an accuracy of fewer than 20 says nothing"),
    ],
)
def test_too_few_classes_or_images_are_refused_in_a_sentence(
    tmp_path: Path, classes: int, each: int, problem: str
) -> None:
    root = folder_of(tmp_path / "images", classes, each)
    words = [word for word in WORDS if not word.startswith(("data=", "data.samples"))]
    said = refusal(*words, "data=image_folder", f"data.root={root}", "data.img_size=16", f"runs_dir={tmp_path}/runs")
    assert problem in said


@pytest.mark.usefixtures("known_prices")
def test_a_budget_below_one_epoch_says_how_long_it_needs(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="budget=5.0 s is too small for a single pilot.* at least 20s, and pilots=80s"):
        run([*WORDS, f"runs_dir={tmp_path}", "budget=5s"])


def test_a_damaged_plan_is_refused_in_a_sentence(tmp_path: Path) -> None:
    words = [*WORDS, f"runs_dir={tmp_path}", "budget=80s"]
    folder = tmp_path / plan.folder_name(configured([*WORDS, f"runs_dir={tmp_path}"]), parse(words))
    folder.mkdir()
    (folder / "plan.json").write_text('{"pilots": []}')
    with pytest.raises(UserError, match=r"plan.json is damaged: move it away, and the same command plans anew"):
        run(words)
