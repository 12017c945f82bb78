"""One optimizer step: of a plain ViT, packed against a plain two-pass fp32 model with the same weights; of any other
encoder, its masked and joint passes against its full pass.

    python -m benchmarks.step --encoder vit_t --img-size 32 --patch-size 2 --batch 8 --threads 1
    python -m benchmarks.step --encoder cvt_13 --img-size 32
    python -m benchmarks.step --encoder videomae_s --img-size 224 --batch 2 --set ssl.mask_ratio=0.95
    python -m benchmarks.step --pairs 0 --memory-encoders all --img-size 224 --patch-size 16 --batch 8

First checks that both compute the same loss, logits and gradients (to 1e-5; refuses to report otherwise). Then times
them interleaved, O V1 O V2 O ...: a variant's ratio is the mean of its two neighbouring baselines over it, so that a
slowly changing load cancels. Each has a process of its own, which waits while the others compute: ours keeps freed
memory as a training does (ssat.core.allocator), the two-pass one has what a plain script has. Each memory figure is one
step in a process of its own, above the imports. `of peak` is the FLOP/s of the fastest step, counted in multiply-
accumulates of forward and backward, over those of a square matrix product in the same run. Prints a table and writes a
JSON file, after each round of pairs, too.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from omegaconf import OmegaConf
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import passes
from benchmarks.device import Arguments, at_least, output_file, refuse, require, told
from benchmarks.reference import TwoPass
from ssat.core.allocator import HUGE_PAGES, keep_freed_memory
from ssat.core.batch import Batch
from ssat.core.files import write_text
from ssat.encoders.vit import VisionTransformer
from ssat.tasks.masking import mask_from_noise
from ssat.tasks.reconstruction import Reconstruction
from ssat.training.authors_weights import to_official

ROOT = Path(__file__).resolve().parent.parent
LAM = 0.1
TOLERANCE = 1e-5
WARM_UP = 2  # steps
PEAK_SIDE = {"cpu": 1536, "cuda": 8192}  # of the square matrices of the matmul peak
PEAK_REPEATS = 7
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
BASELINE = "two-pass"
VARIANTS = ("two-pass sdpa", "packed", "two-pass bf16", "two-pass sdpa bf16", "packed bf16")
ALL_ENCODERS = ("vit_t", "vit_s", "vit_b", "deit_ti", "vit_2m8", "sl_vit", "cvt_13", "swin_t", "resnet_50")
DECODER = {"dim": 128, "depth": 2, "num_heads": 16}


class Packed(nn.Module):
    """Our encoder, task and head behind the reference's signature."""

    def __init__(self, encoder: VisionTransformer, task: Reconstruction, head: nn.Module) -> None:
        super().__init__()
        self.encoder, self.task, self.head = encoder, task, head

    def forward(self, images: Tensor, labels: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """(joint loss, reconstruction loss, logits); without `noise` the task draws its own masks, as in training."""
        mask = None if noise is None else mask_from_noise(noise, self.task.mask_ratio)
        out = self.task(self.encoder, Batch(images, labels), True, mask=mask)
        logits = self.head(out.features)
        classification = F.cross_entropy(logits, labels, label_smoothing=0.1)
        return LAM * classification + (1 - LAM) * out.loss, out.loss, logits


def is_plain(name: str) -> bool:
    """Whether conf/encoder/<name>.yaml is a ViT that the two-pass reference can be."""
    path = ROOT / "conf" / "encoder" / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in path.parent.glob("*.yaml")))
        refuse(f"--encoder {name} is not one of {known}")
    node = OmegaConf.load(path)
    return name == "vit" or ("vit" in node.get("defaults", []) and node.get("qkv_bias", True))


def baseline_of(args: argparse.Namespace) -> str:
    return args.baseline or (BASELINE if is_plain(args.encoder) else passes.BASELINE)


def encoder_sizes(name: str) -> dict[str, Any]:
    """Width, depth and heads of conf/encoder/<name>.yaml."""
    folder = ROOT / "conf" / "encoder"
    merged = OmegaConf.merge(OmegaConf.load(folder / "vit.yaml"), OmegaConf.load(folder / f"{name}.yaml"))
    return {key: merged[key] for key in ("embed_dim", "depth", "num_heads", "mlp_ratio")}


def build(args: argparse.Namespace, variant: str) -> nn.Module:
    """The model of `variant`; the same weights for every variant of one seed."""
    if variant.startswith("pass ") or not is_plain(args.encoder):
        return passes.Step(*passes.parts(args), variant.removeprefix("pass ")).to(args.device)
    torch.manual_seed(args.seed)
    sizes = encoder_sizes(args.encoder)
    encoder = VisionTransformer(args.img_size, args.patch_size, in_chans=args.channels, **sizes)
    task = Reconstruction(
        encoder,
        decoder_dim=DECODER["dim"],
        decoder_depth=DECODER["depth"],
        decoder_heads=DECODER["num_heads"],
        seed=args.seed,
    )
    head = nn.Linear(encoder.num_features, args.classes)
    if variant.startswith("packed"):
        return Packed(encoder, task, head).to(args.device)
    reference = TwoPass(
        args.img_size,
        args.patch_size,
        in_chans=args.channels,
        dim=sizes["embed_dim"],
        depth=sizes["depth"],
        num_heads=sizes["num_heads"],
        num_classes=args.classes,
        decoder_dim=DECODER["dim"],
        decoder_depth=DECODER["depth"],
        decoder_heads=DECODER["num_heads"],
        lam=LAM,
        mlp_ratio=sizes["mlp_ratio"],
        sdpa="sdpa" in variant,
    )
    reference.load_state_dict(to_official(encoder, task, head))
    return reference.to(args.device)


def data(args: argparse.Namespace, batch: int) -> tuple[Tensor, Tensor, Tensor]:
    """Images or clips, labels and mask noise."""
    generator = torch.Generator().manual_seed(args.seed)
    sides = (args.img_size, args.img_size) if is_plain(args.encoder) else passes.sides(args)
    images = torch.randn(batch, args.channels, *sides, generator=generator)
    labels = torch.randint(args.classes, (batch,), generator=generator)
    noise = torch.rand(batch, (args.img_size // args.patch_size) ** 2, generator=generator)
    return images.to(args.device), labels.to(args.device), noise.to(args.device)


def named_gradients(model: nn.Module) -> dict[str, Tensor]:
    """Gradients under the released names."""
    if isinstance(model, TwoPass):
        return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert isinstance(model, Packed)
    weights = [p for p in model.parameters() if p.grad is not None]
    kept = [p.detach().clone() for p in weights]
    with torch.no_grad():
        for p in weights:
            p.copy_(p.grad)
        gradients = {name: value.clone() for name, value in to_official(model.encoder, model.task, model.head).items()}
        for p, value in zip(weights, kept, strict=True):
            p.copy_(value)
    return gradients


def difference(args: argparse.Namespace) -> dict[str, float]:
    """Largest absolute differences between the packed and the two-pass fp32 model on one batch."""
    images, labels, noise = data(args, min(args.batch, 4))
    outputs, gradients = [], []
    for variant in (BASELINE, "packed"):
        model = build(args, variant)
        outputs.append(model(images, labels, noise))
        outputs[-1][0].backward()
        gradients.append(named_gradients(model))
    (plain, packed), (expected, got) = outputs, gradients
    return {
        "loss": (plain[0] - packed[0]).abs().item(),
        "reconstruction_loss": (plain[1] - packed[1]).abs().item(),
        "logits": (plain[2] - packed[2]).abs().max().item(),
        "gradient": max((expected[name] - got[name]).abs().max().item() for name in expected),
    }


def rounding(args: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Errors of the bf16 variants on one batch against the two-pass model in fp32.

    Returns:
        for each variant the absolute error of the loss, and the relative ones of all logits and of all gradients.
    """
    images, labels, noise = data(args, min(args.batch, 4))

    def run(variant: str) -> tuple[float, Tensor, dict[str, Tensor]]:
        model = build(args, variant)
        with autocast_of(args, variant):
            loss, _, logits = model(images, labels, noise)
        loss.backward()
        return loss.item(), logits.detach().float(), named_gradients(model)

    def relative(a: Tensor, b: Tensor) -> float:
        return ((a - b).norm() / b.norm()).item()

    loss, logits, expected = run(BASELINE)
    found = {}
    for variant in (name for name in VARIANTS if "bf16" in name):
        own, own_logits, gradients = run(variant)
        both = (torch.cat([of[name].flatten() for name in expected]) for of in (gradients, expected))
        found[variant] = {
            "loss": abs(own - loss),
            "logits": relative(own_logits, logits),
            "gradient": relative(*both),
        }
    return found


def autocast_of(args: argparse.Namespace, variant: str) -> AbstractContextManager[Any]:
    return torch.autocast(args.device, torch.bfloat16) if "bf16" in variant else nullcontext()


def stepper(args: argparse.Namespace, variant: str) -> Callable[[], None]:
    """A function that does one optimizer step of `variant`."""
    model = build(args, variant).train()
    images, labels, noise = data(args, args.batch)
    draws_own = not isinstance(model, TwoPass)
    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad], lr=1e-5, weight_decay=0.05, foreach=True
    )
    forward = torch.compile(model) if "compile" in variant else model

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        # Both draw new masks at every step, each in its own way.
        drawn = () if draws_own else (torch.rand_like(noise),)
        with autocast_of(args, variant):
            loss = forward(images, labels, *drawn)[0]
        loss.backward()
        optimizer.step()
        if args.device == "cuda":
            torch.cuda.synchronize()

    return step


def timed(step: Callable[[], None], device: str = "cpu") -> dict[str, float]:
    """Seconds of one step, the machine's load, and on a GPU the peak bytes of this process.

    On a GPU a first step takes the memory that the timed one finds, and all is given back afterwards: the processes of
    the other variants need it.
    """
    if device == "cuda":
        step()
    wall, cpu = time.perf_counter(), time.process_time()
    step()
    found = {
        "wall": time.perf_counter() - wall,
        "cpu": time.process_time() - cpu,
        "load": os.getloadavg()[0],
    }
    if device == "cuda":
        found["peak_bytes"] = torch.cuda.max_memory_allocated()
        torch.cuda.empty_cache()
    return found


Pairs = dict[str, list[dict[str, Any]]]


def measure(args: argparse.Namespace, variants: list[str]) -> Iterator[Pairs]:
    """Per variant one entry a pair: its times and those of the baseline before and after it; all so far, each round.

    A variant that cannot do a step, for want of memory, is said and left out.
    """
    baseline = baseline_of(args)
    with ExitStack() as stack:
        # All are started at once, so that they import side by side; their first steps come one after the other.
        steps = {variant: stack.enter_context(serving(args, variant)) for variant in (baseline, *variants)}
        for variant in list(steps):
            try:
                for _ in range(WARM_UP):
                    steps[variant]()
            except Unable as error:
                if variant == baseline:
                    sys.exit(f"the baseline {variant} did no step: {error}")
                print(f"{variant} did no step and is left out: {error}")
                del steps[variant]
        pairs: Pairs = {variant: [] for variant in steps if variant != baseline}
        if not pairs:
            sys.exit("no variant did a step")
        before = steps[baseline]()
        for _ in range(args.pairs):
            for variant, of in pairs.items():
                own, after = steps[variant](), steps[baseline]()
                ratios = {f"{key}_ratio": (before[key] + after[key]) / 2 / own[key] for key in ("wall", "cpu")}
                of.append({"variant": own, "baseline": [before, after], **ratios})
                before = after
            yield pairs


class Unable(Exception):
    """The process of a variant has ended; the message is the last line of what it said."""


@contextmanager
def serving(args: argparse.Namespace, variant: str) -> Iterator[Callable[[], dict[str, float]]]:
    """A function that lets a process of its own do one step of `variant` and gives its times."""
    said = tempfile.TemporaryFile("w+")  # noqa: SIM115  # closed below, with the process that writes it
    environment = os.environ | ({} if variant.startswith("two-pass") else {HUGE_PAGES: "1"})
    process = subprocess.Popen(
        [*command(args, args.batch), "--serve", variant],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=said,
        text=True,
        env=environment,
    )
    assert process.stdin and process.stdout
    asked, answered = process.stdin, process.stdout

    def ask() -> dict[str, float]:
        with suppress(BrokenPipeError):
            print("step", file=asked, flush=True)
        if not (line := answered.readline()):
            said.seek(0)
            raise Unable((said.read().strip().splitlines() or ["it was ended"])[-1][:200])
        return json.loads(line)

    try:
        yield ask
    finally:
        with suppress(BrokenPipeError):
            asked.close()
        answered.close()
        process.wait()
        said.close()


def serve(args: argparse.Namespace) -> None:
    """Runs in a process of its own: a step and its times for each line that comes."""
    if not args.serve.startswith("two-pass"):
        keep_freed_memory()
    step = stepper(args, args.serve)
    for _ in sys.stdin:
        print(json.dumps(timed(step, args.device)), flush=True)


def step_macs(args: argparse.Namespace, variant: str) -> int:
    """Multiply-accumulates an image of forward and backward of `variant`, as its fp32 form does them.

    Counted are matrix products, convolutions and attention.
    """
    model = build(args, variant).train()
    images, labels, noise = data(args, 2)
    drawn = (noise,) if isinstance(model, TwoPass) else ()
    with FlopCounterMode(display=False) as counter:
        model(images, labels, *drawn)[0].backward()
    return counter.get_total_flops() // 2 // len(images)


def matmul_peak(args: argparse.Namespace, dtype: torch.dtype) -> float:
    """FLOP/s of a square matrix product, the best of `PEAK_REPEATS`, with this process's threads."""
    size = PEAK_SIDE[args.device]
    a, b = (torch.randn(size, size, device=args.device).to(dtype) for _ in range(2))

    def product() -> None:
        a @ b
        if args.device == "cuda":
            torch.cuda.synchronize()

    product()
    clock = clock_of(args)
    return 2 * size**3 / min(timed(product)[clock] for _ in range(PEAK_REPEATS))


def clock_of(args: argparse.Namespace) -> str:
    """CPU time where one thread computes, which another program's load does not lengthen; else wall time."""
    return "cpu" if args.device == "cpu" and args.threads == 1 else "wall"


def roofline(args: argparse.Namespace, pairs: Pairs, peaks: dict[str, float]) -> dict[str, dict[str, float]]:
    """Per measured variant: MACs of an image, FLOP/s of its fastest step, and their share of the matmul peak.

    Args:
        args: of the command.
        pairs: what was measured.
        peaks: FLOP/s of a square matrix product, by "fp32" and "bf16".
    """
    if not any(pairs.values()):
        return {}
    times = {variant: [pair["variant"] for pair in of] for variant, of in pairs.items()}
    times[baseline_of(args)] = [time for of in pairs.values() for pair in of for time in pair["baseline"]]
    found = {}
    for variant, of in times.items():
        macs = step_macs(args, variant.removesuffix(" compile"))
        achieved = 2 * macs * args.batch / min(time[clock_of(args)] for time in of)
        found[variant] = {"macs": macs, "flops": achieved, "share": achieved / peaks[dtype_of(variant)]}
    return found


def dtype_of(variant: str) -> str:
    return "bf16" if "bf16" in variant else "fp32"


def peak_bytes() -> int:
    """High-water mark of this process's memory; VmHWM, because a child inherits ru_maxrss from its parent."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def print_memory(args: argparse.Namespace) -> None:
    """Runs in a process of its own: prints the bytes that one step of `args.memory_of` takes above the imports."""
    if args.device == "cuda":
        stepper(args, args.memory_of)()
        print(torch.cuda.max_memory_allocated())
        return
    if not args.memory_of.startswith("two-pass"):
        keep_freed_memory()
    warm = nn.Linear(2, 2)
    warm(torch.ones(1, 2)).sum().backward()
    torch.optim.AdamW(warm.parameters(), foreach=True).step()
    imports = peak_bytes()
    stepper(args, args.memory_of)()
    print(peak_bytes() - imports)


def peak_memory(args: argparse.Namespace, batch: int, variant: str) -> int:
    """Bytes of one step of `variant` at `batch`, measured in a new process."""
    words = [*command(args, batch), "--memory-of", variant]
    done = subprocess.run(words, cwd=ROOT, check=True, capture_output=True, text=True)
    return int(done.stdout.split()[-1])


def command(args: argparse.Namespace, batch: int) -> list[str]:
    """This benchmark with the same network and data."""
    words = [sys.executable, "-m", "benchmarks.step", "--batch", str(batch)]
    for name in ("encoder", "img_size", "patch_size", "channels", "classes", "device", "threads", "seed"):
        words += [f"--{name.replace('_', '-')}", str(getattr(args, name))]
    return words + (["--set", *args.set] if args.set else [])


def memory_of_encoders(args: argparse.Namespace) -> dict[str, dict[str, int]]:
    """Bytes of one classification and one joint step of each encoder of `--memory-encoders`, by our own passes."""
    used: dict[str, dict[str, int]] = {}
    for name in ALL_ENCODERS if args.memory_encoders == ["all"] else args.memory_encoders:
        of = argparse.Namespace(**vars(args) | {"encoder": name})
        kinds = ("full",) if name == "resnet_50" else ("full", "joint")
        used[name] = {kind: peak_memory(of, args.batch, f"pass {kind}") for kind in kinds}
        print(f"{name}: " + ", ".join(f"{kind} {value / 2**20:.0f} MiB" for kind, value in used[name].items()))
    return used


def summary(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def table(report: dict[str, Any]) -> Table:
    """A row per variant; a ratio whose range includes 1 decides nothing and says so."""
    settings, baseline = report["settings"], report["baseline"]
    title = f"{settings['encoder']} {settings['img_size']}/{settings['patch_size']}, batch {settings['batch']}, "
    result = Table(title=title + f"{settings['device']}, {settings['threads']} thread(s): {baseline} / variant")
    for name in ("variant", "wall ratio", "range", "cpu ratio", "seconds (min)", "of peak"):
        result.add_column(name, justify="left" if name == "variant" else "right", no_wrap=True)
    batches = list(report["memory_bytes"])
    for batch in batches:
        result.add_column(f"peak MiB, batch {batch}", justify="right", no_wrap=True)
    measured = dict.fromkeys(
        (baseline, *report["pairs"], *(name for used in report["memory_bytes"].values() for name in used))
    )
    for variant in measured:
        share = f"{report['roofline'][variant]['share']:.0%}" if variant in report["roofline"] else ""
        row = [variant, "", "", "", "", share]
        if variant == baseline and report["pairs"]:
            row = [variant, "1", "", "1", f"{report['baseline_seconds']['min']:.3f}", share]
        elif variant in report["pairs"]:
            wall, cpu = report["ratios"][variant]["wall"], report["ratios"][variant]["cpu"]
            unresolved = " unresolved" if wall["min"] <= 1 <= wall["max"] else ""
            fastest = min(pair["variant"]["wall"] for pair in report["pairs"][variant])
            span = f"{wall['min']:.2f}-{wall['max']:.2f}{unresolved}"
            row = [variant, f"{wall['median']:.2f}", span, f"{cpu['median']:.2f}", f"{fastest:.3f}", share]
        for batch in batches:
            used = report["memory_bytes"][batch]
            share = f" ({used[variant] / used[baseline]:.2f})" if variant in used else ""
            row.append(f"{used[variant] / 2**20:.0f}{share}" if variant in used else "")
        result.add_row(*row)
    return result


def parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = Arguments(__doc__)
    parser.add_argument("--encoder", default="vit_t", help="a file of conf/encoder")
    parser.add_argument("--img-size", type=at_least(1), default=32)
    parser.add_argument("--patch-size", type=at_least(1), default=2)
    parser.add_argument("--channels", type=at_least(1), default=3)
    parser.add_argument("--classes", type=at_least(1), default=10)
    parser.add_argument("--batch", type=at_least(1), default=8)
    parser.add_argument("--pairs", type=at_least(0), default=5, help="0: memory only")
    parser.add_argument("--threads", type=at_least(1), default=1)
    parser.add_argument("--seed", type=at_least(0), default=0)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument(
        "--variants",
        nargs="*",
        help=f"plain ViTs: {', '.join(VARIANTS)}; other encoders: {', '.join(passes.PASSES)}; default: all",
    )
    parser.add_argument(
        "--baseline", choices=(BASELINE, *VARIANTS), help="what the variants are compared with; default: two-pass"
    )
    parser.add_argument("--set", nargs="*", default=[], help="further values, e.g. encoder.strides=[2,2,2]")
    parser.add_argument(
        "--memory-encoders",
        nargs="*",
        default=[],
        help="also the peak memory of these encoders' steps; all = every one",
    )
    parser.add_argument("--compile", action="store_true", help="also time both, compiled, in the baseline's type")
    parser.add_argument("--memory-batches", type=at_least(0), nargs="*", default=[32], help="none: no memory figures")
    parser.add_argument("--json", type=output_file, help="default: runs/benchmarks/step-<settings>.json")
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    args = parser.parse_args(words)
    require(args.device)
    possible = list(VARIANTS if is_plain(args.encoder) else passes.available(args))
    if args.variants is None:
        args.variants = possible
    if strange := [name for name in args.variants if name not in possible]:
        refuse(f"--variants {strange[0]!r} is not one of {args.encoder}'s: {', '.join(possible)}")
    return args


def main() -> None:
    args = parse()
    torch.set_num_threads(args.threads)
    if args.memory_of:
        print_memory(args)
        return
    if args.serve:
        serve(args)
        return
    console = Console()
    if not console.is_terminal:
        console = Console(width=140)
    plain = is_plain(args.encoder)
    differences = difference(args) if plain else passes.difference(args)
    compared = "packed against two-pass fp32" if plain else "masked pass against its plainest form"
    console.print(f"largest differences, {compared}:", {k: f"{v:.1e}" for k, v in differences.items()})
    if not max(differences.values(), default=0.0) <= TOLERANCE:
        sys.exit(f"the two models differ by more than {TOLERANCE:g}: no times are reported")
    errors = rounding(args) if plain else {}
    for variant, found in errors.items():
        console.print(f"{variant}, error to two-pass fp32:", {key: f"{value:.1e}" for key, value in found.items()})
    dtype = " bf16" if dtype_of(baseline_of(args)) == "bf16" else ""
    compiled = [f"two-pass{dtype} compile", f"packed{dtype} compile"] if args.compile else []
    variants = [*args.variants, *compiled]
    memory = {
        batch: {variant: peak_memory(args, batch, variant) for variant in (baseline_of(args), *args.variants)}
        for batch in args.memory_batches
    }
    once = {
        "settings": {key: value for key, value in vars(args).items() if key not in ("json", "memory_of", "serve")},
        "baseline": baseline_of(args),
        "macs": None if plain else passes.count(args),
        "differences": differences,
        "bf16_errors": errors,
        "memory_bytes": memory,
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__},
        "machine": {"cpus": os.cpu_count(), "platform": platform.platform(), "processor": cpu_name()},
    }
    name = f"step-{args.encoder}-{args.img_size}-{args.patch_size}-b{args.batch}-{args.device}.json"
    path = args.json or ROOT / "runs" / "benchmarks" / name
    pairs: Pairs = {}
    peaks = {key: matmul_peak(args, dtype) for key, dtype in DTYPES.items()} if args.pairs else {}
    if args.device == "cuda":
        torch.cuda.empty_cache()  # the variants have processes of their own
    for pairs in measure(args, variants) if args.pairs else ():
        write_text(path, json.dumps(once | ratios_of(pairs), indent=1))  # of a run that is ended later
    peaks = {key: max(peak, matmul_peak(args, DTYPES[key])) for key, peak in peaks.items()}
    report = {
        **once,
        **ratios_of(pairs),
        "matmul_flops": peaks,
        "roofline": roofline(args, pairs, peaks),
        "memory_of_encoders": memory_of_encoders(args),
    }
    console.print(table(report))
    for dtype, peak in peaks.items():
        console.print(f"matmul peak, {dtype}: {peak / 1e9:,.0f} GFLOP/s; `of peak`: the fastest step's FLOP/s over it")
    write_text(path, json.dumps(report, indent=1))
    console.print(f"written to {path}")


def ratios_of(pairs: Pairs) -> dict[str, Any]:
    """The pairs, and their medians and ranges."""
    baseline = [entry["wall"] for of in pairs.values() for pair in of for entry in pair["baseline"]]
    return {
        "baseline_seconds": summary(baseline) if baseline else None,
        "ratios": {
            variant: {key: summary([pair[f"{key}_ratio"] for pair in of]) for key in ("wall", "cpu")}
            for variant, of in pairs.items()
        },
        "pairs": pairs,
    }


def cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())


if __name__ == "__main__":
    told(main)
