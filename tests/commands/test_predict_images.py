"""Tiny real runs on images: `ssat.load` and src.predict say of files of no set what src.evaluate measures."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from safetensors.torch import load_file, save_file

import ssat
from ssat.commands.predict.command import predict
from ssat.commands.predict.explained import laid_over
from ssat.commands.predict.trained import Trained
from ssat.core.errors import UserError
from ssat.core.files import file_sha256
from ssat.data import single
from ssat.data.sets.sources import digits
from ssat.model import Model
from ssat.runs.saved import saved_configuration
from ssat.training.evaluation import Evaluator
from ssat.training.saved_network import find_network
from tests.data.bombs import BOMBS
from tests.helpers import ROOT, train

CLASSES = ("dark", "light")


def photo(index: int, label: int) -> np.ndarray:
    """(H, W, 3), each of another size, one larger than the batched pipeline keeps in memory."""
    generator = np.random.default_rng(index)
    height, width = (200, 140) if index == 3 else generator.integers(24, 60, 2)
    return (generator.integers(0, 128, (height, width, 3)) + 127 * label).astype(np.uint8)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    for split, count in (("train", 10), ("test", 8)):
        for label, name in enumerate(CLASSES):
            (home / "photos" / split / name).mkdir(parents=True)
            for index in range(count):
                image = Image.fromarray(photo(index, label))
                image.save(home / "photos" / split / name / f"{index}.{'png' if index % 2 else 'jpg'}")
    return home


@pytest.fixture(scope="module")
def photos(home: Path) -> Path:
    """A run on files with timm's pipeline, which has measured its own statistics."""
    words = ["data=image_folder", f"data.root={home / 'photos'}", "data.img_size=16", "data.samples_per_class=null"]
    return train(*words, "mode=scratch", "recipe.statistics=own", "recipe.batch_size=8", "epochs=1", runs=home / "runs")


@pytest.fixture(scope="module")
def numbers(home: Path) -> Path:
    """A run on digits with the batched pipeline and a task."""
    return train("mode=ssat", "epochs=1", runs=home / "runs")


@pytest.fixture
def console() -> Console:
    return Console(width=200, record=True, force_terminal=False, soft_wrap=True)


def evaluated(run: Path, **changes: str) -> np.ndarray:
    """Probabilities (N, K) of the test images, as the evaluation itself computes them."""
    config = saved_configuration(run, [f"{key}={value}" for key, value in changes.items()])
    evaluator, logits = Evaluator(config, run, "", "last", "test", 0), []
    evaluator.module.head.register_forward_hook(lambda _, __, output: logits.append(output))
    evaluator.accuracy()
    return torch.cat(logits).double().softmax(1).numpy()


def table(out: Path) -> list[dict[str, str]]:
    with open(out / "predictions.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("pipeline", ["timm", "batched"])
def test_probabilities_of_files_are_those_of_evaluate(
    photos: Path, home: Path, tmp_path: Path, console: Console, pipeline: str
) -> None:
    run = shutil.copytree(photos, tmp_path / "run")
    text = (run / "config.yaml").read_text()
    assert "pipeline: null" in text
    (run / "config.yaml").write_text(text.replace("pipeline: null", f"pipeline: {pipeline}"))
    expected = evaluated(run)
    words = [f"run={run}", f"input={home / 'photos' / 'test'}", f"out={tmp_path / 'out'}", "checkpoint=last"]
    assert predict([*words, "batch_size=5"], console) == 0
    rows = table(tmp_path / "out")
    assert [row["file"].split("/")[0] for row in rows] == ["dark"] * 8 + ["light"] * 8
    found = np.array([[float(row[f"prob_{name}"]) for name in CLASSES] for row in rows])
    np.testing.assert_allclose(found, expected, atol=2e-3 if pipeline == "batched" else 1e-6)
    if pipeline == "batched":  # evaluation crops files of several sizes by the code for large ones
        large = [row["file"].split("/")[1] in ("3.png",) for row in rows]
        np.testing.assert_allclose(found[large], expected[large], atol=1e-6)


def test_a_loaded_network_says_of_digits_what_evaluate_does(numbers: Path) -> None:
    model, images = ssat.load(numbers, checkpoint="last", device="cpu"), digits().test.images
    expected = evaluated(numbers)
    np.testing.assert_allclose(model.probabilities(images[:50], batch_size=16), expected[:50], atol=1e-6)
    found = model.predict([Image.fromarray(image) for image in images[:3]], top_k=2)
    for prediction, probs in zip(found, expected, strict=False):
        assert prediction.label == str(probs.argmax()) and len(prediction.classes) == 2
        assert prediction.prob == pytest.approx(probs.max(), abs=1e-6)


def test_parts_of_a_loaded_network_are_plain_and_fit_together(numbers: Path) -> None:
    model, image = ssat.load(numbers), digits().test.images[0]
    x = model.transform(image).unsqueeze(0)
    assert x.shape == (1, 3, 16, 16) and not model.encoder.training
    features = model.encoder(x)
    np.testing.assert_allclose(model.embed(image), features.detach().numpy(), atol=1e-6)
    probs = model.head(features).softmax(1).detach().numpy()
    np.testing.assert_allclose(model.probabilities(image), probs, atol=1e-6)
    mirrored = model.head(model.encoder(x.flip(-1))).softmax(1).detach().numpy()
    np.testing.assert_allclose(model.probabilities(image, tta="flips"), (probs + mirrored) / 2, atol=1e-6)
    assert model.classes == [str(digit) for digit in range(10)]
    assert model.predict([]) == [] and model.embed([]).shape == (0, 32)


def test_grad_cam_of_a_class_is_the_gradient_of_its_logit(numbers: Path) -> None:
    model, image = ssat.load(numbers), digits().test.images[3]
    found = model.explain(image, label="3")
    assert found.shape == (16, 16) and found.min() >= 0 and found.max() <= 1
    kept = []
    hook = model.encoder.blocks[-1].norm1.register_forward_hook(lambda _, __, output: kept.append(output))
    logits = model.head(model.encoder(model.transform(image).unsqueeze(0)))
    hook.remove()
    (gradient,) = torch.autograd.grad(logits[0, 3], kept[0])
    patches = slice(model.encoder.num_prefix, None)
    scores = (kept[0] * gradient[:, patches].mean(1, keepdim=True)).sum(2)[0, patches].relu().detach()
    low, high = scores.min(), scores.max()
    expected = ((scores - low) / (high - low)).view(1, 1, 4, 4) if high > low else torch.zeros(1, 1, 4, 4)
    smooth = torch.nn.functional.interpolate(expected, size=(16, 16), mode="bilinear", align_corners=False)[0, 0]
    np.testing.assert_allclose(found, smooth.numpy(), atol=1e-5)
    assert np.array_equal(model.explain(image), model.explain(image, label=model.predict(image)[0].label))


@pytest.mark.parametrize("name", ["best", "last"])
def test_a_checkpoint_alone_is_enough(photos: Path, home: Path, tmp_path: Path, name: str) -> None:
    moved = tmp_path / "moved.ckpt"
    shutil.copy(photos / "scratch" / "checkpoints" / f"{name}.ckpt", moved)
    files = sorted((home / "photos" / "test").glob("*/*"))
    state = torch.get_rng_state()
    model = ssat.load(moved)
    assert torch.equal(torch.get_rng_state(), state)  # a library leaves the user's random numbers alone
    assert np.array_equal(model.probabilities(files), ssat.load(photos, checkpoint=name).probabilities(files))
    assert model.classes == [*CLASSES] and model.saved.run is None
    inside = ssat.load(photos / "scratch" / "checkpoints" / f"{name}.ckpt")
    assert (inside.saved.name, inside.saved.run) == (photos.name, photos.resolve())
    content = torch.load(moved, weights_only=True)
    assert {"config", "inputs", "phase", "statistics"} <= content.keys()
    assert content["inputs"]["data"]["splits"] == {"train": 20, "test": 16} and content["inputs"]["data"]["content"]


def test_a_checkpoint_of_an_earlier_version_loads_in_its_run(numbers: Path, tmp_path: Path) -> None:
    run = shutil.copytree(numbers, tmp_path / "run")
    path = run / "joint" / "checkpoints" / "best.ckpt"
    content = torch.load(path, weights_only=True)
    for key in ("config", "inputs", "drop_last", "phase", "statistics"):
        del content[key]
    torch.save(content, path)
    image = digits().test.images[0]
    for source in (run, path):
        assert np.array_equal(ssat.load(source).probabilities(image), ssat.load(numbers).probabilities(image))
    path.rename(tmp_path / "best.ckpt")
    with pytest.raises(UserError, match="an earlier version wrote it: name the folder of its run"):
        ssat.load(tmp_path / "best.ckpt")


def exported(model: Model, folder: Path, **changes: object) -> Path:
    """A folder of the layout that an export has."""
    folder.mkdir()
    tensors = {name: value.contiguous() for name, value in model._predictor.module.state_dict().items()}
    save_file(tensors, folder / "model.safetensors")
    said = {
        **{"schema": 1, "kind": "ssat-model", "classes": model.classes, "config": dict(model.saved.config.values)},
        **{"phase": model.saved.phase.name, "num_classes": len(model.classes), "temperature": None},
        "statistics": (moments := {"mean": list(model._data.mean), "std": list(model._data.std)}),
        "preprocessing": {"img_size": model._data.img_size, "channels": 3, **moments},
        "sha256": file_sha256(folder / "model.safetensors"),
    }
    (folder / "model.json").write_text(json.dumps(said | changes))
    return folder


@pytest.mark.parametrize("form", ["onnx", "timm", "torch_export"])
def test_an_export_for_another_program_is_named(photos: Path, tmp_path: Path, form: str, console: Console) -> None:
    folder = exported(ssat.load(photos), tmp_path / "out", format=form)
    (folder / "model.onnx").write_bytes(b"")
    for source in (folder, folder / "model.onnx"):
        with pytest.raises(UserError) as refused:
            ssat.load(source)
        assert f"{folder} holds an export for " in str(refused.value) and f"(format={form})" in str(refused.value)
        assert str(refused.value).endswith("export the run again with format=safetensors")
    with pytest.raises(UserError, match="holds an export for"):
        predict([f"run={folder}", f"input={tmp_path}"], console)


def test_predicting_by_an_export_shows_what_its_file_holds(photos: Path, home: Path, tmp_path: Path) -> None:
    facts = {
        "format": "safetensors",
        "metrics": {"test/acc1": 91.25, "val/acc1": 95.0},
        "data_splits": {"train": 48, "test": 16},
        "checkpoint": {"name": "best", "epoch": 3},
        "caveats": [
            "the temperature does not help on the test images",
            "not to be compared with the paper's tables: x",
        ],
    }
    lines = Trained(find_network(exported(ssat.load(photos), tmp_path / "out", **facts))).lines()
    assert "48 images" in lines[0] and "best.ckpt, epoch 3 of" in lines[1]
    assert lines[2] == "measured: accuracy 91.2 % on its own 16 test images; nothing is known of yours"
    assert lines[3:] == ["note: the temperature does not help on the test images"]


def test_an_overlay_leaves_what_does_not_speak_for_the_class() -> None:
    images = np.random.default_rng(0).random((1, 4, 4, 3)).astype(np.float32)
    heat = np.zeros((1, 4, 4), np.float32)
    heat[0, 1, 2] = 1
    found = laid_over(images, heat)
    assert np.array_equal(found[heat == 0], images[heat == 0]) and np.all(found[0, 1, 2] != images[0, 1, 2])


def test_an_exported_folder_loads_without_the_run(photos: Path, home: Path, tmp_path: Path) -> None:
    model = ssat.load(photos)
    files = sorted((home / "photos" / "test").glob("*/*"))
    folder = exported(model, tmp_path / "plain")
    assert np.array_equal(ssat.load(folder).probabilities(files), model.probabilities(files))
    warm = ssat.load(exported(model, tmp_path / "warm", temperature=2.0) / "model.safetensors").probabilities(files)
    logits = np.log(model.probabilities(files)) / 2
    np.testing.assert_allclose(warm, np.exp(logits) / np.exp(logits).sum(1, keepdims=True), atol=1e-6)
    for number, (changes, sentence) in enumerate(
        [
            ({"schema": 2}, "schema 1"),
            ({"classes": None}, "does not say its classes"),
            ({"phase": "x"}, "its phase 'x'"),
            ({"classes": ["dark", "dark"]}, "names the class 'dark' twice"),
            ({"classes": ["a", "b", "c"]}, "names 3 classes, and model.safetensors has a head of 2"),
            ({"preprocessing": {"img_size": "16"}}, "its preprocessing.img_size is '16' and its configuration has 16"),
            ({"preprocessing": [16]}, "its preprocessing.img_size is None"),
            ({"config": with_other(model, "encoder", embed_dim=64)}, "describes another network than"),
        ]
    ):
        with pytest.raises(UserError, match=f"{number}/model.json.*{sentence}.*export the run again|{COPIES}") as no:
            ssat.load(exported(model, tmp_path / str(number), **changes))
        assert sentence in str(no.value) and "\n" not in str(no.value)


COPIES = "does not say its classes|its phase 'x'"  # of every file of ours that is damaged


def with_other(model: Model, group: str, **changes: object) -> dict[str, Any]:
    values = dict(model.saved.config.values)
    return values | {group: values[group] | changes}


def test_exported_weights_that_were_changed_are_refused(photos: Path, tmp_path: Path) -> None:
    folder = exported(ssat.load(photos), tmp_path / "x")
    tensors = load_file(folder / "model.safetensors")
    tensors["head.bias"][0] += 1  # a network all the same
    save_file(tensors, folder / "model.safetensors")
    for source in (folder, folder / "model.safetensors", folder / "model.json"):
        with pytest.raises(UserError, match=r"model.safetensors is not the file that .*model.json was written for"):
            ssat.load(source)
    (folder / "model.safetensors").unlink()
    (folder / "model.json").write_text(
        (folder / "model.json").read_text().replace('"kind"', '"format": "onnx", "kind"')
    )
    with pytest.raises(UserError, match=r"holds an export for onnxruntime \(format=onnx\)"):
        ssat.load(folder)


def test_a_run_without_labels_embeds_and_predicts_nothing(home: Path, console: Console, tmp_path: Path) -> None:
    run = train("mode=ssl", "epochs=1", runs=home / "runs")
    image = tmp_path / "a.png"
    Image.fromarray(digits().test.images[0]).save(image)
    model = ssat.load(run, checkpoint="last")
    assert model.embed(image).shape == (1, 32) and model.head is None
    for ask in (model.predict, model.explain):
        with pytest.raises(UserError, match=r"has learned no labels \(lam=0\)"):
            ask(image)
    with pytest.raises(UserError, match=r"has learned no labels \(lam=0\)"):
        predict([f"run={run}", f"input={image}", "checkpoint=last"], console)
    with pytest.raises(UserError, match=r"has learned no labels \(lam=0\)"):  # before a word on best.ckpt
        predict([f"run={run}", f"input={image}"], console)


def test_a_folder_with_bad_files_is_predicted_with_pictures(photos: Path, tmp_path: Path, console: Console) -> None:
    files, out = tmp_path / "in", tmp_path / "out"
    (files / "sub").mkdir(parents=True)
    for index in range(3):
        Image.fromarray(photo(index, 1)).save(files / "sub" / f"ä {index} [x]=1.png")
    Image.fromarray(photo(7, 0)[..., 0]).save(files / "grey.png")
    (files / "broken.jpg").write_bytes(b"no image")
    (files / "empty.png").write_bytes(b"")
    Image.new("1", (13_000, 13_000)).save(files / "huge.png")
    assert predict([f"run={photos}", f"input={files}", f"out={out}", "explain=true", "batch_size=2"], console) == 3
    said = console.export_text()
    assert "7 files: " in said and "corrupt (2), too_large (1)" in said
    assert "its 169,000,000 pixels are too many at once" in said and "on_bad_image" not in said
    rows = {row["file"]: row for row in table(out)}
    good = {name: row for name, row in rows.items() if row["status"] == "ok"}
    assert len(good) == 4 and all(row["reason"] in said for row in rows.values())
    for row in good.values():
        with Image.open(out / row["picture"]) as picture:
            assert picture.size == (640, 390)
    with Image.open(out / "sheet.png") as sheet:
        assert sheet.width == 1200 and np.asarray(sheet).std() > 10
    content = json.loads((out / "predictions.json").read_text())
    assert content["about"]["not_yet_predicted"] == 0 and len(content["files"]) == 7


def test_a_list_keeps_its_columns_and_says_what_is_missing(photos: Path, tmp_path: Path, console: Console) -> None:
    Image.fromarray(photo(1, 1)).save(tmp_path / "a.png")
    Image.fromarray(photo(2, 0)).save(tmp_path / "b.png")
    gone = f"{'x' * 300}.png"  # no file has such a name
    (tmp_path / "list.csv").write_text(f"patient,path,status\n=7,b.png,x\n8,{gone},y\n9,a.png,z\n")
    words = [f"run={photos}", f"out={tmp_path / 'out'}"]
    assert predict([*words, f"input={tmp_path / 'list.csv'}", "top_k=1"], console) == 3
    rows = table(tmp_path / "out")
    assert [(row["file"], row["status"], row["patient"], row["list_status"]) for row in rows] == [
        ("b.png", "ok", "./=7", "x"),
        (gone, "missing", "8", "y"),
        ("a.png", "ok", "9", "z"),
    ]
    assert "there is no such file" in console.export_text()


def test_paths_come_from_standard_input(
    photos: Path, tmp_path: Path, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.fromarray(photo(1, 1)).save(tmp_path / "a.png")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(f"{tmp_path / 'a.png'}\n\n".encode())))
    assert predict([f"run={photos}", "input=-", f"out={tmp_path / 'out'}", "tta=flips"], console) == 0
    (row,) = table(tmp_path / "out")
    expected = ssat.load(photos).probabilities(tmp_path / "a.png", tta="flips")[0]
    assert [float(row[f"prob_{name}"]) for name in CLASSES] == pytest.approx(expected.tolist())


@pytest.mark.parametrize("run", ["photos", "numbers"])
def test_a_huge_picture_is_left_out_for_what_it_states_also_where_it_is_explained(
    run: str, tmp_path: Path, console: Console, request: pytest.FixtureRequest
) -> None:
    files = tmp_path / "files"
    files.mkdir()
    Image.fromarray(photo(0, 1)).save(files / "sound.png")
    for ending, bomb in BOMBS.items():
        (files / f"bomb.{ending}").write_bytes(bomb())
    words = [f"run={request.getfixturevalue(run)}", f"input={files}", f"out={tmp_path / 'out'}", "explain=true"]
    assert predict(words, console) == 3
    said = console.export_text()
    assert said.count("pixels are too many at once") == len(BOMBS)
    assert len([*(tmp_path / "out").rglob("*.png")]) == 2  # the explained one and the sheet


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["input={home}/empty"], "holds no image (.jpg"),
        (["input={home}/twice.csv"], "names a.png in the lines 2 and 4: leave out one of them"),
        (["input={home}/other.csv"], "has the columns file, label: it needs one that is called path"),
        (["input={home}/none.csv"], "names no file"),
        (["input={home}/photos", "tta=crops"], "tta=crops is not one of flips"),
        (["input={home}/photos", "top_k=0"], "top_k=0 is not possible"),
        (["input={home}/photos", "explain=yes"], "explain=yes is not one of true, false"),
        (["input={home}/photos", "face=all"], "face= is of videos"),
        (["input={home}/photos", "run={home}/empty"], "has no config.yaml of a run and no model.json of an export"),
        (["input={home}/photos", "run={home}/none.csv"], "is damaged (its beginning is of no checkpoint)"),
    ],
)
def test_a_mistake_is_one_sentence(photos: Path, home: Path, console: Console, words: list[str], sentence: str) -> None:
    (home / "empty").mkdir(exist_ok=True)
    (home / "twice.csv").write_text("path\na.png\nb.png\na.png\n")
    (home / "other.csv").write_text("file,label\na.png,1\n")
    (home / "none.csv").write_text("path\n")
    given = [f"run={photos}", *(word.format(home=home) for word in words)]
    with pytest.raises(UserError) as caught:
        predict(given, console)
    assert sentence in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("image", "sentence"),
    [
        (np.zeros((8, 8, 3)), "floating-point numbers of unknown range"),
        (np.zeros((3, 8, 8), np.uint8), r"has the shape \(3, 8, 8\)"),
        (torch.zeros(3, 8, 8), "it is a Tensor: give a path"),
        ("nowhere.png", "^cannot read the image nowhere.png: there is no such file$"),
        (ROOT, "it is a folder, give the files in it$"),
        (np.zeros((0, 8, 3), np.uint8), r"has the shape \(0, 8, 3\), and so no pixels"),
        (Image.new("RGB", (0, 4)), r"and so no pixels"),
        (np.zeros((2, 0, 8, 3), np.uint8)[0], "and so no pixels"),
        (None, "it is a NoneType: give a path"),
    ],
)
def test_what_is_no_image_is_one_sentence(photos: Path, image: object, sentence: str) -> None:
    model = ssat.load(photos)
    with pytest.raises(UserError, match=sentence) as caught:
        model.predict([image])
    assert "on_bad_image" not in str(caught.value)


@pytest.mark.parametrize("batch_size", [-1, 1.5, "8", True])
def test_a_wrong_argument_is_one_sentence(photos: Path, batch_size: Any) -> None:
    model, image = ssat.load(photos), photo(1, 1)
    for ask in (model.predict, model.embed, model.probabilities):
        with pytest.raises(UserError, match=f"batch_size={batch_size!r} is not possible: it must be a whole number"):
            ask(image, batch_size=batch_size)
        for nothing in (5, None):
            with pytest.raises(UserError, match=f"images={nothing} is a .*: give a path, a Pillow image"):
                ask(nothing)
        with pytest.raises(UserError, match="and so no pixels"):
            ask(np.zeros((0, 8, 3), np.uint8))
    assert model.embed(np.zeros((0, 8, 8, 3), np.uint8)).shape == (0, 32)  # no image is no mistake
    with pytest.raises(UserError, match=r"top_k=1.5 is not possible"):
        model.predict(image, top_k=1.5)  # type: ignore[arg-type]


def test_arrays_pillow_images_and_files_are_read_alike(photos: Path, tmp_path: Path) -> None:
    transform, pixels = ssat.load(photos).transform, photo(3, 1)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    expected = transform(tmp_path / "a.png")
    for image in (pixels, Image.fromarray(pixels), str(tmp_path / "a.png"), pixels.astype(np.uint16) * 257):
        assert torch.equal(transform(image), expected)
    grey = transform(pixels[..., :1])
    assert torch.equal(grey, transform(pixels[..., 0]))
    assert single.LARGEST == Image.MAX_IMAGE_PIXELS


def test_the_example_of_the_documentation_runs(
    numbers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs" / "python.md").read_text()
    _, example = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    found: dict[str, Any] = {"run": numbers}
    exec(example, found)
    assert "%, then" in capsys.readouterr().out
    assert found["heat"].shape == (16, 16) and found["features"].shape == (360, 32)
    named = {
        name for name in re.findall(r"`model\.(\w+)", page) if not name.startswith("safetensors") and name != "json"
    }
    assert named == {name for name in dir(Model) if not name.startswith("_")} - {"check"} | {
        "device",
        "saved",
        "multi_label",
    }


def test_importing_ssat_imports_nothing_heavy() -> None:
    code = "import sys, ssat; print({'torch', 'numpy', 'lightning'} & {*sys.modules})"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"
