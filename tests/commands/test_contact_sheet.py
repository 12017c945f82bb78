from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssat.commands.contact_sheet import row_label
from ssat.commands.prepare import prepare
from ssat.data.sets.sources import ImageList


def test_show_draws_both_pipelines_and_the_class_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert prepare(["--show", "data=digits", f"runs_dir={tmp_path}"]) == 0
    (path,) = (tmp_path / "contact_sheets").iterdir()
    assert path.name.startswith("digits-")
    assert f"wrote {path}" in capsys.readouterr().out
    pixels = np.asarray(Image.open(path).convert("RGB"))
    assert min(pixels.shape[:2]) > 800
    # The upper part holds pictures on both sides, the lower one the counts.
    height, width = pixels.shape[:2]
    for part in (pixels[: height // 2, : width // 2], pixels[: height // 2, width // 2 :], pixels[-height // 6 :]):
        assert part.std() > 20


def test_show_says_in_the_picture_what_only_pil_can_do(tmp_path: Path) -> None:
    words = ["--show", "data=digits", f"runs_dir={tmp_path}", "recipe.augment.auto_augment=augmix-m5"]
    assert prepare(words) == 0
    assert len(list((tmp_path / "contact_sheets").glob("digits-*.png"))) == 1


@pytest.mark.slow
def test_the_sheets_of_two_image_folders_lie_side_by_side(tmp_path: Path) -> None:
    for name, grey in (("a", 40), ("b", 200)):
        for number in range(4):
            path = tmp_path / name / "train" / f"class{number % 2}" / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (32, 32), (grey, grey, grey)).save(path)
        words = ["data=image_folder", f"data.root={tmp_path / name}", "data.val_fraction=0.5", "data.img_size=32"]
        words += ["recipe.batch_size=2"]
        assert prepare(["--show", "encoder=vit_micro", f"runs_dir={tmp_path}", "data.patch_size=4", *words]) == 0
    sheets = [path.read_bytes() for path in (tmp_path / "contact_sheets").iterdir()]
    assert len(set(sheets)) == 2


def test_a_row_is_labelled_with_its_class_and_the_end_of_its_file_name() -> None:
    files = ImageList(["a/$1$.png", "folder/with/a/very/long/name/of/0001.png"], np.array([1, 0]), root=Path("/images"))
    classes = ["short", "a class with a name of many letters"]
    assert row_label(files, 0, classes) == "a class with a name…\na/\\$1\\$.png"
    first, end = row_label(files, 1, classes).splitlines()
    assert first == "short" and end.startswith("…") and end.endswith("/of/0001.png") and len(end) == 20
    assert row_label(ImageList(np.zeros((1, 4, 4), np.uint8), np.array([0])), 0, classes) == "short"
