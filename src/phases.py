"""A mode is a list of phases; a phase is one fit. Finished phases are skipped, an interrupted one continues."""

from __future__ import annotations

import os
import signal
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities.exceptions import SIGTERMException

from src.build import build_callbacks, build_data, build_loggers, build_module, build_trainer, quiet, ssl_nodes
from src.callbacks import History, Meter
from src.config import Config, check_same_run, config_hash, flatten, step_batch
from src.data.image import ImageDataModule
from src.energy import device_tdp
from src.footprint import count_macs, count_parameters, count_step_macs, lacoste_co2
from src.launch import is_main_process
from src.module import JointModule
from src.provenance import git_commit, hardware, peak_memory_bytes, versions
from src.results.record import SCHEMA, write_record
from src.run_folder import read_phase
from src.weights import checkpoint_of, load_checkpoint, load_encoder, load_pretrained

PAPER_EPOCHS = 100
PAPER_BATCH = 64
PAPER_MODES = ("scratch", "ssat", "ssl_ft", "finetune")
PAPER_RECONSTRUCTION = ("mae", "convmae", "paper_literal", "convmae_literal", "simmim", "swin_light")
PAPER_SSL = (*PAPER_RECONSTRUCTION, "simclr", "dino", "drloc", "guidance")
USUAL = {"mask": "random", "target": "pixels", "source": "mixed"}
PAPER_PROTOCOLS = ([50, 50], [50, 100], [100, 50], [100, 100])  # epochs of SSL and of fine-tuning, Table 3
PAPER_ENCODERS = ("vit_t", "vit_s", "vit_b", "cvt_13", "swin_t", "resnet_50", "vit_2m8", "sl_vit", "deit_ti")
PAPER_DATA = (
    "cifar10",
    "cifar100",
    "flowers",
    "svhn",
    "imagenet",
    "clipart",
    "infograph",
    "sketch",
    "chaoyang",
    "pmnist",
)


def run_phases(config: Config, run_dir: Path) -> None:
    """Run every phase that is not finished yet and write `result.json`; called once in each process of a run."""
    quiet()
    t = config["trainer"]
    if t["threads"] or t["devices"] > 1:
        torch.set_num_threads(t["threads"] or max(1, (os.cpu_count() or 1) // t["devices"]))
    started = datetime.now(timezone.utc).isoformat(timespec="seconds")
    results: list[dict[str, Any]] = []
    for phase in config["mode"]["phases"]:
        done = run_dir / phase["name"] / "phase.json"
        if done.exists():
            results.append(read_phase(done))
            say(f"{phase['name']}: already finished")
            continue
        results.append(run_phase(config, phase, run_dir))
        if is_main_process():
            write_record(run_dir / phase["name"], results[-1], name="phase.json")
    if is_main_process():
        write_record(run_dir, finished_record(config, results, started))
    if config["logger"]["name"] == "wandb":
        from src.wandb_logger import close_all

        close_all()  # now, with the record's figures in its summary, and before a sweep's next run opens its own


def say(line: str) -> None:
    if is_main_process():
        print(line, flush=True)


def run_phase(config: Config, phase: Config, run_dir: Path) -> dict[str, Any]:
    """One fit, continued from its last checkpoint if there is one; returns the phase's part of the record."""
    folder = run_dir / phase["name"]
    data = build_data(config, phase)
    data.setup()
    module = build_module(config, phase, data.num_classes)
    module.eval_split = data.eval_split
    last = folder / "checkpoints" / "last.ckpt"
    if last.exists():
        checkpoint = load_checkpoint(last)
        check_same_run(config, checkpoint.get("config"), last)
        say(f"{phase['name']}: continuing at step {checkpoint['global_step']} (epoch {checkpoint['epoch'] + 1})")
    else:
        start_from(phase, module, run_dir, config)
    footprint = config["footprint"]
    history, meter = History(), Meter(footprint["country"] if footprint["energy"] else None)
    loggers = build_loggers(config, phase, folder, config_hash(config))
    callbacks = build_callbacks(config, phase, folder, data, history, meter)
    trainer = build_trainer(config, phase, folder, loggers, callbacks)
    try:
        trainer.fit(module, datamodule=data, ckpt_path=last if last.exists() else None, weights_only=True)
    except SIGTERMException:
        # Lightning's own exit code would be 0, and a scheduler would take the run for finished.
        raise SystemExit(128 + signal.SIGTERM) from None
    except SystemExit as stop:
        # Lightning's answer to Ctrl-C, which would end without a word.
        if isinstance(stop.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        raise
    totals = over_nodes(meter.totals)
    return phase_record(config, phase, run_dir, trainer, module, data, history.rows, totals)


def over_nodes(totals: dict[str, Any]) -> dict[str, Any]:
    """Energy summed over the nodes, each of which measures itself; the seconds are this process's."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return totals
    everyone: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(everyone, totals)
    metered = [other for other in everyone if other["source"]]
    sums = {key: sum(other[key] for other in metered) for key in ("kwh", "co2_kg")}
    return totals | sums | {"source": metered[0]["source"] if metered else None}


def start_from(phase: Config, module: JointModule, run_dir: Path, config: Config) -> None:
    """Encoder weights of the phase before, or of the file or run that the user names; head and optimizer stay fresh."""
    source, pretrained = phase["init_from"], config["encoder"].get("pretrained")
    if source is None:
        if pretrained:
            say(f"{phase['name']}: " + load_pretrained(module.encoder, pretrained, adapt_stem=_adapts_stem(config)))
        return
    if source == "previous":
        names = [p["name"] for p in config["mode"]["phases"]]
        path = run_dir / names[names.index(phase["name"]) - 1] / "checkpoints" / "last.ckpt"
    else:
        path = checkpoint_of(Path(source))
    load_encoder(module.encoder, path, teacher=phase.get("start") == "teacher")


def _adapts_stem(config: Config) -> bool:
    return bool(config["encoder"].get("adapt_stem"))


def phase_record(
    config: Config,
    phase: Config,
    run_dir: Path,
    trainer: pl.Trainer,
    module: JointModule,
    data: ImageDataModule,
    rows: list[dict[str, float]],
    totals: dict[str, Any],
) -> dict[str, Any]:
    """What the finished phase measured; evaluates what the epochs' own evaluations have not."""
    folder = run_dir / phase["name"]
    if not any(name.startswith(f"{data.eval_split}/") for name in rows[-1]):
        rows[-1] |= trainer.validate(module, datamodule=data, verbose=False)[0]
    metrics = {data.eval_split: summarise(rows, data.eval_split)}
    if data.eval_split == "val" and "test" in data.sizes and module.head is not None:
        module.eval_split = "test"
        values = trainer.validate(module, dataloaders=data.test_dataloader(), verbose=False)[0]
        metrics["test"] = {name.removeprefix("test/"): {"last": value} for name, value in values.items()}
        best = folder / "checkpoints" / "best.ckpt"
        if best.exists():
            module.load_state_dict(load_checkpoint(best)["state_dict"])
            values = trainer.validate(module, dataloaders=data.test_dataloader(), verbose=False)[0]
            for name, value in values.items():
                metrics["test"][name.removeprefix("test/")] |= {
                    "best": value,
                    "best_epoch": metrics["val"]["acc1"]["best_epoch"],
                }
    module.to("cpu")
    image = (module.encoder.in_chans, *_image_size(config))
    train_seconds = sum(row["train_seconds"] for row in rows)
    waited = sum(row["throughput/data_wait"] * row["train_seconds"] for row in rows)
    images = sum(row["throughput/images_per_s"] * row["train_seconds"] for row in rows)
    tdp = config["footprint"]["tdp_watts"] or device_tdp(hardware(config)["accelerator"])
    processes = config["trainer"]["devices"] * config["trainer"]["num_nodes"]
    devices = processes if hardware(config)["accelerator"] == "cuda" else 1
    return {
        "name": phase["name"],
        "lam": phase["lam"],
        "epochs": phase["epochs"],
        "seconds": totals["seconds"],
        "steps": trainer.global_step,
        "images_per_s": images / train_seconds if train_seconds else None,
        "data_wait": waited / train_seconds if train_seconds else None,
        "params": count_parameters(module.encoder, module.head, module.ssl, frozen=module.frozen),
        "macs": count_macs(module.encoder, module.ssl, image, head=module.head)
        | {"step": count_step_macs(module.encoder, module.ssl, image, head=module.head)},
        "peak_memory_bytes": peak_memory_bytes(),
        "energy": {
            "kwh": totals["kwh"] if totals["source"] else None,
            "co2_kg": totals["co2_kg"] if totals["source"] else None,
            "co2_kg_lacoste": lacoste_co2(
                totals["seconds"] / 3600, devices=devices, tdp_watts=tdp, intensity=config["footprint"]["intensity"]
            )
            if tdp
            else None,
            "tdp_watts": tdp,
            "source": totals["source"],
            "country": config["footprint"]["country"],
        },
        "data_fingerprint": data.fingerprint(),
        "class_names": list(data.class_names),
        "skipped_images": list(data.skipped),
        "metrics": metrics,
        "history": rows,
        "reconstructions": [
            str(path.relative_to(run_dir)) for path in sorted((folder / "reconstructions").glob("epoch_*.png"))
        ],
        "checkpoints": {
            path.stem: str(path.relative_to(run_dir)) for path in sorted((folder / "checkpoints").glob("*.ckpt"))
        },
    }


def _image_size(config: Config) -> tuple[int, int]:
    size = config["encoder"].get("img_size", config["data"]["img_size"])
    return (size, size) if isinstance(size, int) else (size[0], size[1])


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


def base_record(config: Config) -> dict[str, Any]:
    """The part of a record that is known before the run."""
    return {
        "schema": SCHEMA,
        "name": config["name"],
        "hash": config_hash(config),
        "experiment": config["experiment"],
        "encoder": config["encoder"]["name"],
        "data": config["data"]["name"],
        "mode": config["mode"]["name"],
        "seed": config["seed"],
        "config": config,
        "git_commit": git_commit(),
        "versions": versions(),
        "hardware": hardware(config),
    }


def finished_record(config: Config, phases: list[dict[str, Any]], started: str) -> dict[str, Any]:
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
        "macs": {key: max(phase["macs"][key] for phase in phases) for key in last["macs"]},
        "peak_memory_bytes": max(phase["peak_memory_bytes"] for phase in phases),
        "energy": {
            "kwh": total("kwh"),
            "co2_kg": total("co2_kg"),
            "co2_kg_lacoste": total("co2_kg_lacoste"),
            "tdp_watts": last["energy"]["tdp_watts"],
            "source": last["energy"]["source"],
            "country": last["energy"]["country"],
        },
        "data_fingerprint": last["data_fingerprint"],
        "skipped_images": last["skipped_images"],
        "metrics": last["metrics"],
        "selection": last_recipe(config)["report"],
        "faithful": not reasons,
        "unfaithful_reasons": reasons,
        "phases": phases,
    }


def last_recipe(config: Config) -> Config:
    return config["mode"]["phases"][-1]["recipe"]


def failed_record(config: Config, error: BaseException) -> dict[str, Any]:
    return base_record(config) | {
        "status": "failed",
        "error": f"{type(error).__name__}: {error}",
        "finished": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "metrics": {},
        "phases": [],
        "faithful": False,
        "unfaithful_reasons": ["the run failed"],
    }


def beyond_the_paper(config: Config) -> list[str]:
    """What the self-supervised side of a run does that the paper does not."""
    used = [f"ssl={name}" for name in ssl_nodes(config) if name not in PAPER_SSL]
    for node in ssl_nodes(config).values():
        chosen = {key: node.get(key, usual) for key, usual in USUAL.items()}
        used += [f"ssl.{key}={value}" for key, value in chosen.items() if value != USUAL[key]]
    schedule = config["mode"].get("lam_schedule", "constant")
    used += [f"mode.lam_schedule={schedule}"] if schedule != "constant" else []
    return [f"{what} goes beyond the paper" for what in used]


def unfaithful_reasons(config: Config, last: dict[str, Any]) -> list[str]:
    """Why this run's accuracy must not be read as a cell of the paper; empty when it may."""
    data = config["data"]
    reasons = []
    if data["name"] not in PAPER_DATA:
        reasons.append(f"{data['name']} is not one of the paper's data sets")
    if config["encoder"]["name"] not in PAPER_ENCODERS:
        reasons.append(f"{config['encoder']['name']} is not one of the paper's encoders")
    if config["mode"]["name"] not in PAPER_MODES:
        reasons.append(f"mode={config['mode']['name']} is not one of the paper's")
    if any(phase["lam"] < 1 for phase in config["mode"]["phases"]):
        reasons += beyond_the_paper(config)
    if data["fraction"] < 1 or data["samples_per_class"] or data["val_fraction"] or data.get("classes"):
        reasons.append(
            f"trained on {last['data_fingerprint']['splits'].get('train')} images, a part of the training set"
        )
    if data.get("label_fraction", 1.0) < 1:
        reasons.append(f"data.label_fraction={data['label_fraction']}: the labels of a part of the training set")
    if data["protocol"] != "paper":
        reasons.append("data.protocol=strict keeps validation images apart from the training")
    if not data.get("verify", True):
        reasons.append("data.verify=false: the images were not counted against the official set")
    if last["skipped_images"]:
        reasons.append(f"{len(last['skipped_images'])} unreadable images were skipped")
    stages = [phase["epochs"] for phase in config["mode"]["phases"]]
    if len(stages) == 2 and stages not in PAPER_PROTOCOLS:
        reasons.append(f"{stages[0]} + {stages[1]} epochs are none of Table 3's protocols")
    elif len(stages) == 1 and last["epochs"] < PAPER_EPOCHS:
        reasons.append(f"{last['epochs']} of the paper's {PAPER_EPOCHS} epochs")
    recipe = config["recipe"]
    batch = step_batch(recipe["batch_size"], flatten(config))
    published = PAPER_BATCH * (8 if data["name"] == "imagenet" else 1)  # 8 GPUs there
    if recipe["name"] in ("official", "paper") and batch != published:
        reasons.append(f"{batch} images in an optimizer step, in place of {published}")
    if config["trainer"]["max_steps"]:
        reasons.append(f"stopped after {config['trainer']['max_steps']} steps")
    return reasons
