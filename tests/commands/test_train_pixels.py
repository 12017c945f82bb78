"""Real runs on image files whose values, channels and endings are not the usual ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from PIL import Image

from ssat.config.identity import config_hash
from ssat.config.resolve import build, resolve
from ssat.config.schema import Run
from ssat.config.words import CONF
from ssat.core.errors import UserError
from tests.data.files import write_tiff
from tests.helpers import record_of, train

OWN = "recipe.statistics=own"
IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def images(root: Path, channels: int) -> list[str]:
    """12-bit images in 16-bit files, and the words that train on them."""
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for number, label in enumerate("ab"):
            (root / split / label).mkdir(parents=True)
            for k in range(4):
                values = rng.integers(0, 2048, (16, 16, channels), dtype=np.uint16) + 2047 * number
                path = root / split / label / f"{k}.tif"
                write_tiff(path, values) if channels > 1 else Image.fromarray(values[..., 0]).save(path)
            (root / split / label / "phone.heic").write_bytes(b"?")
    words = ["data=image_folder", f"data.root={root}", "data.img_size=16", "data.patch_size=4", "epochs=1"]
    return [*words, "data.samples_per_class=null", "recipe.batch_size=4"]


def test_a_dark_set_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    words = images(tmp_path / "images", 1)
    with pytest.raises(UserError, match=r"is 4094, far below the 65535 of their type.*data.value_range=\[0,4095\]"):
        train(*words, runs=tmp_path / "runs")
    for wrong in ("[]", "[7,7]", "[4095,0]"):
        with pytest.raises(UserError, match="data.value_range=.* is not possible"):
            train(*words, f"data.value_range={wrong}", runs=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("pipeline", ["timm", "batched"])
def test_a_multispectral_set_trains_and_its_record_says_how(tmp_path: Path, pipeline: str, capsys) -> None:
    words = images(tmp_path / "images", 5)
    words += ["data.channels=5", "data.value_range=[0,4095]", OWN, f"data.pipeline={pipeline}"]
    with pytest.raises(UserError, match="set recipe.augment.auto_augment=null"):
        train(*words, runs=tmp_path / "runs")
    run = train(*words, "recipe.augment.auto_augment=null", runs=tmp_path / "runs")
    record = record_of(run)
    assert "4 files are not read: 4 .heic" in capsys.readouterr().out
    assert record["phases"][-1]["data_check"]["not_read"] == {"a": {".heic": 2}, "b": {".heic": 2}}
    statistics = record["phases"][-1]["statistics"]
    assert np.allclose(statistics["mean"], [0.5] * 5, atol=0.03) and len(statistics["std"]) == 5
    assert list(run.glob("*/reconstructions/*.png"))


def composed(*words: str) -> Run:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return resolve(compose("train", overrides=["encoder=vit_t", "data=image_folder", "data.root=imgs", *words]))


def with_own(run: Run, own: dict) -> Run:
    values = dict(run.values)
    values["data"] = {**values["data"], "statistics": {**values["data"]["statistics"], "own": own}}
    return build(values)


def test_statistics_that_are_measured_on_request_leave_other_hashes_as_they_were() -> None:
    run = composed()
    assert run.data.statistics.own is None
    assert config_hash(with_own(run, IMAGENET)) == config_hash(run)  # as it was written before they were measured
    measured = composed(OWN)
    assert config_hash(with_own(measured, IMAGENET)) != config_hash(measured)
    assert config_hash(composed("data.value_range=null")) == config_hash(run)
    assert config_hash(composed("data.value_range=[0,4095]")) != config_hash(run)
