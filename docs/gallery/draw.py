"""Makes the pictures of docs/gallery.md: python docs/gallery/draw.py (20 minutes on two cores; Chromium for the page)

It runs the commands that the page names, in a temporary folder, on the data that the notebooks make and on the digits.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import nbformat
from PIL import Image

HERE = Path(__file__).resolve().parent
NOTEBOOKS = HERE.parent / "notebooks"
PHOTOS = (
    "encoder=vit_micro data=image_folder data.root=photos data.test_fraction=0.2 data.img_size=48 data.patch_size=6"
)
CLIPS = "encoder=videomae_micro data=video_folder data.root=clips data.img_size=64 data.frames=8 data.frame_step=2"
CLIPS += (
    " data.val_fraction=0.2 recipe.batch_size=8 recipe.clips_per_video=8 recipe.lr_rule=absolute recipe.base_lr=1e-3"
)
WIDTH = 1100  # pixels of the widest picture


def ssat(words: str) -> None:
    """Run one command of the package."""
    print(f"ssat {words}", flush=True)
    subprocess.run([sys.executable, "-m", "ssat.commands", *words.split()], check=True, stdout=subprocess.DEVNULL)


def data_of(notebook: str) -> None:
    """Run the first cell of a notebook, which draws its data, in a folder of its own: the current one from now on."""
    cells = [cell for cell in nbformat.read(NOTEBOOKS / notebook, as_version=4).cells if cell.cell_type == "code"]
    exec(compile(cells[0].source, notebook, "exec"), {})


def keep(source: Path, name: str) -> None:
    """A picture as docs/gallery/<name>.png, no wider than WIDTH, in 256 colours."""
    picture = Image.open(source).convert("RGB")
    if picture.width > WIDTH:
        picture = picture.resize((WIDTH, round(picture.height * WIDTH / picture.width)), Image.Resampling.LANCZOS)
    picture.quantize(256, method=Image.Quantize.MAXCOVERAGE).save(HERE / f"{name}.png", optimize=True)


def only(pattern: str) -> Path:
    """The last file, in order of name, that fits a pattern below the current folder."""
    return sorted(Path().glob(pattern))[-1]


def photos() -> None:
    """What is left of a training on photos, and predictions of new ones."""
    data_of("own_photos.ipynb")
    ssat(f"train {PHOTOS} mode=ssat epochs=40 recipe.batch_size=16 experiment=photos footprint.energy=false")
    run = only("runs/photos/*")
    keep(only(f"{run}/joint/reconstructions/*.png"), "reconstructions")
    keep(run / "joint" / "mistakes.png", "mistakes")
    ssat(f"predict run={run} input=new explain=true out=predicted")
    keep(Path("predicted/sheet.png"), "least_certain")
    pictures = [Image.open(file).convert("RGB") for file in sorted(Path("predicted/explain").glob("*.png"))[4:8]]
    width, height = pictures[0].size
    row = Image.new("RGB", (2 * width, 2 * height))
    for number, picture in enumerate(pictures):
        row.paste(picture, (number % 2 * width, number // 2 * height))
    row.save("explained.png")
    keep(Path("explained.png"), "explained")


def digits() -> None:
    """Three modes on the digits: the page of the report, features, confusion, calibration."""
    os.chdir(tempfile.mkdtemp())
    every = "data.label_fraction=1.0 data.labelled_share=null data.epoch_size=null"
    ssat(f"train +experiments=quickstart epochs=40 seed=0 monitor.pictures=true {every}")
    runs = sorted(Path("runs/quickstart").iterdir())
    (run,) = (run for run in runs if "-ssat-" in run.name)
    keep(run / "joint" / "confusion.png", "confusion")
    keep(run / "joint" / "reliability.png", "reliability")
    ssat(f"embed run={run} split=test")
    keep(only(f"{run}/embeddings/*.png"), "embedding")
    ssat(f"analyze runs=[{','.join(map(str, runs))}] analysis=maps,gradcam pictures=6 images=6 out=figures")
    keep(Path("figures/maps.png"), "attention")
    keep(Path("figures/gradcam.png"), "gradcam")
    ssat("report runs=runs/quickstart out=report.html")
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser:
        options = ["--headless", "--no-sandbox", "--window-size=1400,1500", "--virtual-time-budget=4000"]
        page = Path("report.html").resolve().as_uri()
        subprocess.run([browser, *options, "--screenshot=page.png", page], check=True, capture_output=True)
        keep(Path("page.png"), "report")


def videos() -> None:
    """A detector's reasons."""
    data_of("deepfake.ipynb")
    ssat("prepare data=video_folder data.raw=videos data.root=clips detector=none size=64 stride=2")
    ssat(f"train {CLIPS} mode=ssat epochs=8 experiment=fakes footprint.energy=false")
    run = only("runs/fakes/*")
    keep(only(f"{run}/joint/reconstructions/*.png"), "tubes")
    ssat(f"predict run={run} input=new.mp4 checkpoint=last detector=none out=predicted")
    keep(only("predicted/**/*.png"), "video")


if __name__ == "__main__":
    for part in (photos, digits, videos):
        part()
