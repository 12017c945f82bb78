from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssat.commands.prepare import prepare


def test_show_draws_both_pipelines_and_the_class_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert prepare(["--show", "data=digits", f"runs_dir={tmp_path}"]) == 0
    path = tmp_path / "contact_sheets" / "digits.png"
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
    assert (tmp_path / "contact_sheets" / "digits.png").is_file()
