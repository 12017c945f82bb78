"""The names under which W&B finds what a run is and what it reached."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from src.results.record import Record

RESULT_TAG = "result"  # of the W&B runs that end with the accuracy of a run, one per run
FIGURES: dict[str, str] = {  # name in the summary -> key of the record
    "acc1_last": "metrics.{split}.acc1.last",
    "acc1_best": "metrics.{split}.acc1.best",
    "best_epoch": "metrics.{split}.acc1.best_epoch",
    "acc5_last": "metrics.{split}.acc5.last",
    "loss_last": "metrics.{split}.loss.last",
    "seconds": "seconds",
    "steps": "steps",
    "images_per_s": "images_per_s",
    "data_wait": "data_wait",
    "params_inference": "params.inference",
    "params_training": "params.training",
    "macs_inference": "macs.full",
    "macs_both_passes": "macs.both",
    "macs_step": "macs.step",
    "peak_memory_bytes": "peak_memory_bytes",
    "kwh": "energy.kwh",
    "co2_kg": "energy.co2_kg",
    "co2_kg_lacoste": "energy.co2_kg_lacoste",
    "energy_source": "energy.source",
    "train_images": "data_fingerprint.splits.train",
    "test_images": "data_fingerprint.splits.test",
    "faithful": "faithful",
}


def figures(values: dict[str, Any]) -> dict[str, Any]:
    """The figures of a run's (or a phase's) record as `result/<name>`; what is missing is left out."""
    record = Record(Path(), "", values)
    found = {name: record.get(key.format(split=record.split)) for name, key in FIGURES.items()}
    found["acc1"] = record.accuracy  # THE accuracy, as tables show it
    found["hours"] = values["seconds"] / 3600 if "seconds" in values else None
    found["data_sha256"] = record.text("data_fingerprint.sha256.train") or None
    if "faithful" in values:
        found["unfaithful_reasons"] = "; ".join(record.items("unfaithful_reasons"))
    return {f"result/{name}": value for name, value in found.items() if value is not None}


def facts(config: dict[str, Any], phase: dict[str, Any]) -> dict[str, Any]:
    """What runs differ in, flat and with the recipe's defaults filled in, for W&B's columns and axes."""
    node, learns = config["ssl"], [p for p in config["mode"]["phases"] if p["lam"] < 1]
    encoder = config["encoder"]["name"]
    known: dict[str, Any] = {
        "encoder_name": encoder,
        "data_name": config["data"]["name"],
        "mode_name": config["mode"]["name"],
        "ssl_name": None,
        "phase": phase["name"],
        "lam": phase["lam"],
        "fraction": config["data"].get("fraction", 1.0),
        "label_fraction": config["data"].get("label_fraction", 1.0),
        "batch_size": phase["recipe"]["batch_size"],
        "base_lr": phase["recipe"]["base_lr"],
        "phase_epochs": phase["epochs"],
    }
    if not learns:
        return known
    known["ssl_name"] = "+".join(node["tasks"]) if "tasks" in node else node["name"]
    sizes = learns[0]["recipe"].get("decoder", {})
    sizes = sizes.get("default", {}) | sizes.get(encoder, {})
    for name, key in (("dim", "decoder_dim"), ("depth", "decoder_depth"), ("num_heads", "decoder_heads")):
        if key in node:
            known[key] = sizes.get(name) if node[key] is None else node[key]
    return known | ({"mask_ratio": node["mask_ratio"]} if "mask_ratio" in node else {})
