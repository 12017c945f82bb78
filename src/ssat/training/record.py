"""The records of a phase and of a run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch

from ssat.config.identity import config_hash
from ssat.config.schema import Phase, Run
from ssat.core.launch import say
from ssat.runs.energy import device_tdp
from ssat.runs.faithful import unfaithful_reasons
from ssat.runs.footprint import count_all_macs, count_parameters, lacoste_co2
from ssat.runs.machine import git_commit, hardware, peak_memory_bytes, versions
from ssat.runs.record import SCHEMA
from ssat.training.callbacks.chosen import stopped_early
from ssat.training.callbacks.meter import either
from ssat.training.data import AnyData
from ssat.training.final_tests import final_tests
from ssat.training.module import JointModule
from ssat.training.remarks import evaluated_every
from ssat.training.spectrum import collapse


def over_nodes(totals: dict[str, Any]) -> dict[str, Any]:
    """Energy summed over the nodes, each of which measures itself; the seconds are this process's."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return totals
    everyone: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(everyone, totals)
    metered = [other for other in everyone if other["source"]]
    sums = {key: sum(other[key] for other in metered) for key in ("kwh", "co2_kg")}
    shared = either(*(other["shared"] for other in everyone))
    return totals | sums | {"source": metered[0]["source"] if metered else None, "shared": shared}


def phase_record(
    config: Run,
    phase: Phase,
    run_dir: Path,
    trainer: pl.Trainer,
    module: JointModule,
    data: AnyData,
    inputs: dict[str, Any],
    rows: list[dict[str, float]],
    totals: dict[str, Any],
) -> dict[str, Any]:
    """What the finished phase measured; what its epochs have not is measured here (`final_tests`)."""
    folder = run_dir / phase.name
    metrics = {data.eval_split: summarise(rows, data.eval_split)}
    tested = final_tests(trainer, module, data, folder, metrics.get("val", {}), pictures=config.monitor.pictures)
    module.to("cpu")
    image = (module.encoder.in_chans, *module.encoder.img_size)
    train_seconds = sum(row["train_seconds"] for row in rows)
    waited = sum(row["throughput/data_wait"] * row["train_seconds"] for row in rows)
    images = sum(row["throughput/images_per_s"] * row["train_seconds"] for row in rows)
    return {
        "name": phase.name,
        "hash": config_hash(config),
        "lam": phase.lam,
        "epochs": phase.epochs,
        "stopped": stopped_early(trainer, phase.epochs),
        "seconds": totals["seconds"],
        "steps": trainer.global_step,
        "eval_every": evaluated_every(config, phase, data),
        "images_per_epoch": data.images_per_epoch(config.trainer.processes),
        "images_per_s": images / train_seconds if train_seconds else None,
        "data_wait": waited / train_seconds if train_seconds else None,
        "params": count_parameters(module.encoder, module.head, module.ssl, frozen=module.frozen),
        "macs": all_macs(module, image),
        "compiled": None if module.compiled is None else asdict(module.compiled.outcome),
        "cuda_graph": None if module.replays is None else asdict(module.replays),
        "peak_memory_bytes": peak_memory_bytes(),
        "energy": {
            "kwh": totals["kwh"] if totals["source"] else None,
            "co2_kg": totals["co2_kg"] if totals["source"] else None,
            "co2_kg_lacoste": lacoste_of(config, totals["seconds"]),
            "tdp_watts": rated_watts(config),
            "source": totals["source"],
            "shared": totals["shared"],
            "country": config.footprint.country,
        },
        "data_fingerprint": data.fingerprint(),
        "data_check": asdict(data.overview()),
        "class_names": list(data.class_names),
        "statistics": {"mean": list(data.mean), "std": list(data.std)},
        "inputs": inputs,
        "skipped_images": list(data.skipped),
        "metrics": metrics | tested.metrics,
        "detection": tested.detection.pop("test", None),
        "further_detection": tested.detection,
        "classification": tested.classification.get(data.test_split),
        "collapse": collapse(rows, data.eval_split),
        "history": rows,
        "reconstructions": [
            str(path.relative_to(run_dir)) for path in sorted((folder / "reconstructions").glob("epoch_*.png"))
        ],
        "checkpoints": {
            path.stem: str(path.relative_to(run_dir)) for path in sorted((folder / "checkpoints").glob("*.ckpt"))
        },
    }


def rated_watts(config: Run) -> float | None:
    """The power of one device by the configuration or the table; None where it is not known."""
    return config.footprint.tdp_watts or device_tdp(hardware(config.trainer)["accelerator"])


def lacoste_of(config: Run, seconds: float) -> float | None:
    """kg CO2 of `seconds` on all devices of a run by Lacoste's formula; None where their power is not known."""
    tdp = rated_watts(config)
    devices = config.trainer.processes if hardware(config.trainer)["accelerator"] == "cuda" else 1
    if not tdp:
        return None
    return lacoste_co2(seconds / 3600, devices=devices, tdp_watts=tdp, intensity=config.footprint.intensity)


def all_macs(module: JointModule, image: tuple[int, ...]) -> dict[str, int | None]:
    """MACs of one image, or clip, and of a step; None where those of a user's own encoder or task cannot be counted."""
    parts = module.encoder, module.ssl, image
    try:
        return dict(count_all_macs(*parts, head=module.head))
    except Exception as error:  # they are only written down
        say(f"the multiply-accumulates are not recorded, counting them failed: {type(error).__name__}: {error}")
        return dict.fromkeys(("full", "auxiliary", "both", "step"))


def highest(values: Iterable[float | None]) -> float | None:
    """The largest of `values`; None where one is not known."""
    known = list(values)
    return None if None in known else max(known)  # type: ignore[type-var]


def summarise(rows: list[dict[str, float]], split: str) -> dict[str, dict[str, float]]:
    """Last and best value of each metric of `split`, and the epoch (from 0) of the best."""
    summary = {}
    names = dict.fromkeys(name for row in rows for name in row if name.startswith(f"{split}/"))
    for name in names:
        points = [(row[name], int(row["epoch"])) for row in rows if name in row]
        pick = min if "loss" in name else max
        best, epoch = pick(points, key=lambda point: point[0])
        summary[name.removeprefix(f"{split}/")] = {"last": points[-1][0], "best": best, "best_epoch": epoch}
    return summary


def base_record(config: Run) -> dict[str, Any]:
    """The part of a record that is known before the run."""
    return {
        "schema": SCHEMA,
        "name": config.name,
        "hash": config_hash(config),
        "experiment": config.experiment,
        "encoder": config.encoder.name,
        "data": config.data.name,
        "mode": config.mode.name,
        "seed": config.seed,
        "config": dict(config.values),
        "git_commit": git_commit(),
        "versions": versions(),
        "hardware": hardware(config.trainer),
    }


def finished_record(config: Run, phases: list[dict[str, Any]], started: str) -> dict[str, Any]:
    """The whole run: the last phase's accuracy, the sum of all phases' costs."""
    last = phases[-1]
    reasons = unfaithful_reasons(config, last)
    seconds = sum(phase["seconds"] for phase in phases)

    def total(key: str) -> float | None:
        values = [phase["energy"][key] for phase in phases]
        return None if None in values else sum(values)

    return base_record(config) | {
        "status": "finished",
        "error": None,
        "started": started,
        "finished": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "seconds": seconds,
        "steps": sum(phase["steps"] for phase in phases),
        "images_per_s": last["images_per_s"],
        "data_wait": last["data_wait"],
        "params": {
            "inference": last["params"]["inference"],
            "training": max(phase["params"]["training"] for phase in phases),
        },
        "macs": {key: highest(phase["macs"][key] for phase in phases) for key in last["macs"]},
        "peak_memory_bytes": max(phase["peak_memory_bytes"] for phase in phases),
        "energy": {
            "kwh": total("kwh"),
            "co2_kg": total("co2_kg"),
            "co2_kg_lacoste": total("co2_kg_lacoste"),
            "tdp_watts": last["energy"]["tdp_watts"],
            "source": last["energy"]["source"],
            "shared": either(*(phase["energy"].get("shared") for phase in phases)),  # an earlier version did not know
            "country": last["energy"]["country"],
        },
        "data_fingerprint": last["data_fingerprint"],
        "inputs": last.get("inputs", {}),
        "skipped_images": last["skipped_images"],
        "metrics": last["metrics"],
        "selection": config.mode.phases[-1].recipe.report,
        "faithful": not reasons,
        "unfaithful_reasons": reasons,
        "phases": phases,
    }


def failed_record(config: Run, error: BaseException) -> dict[str, Any]:
    """The record of a run that raised `error`."""
    return base_record(config) | {
        "status": "failed",
        "error": f"{type(error).__name__}: {error}",
        "finished": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "metrics": {},
        "phases": [],
        "faithful": False,
        "unfaithful_reasons": ["the run failed"],
    }
