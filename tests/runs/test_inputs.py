"""A run is what it computes on what it reads: other images, classes or weights are never taken for its own."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssat.commands.evaluate import evaluate
from ssat.core.errors import UserError
from ssat.runs.inputs import changes
from tests.helpers import killed_after, train

FOLDER = (
    *("encoder=vit_micro", "encoder.depth=1", "data=image_folder", "data.img_size=16", "data.patch_size=4"),
    *("data.samples_per_class=null", "recipe.batch_size=8", "epochs=1", "reconstruct_every=0"),
)


def write_images(root: Path, classes: tuple[str, ...], count: int, seed: int = 0) -> None:
    generator = np.random.default_rng(seed)
    for split in ("train", "test"):
        for name in classes:
            folder = root / split / name
            folder.mkdir(parents=True, exist_ok=True)
            for index in range(count):
                write_pixels(folder / f"{index}.png", generator)


def write_pixels(path: Path, generator: np.random.Generator) -> None:
    """Random pixels as a file whose size is always the same."""
    pixels = generator.integers(0, 256, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, compress_level=0)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    write_images(tmp_path / "images", ("cat", "dog"), 8)
    return tmp_path / "images"


def words(images: Path, *more: str) -> tuple[str, ...]:
    return (*FOLDER, f"data.root={images}", "experiment=x", *more)


def test_a_finished_run_is_not_skipped_when_its_images_were_replaced(images: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    train(*words(images), runs=runs)
    train(*words(images), runs=runs)  # nothing changed: skipped
    shutil.rmtree(images)
    write_images(images, ("amphibian", "dog"), 12)
    with pytest.raises(UserError, match="train 16 -> 24 images.*class 0 was cat, is amphibian"):
        train(*words(images), runs=runs)


def test_another_image_of_the_same_name_size_and_date_is_noticed(images: Path, tmp_path: Path) -> None:
    runs, changed = tmp_path / "runs", images / "train" / "cat" / "0.png"
    train(*words(images), runs=runs)
    before = changed.stat()
    write_pixels(changed, np.random.default_rng(9))
    os.utime(changed, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert changed.stat().st_size == before.st_size
    with pytest.raises(UserError, match="other train images or labels"):
        train(*words(images), runs=runs)


def test_a_finished_run_whose_images_are_gone_is_skipped_and_says_so(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = tmp_path / "runs"
    train(*words(images), runs=runs)
    for split in ("train", "test"):
        shutil.rmtree(images / split)
    capsys.readouterr()
    train(*words(images), runs=runs)
    assert "not compared" in capsys.readouterr().out


def test_a_class_that_is_renamed_in_one_split_does_not_pass_as_finished(images: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    train(*words(images), runs=runs)
    (images / "train" / "cat").rename(images / "train" / "lion")
    with pytest.raises(UserError, match="so it is not what .* has read"):
        train(*words(images), runs=runs)


def test_an_interrupted_run_is_not_continued_with_shifted_labels(images: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    with killed_after("last.ckpt", 1):
        train(*words(images, "epochs=2"), runs=runs)
    for split in ("train", "test"):
        (images / split / "cat").rename(images / split / "zebra")
    with pytest.raises(UserError, match="class 0 was cat, is dog"):
        train(*words(images, "epochs=2"), runs=runs)


@pytest.mark.slow
def test_replaced_start_weights_make_another_run(images: Path, tmp_path: Path) -> None:
    runs, source = tmp_path / "runs", tmp_path / "start.ckpt"
    first, second = (train(*words(images, f"seed={seed}"), runs=tmp_path / "starts") for seed in (1, 2))
    shutil.copy(first / "joint" / "checkpoints" / "last.ckpt", source)
    command = words(images, "mode=finetune", f"mode.init_from={source}")
    train(*command, runs=runs)
    train(*command, runs=runs)
    shutil.copy(second / "joint" / "checkpoints" / "last.ckpt", source)
    with pytest.raises(UserError, match=r"file of mode\.init_from has other content"):
        train(*command, runs=runs)


def test_a_run_is_evaluated_on_its_own_images_unless_others_are_named(images: Path, tmp_path: Path) -> None:
    from rich.console import Console

    run = train(*words(images), runs=tmp_path / "runs")
    Image.new("RGB", (16, 16)).save(images / "test" / "cat" / "0.png")
    with pytest.raises(UserError, match="other test images or labels"):
        evaluate([f"run={run}"], Console(quiet=True))
    record = evaluate([f"run={run}", f"data.root={images}"], Console(quiet=True))
    assert 0 <= record["clean"]["acc1"] <= 100


def test_changes_name_counts_classes_and_files() -> None:
    then = {"data": {"splits": {"train": 72}, "sha256": {"train": "a"}, "classes": ["cat"]}, "weights": {"k": "1"}}
    now = {
        "data": {"splits": {"train": 5048}, "sha256": {"train": "b"}, "classes": ["cat", "dog"]},
        "weights": {"k": "2"},
    }
    assert changes(now, then) == ["train 72 -> 5,048 images", "1 -> 2 classes", "the file of k has other content"]
    assert changes(then, then) == [] and changes(now, {}) == []


def test_names_and_sizes_are_compared_with_records_of_the_time_before_the_content_was_recorded() -> None:
    now = {"data": {"sha256": {"train": "sizes"}, "content": {"train": "bytes"}}}
    assert changes(now, {"data": {"sha256": {"train": "sizes"}}}) == []
    assert changes(now, {"data": {"sha256": {"train": "others"}}}) == ["other train images or labels"]
    assert changes(now, {"data": {"sha256": {"train": "sizes"}, "content": {"train": "x"}}})
