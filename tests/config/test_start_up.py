"""Nothing heavy is imported before it is needed, and nothing that is not needed at all."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.config.test_overrides import run_elsewhere
from tests.helpers import fail_of

SPY = """\
import json, os, sys, time

from ssat.encoders.vit import VisionTransformer


class Spy(VisionTransformer):
    def forward_features(self, *args, **kwargs):
        names = sorted({name.partition(".")[0] for name in sys.modules})
        print(json.dumps({"seconds": time.process_time(), "modules": names}), flush=True)
        os._exit(0)

    forward_joint = forward_features
"""
HEAVY = {
    "torch",
    "torchvision",
    "lightning",
    "timm",
    "torchmetrics",
    "sklearn",
    "scipy",
    "pandas",
    "matplotlib",
    "wandb",
}


def first_step(folder: Path, *words: str) -> dict:
    """The imported packages, the CPU seconds and what has been printed, at the first step of a run."""
    (folder / "conf" / "encoder").mkdir(parents=True)
    (folder / "conf" / "encoder" / "spy.yaml").write_text("defaults: [vit_micro]\nkind: spy:Spy\nname: spy\n")
    (folder / "spy.py").write_text(SPY)
    line = ["train", "--config-dir", "conf", "encoder=spy", "trainer=cpu", "mode=scratch", *words]
    result = run_elsewhere(line, folder)
    assert result.returncode == 0, result.stderr
    *said, last = result.stdout.splitlines()
    return json.loads(last) | {"said": said}


def cpu_seconds_of_torch() -> float:
    code = "import time, torch; print(time.process_time())"
    return float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)


@pytest.fixture
def images(tmp_path) -> Path:
    for split in ("train", "test"):
        for name in ("a", "b"):
            folder = tmp_path / "images" / split / name
            folder.mkdir(parents=True)
            for number in range(4):
                pixels = np.random.default_rng(number).integers(0, 255, (32, 32, 3), np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    return tmp_path / "images"


@pytest.mark.slow
def test_a_run_on_images_imports_no_plots_trackers_or_tables(images, tmp_path):
    words = ["data=image_folder", f"data.root={images}", "data.img_size=32", "footprint.energy=false"]
    found = first_step(tmp_path, *words, "recipe.batch_size=4")
    unused = {"wandb", "tensorboard", "matplotlib", "pandas", "sklearn", "scipy", "codecarbon"}
    assert not unused & {*found["modules"]}


@pytest.mark.slow
def test_the_default_run_takes_its_first_step_soon_and_says_what_it_is(tmp_path):
    found = first_step(tmp_path, "data=digits")
    assert found["said"][0] == "checking: spy on digits, mode=scratch, 100 epochs, seed 0"
    assert not {"wandb", "tensorboard", "matplotlib", "sklearn", "scipy"} & {
        *found["modules"]
    }  # codecarbon's tables need pandas
    # Measured: 5 CPU seconds where importing torch alone takes 1.5.
    assert found["seconds"] < 7 * cpu_seconds_of_torch()


@pytest.mark.sampled
@pytest.mark.parametrize(
    "words",
    [
        ["train", "data=image_folder", "data.root=/nope"],
        ["train", "epochs=0"],
        ["evaluate", "run=nope"],
        ["analyze", "runs=[nope]"],
        ["prepare", "data=svhn", "--check"],
        ["dashboard", "sweep=nope"],
    ],
)
def test_what_can_be_refused_without_torch_is(tmp_path, words):
    result = run_elsewhere(words, tmp_path, start=[sys.executable, "-X", "importtime", "-m", "ssat.commands"])
    imported = set(re.findall(r"^import time: .*\| +(\w+)", result.stderr, re.MULTILINE))
    assert "ssat" in imported and not HEAVY & imported
    assert fail_of(result)


def test_importing_the_package_imports_nothing_heavy(tmp_path):
    code = "import sys, ssat; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    result = run_elsewhere([], tmp_path, start=[sys.executable, "-c", code])
    assert not (HEAVY | {"hydra", "omegaconf"}) & {*result.stdout.split()}


@pytest.mark.slow
def test_a_hidden_package_can_be_imported_afterwards():
    code = "from ssat.core.libraries import load; load('timm', 'torchmetrics'); import sys; a = {*sys.modules}\n"
    code += "import matplotlib, importlib.metadata as m; print('matplotlib' in a, m.version('matplotlib') != '')"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["False", "True"]
