"""The command on three tiny real runs of the embedded digits."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from PIL import Image
from rich.console import Console

from ssat.analysis.models import distinct_names
from ssat.analysis.output import slug
from ssat.commands.analyze import analyze
from ssat.commands.train import train as train_config
from ssat.config.resolve import resolve
from ssat.config.words import CONF
from ssat.core.errors import UserError
from tests.helpers import ROOT, TINY, only_run, train

MODES = ["scratch", "ssl_ft", "ssat"]
QUICK = ["hessian.batches=2", "hessian.batch_size=4", "hessian.top=2", "hessian.max_iter=20"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("runs")
    return [train(f"mode={mode}", "epochs=1", "reconstruct_every=0", runs=folder) for mode in MODES]


def small_run(folder: Path, *words: str) -> None:
    """From scratch, of another encoder than the tests' own."""
    general = [word for word in TINY if not word.startswith(("encoder", "data.patch_size"))]
    words = (*general, *words, "mode=scratch", "epochs=1", f"runs_dir={folder}")
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = resolve(compose("train", overrides=list(words)))
    train_config(config)


@pytest.fixture
def console() -> Console:
    return Console(width=200, record=True, force_terminal=False)


def listed(runs: list[Path]) -> str:
    return f"runs=[{','.join(map(str, runs))}]"


@pytest.fixture(scope="module")
def out(runs: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every analysis of the three runs, on few images."""
    folder = tmp_path_factory.mktemp("analyses")
    names = "analysis=attention,distance,variance,hessian,gradcam,maps"
    analyze([listed(runs), names, "images=12", "pictures=4", f"out={folder}", *QUICK], Console(quiet=True))
    return folder


@pytest.mark.parametrize(
    ("name", "figure", "panels"),
    [
        ("attention", 6, 6),
        ("distance", 7, 2),
        ("variance", 8, 1),
        ("hessian", 9, 1),
        ("gradcam", 10, 0),
        ("maps", 12, 0),
    ],
)
def test_each_analysis_leaves_a_record_with_every_model_and_its_pictures(
    out: Path, name: str, figure: int, panels: int
) -> None:
    record = json.loads((out / f"{name}.json").read_text())
    assert (record["schema"], record["kind"], record["figure"]) == (1, "analysis", figure)
    assert [model["mode"] for model in record["models"]] == MODES
    assert [model["name"] for model in record["models"]] == ["scratch", "SSL+FT", "SSAT"]
    assert len(record["panels"]) == panels
    for model in record["models"]:
        assert model["series"].keys() == {panel["name"] for panel in record["panels"]}
        assert all(len(curve["x"]) == len(curve["y"]) > 1 for curve in model["series"].values())
    for picture in record["pictures"]:
        assert np.asarray(Image.open(out / picture)).std() > 10


def test_the_table_holds_the_curves(out: Path) -> None:
    record = json.loads((out / "distance.json").read_text())
    with open(out / record["table"], newline="") as file:
        rows = [row for row in csv.DictReader(file) if (row["model"], row["panel"]) == ("SSAT", "distance")]
    curve = record["models"][2]["series"]["distance"]
    assert [float(row["y"]) for row in rows] == curve["y"]
    assert [float(row["std"]) for row in rows] == curve["std"]


def test_attention_sums_to_the_number_of_tokens_in_every_block(out: Path) -> None:
    for model in json.loads((out / "attention.json").read_text())["models"]:
        values = model["values"]
        assert len(values["blocks"]) == 2
        for block in values["blocks"]:
            assert sum(block["mean"]) == pytest.approx(values["tokens"], rel=1e-5)


def test_the_variance_has_a_point_for_every_residual(out: Path) -> None:
    (model, *_) = json.loads((out / "variance.json").read_text())["models"]
    assert model["series"]["variance"]["x"] == [0, 0.25, 0.5, 0.75, 1]
    assert model["values"]["stages"] == ["embedding", "attention 1", "mlp 1", "attention 2", "mlp 2"]


def test_the_hessian_lists_its_eigenvalues_and_how_it_found_them(out: Path) -> None:
    record = json.loads((out / "hessian.json").read_text())
    assert (record["split"], record["images"]) == ("train", 8)
    for model in record["models"]:
        values = model["values"]
        assert [(row["batch"], row["rank"]) for row in values["eigenvalues"]] == [(0, 1), (0, 2), (1, 1), (1, 2)]
        assert values["all"]["eigenvalues"] == 4
        assert values["parameters"] == record["models"][0]["values"]["parameters"]


def test_the_same_images_are_shown_for_every_model(out: Path) -> None:
    for name in ("gradcam", "maps"):
        models = json.loads((out / f"{name}.json").read_text())["models"]
        shown = [[image["index"] for image in model["values"]["images"]] for model in models]
        assert len(shown[0]) == 4 and shown[0] == shown[1] == shown[2]
    labels = [
        image["true"] for image in json.loads((out / "gradcam.json").read_text())["models"][0]["values"]["images"]
    ]
    assert len(set(labels)) == 4


def test_the_attention_of_a_map_sums_to_one(out: Path) -> None:
    for model in json.loads((out / "maps.json").read_text())["models"]:
        for image in model["values"]["images"]:
            assert np.sum(image["map"]) == pytest.approx(1, abs=1e-4)


def test_neither_batch_size_nor_repetition_changes_a_result(runs: list[Path], tmp_path: Path, console: Console) -> None:
    words = [listed(runs[2:]), "analysis=distance", "images=12"]
    first, second = (
        analyze([*words, f"batch_size={size}", f"out={tmp_path / str(size)}"], console) for size in (12, 5)
    )
    for one, other in zip(first, second, strict=True):
        for panel, curve in one["models"][0]["series"].items():
            np.testing.assert_allclose(other["models"][0]["series"][panel]["y"], curve["y"], rtol=1e-4, atol=1e-6)


def test_what_has_been_measured_is_measured_again_only_on_request(
    runs: list[Path], tmp_path: Path, console: Console
) -> None:
    words = [listed(runs[:1]), "analysis=variance", "images=5", f"out={tmp_path}"]
    analyze(words, console)
    before = (tmp_path / "variance.json").stat().st_mtime_ns
    analyze(words, console)
    assert "already there" in console.export_text()
    assert (tmp_path / "variance.json").stat().st_mtime_ns == before
    analyze([*words, "force=true"], console)
    analyze([*words[:2], "images=6", words[3]], console)
    assert "already there" not in console.export_text()
    assert json.loads((tmp_path / "variance.json").read_text())["images"] == 6


def test_weights_that_have_changed_are_measured_again(runs: list[Path], tmp_path: Path, console: Console) -> None:
    run = shutil.copytree(runs[0], tmp_path / "experiment" / "run")
    words = [listed([run]), "analysis=distance", "images=3"]
    (before,) = analyze(words, console)
    last = run / "scratch" / "checkpoints" / "last.ckpt"
    saved = torch.load(last, weights_only=True)
    saved["state_dict"] = {name: 2 * value for name, value in saved["state_dict"].items()}
    torch.save(saved, last)
    (after,) = analyze(words, console)
    assert "already there" not in console.export_text()
    assert before["models"][0]["series"] != after["models"][0]["series"]


@pytest.mark.slow
def test_every_set_of_runs_has_a_default_folder_of_its_own_beside_the_experiments(
    runs: list[Path], console: Console
) -> None:
    words = ["analysis=distance", "images=3"]
    for chosen in (runs[:1], runs[1:2], runs[:2], runs[:1]):
        analyze([listed(chosen), *words], console)
    analyze([listed(runs[:1]), *words, "checkpoint=best"], console)
    found = (runs[0].parent.parent / "analyses").glob("vit_micro-digits-*/distance.json")
    models = [[Path(model["checkpoint"]) for model in json.loads(path.read_text())["models"]] for path in found]
    assert sorted([(c.parents[2].name, c.stem) for c in of_one] for of_one in models) == sorted(
        [[(run.name, "last") for run in chosen] for chosen in (runs[:1], runs[1:2], runs[:2])]
        + [[(runs[0].name, "best")]]
    )
    assert console.export_text().count("already there") == 1


def test_a_folder_of_other_runs_is_never_written_over(runs: list[Path], tmp_path: Path, console: Console) -> None:
    words = ["analysis=distance", "images=3", f"out={tmp_path}"]
    analyze([listed(runs[:1]), *words], console)
    before = (tmp_path / "distance.json").read_bytes()
    with pytest.raises(UserError, match="of other runs: name another folder, or force=true"):
        analyze([listed(runs[1:2]), *words], console)
    assert (tmp_path / "distance.json").read_bytes() == before
    analyze([listed(runs[1:2]), *words, "force=true"], console)
    assert json.loads((tmp_path / "distance.json").read_text())["models"][0]["mode"] == "ssl_ft"


def test_options_of_the_maps_change_the_picture(runs: list[Path], tmp_path: Path, console: Console) -> None:
    pictures = []
    for number, words in enumerate(([], ["maps.mass=0.3"], ["maps.rollout=true"])):
        folder = tmp_path / str(number)
        analyze([listed(runs[2:]), "analysis=maps", "pictures=2", f"out={folder}", *words], console)
        pictures.append((folder / "maps.png").read_bytes())
    assert len(set(pictures)) == 3


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "say which runs"),
        (["runs=[/proc/nowhere]"], "/proc/nowhere is no run folder"),
        (["runs=[{run},{run}]"], "names a run twice"),
        (["runs=[{run}]", "analysis=atention"], "did you mean attention"),
        (["runs=[{run}]", "imges=3"], "did you mean images"),
        (["runs=[{run}]", "images"], "images needs a value"),
        (["runs=[{run}]", "images=0"], "images=0 is not possible"),
        (["runs=[{run}]", "maps.mass=2"], "maps.mass=2 is not possible"),
        (["runs=[{run}]", "maps.rollout=yes"], "is not one of true, false"),
        (["runs=[{run}]", "split=val"], "the data have train, test"),
        (["runs=[{run}]", "checkpoint=first.ckpt"], "first.ckpt does not exist"),
        (["runs=[{run}]", "analysis=hessian", "hessian.batch_size=999"], "hessian.batch_size=999 is more than the 160"),
    ],
)
def test_mistakes_are_one_sentence(
    runs: list[Path], console: Console, tmp_path: Path, words: list[str], sentence: str
) -> None:
    with pytest.raises(UserError) as caught:
        analyze([word.format(run=runs[0]) for word in words] + [f"out={tmp_path}"], console)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_runs_of_other_images_are_refused(tmp_path: Path, console: Console) -> None:
    shares = (0.25, 0.5)
    two = [train("mode=scratch", "epochs=1", f"data.val_fraction={share}", runs=tmp_path) for share in shares]
    with pytest.raises(UserError, match="has other val images than"):
        analyze([listed(two), "split=val", "analysis=distance"], console)
    analyze([listed(two), "analysis=distance", "images=3"], console)  # the test images are the same


@pytest.mark.slow
def test_a_run_without_labels_has_tokens_but_no_classes(tmp_path: Path, console: Console) -> None:
    run = train("mode=ssl", "epochs=1", "reconstruct_every=0", runs=tmp_path)
    analyze([listed([run]), "analysis=attention,distance,variance,maps", "images=3", "pictures=2"], console)
    for name in ("gradcam", "hessian"):
        with pytest.raises(UserError, match="has learned no labels"):
            analyze([listed([run]), f"analysis={name}"], console)


def test_an_encoder_that_an_analysis_cannot_see_into_is_refused_before_anything_is_measured(
    tmp_path: Path, console: Console
) -> None:
    small_run(
        tmp_path, "encoder=cvt_13", "encoder.dims=[8,16,24]", "encoder.depths=[1,1,1]", "encoder.num_heads=[1,1,1]"
    )
    run, out = only_run(tmp_path), tmp_path / "out"
    with pytest.raises(
        UserError, match="analysis=attention of run .*cvt_13.*: needs a plain ViT .*; analysis=distance can be made"
    ):
        analyze([listed([run]), "analysis=distance,attention", f"out={out}"], console)
    assert not out.exists()
    analyze([listed([run]), "analysis=distance,variance,gradcam", "images=4", f"out={out}"], console)
    curve = json.loads((out / "variance.json").read_text())["models"][0]["series"]["variance"]
    assert len(curve["x"]) == 7


def test_runs_of_one_mode_are_told_apart_by_what_differs() -> None:
    facts = [
        {"name": "SSAT", "encoder": "vit_t", "seed": 0, "hash": "a"},
        {"name": "SSAT", "encoder": "vit_t", "seed": 1, "hash": "b"},
        {"name": "scratch", "encoder": "vit_t", "seed": 0, "hash": "c"},
        {"name": "scratch", "encoder": "vit_s", "seed": 0, "hash": "d"},
    ]
    assert distinct_names(facts) == ["SSAT, seed 0", "SSAT, seed 1", "scratch, vit_t", "scratch, vit_s"]
    assert distinct_names([fact | {"seed": 0, "encoder": "x"} for fact in facts[:2]]) == ["SSAT, a", "SSAT, b"]
    assert slug("SSL+FT, seed 1") == "ssl_ft-seed-1"


@pytest.mark.slow
def test_the_command_prints_what_it_found_and_exits_with_2_on_a_mistake(runs: list[Path], tmp_path: Path) -> None:
    def command(*words: str) -> subprocess.CompletedProcess[str]:
        process = [sys.executable, "-m", "src.analyze", *words]
        return subprocess.run(process, cwd=ROOT, capture_output=True, text=True, env=os.environ.copy(), timeout=200)

    wrong = command(listed(runs), "analysis=x")
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("error: analysis=x does not exist") and wrong.stderr.count("\n") == 1
    right = command(listed(runs[1:2]), "analysis=distance", "images=4", f"out={tmp_path}")
    assert right.returncode == 0, right.stderr
    assert "distance (Figure 7), 4 images" in right.stdout and "SSL+FT: largest distance" in right.stdout


def test_distances_of_a_single_token_are_refused(tmp_path: Path, console: Console) -> None:
    sizes = ["encoder.embed_dim=12", "encoder.depths=[1,1,1,2]"]
    small_run(tmp_path, "encoder=swin_t", *sizes, "data.samples_per_class=4")
    few = "analysis=distance of run .*swin_t.*: an input of 16 x 16 has a single token after block 4"
    with pytest.raises(UserError, match=f"{few}.*; analysis=hessian can be made"):
        analyze([listed([only_run(tmp_path)]), "analysis=distance,variance,hessian"], console)
    alone = "analysis=gradcam of run .*: Grad-CAM compares places, and of an input of 16 x 16 the encoder has one alone"
    with pytest.raises(UserError, match=alone):
        analyze([listed([only_run(tmp_path)]), "analysis=gradcam"], console)


def test_a_single_patch_has_a_distance_from_the_class_token(tmp_path: Path, console: Console) -> None:
    small_run(tmp_path / "runs", "encoder=vit_micro", "encoder.depth=1", "data.patch_size=16")
    words = [listed([only_run(tmp_path / "runs")]), "analysis=distance", "images=4", f"out={tmp_path / 'out'}"]
    with pytest.raises(UserError, match="an input of 16 x 16 has a single token after block 0"):
        analyze(words, console)
    [record] = analyze([*words, "distance.with_cls=true"], console)
    assert all(value > 0 for value in record["models"][0]["series"]["distance"]["y"])
