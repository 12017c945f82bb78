"""From what the parts of a fit cost to what a phase will take: seconds, energy, CO2, memory and disk."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ssat.config.schema import Phase, Run
from ssat.core.schedules import evaluation_period
from ssat.data.video.module import VideoDataModule
from ssat.estimate.cost import MERGED, Cost, gradient_period
from ssat.runs.energy import device_tdp
from ssat.runs.footprint import lacoste_co2
from ssat.runs.machine import hardware, log_every
from ssat.training.data import AnyData

WEIGHING = 4 / 3  # of a step: two more backward passes through the encoder
# Of a recipe, what changes no step's cost.
FREE = (
    *("name", "base_lr", "lr_rule", "min_lr", "warmup_epochs", "warmup_lr", "max_warmup_share"),
    *("betas", "momentum", "eps", "weight_decay", "label_smoothing", "statistics", "report"),
)


@dataclass(frozen=True)
class Amount:
    """Batches of a training epoch and of an evaluation, per process; images of a step over all processes."""

    batches: int
    eval_batches: int
    images: int


def amount_of(config: Run, data: AnyData) -> Amount:
    """How much data a phase has."""
    world = config.trainer.processes
    step, train, evaluated = data.batch_size * world, data.epoch_samples, data.samples(data.eval_split)
    batches = max(1, math.ceil(data.images_per_epoch(world) / step))
    return Amount(batches, math.ceil(math.ceil(evaluated / world) / data.batch_size), min(step, train))


@dataclass(frozen=True)
class Done:
    """What an interrupted phase has behind it; `kwh` is None without codecarbon."""

    steps: int = 0
    seconds: float = 0.0
    kwh: float | None = None


@dataclass(frozen=True)
class Left:
    """How often each part of a phase still comes: optimizer steps, batches, epochs (the last may be cut) and so on."""

    steps: int
    batches: float
    epochs: int
    evaluations: int
    probes: int
    ranks: int
    pictures: int


def left_of(config: Run, phase: Phase, amount: Amount, done: Done) -> Left:
    """What remains of a phase after `done`."""
    steps_per_epoch = math.ceil(amount.batches / config.trainer.accumulate)
    steps = int(min(phase.epochs * steps_per_epoch, config.trainer.max_steps or math.inf))
    epochs, behind = steps // steps_per_epoch, done.steps // steps_per_epoch

    def comes(every: int) -> int:
        return epochs // every - behind // every if every else 0

    every = evaluation_period(config.eval_every, phase.epochs, batches=amount.batches, eval_batches=amount.eval_batches)
    left = max(0, steps - done.steps)
    last_picture = bool(config.reconstruct_every and epochs % config.reconstruct_every)
    return Left(
        steps=left,
        batches=left * amount.batches / steps_per_epoch,
        epochs=math.ceil(steps / steps_per_epoch) - behind,
        evaluations=comes(every),
        probes=sum(comes(getattr(config.monitor, f"{name}_every")) for name in ("knn", "linear")),
        ranks=comes(config.monitor.rank_every),
        pictures=comes(config.reconstruct_every) + last_picture,
    )


def predict(config: Run, phase: Phase, cost: Cost, amount: Amount, done: Done) -> dict[str, Any]:
    """What is left of a phase when `done` is behind it: what each part costs times how often it comes."""
    left = left_of(config, phase, amount, done)
    weighing = gradient_period(config, phase)
    train = left.batches * cost.batch * (1 + WEIGHING / weighing if weighing > MERGED else 1)
    evaluation = left.evaluations * (cost.evaluation + amount.eval_batches * cost.eval_batch)
    evaluation += left.probes * (amount.batches + amount.eval_batches) * cost.eval_batch
    evaluation += left.ranks * amount.eval_batches * cost.eval_batch
    other = cost.once + cost.end + left.epochs * cost.epoch + left.pictures * cost.picture
    other += (train + evaluation) // (60 * config.checkpoint_minutes) * cost.checkpoint
    seconds = train + evaluation + other if left.steps else 0.0
    lines = phase.epochs * (amount.batches / log_every(config) + 2)
    kept = (config.checkpoint_keep or 1) * (cost.last_bytes + cost.best_bytes)
    files = kept + lines * cost.csv_bytes + left.pictures * cost.picture_bytes
    return {
        "name": phase.name,
        "status": "interrupted" if done.steps else "estimated",
        "steps": left.steps,
        "images_per_s": amount.images / cost.batch,
        "seconds": seconds,
        **energy(config, cost, seconds),
        "peak_memory_bytes": cost.peak_memory,
        "disk_bytes": int(files),
        "parts": {"train": train, "evaluation": evaluation, "other": other},
        "timed": cost.timed,
        "data_wait": cost.data_wait,
        "cpu_share": cost.cpu_share,
        "done": asdict(done),
    }


def energy(config: Run, cost: Cost, seconds: float) -> dict[str, float | None]:
    """GPU hours, kWh and kg CO2 of `seconds`: by codecarbon's power, else the device's rated one; as in records."""
    used, footprint = hardware(config.trainer), config.footprint
    on_gpu, hours = used["accelerator"] == "cuda", seconds / 3600
    devices = used["processes"] if on_gpu else 1
    tdp = footprint.tdp_watts or device_tdp(used["accelerator"])
    watts = cost.watts * config.trainer.num_nodes if cost.watts else tdp * devices if tdp else None
    lacoste = None
    if tdp:
        lacoste = lacoste_co2(hours, devices=devices, tdp_watts=tdp, intensity=footprint.intensity)
    return {
        "gpu_hours": hours * devices if on_gpu else None,
        "kwh": watts * hours / 1000 if watts else None,
        "co2_kg": cost.watts * hours / 1000 * cost.kg_per_kwh if cost.watts else None,
        "co2_kg_lacoste": lacoste,
    }


def _loader(config: Run, data: AnyData) -> list[Any]:
    """What decides the cost of loading."""
    if isinstance(data, VideoDataModule):
        return [asdict(config.data.source), data.frames, config.data.frame_step, config.data.max_clips]
    images = data.source.train.images
    loader: list[Any] = [
        data.pipeline,
        images.shape[1:] if isinstance(images, np.ndarray) else asdict(config.data.source),
    ]
    if not isinstance(images, np.ndarray) and data.pipeline == "batched":
        loader.append(data.sizes)  # decoded once, at the start
    return loader


def cost_key(config: Run, phase: Phase, data: AnyData) -> str:
    """What decides what the parts of a phase cost: neither seed nor the number of images and epochs, nor rates."""
    loader = _loader(config, data)
    kept = ("lam_schedule", "balance_every", "head_norm", "frozen", "layer_decay")
    parts = {
        "encoder": asdict(config.encoder) | {"pretrained": None},
        "ssl": asdict(config.ssl) if phase.lam < 1 else None,
        "losses": "both" if 0 < phase.lam < 1 else phase.lam,
        "phase": {key: getattr(phase, key) for key in kept},
        "recipe": {key: value for key, value in asdict(phase.recipe).items() if key not in FREE},
        "data": [getattr(config.data, key) for key in ("img_size", "channels", "hflip", "memory_gb", "num_workers")],
        "labels": config.data.label_fraction < 1 and phase.lam > 0,
        "loader": loader,
        "trainer": {
            key: value for key, value in asdict(config.trainer).items() if key not in ("max_steps", "progress")
        },
        "watched": [config.monitor.conflict_every, config.footprint.energy],
        "pictures": bool(config.reconstruct_every),
    }
    return json.dumps(parts, sort_keys=True, default=str)
