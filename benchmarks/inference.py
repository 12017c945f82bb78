"""Inference of a trained ViT-T as `predict` runs it, beside timm's own network with the same weights, on the CPU.

    python -m benchmarks.inference                    # 32 px patch 2 and 224 px patch 16, batches of 1 and 64
    python -m benchmarks.inference --sizes 224/16 --batches 1 --pairs 15

Ours is encoder and head in evaluation mode, as `predict` calls them (`ssat.export.classifier`), timm's is `vit_tiny`
of the same sizes with our weights by `ssat.export.timm_weights`. Both run in fp32, under `torch.inference_mode`. The
logits are compared first, and no time is reported where they differ. Then T O T O ..., in one process: a ratio is the
mean of timm's two neighbouring times over ours; 1.2 means that ours takes 1/1.2 of the time. With one thread the clock
is the process's CPU time, which another program's load does not lengthen.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
from pathlib import Path
from typing import Any

import timm
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from benchmarks.device import Arguments, at_least, output_file, refuse, told
from benchmarks.latency import seconds
from benchmarks.step import ROOT, cpu_name, encoder_sizes, is_plain
from ssat.encoders.vit import VisionTransformer
from ssat.export.classifier import Classifier
from ssat.export.formats import FORMATS
from ssat.training.classification import linear_head

TOLERANCE = 1e-5


def networks(encoder: str, img_size: int, patch_size: int, folder: Path) -> tuple[Classifier, Any]:
    """Our classifier with random weights, and timm's network with the same ones."""
    torch.manual_seed(0)
    network = VisionTransformer(img_size, patch_size, **encoder_sizes(encoder))
    ours = Classifier(network, linear_head(network.num_features, 10), name=encoder).eval()
    file = folder / FORMATS["timm"].file
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(FORMATS["timm"].encode(ours)[0])
    return ours, FORMATS["timm"].decode(file, ours)


@torch.inference_mode()
def difference(ours: nn.Module, other: Any, images: Tensor) -> float:
    """Largest absolute difference of the logits over their largest size."""
    first, second = ours(images), other(images)
    return ((first - second).abs().max() / second.abs().max()).item()


def ratios(ours: Any, other: Any, images: Tensor, *, pairs: int, repeats: int) -> tuple[list[float], list[float]]:
    """Ratios of the pairs, and our seconds of a call."""
    for function in (ours, other):
        seconds(function, images, 2)
    found, own = [], []
    before = seconds(other, images, repeats)
    for _ in range(pairs):
        own.append(seconds(ours, images, repeats))
        after = seconds(other, images, repeats)
        found.append((before + after) / 2 / own[-1])
        before = after
    return found, own


def sides(text: str) -> tuple[int, int]:
    """Image and patch of `32/2`."""
    first, slash, second = text.partition("/")
    if not (slash and first.isdigit() and second.isdigit() and int(second)):
        raise argparse.ArgumentTypeError(f"{text} is not image/patch in pixels, as 32/2")
    return int(first), int(second)


def main() -> None:
    parser = Arguments(__doc__)
    parser.add_argument("--encoder", default="vit_t")
    parser.add_argument("--sizes", type=sides, nargs="+", default=[(32, 2), (224, 16)], help="image/patch, as 32/2")
    parser.add_argument("--batches", type=at_least(1), nargs="+", default=[1, 64])
    parser.add_argument("--pairs", type=at_least(1), default=9)
    parser.add_argument("--threads", type=at_least(1), default=1)
    parser.add_argument("--json", type=output_file, default=ROOT / "runs" / "benchmarks" / "inference.json")
    args = parser.parse_args()
    if not is_plain(args.encoder):
        refuse(
            f"--encoder {args.encoder} is no plain ViT, and timm's is one: take one of vit_t, vit_s, vit_b, vit_micro"
        )
    torch.set_num_threads(args.threads)
    table = Table(title=f"{args.encoder}, fp32, {args.threads} thread(s): timm's seconds / ours")
    for heading in ("image/patch", "batch", "difference", "ratio", "range", "ours, ms an image", "load"):
        table.add_column(heading, justify="right")
    rows = []
    for img_size, patch_size in args.sizes:
        size = f"{img_size}/{patch_size}"
        ours, other = networks(args.encoder, img_size, patch_size, args.json.parent / ".inference")
        for batch in args.batches:
            images = ours.example(batch)
            apart = difference(ours, other, images)
            if not apart <= TOLERANCE:
                raise SystemExit(f"{size}, batch {batch}: the logits differ by {apart:.1e}: no times are reported")
            found, own = ratios(ours, other, images, pairs=args.pairs, repeats=max(1, 16 // batch))
            row = {"size": size, "batch": batch, "difference": apart, "ratios": found, "seconds": own}
            rows.append(row | {"load": os.getloadavg()[0]})
            span = f"{min(found):.2f}-{max(found):.2f}" + (" unresolved" if min(found) <= 1 <= max(found) else "")
            cells = (f"{apart:.0e}", f"{statistics.median(found):.2f}", span, f"{1e3 * min(own) / batch:.2f}")
            table.add_row(size, str(batch), *cells, f"{os.getloadavg()[0]:.1f}")
    Console(width=110).print(table)
    versions = {"python": platform.python_version(), "torch": torch.__version__, "timm": timm.__version__}
    report = {"threads": args.threads, "versions": versions, "processor": cpu_name(), "rows": rows}
    args.json.write_text(json.dumps(report, indent=1) + "\n")
    print(f"written to {args.json}")


if __name__ == "__main__":
    told(main)
