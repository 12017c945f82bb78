"""The stages of `benchmarks.gpu` that no other script offers.

    python -m benchmarks.gpu_stages <stage> device=<cpu or cuda> work=<folder> images= [key=value ...]

Each prints what it does and writes its figures, with `key`, the line of the table, to the file $SSAT_FIGURES.
"""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.device import require

ROOT = Path(__file__).resolve().parent.parent
CLASSES = 10
TINY = ("encoder.depth=2", "encoder.embed_dim=32", "encoder.num_heads=2", "trainer.max_steps=4", "trainer.threads=1")


@dataclass(frozen=True)
class Asked:
    """The words of a stage: the device, a folder for its runs, images ("" for made-up ones), further overrides."""

    device: str
    work: Path
    images: str
    more: tuple[str, ...]

    @property
    def on_gpu(self) -> bool:
        return self.device == "cuda"


def write(key: str, **figures: Any) -> None:
    print(key)
    if path := os.environ.get("SSAT_FIGURES"):
        Path(path).write_text(json.dumps({"key": key, **figures}, indent=1) + "\n")


def images_of(asked: Asked) -> Path:
    """The folder of images, made up where none was given: 10 classes of 32 px noise on a colour."""
    if asked.images:
        return Path(asked.images)
    folder = asked.work / "images"
    if folder.exists():
        return folder
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    colours = rng.integers(60, 196, (CLASSES, 3))
    partial = folder.with_name(f"images-{os.getpid()}")
    for part, number in (("train", 512 if asked.on_gpu else 16), ("test", 32 if asked.on_gpu else 8)):
        for label, colour in enumerate(colours):
            (partial / part / f"class{label}").mkdir(parents=True)
            noise = rng.integers(-60, 60, (number, 32, 32, 3))
            for index, pixels in enumerate((noise + colour).clip(0, 255).astype(np.uint8)):
                Image.fromarray(pixels).save(partial / part / f"class{label}" / f"{index}.png", compress_level=1)
    partial.rename(folder)  # a stage that was ended leaves no half set
    return folder


def env(asked: Asked) -> None:
    """Versions and the card."""
    import platform
    from importlib.metadata import PackageNotFoundError, version

    import torch

    found = {"python": platform.python_version(), "cpus": str(os.cpu_count())}
    for name in ("torch", "timm", "lightning", "torchmetrics", "hydra-core", "omegaconf", "numpy"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "missing"
    card = torch.cuda.get_device_name(0) if asked.on_gpu else platform.processor() or platform.machine()
    memory = f", {torch.cuda.get_device_properties(0).total_memory / 2**30:.0f} GiB" if asked.on_gpu else ""
    write(f"{card}{memory}, torch {torch.__version__}, Python {found['python']}", card=card, versions=found)


def tests(asked: Asked) -> None:
    """The tests marked gpu; without a GPU they are only collected."""
    files = [
        str(path.relative_to(ROOT))
        for path in sorted(ROOT.glob("tests/**/test_*.py"))
        if "mark.gpu" in path.read_text()
    ]
    words = ["-q", "-m", "gpu", "-p", "no:cacheprovider", "-o", "addopts=--import-mode=importlib"]
    words += [] if asked.on_gpu else ["--collect-only"]
    process = subprocess.Popen(
        [sys.executable, "-m", "pytest", *words, *files], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    last = ""
    for line in process.stdout:
        print(line, end="", flush=True)
        last = line.strip() or last
    write(last.strip("= "), files=files)
    if process.wait():
        raise SystemExit(process.returncode)


def input_pipeline(asked: Asked) -> None:
    """Images per second of the batched pipeline on the device."""
    from benchmarks import input_pipeline as script

    few = [] if asked.on_gpu else ["images=64", "rounds=1"]
    out = asked.work / "input"
    script.main([f"small={images_of(asked) / 'train'}", f"device={asked.device}", f"out={out}", *few])
    report = json.loads((out / "input_pipeline.json").read_text())
    ((name, row),) = report["results"].items()
    write(f"{name}: {row['batched']:,.0f} images/s", **report)


def command(*words: str) -> None:
    """Run a command of the project; what it says goes to the log."""
    print("$ python -m", *words, flush=True)
    if code := subprocess.run([sys.executable, "-m", *words], cwd=ROOT).returncode:
        raise SystemExit(code)


def trained(asked: Asked, name: str, *more: str, epochs: int) -> Path:
    """The folder of a whole training with mode=ssat."""
    size = ["encoder=vit_t", "encoder.patch_size=4", "recipe.batch_size=256", "trainer=gpu", "trainer.precision=bf16"]
    if not asked.on_gpu:
        size = ["encoder=vit_micro", "data.patch_size=8", "recipe.batch_size=16", "trainer=cpu", *TINY]
    run = asked.work / name
    command(
        *("src.train", *size, "data=image_folder", f"data.root={images_of(asked)}", "data.img_size=32", "mode=ssat"),
        *("data.pipeline=batched", "data.num_workers=0", "recipe.drop_last=true", f"eval_every={epochs}"),
        *(f"epochs={epochs}", "reconstruct_every=0", "footprint.energy=false", "monitor.pictures=false"),
        *("trainer.progress=lines", f"run_dir={run}", *more),
    )
    return run


def train(asked: Asked) -> None:
    """A short whole training: images/s of its last epoch, which no compilation slows down, and peak memory.

    Of a training that a limit has stopped the epochs so far are written, too.
    """
    name = "-".join(["train", *(word.partition("=")[0].rpartition(".")[2] for word in asked.more)])
    signal.signal(signal.SIGTERM, lambda *_: None)  # the training gets it as well, and is waited for
    code: Any = 0
    try:
        trained(asked, name, *asked.more, epochs=10 if asked.on_gpu else 1)
    except SystemExit as ended:
        code = ended.code
    run = asked.work / name
    rates: list[float] = []
    for file in run.glob("joint/csv/version_0/metrics.csv"):
        rates = [float(row[RATE]) for row in csv.DictReader(file.read_text().splitlines()) if row.get(RATE)]
    found = [json.loads(file.read_text()) for file in run.glob("result.json")]
    keys = ("seconds", "steps", "images_per_s", "peak_memory_bytes", "hardware", "macs", "metrics")
    record = {key: found[0].get(key) for key in keys} if found else {}
    parts = [f"{rates[-1]:,.0f} images/s in the last of {len(rates)} epochs"] if rates else []
    parts += [f"{record['seconds']:.0f} s in all, {record['peak_memory_bytes'] / 2**30:.2f} GiB"] if record else []
    if parts:
        write(", ".join(parts), images_per_s_by_epoch=rates, **record)
    raise SystemExit(code)


RATE = "throughput/images_per_s"


def video(asked: Asked) -> None:
    """Clips per second and peak memory of a joint and a classification step of videomae_b, batch 8, bf16."""
    import torch

    from benchmarks import step

    sizes = ("videomae_b", 224, 16, 8, 10) if asked.on_gpu else ("videomae_micro", 32, 8, 2, 2)
    encoder, img_size, patch_size, batch, steps = sizes
    words = ["--encoder", encoder, "--img-size", str(img_size), "--patch-size", str(patch_size)]
    args = step.parse([*words, "--batch", str(batch), "--device", asked.device])
    figures: dict[str, Any] = {"encoder": encoder, "img_size": img_size, "batch": batch}
    for variant in ("joint bf16", "full bf16"):
        if asked.on_gpu:
            torch.cuda.reset_peak_memory_stats()
        one = step.stepper(args, variant)
        for _ in range(2):
            one()
        start = time.perf_counter()
        for _ in range(steps):
            one()
        rate = batch * steps / (time.perf_counter() - start)
        peak = torch.cuda.max_memory_allocated() if asked.on_gpu else step.peak_bytes()
        figures[variant] = {"clips_per_s": rate, "peak_memory_bytes": peak}
        del one
    joint = figures["joint bf16"]
    memory = joint["peak_memory_bytes"] / 2**30
    write(f"{encoder}, joint, batch {batch}: {joint['clips_per_s']:.1f} clips/s, {memory:.1f} GiB", **figures)


def export(asked: Asked) -> None:
    """Train a little, and export for torch.export and safetensors; each export is compared with PyTorch."""
    run, apart = trained(asked, "exported", epochs=1), {}
    for name in ("torch_export", "safetensors"):
        command("src.export", f"run={run}", f"format={name}", f"out={asked.work / name}")
        apart[name] = json.loads((asked.work / name / "model.json").read_text())
    write("two exports, equal to PyTorch", **apart)


def predict(asked: Asked) -> None:
    """Predict the test images on the device, with the run of `export`."""
    run = trained(asked, "exported", epochs=1)  # one that is finished is not trained again
    out, pictures = asked.work / "predicted", images_of(asked) / "test"
    start = time.perf_counter()
    command("src.predict", f"run={run}", f"input={pictures}", f"out={out}", f"device={asked.device}")
    seconds = time.perf_counter() - start
    with open(out / "predictions.csv", newline="") as file:
        rows = sum(1 for _ in csv.DictReader(file))
    write(f"{rows} images predicted in {seconds:.1f} s", images=rows, seconds=seconds)


STAGES: dict[str, Callable[[Asked], None]] = {
    **{"env": env, "tests": tests, "input": input_pipeline},
    **{"train": train, "video": video, "export": export, "predict": predict},
}


def main(words: list[str]) -> None:
    name, *settings = words
    own = dict(word.partition("=")[::2] for word in settings if re.match("(device|work|images)=", word))
    require(own["device"], "device=")
    more = tuple(word for word in settings if word.partition("=")[0] not in own)
    STAGES[name](Asked(own["device"], Path(own["work"]), own["images"], more))


if __name__ == "__main__":
    main(sys.argv[1:])
