"""Inference of a trained size in PyTorch, torch.export and onnxruntime, beside timm's own network of the same sizes.

    python -m benchmarks.latency --encoder vit_t --img-size 32 --patch-size 4 --batches 1 64

The variants are our network in PyTorch, its graph of torch.export, its ONNX file in onnxruntime, and timm's network
with the same weights, all on the CPU in fp32 with `--threads` threads. They run interleaved, T V1 T V2 T ..., in one
process: a variant's ratio is the mean of its two neighbouring times of timm over its own, so that a slowly changing
load cancels. With one thread the clock is the process's CPU time, which another program's load does not lengthen.
2.0 means twice as fast as timm's. Refuses to report where the logits differ.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks.device import Arguments, at_least, told
from benchmarks.step import encoder_sizes, is_plain
from ssat.encoders.vit import VisionTransformer
from ssat.export.classifier import Classifier
from ssat.export.formats import FORMATS
from ssat.export.parity import Logits, compare, require
from ssat.export.timm_weights import create_call
from ssat.training.classification import linear_head

BASELINE = "timm"
VARIANTS = ("PyTorch", "torch_export", "onnxruntime")


def network(args: argparse.Namespace) -> Classifier:
    """The plain ViT of conf/encoder with random weights."""
    if not is_plain(args.encoder):
        raise SystemExit(f"--encoder {args.encoder} is no plain ViT: there is no timm network beside it")
    torch.manual_seed(0)
    encoder = VisionTransformer(args.img_size, args.patch_size, **encoder_sizes(args.encoder))
    return Classifier(encoder, linear_head(encoder.num_features, args.classes), name=args.encoder)


def variants(model: Classifier, threads: int) -> dict[str, Logits]:
    """The functions that are timed, each checked against the network."""
    import onnxruntime

    found: dict[str, Logits] = {"PyTorch": model}
    with tempfile.TemporaryDirectory() as folder:
        for name, label in (("timm", BASELINE), ("torch_export", "torch_export")):
            file = Path(folder) / FORMATS[name].file
            file.write_bytes(FORMATS[name].encode(model)[0])
            found[label] = FORMATS[name].decode(file, model)
        data, _ = FORMATS["onnx"].encode(model)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    found["onnxruntime"] = lambda images: torch.from_numpy(session.run(None, {"images": images.numpy()})[0])
    for label, function in found.items():
        require(compare(model, function, [model.example(4)]), "random inputs", label)
    return found


@torch.inference_mode()
def seconds(function: Callable[[Tensor], Tensor], images: Tensor, repeats: int) -> float:
    """Of one call, the mean of `repeats`."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    start = clock()
    for _ in range(repeats):
        function(images)
    return (clock() - start) / repeats


def measure(functions: dict[str, Logits], images: Tensor, *, rounds: int, repeats: int) -> dict[str, list[float]]:
    """Ratios of each variant: how many times as fast as timm's network."""
    for function in functions.values():
        seconds(function, images, 2)
    ratios: dict[str, list[float]] = {name: [] for name in VARIANTS}
    before = seconds(functions[BASELINE], images, repeats)
    for _ in range(rounds):
        for name in VARIANTS:
            own = seconds(functions[name], images, repeats)
            after = seconds(functions[BASELINE], images, repeats)
            ratios[name].append((before + after) / 2 / own)
            before = after
    return ratios


def main() -> None:
    parser = Arguments(__doc__)
    parser.add_argument("--encoder", default="vit_t")
    parser.add_argument("--img-size", type=at_least(1), default=32)
    parser.add_argument("--patch-size", type=at_least(1), default=4)
    parser.add_argument("--classes", type=at_least(1), default=10)
    parser.add_argument("--batches", type=at_least(1), nargs="+", default=[1, 64])
    parser.add_argument("--rounds", type=at_least(1), default=15)
    parser.add_argument("--threads", type=at_least(1), default=1)
    parser.add_argument("--out", help="JSON file")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    model = network(args)
    functions = variants(model, args.threads)
    table = Table(title=f"{args.encoder}, {args.img_size} px, patch {args.patch_size}: times as fast as timm's network")
    for heading in ("batch", *VARIANTS):
        table.add_column(heading)
    results: dict[str, Any] = {"arguments": vars(args), "timm": str(create_call(model)), "ratios": {}}
    for batch in args.batches:
        ratios = measure(functions, model.example(batch), rounds=args.rounds, repeats=max(1, 32 // batch))
        results["ratios"][batch] = ratios
        cells = [f"{statistics.median(r):.2f} ({min(r):.2f} to {max(r):.2f})" for r in ratios.values()]
        table.add_row(str(batch), *cells)
    Console().print(table)
    if args.out:
        Path(args.out).write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    told(main)
