"""Disks and run folders that cannot be written, in a mount namespace of this test's own."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ssat.core.errors import UserError
from ssat.core.files import refuse_unwritable
from tests.helpers import ROOT, TINY, train


def mounted(*lines: str) -> list[str]:
    """The command that runs `lines` of a shell where mounts are of its own, and end with it."""
    return ["unshare", "--map-root-user", "--mount", "sh", "-ec", "\n".join(lines)]


def read_only(folder: Path) -> str:
    return f"mount --bind {folder} {folder}; mount -o remount,ro,bind {folder}"


def may_mount() -> bool:
    if shutil.which("unshare") is None:
        return False
    return subprocess.run(mounted("mount -t tmpfs none /mnt"), capture_output=True).returncode == 0


needs_mounts = pytest.mark.skipif(not may_mount(), reason="this machine allows no mounts of a user's own")


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return train("mode=scratch", "epochs=1", runs=tmp_path_factory.mktemp("runs"))


def test_a_folder_that_can_be_written_is_left_as_it_was(tmp_path):
    refuse_unwritable(tmp_path / "not" / "yet", key="out", value=tmp_path, cure="")
    assert list(tmp_path.iterdir()) == []


def test_a_file_where_a_folder_is_needed_is_refused(tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(UserError, match=r"out=mine cannot be written \(Not a directory\): name another"):
        refuse_unwritable(tmp_path / "taken" / "a", key="out", value=Path("mine"), cure="name another")


COMMANDS = {
    "evaluate": "src.evaluate run={run}",
    "analyze": "src.analyze runs=[{run}] analysis=attention out={run}/analysis",
    "predict": "src.predict run={run} input={images} out={run}/predictions",
    "export": "src.export run={run} format=safetensors out={run}/export",
    "embed": "src.embed run={run} input={images} out={run}/features.npz",
    "embed-split": "src.embed run={run} split=test",
}


@needs_mounts
@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_a_read_only_run_is_refused_before_the_work_in_one_sentence(run, name):
    pictures = run.parent / "pictures"
    pictures.mkdir(exist_ok=True)
    (pictures / "damaged.png").write_text("no picture")  # which the work would name
    words = COMMANDS[name].format(run=run, images=pictures)
    before = sorted(run.rglob("*"))
    done = subprocess.run(
        mounted(read_only(run), f"exec {sys.executable} -m {words}"), cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 2 and sorted(run.rglob("*")) == before
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ") and "cannot be written (Read-only file system)" in line
    assert "damaged" not in done.stdout and "acc1" not in done.stdout and "parity" not in done.stdout


@needs_mounts
@pytest.mark.slow
def test_a_run_on_a_read_only_disk_of_data_trains(tmp_path):
    import numpy as np
    from PIL import Image

    draw = np.random.default_rng(0)
    for split, number in (("train", 8), ("test", 4)):
        for label in ("a", "b"):
            folder = tmp_path / "data" / split / label
            folder.mkdir(parents=True)
            for index in range(number):
                pixels = draw.integers(0, 255, (16, 16, 3), np.uint8)
                Image.fromarray(pixels).save(folder / f"{index}.png")
    data = tmp_path / "data"
    words = [*TINY, "data=image_folder", f"data.root={data}", "data.img_size=16", "data.num_workers=1", "epochs=1"]
    words += ["data.samples_per_class=null", "recipe.batch_size=4", f"runs_dir={tmp_path / 'runs'}"]
    lines = [f"exec {sys.executable} -m src.train {' '.join(words)}"]
    done = subprocess.run(mounted(read_only(data), *lines), cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    checked = [f"exec {sys.executable} -m src.prepare data=image_folder data.root={data} --check"]
    done = subprocess.run(mounted(read_only(data), *checked), cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
