"""Steps a second of two CPU processes that exchange gradients, against one process: weak and strong scaling.

    python -m benchmarks.ddp                                   # ViT-T 32/4, 16 images in a step of one process
    python -m benchmarks.ddp --encoder vit_micro --batch 32 --rounds 7 --variants "2 ranks" "2 ranks bf16"

The step is the packed joint step of `benchmarks.step` with AdamW, in DDP as `ssat.training.ddp` sets it up, one thread
a process. `strong`: both ranks share the global batch of the one process. `weak`: each has that batch. The groups stay
alive and take turns, round after round, so that a slowly changing load meets all of them. Wall seconds, because ranks
wait for each other: other programs must leave as many cores free as there are ranks.
First checks that two ranks have the gradients of one process with the same global batch (to 1e-5; bf16 to 2^-7).
Bytes: a gradient of every trainable parameter; a ring all-reduce sends 2 (n - 1) / n of them from each rank.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import queue
import statistics
import time
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from benchmarks.device import Arguments, at_least, output_file, refuse, told
from benchmarks.step import ROOT, build, data, is_plain
from ssat.core.ranks import free_port
from ssat.training.ddp import HOOKS

VARIANTS = ("2 ranks", "2 ranks bf16", "2 ranks static")
TOLERANCE = {"2 ranks": 1e-5, "2 ranks static": 1e-5, "2 ranks bf16": 2**-7}


def wrapped(args: argparse.Namespace, variant: str) -> Any:
    """The joint model, in DDP where there are several ranks."""
    model: Any = build(args, "packed").train()
    if "ranks" not in variant:
        return model
    ddp = DistributedDataParallel(model, gradient_as_bucket_view=True, static_graph="static" in variant)
    if "bf16" in variant:
        ddp.register_comm_hook(None, HOOKS["bf16"])
    return ddp


def part(tensors: tuple[Tensor, ...], rank: int, world: int) -> tuple[Tensor, ...]:
    """This rank's rows of a global batch."""
    return tuple(tensor.chunk(world)[rank] for tensor in tensors)


def gradients(model: Any, batch: tuple[Tensor, ...]) -> Tensor:
    """All gradients of one batch as one vector."""
    model.zero_grad()
    model(*batch)[0].backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def serve(rank: int, world: int, port: int, args: argparse.Namespace, variant: str, orders: Any, answers: Any) -> None:
    """A rank: answers an order (images of a rank, steps) with seconds, and None with its gradients."""
    torch.set_num_threads(1)
    if world > 1:
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": str(rank)}
        os.environ["WORLD_SIZE"] = str(world)
        dist.init_process_group("gloo")
    model = wrapped(args, variant)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-5, foreach=True)
    while (order := orders.get()) != "end":
        if order is None:
            found = gradients(model, part(data(args, args.batch), rank, world))
            answers.put(found.numpy() if rank == 0 else None)
            continue
        images, steps = order
        batch = data(args, images)
        start = time.perf_counter()
        for _ in range(steps):
            optimizer.zero_grad(set_to_none=True)
            model(*batch)[0].backward()
            optimizer.step()
        answers.put(time.perf_counter() - start)
    if world > 1:
        dist.destroy_process_group()


class Group:
    """Ranks that wait for orders."""

    def __init__(self, args: argparse.Namespace, variant: str) -> None:
        self.world = 2 if "ranks" in variant else 1
        context, port = mp.get_context("spawn"), free_port()
        self.orders = [context.Queue() for _ in range(self.world)]
        self.answers = context.Queue()
        self.ranks = [
            context.Process(
                target=serve, args=(rank, self.world, port, args, variant, orders, self.answers), daemon=True
            )
            for rank, orders in enumerate(self.orders)
        ]
        for rank in self.ranks:
            rank.start()

    def ask(self, order: Any) -> list[Any]:
        """The answers of all ranks.

        Raises:
            SystemExit: one of them has ended; its own words are above.
        """
        for orders in self.orders:
            orders.put(order)
        answers: list[Any] = []
        while len(answers) < self.world:
            try:
                answers.append(self.answers.get(timeout=5))
            except queue.Empty:
                if ended := [rank.exitcode for rank in self.ranks if rank.exitcode is not None]:
                    raise SystemExit(f"a rank has ended with exit code {ended[0]}: no times are reported") from None
        return answers

    def end(self) -> None:
        for orders in self.orders:
            orders.put("end")
        for rank in self.ranks:
            rank.join(timeout=30)


def check(one: Group, groups: dict[str, Group]) -> dict[str, float]:
    """Largest difference of each group's gradients from one process's, over their largest.

    Raises:
        SystemExit: it is too large.
    """
    (exact,) = one.ask(None)
    found = {}
    for name, group in groups.items():
        (own,) = (answer for answer in group.ask(None) if answer is not None)
        found[name] = float(abs(own - exact).max() / abs(exact).max())
        if not found[name] <= TOLERANCE[name]:
            raise SystemExit(f"{name}: the gradients differ by {found[name]:.1e}: no times are reported")
    return found


def exchanged(args: argparse.Namespace) -> dict[str, int]:
    """Bytes of one step: all gradients in fp32, and what a rank of a ring of two sends of them in fp32 and bf16."""
    number = sum(p.numel() for p in build(args, "packed").parameters() if p.requires_grad)
    return {"gradients": 4 * number, "sent by a rank": 4 * number * 2 * (2 - 1) // 2, "in bf16": 2 * number}


def main() -> None:
    parser = Arguments(__doc__)
    parser.add_argument("--encoder", default="vit_t", help="a plain ViT of conf/encoder")
    parser.add_argument("--img-size", type=at_least(1), default=32)
    parser.add_argument("--patch-size", type=at_least(1), default=4)
    parser.add_argument("--batch", type=at_least(1), default=16, help="images in a step of one process")
    parser.add_argument("--steps", type=at_least(1), default=3, help="steps of a turn")
    parser.add_argument("--rounds", type=at_least(1), default=7)
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--json", type=output_file, default=ROOT / "runs" / "benchmarks" / "ddp.json")
    args = parser.parse_args()
    args.channels, args.classes, args.seed, args.device, args.set = 3, 10, 0, "cpu", []
    if not is_plain(args.encoder):
        refuse(f"--encoder {args.encoder} is no plain ViT: take one of vit_t, vit_s, vit_b, vit_micro")
    sent = exchanged(args)  # first: it refuses sizes that do not fit
    one, groups = Group(args, "1 process"), {name: Group(args, name) for name in args.variants}
    apart = check(one, groups)
    turns = {(name, images): [] for name in groups for images in (args.batch // 2, args.batch)}
    one.ask((args.batch, 1))
    for name, images in turns:
        groups[name].ask((images, 1))
    loads = []
    (before,) = one.ask((args.batch, args.steps))
    for _ in range(args.rounds):
        for (name, images), ratios in turns.items():
            own = max(groups[name].ask((images, args.steps)))
            (after,) = one.ask((args.batch, args.steps))
            ratios.append((before + after) / 2 / own)  # steps/s over those of one process
            before = after
        loads.append(os.getloadavg()[0])
    for group in (one, *groups.values()):
        group.end()
    print(
        f"{args.encoder} {args.img_size}/{args.patch_size}, a thread a process; load {min(loads):.1f}-{max(loads):.1f}"
    )
    print(f"bytes of a step: {', '.join(f'{name} {value:,}' for name, value in sent.items())}")
    print(f"one process: {args.batch} images, {args.steps / before:.2f} steps/s")
    for (name, images), ratios in turns.items():
        kind, ideal = ("weak", 1) if images == args.batch else ("strong", 2)
        speed = statistics.median(ratios)
        print(
            f"{name:15} {kind:6} {images} images a rank: steps/s {speed:.2f} ({min(ratios):.2f}-{max(ratios):.2f}) of"
            f" one process's, {speed / ideal:.0%} of the ideal {ideal}; gradients differ by {apart[name]:.0e}"
        )
    report = {
        "settings": {key: value for key, value in vars(args).items() if key != "json"},
        "differences": apart,
        "bytes": sent,
        "ratios": [{"variant": name, "images": images, "ratios": of} for (name, images), of in turns.items()],
        "load": loads,
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
    }
    args.json.parent.mkdir(parents=True, exist_ok=True)
    args.json.write_text(json.dumps(report, indent=1) + "\n")
    print(f"written to {args.json}")


if __name__ == "__main__":
    told(main)
