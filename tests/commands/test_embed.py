"""src.embed on tiny real runs: features, labels, tables, maps, and the map on the report page."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from rich.console import Console

import ssat
from ssat.analysis.projection import check_method, chosen_method, is_flat, pca, tsne
from ssat.analysis.scatter import class_style, draw_points
from ssat.commands.embed.command import embed
from ssat.commands.embed.features import labels_of
from ssat.commands.predict.inputs import Inputs
from ssat.core.errors import UserError
from ssat.results.page.html import render
from ssat.runs.record import read_records
from tests.helpers import train

CLASSES = ("dark", "light")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos in class folders, dark and light ones."""
    home, generator = tmp_path_factory.mktemp("home"), np.random.default_rng(0)
    for split, count in (("train", 10), ("test", 8)):
        for label, name in enumerate(CLASSES):
            (home / "photos" / split / name).mkdir(parents=True)
            for index in range(count):
                pixels = (generator.integers(0, 128, (24, 30, 3)) + 127 * label).astype(np.uint8)
                Image.fromarray(pixels).save(home / "photos" / split / name / f"{index}.png")
    return home


@pytest.fixture(scope="module")
def run(home: Path) -> Path:
    words = ["data=image_folder", f"data.root={home / 'photos'}", "data.img_size=16", "data.samples_per_class=null"]
    return train(*words, "mode=scratch", "recipe.batch_size=8", "epochs=1", "experiment=e", runs=home / "runs")


@pytest.fixture
def console() -> Console:
    return Console(width=200, record=True, force_terminal=False, soft_wrap=True)


def table(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_files_are_embedded_with_the_labels_of_their_folders(
    run: Path, home: Path, tmp_path: Path, console: Console
) -> None:
    (tmp_path / "in").symlink_to(home / "photos" / "test")
    out = tmp_path / "out" / "some.npz"
    words = [f"run={run}", f"input={tmp_path / 'in'}", "batch_size=3"]
    assert embed([*words, f"out={out}"], console) == 0
    kept = dict(np.load(out, allow_pickle=False))
    files = kept["files"].tolist()
    model = ssat.load(run)
    assert kept["features"].dtype == np.float32
    np.testing.assert_allclose(
        kept["features"], model.embed([home / "photos" / "test" / name for name in files]), atol=1e-5
    )
    assert [CLASSES[label] for label in kept["labels"]] == [name.split("/")[0] for name in files]
    assert kept["classes"].tolist() == [*CLASSES]
    rows = table(out.with_suffix(".csv"))
    assert [(row["file"], row["label"]) for row in rows] == [(name, name.split("/")[0]) for name in files]
    np.testing.assert_allclose([[float(row["x"]), float(row["y"])] for row in rows], kept["map"], rtol=1e-6)
    said = console.export_text()
    assert "labels of the class folders" in said and "features 16 x 32" in said and "k-NN accuracy" in said
    about = json.loads(out.with_suffix(".json").read_text())
    assert about["knn"]["k"] == 15 and about["knn"]["majority"] == 50 and about["map"] == "tsne"
    with Image.open(out.with_suffix(".png")) as picture:
        assert np.asarray(picture).std() > 5
    assert embed([*words, f"out={tmp_path / 'again.npz'}"], console) == 0  # the same seed, the same map
    assert np.array_equal(np.load(tmp_path / "again.npz")["map"], kept["map"])


def test_files_that_cannot_be_read_are_named_and_the_others_embedded(
    run: Path, home: Path, tmp_path: Path, console: Console
) -> None:
    for number, name in enumerate(("=a.png", "b.png", "c.png")):
        (tmp_path / name).write_bytes((home / "photos" / "test" / "dark" / f"{number}.png").read_bytes())
    (tmp_path / "broken.png").write_bytes(b"no image")
    (tmp_path / "list.csv").write_text("path,label\nbroken.png,dark\n=a.png,dark\nb.png,light\ngone.png,x\nc.png,y\n")
    out = tmp_path / "list.parquet"
    assert embed([f"run={run}", f"input={tmp_path / 'list.csv'}", f"out={out}"], console) == 3
    said = console.export_text()
    assert "corrupt: broken.png: cannot read the image" in said and "missing: gone.png" in said
    assert "3 images embedded, 2 not" in said and "the others name no class, the first is 'x'" in said
    read = pq.read_table(out)
    assert read["file"].to_pylist() == ["=a.png", "b.png", "c.png"]
    assert read["class"].to_pylist() == ["dark", "light", None] and read["label"].to_pylist() == [0, 1, -1]
    files = [tmp_path / name for name in read["file"].to_pylist()]
    np.testing.assert_allclose(np.array(read["features"].to_pylist()), ssat.load(run).embed(files), atol=1e-5)
    assert json.loads(read.schema.metadata[b"classes"]) == [*CLASSES]
    rows = table(out.with_suffix(".csv"))
    assert [row["status"] for row in rows] == ["ok", "ok", "ok", "corrupt", "missing"]
    assert rows[0]["file"] == "./=a.png"  # no spreadsheet computes it


def test_a_split_of_the_run_lies_in_its_folder_and_on_the_report_page(run: Path, home: Path, console: Console) -> None:
    assert embed([f"run={run}", "split=test", "checkpoint=last", "map=pca"], console) == 0
    kept = np.load(run / "embeddings" / "test.npz")
    paths = [home / "photos" / "test" / name.split("test/")[-1] for name in kept["files"].tolist()]
    assert [path.parent.name for path in paths] == [CLASSES[label] for label in kept["labels"]]
    model = ssat.load(run, checkpoint="last")
    np.testing.assert_allclose(kept["features"], model.embed(paths), atol=1e-5)
    records, _ = read_records(home / "runs")
    page = render([record for record in records if record.folder.name == run.name])
    assert "PCA of test images, k-NN" in page
    (run / "embeddings" / "test.json").write_text("{")  # damaged: the page comes without it
    assert "PCA of test images" not in render(records)
    console.export_text()
    assert embed([f"run={run}", "split=train", "map=none"], console) == 0
    assert "was trained on these images" in console.export_text()
    assert not (run / "embeddings" / "train.png").exists()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "or split=test for the run's own images: which images"),
        (["input={home}/photos", "split=test"], "not both"),
        (["input={home}/photos", "map=som"], "map=som is not one of auto, pca"),
        (["input={home}/photos", "out=x.csv"], "ends neither in .npz"),
        (["input={home}/photos", "data.root=x"], "it goes with split="),
        (["input={home}/nothing"], "does not exist"),
        (["split=val"], "split=val does not exist, the data have"),
        (["split=test", "data.root={home}/photos/train"], "has no evaluation images"),
        (["input={home}/photos/test/dark/1.png", "map=tsne"], ""),
        (["input={home}/bad.png"], "holds no image that can be read: nothing is written"),
    ],
)
def test_a_mistake_is_one_sentence(
    run: Path, home: Path, tmp_path: Path, console: Console, monkeypatch: pytest.MonkeyPatch, words: list, sentence: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (home / "bad.png").write_bytes(b"x")
    given = [f"run={run}", *(word.format(home=home) for word in words)]
    if not sentence:  # one image has features and no map
        assert embed(given, console) == 0
        assert "no map: there is nothing to draw of one image" in console.export_text()
        return
    with pytest.raises(UserError) as caught:
        embed(given, console)
    assert sentence in str(caught.value) and "\n" not in str(caught.value)
    assert not list(tmp_path.rglob("*.npz"))


def test_labels_come_from_the_nearest_folder_of_a_class() -> None:
    names = ["dark/light/1.png", "light/x/2.png", "birds/3.png", "4.png"]
    labels, said = labels_of(Inputs(Path(), names), CLASSES)
    assert labels.tolist() == [1, 1, -1, -1]
    assert said == "labels of the class folders: 2 images of 4; the others name no class, the first is 'birds'"
    labels, said = labels_of(Inputs(Path(), names[2:]), CLASSES)
    assert labels.tolist() == [-1, -1] and said.startswith("no labels: no folder is called as a class of the run (dark")


def test_pca_keeps_the_directions_of_the_largest_variance() -> None:
    generator = np.random.default_rng(0)
    points = generator.normal(size=(50, 2)) * (9, 3)
    turned = np.linalg.qr(generator.normal(size=(6, 6)))[0][:2]
    found = pca((points @ turned + 5).astype(np.float32))
    centred = points - points.mean(0)
    np.testing.assert_allclose(found.T @ found, np.diag(np.linalg.svd(centred)[1] ** 2), atol=1e-2)
    distances = [np.linalg.norm(p[:, None] - p[None], axis=2) for p in (points, found)]
    np.testing.assert_allclose(*distances, atol=1e-4)


def test_tsne_keeps_groups_apart_and_repeats_itself() -> None:
    generator = np.random.default_rng(0)
    centres = np.repeat(np.eye(3, 8), 20, axis=0)
    features = (centres + 0.05 * generator.normal(size=(60, 8))).astype(np.float32)
    points = tsne(features, seed=3)
    assert np.array_equal(points, tsne(features, seed=3))
    near = np.linalg.norm(points[:, None] - points[None], axis=2) + 1e9 * np.eye(60)
    assert (near.argmin(1) // 20 == np.arange(60) // 20).all()


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (
            "raise ImportError('Numba needs NumPy 2.0 or less.\\nGot more')",
            "be imported .Numba needs NumPy 2.0 or less.",
        ),
        ("raise AttributeError('_ARRAY_API not found')", "cannot be imported ._ARRAY_API not found"),
    ],
)
def test_a_broken_umap_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: str, what: str
) -> None:
    (tmp_path / "umap").mkdir()
    (tmp_path / "umap" / "__init__.py").write_text(content)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "umap", raising=False)
    with pytest.raises(UserError, match=rf"map=umap needs the library umap-learn, which .*{what}.*ssat\[embed\]"):
        check_method("umap")


def test_the_map_that_auto_means_depends_on_the_number_of_images() -> None:
    assert [chosen_method("auto", images) for images in (9, 10, 5000, 5001)] == ["pca", "tsne", "tsne", "pca"]
    with pytest.raises(UserError, match="map=tsne needs at least 10 images, and there are 9: take map=pca"):
        chosen_method("tsne", 9)
    assert is_flat(np.ones((1, 4), np.float32)) and is_flat(np.ones((7, 4), np.float32))


@pytest.mark.parametrize("classes", [2, 100])
def test_classes_look_different_in_a_map_that_fits_a_screen(classes: int, tmp_path: Path) -> None:
    assert len({class_style(number, classes) for number in range(classes)}) == classes
    names = [f"${number}_class of a long name that is cut" for number in range(classes)]
    points = np.random.default_rng(0).normal(size=(2 * classes, 2)).astype(np.float32)
    draw_points(points, np.arange(2 * classes) % (classes + 1) - 1, names, "map $x", tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as picture:
        assert 700 <= picture.width <= 1700 and picture.height < 800
