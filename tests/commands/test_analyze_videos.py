"""The analyses of real runs on videos, and these runs and analyses on the report's page."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from ssat.commands.analyze import analyze
from ssat.commands.report import report
from ssat.core.errors import UserError
from tests.data.video.synthetic import write_ffpp_tree
from tests.training.test_videos import METHODS, prepared, train

QUICK = ["hessian.batches=1", "hessian.batch_size=2", "hessian.top=1", "hessian.max_iter=20", "hessian.tol=0.1"]


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ffpp")
    return prepared("ffpp", write_ffpp_tree(folder / "raw", methods=METHODS, count=12, size=(48, 48)), folder / "clips")


@pytest.fixture(scope="module")
def runs(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("runs")
    return [train(clips, folder, f"mode={mode}", "epochs=1") for mode in ("scratch", "ssat")]


@pytest.fixture(scope="module")
def out(runs: list[Path]) -> Path:
    """All analyses of videos but the Hessian, which are the default, beside the runs."""
    analyze([listed(runs), "pictures=3"], Console(quiet=True))
    (folder,) = (runs[0].parent.parent / "analyses").iterdir()
    return folder


def listed(runs: list[Path]) -> str:
    return f"runs=[{','.join(map(str, runs))}]"


def record_at(out: Path, name: str) -> dict:
    return json.loads((out / f"{name}.json").read_text())


def test_the_default_is_what_there_is_of_clips(out: Path) -> None:
    assert {path.stem for path in out.glob("*.json")} == {"attention", "distance", "variance", "gradcam"}
    for name, panels in (("attention", 9), ("distance", 4), ("variance", 1), ("gradcam", 3)):
        record = record_at(out, name)
        assert (record["unit"], record["images"]) == ("clips", 3 if name == "gradcam" else 6)
        assert len(record["panels"]) == panels
        assert (out / record["table"]).is_file()
        for model in record["models"]:
            assert model["series"].keys() == {panel["name"] for panel in record["panels"]}
            assert all(math.isfinite(y) for curve in model["series"].values() for y in curve["y"])
        for picture in record["pictures"]:
            assert np.asarray(Image.open(out / picture)).std() > 10


@pytest.mark.slow
def test_an_analysis_of_clips_decides_no_claim_about_images(
    out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report([f"runs={shutil.copytree(out.parents[1], tmp_path / 'runs')}", f"out={tmp_path / 'report.html'}", "claims"])
    assert "look at the figure" not in " ".join(capsys.readouterr().out.split())
    assert "clips" in (tmp_path / "report.html").read_text()


def test_attention_averages_to_one_over_slots_and_over_patches(out: Path) -> None:
    for model in record_at(out, "attention")["models"]:
        values = model["values"]
        slots, rows, cols = values["grid"]
        assert values["tokens"] == slots * rows * cols
        for block in values["blocks"]:
            assert (len(block["slots"]["y"]), len(block["patches"]["y"])) == (slots, rows * cols)
            assert np.mean(block["slots"]["y"]) == pytest.approx(1) == pytest.approx(np.mean(block["patches"]["y"]))


def test_evidence_adds_up_over_patches_slots_and_the_clip(out: Path) -> None:
    record = record_at(out, "gradcam")
    assert len(record["pictures"]) == 1 + 3  # the curves, and a strip for each video
    names = [panel["name"] for panel in record["panels"]]
    assert "(original, real)" in names[0] and ", fake)" in names[-1]
    for model in record["models"]:
        for name, clip in zip(names, model["values"]["clips"], strict=True):
            maps = np.array(clip["map"])
            np.testing.assert_allclose(maps.mean((1, 2)), clip["evidence_of_slots"], atol=1e-4)
            np.testing.assert_allclose(maps.mean(0), clip["evidence_of_patches"], atol=2e-4)
            assert model["series"][name]["y"] == clip["evidence_of_slots"]
            assert model["series"][name]["x"] == [0, 0.08]  # two slots of two frames, at 25 in a second
            assert np.mean(clip["evidence_of_slots"]) == pytest.approx(clip["evidence"], abs=1e-5)
            assert clip["correct"] == (clip["evidence"] > 0)
            assert clip["probability"] == pytest.approx(1 / (1 + math.exp(-abs(clip["evidence"]))), abs=1e-5)


def test_the_hessian_is_that_of_training_clips(runs: list[Path], tmp_path: Path) -> None:
    (record,) = analyze([listed(runs[1:]), "analysis=hessian", f"out={tmp_path}", *QUICK], Console(quiet=True))
    assert (record["split"], record["images"], record["unit"]) == ("train", 2, "clips")
    assert math.isfinite(record["models"][0]["summary"]["largest"])


def test_neither_batch_size_nor_the_other_model_changes_the_evidence(
    runs: list[Path], out: Path, tmp_path: Path
) -> None:
    words = [listed(runs[1:]), "analysis=gradcam", "pictures=3", "batch_size=1", f"out={tmp_path}"]
    (alone,) = analyze(words, Console(quiet=True))
    theirs = record_at(out, "gradcam")["models"][1]["series"]
    for name, curve in alone["models"][0]["series"].items():
        np.testing.assert_allclose(curve["y"], theirs[name]["y"], atol=1e-4)


def test_where_the_class_token_looks_is_no_question_to_clips(runs: list[Path], tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        analyze([listed(runs), "analysis=distance,maps", f"out={tmp_path / 'out'}"], Console(quiet=True))
    assert str(caught.value) == (
        "analysis=maps is of images alone (it shows where the class token looks, and encoders of clips have none): of"
        " videos there are attention, distance, variance, hessian, gradcam"
    )
    assert not (tmp_path / "out").exists()


def test_clips_of_other_lengths_are_not_compared(clips: Path, runs: list[Path], tmp_path: Path) -> None:
    longer = train(clips, tmp_path, "mode=scratch", "epochs=1", "data.frames=8")
    with pytest.raises(UserError, match=r"has other clips than .*give runs of the same data.frames"):
        analyze([listed([runs[0], longer]), "analysis=variance", f"out={tmp_path}"], Console(quiet=True))


def test_one_time_slot_has_no_distance_in_time(clips: Path, tmp_path: Path) -> None:
    run = train(clips, tmp_path, "mode=scratch", "epochs=1", "data.frames=2")
    with pytest.raises(UserError, match="has 1 time slots of 4 patches, and distances in time and in space need two"):
        analyze([listed([run]), "analysis=distance"], Console(quiet=True))


def test_the_page_shows_the_film_strips(runs: list[Path], out: Path, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    report([f"runs={runs[0].parent.parent}", f"out={page}"])
    text = page.read_text()
    assert "Three rows for each clip: original, masked, reconstructed. Frames from left to right over time." in text
    assert (
        'alt="Original, masked and reconstructed frames of clips, SSAT, joint after epoch 1" src="data:image/png'
        in text
    )
    assert "6 test videos" in text and "6 clips" in text
    for name in record_at(out, "gradcam")["pictures"][1:]:
        assert f'{name}" src="data:image/png' in text
