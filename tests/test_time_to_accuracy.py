"""benchmarks.time_to_accuracy: what it reads from a training, its rows, and how it refuses; nothing is timed here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.time_to_accuracy import BASELINE, Asked, Point, main, order, points_of, reached, summary, words_of
from tests.helpers import ROOT


def line(cpu: float, accuracy: float | None, *, last: bool = False) -> str:
    return json.dumps({"cpu": cpu, "wall": 2 * cpu, "accuracy": accuracy, "last": last})


def test_seconds_of_a_phase_come_after_those_of_the_phase_before_it() -> None:
    pretraining = [line(3, None), line(7, None, last=True)]  # it measures no accuracy
    text = "\n".join([*pretraining, line(1, 40.0), line(2, 60.0), line(2.5, None, last=True)])
    assert points_of(text) == [Point(8, 16, 40.0), Point(9, 18, 60.0)]


def test_the_first_evaluation_with_the_accuracy_counts() -> None:
    points = [Point(1, 1, 10.0), Point(2, 2, 50.0), Point(3, 3, 40.0), Point(4, 4, 60.0)]
    assert reached(points, 50) == points[1]
    assert reached(points, 70) is None


def test_ratios_are_of_the_runs_of_one_seed_and_a_run_that_does_not_reach_it_has_none() -> None:
    def run(seconds: float, final: float = 60.0) -> list[Point]:
        return [Point(1, 1, 10.0), Point(seconds, seconds, final)]

    runs = {BASELINE: {0: run(8), 1: run(12)}, "x": {0: run(4), 1: run(3)}, "y": {0: run(16), 1: run(2, 40.0)}}
    base, x, y = summary(Asked(50), runs)
    assert base["cpu_ratio"] == [1, 1]
    assert x["cpu_ratio"] == [2, 4]
    assert (y["cpu_ratio"], y["reached"], y["final"]) == ([0.5], 1, [60.0, 40.0])


def test_every_other_seed_takes_the_variants_the_other_way_round_and_their_words_come_last() -> None:
    assert order("abc", 0) == ["a", "b", "c"]
    assert order("abc", 1) == ["c", "b", "a"]
    asked = Asked(50, ("seed=9 epochs=3",), setting="epochs=2", root="images")
    assert words_of(asked, asked.variants[0], 1)[-4:] == ["epochs=2", "seed=9", "epochs=3", "seed=1"]
    assert "data.root=images" in words_of(asked, BASELINE, 0)


def command(*words: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.time_to_accuracy", *words], cwd=ROOT, capture_output=True, text=True
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "accuracy= is the accuracy to be reached"),
        (["accuracy=high"], "'accuracy=high': accuracy is a number"),
        (["accuracy=50", "varaint=x"], "'varaint=x' is not an option"),
        (["accuracy=50", "root=nowhere"], "root=nowhere has no folder train"),
        (["accuracy=50", "variant=a", "variant=a"], "variant=a is empty or there twice"),
        (["accuracy=0.65"], "in percent, 1 to 100"),
        (["accuracy=50", "setting='epochs=1"], "close every quotation mark"),
        (["accuracy=50", "variant=recipe.patch_drop=0.5"], "there is no key 'recipe.patch_drop'"),
        (["accuracy=50", "variant=recipe.patch_dropout=1"], "recipe.patch_dropout=1 leaves no patch"),
    ],
)
def test_a_mistake_is_one_sentence(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


@pytest.mark.slow
def test_two_real_trainings_give_a_table_and_a_file(tmp_path: Path) -> None:
    small = (
        "epochs=2 encoder.depth=1 encoder.embed_dim=16 encoder.num_heads=2 data.patch_size=4 data.samples_per_class=16"
    )
    words = ["accuracy=1", "seeds=1", f"setting={small}", "variant=recipe.patch_dropout=0.5"]
    done = command(*words, f"json={tmp_path / 'out.json'}")
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "out.json").read_text())
    assert [row["variant"] for row in report["rows"]] == [BASELINE, "recipe.patch_dropout=0.5"]
    for name in report["runs"]:
        first, second = report["runs"][name]["0"]
        assert 0 < first["cpu"] < second["cpu"]
    assert "times as fast" in done.stdout


@pytest.mark.slow
def test_a_word_that_training_refuses_is_its_sentence(tmp_path: Path) -> None:
    done = command("accuracy=1", "seeds=1", "setting=encoder=vit_q", f"json={tmp_path / 'out.json'}")
    assert done.returncode == 2
    assert "vit_q" in done.stderr and "Traceback" not in done.stderr
