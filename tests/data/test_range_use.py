"""Ranges that do not fit the values of the images are said before the training and in its record."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssat.core.errors import UserError
from ssat.data.image import ImageDataModule
from ssat.data.options import check_range
from ssat.data.sets.folder import image_folder


def folder(root: Path, high: int, dtype: type, brighter: int = 0) -> Path:
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for name in "ab":
            (root / split / name).mkdir(parents=True)
            for number in range(5):
                values = rng.integers(0, high + 1, (9, 9)).astype(dtype)
                Image.fromarray(values).save(root / split / name / f"{number}.png")
    for number in range(brighter):
        Image.fromarray(rng.integers(0, 65536, (9, 9)).astype(dtype)).save(root / f"train/a/bright{number}.png")
    return root


def remarks(root: Path, value_range: tuple[float, float] | None) -> list[str]:
    data = ImageDataModule(image_folder(root), img_size=8, batch_size=2, value_range=value_range)
    data.setup()
    assert data.overview().values == data.range_remarks()
    assert all(one in data.overview().lines()[-1] for one in data.range_remarks())
    return data.range_remarks()


@pytest.mark.parametrize(
    ("high", "dtype", "value_range", "said"),
    [
        (255, np.uint8, (0, 4095), "6.2% of it"),
        (255, np.uint8, (-1e300, 1e300), "0.0% of it"),
        (255, np.uint8, (300, 400), "0.0% of it"),
        (255, np.uint8, (-9, -1), "0.0% of it"),
        (255, np.uint8, (0, 1), "of the values lie outside"),
        (4095, np.uint16, (0, 65535), "6.2% of it"),
        (4095, np.uint16, (0, 255), "of the values lie outside"),
        (255, np.uint8, (0, 255), None),
        (255, np.uint8, (-100, 600), None),
        (4095, np.uint16, (0, 4095), None),
        (4095, np.uint16, (1000, 3000), None),
    ],
)
def test_a_range_far_from_the_values_is_said(
    tmp_path: Path, high: int, dtype: type, value_range: tuple[float, float], said: str | None
) -> None:
    found = remarks(folder(tmp_path, high, dtype), value_range)
    assert (said in found[0] and "of 20 images go from" in found[0]) if said else found == []


@pytest.mark.parametrize("brighter", [1, 12])
def test_12_bit_files_beside_true_16_bit_files_are_said(tmp_path: Path, brighter: int) -> None:
    (said,) = remarks(folder(tmp_path, 4095, np.uint16, brighter), None)
    assert f"20 of {20 + brighter} images with values up to 65535" in said and said.endswith(
        "data.value_range=[0,4095]"
    )


def test_true_16_bit_files_are_not_remarked_upon(tmp_path: Path) -> None:
    assert remarks(folder(tmp_path, 65535, np.uint16), None) == []


@pytest.mark.parametrize("numbers", [(-1e308, 1e308), (0, 1e-320), (-1.7e308, 1e308)])
def test_a_range_without_a_finite_width_is_refused(numbers: tuple[float, float]) -> None:
    with pytest.raises(UserError, match="finite distance"):
        check_range(numbers)
