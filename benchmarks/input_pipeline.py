"""Images per second of the two input pipelines, interleaved in one process.

    python -m benchmarks.input_pipeline small=<folder of small images> large=<folder of large images> [device=cuda]

`small` (class folders, all images of one size, e.g. 32x32): held in memory (Pillow images for the baseline, 8-bit
pixels for the batched pipeline), then the whole training augmentation; PIL with timm, image by image, against the
batched pipeline as training uses it. `large` (JPEG files of any size, e.g. Flowers): reading and decoding them and
cropping them at random to 224 px, and the same with the whole augmentation. First checks that both pipelines evaluate
the first images to the same pixels, to one grey level, and refuses to report otherwise. One thread, time of the
processor, freed memory is kept as in training; the ratio of a round is that of its two neighbouring measurements. On a
GPU the batched pipeline alone, with the images on the device. Prints medians and ranges and writes
runs/benchmarks/input_pipeline.json, with versions and the machine's load before and after.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import __version__ as PIL_VERSION
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks.device import require, told
from ssat.config.augmentation import Augment
from ssat.core.allocator import keep_freed_memory
from ssat.core.errors import UserError
from ssat.data.memory import DecodedDataset, IndexDataset, Prepare, load
from ssat.data.sampler import Key
from ssat.data.sets.folder import image_folder
from ssat.data.sets.sources import ImageList, Source
from ssat.data.transforms.augment import EvalTransform, Normalise, TrainTransform
from ssat.data.transforms.timm_transforms import eval_transform, train_transform
from ssat.runs.machine import versions

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
BATCH = 64
CHECKED = 16  # images
RATES = ("pil", "batched")
DEFAULTS = {"small": "", "large": "", "device": "cpu", "images": "2048", "rounds": "7", "out": "runs/benchmarks"}


def images_per_second(work: Callable[[], int], *, clock: Callable[[], float]) -> float:
    start = clock()
    count = work()
    return count / (clock() - start)


def compare(baseline: Callable[[], int], other: Callable[[], int], rounds: int) -> dict[str, Any]:
    """Rates of both in images per second of processor time, and their ratio round by round."""
    baseline(), other()
    pairs = [
        tuple(images_per_second(work, clock=time.process_time) for work in (baseline, other)) for _ in range(rounds)
    ]
    ratios = [b / a for a, b in pairs]
    first, second = zip(*pairs, strict=True)
    return {
        "pil": statistics.median(first),
        "pil_range": [min(first), max(first)],
        "batched": statistics.median(second),
        "batched_range": [min(second), max(second)],
        "ratio": statistics.median(ratios),
        "range": [min(ratios), max(ratios)],
        "rounds": rounds,
        "load": os.getloadavg()[0],
    }


def check_equal(pictures: list[Any], ours: Tensor, size: int) -> None:
    """The batched evaluation of `pictures` against that of PIL.

    Raises:
        UserError: they differ by more than a grey level.
    """
    evaluate = eval_transform(size, mean=MEAN, std=STD, crop_pct=0.875)
    theirs = torch.stack([evaluate(picture) for picture in pictures])
    apart = float(((ours - theirs) * 255 * torch.tensor(STD).view(3, 1, 1)).abs().max())
    if apart > 1.01:
        raise UserError(f"the pipelines differ by {apart:.1f} grey levels: there is nothing to compare")


def batches(count: int) -> list[list[Key]]:
    return [[(0, index) for index in range(start, start + BATCH)] for start in range(0, count // BATCH * BATCH, BATCH)]


def in_groups(prepare: Prepare, dataset: IndexDataset, count: int, size: int) -> int:
    raws = [dataset.__getitems__(keys) for keys in batches(count)]
    together = prepare.together(BATCH, size)
    done = 0
    for start in range(0, len(raws), together):
        done += sum(len(batch.images) for batch in prepare(raws[start : start + together]))
    return done


def small(source: Source, augment: dict[str, Any], count: int, rounds: int) -> tuple[dict[str, Any], int]:
    """In memory, the whole augmentation; and the bytes that 60,000 such images take."""
    images = source.train
    chosen = np.linspace(0, len(images) - 1, count).astype(np.int64)
    pictures = [images.read(int(index)) for index in chosen]
    memory = load(ImageList(np.stack(pictures), images.labels[chosen]), np.arange(count), 2**33)
    if memory is None:
        raise UserError("small=: the images must be of one size, at most 128 pixels")
    size = memory.pixels.shape[2]
    timm = train_transform(size, mean=MEAN, std=STD, augment=augment)
    prepare = Prepare(TrainTransform(size, mean=MEAN, std=STD, augment=augment), memory, torch.device("cpu"))
    dataset = IndexDataset(ImageList(np.stack(pictures), images.labels[chosen]))

    first = memory[torch.arange(min(CHECKED, count))]
    check_equal(pictures[:CHECKED], EvalTransform(size, mean=MEAN, std=STD)(first), size)

    def one_by_one() -> int:
        return len(torch.stack([timm(picture) for picture in pictures]))

    result = compare(one_by_one, lambda: in_groups(prepare, dataset, count, size), rounds)
    return result, 60_000 * memory.pixels[0].numel()


def large(source: Source, augment: dict[str, Any], count: int, rounds: int, *, only_crop: bool) -> dict[str, Any]:
    """From JPEG files to 224 px: decode and crop, or the whole augmentation."""
    images = source.train
    count = min(count, len(images)) // BATCH * BATCH
    timm = train_transform(224, mean=MEAN, std=STD, augment=augment)
    crop = timm.transforms[0]
    transform = TrainTransform(224, mean=MEAN, std=STD, augment=augment, crop=False)
    dataset = DecodedDataset(images, 224, crop_pct=0.875, crops=[transform])
    prepare = Prepare(transform, None, torch.device("cpu"))

    checked = min(CHECKED, count)
    centred = DecodedDataset(images, 224, crop_pct=0.875).__getitems__([(0, index) for index in range(checked)])
    check_equal([images.read(index) for index in range(checked)], Normalise(MEAN, STD)(centred.crops[0]), 224)

    def one_by_one() -> int:
        for index in range(count):
            (crop if only_crop else timm)(images.read(index))
        return count

    def in_batches() -> int:
        for keys in batches(count):
            raw = dataset.__getitems__(keys)
            if not only_crop:
                prepare([raw])
        return count

    return compare(one_by_one, in_batches, rounds)


def on_gpu(source: Source, augment: dict[str, Any], count: int, rounds: int) -> dict[str, Any]:
    """The batched pipeline with the images on the GPU, wall time."""
    device = torch.device("cuda")
    memory = load(source.train, np.arange(min(count, len(source.train))), 2**33)
    assert memory is not None
    size, held = memory.pixels.shape[2], len(memory.pixels)
    prepare = Prepare(TrainTransform(size, mean=MEAN, std=STD, augment=augment), memory, device)
    dataset = IndexDataset(source.train)

    def run() -> int:
        done = in_groups(prepare, dataset, held, size)
        torch.cuda.synchronize()
        return done

    run()
    rates = [images_per_second(run, clock=time.perf_counter) for _ in range(rounds)]
    return {"batched": statistics.median(rates), "batched_range": [min(rates), max(rates)], "rounds": rounds}


def ranged(bounds: list[float], digits: int) -> str:
    return f"{bounds[0]:.{digits}f} to {bounds[1]:.{digits}f}"


def options(words: list[str]) -> dict[str, str]:
    given = dict(word.partition("=")[::2] for word in words)
    unknown = given.keys() - DEFAULTS.keys()
    if unknown or not (given.get("small") or given.get("large")):
        raise UserError(f"give small=<folder> or large=<folder>; options: {', '.join(DEFAULTS)}")
    option = DEFAULTS | given
    for name in ("images", "rounds"):
        if not option[name].isdigit() or int(option[name]) < 1:
            raise UserError(f"{name}={option[name]} is not a whole number at least 1")
    return option


def main(words: list[str]) -> None:
    """The command."""
    if {"--help", "-h"} & {*words}:
        print(__doc__)
        return
    option = options(words)
    require(option["device"], "device=")
    count, rounds = int(option["images"]), int(option["rounds"])
    augment = asdict(Augment())
    torch.set_num_threads(1)
    keep_freed_memory()
    load = [os.getloadavg()[0]]
    results: dict[str, Any] = {}
    if option["small"]:
        source = image_folder(option["small"])
        if option["device"] == "cuda":
            results["small, on the GPU"] = on_gpu(source, augment, count, rounds)
        else:
            results["small, in memory"], held = small(source, augment, count, rounds)
            results["small, in memory"]["bytes_of_60000_images"] = held
    if option["large"]:
        source = image_folder(option["large"])
        results["large, decode + crop"] = large(source, augment, count, rounds, only_crop=True)
        results["large, everything"] = large(source, augment, count, rounds, only_crop=False)
    table = Table("case", "PIL img/s", "batched img/s", "ratio (range)")
    for name, row in results.items():
        rates = [f"{row[key]:.0f} ({ranged(row[f'{key}_range'], 0)})" if key in row else "" for key in RATES]
        table.add_row(name, *rates, f"{row['ratio']:.2f} ({ranged(row['range'], 2)})" if "ratio" in row else "")
    Console().print(table)
    load.append(os.getloadavg()[0])
    print(f"load {load[0]:.1f} before, {load[1]:.1f} after; torch {torch.__version__}, Pillow {PIL_VERSION}")
    out = Path(option["out"]) / "input_pipeline.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    facts = {"options": option, "versions": versions(), "load": load, "cpus": os.cpu_count(), "results": results}
    out.write_text(json.dumps(facts, indent=1))
    print(f"written to {out}")


if __name__ == "__main__":
    told(partial(main, sys.argv[1:]))
